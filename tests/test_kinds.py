# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.kinds}.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.errors import InvalidValue
from ctrlexec.kinds import (
    ADDRESS_TO_BIND,
    BOOLEAN,
    DURATION,
    LOG,
    PATH,
    PORT,
    PORT_TO_BIND,
    RATE,
    SIZE,
    SPACE,
    Kind,
    choice,
    entries,
    number,
    seconds,
)
from ctrlexec.rates import Rate


class KindTests(SynchronousTestCase):
    """
    The kinds of value, each with texts at its edges.
    """

    def check(self, kind: Kind[Any], good: dict[str, Any], bad: list[str]) -> None:
        for text, value in good.items():
            self.assertEqual(kind.read(text), value, text)
        for text in bad:
            error = self.assertRaises(InvalidValue, kind.read, text)
            self.assertEqual((error.given, error.expected), (text, kind.expected))

    def test_number(self) -> None:
        """
        A number is plain decimal digits, within its bounds.
        """
        bad = ["", "0", "8", "-1", "+1", "1_0", "1.0", "0x1", "١", "1 ", "9" * 5000]
        self.check(number(1, 7), {"1": 1, "7": 7, "007": 7}, bad)

    def test_seconds(self) -> None:
        """
        A time may have a fraction, and is neither nothing nor without end.
        """
        bad = ["", "0", "0.0", "-1", "60.1", "nan", "inf", "1e1", ".5", "5.", "5s"]
        self.check(seconds(60), {"60": 60.0, "0.25": 0.25}, bad)

    def test_boolean(self) -> None:
        """
        Ten words, in any case.
        """
        good: dict[str, Any] = dict.fromkeys("1 y yes TRUE On".split(), True)
        good |= dict.fromkeys("0 n no False OFF".split(), False)
        self.check(BOOLEAN, good, ["", "2", "ja", "yes no"])

    def test_size(self) -> None:
        """
        A size takes k, M and G in powers of 1024, and ends at 1G.
        """
        good: dict[str, Any] = {"1": 1, "512k": 524288, "8M": 8388608, "1G": 2**30}
        self.check(
            SIZE, good, ["", "0", "0M", "1025M", "8 M", "8MB", "-1", "M", "1.5M"]
        )

    def test_space(self) -> None:
        """
        What need not be held in memory may be a thousand times as much.
        """
        good: dict[str, Any] = {"1": 1, "2G": 2**31, "1024G": 2**40}
        self.check(SPACE, good, ["", "0", "1025G", "1T"])

    def test_duration(self) -> None:
        """
        A duration takes s, m, h and d, and ends at 30 days.
        """
        good = {"90": 90, "30s": 30, "5m": 300, "2h": 7200, "720h": 2_592_000}
        good["30d"] = good["720h"]
        bad = ["", "0", "0h", "721h", "2592001", "31d", "5 m", "1h30m", "1.5h", "-1"]
        self.check(DURATION, good, [*bad, "5M", "s", "٣", "9" * 5000])

    def test_rate(self) -> None:
        """
        Three numbers; none of them is nothing, and none so big that what is
        kept of it has no bound.
        """
        good = {
            "10/60/300": Rate(10, 60, 300),
            " 5 / 10/ 86400": Rate(5, 10, 86_400),
            "1000/86400/604800": Rate(1000, 86_400, 604_800),
        }
        bad = ["", "10", "10/60", "10/60/300/1", "0/60/300", "10/0/300", "10/60/0"]
        bad += ["1001/60/300", "10/86401/300", "10/60/604801", "-1/60/300"]
        self.check(RATE, good, [*bad, "a/b/c", "10/6.5/300", "1_0/60/300", "٣/60/300"])

    def test_ports(self) -> None:
        """
        0 is a port to listen on, not one to connect to.
        """
        self.check(PORT, {"1": 1, "65535": 65535}, ["", "0", "65536"])
        self.check(PORT_TO_BIND, {"0": 0, "7443": 7443}, ["", "-1", "65536"])

    def test_path(self) -> None:
        """
        Any text but none is a path.
        """
        self.check(PATH, {"/a b": Path("/a b"), "c": Path("c")}, [""])

    def test_address(self) -> None:
        """
        An address of either family, or none; names are looked up by nobody.
        """
        good: dict[str, Any] = {text: text for text in ("", "127.0.0.1", "::1")}
        self.check(ADDRESS_TO_BIND, good, ["localhost", "*", "127.0.0.1:80", "1"])

    def test_log(self) -> None:
        """
        A word, or a file by its absolute path.
        """
        good: dict[str, Any] = {"auto": "auto", "/var/x.log": Path("/var/x.log")}
        self.check(LOG, good, ["", "Auto", "x.log", "journal"])

    def test_choice(self) -> None:
        """
        One of the words, which are named where it is not.
        """
        kind = choice("ec", "rsa")
        self.check(kind, {"ec": "ec", "rsa": "rsa"}, ["", "EC", "dsa"])
        self.assertEqual(kind.expected, "ec or rsa")

    def test_entries(self) -> None:
        """
        Entries lose their blanks, and empty ones are none.
        """
        self.assertEqual(entries(" a:b ,, c,", ":,"), ["a", "b", "c"])
        self.assertEqual(entries(" , ", ","), [])
