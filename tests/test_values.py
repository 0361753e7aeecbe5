# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.values} and L{ctrlexec.errors}.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.errors import (
    CtrlExecError,
    InvalidValue,
    SettingsError,
    StoreError,
    abbreviated,
    explained,
)
from ctrlexec.values import (
    HostPort,
    agent_name,
    dispatcher_id,
    from_iso_time,
    from_openssl_time,
    is_ip_address,
    iso_time,
    new_nonce,
    new_request_id,
    normalised_dispatcher_id,
    openssl_time,
    port_number,
    request_id,
    revoked_serials,
    script_name,
    serial_from_hex,
    serial_from_int,
)

SERIALS = st.integers(0, 2**160)
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
MOMENTS = st.integers(0, 253402300799).map(lambda n: EPOCH + timedelta(seconds=n))


class ValuesTestCase(SynchronousTestCase):
    """
    What tests of parsers ask.
    """

    def assertTakes(self, parse: Callable[[str], object], *texts: str) -> None:
        """
        Each of these texts is a value, and its own canonical form.
        """
        for text in texts:
            self.assertEqual(parse(text), text)

    def assertRefuses(self, parse: Callable[[str], object], *texts: str) -> None:
        """
        None of these texts is a value, and the error shows it harmlessly.
        """
        for text in texts:
            with self.assertRaises(InvalidValue, msg=repr(text)) as caught:
                parse(text)
            self.assertEqual(caught.exception.given, text)
            self.assertTrue(str(caught.exception).isprintable())


class NameTests(ValuesTestCase):
    """
    Names of agents, scripts, dispatchers and requests.
    """

    def test_agents(self) -> None:
        """
        A name is a host's, and never a path, an option or a line of its own.
        """
        self.assertTakes(
            agent_name, "a", "9", "agent-one", "a_b.example.com", "a" * 253
        )
        self.assertRefuses(
            agent_name, "", ".", "..", "-a", "_a", "a/b", "a b", "a\n", "ä", "a" * 254
        )

    def test_scripts(self) -> None:
        """
        A script's name is a word, not a path.
        """
        self.assertTakes(script_name, "a", "-a", "_", "check_disk-2", "x" * 128)
        self.assertRefuses(
            script_name, "", "a.sh", "../a", "a b", "a\n", "é", "٣", "x" * 129
        )

    def test_dispatchers(self) -> None:
        """
        A dispatcher's id is what an agent of the newer line takes.
        """
        self.assertTakes(dispatcher_id, "hq", "0", "a.b_c-d", "x" * 64)
        self.assertRefuses(dispatcher_id, "", "-hq", ".hq", "a b", "hq\n", "x" * 65)

    def test_normalised(self) -> None:
        """
        Known answers for the id that a host name becomes.
        """
        known = {
            "hq": "hq",
            "main office": "main-office",
            "--.hq": "hq",
            "ä": "dispatcher",
            "": "dispatcher",
            "a" * 70: "a" * 64,
        }
        for text, expected in known.items():
            self.assertEqual(normalised_dispatcher_id(text), expected)

    @given(st.text())
    def test_normalisedAnything(self, text: str) -> None:
        """
        Any text at all becomes an id, and an id becomes itself.
        """
        once = dispatcher_id(normalised_dispatcher_id(text))
        self.assertEqual(normalised_dispatcher_id(once), once)

    def test_requests(self) -> None:
        """
        The id of a stored request is a file name.
        """
        self.assertTakes(request_id, "9f21f7eabc06ba23", "A-b_1", "x" * 64)
        self.assertRefuses(request_id, "", "..", "a/b", "a.json", "a\0", "x" * 65)

    def test_new(self) -> None:
        """
        New ids and nonces have the lengths that peers expect, and differ.
        """
        self.assertRegex(new_request_id(), "^[0-9a-f]{16}$")
        self.assertRegex(new_nonce(), "^[0-9a-f]{32}$")
        self.assertEqual(len({new_request_id() for _ in range(100)}), 100)
        self.assertEqual(len({new_nonce() for _ in range(100)}), 100)


