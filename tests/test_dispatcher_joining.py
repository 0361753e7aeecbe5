# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.dispatcher.joining}: whom a token lets in, and who is told
what.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import attrs
from twisted.python.components import proxyForInterface

from ctrlexec.certificates import read_certificate
from ctrlexec.dispatcher import requests
from ctrlexec.dispatcher.authority import Authority
from ctrlexec.dispatcher.join_tokens import FileJoinTokens
from ctrlexec.dispatcher.joining import Doorkeeper, create_token, revoke_token
from ctrlexec.dispatcher.orders import TokenOrder
from ctrlexec.dispatcher.records import AgentRecord, QueuedRequest
from ctrlexec.dispatcher.token_records import Claim, JoinToken, NotRedeemed
from ctrlexec.errors import Conflict, NotFound
from ctrlexec.interfaces import IJoinTokens
from ctrlexec.joining import JoinSecret
from ctrlexec.pki import Csr
from ctrlexec.protocol.messages import JOIN_REFUSED, JoinProof, PairApproved
from ctrlexec.values import iso_time
from tests.authority import NOW
from tests.dispatching import REQID, protected, request
from tests.test_lifecycle import TrustTestCase


class PowerCut(Exception):
    """
    The process ends here.
    """


class Crashing(Authority):
    """
    The CA of a process that ends before it has signed.
    """

    def issue_agent(self, csr: Csr, name: str, now: datetime) -> bytes:
        """
        It does not come to that.
        """
        raise PowerCut


class DoorTestCase(TrustTestCase):
    """
    A dispatcher, set up, and its pairing port's side of a join.
    """

    def setUp(self) -> None:
        super().setUp()
        self.tokens = FileJoinTokens(self.settings.tokens_dir)
        self.door = Doorkeeper(attrs.evolve(self.trust, user=""), self.tokens)
        self.log.events.clear()

    def made(self, **order: Any) -> JoinSecret:
        """
        A new token.
        """
        _, secret = create_token(self.trust, self.tokens, TokenOrder(**order))
        self.log.events.clear()
        return secret

    def asked(
        self, reqid: str = REQID, nonce_a: str = "a1", **how: Any
    ) -> QueuedRequest:
        """
        What an agent asks with that has revealed its nonce.
        """
        asked = protected(self.trust.authority, reqid, **how)
        assert asked.revealed is not None
        seen = attrs.evolve(asked.revealed, nonce_a=nonce_a * 32)
        return requests.with_revealed(asked, reqid, seen)

    def proof(self, secret: JoinSecret, asked: QueuedRequest) -> JoinProof:
        """
        What an agent with this token sends.
        """
        assert asked.revealed is not None
        joining = requests.joining(asked, asked.revealed)
        return JoinProof(secret.id, joining.proof(secret.key))

    def joins(
        self, secret: JoinSecret, asked: QueuedRequest | None = None
    ) -> PairApproved | None:
        """
        @return: what the agent gets; C{None} if it is refused.
        """
        asked = asked or self.asked()
        answer = self.door.decide(asked, self.proof(secret, asked))
        if isinstance(answer, PairApproved):
            return answer
        self.assertEqual(answer, JOIN_REFUSED)
        return None

    def later(self, **time: int) -> None:
        """
        So much time passes.
        """
        trust = attrs.evolve(self.door.trust, now=lambda: NOW + timedelta(**time))
        self.door = attrs.evolve(self.door, trust=trust)

    def assertRefused(self, answer: PairApproved | None, reason: str) -> None:
        """
        It got nothing, and the log alone says why.
        """
        self.assertIsNone(answer)
        (event,) = self.log.events
        self.assertEqual(event.action, "join-refused")
        self.assertIn(reason, event.fields()["REASON"])
        self.log.events.clear()

    def left(self) -> list[int]:
        """
        What is left of each token.
        """
        return [each.left for each in self.tokens.listed()[0]]


