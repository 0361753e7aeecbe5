# SPDX-License-Identifier: AGPL-3.0-only
"""
Orders that the API of this host carries out, given through its unix socket.

Whoever types waits until this module is loaded, so it loads nothing that takes
long.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs

from ctrlexec.dispatcher.conversation import Conversation, Cut, Patience
from ctrlexec.dispatcher.conversation import is_usable as is_usable
from ctrlexec.dispatcher.operator import PREFIX, Wish, encode_request
from ctrlexec.dispatcher.operator_lines import (
    Asked,
    Ended,
    Failed,
    Planned,
    read_line,
)
from ctrlexec.dispatcher.orders import Caller, RunOrder, Selection
from ctrlexec.dispatcher.results import (
    AnyRow,
    DiscoveryRow,
    PingRow,
    Report,
    RunRow,
)
from ctrlexec.errors import (
    ProtocolError,
    StoreError,
    TransportError,
    Unconfirmed,
)

if TYPE_CHECKING:
    from ctrlexec.dispatcher.backend import Onlooker
    from ctrlexec.dispatcher.operator_lines import Line
    from ctrlexec.dispatcher.records import AgentRecord
    from ctrlexec.dispatcher.runs import RunRecord
    from ctrlexec.dispatcher.selection import Selected

T = TypeVar("T")


@attrs.define
class _Heard(Generic[AnyRow]):
    """
    What the API has said of an order so far.

    @ivar kind: of rows.
    @ivar reqid: empty until it is known.
    """

    kind: type[AnyRow]
    rows: list[AnyRow] = attrs.field(factory=list)
    reqid: str = ""


@attrs.frozen
class RemoteBackend:
    """
    See L{ctrlexec.dispatcher.backend.Backend}. Whoever leaves in the middle
    leaves the API with what is under way: it asks no further host, waits for
    those that it has asked, and keeps what comes of it.

    @ivar path: the API's socket.
    @ivar caller: what the API is told of whoever asks. Only root is believed
        to be somebody else than the system says.
    """

    path: Path
    caller: Caller
    patience: Patience = attrs.Factory(Patience)

    def run(self, order: RunOrder, onlooker: Onlooker[RunRow]) -> Report[RunRow]:
        """
        See L{ctrlexec.dispatcher.backend.Backend}, as for the others.
        """
        try:
            return self._run(order, onlooker)
        except Unconfirmed as unconfirmed:
            if not onlooker.agrees(unconfirmed):
                raise
        return self._run(attrs.evolve(order, confirmed=True), onlooker)

    def _run(self, order: RunOrder, onlooker: Onlooker[RunRow]) -> Report[RunRow]:
        heard: _Heard[RunRow] = _Heard(RunRow)
        try:
            return self._report("run", order, onlooker, heard)
        except Cut as cut:
            raise TransportError(str(cut), hint=_still_running(heard.reqid)) from None

    def ping(
        self, selection: Selection, onlooker: Onlooker[PingRow]
    ) -> Report[PingRow]:
        """
        Ask hosts whether their agents are there.
        """
        return self._report("ping", selection, onlooker, _Heard(PingRow))

    def discover(
        self, selection: Selection, onlooker: Onlooker[DiscoveryRow]
    ) -> Report[DiscoveryRow]:
        """
        Ask hosts what they offer.
        """
        return self._report("discover", selection, onlooker, _Heard(DiscoveryRow))

    def select(self, selection: Selection) -> Selected:
        """
        Which hosts somebody means.
        """
        from ctrlexec.dispatcher.selection import Selected

        return self._one("select", selection, Selected)

    def list_agents(
        self, tags: Mapping[str, str]
    ) -> tuple[Sequence[AgentRecord], Sequence[StoreError]]:
        """
        The agents that are paired, and the records that can not be read.
        """
        from ctrlexec.dispatcher.records import AgentRecord

        records: list[AgentRecord] = []
        unreadable: list[StoreError] = []
        with closing(self._lines("list-agents", tags)) as lines:
            for line in lines:
                match line:
                    case AgentRecord():
                        records.append(line)
                    case StoreError():
                        unreadable.append(line)
                    case Ended():
                        break
                    case _:
                        raise _out_of_place(line)
        return records, unreadable

    def status(self, reqid: str) -> RunRecord:
        """
        What became of a run.
        """
        from ctrlexec.dispatcher.runs import RunRecord

        return self._one("status", reqid, RunRecord)

    def _one(self, operation: str, wish: Wish, kind: type[T]) -> T:
        with closing(self._lines(operation, wish)) as lines:
            line = next(lines)
        if isinstance(line, kind):
            return line
        raise _out_of_place(line)

    def _report(
        self,
        operation: str,
        wish: Wish,
        onlooker: Onlooker[AnyRow],
        heard: _Heard[AnyRow],
    ) -> Report[AnyRow]:
        with closing(self._lines(operation, wish, onlooker.ticked)) as lines:
            while True:
                match next(lines):
                    case Planned(hosts, reqid):
                        heard.reqid = reqid
                        onlooker.planned(hosts, reqid)
                    case Asked(host):
                        onlooker.asked(host)
                    case Ended(warnings, reqid):
                        return Report(heard.rows, warnings, reqid)
                    case row if isinstance(row, heard.kind):
                        heard.rows.append(row)
                        onlooker.arrived(row)
                    case line:
                        raise _out_of_place(line)

    def _lines(
        self, operation: str, wish: Wish, ticked: Callable[[], None] = lambda: None
    ) -> Generator[Line, None, None]:
        """
        Give an order, and say what is said about it. This has no end: it is
        for whoever reads to know which line is the last.

        @raise CtrlExecError: why it is not carried out.
        """
        with closing(
            Conversation.begun(
                self.path,
                self.patience,
                ticked,
                where=f"{PREFIX}{operation}",
                body=encode_request(self.caller, wish),
            )
        ) as conversation:
            while True:
                line = _read(conversation.line())
                if isinstance(line, Failed):
                    raise line.error
                if line is not None:
                    yield line


def _read(line: bytes) -> Line | None:
    try:
        return read_line(line)
    except ProtocolError as error:
        raise Cut(f"the API's answer makes no sense: {error}") from None


def _out_of_place(line: Line) -> Cut:
    return Cut(f"the API's answer makes no sense: {type(line).__name__} in its place")


def _still_running(reqid: str) -> str:
    if not reqid:
        return (
            "nothing is known to have begun; what did is in the log of the dispatcher, "
            "with its request id"
        )
    return (
        f"scripts may still be running: ctrl-exec status {reqid} knows what became of "
        "them once they have ended; if it does not, the log of each host does"
    )
