# SPDX-License-Identifier: AGPL-3.0-only
"""
What a run writes, on its way to whoever follows it: as it comes, where it is
one host; in whole lines that say who has written them, where they are several;
to a program as a line of JSON each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import attrs

from ctrlexec.dispatcher.orders import Seen
from ctrlexec.dispatcher.render import Look, to_json
from ctrlexec.dispatcher.results import RunRow
from ctrlexec.dispatcher.tables import Colour, harmless
from ctrlexec.protocol.run_messages import Output, StateChanged

#: How much of a line without an end is kept of each stream, in characters.
LINE_CHARACTERS = 8192
#: How wide the column of names becomes at the most.
NAME_CHARACTERS = 30

STDOUT, STDERR = "stdout", "stderr"
_MARK = "STDERR: "


@attrs.frozen
class Piece:
    """
    Something to be printed at once.

    @ivar stream: on which stream of ours, L{STDOUT} or L{STDERR}.
    """

    stream: str
    text: str


class Live(Protocol):
    """
    Says what is to be printed of what is heard.
    """

    @property
    def ends_lines(self) -> bool:
        """
        Whether what was printed last has ended its line.
        """

    def planned(self, hosts: int) -> None:
        """
        It is known how many hosts there are.
        """

    def heard(
        self, host: str, event: Output | StateChanged, hosts: Sequence[str]
    ) -> Iterable[Piece]:
        """
        A run has said something.

        @param hosts: all that have been asked by now.
        """

    def ended(self, row: RunRow) -> tuple[Iterable[Piece], RunRow]:
        """
        It is known what became of a host.

        @return: what is left to be printed, and the row without what has been.
        """

    def broken_off(self) -> Iterable[Piece]:
        """
        No more will be heard.
        """


@attrs.define(eq=False)
class LiveText:
    """
    A L{Live} for people.

    @ivar looks: how each stream of ours is read.
    @ivar seen: how much of each host somebody has had before.
    """

    looks: Mapping[str, Look]
    seen: Mapping[str, Seen] = attrs.field(factory=dict)
    _how: _Raw | _Named | None = attrs.field(default=None, init=False)
    _told: set[str] = attrs.field(factory=set, init=False)

    @property
    def ends_lines(self) -> bool:
        """
        See L{Live}, as for the others.
        """
        return self._how is None or self._how.ends_lines

    def planned(self, hosts: int) -> None:
        """
        One host needs no name.
        """
        self._how = _Raw(self.looks) if hosts == 1 else _Named(self.looks[STDOUT])

    def heard(
        self, host: str, event: Output | StateChanged, hosts: Sequence[str]
    ) -> Iterable[Piece]:
        """
        Print what is written.
        """
        if self._how is None or not isinstance(event, Output):
            return ()
        self._told.add(host)
        return self._how.heard(host, event, hosts)

    def ended(self, row: RunRow) -> tuple[Iterable[Piece], RunRow]:
        """
        What has been heard is not told again. An agent that can not be followed
        tells all when it is over.
        """
        if row.host in self._told:
            row = attrs.evolve(row, stdout="", stderr="")
        elif row.host in self.seen:
            had = self.seen[row.host]
            row = attrs.evolve(
                row,
                stdout=_after(row.stdout, had.stdout),
                stderr=_after(row.stderr, had.stderr),
            )
        return (() if self._how is None else self._how.ended(row.host)), row

    def broken_off(self) -> Iterable[Piece]:
        """
        What has no end of its own gets one.
        """
        if self._how is not None:
            for host in sorted(self._told):
                yield from self._how.ended(host)


def _after(text: str, had: int) -> str:
    return text.encode("utf-8", "surrogatepass")[had:].decode("utf-8", "replace")


@attrs.define(eq=False)
class _Raw:
    """
    One host: its stdout is ours, and its stderr.
    """

    looks: Mapping[str, Look]
    _held: dict[str, str] = attrs.field(factory=dict)
    _open: dict[str, str] = attrs.field(factory=dict)

    @property
    def ends_lines(self) -> bool:
        return not self._open

    def heard(self, host: str, event: Output, hosts: Sequence[str]) -> Iterator[Piece]:
        text = self._shown(event.stream, event.text)
        if text:
            yield self._piece(event.stream, text)

    def ended(self, host: str) -> Iterator[Piece]:
        for stream, held in tuple(self._held.items()):
            if held:
                yield self._piece(stream, harmless(held))
        self._held.clear()
        for stream in tuple(self._open.values()):
            yield self._piece(stream, "\n")

    def _shown(self, stream: str, text: str) -> str:
        """
        What of it can be shown by now: whether a newline follows a carriage
        return is known when there is more.
        """
        if not self.looks[stream].terminal:
            return text
        text = self._held.pop(stream, "") + text
        whole = text.rstrip("\r")
        if whole != text:
            # However many they are, they end one line.
            self._held[stream] = "\r"
        return harmless(whole)

    def _piece(self, stream: str, text: str) -> Piece:
        # On a terminal both stand in the same line.
        line = "terminal" if self.looks[stream].terminal else stream
        if text.endswith("\n"):
            self._open.pop(line, None)
        else:
            self._open[line] = stream
        return Piece(stream, text)


@attrs.define(eq=False)
class _Named:
    """
    Several hosts: all of it goes to our stdout, and each line says whose it is.
    """

    look: Look
    _rests: dict[tuple[str, str], str] = attrs.field(factory=dict)

    ends_lines = True

    def heard(self, host: str, event: Output, hosts: Sequence[str]) -> Iterator[Piece]:
        *lines, rest = self._lines(self._rest(host, event.stream) + event.text)
        while len(rest) > LINE_CHARACTERS:
            lines.append(rest[:LINE_CHARACTERS])
            rest = rest[LINE_CHARACTERS:]
        if rest:
            self._rests[host, event.stream] = rest
        if lines:
            width = max(map(len, (*hosts, host)))
            yield self._piece(host, event.stream, lines, min(width, NAME_CHARACTERS))

    def ended(self, host: str) -> Iterator[Piece]:
        for stream in (STDOUT, STDERR):
            rest = self._rest(host, stream)
            if rest:
                yield self._piece(host, stream, [rest], len(host))

    def _rest(self, host: str, stream: str) -> str:
        return self._rests.pop((host, stream), "")

    def _piece(self, host: str, stream: str, lines: Sequence[str], width: int) -> Piece:
        is_error = stream == STDERR
        colour = Colour.WORRYING if is_error else Colour.NAME
        name = self.look.cell(f"{host}:", colour).padded(width + 1)
        mark = _MARK if is_error else ""
        shown = map(self._shown, lines)
        return Piece(STDOUT, "".join(f"{name} {mark}{line}" for line in shown))

    def _lines(self, text: str) -> list[str]:
        """
        @return: the lines of it, the last one without an end. No line may be
            without its name, whatever a terminal takes for the end of one.
        """
        if not self.look.terminal:
            return text.split("\n")
        whole = text.rstrip("\r")
        *lines, rest = harmless(whole).split("\n")
        return [*lines, rest + "\r" * (whole != text)]

    def _shown(self, line: str) -> str:
        if not self.look.terminal:
            return f"{line}\n"
        return harmless(line.rstrip("\r")) + "\n"


class LiveLines:
    """
    A L{Live} for programs.
    """

    ends_lines = True

    def planned(self, hosts: int) -> None:
        """
        See L{Live}, as for the others.
        """

    def heard(
        self, host: str, event: Output | StateChanged, hosts: Sequence[str]
    ) -> Iterable[Piece]:
        """
        What is written is a line; the row follows when all is known.
        """
        if isinstance(event, Output):
            said = {"host": host, "t": event.seconds, event.stream: event.text}
            yield Piece(STDOUT, f"{to_json(said)}\n")

    def ended(self, row: RunRow) -> tuple[Iterable[Piece], RunRow]:
        """
        The row is whole.
        """
        return (), row

    def broken_off(self) -> Iterable[Piece]:
        """
        Nothing was kept back.
        """
        return ()
