# SPDX-License-Identifier: AGPL-3.0-only
"""
An agent that joins by a token, over real TLS in memory, and what somebody with
a wire between it and the dispatcher can try: C{docs/pairing.md}.
"""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred

from ctrlexec.agent import identity
from ctrlexec.agent.enrolment import Paired, Refused, Result
from ctrlexec.codes import commitment
from ctrlexec.dispatcher.join_tokens import FileJoinTokens
from ctrlexec.dispatcher.joining import create_token
from ctrlexec.dispatcher.orders import TokenOrder
from ctrlexec.dispatcher.records import QueuedRequest
from ctrlexec.errors import CtrlExecError, PkiError
from ctrlexec.joining import JoinSecret
from ctrlexec.protocol.agreement import Terms
from ctrlexec.protocol.limits import PAIRING_REVEAL_SECONDS, PAIRING_UNREVEALED
from ctrlexec.protocol.messages import JoinProof, PairApproved
from ctrlexec.tls import Credentials, Identity
from tests.enrolling import Reactor
from tests.pairing import APPROVED, COMMITTED, Agent, ListenerTestCase
from tests.relays import ROGUE, BetweenTestCase, Relay, Said
from tests.test_pairing_attacks import AnyCode


class JoinTestCase(BetweenTestCase):
    """
    An agent with a token, and nobody who would compare codes.
    """

    def setUp(self) -> None:
        super().setUp()
        self.person = attrs.evolve(self.person, screen=AnyCode)

    def made(self, **order: Any) -> JoinSecret:
        """
        A new token of the dispatcher's.
        """
        tokens = FileJoinTokens(self.settings.tokens_dir)
        _, secret = create_token(self.trust, tokens, TokenOrder(**order))
        self.log.events.clear()
        return secret

    def own(self) -> Credentials:
        """
        What the dispatcher shows; here, whoever is between has it too.
        """
        ours = self.settings
        return Identity(ours.key, ours.cert, ours.ca).load()

    def joins(
        self, secret: JoinSecret, between: Relay | None = None
    ) -> Deferred[Result]:
        """
        The agent joins, as if for the first time.
        """
        self.agent_reactor = Reactor()
        terms = Terms.joining(secret)
        return self.pairs(between or Relay(), terms, shows=self.own())

    def reasons(self) -> list[str]:
        """
        Why somebody was refused, as the log has it.
        """
        refused = [each for each in self.log.events if each.action == "join-refused"]
        return [each.fields()["REASON"] for each in refused]


class JoinTests(JoinTestCase):
    """
    Nobody in between does anything.
    """

    def test_joins(self) -> None:
        """
        The agent is paired, no person has seen it, and the log has it all.
        """
        secret = self.made(tags={"env": "prod"})
        result = self.successResultOf(self.joins(secret))
        self.assertIsInstance(result, Paired)
        self.assertTrue(identity.is_paired(self.agent_settings))
        self.assertEqual(self.trust.registry.get("agent-one").tags, {"env": "prod"})
        self.assertEqual(self.log.actions, ["pair-approve", "join", "pair-end"])
        self.assertEqual(self.log.events[-1].fields()["STATUS"], "delivered")

    def test_secretStays(self) -> None:
        """
        Nothing that the agent sends has the secret or the key in it.
        """
        secret, said = self.made(), []

        def ask(path: str, words: Said) -> Said:
            said.append(str(words))
            return words

        self.joins(secret, Relay(ask))
        self.assertEqual(len(said), 2)
        for form in (secret.text, secret.secret.hex(), secret.key.hex()):
            self.assertNotIn(form, "".join(said))

    def test_refused(self) -> None:
        """
        A token that will not do is told in two words, and nothing is stored.
        """
        secret = self.made(name="agent-two")
        result = self.successResultOf(self.joins(secret))
        self.assertEqual(result, Refused("join refused"))
        self.assertEqual(self.reasons(), ["the token is for agent-two"])
        self.assertEqual(list(self.trust.requests()), [])
        self.assertNothingStored()

    def test_twice(self) -> None:
        """
        A stolen token that was used is of no use.
        """
        secret = self.made()
        self.joins(secret)
        self.trust.registry.remove("agent-one")
        result = self.successResultOf(self.joins(secret))
        self.assertEqual(result, Refused("join refused"))
        self.assertEqual(self.reasons(), ["the token is used up"])

    def test_unrevealed(self) -> None:
        """
        Who only begins to join, again and again, keeps nobody out: no person is
        shown what they could have guessed at.
        """
        secret = self.made()
        for _ in range(PAIRING_UNREVEALED + 1):
            silent = Relay(lambda path, said: said, lambda said: {"status": "x"})
            self.failureResultOf(self.joins(secret, silent), CtrlExecError)
            self.pass_time(PAIRING_REVEAL_SECONDS)
            self.settle()
        self.log.events.clear()
        self.assertIsInstance(self.successResultOf(self.joins(secret)), Paired)


