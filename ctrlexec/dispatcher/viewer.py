# SPDX-License-Identifier: AGPL-3.0-only
"""
Somebody in front of a terminal, while an order of theirs is carried out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Generic, TypeVar

import attrs

from ctrlexec.dispatcher.printers import Format, Printer
from ctrlexec.dispatcher.render import tally
from ctrlexec.dispatcher.results import DiscoveryRow, PingRow, Report, RunRow
from ctrlexec.dispatcher.terminal import Terminal
from ctrlexec.errors import CtrlExecError, Unconfirmed

Row = TypeVar("Row", RunRow, PingRow, DiscoveryRow)


class Interrupted(CtrlExecError):
    """
    The operator did not want to wait for all hosts.
    """


class Declined(CtrlExecError):
    """
    The operator was asked, and said no.
    """


@attrs.frozen(kw_only=True)
class Wording:
    """
    How a kind of order is spoken of.

    @ivar order: what is done on hosts, C{"run backup"}.
    @ivar lost: what hosts have that are not heard of, C{"no answer"}.
    @ivar going_on: what goes on where it was begun, C{"it runs on at"}.
    @ivar errors_apart: whether errors have no place among the results.
    """

    order: str
    lost: str
    going_on: str
    errors_apart: bool = False


@attrs.define(eq=False)
class Viewer(Generic[Row]):
    """
    An L{Onlooker<ctrlexec.dispatcher.backend.Onlooker>}.

    @ivar how: for whom the answer is.
    @ivar seconds: what the time is measured by.
    @ivar hosts: those that have been asked.
    @ivar waiting: those of them of which nothing is known yet.
    @ivar reqid: of a run, once it is known.
    """

    terminal: Terminal
    how: Format
    printer: Printer[Row]
    wording: Wording
    seconds: Callable[[], float]
    hosts: list[str] = attrs.field(factory=list, init=False)
    waiting: list[str] = attrs.field(factory=list, init=False)
    rows: list[Row] = attrs.field(factory=list, init=False)
    reqid: str = attrs.field(default="", init=False)
    _total: int = attrs.field(default=0, init=False)
    _since: float = attrs.field(default=0.0, init=False)
    _slow: bool = attrs.field(default=False, init=False)

    # --- while it goes on ------------------------------------------------

    def planned(self, hosts: int, reqid: str = "") -> None:
        """
        See L{ctrlexec.dispatcher.results.Watcher}.
        """
        self._total, self.reqid = hosts, reqid
        self._since = self.seconds()

    def wanted(self) -> bool:
        """
        See L{ctrlexec.dispatcher.results.Watcher}.
        """
        return True

    def asked(self, host: str) -> None:
        """
        See L{ctrlexec.dispatcher.results.Watcher}.
        """
        self.hosts.append(host)
        self.waiting.append(host)

    def arrived(self, row: Row) -> None:
        """
        See L{ctrlexec.dispatcher.results.Watcher}.
        """
        self.rows.append(row)
        with suppress(ValueError):
            self.waiting.remove(row.host)
        text = self.printer.row(row, self.hosts)
        if text:
            self.terminal.show(text)
            if self._slow:
                self._tell_progress()

    def ticked(self) -> None:
        """
        See L{ctrlexec.dispatcher.backend.Onlooker}.
        """
        self._slow = True
        self._tell_progress()

    def agrees(self, unconfirmed: Unconfirmed) -> bool:
        """
        See L{ctrlexec.dispatcher.backend.Onlooker}.
        """
        if not self.terminal.attended:
            return False
        if self.terminal.asks(f"{self.wording.order} on {unconfirmed.hosts} hosts?"):
            return True
        raise Declined("nothing was run")

    def _tell_progress(self) -> None:
        if not self._total:
            self.terminal.passing("waiting for permission, or for a lock")
        elif self._left():
            names = " ".join(self.waiting)
            self.terminal.passing(
                f"waiting for {self._left()} of {self._total}: {names}"
            )

    def _left(self) -> int:
        return self._total - len(self.rows)

    # --- when it is over -------------------------------------------------

    def ended(self, report: Report[Row]) -> None:
        """
        Show what is still to be shown.
        """
        self.terminal.erase()
        text = self.printer.end(self.rows)
        if text:
            self.terminal.show(text)
        for warning in report.warnings:
            self.terminal.warning(warning)
        if self.how is Format.TEXT:
            self._explain()
            self._count()

    def broken_off(self) -> Mapping[str, Any]:
        """
        No more will come. Show what has.

        @return: what a program is told beside the failure.
        """
        self.terminal.erase()
        text, told = self.printer.broken_off(self.rows)
        if text:
            self.terminal.show(text)
        unasked = self._left() - len(self.waiting)
        missing = {"unanswered": [*self.waiting], "not_asked": unasked}
        return {**told, **missing, **({"reqid": self.reqid} if self.reqid else {})}

    def reckoning(self, why: str) -> str:
        """
        What there is to know about the hosts that have not answered.

        @param why: why they are not waited for.
        """
        if not self._total:
            return f"{why}: no host was asked"
        parts = [f"{why}: {len(self.rows)} of {self._total} hosts have answered"]
        if self.waiting:
            parts.append(f"{self.wording.going_on} {', '.join(self.waiting)}")
        unasked = self._left() - len(self.waiting)
        if unasked:
            parts.append(f"{unasked} {'was' if unasked == 1 else 'were'} not asked")
        return "; ".join(parts)

    def _explain(self) -> None:
        """
        Give each hint once, however many hosts it is for.
        """
        for row in self.rows:
            if self.wording.errors_apart and row.error is not None:
                self.terminal.error(f"{row.host}: {row.error}")
        for hint in dict.fromkeys(row.hint for row in self.rows):
            self.terminal.hint(hint)

    def _count(self) -> None:
        if len(self.rows) > 1:
            taken = self.seconds() - self._since
            counted = tally(self.rows, self.wording.lost)
            self.terminal.say(f"{counted}  in {taken:.1f} s")
