# SPDX-License-Identifier: AGPL-3.0-only
"""
A dispatcher whose runs go as a test wants them to, behind an API; and what a
client hears of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred

from ctrlexec.dispatcher.operations import Dispatcher
from ctrlexec.dispatcher.orders import Caller, RunOrder, Seen
from ctrlexec.dispatcher.results import CancelRow, Outcome, Report, RunRow, Watcher
from ctrlexec.dispatcher.run_record import RunRecord
from ctrlexec.errors import CtrlExecError
from ctrlexec.protocol.run_messages import Output, StateChanged
from ctrlexec.values import Submitter
from tests.apis import ApiCase, Wire, asking

REQID = "0123456789abcdef"
RUN = {"hosts": ["web-1"], "script": "backup"}


@attrs.define
class Script:
    """
    What was asked of a dispatcher, and what comes of it.

    @ivar refusal: why nothing is carried out, if it is not.
    @ivar orders: what was to be run.
    @ivar attached: the hosts, and what was seen of them, of each that wants to
        follow a run.
    @ivar cancelled: who has ended which run, where.
    @ivar watchers: who looks on at each order and each run.
    @ivar reports: fire with what comes of each of them.
    @ivar dropped: how many of them nobody wants to know any more.
    @ivar endings: what a cancel has ended.
    """

    refusal: CtrlExecError | None = None
    orders: list[RunOrder] = attrs.field(factory=list)
    attached: list[tuple[tuple[str, ...], Mapping[str, Seen]]] = attrs.field(
        factory=list
    )
    cancelled: list[tuple[str, str, tuple[str, ...]]] = attrs.field(factory=list)
    watchers: list[Watcher[RunRow]] = attrs.field(factory=list)
    reports: list[Deferred[Report[RunRow]]] = attrs.field(factory=list)
    dropped: int = 0
    endings: tuple[CancelRow, ...] = ()

    async def carry_out(self, watcher: Watcher[RunRow]) -> Report[RunRow]:
        """
        Let the test tell the watcher what happens.
        """
        if self.refusal is not None:
            raise self.refusal
        self.watchers.append(watcher)
        self.reports.append(Deferred())
        watcher.planned(2, REQID)
        try:
            return await self.reports[-1]
        except CancelledError:
            self.dropped += 1
            raise


@attrs.frozen(kw_only=True)
class ScriptedDispatcher(Dispatcher):
    """
    @ivar script: how it goes.
    """

    script: Script

    async def run(
        self, caller: Caller, order: RunOrder, watcher: Watcher[RunRow]
    ) -> Report[RunRow]:
        """
        Go by the script.
        """
        self.script.orders.append(order)
        return await self.script.carry_out(watcher)

    async def attach(
        self,
        caller: Caller,
        reqid: str,
        hosts: tuple[str, ...],
        seen: Mapping[str, Seen],
        watcher: Watcher[RunRow],
        *,
        bare: bool = False,
    ) -> Report[RunRow]:
        """
        Go by the script.
        """
        self.script.attached.append((hosts, seen))
        return await self.script.carry_out(watcher)

    async def cancel(
        self,
        caller: Caller,
        reqid: str,
        hosts: tuple[str, ...],
        watcher: Watcher[CancelRow],
    ) -> Report[CancelRow]:
        """
        Go by the script.
        """
        self.script.cancelled.append((caller.username, reqid, hosts))
        if self.script.refusal is not None:
            raise self.script.refusal
        return Report(self.script.endings, reqid=reqid)


def row(host: str = "web-1", **more: Any) -> RunRow:
    """
    A run that has ended well.
    """
    usual = RunRow(host=host, script="backup", reqid=REQID, outcome=Outcome.OK, exit=0)
    return attrs.evolve(usual, **more)


@attrs.frozen
class Event:
    """
    A server-sent event.

    @ivar mark: its id.
    """

    name: str
    mark: str
    data: Any


@attrs.define
class Stream:
    """
    A client that follows a run.
    """

    wire: Wire

    def head(self) -> tuple[str, Mapping[str, str]]:
        """
        The first line of the answer, and its header; take what it has besides.
        """
        head, _, rest = self.wire.transport.value().partition(b"\r\n\r\n")
        self.wire.transport.clear()
        self.wire.transport.write(rest)
        first, *lines = head.decode().split("\r\n")
        fields = (line.partition(": ") for line in lines)
        return first, {name.lower(): value for name, _, value in fields}

    def text(self) -> str:
        """
        What came since the last time, the pieces put together.
        """
        data, found = self.wire.transport.value(), b""
        self.wire.transport.clear()
        while data:
            size, _, data = data.partition(b"\r\n")
            found += data[: int(size, 16)]
            data = data[int(size, 16) + 2 :]
        return found.decode()

    def events(self) -> list[Event]:
        """
        The events since the last time.
        """
        found = []
        for block in self.text().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n") if line)
            if "event" in fields:
                data = json.loads(fields["data"])
                found.append(Event(fields["event"], fields["id"], data))
        return found


class ScriptedCase(ApiCase):
    """
    An API of a dispatcher that goes by a script.
    """

    def setUp(self) -> None:
        super().setUp()
        self.script = Script()
        self.play()

    def play(self) -> None:
        """
        Go by the script, with the settings that there are.
        """
        ours = self.dispatcher
        fields = {f.name: getattr(ours, f.name) for f in attrs.fields(Dispatcher)}
        self.api.dispatcher = ScriptedDispatcher(**fields, script=self.script)

    def recorded(self, *hosts: str, reqid: str = REQID) -> None:
        """
        There is a run that goes to some hosts.
        """
        record = RunRecord.sync(
            reqid=reqid,
            script="backup",
            hosts=hosts,
            results=(),
            completed=1,
            submitter=Submitter("ann", "192.0.2.9"),
        )
        self.dispatcher.stores.runs.put(record)

    def follow(self, last: str | None = None, *lines: str) -> Stream:
        """
        A client that wants to hear of the run.

        @param last: the id of the last event that it has.
        """
        known = [] if last is None else [f"Last-Event-ID: {last}"]
        path = f"/runs/{REQID}/events"
        return Stream(self.wire().send(asking("GET", path, None, *known, *lines)))

    def output(self, host: str, text: str, end: int) -> Deferred[None] | None:
        """
        A host has written something.
        """
        event = Output(1.5, "stdout", text, end)
        return self.script.watchers[-1].heard(host, event)

    def state(self, host: str, state: str) -> None:
        """
        A run is in another state.
        """
        self.script.watchers[-1].heard(host, StateChanged(0.0, state))

    def end(self, *rows: RunRow) -> None:
        """
        It is over.
        """
        self.script.reports[-1].callback(Report(rows, reqid=REQID))
