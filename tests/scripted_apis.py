# SPDX-License-Identifier: AGPL-3.0-only
"""
An API that answers what a test wants, at a unix socket, and what asks it.
"""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any, Generic, TypeVar

import attrs
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.conversation import Patience
from ctrlexec.dispatcher.interruption import Wanted, understood
from ctrlexec.dispatcher.orders import Caller, RunOrder, Selection
from ctrlexec.dispatcher.remote import RemoteBackend
from ctrlexec.dispatcher.results import Outcome, PingRow, Report, RunRow
from ctrlexec.errors import CtrlExecError, TransportError, Unconfirmed
from ctrlexec.protocol.run_messages import Output, StateChanged

OK = b"HTTP/1.0 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n"
ORDER = RunOrder(selection=Selection(("web-1", "web-2")), script="backup")
PINGED = PingRow(host="web-1", reqid="a1", version="2")
RAN = RunRow(
    host="web-1",
    script="backup",
    reqid="a1",
    outcome=Outcome.OK,
    exit=0,
    stdout="done\n",
)
LOST = "the API has closed the connection before the end"
WITHOUT = "--direct does without the API"
PATIENCE_SECONDS = 10.0

Row = TypeVar("Row")


@attrs.define
class Seen(Generic[Row]):
    """
    Somebody in front of a terminal.
    """

    hosts: list[str] = attrs.field(factory=list)
    rows: list[Row] = attrs.field(factory=list)
    total: int = 0
    reqid: str = ""
    ticks: int = 0
    answer: Callable[[Unconfirmed], bool] = lambda unconfirmed: False
    on_tick: Callable[[], None] = lambda: None
    events: list[tuple[str, Output | StateChanged]] = attrs.field(factory=list)
    #: What they type when they are offered something; without it they leave.
    typed: list[str | None] = attrs.field(factory=list)
    hearing: Callable[[float], str | None] | None = None
    on_plan: Callable[[], None] = lambda: None
    on_offer: Callable[[], None] = lambda: None
    #: What an interrupt of theirs calls, while it is caught.
    interrupt: Callable[[], None] | None = None
    stdin: int = -1
    ended: list[object] = attrs.field(factory=list)

    def planned(self, hosts: int, reqid: str = "") -> None:
        """
        Remember it.
        """
        self.total, self.reqid = hosts, reqid
        self.on_plan()

    def wanted(self) -> bool:
        """
        See L{ctrlexec.dispatcher.backend.Onlooker}, as for the others.
        """
        return True

    def asked(self, host: str) -> None:
        """
        Remember it.
        """
        self.hosts.append(host)

    def arrived(self, row: Row) -> None:
        """
        Remember it.
        """
        self.rows.append(row)

    def heard(self, host: str, event: Output | StateChanged) -> None:
        """
        Remember it.
        """
        self.events.append((host, event))

    @contextmanager
    def _caught(self, interrupted: Callable[[], None]) -> Iterator[None]:
        before, self.interrupt = self.interrupt, interrupted
        try:
            yield
        finally:
            self.interrupt = before

    def catching(self, interrupted: Callable[[], None]) -> AbstractContextManager[None]:
        """
        Let a test interrupt us.
        """
        return self._caught(interrupted)

    def offers(self) -> bool:
        """
        If there is something that they would type.
        """
        self.on_offer()
        return bool(self.typed)

    def hears(self, seconds: float) -> str | None:
        """
        What a test has typed; C{^C} is an interrupt.
        """
        typed = self.typed.pop(0)
        if self.hearing is not None:
            return self.hearing(seconds)
        if typed == "^C":
            raise KeyboardInterrupt
        return typed

    def impatient(self) -> AbstractContextManager[None]:
        """
        Now an interrupt of theirs raises.
        """
        return self._caught(_leave)

    def wants(self, typed: str | None) -> Wanted:
        """
        What that means.
        """
        return understood(typed)

    def canceller(self) -> Any:
        """
        Somebody who keeps it for the test.
        """
        return _Ending(self)

    def ticked(self) -> None:
        """
        Count it.
        """
        self.ticks += 1
        self.on_tick()

    def agrees(self, unconfirmed: Unconfirmed) -> bool:
        """
        Say what a test wants.
        """
        return self.answer(unconfirmed)


