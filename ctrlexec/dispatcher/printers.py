# SPDX-License-Identifier: AGPL-3.0-only
"""
The rows of an order on their way to whoever gave it: to a person as they come,
or folded when all are there; to a program as one document, or a line each.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import attrs

from ctrlexec.dispatcher import render, render_runs
from ctrlexec.dispatcher.live_fields import ps_fields
from ctrlexec.dispatcher.render import Look, to_json
from ctrlexec.dispatcher.results import (
    CancelRow,
    DiscoveryRow,
    Outcome,
    PingRow,
    PsRow,
    RunRow,
    async_fields,
    cancel_fields,
    discovery_fields,
    ping_fields,
    run_fields,
)
from ctrlexec.dispatcher.tables import Row as Cells
from ctrlexec.dispatcher.tables import Table

Row = TypeVar("Row", RunRow, PingRow, DiscoveryRow, CancelRow, PsRow)
Row_contra = TypeVar("Row_contra", contravariant=True)


class Format(enum.Enum):
    """
    For whom a command answers.
    """

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"


class Printer(Protocol[Row_contra]):
    """
    Says what is to be printed, and when.
    """

    def row(self, row: Row_contra, hosts: Iterable[str]) -> str:
        """
        It is known what became of a host.

        @param hosts: all that have been asked by now.
        """

    def end(self, rows: Sequence[Row_contra]) -> str:
        """
        All is known.
        """

    def broken_off(self, rows: Sequence[Row_contra]) -> tuple[str, Mapping[str, Any]]:
        """
        No more will be known.

        @return: what is to be printed, and what a program is told beside the
            failure.
        """


@attrs.frozen
class Listed(Generic[Row]):
    """
    A text for each row, as it comes.

    @ivar text: makes it of the row, and of the hosts that have been asked.
    @ivar last: what is behind them all.
    """

    text: Callable[[Row, Iterable[str]], str]
    last: Callable[[Sequence[Row]], str] = lambda rows: ""

    def row(self, row: Row, hosts: Iterable[str]) -> str:
        """
        See L{Printer.row}.
        """
        return self.text(row, hosts)

    def end(self, rows: Sequence[Row]) -> str:
        """
        See L{Printer.end}.
        """
        return self.last(rows)

    def broken_off(self, rows: Sequence[Row]) -> tuple[str, Mapping[str, Any]]:
        """
        See L{Printer.broken_off}.
        """
        return "", {}


@attrs.frozen
class Folded:
    """
    A block for the runs that say the same, when all are there.
    """

    look: Look

    def row(self, row: RunRow, hosts: Iterable[str]) -> str:
        """
        See L{Printer.row}.
        """
        return ""

    def end(self, rows: Sequence[RunRow]) -> str:
        """
        See L{Printer.end}.
        """
        from ctrlexec.dispatcher.folding import folded_text

        return folded_text(rows, self.look)

    def broken_off(self, rows: Sequence[RunRow]) -> tuple[str, Mapping[str, Any]]:
        """
        See L{Printer.broken_off}.
        """
        return self.end(rows), {}


@attrs.frozen
class Document(Generic[Row]):
    """
    One line of JSON for all rows.

    @ivar members: what it has beside C{ok}.
    """

    members: Callable[[Sequence[Row]], Mapping[str, Any]]

    def row(self, row: Row, hosts: Iterable[str]) -> str:
        """
        See L{Printer.row}.
        """
        return ""

    def end(self, rows: Sequence[Row]) -> str:
        """
        See L{Printer.end}.
        """
        return to_json({"ok": True, **self.members(rows)}) + "\n"

    def broken_off(self, rows: Sequence[Row]) -> tuple[str, Mapping[str, Any]]:
        """
        See L{Printer.broken_off}.
        """
        return "", self.members(rows)


def run_printer(how: Format, look: Look, *, fold: bool) -> Printer[RunRow]:
    """
    @param fold: whether a person reads each text once.
    """
    match how:
        case Format.JSON:
            return Document(_results(run_fields))
        case Format.JSONL:
            return Listed(lambda row, hosts: f"{to_json(run_fields(row))}\n")
        case Format.TEXT if fold:
            return Folded(look)
    return Listed(partial(_run_text, look), render_runs.not_started_text)


def _run_text(look: Look, row: RunRow, hosts: Iterable[str]) -> str:
    if row.outcome is Outcome.NOT_STARTED:
        return ""
    return render_runs.run_text(row, look)


def async_printer(how: Format, look: Look) -> Printer[RunRow]:
    """
    The same for runs that nobody waits for.
    """
    match how:
        case Format.JSON:
            return Document(_submitted)
        case Format.JSONL:
            return Listed(lambda row, hosts: f"{to_json(async_fields(row))}\n")
    return Listed(
        _headed(
            lambda row, hosts: f"reqid: {row.reqid}\n",
            lambda row: render_runs.submitted_text(row, look),
        )
    )


def _submitted(rows: Sequence[RunRow]) -> Mapping[str, Any]:
    results = [async_fields(row) for row in rows]
    return {"reqid": rows[0].reqid if rows else "", "results": results}


def cancel_printer(how: Format, look: Look) -> Printer[CancelRow]:
    """
    See L{run_printer}.
    """
    match how:
        case Format.JSON:
            return Document(_results(cancel_fields))
        case Format.JSONL:
            return Listed(lambda row, hosts: f"{to_json(cancel_fields(row))}\n")

    def cells(row: CancelRow) -> Cells:
        return render_runs.cancel_row(row, look)

    line = _tabulated(render_runs.cancel_table, cells)
    return Listed(lambda row, hosts: line(row, hosts) + render_runs.signalled_text(row))


def ps_printer(how: Format, columns: int | None = None) -> Printer[PsRow]:
    """
    See L{run_printer}.

    @param columns: see L{render_runs.ps_table}.
    """
    match how:
        case Format.JSON:
            return Document(_results(ps_fields))
        case Format.JSONL:
            return Listed(lambda row, hosts: f"{to_json(ps_fields(row))}\n")
    fitted: list[Table] = []

    def text(row: PsRow, hosts: Iterable[str]) -> str:
        cells = render_runs.ps_rows(row)
        head = ""
        if cells and not fitted:
            fitted.append(render_runs.ps_table(hosts, columns))
            head = fitted[0].head()
        return head + "".join(fitted[0].line(each) for each in cells)

    return Listed(text)


def ping_printer(how: Format, look: Look) -> Printer[PingRow]:
    """
    See L{run_printer}.
    """
    match how:
        case Format.JSON:
            return Document(_results(ping_fields))
        case Format.JSONL:
            return Listed(lambda row, hosts: f"{to_json(ping_fields(row))}\n")
    return Listed(_tabulated(render.ping_table, lambda row: render.ping_row(row, look)))


def discovery_printer(how: Format, look: Look) -> Printer[DiscoveryRow]:
    """
    See L{run_printer}.
    """
    match how:
        case Format.JSON:
            return Document(
                lambda rows: {
                    "hosts": {row.host: discovery_fields(row) for row in rows}
                }
            )
        case Format.JSONL:
            return Listed(lambda row, hosts: f"{to_json(_named(row))}\n")
    return Listed(
        _tabulated(render.discovery_table, lambda row: render.discovery_row(row, look))
    )


def _named(row: DiscoveryRow) -> Mapping[str, Any]:
    return {"host": row.host, **discovery_fields(row)}


def _results(
    fields: Callable[[Row], Mapping[str, Any]],
) -> Callable[[Sequence[Row]], Mapping[str, Any]]:
    return lambda rows: {"results": [fields(row) for row in rows]}


def _headed(
    head: Callable[[Row, Iterable[str]], str], line: Callable[[Row], str]
) -> Callable[[Row, Iterable[str]], str]:
    """
    A line for each row, and something above the first of them.
    """
    begun: list[bool] = []

    def text(row: Row, hosts: Iterable[str]) -> str:
        above = "" if begun else head(row, hosts)
        begun.append(True)
        return above + line(row)

    return text


def _tabulated(
    table: Callable[[Iterable[str]], Table], cells: Callable[[Row], Cells]
) -> Callable[[Row, Iterable[str]], str]:
    """
    Lines of a table. Its columns are as wide as those hosts need that are
    being asked when the first one answers.
    """
    fitted: list[Table] = []

    def text(row: Row, hosts: Iterable[str]) -> str:
        head = ""
        if not fitted:
            fitted.append(table(hosts))
            head = fitted[0].head()
        return head + fitted[0].line(cells(row))

    return text
