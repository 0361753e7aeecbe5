# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.typed_lines}.
"""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.typed_lines import TypedLines


class TypedLinesTests(SynchronousTestCase):
    """
    Lines from a descriptor.
    """

    def setUp(self) -> None:
        """
        A pipe.
        """
        self.read, self.write = os.pipe()
        self.addCleanup(os.close, self.read)
        self.lines: list[str] = []
        self.ended = 0
        self.typed = TypedLines(self.read, self.lines.append, self.end)

    def end(self) -> None:
        """
        There is no more.
        """
        self.ended += 1

    def types(self, text: bytes) -> None:
        """
        Something can be read.
        """
        os.write(self.write, text)
        self.typed.doRead()

    def test_lines(self) -> None:
        """
        Lines come whole, however they were typed.
        """
        for piece in (b"a", b"1\nli", b"st\r\n\n", b"\xff\n"):
            self.types(piece)
        self.assertEqual(self.lines, ["a1", "list", "", "\ufffd"])
        os.close(self.write)

    def test_end(self) -> None:
        """
        The end is told.
        """
        os.close(self.write)
        self.typed.doRead()
        self.assertEqual((self.lines, self.ended), ([], 1))

    def test_endless(self) -> None:
        """
        A line without an end does not fill the memory.
        """
        for _ in range(10):
            self.types(b"x" * 1000)
        self.types(b"\n")
        self.assertLess(len(self.lines[0]), 3000)
        os.close(self.write)

    def test_leavesTheTerminalAlone(self) -> None:
        """
        The descriptor blocks as it did before: a shell shares it.
        """
        self.assertTrue(os.get_blocking(self.typed.fileno()))
        os.close(self.write)