@attrs.frozen
class _Ending(Generic[Row]):
    """
    Who looks on while a run is ended.
    """

    who: Seen[Row]

    def planned(self, hosts: int, reqid: str = "") -> None:
        """
        See L{ctrlexec.dispatcher.backend.Onlooker}, as for the others.
        """

    def wanted(self) -> bool:
        """
        Every host is asked.
        """
        return True

    def asked(self, host: str) -> None:
        """
        That is no news.
        """

    def arrived(self, row: object) -> None:
        """
        Remember it.
        """
        self.who.ended.append(row)

    def failed(self, error: CtrlExecError) -> None:
        """
        Remember it.
        """
        self.who.ended.append(error)

    def ticked(self) -> None:
        """
        That neither.
        """


def _leave() -> None:
    raise KeyboardInterrupt


@attrs.define(eq=False)
class ScriptedApi:
    """
    Answers one request.

    @ivar reads: whether it reads the request first.
    @ivar asked: the head and the body of it.
    @ivar left: whether whoever asked has closed the connection.
    """

    path: Path
    script: Callable[[socket.socket], None]
    reads: bool = True
    asked: tuple[str, Any] = ("", None)
    left: Event = attrs.field(factory=Event)
    thread: Thread = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(self.path))
        listening.listen()
        self.thread = Thread(target=self._serve, args=(listening,), daemon=True)
        self.thread.start()

    def _serve(self, listening: socket.socket) -> None:
        with listening:
            connection, _ = listening.accept()
        with connection:
            connection.settimeout(PATIENCE_SECONDS)
            if self.reads:
                self.asked = _request(connection)
            try:
                self.script(connection)
            except (BrokenPipeError, ConnectionResetError):
                self.left.set()


def _request(connection: socket.socket) -> tuple[str, Any]:
    with connection.makefile("rb") as stream:
        head = b"".join(iter(stream.readline, b"\r\n")).decode()
        length = int(head.partition("Content-Length: ")[2].partition("\r")[0])
        return head.partition("\r\n")[0], json.loads(stream.read(length))


class RemoteTestCase(SynchronousTestCase):
    """
    Has a place for a socket; a test's own directory is too deep for one.
    """

    def setUp(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix="ctrl-exec-"))
        self.addCleanup(shutil.rmtree, directory)
        self.path = directory / "api.sock"

    def backend(self, **patience: Any) -> RemoteBackend:
        """
        What gives orders to the API.
        """
        caller = Caller(username="ann", token="t0ken")
        return RemoteBackend(self.path, caller, Patience(**patience))

    def api(self, *pieces: bytes) -> ScriptedApi:
        """
        An API that sends this, and closes.
        """
        return self.does(lambda connection: send(connection, pieces))

    def does(self, script: Callable[[socket.socket], None], **how: Any) -> ScriptedApi:
        """
        An API that does this.
        """
        api = ScriptedApi(self.path, script, **how)
        self.addCleanup(api.thread.join, PATIENCE_SECONDS)
        return api

    def assertCut(self, error: str, hint: str, ask: Callable[[], object]) -> None:
        """
        The API has not told all, and this is said.
        """
        with self.assertRaises(TransportError) as caught:
            ask()
        self.assertEqual((str(caught.exception), caught.exception.hint), (error, hint))

    def ping(self, **patience: Any) -> Report[PingRow]:
        """
        Ask for a ping.
        """
        onlooker: Seen[PingRow] = Seen()
        return self.backend(**patience).ping(Selection(("web-1",)), onlooker)

    def run_it(self, **patience: Any) -> Report[RunRow]:
        """
        Ask for a run.
        """
        onlooker: Seen[RunRow] = Seen()
        return self.backend(**patience).run(ORDER, onlooker)


def send(connection: socket.socket, pieces: Iterable[bytes]) -> None:
    """
    Say something, piece by piece.
    """
    for piece in pieces:
        connection.sendall(piece)
