# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.dispatch}.
"""

from __future__ import annotations

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.dispatch import Dispatch, fan_out
from ctrlexec.dispatcher.registry import Unknown
from ctrlexec.dispatcher.results import UNKNOWN_AGENT, DiscoveryRow, PingRow, RunRow
from ctrlexec.errors import TransportError
from ctrlexec.protocol.messages import (
    Capabilities,
    PingAnswer,
    PingRequest,
    RunAnswer,
    RunFinished,
    RunRefused,
    RunRequest,
)
from ctrlexec.values import Target

WEB_1 = Target("web-1", "10.0.0.1", 7443)
RUN = RunRequest("backup", ("full",), "0123456789abcdef")
PING = PingRequest("fedcba9876543210")


@attrs.define
class SlowAgents:
    """
    Agents that answer when, and what, a test wants.
    """

    asked: list[Target] = attrs.field(factory=list)
    answer: Deferred[object] = attrs.field(factory=Deferred)

    async def run(self, target: Target, run: RunRequest) -> RunAnswer:
        """
        See L{ctrlexec.dispatcher.dispatch.Agents}.
        """
        self.asked.append(target)
        answer = await self.answer
        assert isinstance(answer, RunFinished | RunRefused)
        return answer

    async def ping(self, target: Target, ping: PingRequest) -> PingAnswer:
        """
        See L{ctrlexec.dispatcher.dispatch.Agents}.
        """
        self.asked.append(target)
        answer = await self.answer
        assert isinstance(answer, PingAnswer)
        return answer

    async def capabilities(self, target: Target) -> Capabilities:
        """
        See L{ctrlexec.dispatcher.dispatch.Agents}.
        """
        self.asked.append(target)
        answer = await self.answer
        assert isinstance(answer, Capabilities)
        return answer


class DispatchTests(SynchronousTestCase):
    """
    Whatever one agent does becomes a row.
    """

    def setUp(self) -> None:
        self.agents = SlowAgents()
        self.clock = Clock()
        self.dispatch = Dispatch(self.agents, self.clock)

    def row_of_run(self, answer: object) -> RunRow:
        """
        @return: what becomes of a run that is answered after 41.4 ms.
        """
        row = Deferred.fromCoroutine(self.dispatch.run(WEB_1, RUN))
        self.assertNoResult(row)
        self.clock.advance(0.0414)
        self.agents.answer.callback(answer)
        self.assertEqual(self.agents.asked, [WEB_1])
        return self.successResultOf(row)

    def row_of_ping(self, answer: object) -> PingRow:
        """
        @return: what becomes of a ping that is answered after 83 ms.
        """
        row = Deferred.fromCoroutine(self.dispatch.ping(WEB_1, PING))
        self.clock.advance(0.083)
        self.agents.answer.callback(answer)
        return self.successResultOf(row)

    def test_finished(self) -> None:
        """
        A result carries what the script wrote and how it ended.
        """
        row = self.row_of_run(RunFinished("backup", 3, "out", "err", RUN.reqid))
        self.assertEqual(
            row,
            RunRow(
                host="web-1",
                script="backup",
                reqid=RUN.reqid,
                rtt_ms=41,
                exit=3,
                stdout="out",
                stderr="err",
            ),
        )
        self.assertFalse(row.ok)

    def test_ok(self) -> None:
        """
        Exit 0 is the one good end.
        """
        self.assertTrue(self.row_of_run(RunFinished("backup", 0, "", "", "")).ok)

    def test_refused(self) -> None:
        """
        A refusal is an error, and the script never ran.
        """
        row = self.row_of_run(RunRefused("script not permitted"))
        self.assertEqual((row.exit, row.error), (-1, "script not permitted"))
        self.assertFalse(row.ok)

    def test_noAnswer(self) -> None:
        """
        An error becomes a row with its words, its hint, and the time it took.
        """
        row = Deferred.fromCoroutine(self.dispatch.run(WEB_1, RUN))
        self.clock.advance(60)
        self.agents.answer.errback(
            TransportError("read timeout after 60s", hint="wait")
        )
        self.assertEqual(
            self.successResultOf(row),
            RunRow(
                host="web-1",
                script="backup",
                reqid=RUN.reqid,
                rtt_ms=60_000,
                error="read timeout after 60s",
                hint="wait",
            ),
        )

    def test_fault(self) -> None:
        """
        Even a fault of our own is that host's row.
        """
        row = Deferred.fromCoroutine(self.dispatch.run(WEB_1, RUN))
        self.agents.answer.errback(KeyError("oops"))
        error = self.successResultOf(row).error
        self.assertEqual(error, "internal error: KeyError('oops')")

    def test_cancelled(self) -> None:
        """
        Who cancels wants no row.
        """
        row = Deferred.fromCoroutine(self.dispatch.run(WEB_1, RUN))
        row.cancel()
        self.failureResultOf(row, CancelledError)

    def test_pinged(self) -> None:
        """
        A ping tells version and expiry; a name that is only spelled in other
        letters is the same name.
        """
        answer = PingAnswer("WEB-1", "0.1.0", "Jun  7 16:28:00 2027 GMT", PING.reqid)
        self.assertEqual(
            self.row_of_ping(answer),
            PingRow(
                host="web-1",
                reqid=PING.reqid,
                rtt_ms=83,
                version="0.1.0",
                expiry="Jun  7 16:28:00 2027 GMT",
            ),
        )

    def test_anotherName(self) -> None:
        """
        An agent that calls itself something else is shown to do so.
        """
        row = self.row_of_ping(PingAnswer("web-1.example.org", "0.1.0", ""))
        self.assertEqual(row.reported_hostname, "web-1.example.org")

    def test_pingFailed(self) -> None:
        """
        No answer to a ping is a row as well.
        """
        row = Deferred.fromCoroutine(self.dispatch.ping(WEB_1, PING))
        self.agents.answer.errback(TransportError("no"))
        self.assertEqual(self.successResultOf(row).error, "no")

    def test_discovered(self) -> None:
        """
        What an agent offers is its row, beside the name that it goes by.
        """
        offered = Capabilities("other.example.org", "0.1.0")
        row = Deferred.fromCoroutine(self.dispatch.discover(WEB_1))
        self.clock.advance(0.02)
        self.agents.answer.callback(offered)
        self.assertEqual(
            self.successResultOf(row),
            DiscoveryRow(
                host="web-1",
                rtt_ms=20,
                reported_hostname="other.example.org",
                capabilities=offered,
            ),
        )

    def test_discoveredNowhere(self) -> None:
        """
        A stranger is not asked what it offers.
        """
        row = self.successResultOf(
            Deferred.fromCoroutine(self.dispatch.discover(Unknown("nobody")))
        )
        self.assertEqual((row.error, row.ok), (UNKNOWN_AGENT, False))
        self.assertEqual(self.agents.asked, [])


class FanOutTests(SynchronousTestCase):
    """
    Many are asked, a few at a time, and each answer comes when it comes.
    """

    def setUp(self) -> None:
        self.asked: dict[int, Deferred[str]] = {}
        self.arrived: list[str] = []
        self.gone: list[int] = []
        self.told: list[int] = []
        self.wanted = True

    async def ask(self, item: int) -> str:
        """
        Wait for the test to answer.
        """
        self.asked[item] = Deferred()
        try:
            return await self.asked[item]
        except CancelledError:
            self.gone.append(item)
            raise

    def begin(self, count: int, limit: int) -> Deferred[list[str]]:
        """
        Ask about so many items.
        """
        return Deferred.fromCoroutine(
            fan_out(
                range(count),
                self.ask,
                limit=limit,
                wanted=lambda: self.wanted,
                asked=self.told.append,
                arrived=self.arrived.append,
            )
        )

    def test_bounded(self) -> None:
        """
        There are never more under way than the limit; an answer makes room for
        one more.
        """
        done = self.begin(5, limit=2)
        self.assertEqual([*self.asked], [0, 1])
        self.asked[1].callback("one")
        self.assertEqual([*self.asked], [0, 1, 2])
        self.assertNoResult(done)

    def test_completionOrder(self) -> None:
        """
        Answers arrive in the order in which they come; all of them make the
        end.
        """
        done = self.begin(3, limit=3)
        for item, answer in [(2, "two"), (0, "zero"), (1, "one")]:
            self.assertNoResult(done)
            self.asked[item].callback(answer)
        self.assertEqual(self.successResultOf(done), ["two", "zero", "one"])
        self.assertEqual(self.arrived, ["two", "zero", "one"])

    def test_nobody(self) -> None:
        """
        Nobody to ask is an end at once.
        """
        self.successResultOf(self.begin(0, limit=8))

    def test_toldFirst(self) -> None:
        """
        It is told who is asked before there is an answer, and not earlier.
        """
        done = self.begin(3, limit=2)
        self.assertEqual((self.told, self.arrived), ([0, 1], []))
        done.cancel()
        self.failureResultOf(done, CancelledError)

    def test_notWanted(self) -> None:
        """
        When nobody wants more, nobody else is asked; what is under way is
        waited for.
        """
        done = self.begin(5, limit=2)
        self.wanted = False
        self.asked[0].callback("zero")
        self.assertNoResult(done)
        self.asked[1].callback("one")
        self.assertEqual(self.successResultOf(done), ["zero", "one"])
        self.assertEqual([*self.asked], [0, 1])

    def test_cancel(self) -> None:
        """
        Cancelling ends what is under way, and starts nothing more.
        """
        done = self.begin(5, limit=2)
        self.asked[0].callback("zero")
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertEqual(sorted(self.gone), [1, 2])
        self.assertEqual([*self.asked], [0, 1, 2])
        self.assertEqual(self.arrived, ["zero"])

    def test_readerFails(self) -> None:
        """
        When there is nobody to read the answers any more, the rest is given
        up.
        """

        def closed(answer: str) -> None:
            raise BrokenPipeError

        done = Deferred.fromCoroutine(
            fan_out(
                range(4),
                self.ask,
                limit=2,
                wanted=lambda: True,
                asked=self.told.append,
                arrived=closed,
            )
        )
        self.asked[0].callback("zero")
        self.failureResultOf(done, BrokenPipeError)
        self.assertEqual(self.gone, [1])

    def test_atOnce(self) -> None:
        """
        Thousands of answers that are there at once need no deep stack.
        """

        async def known(item: int) -> str:
            return str(item)

        done = Deferred.fromCoroutine(
            fan_out(
                range(20_000),
                known,
                limit=3,
                wanted=lambda: True,
                asked=self.told.append,
                arrived=self.arrived.append,
            )
        )
        self.successResultOf(done)
        self.assertEqual(len(self.arrived), 20_000)

    @given(st.integers(1, 6), st.permutations(range(8)))
    def test_anyOrder(self, limit: int, order: list[int]) -> None:
        """
        Each item is asked about once, whatever is answered first.
        """
        self.setUp()
        done = self.begin(8, limit)
        while waiting := [item for item in order if not self._answered(item)]:
            self.assertLessEqual(len(waiting), limit)
            self.asked[waiting[0]].callback(str(waiting[0]))
        self.successResultOf(done)
        self.assertEqual(sorted(self.arrived), sorted(map(str, order)))

    def _answered(self, item: int) -> bool:
        return item not in self.asked or self.asked[item].called
