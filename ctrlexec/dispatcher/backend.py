# SPDX-License-Identifier: AGPL-3.0-only
"""
Two ways in which a command line has its orders carried out: in its own process,
or by the API of this host through its unix socket. Whoever types sees no
difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ctrlexec.dispatcher.orders import RunOrder, Selection
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.results import (
    DiscoveryRow,
    PingRow,
    Report,
    Row_contra,
    RunRow,
    Watcher,
)
from ctrlexec.dispatcher.runs import RunRecord
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


class Backend(Protocol):
    """
    Carries out what L{ctrlexec.dispatcher.operations.Dispatcher} can do, for
    whom it was made, and comes back when it is done.

    Each of these raises a L{CtrlExecError<ctrlexec.errors.CtrlExecError>}
    where the dispatcher does, and C{KeyboardInterrupt} when whoever waits has
    had enough.
    """

    def run(self, order: RunOrder, onlooker: Onlooker[RunRow]) -> Report[RunRow]:
        """
        Run a script on hosts.

        @raise Unconfirmed: they are many, and the onlooker does not agree.
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
