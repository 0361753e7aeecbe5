# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.terminal}.
"""

from __future__ import annotations

from io import StringIO

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.terminal import Terminal


class Screen(StringIO):
    """
    A stream that says that it is a terminal.
    """

    def isatty(self) -> bool:
        """
        See L{StringIO}.
        """
        return True


class TerminalTests(SynchronousTestCase):
    """
    Results on stdout, all else on stderr.
    """

    def test_pipes(self) -> None:
        """
        Into files and pipes goes plain text, and no progress.
        """
        terminal = Terminal(StringIO(), StringIO(), StringIO(), {})
        terminal.passing("waiting")
        terminal.show("result\n")
        terminal.error("no such\nhost", "try another")
        terminal.warning("odd")
        terminal.note("well")
        terminal.hint("")
        self.assertEqual(terminal.stdout.getvalue(), "result\n")  # type: ignore[attr-defined]
        self.assertEqual(
            terminal.stderr.getvalue(),  # type: ignore[attr-defined]
            "error: no such\\nhost\nhint: try another\nwarning: odd\nnote: well\n",
        )
        self.assertFalse(terminal.attended)

    def test_colours(self) -> None:
        """
        Each stream has colours if it is a terminal, unless nobody wants them.
        """
        for environ, coloured in (
            ({}, True),
            ({"NO_COLOR": ""}, True),
            ({"NO_COLOR": "1"}, False),
            ({"TERM": "dumb"}, False),
        ):
            errors = Screen()
            terminal = Terminal(Screen(), StringIO(), errors, environ)
            terminal.error("no")
            expected = "\x1b[1;31merror:\x1b[0m no\n" if coloured else "error: no\n"
            self.assertEqual(errors.getvalue(), expected)
            self.assertFalse(terminal.look.colour or terminal.look.terminal)
            self.assertTrue(terminal.attended)
            other = Terminal(Screen(), Screen(), errors, environ)
            self.assertEqual(other.look.colour, coloured)
            self.assertTrue(other.look.terminal)

    def test_passing(self) -> None:
        """
        Progress replaces itself, and is gone before anything that stays.
        """
        errors = Screen()
        terminal = Terminal(Screen(), Screen(), errors, {"NO_COLOR": "1"})
        terminal.passing("2 left")
        terminal.passing("1 left")
        terminal.show("result\n")
        terminal.erase()
        erased = "\r\x1b[K"
        self.assertEqual(errors.getvalue(), f"{erased}2 left{erased}1 left{erased}")

    def test_asks(self) -> None:
        """
        Only a yes is a yes; the end of the input is a no.
        """
        for typed, agreed in (
            ("y\n", True),
            ("Yes\n", True),
            ("\n", False),
            ("yesterday\n", False),
            ("", False),
        ):
            errors = Screen()
            terminal = Terminal(Screen(typed), Screen(), errors, {})
            self.assertEqual(terminal.asks("Sure?"), agreed)
            self.assertEqual(errors.getvalue(), "Sure? [y/N] ")
