# SPDX-License-Identifier: AGPL-3.0-only
"""
Somebody in front of a terminal, while an order of theirs is carried out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs

from ctrlexec.dispatcher.interruption import (
    LEAVES,
    LEAVES_IT,
    OFFER,
    UNANSWERED,
    Canceller,
    Wanted,
    understood,
)
from ctrlexec.dispatcher.printers import Format, Printer
from ctrlexec.dispatcher.render import tally
from ctrlexec.dispatcher.render_runs import run_count
from ctrlexec.dispatcher.results import (
    CancelRow,
    DiscoveryRow,
    Outcome,
    PingRow,
    PsRow,
    Report,
    RunRow,
)
from ctrlexec.dispatcher.terminal import Terminal
from ctrlexec.dispatcher.wording import Wording
from ctrlexec.errors import CtrlExecError, Unconfirmed

if TYPE_CHECKING:
    from ctrlexec.dispatcher.live import Live, Piece
    from ctrlexec.dispatcher.seen import SeenNotes
    from ctrlexec.protocol.run_messages import Output, StateChanged

Row = TypeVar("Row", RunRow, PingRow, DiscoveryRow, CancelRow, PsRow)


#: There may be more to be seen of these.
_UNENDED = (Outcome.UNKNOWN, Outcome.ACCEPTED, Outcome.RUNNING)


class Interrupted(CtrlExecError):
    """
    The operator did not want to wait for all hosts.
    """


class Declined(CtrlExecError):
    """
    The operator was asked, and said no.
    """


@attrs.frozen
class Following:
    """
    How somebody is told what a run writes.

    @ivar live: says what is to be printed of it.
    @ivar notes: how much of it they have seen.
    """

    live: Live
    notes: SeenNotes


@attrs.define(eq=False)
class Viewer(Generic[Row]):
    """
    An L{Onlooker<ctrlexec.dispatcher.backend.Onlooker>}.

    @ivar how: for whom the answer is.
    @ivar seconds: what the time is measured by.
    @ivar following: C{None} where what scripts write is shown in the end.
    @ivar hosts: those that have been asked.
    @ivar waiting: those of them of which nothing is known yet.
    @ivar reqid: of a run, once it is known.
    """

    terminal: Terminal
    how: Format
    printer: Printer[Row]
    wording: Wording
    seconds: Callable[[], float]
    following: Following | None = None
    hosts: list[str] = attrs.field(factory=list, init=False)
    waiting: list[str] = attrs.field(factory=list, init=False)
    rows: list[Row] = attrs.field(factory=list, init=False)
    reqid: str = attrs.field(default="", init=False)
    _total: int = attrs.field(default=0, init=False)
    _since: float = attrs.field(default=0.0, init=False)
    _slow: bool = attrs.field(default=False, init=False)
    _is_heard: bool = attrs.field(default=False, init=False)
    _is_asked: bool = attrs.field(default=False, init=False)
    _canceller: Canceller | None = attrs.field(default=None, init=False)

    # --- while it goes on ------------------------------------------------

    def planned(self, hosts: int, reqid: str = "") -> None:
        """
        See L{ctrlexec.dispatcher.results.Watcher}.
        """
        self._total, self.reqid = hosts, reqid
        self._since = self.seconds()
        if self.following is not None:
            self.following.live.planned(hosts)
            self.following.notes.begin(reqid)

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
        text = self.printer.row(self._untold(row), self.hosts)
        if text:
            self.terminal.show(text)
            if self._slow:
                self._tell_progress()

    def _untold(self, row: Row) -> Row:
        """
        @return: the row without what has been shown of it as it came.
        """
        if self.following is None or not isinstance(row, RunRow):
            return row
        pieces, rest = self.following.live.ended(row)
        self._relay(pieces)
        untold: Any = rest
        return untold  # type: ignore[no-any-return]

    def heard(self, host: str, event: Output | StateChanged) -> None:
        """
        See L{ctrlexec.dispatcher.results.Watcher}. Whoever reads slowly keeps
        us here, and so whoever writes.
        """
        from ctrlexec.protocol.run_messages import ASKED_AGAIN, Output, StateChanged

        match event:
            case StateChanged(state=state) if state == ASKED_AGAIN:
                if not self._ends_lines():
                    self.terminal.relay("stderr", "\n")
                lost = f"the connection to {host} is lost"
                self.terminal.note(f"{lost}; it is asked again")
                return
            case Output():
                # Between the lines of one host nobody needs to be told of it.
                self._is_heard = self._total == 1
        if self.following is not None:
            self._relay(self.following.live.heard(host, event, self.hosts))
            self.following.notes.note(host, event)

    def _relay(self, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            self.terminal.relay(piece.stream, piece.text)

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

    # --- when they have had enough ---------------------------------------

    def catching(self, interrupted: Callable[[], None]) -> AbstractContextManager[None]:
        """
        See L{ctrlexec.dispatcher.backend.Onlooker}.
        """
        if self.wording.ends and self.terminal.attended:
            return self.terminal.catching(interrupted)
        return nullcontext()

    def offers(self) -> bool:
        """
        See L{ctrlexec.dispatcher.backend.Onlooker}.
        """
        if not (self.wording.ends and self.terminal.attended):
            return False
        if not self.waiting or not self.reqid:
            return False
        count = len(self.waiting)
        hosts = f"{count} host{'s'[: count != 1]}"
        in_line = self.following is not None and not self.following.live.ends_lines
        leaving = LEAVES_IT if self.wording.stays else LEAVES
        offer = OFFER.format(hosts=hosts, leaving=leaving.format(reqid=self.reqid))
        self.terminal.offered(offer, in_line=in_line)
        self._is_asked = True
        return True

    @property
    def stdin(self) -> int:
        """
        See L{ctrlexec.dispatcher.backend.Onlooker}, as for the others.
        """
        return self.terminal.stdin.fileno()

    def hears(self, seconds: float) -> str | None:
        """
        Wait for them to type something.
        """
        return self.terminal.hears(seconds)

    def impatient(self) -> AbstractContextManager[None]:
        """
        See L{ctrlexec.dispatcher.backend.Interruptible}.
        """
        return self.terminal.impatient()

    def wants(self, typed: str | None) -> Wanted:
        """
        What they want by what they have typed.
        """
        self._is_asked = False
        if typed is None:
            self.terminal.note(UNANSWERED)
        return understood(typed)

    def canceller(self) -> Canceller:
        """
        Somebody who sees how it is ended.
        """
        self._canceller = self._canceller or Canceller(self.terminal, self.hosts)
        return self._canceller

    @property
    def was_cancelled(self) -> bool:
        """
        Whether they wanted the run to end, and it has ended by that.
        """
        if self._canceller is None:
            return False
        outcomes = {row.outcome for row in self.rows if isinstance(row, RunRow)}
        return self._canceller.has_cancelled or Outcome.CANCELLED in outcomes

    @property
    def ending(self) -> Sequence[str]:
        """
        The hosts where it is about to end because they want that.
        """
        if self._canceller is None:
            return []
        may_end = self._canceller.may_end
        return [host for host in self.waiting if may_end(host)]

    def interrupted(self) -> None:
        """
        They leave.
        """
        if self._ends_lines():
            self.terminal.interrupted()

    def _tell_progress(self) -> None:
        if self._is_asked or self._is_heard or not self._ends_lines():
            return
        if not self._total:
            self.terminal.passing("waiting for permission, or for a lock")
        elif self._left():
            whom = f"waiting for {self._left()} of {self._total}"
            names = " ".join(self.waiting) or "the next are asked later"
            self.terminal.passing(f"{whom}: {names}")

    def _ends_lines(self) -> bool:
        return self.following is None or self.following.live.ends_lines

    def _left(self) -> int:
        return self._total - len(self.rows)

    # --- when it is over -------------------------------------------------

    def ended(self, report: Report[Row]) -> None:
        """
        Show what is still to be shown.
        """
        self.terminal.erase()
        known = {row.host for row in self.rows}
        for row in report.rows:
            # Of those that nobody asked nothing arrives.
            if row.host not in known:
                self.arrived(row)
        text = self.printer.end(self.rows)
        if text:
            self.terminal.show(text)
        for warning in report.warnings:
            self.terminal.warning(warning)
        if self.how is Format.TEXT:
            self._explain()
            if report.stopped and not report.warnings:
                # Else one of them says so, and why.
                self.terminal.error("stopped: too many hosts have failed")
            self._count()

    def note(self) -> None:
        """
        Write down how much they have seen, unless that is all.
        """
        if self.following is None:
            return
        ended = {row.host for row in self.rows if _has_ended(row)}
        if self._total and len(ended) >= self._total:
            self.following.notes.drop()
        else:
            self.following.notes.keep()

    def broken_off(self) -> Mapping[str, Any]:
        """
        No more will come. Show what has.

        @return: what a program is told beside the failure.
        """
        self.terminal.erase()
        if self.following is not None:
            self._relay(self.following.live.broken_off())
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
        ending = self.ending
        others = [host for host in self.waiting if host not in ending]
        if ending:
            parts.append(f"it may be ending at {', '.join(ending)}")
        if others:
            parts.append(f"{self.wording.going_on} {', '.join(others)}")
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
        counted = self._counted()
        if counted:
            taken = self.seconds() - self._since
            self.terminal.say(f"{counted}  in {taken:.1f} s")

    def _counted(self) -> str:
        runs = [row for row in self.rows if isinstance(row, RunRow)]
        if runs:
            return run_count(runs)
        words = self.wording
        several = len(self.rows) > 1
        return tally(self.rows, words.lost, words.good) if several else ""


def _has_ended(row: object) -> bool:
    return isinstance(row, RunRow) and row.outcome not in _UNENDED
