# SPDX-License-Identifier: AGPL-3.0-only
"""
Text for a terminal: columns, colours, and characters that are safe to show.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum

import attrs

from ctrlexec.errors import one_line

#: A column is not made narrower than that; that much is left for the last one.
LEAST_WIDTH = 7
_GAP = "  "
_NO_COLOUR = "\x1b[0m"
_RETURN = re.compile("\r+\n?")
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, but for tab and newline
    "\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what reorders the text around it
    "\ud800-\udfff]"
)


class Colour(Enum):
    """
    Colours that mean something, as terminals are told them.
    """

    GOOD = "\x1b[32m"
    WORRYING = "\x1b[33m"
    BAD = "\x1b[1;31m"
    NAME = "\x1b[36m"


def harmless(text: str) -> str:
    """
    The output of a script, of which a terminal obeys nothing but its newlines
    and tabs: a host that was taken over must not take over the operator's
    terminal. A carriage return, which would write over the line, begins another
    one, so that a progress bar can be read.
    """
    plain = _RETURN.sub("\n", text)
    return _UNSAFE.sub(lambda found: one_line(found[0]), plain)


@attrs.frozen
class Cell:
    """
    One value of a table, or another text from anywhere, on its way to a person.

    @ivar colour: C{None} where it has none, or where none are wanted.
    """

    text: str = attrs.field(converter=one_line)
    colour: Colour | None = None

    def __str__(self) -> str:
        return self.padded(0)

    def padded(self, width: int) -> str:
        """
        @return: the text in its colour, with blanks up to the width.
        """
        text = self.text.ljust(width)
        return f"{self.colour.value}{text}{_NO_COLOUR}" if self.colour else text


#: A row of a table. What is only a text has no colour.
Row = Sequence[str | Cell]


@attrs.frozen
class Table:
    """
    Columns, left-aligned and two blanks apart; a value that is too long pushes
    the rest: PROTOCOL.md section 10.

    @ivar titles: what stands above each column.
    @ivar widths: how many characters each column has; the last one has as many
        as it needs.
    @ivar rule: how long the line under the titles is.
    @ivar cuts: the columns, counted from 0, in which such a value is cut.
    """

    titles: tuple[str, ...]
    widths: tuple[int, ...]
    rule: int
    cuts: frozenset[int] = frozenset()

    @classmethod
    def of(cls, columns: Mapping[str, int], rule: int = 0) -> Table:
        """
        @param columns: the width of each column, by its title.
        @param rule: as long as the titles where it is not given.
        """
        table = cls(tuple(columns), tuple(columns.values()), rule)
        return (
            table
            if rule
            else attrs.evolve(table, rule=len(table.line(table.titles)) - 1)
        )

    def fitted(self, rows: Iterable[Row]) -> Table:
        """
        @param rows: what will be shown, or the first columns of it.
        @return: this table, wider where one of the rows needs it.
        """
        widths = list(self.widths)
        for row in rows:
            for place, cell in enumerate(_cells(row)[: len(widths) - 1]):
                widths[place] = max(widths[place], len(cell.text))
        wider = sum(widths) - sum(self.widths)
        return attrs.evolve(self, widths=tuple(widths), rule=self.rule + wider)

    def narrowed(self, columns: int, first: int, yields: Collection[str]) -> Table:
        """
        @param columns: how many characters fit into a line.
        @param first: how many the first column needs.
        @param yields: the titles of columns whose values may be cut.
        @return: this table, as wide as that at the most, if that is possible:
            the widest of these columns give way first, down to L{LEAST_WIDTH}.
        """
        widths = [max(first, len(self.titles[0])), *self.widths[1:]]
        places = [place for place, title in enumerate(self.titles) if title in yields]
        used = sum(widths) + len(_GAP) * (len(widths) - 1) + LEAST_WIDTH
        for _ in range(used - columns):
            widest = max(places, key=widths.__getitem__)
            if widths[widest] > LEAST_WIDTH:
                widths[widest] -= 1
        narrow = attrs.evolve(self, widths=tuple(widths), cuts=frozenset(places))
        return attrs.evolve(narrow, rule=len(narrow.line(narrow.titles)) - 1)

    def head(self) -> str:
        """
        @return: the titles and the rule, each with a newline.
        """
        return f"{self.line(self.titles)}{'-' * self.rule}\n"

    def line(self, row: Row) -> str:
        """
        @return: the row, with a newline.
        """
        *cells, last = _cells(row)
        padded = [self._fitting(*each) for each in enumerate(cells)]
        return _GAP.join([*padded, str(last)]).rstrip() + "\n"

    def _fitting(self, place: int, cell: Cell) -> str:
        width = self.widths[place]
        if place in self.cuts and len(cell.text) > width:
            cell = attrs.evolve(cell, text=f"{cell.text[: width - 1]}…")
        return cell.padded(width)

    def text(self, rows: Sequence[Row]) -> str:
        """
        @return: the whole table, fitted to its rows.
        """
        table = self.fitted(rows)
        return table.head() + "".join(map(table.line, rows))


def _cells(row: Row) -> list[Cell]:
    return [cell if isinstance(cell, Cell) else Cell(cell) for cell in row]
