# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.local}.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.local import LocalBackend, at_once
from ctrlexec.dispatcher.operations import Dispatcher, Process
from ctrlexec.dispatcher.orders import Caller, RunOrder, Selection
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.results import DiscoveryRow, PingRow, RunRow
from ctrlexec.dispatcher.world import Work
from ctrlexec.errors import NotAuthorised, NotFound, Unconfirmed
from ctrlexec.protocol.messages import RunAnswer, RunRefused
from tests.authority import NOW
from tests.dispatching import Recorder, settings_in
from tests.fake_agents import FakeAgents
from tests.scripted_apis import Seen

BOTH = Selection(("web-1", "web-2"))
ORDER = RunOrder(selection=BOTH, script="backup")


class LocalTests(SynchronousTestCase):
    """
    Orders that this process carries out.
    """

    def setUp(self) -> None:
        self.clock, self.agents = Clock(), FakeAgents()
        self.waited = 0
        self.made = self.backend()
        for name in ("web-1", "web-2"):
            self.made.dispatcher.stores.registry.put(AgentRecord(hostname=name))

    def backend(self, **settings: Any) -> LocalBackend:
        """
        A backend in the test's own directory.
        """
        if not hasattr(self, "home"):
            self.home = Path(self.mktemp())
        dispatcher = Dispatcher.on_files(
            settings_in(self.home, **settings), Recorder(), Process(now=lambda: NOW)
        )
        dispatcher = attrs.evolve(dispatcher, agents=lambda reactor: self.agents)
        return LocalBackend(dispatcher, Caller(username="ann"), self.wait)

    def wait(self, work: Work[Any]) -> Any:
        """
        Have a reactor, for once.
        """
        self.waited += 1
        outcome: list[Any] = []
        Deferred.fromCoroutine(work(self.clock)).addBoth(outcome.append)
        self.clock.pump([0.5] * 5)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        (result,) = outcome
        return result.raiseException() if isinstance(result, Failure) else result

    def test_orders(self) -> None:
        """
        Each goes to the dispatcher, for the caller, with whoever looks on.
        """
        ran: Seen[RunRow] = Seen()
        report = self.made.run(ORDER, ran)
        self.assertEqual([row.host for row in report.rows], ["web-1", "web-2"])
        self.assertEqual((ran.total, ran.hosts), (2, ["web-1", "web-2"]))
        self.assertEqual(ran.rows, report.rows)
        pinged: Seen[PingRow] = Seen()
        self.assertEqual(len(self.made.ping(BOTH, pinged).rows), 2)
        found: Seen[DiscoveryRow] = Seen()
        self.assertEqual(len(self.made.discover(Selection(()), found).rows), 2)
        self.assertEqual(self.waited, 3)
        record = self.made.status(report.reqid)
        assert record.submitter is not None
        self.assertEqual(record.submitter.username, "ann")

    def test_withoutReactor(self) -> None:
        """
        What asks no agent needs none.
        """
        self.assertEqual(len(self.made.select(BOTH).hosts), 2)
        agents, _ = self.made.list_agents({})
        self.assertEqual([each.hostname for each in agents], ["web-1", "web-2"])
        self.assertEqual(self.waited, 0)

    def test_record(self) -> None:
        """
        What became of a run agents may have to be asked.
        """
        self.assertRaises(NotFound, self.made.status, "0123456789abcdef")
        self.assertEqual(self.waited, 1)

    def test_hook(self) -> None:
        """
        A hook is a program that has to be waited for.
        """
        made = self.backend(auth_hook=Path("/no/such/hook"))
        self.assertRaises(NotAuthorised, made.list_agents, {})
        self.assertEqual(self.waited, 1)

    def test_ticks(self) -> None:
        """
        Whoever looks on hears of each second, and of none afterwards.
        """
        slow: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-2": slow}
        self.clock.callLater(2.2, slow.callback, RunRefused("no"))
        onlooker: Seen[RunRow] = Seen()
        self.made.run(ORDER, onlooker)
        self.assertEqual(onlooker.ticks, 2)

    def test_tickFails(self) -> None:
        """
        That they can not be told is no reason to stop.
        """

        def fail() -> None:
            raise OSError("no terminal any more")

        slow: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-2": slow}
        self.clock.callLater(2.2, slow.callback, RunRefused("no"))
        onlooker: Seen[RunRow] = Seen(on_tick=fail)
        self.assertEqual(len(self.made.run(ORDER, onlooker).rows), 2)

    def test_agrees(self) -> None:
        """
        With a yes the order is given again, by the same reactor: it can not be
        started twice.
        """
        asked: list[int] = []

        def yes(unconfirmed: Unconfirmed) -> bool:
            asked.append(unconfirmed.hosts)
            return True

        onlooker: Seen[RunRow] = Seen(answer=yes)
        report = self.backend(confirm_hosts=1).run(ORDER, onlooker)
        self.assertEqual((len(report.rows), asked, self.waited), (2, [2], 1))

    def test_doesNotAgree(self) -> None:
        """
        Without one nobody is asked anything.
        """
        onlooker: Seen[RunRow] = Seen()
        made = self.backend(confirm_hosts=1)
        self.assertRaises(Unconfirmed, made.run, ORDER, onlooker)
        self.assertEqual(self.agents.asked, [])


class AtOnceTests(SynchronousTestCase):
    """
    Work that waits for nothing.
    """

    def test_comesOut(self) -> None:
        """
        Its result, or its error.
        """

        async def result() -> int:
            return 7

        async def error() -> int:
            raise NotFound("no")

        self.assertEqual(at_once(result()), 7)
        self.assertRaises(NotFound, at_once, error())

    def test_waits(self) -> None:
        """
        Whoever waits all the same is told at once, not never.
        """

        async def waits() -> None:
            await Deferred()

        self.assertRaises(AssertionError, at_once, waits())
