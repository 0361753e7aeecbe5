# SPDX-License-Identifier: AGPL-3.0-only
"""
The operator's end of a command line: results on stdout, all else on stderr.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TextIO

import attrs

from ctrlexec.dispatcher.render import Look
from ctrlexec.dispatcher.tables import Cell, Colour

_ERASE_LINE = "\r\x1b[K"


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

    @property
    def look(self) -> Look:
        """
        How results are rendered for whoever reads stdout.
        """
        return self._look(self.stdout)

    @property
    def attended(self) -> bool:
        """
        Whether there is somebody who can be asked.
        """
        return self.stdin.isatty() and self.stderr.isatty()

    def show(self, text: str) -> None:
        """
        Print results, which end with a newline, at once.
        """
        self.erase()
        self.stdout.write(text)
        self.stdout.flush()

    def error(self, text: str, hint: str = "") -> None:
        """
        Say what went wrong, and what can be done about it.
        """
        self._say("error", Colour.BAD, text)
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

    def asks(self, question: str) -> bool:
        """
        Ask a person. Whatever is not a yes is a no.
        """
        self.erase()
        self.stderr.write(f"{question} [y/N] ")
        self.stderr.flush()
        return self.stdin.readline().strip().lower() in ("y", "yes")

    def passing(self, text: str) -> None:
        """
        Show what goes on, on a line that the next one replaces; to nobody, if
        stderr is not a terminal.
        """
        if self.stderr.isatty():
            self._passing = True
            self.stderr.write(f"{_ERASE_LINE}{text}")
            self.stderr.flush()

    def erase(self) -> None:
        """
        Take that line away.
        """
        if self._passing:
            self._passing = False
            self.stderr.write(_ERASE_LINE)
            self.stderr.flush()

    def _say(self, kind: str, colour: Colour | None, text: str) -> None:
        self.erase()
        wanted = colour if self._look(self.stderr).colour else None
        self.stderr.write(f"{Cell(f'{kind}:', wanted)} {Cell(text)}\n")
        self.stderr.flush()

    def _look(self, stream: TextIO) -> Look:
        terminal = stream.isatty()
        plain = self.environ.get("NO_COLOR") or self.environ.get("TERM") == "dumb"
        return Look(colour=terminal and not plain, terminal=terminal)
