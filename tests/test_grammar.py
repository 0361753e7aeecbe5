# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.grammar}.
"""

from __future__ import annotations

import click
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.cli import ctrl_exec
from ctrlexec.dispatcher.grammar import divided, output_wanted

WORDS = st.lists(st.sampled_from(["run", "--", "--json", "--output", "jsonl", "x", ""]))


class DividedTests(SynchronousTestCase):
    """
    What is ours and what is the script's.
    """

    @given(WORDS)
    def test_nothingIsLost(self, words: list[str]) -> None:
        """
        The first C{--} divides, and only that one.
        """
        ours, script = divided(words)
        self.assertNotIn("--", ours)
        rest = [] if script is None else ["--", *script]
        self.assertEqual([*ours, *rest], words)


class OrderTests(SynchronousTestCase):
    """
    Options of a mode that stand before it.
    """

    def test_oneMeaning(self) -> None:
        """
        Whether a word is an option's value or the mode does not depend on the
        mode, which is not known yet.
        """
        meanings: dict[str, set[bool]] = {}
        for command in (ctrl_exec, *ctrl_exec.commands.values()):
            for each in command.params:
                if isinstance(each, click.Option):
                    for name in each.opts:
                        meanings.setdefault(name, set()).add(each.is_flag)
        self.assertGreater(len(meanings), 20)
        for name, flags in meanings.items():
            self.assertEqual(len(flags), 1, name)


class OutputTests(SynchronousTestCase):
    """
    In which form even a command line that makes no sense is answered.
    """

    def test_forms(self) -> None:
        """
        The last word on it counts; one that makes no sense does not.
        """
        for words, wanted in (
            ("ping", "text"),
            ("--json ping", "json"),
            ("ping --output jsonl", "jsonl"),
            ("ping --output=json", "json"),
            ("--json ping --output text", "text"),
            ("--output jsonl --json frob", "json"),
            ("--json ping --output", "json"),
            ("--json ping --output=xml", "json"),
            ("--output frob", "text"),
        ):
            self.assertEqual(output_wanted(words.split()), wanted, words)

    @given(WORDS)
    def test_always(self, words: list[str]) -> None:
        """
        There is always one.
        """
        self.assertIn(output_wanted(words), ("text", "json", "jsonl"))
