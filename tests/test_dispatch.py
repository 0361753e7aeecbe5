# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.dispatch}.
"""

from __future__ import annotations

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.dispatch import (
    CAN_NOT,
    HOW_TO_UPDATE,
    NOTHING_KNOWN,
    Dispatch,
)
from ctrlexec.dispatcher.registry import Unknown
from ctrlexec.dispatcher.results import (
    UNKNOWN_AGENT,
    CancelRow,
    DiscoveryRow,
    PingRow,
    PsRow,
)
from ctrlexec.errors import TransportError
from ctrlexec.protocol.codec_trust import NoSuchRequest
from ctrlexec.protocol.messages import (
    Capabilities,
    PingAnswer,
    PingRequest,
)
from ctrlexec.protocol.run_messages import (
    CancelDone,
    LiveRun,
    LiveRunsAnswer,
    NoSuchRun,
    Signalled,
)
from ctrlexec.values import Target
from tests.fake_agents import FakeAgents

WEB_1 = Target("web-1", "10.0.0.1", 7443)
PING = PingRequest("fedcba9876543210")


@attrs.define
class SlowAgents(FakeAgents):
    """
    Agents that answer when, and what, a test wants.
    """

    answer: Deferred[object] = attrs.field(factory=Deferred)

    async def ping(self, target: Target, ping: PingRequest) -> PingAnswer:
        """
        See L{ctrlexec.dispatcher.dispatch.Agents}.
        """
        self.asked.append((target, None))
        answer = await self.answer
        assert isinstance(answer, PingAnswer)
        return answer

    async def capabilities(self, target: Target) -> Capabilities:
        """
        See L{ctrlexec.dispatcher.dispatch.Agents}.
        """
        self.asked.append((target, None))
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

    def row_of_ping(self, answer: object) -> PingRow:
        """
        @return: what becomes of a ping that is answered after 83 ms.
        """
        row = Deferred.fromCoroutine(self.dispatch.ping(WEB_1, PING))
        self.clock.advance(0.083)
        self.agents.answer.callback(answer)
        return self.successResultOf(row)

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

    def test_fault(self) -> None:
        """
        Even a fault of our own is that host's row.
        """
        row = Deferred.fromCoroutine(self.dispatch.ping(WEB_1, PING))
        self.agents.answer.errback(KeyError("oops"))
        error = self.successResultOf(row).error
        self.assertEqual(error, "internal error: KeyError('oops')")

    def test_cancelled(self) -> None:
        """
        Who cancels wants no row.
        """
        row = Deferred.fromCoroutine(self.dispatch.ping(WEB_1, PING))
        row.cancel()
        self.failureResultOf(row, CancelledError)

    def test_discoveredNowhere(self) -> None:
        """
        A stranger is not asked what it offers.
        """
        row = self.successResultOf(
            Deferred.fromCoroutine(self.dispatch.discover(Unknown("nobody")))
        )
        self.assertEqual((row.error, row.ok), (UNKNOWN_AGENT, False))
        self.assertEqual(self.agents.asked, [])


class RunsTests(SynchronousTestCase):
    """
    Agents end runs, and tell what runs.
    """

    def setUp(self) -> None:
        self.agents = FakeAgents()
        self.dispatch = Dispatch(self.agents, Clock())

    def cancel(self) -> CancelRow:
        """
        @return: what becomes of ending a run.
        """
        working = self.dispatch.cancel(WEB_1, "r1")
        return self.successResultOf(Deferred.fromCoroutine(working))

    def ps(self) -> PsRow:
        """
        @return: what becomes of asking what runs.
        """
        return self.successResultOf(Deferred.fromCoroutine(self.dispatch.ps(WEB_1)))

    def test_ended(self) -> None:
        """
        What was signalled is told.
        """
        signalled = (Signalled(12, "sleep", "TERM"),)
        self.agents.ends = {"web-1": CancelDone("r1", "cancelled", signalled)}
        row = CancelRow(
            host="web-1", reqid="r1", state="cancelled", signalled=signalled
        )
        self.assertEqual(self.cancel(), row)
        self.assertTrue(row.ok)

    def test_nothingToEnd(self) -> None:
        """
        That an agent knows of no such run is no success: it may be on its way.
        """
        self.agents.ends = {"web-1": NoSuchRun("r1")}
        row = self.cancel()
        self.assertEqual((row.ok, row.error), (False, NOTHING_KNOWN))
        self.assertIn("is not started", row.hint)

    def test_listed(self) -> None:
        """
        What runs is told, with the number of runs that are others'.
        """
        run = LiveRun("r1", "backup", "running", "2026-11-20T22:32:04Z", 3.5)
        self.agents.running = {"web-1": LiveRunsAnswer((run,), 2)}
        self.assertEqual(self.ps(), PsRow(host="web-1", runs=(run,), others=2))

    def test_original(self) -> None:
        """
        An agent of the original can do neither, which is said in words.
        """
        lost = NoSuchRequest("the agent answered 404: not found")
        self.agents.ends = {"web-1": lost}
        self.agents.running = {"web-1": lost}
        for row in (self.cancel(), self.ps()):
            self.assertEqual((row.error, row.hint), (CAN_NOT, HOW_TO_UPDATE))

    def test_nowhere(self) -> None:
        """
        A stranger is not asked.
        """
        nobody = Unknown("nobody")
        cancel = Deferred.fromCoroutine(self.dispatch.cancel(nobody, "r1"))
        self.assertEqual(self.successResultOf(cancel).error, UNKNOWN_AGENT)
        ps = Deferred.fromCoroutine(self.dispatch.ps(nobody))
        self.assertEqual(self.successResultOf(ps).error, UNKNOWN_AGENT)
        self.assertEqual((self.agents.asked, self.agents.ended), ([], []))
