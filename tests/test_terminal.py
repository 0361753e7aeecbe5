# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.terminal}.
"""

from __future__ import annotations

import os
import signal
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

    def test_width(self) -> None:
        """
        Progress that does not fit is cut, and never drives the terminal.
        """
        errors = Screen()
        terminal = Terminal(Screen(), Screen(), errors, {})
        self.assertEqual(terminal.columns, 80)
        terminal.passing("x" * 80)
        self.assertEqual(errors.getvalue(), "\r\x1b[K" + "x" * 78 + "…")
        terminal.passing("\x1b[2J")
        self.assertTrue(errors.getvalue().endswith("\r\x1b[K\\x1b[2J"))

    def test_interrupted(self) -> None:
        """
        The C{^C} of a terminal is gone before something is said about it.
        """
        errors = Screen()
        Terminal(Screen(), Screen(), errors, {}).interrupted()
        self.assertEqual(errors.getvalue(), "\r\x1b[K")
        plain = StringIO()
        Terminal(Screen(), Screen(), plain, {}).interrupted()
        self.assertEqual(plain.getvalue(), "")

    def test_kinds(self) -> None:
        """
        Some failures have a name of their own; a remark has none.
        """
        errors = StringIO()
        terminal = Terminal(StringIO(), StringIO(), errors, {})
        terminal.error("bad credentials", kind="Denied")
        terminal.say("2 ok")
        self.assertEqual(errors.getvalue(), "Denied: bad credentials\n2 ok\n")

    def test_nobodyReads(self) -> None:
        """
        A reader who has left is an error once, and not again when the program
        ends and what is buffered is written.
        """
        reading, writing = os.pipe()
        os.close(reading)
        stdout = os.fdopen(writing, "w")
        terminal = Terminal(StringIO(), stdout, StringIO(), {})
        self.assertRaises(BrokenPipeError, terminal.show, "result\n")
        terminal.show("another\n")
        stdout.close()

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

    def test_asksInterrupted(self) -> None:
        """
        An interrupt is an answer, even where a reactor would take it; and the
        reactor takes the next one.
        """

        class Impatient(Screen):
            def readline(self, *size: int) -> str:  # type: ignore[override]
                signal.raise_signal(signal.SIGINT)
                return ""

        taken: list[int] = []
        before = signal.signal(signal.SIGINT, lambda number, _: taken.append(number))
        self.addCleanup(signal.signal, signal.SIGINT, before)
        terminal = Terminal(Impatient(), Screen(), Screen(), {})
        self.assertRaises(KeyboardInterrupt, terminal.asks, "Sure?")
        self.assertEqual(taken, [])
        signal.raise_signal(signal.SIGINT)
        self.assertEqual(taken, [signal.SIGINT])


class InterruptTests(SynchronousTestCase):
    """
    Ctrl-C, and what is typed after it.
    """

    def setUp(self) -> None:
        self.keys, self.other = os.pipe()
        self.addCleanup(os.close, self.other)
        stdin = os.fdopen(self.keys)
        self.addCleanup(stdin.close)
        self.terminal = Terminal(stdin, Screen(), Screen(), {"NO_COLOR": "1"})

    def test_caught(self) -> None:
        """
        It is told, and ends nothing, as often as it is heard of; afterwards it
        is what it was.
        """
        caught: list[int] = []
        before = signal.getsignal(signal.SIGINT)
        with self.terminal.catching(lambda: caught.append(1)):
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)
                self.terminal.offered("c or d", in_line=False)
        self.assertEqual(caught, [1, 1])
        self.assertIs(signal.getsignal(signal.SIGINT), before)

    def test_unheard(self) -> None:
        """
        Where the first one is held up, the second one ends the process.
        """
        pid = os.fork()
        if not pid:
            with self.terminal.catching(lambda: None):
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        self.assertEqual(os.waitstatus_to_exitcode(status), -signal.SIGINT)

    def test_hears(self) -> None:
        """
        What is typed in time, or nothing.
        """
        self.assertIsNone(self.terminal.hears(0))
        os.write(self.other, b"c\n")
        self.assertEqual(self.terminal.hears(10), "c\n")

    def test_hearsInterrupt(self) -> None:
        """
        An interrupt is an answer, too.
        """
        typed = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
        self.addCleanup(signal.signal, signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with self.terminal.catching(lambda: None), self.terminal.impatient():
            self.assertRaises(KeyboardInterrupt, self.terminal.hears, 10)
        self.assertIs(signal.getsignal(signal.SIGINT), typed)

    def test_offered(self) -> None:
        """
        What can be typed is said in a line of its own: what the terminal shows
        of the key goes, what a script has written stays.
        """
        err = self.terminal.stderr
        assert isinstance(err, Screen)
        self.terminal.offered("c or d", in_line=False)
        self.assertEqual(err.getvalue(), "\r\x1b[Kc or d\n")
        self.terminal.offered("c or d", in_line=True)
        self.assertTrue(err.getvalue().endswith("\n\nc or d\n"))

    def test_relayed(self) -> None:
        """
        What a script writes goes where it was written, once the line that
        passes is gone.
        """
        out, err = self.terminal.stdout, self.terminal.stderr
        assert isinstance(out, Screen) and isinstance(err, Screen)
        self.terminal.passing("waiting")
        self.terminal.relay("stderr", "oh")
        self.terminal.relay("stdout", "up")
        self.assertEqual(err.getvalue(), "\r\x1b[Kwaiting\r\x1b[Koh")
        self.assertEqual(out.getvalue(), "up")
