# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.lines}.
"""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.errors import SettingsError
from ctrlexec.lines import read_text, significant_lines


class ReadTextTests(SynchronousTestCase):
    """
    L{read_text}
    """

    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def test_unreadable(self) -> None:
        """
        A file that can not be read is named, with the system's reason.
        """
        self.path.mkdir()
        error = self.assertRaises(SettingsError, read_text, self.path)
        self.assertEqual(
            str(error), f"{self.path}: the file can not be read: Is a directory"
        )

    def test_notUtf8(self) -> None:
        """
        A byte that is not UTF-8 is shown, with its line.
        """
        self.path.write_bytes(b"room = hall\n\nbulb = caf\xe9\n")
        error = self.assertRaises(SettingsError, read_text, self.path)
        self.assertEqual(error.line, 3)
        self.assertIn("expected UTF-8 text, not the byte 0xe9", str(error))


class SignificantLinesTests(SynchronousTestCase):
    """
    L{significant_lines}
    """

    @given(st.lists(st.sampled_from(["", "  ", "# x", "\t#", "a", " b # c ", "d\r"])))
    def test_numbers(self, lines: list[str]) -> None:
        """
        Each line that says something comes with its number in the file.
        """
        expected = [
            (number, line.strip())
            for number, line in enumerate(lines, 1)
            if line.strip() and not line.strip().startswith("#")
        ]
        self.assertEqual(list(significant_lines("\n".join(lines))), expected)
