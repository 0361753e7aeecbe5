# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.revoking}: what is revoked, and who is told.
"""

from __future__ import annotations

from ctrlexec.dispatcher.authority import Authority
from ctrlexec.dispatcher.orders import Caller
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.revocation import (
    FileRevocations,
    Listed,
)
from ctrlexec.dispatcher.revoking import Push, PushRow, Revoked
from ctrlexec.errors import Conflict, NotFound, StoreError, TransportError
from ctrlexec.pki import DispatcherRole
from ctrlexec.protocol.codec_trust import NoSuchRequest
from ctrlexec.protocol.revocation import NotAcknowledged, signer_of
from tests.authority import NOW
from tests.operating import ALICE, DispatcherCase


class RevokingCase(DispatcherCase):
    """
    A dispatcher that is set up, and has paired C{web-1} and C{web-2}.
    """

    def setUp(self) -> None:
        super().setUp()
        self.done(self.dispatcher.setup_ca(ALICE))
        self.done(self.dispatcher.setup_identity(ALICE, confirmed=True))
        self.register(
            AgentRecord(hostname="web-1", cert_serial="a1", former_serials=("a0",))
        )
        self.register(AgentRecord(hostname="web-2", cert_serial="b2"))
        self.written.events.clear()
        self.store = FileRevocations(self.dispatcher.settings.revocations_dir)

    def revoke(self, what: str, reason: str = "", caller: Caller = ALICE) -> Revoked:
        """
        Revoke something.
        """
        return self.done(self.dispatcher.revoke(caller, what, reason))

    def push(self) -> Push:
        """
        Tell those who do not know.
        """
        return self.done(self.dispatcher.push_revocations(ALICE))

    def lines(self) -> list[str]:
        """
        What was logged since the last time.
        """
        lines = [event.line() for event in self.written.events]
        self.written.events.clear()
        return lines


class RevokeTests(RevokingCase):
    """
    What is revoked
    """

    def test_byName(self) -> None:
        """
        All certificates of an agent are, in the log with whose, by whom and
        why, and in the registry.
        """
        done = self.revoke("web-1", "stolen laptop")
        self.assertEqual(
            (done.agent, done.serials, done.new), ("web-1", ("a0", "a1"), 2)
        )
        self.assertEqual(self.store.listed().serials, {"a0", "a1"})
        self.assertEqual(self.record("web-1").revoked, "2026-03-05T18:38:09Z")
        self.assertEqual(self.record("web-2").revoked, "")
        line = 'ACTION=revoke AGENT=web-1 REASON="stolen laptop" SERIAL=a0 USER=alice'
        self.assertEqual(self.lines()[0], line)

    def test_bySerial(self) -> None:
        """
        A serial that the registry knows is its agent's.
        """
        done = self.revoke("0xB2")
        self.assertEqual((done.agent, done.serials), ("web-2", ("b2",)))
        self.assertNotEqual(self.record("web-2").revoked, "")
        self.assertIn("ACTION=revoke AGENT=web-2 SERIAL=b2 USER=alice", self.lines())

    def test_former(self) -> None:
        """
        Where it is a former certificate, the agent is still spoken to.
        """
        self.revoke("a0")
        self.assertEqual(self.record("web-1").revoked, "")
        self.assertTrue(self.ping("web-1")[0].ok)

    def test_digitsOnly(self) -> None:
        """
        A serial of digits only can be hex or decimal, and is both.
        """
        self.assertEqual(self.revoke("10").serials, ("10", "a"))
        self.assertEqual(self.revoke("00:b3").serials, ("b3",))

    def test_nameFirst(self) -> None:
        """
        An agent whose name reads as a serial is meant by it.
        """
        self.register(AgentRecord(hostname="beef", cert_serial="c3"))
        self.assertEqual(self.revoke("beef").serials, ("c3",))

    def test_neither(self) -> None:
        """
        What is neither is an error, and nothing is revoked.
        """
        for what in ("web-9", "", "../x", "f" * 65):
            self.failed(self.dispatcher.revoke(ALICE, what, ""), NotFound)
        self.assertEqual(self.store.listed(), Listed())

    def test_learned(self) -> None:
        """
        Where nobody has written the serial down, the agent is asked to show it.
        """
        self.register(AgentRecord(hostname="old-1"))
        self.agents.serials = {"old-1": "99"}
        self.assertEqual(self.revoke("old-1").serials, ("99",))
        self.assertNotEqual(self.record("old-1").revoked, "")

    def test_learnedToo(self) -> None:
        """
        Likewise where all that is known is one that it may never have taken.
        """
        self.register(AgentRecord(hostname="old-1").with_issued("98"))
        self.agents.serials = {"old-1": "99"}
        self.assertEqual(self.revoke("old-1").serials, ("98", "99"))

    def test_notLearned(self) -> None:
        """
        If it is off, too, a serial is asked for.
        """
        self.register(AgentRecord(hostname="old-1"))
        error = self.failed(self.dispatcher.revoke(ALICE, "old-1", ""), NotFound)
        self.assertIn("nobody is there", str(error))
        self.assertIn("revoke SERIAL", error.hint)
        self.assertEqual(self.store.listed(), Listed())

    def test_notOurselves(self) -> None:
        """
        A dispatcher does not cut itself off from everybody.
        """
        authority = Authority(self.dispatcher.settings)
        serial = authority.dispatcher_serial()
        self.failed(self.dispatcher.revoke(ALICE, f"0x{serial}", ""), Conflict)
        self.assertEqual(self.store.listed(), Listed())

    def test_rows(self) -> None:
        """
        It is asked nothing from then on, and its row says why.
        """
        self.revoke("web-1")
        [row] = self.ping("web-1")
        self.assertEqual(row.error, "certificate revoked")
        self.assertEqual(self.run_on("web-1")["web-1"].error, "certificate revoked")
        self.assertEqual(self.agents.asked, [])
        self.failed(self.dispatcher.renew(ALICE, "web-1"), NotFound)

    def test_unreadable(self) -> None:
        """
        A list that can not be read is not written over, and nobody is marked.
        """
        self.revoke("a7")
        self.store.path.write_text("{")
        self.failed(self.dispatcher.revoke(ALICE, "web-1", ""), StoreError)
        self.assertEqual(self.record("web-1").revoked, "")


class PushTests(RevokingCase):
    """
    Who is told
    """

    def test_told(self) -> None:
        """
        Everybody but who is revoked: a list that the CA has signed.
        """
        done = self.revoke("web-1")
        self.assertEqual(done.push.rows, (PushRow("web-2", "acknowledged"),))
        [(host, found)] = self.agents.told
        self.assertEqual(host, "web-2")
        self.assertEqual(found.revocations.serials, {"a0", "a1"})
        self.assertEqual(found.revocations.issuer, "ops")
        ca = Authority(self.dispatcher.settings).ca_certificate()
        self.assertIsNone(signer_of(found, ca, NOW))
        number = self.store.listed().number
        self.assertEqual(self.record("web-2").revocations, number)
        line = f"ACTION=revocations NUMBER={number} TARGET=web-2"
        self.assertIn(line, self.lines())

    def test_withoutCaKey(self) -> None:
        """
        Without the key of the CA, one that this dispatcher has signed.
        """
        authority = Authority(self.dispatcher.settings)
        self.dispatcher.settings.ca_key.unlink()
        self.revoke("web-1")
        [(_, found)] = self.agents.told
        info = signer_of(found, authority.ca_certificate(), NOW)
        assert info is not None
        self.assertEqual(info.role, DispatcherRole("ops"))

    def test_once(self) -> None:
        """
        Who has acknowledged a list is not told again, until there is another.
        """
        self.revoke("web-1")
        self.assertEqual(self.push().rows, ())
        self.assertEqual(len(self.agents.told), 1)
        self.revoke("a7")
        self.assertEqual(len(self.agents.told), 2)

    def test_offline(self) -> None:
        """
        Who is off is told later; the revocation stands meanwhile.
        """
        self.agents.knows = {"web-2": TransportError("connection refused")}
        done = self.revoke("web-1")
        self.assertEqual(done.push.rows, (PushRow("web-2", "connection refused"),))
        self.assertFalse(done.push.ok)
        number = self.store.listed().number
        error = 'ERROR="connection refused"'
        line = f"ACTION=revocations {error} NUMBER={number} TARGET=web-2"
        self.assertIn(line, self.lines())
        self.agents.knows = {}
        self.assertEqual(self.push().rows, (PushRow("web-2", "acknowledged"),))

    def test_maintain(self) -> None:
        """
        Looking after things tells them, too; who is revoked is not missed there.
        """
        self.agents.knows = {"web-2": TransportError("connection refused")}
        self.revoke("web-1")
        self.agents.knows = {}
        done = self.done(self.dispatcher.maintain(ALICE))
        self.assertEqual((done.agents, done.silent, done.failed), (1, (), ()))
        number = self.store.listed().number
        self.assertEqual(self.record("web-2").revocations, number)

    def test_original(self) -> None:
        """
        An agent of the original takes no list; that is no failure.
        """
        self.agents.knows = {"web-2": NoSuchRequest("the agent answered 404")}
        done = self.revoke("web-1")
        self.assertEqual(done.push.rows, (PushRow("web-2", "not supported"),))
        self.assertTrue(done.push.ok)

    def test_heldAlready(self) -> None:
        """
        An agent whose answer was lost has the list, and says so; one that has
        a later list than ours does not have ours.
        """
        self.agents.knows = {"web-2": TransportError("timeout")}
        self.revoke("web-1")
        number = self.store.listed().number
        for held, result in ((number + 1, "has another"), (number, "acknowledged")):
            self.agents.knows = {"web-2": NotAcknowledged("has another", held)}
            self.assertEqual(self.push().rows, (PushRow("web-2", result),))

    def test_fault(self) -> None:
        """
        A fault of ours with one agent keeps no other from being told.
        """
        self.register(AgentRecord(hostname="web-3"))
        self.agents.knows = {"web-2": 7}  # type: ignore[dict-item]
        self.agents.serials = {}
        rows = self.revoke("web-1").push.rows
        self.assertEqual([row.host for row in rows], ["web-2", "web-3"])

    def test_noIdentity(self) -> None:
        """
        Where nobody can be told, the revocation stands all the same.
        """
        self.dispatcher.settings.cert.unlink()
        done = self.revoke("web-1")
        assert done.push.error is not None
        self.assertEqual(self.store.listed().serials, {"a0", "a1"})

    def test_nothing(self) -> None:
        """
        Where nothing is revoked nobody is told anything.
        """
        self.assertEqual(self.push(), Push())
        self.assertEqual(self.agents.told, [])
