# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.patterns}.
"""

from __future__ import annotations

import re
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.patterns import PatternError, pattern_of
from tests.structure import ROOT

ATOMS = ("a", "b", "-", ".", "\\d", "\\w", "\\s", "[ab]", "[^a-]", "\\.", "\\b", "é")
PATTERNS = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map("".join)
        | st.tuples(inner, inner).map(lambda both: f"(?:{both[0]}|{both[1]})")
        | st.tuples(inner, st.sampled_from(["*", "+", "?", "{1,2}", "*?"])).map(
            lambda both: f"(?:{both[0]}){both[1]}"
        )
        | inner.map(lambda each: f"^{each}")
    ),
    max_leaves=5,
)


class FoundTests(SynchronousTestCase):
    """
    L{pattern_of}
    """

    def assertFinds(self, source: str, good: str, bad: str) -> None:
        """
        A pattern matches in the one text and not in the other.
        """
        pattern = pattern_of(source)
        self.assertTrue(pattern.found_in(good), (source, good))
        self.assertFalse(pattern.found_in(bad), (source, bad))

    def refused(self, source: str) -> str:
        """
        Why a pattern can not be used.
        """
        error: PatternError = self.assertRaises(PatternError, pattern_of, source)
        return str(error)

    def test_ecma(self) -> None:
        """
        What is spelled otherwise, or means something else, in RE2 or in Python
        means what ECMA-262 says.
        """
        for source, good, bad in (
            ("^web$", "web", "web\n"),
            ("^a.b$", "a-b", "a\rb"),
            ("^.$", "\x85", "\u2028"),
            ("^\\d$", "7", "٧"),
            ("^\\w$", "e", "é"),
            ("^\\s$", "\ufeff", "\x1f"),
            ("^[\\s]$", "\x0b", "x"),
            ("^\\S$", "\x1f", "\u3000"),
            ("^[\\Sa]$", "é", "\xa0"),
            ("^\\u00e9\\x41$", "éA", "eA"),
            ("^\\ud83d\\ude00$", "\U0001f600", "\U0001f601"),
            ("^\\u{1F600}$", "\U0001f600", "u"),
            ("^\\cJ$", "\n", "J"),
            ("^\\0$", "\0", "0"),
            ("^[\\b]$", "\b", "b"),
            ("^[$.[]$", "[", "x"),
            ("^[[:d]$", ":", "1"),
            ("^[a\\]\\-^]$", "]", "\\"),
            ("^\\/\\-\\_\\é$", "/-_é", "/-_e"),
            ("^a{,2}$", "a{,2}", "aa"),
            ("^[a{5000}]$", "5", "b"),
            ("^(?<x>ab)(?:c)$", "abc", "ab"),
            ("^\\p{Lu}$", "É", "é"),
            ("a", "bab", "b"),
            ("^$", "", "x"),
        ):
            self.assertFinds(source, good, bad)

    @given(PATTERNS, st.lists(st.text("ab-. é1", max_size=8)))
    def test_likePython(self, source: str, texts: list[str]) -> None:
        """
        Where both have the same meaning, both find the same.
        """
        pattern, known = pattern_of(source), re.compile(source, re.ASCII)
        for text in texts:
            found = known.search(text) is not None
            self.assertEqual(pattern.found_in(text), found, (source, text))

    def test_unknown(self) -> None:
        """
        What takes more than one look at a text is not known, and said by its
        name; likewise what means something in RE2 alone.
        """
        for source, words in (
            ("(?=a)b", "invalid perl operator: (?="),
            ("(?!a)b", "invalid perl operator: (?!"),
            ("(?<=a)b", "(?<"),
            ("(?<!a)b", "(?<"),
            ("(a)\\1", "\\1 is not known"),
            ("(?<x>a)\\k<x>", "\\k is not known"),
            ("a++", "bad repetition operator"),
            *((f"\\{letter}", "is not known") for letter in "AZzCQEaGpe"),
            ("\\u12", "\\u is not known"),
            ("a\\", "\\ is not known"),
            ("\\01", "\\0 is not known"),
            ("(", "missing )"),
            ("[]", "brackets with nothing in them"),
            ("[^]a]", "brackets with nothing in them"),
            ("\\ud800", "half of a character"),
            ("\udc00", "half of a character"),
        ):
            reason = self.refused(source)
            self.assertIn(words, reason)
            reason.encode()

    def test_large(self) -> None:
        """
        A pattern that is too much is none; nor is a number that RE2 would take
        for a text, and the reason is no longer than a line.
        """
        for source in ("^.{1,255}$", "^.{0,1000}$", "^[a-z0-9.-]{1,900}$"):
            self.assertLess(pattern_of(source).instructions, 30_000)
        for source, words in (
            ("(?:.{990}|.{991})", "too large"),
            ("(?:\\p{L}\\p{L}){900}", "too large"),
            ("a{1001}", "invalid repetition size"),
            ("a{99999999999999999999}", "repeats too often"),
            ("a{0,99999999999999999999}", "repeats too often"),
            ("a{00001}", "repeats too often"),
            ("(" + "x" * 9999, "missing )"),
        ):
            reason = self.refused(source)
            self.assertIn(words, reason)
            self.assertLess(len(reason), 300)

    def test_oddTexts(self) -> None:
        """
        A text that has no encoding harms nothing.
        """
        for text in ("\ud800", "b\udfff", "\0"):
            self.assertFalse(pattern_of("^[a-z]+$").found_in(text))

    def test_linear(self) -> None:
        """
        No text makes a pattern take long: with Python's C{re} the first of these
        would outlast the machine.
        """
        for source in ("^(a+)+$", "^(a|aa)*$", "^(.*)*x$", "(a*)*b", "^(a?){30}a{30}$"):
            self.assertFalse(pattern_of(source).found_in("a" * 100_000 + "!"), source)

    def test_notThere(self) -> None:
        """
        Without google-re2 there is an agent, and a reason.
        """
        script = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
            "sys.modules['re2'] = None\n"
            "from ctrlexec.agent.schema import parse_schema\n"
            'value = b\'{"type": "string", "pattern": "a"}\'\n'
            'parse_schema(b\'{"arguments": {"properties": {}}}\')\n'
            'parse_schema(b\'{"arguments": {"properties": {"x": %s}}}\' % value)\n'
        )
        run = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False
        )
        reason = "SchemaError: arguments: google-re2, which patterns need, is not there"
        self.assertTrue(run.stderr.rstrip().endswith(reason), run.stderr)