class LetInTests(DoorTestCase):
    """
    Those who are let in.
    """

    def test_joins(self) -> None:
        """
        Who proves a token gets a certificate for its own name, and is
        registered with the tags that the token says.
        """
        approval = self.joins(self.made(tags={"env": "prod"}))
        assert approval is not None
        info = read_certificate(approval.cert.encode())
        self.assertEqual(info.common_name, "agent-one")
        record = self.trust.registry.get("agent-one")
        self.assertEqual(record.tags, {"env": "prod"})
        self.assertEqual((record.reqid, record.ip), (REQID, "192.0.2.1"))

    def test_events(self) -> None:
        """
        The log names the token as who has approved, and never its secret.
        """
        secret = self.made()
        self.joins(secret)
        self.assertEqual(self.log.actions, ["pair-approve", "join"])
        approved, joined = (event.fields() for event in self.log.events)
        self.assertEqual(approved["USER"], f"token:{secret.id}")
        self.assertEqual(joined["LEFT"], "0")
        self.assertNotIn("REPLACED", joined)
        lines = "".join(event.line() for event in self.log.events)
        for form in (secret.text, secret.secret.hex(), secret.key.hex()):
            self.assertNotIn(form, lines)

    def test_replaces(self) -> None:
        """
        A token that names a host lets it in anew, and the log says so.
        """
        self.trust.registry.put(AgentRecord("agent-one", port=1))
        self.assertIsNotNone(self.joins(self.made(name="agent-one")))
        self.assertEqual(self.log.events[-1].fields()["REPLACED"], "yes")
        self.assertEqual(self.trust.registry.get("agent-one").reqid, REQID)

    def test_notQueued(self) -> None:
        """
        No person ever sees the request.
        """
        self.joins(self.made())
        self.assertEqual(list(self.trust.requests()), [])


