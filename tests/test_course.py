# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.course}: how an order goes over its hosts.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from ctrlexec.dispatcher.orders import Rolling
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.results import Outcome
from ctrlexec.dispatcher.running import POLL_SECONDS
from ctrlexec.dispatcher.runs import RunRecord
from ctrlexec.errors import Locked, Unreachable
from ctrlexec.events import (
    DispatchStopped,
)
from ctrlexec.protocol.messages import (
    RunAccepted,
    RunAnswer,
    RunRequest,
)
from ctrlexec.protocol.run_messages import Output, StreamEnded
from ctrlexec.values import Portion
from tests.authority import NOW
from tests.lives import DONE, FAILED, RunsCase


class RollingTests(RunsCase):
    """
    Hosts are asked some at a time.
    """

    def roll(self, **how: Any) -> Deferred[Any]:
        """
        Begin a run on four hosts.
        """
        return self.begin("web-1", "web-2", "web-3", "web-4", rolling=Rolling(**how))

    def test_batches(self) -> None:
        """
        A lot is asked when the one before has ended, after a while.
        """
        slow: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-1": slow}
        working = self.roll(batch=Portion(2), wait_seconds=1.0)
        self.assertEqual(self.agents.names, ["web-1", "web-2"])
        slow.callback(DONE)
        self.clock.pump([POLL_SECONDS] * 4)
        self.assertEqual(len(self.agents.names), 2)
        self.clock.advance(POLL_SECONDS + 0.01)
        report = self.successResultOf(working)
        self.assertEqual((len(report.rows), report.stopped), (4, False))
        self.assertEqual(self.seen.total, 4)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_canary(self) -> None:
        """
        If the canary fails the others are not started; they are told as that,
        and nobody has waited for it.
        """
        self.agents.answers = {"web-1": FAILED}
        report = self.successResultOf(self.roll(canary=1, wait_seconds=9.0))
        self.assertEqual(self.agents.names, ["web-1"])
        self.assertTrue(report.stopped)
        self.assertEqual(
            self.outcomes(),
            {
                "web-1": "failed",
                "web-2": "not started",
                "web-3": "not started",
                "web-4": "not started",
            },
        )
        self.assertEqual(
            report.warnings, ("the canary has failed: not started on 3 of 4 hosts",)
        )
        self.assertEqual(self.seen.hosts, ["web-1"])
        event = self.written.events[-1]
        assert isinstance(event, DispatchStopped)
        self.assertEqual((event.left, event.reqid), (3, report.reqid))
        states = [each["state"] for each in self.on_record()["results"]]
        self.assertEqual(states.count("not started"), 3)

    def test_maxFailures(self) -> None:
        """
        So it is when more fail than may, also within a lot.
        """
        self.agents.answers = {"web-1": FAILED, "web-2": Unreachable("no")}
        self.dispatcher = self.configured("max_parallel = 1")
        report = self.successResultOf(self.roll(max_failures=Portion(1)))
        self.assertEqual(self.agents.names, ["web-1", "web-2"])
        self.assertTrue(report.stopped)
        self.assertEqual([*self.outcomes().values()].count("not started"), 2)

    def test_enough(self) -> None:
        """
        As many as may fail stop nothing; and where all were asked, nothing was
        stopped.
        """
        for failing, allowed in (("web-1", 1), ("web-4", 0)):
            self.agents.answers = {failing: FAILED}
            report = self.successResultOf(self.roll(max_failures=Portion(allowed)))
            self.assertEqual((len(report.rows), report.stopped), (4, False))
            self.assertEqual(report.warnings, ())

    def test_leaves(self) -> None:
        """
        Who leaves between two lots is not waited for.
        """
        working = self.roll(batch=Portion(2), wait_seconds=3600.0)
        self.seen.wants = False
        self.clock.advance(POLL_SECONDS)
        report = self.successResultOf(working)
        self.assertEqual((len(report.rows), report.stopped), (2, False))

    def test_locked(self) -> None:
        """
        Hosts are locked from the beginning, so that nobody else comes first.
        """
        working = self.roll(batch=Portion(1), wait_seconds=3600.0)
        self.failureResultOf(self.begin("web-4"), Locked)
        working.cancel()
        self.failureResultOf(working, CancelledError)