class SerialTests(ValuesTestCase):
    """
    PROTOCOL.md section 1.
    """

    def test_spellings(self) -> None:
        """
        Every spelling of a serial on the wire is hex, digits too.
        """
        known = {
            "0A": "a",
            "0x0a": "a",
            "0X0A": "a",
            "00:0a": "a",
            "serial=0A": "a",
            "Serial=0x0A": "a",
            " 10\n": "10",
            "0": "0",
            "0000": "0",
            "f" * 64: "f" * 64,
        }
        for text, expected in known.items():
            self.assertEqual(serial_from_hex(text), expected)

    def test_refused(self) -> None:
        """
        What is no serial is refused, whatever Python might take for a number.
        """
        self.assertRefuses(
            serial_from_hex, "", "0x", ":", "g", "-1", "1 2", "1_0", "٣", "f" * 65
        )
        self.assertRaises(InvalidValue, serial_from_int, -1)

    @given(SERIALS)
    def test_roundTrip(self, number: int) -> None:
        """
        The canonical form names the number, and is its own canonical form.
        """
        text = serial_from_int(number)
        self.assertEqual(int(text, 16), number)
        self.assertEqual(serial_from_hex(text), text)
        self.assertEqual(serial_from_hex(f"0x00{text.upper()}"), text)

    @given(st.text())
    def test_anything(self, text: str) -> None:
        """
        Any text is a canonical serial or an error, never something between.
        """
        try:
            serial = serial_from_hex(text)
        except InvalidValue:
            return
        self.assertEqual(serial_from_int(int(serial, 16)), serial)

    def test_revoked(self) -> None:
        """
        In the list that people write, digits alone revoke both readings.
        """
        known = {
            "10": {"10", "a"},
            "0010": {"10", "a"},
            "0x10": {"10"},
            "serial=10": {"10"},
            "00:10": {"10"},
            "4F": {"4f"},
            "255": {"255", "ff"},
            "0": {"0"},
        }
        for text, expected in known.items():
            self.assertEqual(revoked_serials(text), expected)

    @given(SERIALS)
    def test_revokedEitherWay(self, number: int) -> None:
        """
        Whichever way an operator writes a serial, that serial is revoked.
        """
        serial = serial_from_int(number)
        self.assertIn(serial, revoked_serials(serial))
        self.assertIn(serial, revoked_serials(str(number)))

    def test_revokedRefused(self) -> None:
        """
        An entry that is none is an error, so that a bad list can be refused.
        """
        self.assertRefuses(revoked_serials, "", "all", "-5", "٣")


class TimeTests(ValuesTestCase):
    """
    The two ways to write a time.
    """

    def test_known(self) -> None:
        """
        The forms are those of openssl and of ISO 8601, in any zone's time.
        """
        moment = datetime(
            2027, 6, 7, 18, 28, tzinfo=timezone(timedelta(hours=2), "summer")
        )
        self.assertEqual(openssl_time(moment), "Jun  7 16:28:00 2027 GMT")
        self.assertEqual(iso_time(moment), "2027-06-07T16:28:00Z")

    @given(MOMENTS)
    def test_roundTrip(self, moment: datetime) -> None:
        """
        What was written can be read.
        """
        self.assertEqual(from_openssl_time(openssl_time(moment)), moment)
        self.assertEqual(from_iso_time(iso_time(moment)), moment)

    @given(st.text())
    def test_anything(self, text: str) -> None:
        """
        Any text is a time or an L{InvalidValue}.
        """
        for parse in (from_openssl_time, from_iso_time):
            with contextlib.suppress(InvalidValue):
                self.assertEqual(parse(text).utcoffset(), timedelta(0))

    def test_refused(self) -> None:
        """
        Days, months and hours that do not exist are refused.
        """
        self.assertRefuses(
            from_openssl_time,
            "unknown",
            "Feb 30 00:00:00 2027 GMT",
            "Xyz  7 16:28:00 2027 GMT",
            "Jun  7 24:28:00 2027 GMT",
            "Jun  7 16:28:00 0000 GMT",
            "Jun  7 16:28:00 2027 CET",
        )
        self.assertRefuses(from_iso_time, "", "2027-02-30T00:00:00Z", "2027-06-07")


