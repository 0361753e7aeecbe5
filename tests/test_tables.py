# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.tables}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.tables import Cell, Colour, Table, harmless
from ctrlexec.errors import one_line

TABLE = Table.of({"NAME": 8, "STATE": 6, "NOTE": 0})


class SafeTextTests(SynchronousTestCase):
    """
    What a stranger wrote can not drive a terminal.
    """

    def test_oneLine(self) -> None:
        """
        A name or message stays one line, and its escape sequences are shown.
        """
        self.assertEqual(one_line("a\x1b[2J\nb\u202ec é"), "a\\x1b[2J\\nb\\u202ec é")

    def test_harmless(self) -> None:
        """
        Output keeps its lines, tabs and letters, and loses its power.
        """
        self.assertEqual(
            harmless("é\t1\r\n\x1b]0;title\x07\x9b2J\rx\n"),
            "é\t1\n\\x1b]0;title\\x07\\x9b2J\nx\n",
        )

    @given(st.text())
    def test_nothingControls(self, text: str) -> None:
        """
        No control character but newline and tab gets through, ever.
        """
        for shown in (one_line(text), harmless(text)):
            left = {c for c in shown if ord(c) < 32 or 127 <= ord(c) < 160}
            self.assertLessEqual(left, {"\n", "\t"})
        self.assertNotIn("\n", one_line(text))

    @given(st.text(st.characters(categories=["L", "N", "P"])))
    def test_readableStays(self, text: str) -> None:
        """
        Text without control characters is left alone.
        """
        self.assertEqual(harmless(text), text)
        self.assertEqual(one_line(text), text)


class TableTests(SynchronousTestCase):
    """
    Columns stand under their titles.
    """

    def test_text(self) -> None:
        """
        Titles, a rule as long as they are, and the rows, without blanks at
        their ends.
        """
        self.assertEqual(
            TABLE.text([("web-1", "ok", "fine"), ("web-2", "bad", "")]),
            "NAME      STATE   NOTE\n"
            "----------------------\n"
            "web-1     ok      fine\n"
            "web-2     bad\n",
        )

    def test_fitted(self) -> None:
        """
        A column grows with its values, and the rule with the columns; the last
        column needs no width.
        """
        self.assertEqual(
            TABLE.text([("a-long-name", "ok", "and a very long note")]),
            "NAME         STATE   NOTE\n"
            "-------------------------\n"
            "a-long-name  ok      and a very long note\n",
        )

    def test_tooLong(self) -> None:
        """
        Where the columns stand already, a long value pushes the rest.
        """
        self.assertEqual(
            TABLE.line(("a-long-name", "ok", "x")), "a-long-name  ok      x\n"
        )

    def test_narrowed(self) -> None:
        """
        Where there is little room some columns are cut, the widest first; the
        others are not, whatever there is room for.
        """
        table = Table.of({"NAME": 30, "ID": 4, "SCRIPT": 20, "PID": 0})
        self.assertEqual(
            table.narrowed(80, 5, ("NAME", "SCRIPT")).text(
                [("web-1", "id-1", "x", "7")]
            ),
            "NAME   ID    SCRIPT                PID\n"
            "--------------------------------------\n"
            "web-1  id-1  x                     7\n",
        )
        narrow = table.narrowed(35, 5, ("NAME", "SCRIPT"))
        row = ("web-1", "id-1", "a-very-long-name", "1234567")
        self.assertEqual(narrow.line(row), "web-1  id-1  a-very-long-…  1234567\n")
        self.assertEqual(len(narrow.line(row).rstrip()), 35)
        least = table.narrowed(1, 30, ("NAME", "SCRIPT"))
        self.assertEqual(least.widths, (7, 4, 7, 0))
        row = ("web-1", "id-12345", "script", "7")
        self.assertEqual(least.line(row), "web-1    id-12345  script   7\n")

    def test_colour(self) -> None:
        """
        A colour takes no room.
        """
        row = ("web-1", Cell("bad", Colour.BAD), Cell("x", Colour.GOOD))
        self.assertEqual(
            TABLE.line(row), "web-1     \x1b[1;31mbad   \x1b[0m  \x1b[32mx\x1b[0m\n"
        )

    def test_hostile(self) -> None:
        """
        A value with control characters is escaped before it is measured.
        """
        self.assertEqual(
            TABLE.text([("web-1\x1b[31m", "a\nb", "\x00")]),
            "NAME           STATE   NOTE\n"
            "---------------------------\n"
            "web-1\\x1b[31m  a\\nb    \\x00\n",
        )
