# SPDX-License-Identifier: AGPL-3.0-only
"""
Two ways in which a command line has its orders carried out: in its own process,
or by the API of this host through its unix socket. Whoever types sees no
difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from ctrlexec.dispatcher.interruption import Canceller, Wanted
from ctrlexec.dispatcher.orders import RunOrder, Seen, Selection
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.results import (
    CancelRow,
    DiscoveryRow,
    PingRow,
    PsRow,
    Report,
    Row_contra,
    RunRow,
    Watcher,
)
from ctrlexec.dispatcher.run_record import RunRecord
from ctrlexec.dispatcher.selection import Selected
from ctrlexec.errors import StoreError, Unconfirmed


class Onlooker(Watcher[Row_contra], Protocol[Row_contra]):
    """
    Somebody in front of a terminal.
    """

    def ticked(self) -> None:
        """
        About a second has gone by.
        """

    def agrees(self, unconfirmed: Unconfirmed) -> bool:
        """
        Whether somebody says yes to so many hosts. Asked once at the most,
        before any host is; if so, the order is given again, confirmed.
        """


class Interruptible(Onlooker[Row_contra], Protocol[Row_contra]):
    """
    Somebody who can be asked what becomes of a run that they do not want to
    wait for.
    """

    def catching(self, interrupted: Callable[[], None]) -> AbstractContextManager[None]:
        """
        While this lasts an interrupt calls that, if somebody can be asked what
        they mean by it; else it is a C{KeyboardInterrupt}.
        """

    def offers(self) -> bool:
        """
        Tell them what they can type.

        @return: whether there is anything to ask, and anybody. If not, they
            leave.
        """

    @property
    def stdin(self) -> int:
        """
        The descriptor at which they type.
        """

    def hears(self, seconds: float) -> str | None:
        """
        Wait until they have typed a line.

        @return: C{None} if they have not in time.
        """

    def impatient(self) -> AbstractContextManager[None]:
        """
        While this lasts an interrupt is a C{KeyboardInterrupt} at once.
        """

    def wants(self, typed: str | None) -> Wanted:
        """
        What they want by it.
        """

    def canceller(self) -> Canceller:
        """
        Who looks on while the run is ended.
        """


class Backend(Protocol):
    """
    Carries out what L{ctrlexec.dispatcher.operations.Dispatcher} can do, for
    whom it was made, and comes back when it is done.

    Each of these raises a L{CtrlExecError<ctrlexec.errors.CtrlExecError>}
    where the dispatcher does, and C{KeyboardInterrupt} when whoever waits has
    had enough.
    """

    def run(self, order: RunOrder, onlooker: Interruptible[RunRow]) -> Report[RunRow]:
        """
        Run a script on hosts.

        @raise Unconfirmed: they are many, and the onlooker does not agree.
        """

    def attach(
        self,
        reqid: str,
        hosts: tuple[str, ...],
        seen: Mapping[str, Seen],
        onlooker: Interruptible[RunRow],
    ) -> Report[RunRow]:
        """
        Hear what a run writes until it ends.
        """

    def cancel(
        self, reqid: str, hosts: tuple[str, ...], onlooker: Onlooker[CancelRow]
    ) -> Report[CancelRow]:
        """
        End a run.
        """

    def ps(self, selection: Selection, onlooker: Onlooker[PsRow]) -> Report[PsRow]:
        """
        Ask hosts what runs there.
        """

    def ping(
        self, selection: Selection, onlooker: Onlooker[PingRow]
    ) -> Report[PingRow]:
        """
        Ask hosts whether their agents are there.
        """

    def discover(
        self, selection: Selection, onlooker: Onlooker[DiscoveryRow]
    ) -> Report[DiscoveryRow]:
        """
        Ask hosts what they offer.
        """

    def select(self, selection: Selection) -> Selected:
        """
        Which hosts somebody means.
        """

    def list_agents(
        self, tags: Mapping[str, str]
    ) -> tuple[Sequence[AgentRecord], Sequence[StoreError]]:
        """
        The agents that are paired, and the records that can not be read.
        """

    def status(self, reqid: str) -> RunRecord:
        """
        What became of a run.
        """

    def await_end(
        self, reqid: str, seconds: float, ticked: Callable[[], None]
    ) -> RunRecord:
        """
        The same once it has ended everywhere, or the time is over.

        @param ticked: is called about once a second.
        """
