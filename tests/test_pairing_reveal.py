# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.attempt} and L{ctrlexec.dispatcher.unrevealed}:
what becomes of a commitment.
"""

from __future__ import annotations

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.records import Revealed
from ctrlexec.dispatcher.requests import code_of
from ctrlexec.dispatcher.surroundings import Ending
from ctrlexec.dispatcher.unrevealed import Unrevealed
from ctrlexec.protocol.exchange import Request
from ctrlexec.protocol.limits import PAIRING_UNREVEALED
from tests.dispatching import REQID
from tests.pairing import (
    APPROVED,
    ASKED,
    COMMITTED,
    NONCE_A,
    Agent,
    ListenerTestCase,
)
from tests.wired import CA, DISPATCHER

INVALID = {"status": "error", "reason": "invalid request"}


class RevealTests(ListenerTestCase):
    """
    Commit, then reveal.
    """

    def assertOnlyOpened(self, agent: Agent) -> None:
        """
        The agent has had no second answer, and nobody sees that it asked.
        """
        ((code, answer, more),) = agent.answers
        self.assertEqual((code, answer["status"], more), (200, "pending", True))
        self.assertEqual(self.pending(), [])

    def assertAbandoned(self, agent: Agent, reason: str) -> None:
        """
        The log and whoever looks on know that somebody may have guessed.
        """
        self.assertEqual(self.pending(), [])
        self.assertIn(reason, self.log.events[-1].line())
        self.assertEqual(self.log.actions[0], "pair-reject")
        self.assertIn(("192.0.2.1", "abandoned"), self.watcher.seen)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_opened(self) -> None:
        """
        A commitment is answered with a nonce, the CA, and the certificate of
        the connection; there is nothing yet for a person to see.
        """
        agent = self.asks(COMMITTED)
        self.assertOnlyOpened(agent)
        answer = agent.answers[0][1]
        self.assertEqual(answer["pair"], 2)
        self.assertRegex(answer["nonce_d"], r"\A[0-9a-f]{64}\Z")
        self.assertEqual(answer["ca"], CA.decode())
        self.assertEqual(answer["cert"], DISPATCHER.cert.decode())
        self.assertEqual((self.log.events, self.watcher.seen), ([], []))
        agent.leaves()

    def test_freshNonces(self) -> None:
        """
        No two agents get the same nonce, or the same id.
        """
        answers = [self.asks(COMMITTED).answers[0][1] for _ in range(9)]
        for name in ("nonce_d", "reqid"):
            self.assertEqual(len({answer[name] for answer in answers}), 9)
        self.clock.advance(10)

    def test_revealed(self) -> None:
        """
        Once the nonce is shown the request waits, with the code that covers
        what both sides have shown.
        """
        agent = self.asks(COMMITTED)
        answer = agent.answers[0][1]
        agent.reveals()
        (waiting,) = self.pending()
        self.assertEqual(
            waiting.revealed,
            Revealed(NONCE_A, answer["nonce_d"], answer["ca"], answer["cert"]),
        )
        self.assertEqual((waiting.id, waiting.legacy), (answer["reqid"], False))
        self.assertEqual(waiting.code, code_of(waiting))
        pending = {"status": "pending", "reqid": waiting.id}
        self.assertEqual(agent.answers[1], (200, pending, True))
        self.assertEqual(self.watcher.seen, [("agent-one", "arrived")])
        self.clock.advance(599)
        self.decide(APPROVED)
        self.clock.advance(0.5)
        self.assertEqual(agent.answers[2][1]["status"], "approved")
        self.assertEqual(self.watcher.seen[-1], ("agent-one", Ending.DELIVERED))

    def test_otherNonce(self) -> None:
        """
        What is shown must be what was committed to.
        """
        for changes in ({"nonce_a": "b2" * 32}, {"reqid": REQID}, {"nonce_a": "x"}):
            self.setUp()
            agent = self.asks(COMMITTED)
            agent.reveals(**changes)
            self.assertEqual(agent.answers[1], (200, INVALID, False))
            self.assertAbandoned(agent, "revealed")

    def test_otherRequest(self) -> None:
        """
        Nothing else may be asked in its place.
        """
        for request in (
            Request("POST", "/pair", b"{}"),
            Request("GET", "/pair-reveal", b"{}"),
            Request("POST", "/pair-reveal", b"{"),
        ):
            self.setUp()
            agent = self.asks(COMMITTED)
            agent.says(request)
            self.assertEqual(agent.answers[1], (200, INVALID, False))
            self.assertAbandoned(agent, "nothing was revealed")

    def test_elsewhere(self) -> None:
        """
        A nonce that is shown on a connection of its own belongs to nothing.
        """
        agent = self.asks(b"{}", path="/pair-reveal")
        self.assertEqual(agent.answers, [(404, {"error": "not found"}, False)])

    def test_neverRevealed(self) -> None:
        """
        Who keeps their nonce is sent away after ten seconds.
        """
        agent = self.asks(COMMITTED)
        self.clock.advance(9.9)
        self.assertOnlyOpened(agent)
        self.clock.advance(0.1)
        expected = {"status": "error", "reason": "never revealed"}
        self.assertEqual(agent.answers[1], (200, expected, False))
        self.assertAbandoned(agent, "never revealed")

    def test_leaves(self) -> None:
        """
        Who leaves instead has not been here for nothing: it is told.
        """
        agent = self.asks(COMMITTED)
        agent.leaves()
        self.assertAbandoned(agent, "never revealed")

    def test_guesses(self) -> None:
        """
        So many may know a code and leave; then nobody may for ten minutes.
        """
        for _ in range(PAIRING_UNREVEALED):
            self.asks(COMMITTED).leaves()
        agent = self.asks(COMMITTED)
        expected = {
            "status": "error",
            "reason": "too many requests were never revealed",
        }
        self.assertEqual(agent.answers, [(200, expected, False)])
        self.clock.advance(600)
        self.assertOnlyOpened(self.asks(COMMITTED))
        self.clock.advance(10)

    def test_honest(self) -> None:
        """
        Those who reveal and wait for the decision are not counted, however many
        they are.
        """
        for _ in range(PAIRING_UNREVEALED * 2):
            agent = self.asks(COMMITTED)
            agent.reveals()
            self.decide(APPROVED)
            self.clock.advance(0.5)
        self.assertOnlyOpened(self.asks(COMMITTED))
        self.clock.advance(10)

    def assertNoMoreGuesses(self) -> None:
        """
        Nobody is let in any more.
        """
        ((_, answer, _),) = self.asks(COMMITTED).answers
        self.assertEqual(answer["reason"], "too many requests were never revealed")

    def test_revealedAndLeft(self) -> None:
        """
        To reveal and leave at once is a guess like any other: no person can
        have looked at what was in the queue for a moment.
        """
        for _ in range(PAIRING_UNREVEALED):
            agent = self.asks(COMMITTED)
            agent.reveals()
            agent.leaves()
        self.assertNoMoreGuesses()
        self.clock.advance(600)
        self.assertOnlyOpened(self.asks(COMMITTED))
        self.clock.advance(10)

    def test_leftOnTheWay(self) -> None:
        """
        Nor can it be done while the request is on its way into the queue.
        """
        for _ in range(PAIRING_UNREVEALED):
            agent = self.asks(COMMITTED)
            self.threads.held = True
            agent.reveals()
            agent.leaves()
            self.threads.held = False
            while self.threads.work:
                self.threads.turn()
        self.assertNoMoreGuesses()

    def test_fullOnPurpose(self) -> None:
        """
        Whoever fills the queue, so that what they reveal never gets into it,
        guesses too.
        """
        self.asks(), self.asks()
        for _ in range(PAIRING_UNREVEALED):
            self.asks(COMMITTED).reveals()
        self.assertNoMoreGuesses()

    def test_queueFull(self) -> None:
        """
        Those who have revealed wait in the same queue as the others.
        """
        self.asks(), self.asks()
        agent = self.asks(COMMITTED)
        agent.reveals()
        full = {"status": "error", "reason": "pairing queue full"}
        self.assertEqual(agent.answers[1], (200, full, False))
        self.assertEqual(len(self.pending()), 2)

    def test_weakKey(self) -> None:
        """
        A request that is none to sign is refused before anything is shown.
        """
        agent = self.asks(attrs.evolve(COMMITTED, csr="rubbish"))
        self.assertEqual(agent.answers, [(200, INVALID, False)])

    def test_stop(self) -> None:
        """
        When the listener stops, it is nobody's fault that they did not reveal.
        """
        agent = self.asks(COMMITTED)
        self.successResultOf(Deferred.fromCoroutine(self.listener.stop()))
        agent.leaves()
        self.assertEqual((self.log.events, self.watcher.seen), ([], []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopOnTheWay(self) -> None:
        """
        Nor does anything begin while it stops.
        """
        self.threads.held = True
        agent = self.asks(COMMITTED)
        stopping = Deferred.fromCoroutine(self.listener.stop())
        while self.threads.work:
            self.threads.turn()
        self.successResultOf(stopping)
        self.assertEqual((agent.answers, self.clock.getDelayedCalls()), ([], []))

    def test_originals(self) -> None:
        """
        An agent of the original is queued at once, as what it is.
        """
        self.asks(ASKED)
        self.assertEqual([request.legacy for request in self.pending()], [True])


class UnrevealedTests(SynchronousTestCase):
    """
    L{Unrevealed}
    """

    @given(st.lists(st.tuples(st.sampled_from("br"), st.integers(0, 300))))
    def test_bound(self, steps: list[tuple[str, int]]) -> None:
        """
        Whatever happens, no more than so many have begun within the time, and
        not revealed.
        """
        unrevealed, now = Unrevealed(3, 600), 0.0
        begun: dict[str, float] = {}
        for number, (step, seconds) in enumerate(steps):
            now += seconds
            if step == "b" and unrevealed.begin(str(number), now):
                begun[str(number)] = now
            elif step == "r" and begun:
                unrevealed.reveal(begun.popitem()[0])
            recent = [since for since in begun.values() if now - since < 600]
            self.assertLessEqual(len(recent), 3)