class RequestTests(RunsCase):
    """
    What an order says reaches the agents.
    """

    def test_asIs(self) -> None:
        """
        A time limit, and what is to happen when nobody waits any more.
        """
        self.run_on("web-1", timeout_seconds=30.0, on_disconnect="cancel")
        request = self.agents.asked[0][1]
        assert isinstance(request, RunRequest)
        self.assertEqual((request.timeout, request.on_disconnect), (30.0, "cancel"))
        self.assertFalse(request.stream or request.asynchronous)

    def test_followed(self) -> None:
        """
        What is followed is heard, and kept as if it had not been.
        """
        event = Output(0.1, "stdout", "up\n", 3)
        self.agents.lives = {"web-1": [event, StreamEnded(1.0, "backup", "", 0)]}
        rows = self.run_on("web-1", follow=True)
        request = self.agents.asked[0][1]
        assert isinstance(request, RunRequest)
        self.assertTrue(request.stream)
        self.assertEqual(self.seen.events, [("web-1", event)])
        self.assertEqual(rows["web-1"].stdout, "up\n")
        self.assertEqual(self.on_record()["results"][0]["stdout"], "up\n")

    def test_notBoth(self) -> None:
        """
        What nobody waits for nobody follows.
        """
        self.agents.answers = {"web-1": RunAccepted("backup", "")}
        self.run_on("web-1", follow=True, asynchronous=True)
        request = self.agents.asked[0][1]
        assert isinstance(request, RunRequest)
        self.assertEqual((request.stream, request.asynchronous), (False, True))

    def test_idempotent(self) -> None:
        """
        A script that the registry knows to be idempotent is asked for again
        where nobody was there; another one is not.
        """
        self.register(AgentRecord(hostname="web-2", idempotent=("backup",)))
        self.agents.answers = dict.fromkeys(("web-1", "web-2"), Unreachable("no"))
        working = self.begin("web-1", "web-2")
        self.agents.answers = {}
        self.clock.advance(1)
        self.successResultOf(working)
        self.assertEqual(self.agents.names, ["web-1", "web-2", "web-2"])
        self.assertEqual(self.outcomes(), {"web-1": "unreachable", "web-2": "ok"})


class OnRecordTests(RunsCase):
    """
    It is on record which hosts were asked, before they are.
    """

    def on_file(self) -> RunRecord:
        """
        What there is of the order while it lasts.
        """
        return self.dispatcher.stores.runs.get(self.seen.reqid, NOW.timestamp())

    def test_inLots(self) -> None:
        """
        Those of later lots are on record as not asked, until it is their turn; to
        an original they look like any that are waited for.
        """
        one: Deferred[RunAnswer] = Deferred()
        two: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-1": one, "web-2": two}
        names = ("web-1", "web-2", "web-3")
        working = self.begin(*names, rolling=Rolling(batch=Portion(1)))
        self.assertEqual(self.on_file().unasked, {"web-2", "web-3"})
        self.assertEqual(self.on_file().pending, names)
        self.assertEqual(self.on_file().entry("web-2")["status"], "accepted")
        one.callback(DONE)
        self.assertEqual(self.on_file().unasked, {"web-3"})
        two.callback(DONE)
        self.successResultOf(working)
        self.assertEqual(self.on_file().unasked, frozenset())

    def test_behindOthers(self) -> None:
        """
        So are those that come when others have ended.
        """
        self.dispatcher = self.configured("max_parallel = 2")
        slow: Deferred[RunAnswer] = Deferred()
        self.agents.answers = dict.fromkeys(("web-1", "web-2"), slow)
        self.begin("web-1", "web-2", "web-3", asynchronous=True)
        self.assertEqual(self.on_file().unasked, {"web-3"})

    def test_notWritten(self) -> None:
        """
        Where that can not be written down any more the others are not asked: nobody
        could tell later that they were.
        """
        slow: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-1": slow}
        working = self.begin("web-1", "web-2", rolling=Rolling(batch=Portion(1)))
        path = self.home / f"state/runs/{self.seen.reqid}.json"
        path.write_text("no record")
        slow.callback(DONE)
        rows = self.successResultOf(working).rows
        self.assertEqual(self.agents.names, ["web-1"])
        self.assertIs(rows[1].outcome, Outcome.NOT_STARTED)
        self.assertIn("run-store-fail", self.written.actions)

    def test_stopped(self) -> None:
        """
        That too many have failed is on record, whether or not somebody waits.
        """
        self.agents.answers = {"web-1": FAILED}
        for asynchronous in (False, True):
            rolling = Rolling(canary=1)
            self.begin("web-1", "web-2", rolling=rolling, asynchronous=asynchronous)
            self.assertTrue(self.on_file().stopped)