class GoneTests(ListenerTestCase):
    """
    Agents that leave while they join.
    """

    def joins(self) -> Agent:
        """
        One that has revealed its nonce, while all threads are slow.
        """
        self.asked: list[str] = []
        proof = JoinProof("0" * 16, "0" * 64)

        def joined(request: QueuedRequest, proof: JoinProof) -> PairApproved:
            self.asked.append(request.hostname)
            return APPROVED

        world = attrs.evolve(self.listener.world, joins=joined)
        self.listener.world = world
        agent = self.asks(attrs.evolve(COMMITTED, join=proof))
        self.threads.held = True
        agent.reveals()
        return agent

    def test_stays(self) -> None:
        """
        Who stays is answered twice, at once.
        """
        agent = self.joins()
        self.threads.turn()
        self.threads.turn()
        (_, pending, decided) = (said for _, said, _ in agent.answers)
        self.assertEqual(pending["status"], "pending")
        self.assertEqual(decided["status"], "approved")
        self.assertEqual(self.log.actions, ["pair-end"])
        self.assertEqual(self.pending(), [])

    def test_leavesBefore(self) -> None:
        """
        Who leaves before it is their turn costs no use of a token.
        """
        agent = self.joins()
        agent.leaves()
        self.threads.turn()
        self.assertEqual((self.asked, self.threads.work), ([], []))

    def test_leavesMeanwhile(self) -> None:
        """
        Who leaves while it is decided is let in and has nothing of it: that is
        in the log.
        """
        agent = self.joins()
        self.threads.turn()
        agent.leaves()
        self.threads.turn()
        self.assertEqual(self.asked, ["agent-one"])
        self.assertEqual(self.log.events[-1].fields()["STATUS"], "undelivered")

    def test_nobodyDecides(self) -> None:
        """
        A listener that was not told who decides on joins refuses them.
        """
        proof = JoinProof("0" * 16, "0" * 64)
        agent = self.asks(attrs.evolve(COMMITTED, join=proof))
        agent.reveals()
        said = {"status": "error", "reason": "join refused"}
        self.assertEqual(agent.answers[-1], (200, said, False))
        self.assertEqual(self.pending(), [])


class BetweenTests(JoinTestCase):
    """
    Somebody in between does.
    """

    def test_rogue(self) -> None:
        """
        A dispatcher of another CA is told nothing at all.
        """
        said: list[Said] = []
        relay = Relay(lambda path, words: said.append(words) or words)  # type: ignore[func-returns-value]
        result = self.pairs(relay, Terms.joining(self.made()), shows=ROGUE)
        self.failureResultOf(result, PkiError)
        self.assertEqual(said, [])
        self.assertNothingStored()

    def test_rightCaShown(self) -> None:
        """
        Nor one that shows the right CA behind a certificate of its own.
        """
        shows = attrs.evolve(ROGUE, ca=self.own().ca)
        result = self.pairs(Relay(), Terms.joining(self.made()), shows=shows)
        self.failureResultOf(result, PkiError)
        self.assertNothingStored()

    def test_changed(self) -> None:
        """
        Even who has the dispatcher's key can not make a proof serve for another
        request.
        """
        other = self.apply(Terms()).opening.request
        for change in ({"hostname": "agent-two"}, {"csr": other.csr}):
            secret = self.made()
            relay = Relay(lambda path, said, by=change: {**said, **by})  # type: ignore[misc]
            self.joins(secret, relay)
            self.assertEqual(self.reasons(), ["the proof is wrong"], change)
            self.log.events.clear()
        self.assertEqual(list(self.trust.registry.names()), [])

    def test_replayed(self) -> None:
        """
        A request and its reveal that were recorded are good for nothing, though
        uses are left.
        """
        secret, recorded = self.made(uses=2), {}

        def record(path: str, said: Said) -> Said:
            recorded[path] = said
            return said

        def replay(path: str, said: Said) -> Said:
            old = dict(recorded[path])
            if "reqid" in old:
                old["reqid"] = said["reqid"]
            return old

        self.joins(secret, Relay(record))
        self.trust.registry.remove("agent-one")
        result = self.successResultOf(self.joins(secret, Relay(replay)))
        self.assertEqual(result, Refused("join refused"))
        self.assertEqual(self.reasons(), ["the request was made before"])

    def test_otherNonce(self) -> None:
        """
        Nor can a proof be taken over under a nonce of one's own.
        """
        mine = "ee" * 32

        def swap(path: str, said: Said) -> Said:
            if path == "/pair":
                return {**said, "commitment": commitment(mine)}
            return {**said, "nonce_a": mine}

        self.joins(self.made(), Relay(swap))
        self.assertEqual(self.reasons(), ["the proof is wrong"])

    def test_stripped(self) -> None:
        """
        Without the proof it is a request like any other: a person decides.
        """

        def strip(path: str, said: Said) -> Said:
            return {name: value for name, value in said.items() if name != "join"}

        result = self.joins(self.made(), Relay(strip))
        self.assertNoResult(result)
        self.assertEqual([r.hostname for r in self.trust.requests()], ["agent-one"])
        self.assertNothingStored()
        result.cancel()
        self.failureResultOf(result, CancelledError)

    def test_original(self) -> None:
        """
        A dispatcher that speaks the exchange of the original alone is refused,
        and the hint is not one to use that.
        """

        def answer(said: Said) -> Said:
            return {"status": "pending", "reqid": said["reqid"]}

        result = self.joins(self.made(), Relay(answers=answer))
        error = self.failureResultOf(result, CtrlExecError).value
        self.assertIn("the old exchange only", str(error))
        self.assertIn("no join tokens", error.hint)
        self.assertNothingStored()

    def test_halfAProof(self) -> None:
        """
        What is only like a proof never becomes a request for a person.
        """
        whole: list[object] = [None, {}, {"id": "x", "mac": "y"}, []]
        for broken in whole:
            relay = Relay(lambda path, said, by=broken: {**said, "join": by})  # type: ignore[misc]
            result = self.joins(self.made(), relay)
            error = self.failureResultOf(result, CtrlExecError).value
            self.assertIn("invalid request", str(error))
        self.assertEqual(list(self.trust.requests()), [])

    def test_swappedCa(self) -> None:
        """
        An approval of another CA is refused, whatever the token has proved.
        """

        def swap(said: Said) -> Said:
            if said.get("status") == "approved":
                return {**said, "ca": ROGUE.ca.decode()}
            return said

        result = self.joins(self.made(), Relay(answers=swap))
        self.failureResultOf(result, PkiError)
        self.assertNothingStored()
