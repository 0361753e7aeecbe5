# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.pairing}: how a decision reaches an agent.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ctrlexec.dispatcher.surroundings import Ending
from ctrlexec.errors import StoreError
from ctrlexec.protocol import codec_pairing
from tests.dispatching import NONCE
from tests.pairing import (
    APPROVED,
    REJECTED_JSON,
    ListenerTestCase,
)


class DecisionTests(ListenerTestCase):
    """
    How a decision reaches an agent.
    """

    def test_approved(self) -> None:
        """
        Within half a second the agent has its certificate, and nothing of the
        request is left.
        """
        agent = self.asks()
        reqid = self.decide(APPROVED)
        self.clock.advance(0.5)
        code, answer, more = agent.answers[1]
        self.assertEqual((code, answer["status"], more), (200, "approved", False))
        self.assertEqual(answer["nonce"], NONCE)
        self.assertEqual(self.files(), [])
        self.assertEqual(
            self.log.events[-1].line(),
            f"ACTION=pair-end AGENT=agent-one REQID={reqid} STATUS=delivered",
        )
        self.assertEqual(self.watcher.seen[-1], ("agent-one", Ending.DELIVERED))

    def test_denied(self) -> None:
        """
        The agent hears who said no.
        """
        agent = self.asks()
        self.decide()
        self.clock.advance(0.5)
        self.assertEqual(agent.answers[1], (200, REJECTED_JSON, False))
        self.assertEqual(self.files(), [])
        self.assertEqual(self.watcher.seen[-1], ("agent-one", Ending.DENIED))

    def test_deniedByTheOriginal(self) -> None:
        """
        An empty file is enough for that.
        """
        agent = self.asks()
        (waiting,) = self.pending()
        (self.directory / f"{waiting.id}.denied").touch()
        self.clock.advance(0.5)
        self.assertEqual(agent.answers[1], (200, REJECTED_JSON, False))
        self.assertEqual(self.files(), [])

    def test_oneOfTwo(self) -> None:
        """
        Only the agent that the decision is about hears of it.
        """
        first, second = self.asks(), self.asks()
        reqid = first.answers[0][1]["reqid"]
        self.queue.decide(reqid, APPROVED)
        self.clock.advance(0.5)
        self.assertEqual((len(first.answers), len(second.answers)), (2, 1))

    def test_outOfTime(self) -> None:
        """
        After ten minutes nobody decides any more.
        """
        agent = self.asks()
        self.clock.pump([0.5] * 1199)
        self.assertEqual(len(agent.answers), 1)
        self.clock.advance(0.5)
        expected = {"status": "denied", "reason": "approval timeout"}
        self.assertEqual(agent.answers[1], (200, expected, False))
        self.assertEqual(self.files(), [])
        self.assertEqual(self.watcher.seen[-1], ("agent-one", Ending.EXPIRED))

    def test_decidedAtTheLastMoment(self) -> None:
        """
        A decision between the last look and the end is not lost.
        """
        agent = self.asks()
        self.clock.pump([0.5] * 1199)
        self.threads.held = True
        self.clock.advance(0.5)
        self.decide(APPROVED)
        while self.threads.work:
            self.threads.turn()
        self.assertEqual(agent.answers[1][1]["status"], "approved")
        self.assertEqual(self.watcher.seen[-1], ("agent-one", Ending.DELIVERED))

    def test_agentLeaves(self) -> None:
        """
        The request of an agent that has gone is taken back.
        """
        agent = self.asks()
        agent.leaves()
        self.assertEqual(self.files(), [])
        self.assertEqual(self.log.actions[-1], "pair-end")
        self.assertEqual(self.watcher.seen[-1], ("agent-one", Ending.WITHDRAWN))

    def test_agentLeavesDecided(self) -> None:
        """
        Who decided for nothing can see it: the decision stays where it was
        left.
        """
        agent = self.asks()
        reqid = self.decide(APPROVED)
        agent.leaves()
        self.assertEqual(self.queue.decision(reqid), APPROVED)
        self.assertEqual(self.watcher.seen[-1], ("agent-one", Ending.UNDELIVERED))

    def test_unreadableDecision(self) -> None:
        """
        A decision that can not be read yet is waited for.
        """
        agent = self.asks()
        (waiting,) = self.pending()
        path = self.directory / f"{waiting.id}.approved"
        path.mkdir()
        self.assertRaises(StoreError, self.queue.decision, waiting.id)
        self.clock.advance(0.5)
        path.rmdir()
        path.write_bytes(codec_pairing.encode_pair_decision(APPROVED))
        self.clock.advance(0.5)
        self.assertEqual(agent.answers[1][1]["status"], "approved")

    def test_neverReadable(self) -> None:
        """
        A decision that can never be read does not hold the agent for ever.
        """
        agent = self.asks()
        (waiting,) = self.pending()
        (self.directory / f"{waiting.id}.approved").mkdir()
        self.clock.advance(600)
        self.assertEqual(agent.answers[1][1]["reason"], "approval timeout")
        self.assertNotEqual(self.flushLoggedErrors(StoreError), [])
        (self.directory / f"{waiting.id}.approved").rmdir()

    def test_stop(self) -> None:
        """
        When the listener stops, what is decided is delivered, and the rest is
        taken back without a word.
        """
        decided, waiting = self.asks(), self.asks()
        self.queue.decide(decided.answers[0][1]["reqid"], APPROVED)
        self.successResultOf(Deferred.fromCoroutine(self.listener.stop()))
        self.assertEqual(decided.answers[1][1]["status"], "approved")
        self.assertEqual(len(waiting.answers), 1)
        self.assertEqual(self.files(), [])
        self.assertEqual(
            [what for _, what in self.watcher.seen[2:]],
            [Ending.DELIVERED, Ending.WITHDRAWN],
        )

    def test_stopOnTheWay(self) -> None:
        """
        A request that is on its way into the queue when the listener stops
        does not stay there.
        """
        self.threads.held = True
        agent = self.asks()
        stopping = Deferred.fromCoroutine(self.listener.stop())
        self.assertNoResult(stopping)
        while self.threads.work:
            self.threads.turn()
        self.successResultOf(stopping)
        self.assertEqual(agent.answers, [])
        self.assertEqual(self.files(), [])
