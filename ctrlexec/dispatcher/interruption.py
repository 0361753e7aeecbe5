# SPDX-License-Identifier: AGPL-3.0-only
"""
What somebody wants who interrupts the waiting for a run.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from typing import TYPE_CHECKING

import attrs

from ctrlexec.dispatcher.results import NEVER_BEGAN, CancelRow
from ctrlexec.dispatcher.terminal import Terminal
from ctrlexec.errors import CtrlExecError, Unconfirmed

if TYPE_CHECKING:
    from ctrlexec.protocol.run_messages import Output, StateChanged

#: How long they may take to say it, in seconds.
ANSWER_SECONDS = 10.0
OFFER = "c cancels it on {hosts}, {leaving}, anything else goes on waiting"
#: What becomes of it if they leave: it goes on, or not.
LEAVES_IT = "d leaves it running (ctrl-exec attach {reqid})"
LEAVES = "d leaves, and it is cancelled"
UNANSWERED = "no answer: it goes on"
ONCE_MORE = "it goes on; Ctrl-C and c asks once more"


class Wanted(enum.Enum):
    """
    What becomes of the run, and of the waiting.
    """

    #: It is ended everywhere.
    CANCEL = "cancel"
    #: It runs on, and nobody waits.
    LEAVE = "leave"
    #: Nothing has happened.
    GO_ON = "go on"


def understood(typed: str | None) -> Wanted:
    """
    @param typed: what they have typed; C{None} if that is nothing.
    """
    match (typed or "").strip().lower():
        case "c":
            return Wanted.CANCEL
        case "d":
            return Wanted.LEAVE
    return Wanted.GO_ON


@attrs.define(eq=False)
class Canceller:
    """
    Somebody who has interrupted a run and wants it to end: what becomes of that
    is said beside its results.

    @ivar begun: the hosts that have been asked for it by now.
    """

    terminal: Terminal
    begun: Collection[str]
    _rows: dict[str, CancelRow] = attrs.field(factory=dict, init=False)
    _is_refused: bool = attrs.field(default=False, init=False)

    @property
    def has_cancelled(self) -> bool:
        """
        Whether it has ended anywhere by that.
        """
        from ctrlexec.protocol.run_messages import CANCELLED

        return any(row.state == CANCELLED for row in self._rows.values())

    def may_end(self, host: str) -> bool:
        """
        Whether a host has not said that it does not end there.
        """
        row = self._rows.get(host)
        return not self._is_refused and (row is None or row.error is None)

    def planned(self, hosts: int, reqid: str = "") -> None:
        """
        See L{ctrlexec.dispatcher.backend.Onlooker}, as for the others.
        """
        self._is_refused = False
        self.terminal.passing("waiting for it to end")

    def wanted(self) -> bool:
        """
        They do.
        """
        return True

    def asked(self, host: str) -> None:
        """
        That is no news.
        """

    def heard(self, host: str, event: Output | StateChanged) -> None:
        """
        Nor is that.
        """

    def arrived(self, row: CancelRow) -> None:
        """
        Say what became of it.
        """
        self._rows[row.host] = row
        if row.error is not None:
            problem = f"it may not be cancelled: {row.error}"
            self.terminal.error(f"{row.host}: {problem}", row.hint or ONCE_MORE)
        elif row.signalled or row.host in self.begun:
            # Of the others it is said that it was not started there.
            self.terminal.note(f"{row.host}: {_how(row)}")

    def ticked(self) -> None:
        """
        It takes as long as it takes.
        """

    def agrees(self, unconfirmed: Unconfirmed) -> bool:
        """
        They have said so.
        """
        return True

    def failed(self, error: CtrlExecError) -> None:
        """
        It can not be ended.
        """
        self._is_refused = True
        self.terminal.error(f"it is not cancelled: {error}", error.hint or ONCE_MORE)


def _how(row: CancelRow) -> str:
    from ctrlexec.protocol.run_messages import CANCELLED

    state, count = row.state.replace("_", " "), len(row.signalled)
    if any(row.state == each.value for each in NEVER_BEGAN):
        return f"nothing is to be ended there: {state}"
    if row.state != CANCELLED and not count:
        return f"it had ended already: {state}"
    return f"{state}, {count} process{'es'[: 2 * (count != 1)]} told to end"
