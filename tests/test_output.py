# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.output}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.output import Captured


class CapturedTests(SynchronousTestCase):
    """
    L{Captured}
    """

    def test_undecodable_bytes_are_replaced(self) -> None:
        """
        Output that is not UTF-8 is shown as far as it is.
        """
        self.assertEqual(Captured("stdout", b"a\xffb\xc3", 4).text(), "a\ufffdb\ufffd")

    def test_a_cut_is_told(self) -> None:
        """
        A cut output ends with a line that gives both sizes, and a character
        that the cut went through is left out.
        """
        self.assertEqual(
            Captured("stderr", "aü".encode()[:2], 700).text(),
            "a\n[stderr cut: 2 of 700 bytes kept]\n",
        )

    @given(st.binary())
    def test_whole_output_decodes_as_python_does(self, data: bytes) -> None:
        """
        Output that was not cut is nothing but decoded.
        """
        self.assertEqual(
            Captured("stdout", data, len(data)).text(), data.decode("utf-8", "replace")
        )

    @given(st.text(), st.integers(min_value=0, max_value=64))
    def test_a_cut_never_damages_a_character(self, text: str, limit: int) -> None:
        """
        Wherever a cut falls, what is shown is the beginning of the output.
        """
        data = text.encode("utf-8", "ignore")
        shown = Captured("stdout", data[:limit], len(data) + limit + 1).text()
        beginning, _, _ = shown.rpartition("\n[stdout cut: ")
        self.assertTrue(data.decode("utf-8").startswith(beginning))