class AddressTests(ValuesTestCase):
    """
    Ports, addresses, and what an operator types for a host.
    """

    def test_ports(self) -> None:
        """
        A port is a number from 1 to 65535 and nothing like one.
        """
        self.assertEqual([port_number("1"), port_number("65535")], [1, 65535])
        self.assertRefuses(
            port_number, "", "0", "65536", "-1", "+1", "07", "1e3", "٣", "7443\n"
        )

    def test_addresses(self) -> None:
        """
        An address is one of IPv4 or IPv6, with a zone or without.
        """
        for text in ("10.0.0.1", "::1", "fe80::1%eth0.5", "::ffff:10.0.0.1"):
            self.assertTrue(is_ip_address(text), text)
        for text in ("", "10.0.0", "010.0.0.1", "10.0.0.1/8", "::1%", "1.2.3.4%x"):
            self.assertFalse(is_ip_address(text), text)

    @given(st.text(min_size=1))
    def test_zones(self, zone: str) -> None:
        """
        What passes for an address can be printed and logged as it is; Python
        itself takes anything for a zone.
        """
        text = f"fe80::1%{zone}"
        if is_ip_address(text):
            self.assertRegex(text, r"^[!-~]+\Z")

    def test_hosts(self) -> None:
        """
        A name or an address, with a port or without.
        """
        known = {
            "agent-one": HostPort("agent-one"),
            "agent-one:7444": HostPort("agent-one", 7444),
            "10.0.0.1": HostPort("10.0.0.1"),
            "10.0.0.1:1": HostPort("10.0.0.1", 1),
            "::1": HostPort("::1"),
            "[::1]:7443": HostPort("::1", 7443),
        }
        for text, expected in known.items():
            self.assertEqual(HostPort.parse(text), expected)

    def test_hostsRefused(self) -> None:
        """
        What is neither is refused, never resolved.
        """
        for text in ("", ":1", "a:", "a:0", "a:b:1", "[::1]", "a b", "-a", "a/b:1"):
            self.assertRaises(InvalidValue, HostPort.parse, text)

    @given(st.text())
    def test_anything(self, text: str) -> None:
        """
        Any text is a host or an L{InvalidValue}.
        """
        try:
            host = HostPort.parse(text)
        except InvalidValue:
            return
        self.assertRegex(host.host, r"^[!-~]+\Z")


class ErrorTests(SynchronousTestCase):
    """
    What an operator reads.
    """

    def test_abbreviated(self) -> None:
        """
        Somebody else's text is short, quoted, and drives no terminal.
        """
        self.assertEqual(abbreviated("agent"), "'agent'")
        self.assertEqual(abbreviated("\x1b[2J"), "'\\x1b[2J'")
        self.assertEqual(abbreviated("x" * 61), f"'{'x' * 60}…'")

    @given(st.text())
    def test_anything(self, text: str) -> None:
        """
        Whatever the text is, what is shown of it is one printable line.
        """
        self.assertTrue(abbreviated(text).isprintable())

    def test_settings(self) -> None:
        """
        The error names file, line and key, as far as there are any.
        """
        self.assertEqual(
            str(SettingsError("a.conf", 3, "port", "is none")),
            "a.conf:3: port: is none",
        )
        self.assertEqual(str(SettingsError("a.conf", 0, "", "gone")), "a.conf: gone")

    def test_store(self) -> None:
        """
        The error names the file, and carries it.
        """
        error = StoreError(Path("/a"), "is no record", hint="remove it")
        self.assertEqual((str(error), error.hint), ("/a: is no record", "remove it"))

    def test_explained(self) -> None:
        """
        A program prints one line for what is wrong, and one for the way out.
        """
        self.assertEqual(explained(CtrlExecError("no")), "error: no\n")
        self.assertEqual(
            explained(CtrlExecError("no", hint="try")), "error: no\nhint: try\n"
        )
