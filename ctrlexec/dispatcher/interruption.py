# SPDX-License-Identifier: AGPL-3.0-only
"""
What somebody wants who interrupts the waiting for a run.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import attrs

from ctrlexec.dispatcher.results import CancelRow
from ctrlexec.dispatcher.terminal import Terminal
from ctrlexec.errors import CtrlExecError, Unconfirmed

if TYPE_CHECKING:
    from ctrlexec.protocol.run_messages import Output, StateChanged

#: How long they may take to say it, in seconds.
ANSWER_SECONDS = 10.0
OFFER = (
    "c cancels it on {hosts}, d leaves it running (ctrl-exec attach {reqid}), "
    "anything else goes on waiting"
)


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


@attrs.frozen
class Canceller:
    """
    Somebody who has interrupted a run and wants it to end: what becomes of that
    is said beside its results.

    @ivar refused: is called if it can not be ended.
    """

    terminal: Terminal
    refused: Callable[[], None]

    def planned(self, hosts: int, reqid: str = "") -> None:
        """
        See L{ctrlexec.dispatcher.backend.Onlooker}, as for the others.
        """
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
        if row.error is not None:
            self.terminal.error(f"{row.host}: {row.error}", row.hint)
            return
        count = len(row.signalled)
        told = f"{count} process{'es'[: 2 * (count != 1)]} told to end"
        self.terminal.note(f"{row.host}: {row.state.replace('_', ' ')}, {told}")

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
        self.refused()
        self.terminal.error(str(error), error.hint)

    def impatient(self) -> AbstractContextManager[None]:
        """
        See L{Terminal.impatient}: whoever interrupts this does not want to wait.
        """
        return self.terminal.impatient()
