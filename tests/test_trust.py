# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.trust}.
"""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.trust import (
    MOST_SERIALS,
    NAMELESS,
    Change,
    NotChanged,
    NotTrusted,
    Trusted,
    TrustedMap,
    load_revoked,
    load_trusted,
)
from ctrlexec.certificates import AgentRole, CertificateInfo, DispatcherRole
from ctrlexec.errors import SettingsError, StoreError
from ctrlexec.values import dispatcher_id, serial_from_hex, serial_from_int
from tests.agents import holder

SERIALS = st.integers(0, 2**160 - 1).map(serial_from_int)
IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
MAPS = st.dictionaries(SERIALS, IDS, max_size=5).map(TrustedMap)


class ParseTests(SynchronousTestCase):
    """
    L{TrustedMap.parse} and L{TrustedMap.render}
    """

    def test_lines(self) -> None:
        """
        Serials come in any form of hex, and C{#} begins a comment anywhere.
        """
        text = (
            "\ufeff# two lines of comment\n#\n\n00D1 hq # the new one\r\n"
            "0xD2 hq\nserial=D3 2nd-site\nd4:0a\tlab.example.net\n12 x\n"
        )
        self.assertEqual(
            TrustedMap.parse(text).entries,
            {"d1": "hq", "d2": "hq", "d3": "2nd-site", "d40a": "lab.example.net"}
            | {"12": "x"},
        )

    def test_badLines(self) -> None:
        """
        A line that is no entry trusts nobody, and harms no other one.
        """
        for bad in (
            "d2",
            "d2 hq more",
            "d2 -hq",
            "d2 h/q",
            "hq d2",
            "d2# hq",
            f"d2 {'x' * 65}",
            f"{'d' * 65} hq",
            "d2\x0bhq\x0cd3 hq",
            "# x\x0bd2 hq",
            "# x\u2028d2 hq",
            "# x\x85d2 hq",
            "# x\rd2 hq",
        ):
            entries = TrustedMap.parse(f"d1 hq\n{bad}\n").entries
            self.assertEqual(entries, {"d1": "hq"}, bad)

    def test_rendered(self) -> None:
        """
        The file is what the original writes: two lines of comment, then the
        entries, sorted.
        """
        lines = TrustedMap({"d2": "lab", "d1": "hq"}).render().splitlines()
        self.assertEqual([line[0] for line in lines[:2]], ["#", "#"])
        self.assertEqual(lines[2:], ["d1 hq", "d2 lab"])

    @given(MAPS)
    def test_roundTrip(self, trusted: TrustedMap) -> None:
        """
        A map survives its file.
        """
        self.assertEqual(TrustedMap.parse(trusted.render()), trusted)

    @given(st.text())
    def test_anything(self, text: str) -> None:
        """
        Whatever the file holds, what comes of it are serials and ids.
        """
        for serial, name in TrustedMap.parse(text).entries.items():
            self.assertEqual(serial_from_hex(serial), serial)
            self.assertEqual(dispatcher_id(name), name)

    @given(MAPS, SERIALS, IDS)
    def test_trusting(self, trusted: TrustedMap, serial: str, name: str) -> None:
        """
        To trust one more drops nobody.
        """
        more = trusted.trusting(serial, name).entries
        self.assertEqual(more, {**trusted.entries, serial: name})


class DecideTests(SynchronousTestCase):
    """
    L{TrustedMap.decide}
    """

    trusted = TrustedMap({"d1": "hq"})

    def assertRefused(self, certificate: CertificateInfo | None, reason: str) -> None:
        """
        The holder may not give orders.
        """
        self.assertEqual(self.trusted.decide(certificate), NotTrusted(reason))

    def test_serial(self) -> None:
        """
        A serial in the map is trusted, of the original or of ours.
        """
        for role in (None, DispatcherRole("hq"), DispatcherRole("renamed")):
            self.assertEqual(self.trusted.decide(holder(role)), Trusted("hq"))

    def test_role(self) -> None:
        """
        A dispatcher's new certificate is trusted by its id: rotation needs no
        broadcast.
        """
        certificate = holder(DispatcherRole("hq"), serial="d2")
        self.assertEqual(self.trusted.decide(certificate), Trusted("hq"))

    def test_taken(self) -> None:
        """
        A dispatcher that adds the serial of another one's next certificate does
        not own it: it could revoke it then.
        """
        trusted = self.trusted.trusting("e1", "lab")
        grabbed = trusted.changed(Change.ADD, "e2", "hq")
        assert isinstance(grabbed, TrustedMap)
        certificate = holder(DispatcherRole("lab"), serial="e2")
        self.assertEqual(grabbed.decide(certificate), Trusted("lab"))

    def test_strangers(self) -> None:
        """
        Another serial, or another id, or no certificate at all.
        """
        self.assertRefused(holder(None, serial="d2"), "serial mismatch")
        other = holder(DispatcherRole("hq2"), serial="d2")
        self.assertRefused(other, "serial mismatch")
        self.assertRefused(None, "no certificate")

    def test_agent(self) -> None:
        """
        An agent's certificate gives no orders, though its serial be in the map
        or its name the id of a dispatcher.
        """
        self.assertRefused(holder(AgentRole("hq")), "an agent's certificate")
        stranger = holder(AgentRole("hq"), serial="d2")
        self.assertRefused(stranger, "an agent's certificate")

    def test_empty(self) -> None:
        """
        Who trusts nobody takes orders from nobody.
        """
        refused = NotTrusted("no trusted dispatchers stored")
        self.assertEqual(TrustedMap().decide(holder(DispatcherRole("hq"))), refused)

    @given(MAPS, SERIALS)
    def test_never(self, trusted: TrustedMap, serial: str) -> None:
        """
        Of the holders without a role only those in the map are trusted.
        """
        decision = trusted.decide(holder(None, serial=serial))
        self.assertEqual(isinstance(decision, Trusted), serial in trusted.entries)


class FullTests(SynchronousTestCase):
    """
    L{TrustedMap.changed}, by a dispatcher that adds without end.
    """

    def test_full(self) -> None:
        """
        A dispatcher with so many serials gets no more, and can still remove
        one; another is not held up by it.
        """
        own = {f"{number:x}": "ops" for number in range(1, MOST_SERIALS + 1)}
        trusted = TrustedMap({**own, "fff": "lab"})
        refused = trusted.changed(Change.ADD, "abc", "ops")
        self.assertEqual(refused, NotChanged("'ops' has 100 serials already"))
        self.assertEqual(trusted.changed(Change.ADD, "1", "ops"), trusted)
        for asked in ((Change.REMOVE, "1", "ops"), (Change.ADD, "abc", "lab")):
            self.assertIsInstance(trusted.changed(*asked), TrustedMap)


class LoadTests(SynchronousTestCase):
    """
    L{load_trusted} and L{load_revoked}
    """

    def setUp(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        self.map, self.older = directory / "map", directory / "ctrl-exec-serial"
        self.revoked = directory / "revoked-serials"

    def test_none(self) -> None:
        """
        Without any file nobody is trusted, and nobody revoked.
        """
        self.assertEqual(load_trusted(self.map, self.older), TrustedMap())
        self.assertEqual(load_revoked(self.revoked), frozenset())

    def test_older(self) -> None:
        """
        The serial of the older line counts where there is no map, and only
        there; it is hex, digits or not.
        """
        self.older.write_text("0012\n")
        entries = load_trusted(self.map, self.older).entries
        self.assertEqual(entries, {"12": NAMELESS})
        self.map.write_text("")
        self.assertEqual(load_trusted(self.map, self.older).entries, {})

    def test_olderOdd(self) -> None:
        """
        More than one word is no serial.
        """
        for text in ("d1 hq", "d1 hq\nd2", "", "\n", "no-hex"):
            self.older.write_text(text)
            self.assertEqual(load_trusted(self.map, self.older), TrustedMap(), text)

    def test_unreadable(self) -> None:
        """
        A file that is there and can not be read is an error, never an empty
        list.
        """
        for path in (self.map, self.older, self.revoked):
            path.mkdir()
        self.assertRaises(StoreError, load_trusted, self.map, self.older)
        self.assertRaises(StoreError, load_revoked, self.revoked)

    def test_tooLarge(self) -> None:
        """
        Nor is one that is too large.
        """
        self.revoked.write_bytes(b"#" * 1_048_577)
        self.assertRaises(StoreError, load_revoked, self.revoked)

    def test_revoked(self) -> None:
        """
        People write serials as they see them; digits only can be hex or
        decimal, and revoke both.
        """
        self.revoked.write_text("# lost\n\nAA:BB\r\n0x00cc\nserial=DD\n10\n")
        expected = {"aabb", "cc", "dd", "10", "a"}
        self.assertEqual(load_revoked(self.revoked), expected)

    def test_revokedBad(self) -> None:
        """
        A line that is no serial is refused by its number: to skip it would let
        somebody in.
        """
        for bad in ("lost laptop", "aa # lost", "aa,bb", "\xff", "a" * 65):
            self.revoked.write_bytes(b"aa\n" + bad.encode("latin-1") + b"\n")
            error = self.assertRaises(SettingsError, load_revoked, self.revoked)
            self.assertEqual(error.line, 2, bad)
