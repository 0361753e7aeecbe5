# SPDX-License-Identifier: AGPL-3.0-only
"""
Orders that the API of this host carries out, given through its unix socket.

Whoever types waits until this module is loaded, so it loads nothing that takes
long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs

from ctrlexec.dispatcher.conversation import Conversation, Cut, Patience
from ctrlexec.dispatcher.conversation import is_usable as is_usable
from ctrlexec.dispatcher.interruption import ANSWER_SECONDS, Wanted
from ctrlexec.dispatcher.operator import (
    PREFIX,
    AttachWish,
    CancelWish,
    WaitWish,
    Wish,
    encode_request,
)
from ctrlexec.dispatcher.operator_lines import (
    Asked,
    Ended,
    Failed,
    Heard,
    Planned,
    read_line,
)
from ctrlexec.dispatcher.orders import Caller, RunOrder, Seen, Selection
from ctrlexec.dispatcher.results import (
    AnyRow,
    CancelRow,
    DiscoveryRow,
    PingRow,
    PsRow,
    Report,
    RunRow,
)
from ctrlexec.dispatcher.signals import Terminated
from ctrlexec.errors import (
    CtrlExecError,
    ProtocolError,
    StoreError,
    TransportError,
    Unconfirmed,
)

if TYPE_CHECKING:
    from ctrlexec.dispatcher.backend import Interruptible, Onlooker
    from ctrlexec.dispatcher.operator_lines import Line
    from ctrlexec.dispatcher.records import AgentRecord
    from ctrlexec.dispatcher.run_record import RunRecord
    from ctrlexec.dispatcher.selection import Selected

T = TypeVar("T")


@attrs.define
class _Said(Generic[AnyRow]):
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

    def run(self, order: RunOrder, onlooker: Interruptible[RunRow]) -> Report[RunRow]:
        """
        See L{ctrlexec.dispatcher.backend.Backend}, as for the others.
        """
        try:
            return self._attended("run", order, onlooker)
        except Unconfirmed as unconfirmed:
            if not onlooker.agrees(unconfirmed):
                raise
        return self._attended("run", attrs.evolve(order, confirmed=True), onlooker)

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
        return self._attended("attach", AttachWish(reqid, hosts, seen), onlooker)

    def _attended(
        self, operation: str, wish: Wish, onlooker: Interruptible[RunRow]
    ) -> Report[RunRow]:
        """
        Give an order that somebody may interrupt.
        """
        said: _Said[RunRow] = _Said(RunRow)
        try:
            with closing(self._ask(operation, wish, onlooker.ticked)) as answer:
                answer.interrupted = lambda: self._interrupted(onlooker, said.reqid)
                with onlooker.catching(answer.conversation.interrupt):
                    return _report(answer, onlooker, said)
        except Cut as cut:
            raise TransportError(str(cut), hint=_still_running(said.reqid)) from None

    def _interrupted(self, onlooker: Interruptible[RunRow], reqid: str) -> None:
        """
        Ask what they mean by that. The API goes on meanwhile.

        @raise KeyboardInterrupt: they do not want to wait.
        """
        # From before they read what they can type, Ctrl-C says that they leave.
        with onlooker.impatient():
            if not onlooker.offers():
                raise KeyboardInterrupt
            match onlooker.wants(onlooker.hears(ANSWER_SECONDS)):
                case Wanted.LEAVE:
                    raise KeyboardInterrupt
                case Wanted.CANCEL:
                    canceller = onlooker.canceller()
                    try:
                        self.cancel(reqid, (), canceller)
                    except CtrlExecError as error:
                        canceller.failed(error)

    def cancel(
        self, reqid: str, hosts: tuple[str, ...], onlooker: Onlooker[CancelRow]
    ) -> Report[CancelRow]:
        """
        End a run.
        """
        wish = CancelWish(reqid, hosts)
        return self._report("cancel", wish, onlooker, CancelRow)

    def ps(self, selection: Selection, onlooker: Onlooker[PsRow]) -> Report[PsRow]:
        """
        Ask hosts what runs there.
        """
        return self._report("ps", selection, onlooker, PsRow)

    def ping(
        self, selection: Selection, onlooker: Onlooker[PingRow]
    ) -> Report[PingRow]:
        """
        Ask hosts whether their agents are there.
        """
        return self._report("ping", selection, onlooker, PingRow)

    def discover(
        self, selection: Selection, onlooker: Onlooker[DiscoveryRow]
    ) -> Report[DiscoveryRow]:
        """
        Ask hosts what they offer.
        """
        return self._report("discover", selection, onlooker, DiscoveryRow)

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
        with closing(self._ask("list-agents", tags)) as lines:
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
        from ctrlexec.dispatcher.run_record import RunRecord

        return self._one("status", reqid, RunRecord)

    def await_end(
        self, reqid: str, seconds: float, ticked: Callable[[], None]
    ) -> RunRecord:
        """
        The same once it has ended everywhere, or the time is over.
        """
        from ctrlexec.dispatcher.run_record import RunRecord

        return self._one("wait", WaitWish(reqid, seconds), RunRecord, ticked)

    def _one(
        self,
        operation: str,
        wish: Wish,
        kind: type[T],
        ticked: Callable[[], None] = lambda: None,
    ) -> T:
        with closing(self._ask(operation, wish, ticked)) as lines:
            line = next(lines)
        if isinstance(line, kind):
            return line
        raise _out_of_place(line)

    def _report(
        self,
        operation: str,
        wish: Wish,
        onlooker: Onlooker[AnyRow],
        kind: type[AnyRow],
    ) -> Report[AnyRow]:
        with closing(self._ask(operation, wish, onlooker.ticked)) as answer:
            return _report(answer, onlooker, _Said(kind))

    def _ask(
        self, operation: str, wish: Wish, ticked: Callable[[], None] = lambda: None
    ) -> _Answer:
        """
        Give an order.
        """
        return _Answer(
            Conversation.begun(
                self.path,
                self.patience,
                ticked,
                where=f"{PREFIX}{operation}",
                body=encode_request(self.caller, wish),
            )
        )


def _leave() -> None:
    raise KeyboardInterrupt


@attrs.define(eq=False)
class _Answer:
    """
    What is said about an order. This has no end: it is for whoever reads to
    know which line is the last.

    @ivar interrupted: is called when somebody interrupts the waiting; unless it
        raises, that goes on.
    """

    conversation: Conversation
    interrupted: Callable[[], None] = _leave

    def __iter__(self) -> Iterator[Line]:
        return self

    def __next__(self) -> Line:
        """
        @raise CtrlExecError: why the order is not carried out.
        """
        while True:
            try:
                data = self.conversation.line()
            except Terminated:
                raise
            except KeyboardInterrupt:
                self.interrupted()
                continue
            line = _read(data)
            if isinstance(line, Failed):
                raise line.error
            if line is not None:
                return line

    def close(self) -> None:
        """
        Leave.
        """
        self.conversation.close()


def _report(
    answer: _Answer, onlooker: Onlooker[AnyRow], said: _Said[AnyRow]
) -> Report[AnyRow]:
    while True:
        match next(answer):
            case Planned(hosts, reqid):
                said.reqid = reqid
                onlooker.planned(hosts, reqid)
            case Asked(host):
                onlooker.asked(host)
            case Heard(host, event):
                onlooker.heard(host, event)
            case Ended(warnings, reqid, stopped):
                return Report(said.rows, warnings, reqid, stopped)
            case row if isinstance(row, said.kind):
                said.rows.append(row)
                onlooker.arrived(row)
            case line:
                raise _out_of_place(line)


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
        f"them, ctrl-exec attach {reqid} goes on listening"
    )
