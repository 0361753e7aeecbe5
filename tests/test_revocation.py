# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.revocation} and L{ctrlexec.agent.revoking}: lists of
what is revoked, as an agent takes them.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.policy import Overrides, load_policy
from ctrlexec.agent.revocation import Held, Pushed, load_pushed
from ctrlexec.agent.trust import TrustedMap
from ctrlexec.certificates import (
    AgentRole,
    CertificateInfo,
    DispatcherRole,
    read_certificate,
)
from ctrlexec.errors import StoreError
from ctrlexec.protocol.codec_revocation import (
    encode_revocations,
)
from ctrlexec.protocol.exchange import Visit
from ctrlexec.protocol.revocation import (
    MOST_SERIALS,
    SignedRevocations,
    signed,
)
from ctrlexec.protocol.server import Peer
from tests.agents import (
    NO_MATCH,
    PEER,
    SIBLING,
    ResourceTestCase,
    holder,
)
from tests.authority import OTHER_KEY
from tests.revocations import by, listed, of_ca


class RevocationTestCase(ResourceTestCase):
    """
    An agent that trusts C{hq} and C{lab}.
    """

    def setUp(self) -> None:
        super().setUp()
        self.evolve(trusted=TrustedMap({"d1": "hq", "e9": "lab"}))
        self.file = self.agent.policy.settings.pushed_revocations

    def push(self, found: SignedRevocations, **who: Any) -> Any:
        """
        Send a list.
        """
        body = encode_revocations(found)
        code, fields = self.answer("POST", "/revocations", body, **who)
        self.assertEqual(code, 200)
        return fields

    def assertRefused(
        self, found: SignedRevocations, error: str, held: int = 0
    ) -> None:
        """
        A list changes nothing, and that is logged.
        """
        before = self.agent.policy.pushed
        self.log.taken()
        answer = self.push(found)
        self.assertEqual(answer["status"], "error")
        self.assertIn(error, answer["error"])
        self.assertEqual(answer["held"], held)
        [line] = self.log.taken()
        start = "ACTION=revocations-deny DISPATCHER=hq"
        self.assertTrue(line.startswith(start), line)
        self.assertEqual(self.agent.policy.pushed, before)
        self.assertEqual(load_pushed(self.file), before)

    def status(self, certificate: CertificateInfo) -> int:
        """
        Of the answer to a ping.
        """
        return self.answer("POST", "/ping", certificate=certificate)[0]


class TakenTests(RevocationTestCase):
    """
    Lists that count
    """

    def test_stored(self) -> None:
        """
        A list is in force at once, and after a restart.
        """
        self.assertEqual(self.push(of_ca(5, "a1")), {"status": "ok", "number": 5})
        line = f"ACTION=revocations COUNT=1 DISPATCHER=hq NUMBER=5 PEER={PEER}"
        self.assertEqual(self.log.taken(), [line])
        self.assertTrue(self.agent.policy.is_revoked(holder(None, serial="a1")))
        again, _ = load_policy(self.directory / "agent.conf", Overrides())
        self.assertTrue(again.is_revoked(holder(None, serial="a1")))
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o640)

    def test_besideOperators(self) -> None:
        """
        What the operator of the host has revoked stays so, beside it.
        """
        self.evolve(revoked=frozenset({"b2"}))
        self.push(of_ca(5, "a1"))
        for serial in ("a1", "b2"):
            self.assertTrue(self.agent.policy.is_revoked(holder(None, serial=serial)))

    def test_grows(self) -> None:
        """
        A later list takes nothing back.
        """
        self.push(of_ca(5, "a1"))
        self.push(of_ca(6, "a2"))
        held = Held(6, frozenset({"a1", "a2"}))
        self.assertEqual(self.agent.policy.pushed, Pushed({"hq": held}, {}))
        self.assertEqual(load_pushed(self.file), self.agent.policy.pushed)

    def test_dispatcherRevoked(self) -> None:
        """
        A dispatcher whose certificate the CA has revoked gives no more orders.
        """
        stolen = holder(DispatcherRole("lab"), serial="e9")
        self.assertEqual(self.status(stolen), 200)
        self.push(of_ca(5, "e9"))
        self.assertEqual(self.status(stolen), 403)

    def test_notTheOther(self) -> None:
        """
        What a dispatcher has signed revokes itself and agents, but no other
        dispatcher: else whoever has stolen its key could cut off all others.
        """
        self.push(by(DispatcherRole("hq"), 5, "e9", "e8", "d0", "a2"))
        for certificate in (
            holder(None, serial="e9"),
            holder(DispatcherRole("lab"), serial="e8"),
        ):
            self.assertEqual(self.status(certificate), 200)
        self.assertTrue(self.agent.policy.is_revoked(SIBLING))
        self.assertEqual(self.status(holder(DispatcherRole("hq"), serial="d0")), 403)

    def test_apart(self) -> None:
        """
        Each hand counts for itself: two dispatchers, and the CA for each.
        """
        self.push(of_ca(5, "a1"))
        self.push(of_ca(3, "a2", issuer="lab"))
        self.push(by(DispatcherRole("hq"), 2, "a3"))
        self.push(by(DispatcherRole("lab"), 1, "a4"))
        for serial in ("a1", "a2", "a3", "a4"):
            self.assertTrue(self.agent.policy.is_revoked(holder(None, serial=serial)))

    def test_cut(self) -> None:
        """
        The connections of whoever is revoked end at once, and no others.
        """
        ended: list[str] = []
        for certificate in (
            holder(DispatcherRole("hq"), serial="d0"),
            holder(DispatcherRole("hq"), serial="d1"),
        ):
            serial = certificate.serial
            visit = Visit(PEER, lambda serial=serial: ended.append(serial))  # type: ignore[misc]
            self.agent.arrived(visit)
            self.assertIsNone(self.agent.admit(Peer(PEER, certificate), visit))
            self.addCleanup(self.agent.ended, visit)
        self.push(of_ca(5, "d0"))
        self.assertEqual(ended, ["d0"])
        self.assertIn(f"ACTION=revoked-cert PEER={PEER} SERIAL=d0", self.log.taken())

    def test_goneIsForgotten(self) -> None:
        """
        A connection that is over is not ended again.
        """
        visit = Visit(PEER, self.fail)
        self.agent.arrived(visit)
        self.agent.admit(Peer(PEER, holder(DispatcherRole("hq"), serial="d0")), visit)
        self.agent.ended(visit)
        self.push(of_ca(5, "d0"))


