# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.revocation}, and of what the registry knows of
certificates.
"""

from __future__ import annotations

from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.api.agents import KeptAgents
from ctrlexec.dispatcher.over_tls import agents_over_tls
from ctrlexec.dispatcher.records import AgentRecord, decode_record, encode_record
from ctrlexec.dispatcher.revocation import (
    Entry,
    FileRevocations,
    Listed,
    RevokedSerials,
)
from ctrlexec.errors import StoreError
from tests.authority import DAY, NOW
from tests.operating import ALICE, DispatcherCase


def entry(serial: str) -> Entry:
    """
    A certificate that somebody has revoked.
    """
    return Entry(serial, "web-1", "stolen", "2026-03-05T18:38:09Z", "alice")


class StoreTests(SynchronousTestCase):
    """
    L{FileRevocations} and L{RevokedSerials}
    """

    def setUp(self) -> None:
        self.store = FileRevocations(Path(self.mktemp()))
        self.revoked = RevokedSerials(self.store)

    def test_nothing(self) -> None:
        """
        Where there is no file, nothing is revoked.
        """
        self.assertEqual(self.store.listed(), Listed())
        self.assertEqual(self.revoked(), frozenset())

    def test_add(self) -> None:
        """
        The list grows, its number too, and what asks for it sees that.
        """
        first, new = self.store.add([entry("0A1")], NOW)
        self.assertEqual((first.serials, new), ({"a1"}, 1))
        self.assertEqual(self.revoked(), {"a1"})
        second, new = self.store.add([entry("a1"), entry("a2")], NOW)
        self.assertEqual((second.serials, new), ({"a1", "a2"}, 1))
        self.assertGreater(second.number, first.number)
        self.assertEqual(self.store.listed(), second)
        self.assertEqual(self.revoked(), {"a1", "a2"})

    def test_same(self) -> None:
        """
        What is revoked already makes no new list.
        """
        first, _ = self.store.add([entry("a1")], NOW)
        again = attrs.evolve(entry("a1"), reason="other")
        self.assertEqual(self.store.add([again], NOW + DAY), (first, 0))

    def test_lost(self) -> None:
        """
        A list that was lost goes on with a higher number than agents hold.
        """
        first, _ = self.store.add([entry("a1")], NOW)
        self.store.path.unlink()
        later, _ = self.store.add([entry("a2")], NOW + DAY)
        self.assertGreater(later.number, first.number)

    def test_cutOff(self) -> None:
        """
        A file that is cut off anywhere revokes nobody knows what, so there is no
        answer, and nothing is written over it.
        """
        self.store.add([entry("a1")], NOW)
        whole = self.store.path.read_bytes()
        for length in range(len(whole) - 1):
            self.store.path.write_bytes(whole[:length])
            self.assertRaises(StoreError, self.store.listed)
            self.assertRaises(StoreError, RevokedSerials(self.store))
        self.assertRaises(StoreError, self.store.add, [entry("a2")], NOW)


class AgentsTests(DispatcherCase):
    """
    What speaks to agents, for a command line and for the API
    """

    def test_knows(self) -> None:
        """
        It knows what another process has revoked since it was made.
        """
        self.done(self.dispatcher.setup_ca(ALICE))
        self.done(self.dispatcher.setup_identity(ALICE, confirmed=True))
        settings = self.dispatcher.settings
        kept = KeptAgents(settings, lambda: NOW)
        self.addCleanup(kept.close)
        speaking = [kept(self.clock), agents_over_tls(settings, NOW, self.clock)]
        FileRevocations(settings.revocations_dir).add([entry("a1")], NOW)
        for agents in speaking:
            self.assertEqual(agents.revoked(), {"a1"})


class RecordTests(SynchronousTestCase):
    """
    What the registry knows of certificates
    """

    def test_roundTrip(self) -> None:
        """
        It is written, and read again; where there is nothing to say it is left
        out, as an original expects it.
        """
        record = AgentRecord(
            hostname="web-1",
            cert_serial="a1",
            former_serials=("a0", "10"),
            revoked="2026-03-05T18:38:09Z",
            revocations=7,
        )
        path = Path("web-1.json")
        self.assertEqual(decode_record(path, encode_record(record)), record)
        plain = encode_record(AgentRecord(hostname="web-1"))
        for name in (b"cert_serial", b"former_serials", b"revoked", b"revocations"):
            self.assertNotIn(name, plain)

    def test_former(self) -> None:
        """
        The certificate before is remembered, as long as there is room.
        """
        record = AgentRecord(hostname="web-1")
        for each in range(1, 100):
            record = record.with_certificate(f"{each:x}", "")
        self.assertEqual(record.cert_serial, "63")
        self.assertEqual(record.former_serials[0], "62")
        self.assertEqual(len(record.former_serials), 32)
        again = record.with_certificate("62", "")
        self.assertEqual(again.former_serials[:2], ("63", "61"))
