# SPDX-License-Identifier: AGPL-3.0-only
"""
What tests of a dispatcher's operations share: a dispatcher with two agents that
answer what a test wants, and somebody who watches.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from ctrlexec.dispatcher.authorisation import Authorisation
from ctrlexec.dispatcher.locks import FileLocks, Held, Holder
from ctrlexec.dispatcher.operations import (
    Dispatcher,
    Process,
    Stores,
)
from ctrlexec.dispatcher.orders import Caller, Door, RunOrder, Selection
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.results import DiscoveryRow, PingRow, Report, RunRow
from ctrlexec.dispatcher.settings import DispatcherSettings
from ctrlexec.hooks import Allowed, HookContext, Verdict
from ctrlexec.interfaces import IAuthoriser
from ctrlexec.protocol.run_messages import Output, StateChanged
from ctrlexec.settings import read_settings
from tests.authority import NOW
from tests.dispatching import Recorder
from tests.fake_agents import FakeAgents

ALICE = Caller(username="alice", token="s3cret")
CLIENT = attrs.evolve(ALICE, source_ip="192.0.2.9", door=Door.API)

T = TypeVar("T")
Row = TypeVar("Row")


def settings_in(directory: Path, text: str = "") -> DispatcherSettings:
    """
    Settings of a dispatcher that lives in one directory.
    """
    text = f"ca_dir = ca\nstate_dir = state\ndispatcher_id = ops\n{text}"
    return read_settings(
        DispatcherSettings, text, file="ctrl-exec.conf", base=directory
    )[0]


@attrs.define
class Seen(Generic[Row]):
    """
    Somebody who watches.
    """

    wants: bool = True
    total: int = 0
    hosts: list[str] = attrs.field(factory=list)
    rows: list[Row] = attrs.field(factory=list)
    events: list[tuple[str, Output | StateChanged]] = attrs.field(factory=list)
    reqid: str = ""

    def planned(self, hosts: int, reqid: str = "") -> None:
        """
        See L{ctrlexec.dispatcher.results.Watcher}, as for the others.
        """
        self.total = hosts
        self.reqid = reqid

    def wanted(self) -> bool:
        """
        What the test says.
        """
        return self.wants

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


class DispatcherCase(SynchronousTestCase):
    """
    Has a dispatcher with two agents in its registry.
    """

    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.home.mkdir()
        self.agents = FakeAgents()
        self.written = Recorder()
        self.clock = Clock()
        self.dispatcher = self.configured()
        self.register(AgentRecord(hostname="web-1", ip="10.0.0.1", lookup_by="ip"))
        self.register(AgentRecord(hostname="web-2", port=8443))

    def configured(self, text: str = "") -> Dispatcher:
        """
        A dispatcher with settings of its own.
        """
        settings = settings_in(self.home, text)
        return Dispatcher(
            settings=settings,
            stores=Stores.on_files(settings),
            events=self.written,
            agents=self.connect,
            process=Process(now=lambda: NOW, reactor=self.clock),
        )

    def connect(self, reactor: IReactorTime) -> FakeAgents:
        """
        What speaks to the agents.
        """
        self.assertIs(reactor, self.clock)
        return self.agents

    def register(self, record: AgentRecord) -> None:
        """
        Add an agent.
        """
        self.dispatcher.stores.registry.put(record)

    def done(self, working: Coroutine[Deferred[Any], Any, T]) -> T:
        """
        What comes of something that waits for nothing.
        """
        return self.successResultOf(Deferred.fromCoroutine(working))

    def failed(
        self, working: Coroutine[Deferred[Any], Any, Any], kind: type[Exception]
    ) -> Any:
        """
        The error that something ends with at once.
        """
        failure = self.failureResultOf(Deferred.fromCoroutine(working), kind)
        return failure.value

    def begin(
        self, *hosts: str, script: str = "backup", caller: Caller = ALICE, **how: Any
    ) -> Deferred[Report[RunRow]]:
        """
        Begin a run.
        """
        self.seen: Seen[RunRow] = Seen()
        order = RunOrder(
            selection=Selection(hosts), script=script, args=("a b",), **how
        )
        return Deferred.fromCoroutine(self.dispatcher.run(caller, order, self.seen))

    def run_on(self, *hosts: str, **how: Any) -> dict[str, RunRow]:
        """
        Run a script where no answer is waited for.
        """
        report = self.successResultOf(self.begin(*hosts, **how))
        self.assertEqual(report.rows, self.seen.rows)
        return {row.host: row for row in report.rows}

    def ping(self, *hosts: str, caller: Caller = ALICE) -> Sequence[PingRow]:
        """
        Ping hosts.
        """
        seen: Seen[PingRow] = Seen()
        return self.done(self.dispatcher.ping(caller, Selection(hosts), seen)).rows

    def discover(self, *hosts: str) -> Report[DiscoveryRow]:
        """
        Ask what hosts offer.
        """
        seen: Seen[DiscoveryRow] = Seen()
        return self.done(self.dispatcher.discover(ALICE, Selection(hosts), seen))

    def record(self, name: str) -> AgentRecord:
        """
        What the registry knows.
        """
        return self.dispatcher.stores.registry.get(name)

    def held(self, *hosts: str, script: str = "backup") -> Held:
        """
        Lock a script as another process would.
        """
        held = FileLocks(self.dispatcher.settings.locks_dir).take(
            hosts, Holder(script, "other", "bob")
        )
        assert isinstance(held, Held)
        return held


def overseen(ours: Dispatcher) -> tuple[Dispatcher, list[HookContext]]:
    """
    @return: the same dispatcher with a hook that allows everything, and what that
        is asked.
    """
    asked: list[HookContext] = []

    @implementer(IAuthoriser)
    class Hook:
        async def ask(self, context: HookContext) -> Verdict:
            asked.append(context)
            return Allowed()

    class Overseen(Dispatcher):
        def authorisation(self) -> Authorisation:
            return Authorisation(Hook(), False, self.process.now, self.events)

    same = {each.name: getattr(ours, each.name) for each in attrs.fields(Dispatcher)}
    return Overseen(**same), asked