class RefusedTests(RevocationTestCase):
    """
    Lists that do not
    """

    def test_replayed(self) -> None:
        """
        An older list, and the same once more, change nothing, and the answer
        tells what is held.
        """
        older = of_ca(4, "a1")
        self.push(older)
        self.push(of_ca(5, "a1", "a2"))
        for found in (older, of_ca(5, "a1"), of_ca(1, "ff")):
            self.assertRefused(found, "number 5 is here", 5)

    def test_replayedAfterRestart(self) -> None:
        """
        Nor when the agent has been started again in between.
        """
        older = of_ca(4)
        self.push(of_ca(5, "a1"))
        policy, _ = load_policy(self.directory / "agent.conf", Overrides())
        self.evolve(pushed=policy.pushed)
        self.assertRefused(older, "number 5 is here", 5)

    def test_signedByAgent(self) -> None:
        """
        An agent signs no list, whoever brings it.
        """
        found = by(AgentRole("agent-two"), 5, "a1")
        self.assertRefused(found, "nobody whose orders are taken here")

    def test_signedByStranger(self) -> None:
        """
        Nor does a dispatcher that the agent does not trust, or one whose
        certificate is revoked.
        """
        words = "nobody whose orders are taken here"
        self.assertRefused(by(DispatcherRole("stranger"), 5, "a1"), words)
        found = by(DispatcherRole("hq"), 5, "a1")
        self.evolve(revoked={read_certificate(found.cert.encode()).serial})
        self.assertRefused(found, words)

    def test_badSignature(self) -> None:
        """
        Nor anybody without the key.
        """
        self.assertRefused(signed(listed(5, "a1"), OTHER_KEY), "not good")

    def test_pushedByAgent(self) -> None:
        """
        A list that is good is not taken from an agent, or from a stranger.
        """
        body = encode_revocations(of_ca(5, "a1"))
        stranger = holder(DispatcherRole("stranger"), serial="e1")
        for certificate in (SIBLING, stranger):
            answer = self.answer("POST", "/revocations", body, certificate=certificate)
            self.assertEqual(answer, NO_MATCH)
        self.assertEqual(self.agent.policy.pushed, Pushed())
        self.assertFalse(self.file.exists())

    def test_nonsense(self) -> None:
        """
        What is no list is refused, and logged.
        """
        _, fields = self.answer("POST", "/revocations", b"{}")
        self.assertEqual(fields["status"], "error")
        [line] = self.log.taken()
        self.assertIn("ACTION=revocations-deny", line)

    def test_tooMany(self) -> None:
        """
        Lists that differ each time do not fill the disk.
        """
        self.push(of_ca(1, *(f"f{each:09x}" for each in range(MOST_SERIALS))))
        found = of_ca(2, "a1")
        self.assertRefused(found, f"more than {MOST_SERIALS} serials", 1)

    def test_unwritable(self) -> None:
        """
        What can not be stored does not count.
        """
        self.file.mkdir(parents=True)
        answer = self.push(of_ca(5, "a1"))
        self.assertEqual(answer["status"], "error")
        [line] = self.log.taken()
        self.assertIn("ACTION=revocations-fail DISPATCHER=hq", line)
        self.assertEqual(self.agent.policy.pushed, Pushed())

    def test_cutOff(self) -> None:
        """
        A file that is cut off anywhere keeps the agent from starting: it can
        not know whom not to let in.
        """
        self.push(of_ca(5, "a1"))
        whole = self.file.read_bytes()
        for length in range(len(whole) - 1):
            self.file.write_bytes(whole[:length])
            self.assertRaises(StoreError, load_pushed, self.file)
        for text in (
            '{"ca":{"hq":{"number":"1","serials":[]}},"dispatchers":{}}',
            '{"ca":[],"dispatchers":{}}',
            '{"ca":{"hq":{"number":1,"serials":[1]}},"dispatchers":{}}',
        ):
            self.file.write_text(text)
            self.assertRaises(StoreError, load_pushed, self.file)


class JoinedTests(SynchronousTestCase):
    """
    L{Pushed.joined}
    """

    def test_newer(self) -> None:
        """
        Of two that were written one after the other the newer counts, in
        whatever order they arrive.
        """
        older = Pushed({"hq": Held(1, frozenset({"a"}))})
        newer = Pushed({"hq": Held(2, frozenset({"a", "b"}))}, {"hq": Held(1)})
        for joined in (older.joined(newer), newer.joined(older)):
            self.assertEqual(joined, newer)