class RefusedTests(DoorTestCase):
    """
    Those who are not.
    """

    def test_twice(self) -> None:
        """
        A stolen token that was used already lets nobody in.
        """
        secret = self.made()
        self.assertIsNotNone(self.joins(secret))
        self.trust.registry.remove("agent-one")
        self.log.events.clear()
        again = self.joins(secret, self.asked("0" * 16, "b2"))
        self.assertRefused(again, "used up")

    def test_replayed(self) -> None:
        """
        A recorded request is not a second one, though uses are left.
        """
        secret = self.made(uses=2)
        self.joins(secret)
        self.trust.registry.remove("agent-one")
        self.log.events.clear()
        self.assertRefused(self.joins(secret), "made before")

    def test_late(self) -> None:
        """
        Nor does it when its time is over.
        """
        secret = self.made(ttl=timedelta(minutes=5))
        self.later(minutes=5)
        self.assertRefused(self.joins(secret), "expired")
        self.assertEqual(self.left(), [1])

    def test_otherName(self) -> None:
        """
        A token for another host is none for this one.
        """
        secret = self.made(name="agent-two")
        self.assertRefused(self.joins(secret), "for agent-two")
        self.assertEqual(self.left(), [1])

    def test_revoked(self) -> None:
        """
        One that was revoked is unknown.
        """
        secret = self.made()
        revoke_token(self.trust, self.tokens, secret.id)
        self.log.events.clear()
        self.assertRefused(self.joins(secret), "unknown")
        self.assertRaises(NotFound, revoke_token, self.trust, self.tokens, secret.id)

    def test_revokedAgent(self) -> None:
        """
        A token of a host that was revoked lets it in no more; one that was made
        afterwards does.
        """
        for hours, joins in ((1, False), (0, False), (-1, True)):
            when = iso_time(NOW + timedelta(hours=hours))
            self.trust.registry.put(AgentRecord("agent-one", revoked=when))
            secret = self.made(name="agent-one")
            answer = self.joins(secret)
            if joins:
                self.assertIsNotNone(answer)
            else:
                self.assertRefused(answer, "revoked")

    def test_registered(self) -> None:
        """
        A token that names nobody takes no agent's place, and is not used up.
        """
        secret = self.made()
        before = AgentRecord("agent-one", port=1)
        self.trust.registry.put(before)
        self.assertRefused(self.joins(secret), "is registered")
        self.assertEqual(self.trust.registry.get("agent-one"), before)
        self.assertEqual(self.left(), [1])

    def test_registeredMeanwhile(self) -> None:
        """
        Not even where the other one came in after the look.
        """
        other = AgentRecord("agent-one", port=1)
        registry = self.trust.registry

        class Slow(proxyForInterface(IJoinTokens)):  # type: ignore[misc]
            def redeem(
                self, claim: Claim, now: datetime, objection: Callable[[JoinToken], str]
            ) -> JoinToken | NotRedeemed:
                found: JoinToken | NotRedeemed = self.original.redeem(
                    claim, now, objection
                )
                registry.put(other)
                return found

        secret = self.made(uses=2)
        self.door = attrs.evolve(self.door, tokens=Slow(self.tokens))
        self.assertRefused(self.joins(secret), "there is an agent called agent-one")
        self.assertEqual(registry.get("agent-one"), other)

    def test_renamed(self) -> None:
        """
        Nobody joins under the name that another one has in its certificate.
        """
        secret = self.made()
        self.trust.registry.put(AgentRecord("web", identity="agent-one"))
        self.assertRefused(self.joins(secret), "was called agent-one before")
        self.assertRaises(
            Conflict,
            create_token,
            self.trust,
            self.tokens,
            TokenOrder(name="agent-one"),
        )

    def test_wrongProof(self) -> None:
        """
        A proof for another name, key or dispatcher is none.
        """
        secret = self.made()
        asked = self.asked()
        proof = self.proof(secret, asked)
        for changed in (
            attrs.evolve(asked, hostname="agent-two"),
            self.asked(nonce_a="b2"),
        ):
            self.assertEqual(self.door.decide(changed, proof), JOIN_REFUSED)
            self.assertRefused(None, "the proof is wrong")
        self.assertEqual(self.left(), [1])

    def test_oldExchange(self) -> None:
        """
        Who has revealed nothing has proved nothing.
        """
        secret = self.made()
        answer = self.door.decide(request(), self.proof(secret, self.asked()))
        self.assertEqual(answer, JOIN_REFUSED)
        self.assertRefused(None, "old exchange")

    def test_cut(self) -> None:
        """
        A token of which half is left lets nobody in.
        """
        secret = self.made()
        file = self.settings.tokens_dir / f"{secret.id}.json"
        file.write_bytes(file.read_bytes()[:100])
        self.assertRefused(self.joins(secret), "cut off")
        self.assertEqual(list(self.trust.registry.names()), [])

    def test_noKey(self) -> None:
        """
        Where the key of the CA can not be read nobody joins, no use is lost,
        and the log says so from the beginning.
        """
        secret = self.made()
        self.door.report()
        self.assertEqual(self.log.events, [])
        self.settings.ca_key.unlink()
        self.door.report()
        self.assertEqual(self.log.actions, ["join-off"])
        self.log.events.clear()
        self.assertRefused(self.joins(secret), "key of the CA")
        self.assertEqual(self.left(), [1])

    def test_crash(self) -> None:
        """
        A process that ends between the count and the certificate costs a use,
        and gives none.
        """
        secret, door = self.made(), self.door
        crashing = attrs.evolve(door.trust, authority=Crashing(self.settings))
        self.door = attrs.evolve(door, trust=crashing)
        self.assertRaises(PowerCut, self.joins, secret)
        self.assertEqual(self.left(), [0])
        self.assertEqual(list(self.trust.registry.names()), [])
        self.door = door
        again = self.joins(secret, self.asked("0" * 16, "b2"))
        self.assertRefused(again, "used up")

    def test_sameAnswer(self) -> None:
        """
        Who is refused can not tell why, not even whether there is such a token.
        """
        good = self.asked()
        proofs = [
            JoinProof("0" * 16, "0" * 64),
            JoinProof(self.made().id, "0" * 64),
            self.proof(self.made(name="agent-two"), good),
        ]
        answers = {self.door.decide(good, proof) for proof in proofs}
        self.assertEqual(answers, {JOIN_REFUSED})


class MakingTests(DoorTestCase):
    """
    L{create_token} and L{revoke_token}
    """

    def test_events(self) -> None:
        """
        Who made and revoked a token is in the log; its secret is not.
        """
        order = TokenOrder(name="agent-one", tags={"env": "prod"})
        token, secret = create_token(self.trust, self.tokens, order)
        revoke_token(self.trust, self.tokens, token.id)
        self.assertEqual(self.log.actions, ["join-token-create", "join-token-revoke"])
        made = self.log.events[0].fields()
        self.assertEqual((made["USER"], made["NAME"]), ("root", "agent-one"))
        self.assertEqual((made["TAGS"], made["USES"]), ("env=prod", "1"))
        lines = "".join(event.line() for event in self.log.events)
        for form in (secret.text, secret.secret.hex(), secret.key.hex()):
            self.assertNotIn(form, lines)

    def test_pins(self) -> None:
        """
        A token pins the CA of the dispatcher that made it.
        """
        self.assertEqual(self.made().authority, self.trust.ca_fingerprint())
