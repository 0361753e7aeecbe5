# SPDX-License-Identifier: AGPL-3.0-only
"""
The operator's end of a command line: results on stdout, all else on stderr.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import UnsupportedOperation
from typing import TextIO

import attrs

from ctrlexec.dispatcher.render import Look
from ctrlexec.dispatcher.tables import Cell, Colour

_ERASE_LINE = "\r\x1b[K"
_COLUMNS = 80


@attrs.define
class Terminal:
    """
    @ivar environ: where C{NO_COLOR} and C{TERM} are looked up.
    """

    stdin: TextIO
    stdout: TextIO
    stderr: TextIO
    environ: Mapping[str, str]
    _passing: bool = attrs.field(default=False, init=False)
    _unheard: bool = attrs.field(default=False, init=False)

    @property
    def look(self) -> Look:
        """
        How results are rendered for whoever reads stdout.
        """
        return self._look(self.stdout)

    @property
    def looks(self) -> Mapping[str, Look]:
        """
        The same for each stream that a script's own are shown on.
        """
        return {"stdout": self.look, "stderr": self._look(self.stderr)}

    @property
    def attended(self) -> bool:
        """
        Whether there is somebody who can be asked.
        """
        return self.stdin.isatty() and self.stderr.isatty()

    @property
    def columns(self) -> int:
        """
        How many characters fit into a line of it.
        """
        return _columns(self.stderr)

    @property
    def width(self) -> int | None:
        """
        How many characters fit into a line of the results; C{None} for any
        number, where they are not shown on a terminal.
        """
        return _columns(self.stdout) if self.stdout.isatty() else None

    def show(self, text: str) -> None:
        """
        Print results, which end with a newline, at once.

        @raise BrokenPipeError: nobody reads them any more.
        """
        self._put(self.stdout, text)

    def relay(self, stream: str, text: str) -> None:
        """
        Print at once what a script writes, wherever it has come to in a line.

        @param stream: C{"stdout"} or C{"stderr"}.
        @raise BrokenPipeError: nobody reads it any more.
        """
        self._put(self.stderr if stream == "stderr" else self.stdout, text)

    def _put(self, stream: TextIO, text: str) -> None:
        self.erase()
        try:
            stream.write(text)
            stream.flush()
        except BrokenPipeError:
            self._shut(stream)
            raise

    def error(self, text: str, hint: str = "", kind: str = "error") -> None:
        """
        Say what went wrong, and what can be done about it.

        @param kind: what sort of failure it is, in a word.
        """
        self._say(kind, Colour.BAD, text)
        self.hint(hint)

    def warning(self, text: str, hint: str = "") -> None:
        """
        Say what may be wrong, and what can be done about it.
        """
        self._say("warning", Colour.WORRYING, text)
        self.hint(hint)

    def hint(self, text: str) -> None:
        """
        Say what the operator can do next; an empty text is no hint.
        """
        if text:
            self._say("hint", None, text)

    def note(self, text: str) -> None:
        """
        Say what a person should know and a program need not.
        """
        self._say("note", None, text)

    def say(self, text: str) -> None:
        """
        Say something about the results.
        """
        self.erase()
        self.stderr.write(f"{Cell(text)}\n")
        self.stderr.flush()

    def asks(self, question: str) -> bool:
        """
        Ask a person. Whatever is not a yes is a no.

        @raise KeyboardInterrupt: that was the answer.
        """
        self.erase()
        # A reactor that waits for us meanwhile would hear of it too late.
        with self.impatient():
            self.stderr.write(f"{Cell(question)} [y/N] ")
            self.stderr.flush()
            return self.stdin.readline().strip().lower() in ("y", "yes")

    @contextmanager
    def catching(self, interrupted: Callable[[], None]) -> Iterator[None]:
        """
        While this lasts an interrupt is told, and ends nothing; until somebody
        is L{offered} something, the next one ends the process at once.
        """

        def caught(number: int, frame: object) -> None:
            if self._unheard:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                signal.raise_signal(signal.SIGINT)
            self._unheard = True
            interrupted()

        before = signal.signal(signal.SIGINT, caught)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
            self._unheard = False

    @contextmanager
    def impatient(self) -> Iterator[None]:
        """
        While this lasts an interrupt is a C{KeyboardInterrupt} at once.
        """
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def offered(self, text: str, *, in_line: bool) -> None:
        """
        Tell somebody who has interrupted us what they can type, on a line of
        its own.

        @param in_line: whether a script has left a line without an end.
        """
        self._unheard = False
        if in_line:
            self.stderr.write("\n")
        else:
            self.interrupted()
        self.say(text)

    def hears(self, seconds: float) -> str | None:
        """
        @param seconds: how long to wait.
        @return: what somebody has typed; C{None} if that is nothing.
        """
        return self.stdin.readline() if self._has_line(seconds) else None

    def _has_line(self, seconds: float) -> bool:
        try:
            return bool(select.select([self.stdin], [], [], seconds)[0])
        except UnsupportedOperation:
            return True

    def passing(self, text: str) -> None:
        """
        Show what goes on, on a line that the next one replaces; to nobody, if
        stderr is not a terminal. What does not fit into the line is left out.
        """
        if self.stderr.isatty():
            self._passing = True
            shown, room = str(Cell(text)), self.columns - 1
            if len(shown) > room:
                shown = shown[: room - 1] + "…"
            self.stderr.write(f"{_ERASE_LINE}{shown}")
            self.stderr.flush()

    def erase(self) -> None:
        """
        Take that line away.
        """
        if self._passing:
            self._passing = False
            self.stderr.write(_ERASE_LINE)
            self.stderr.flush()

    def interrupted(self) -> None:
        """
        Take away what the terminal shows of the key that was pressed.
        """
        if self.stderr.isatty():
            self._passing = True
        self.erase()

    def _say(self, kind: str, colour: Colour | None, text: str) -> None:
        self.erase()
        wanted = colour if self._look(self.stderr).colour else None
        self.stderr.write(f"{Cell(f'{kind}:', wanted)} {Cell(text)}\n")
        self.stderr.flush()

    def _shut(self, stream: TextIO) -> None:
        """
        What is still buffered must not fail once more when the program ends.
        """
        nothing = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nothing, stream.fileno())
        finally:
            os.close(nothing)

    def _look(self, stream: TextIO) -> Look:
        terminal = stream.isatty()
        plain = self.environ.get("NO_COLOR") or self.environ.get("TERM") == "dumb"
        return Look(colour=terminal and not plain, terminal=terminal)


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or _COLUMNS
    except (OSError, UnsupportedOperation):
        return _COLUMNS
