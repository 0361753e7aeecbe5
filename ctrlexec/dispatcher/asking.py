# SPDX-License-Identifier: AGPL-3.0-only
"""
An order to many agents, from its words to its report: select, authorise, plan,
dispatch. What a run takes besides stands in L{ctrlexec.dispatcher.running}.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import attrs

from ctrlexec.dispatcher.accounts import discovered, pinged
from ctrlexec.dispatcher.authorisation import Question
from ctrlexec.dispatcher.dispatch import Agents, Dispatch, fan_out
from ctrlexec.dispatcher.following import Following
from ctrlexec.dispatcher.maintenance import Renewals
from ctrlexec.dispatcher.orders import Caller, Door, Selection
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.registry import Unknown, targets
from ctrlexec.dispatcher.results import (
    UNKNOWN_AGENT,
    CancelRow,
    DiscoveryRow,
    PingRow,
    PsRow,
    Report,
    RunRow,
    Watcher,
)
from ctrlexec.dispatcher.selection import Selected
from ctrlexec.errors import (
    CtrlExecError,
    InvalidValue,
    NotFound,
    StoreError,
    UnknownAgents,
)
from ctrlexec.events import Event
from ctrlexec.protocol.messages import PingRequest, ScriptInfo
from ctrlexec.values import HostPort, Target, new_request_id

if TYPE_CHECKING:
    from ctrlexec.dispatcher.operations import Dispatcher

Planned = Target | Unknown
Row = TypeVar("Row", RunRow, PingRow, DiscoveryRow, CancelRow, PsRow)


@attrs.frozen
class Asking:
    """
    Carries orders out for a L{Dispatcher<ctrlexec.dispatcher.operations.Dispatcher>}.

    @ivar dispatch: asks one agent at a time.
    @ivar agents: what it asks.
    """

    ours: Dispatcher
    dispatch: Dispatch
    agents: Agents

    @classmethod
    def of(cls, dispatcher: Dispatcher) -> Asking:
        """
        @raise PkiError: the dispatcher has no identity that an agent would
            accept.
        """
        reactor = dispatcher.process.reactor
        agents = dispatcher.agents(reactor)
        return cls(dispatcher, Dispatch(agents, reactor), agents)

    def following(self) -> Following:
        """
        What stays with a run on one host.
        """
        settings = self.ours.settings
        return Following(
            self.agents,
            self.ours.process.reactor,
            settings.read_timeout,
            settings.max_answer,
            self._may_repeat,
        )

    async def ping(
        self, caller: Caller, selection: Selection, watcher: Watcher[PingRow]
    ) -> Report[PingRow]:
        """
        See L{ctrlexec.dispatcher.operations.Dispatcher.ping}.
        """
        signs = self.ours.process.signs
        renewals = Renewals.of(self.ours, self.agents) if signs else None
        question = Question(action="ping")
        selected = await self.permitted(caller, selection, question)
        plan = await self.plan(selected, is_strict(caller))
        rows = await self.ping_planned(plan, watcher, renewals)
        failed = renewals.failed if renewals else ()
        return Report(rows, (*selected.warnings, *failed))

    async def ping_planned(
        self,
        plan: Sequence[Planned],
        watcher: Watcher[PingRow],
        renewals: Renewals | None,
    ) -> Sequence[PingRow]:
        """
        Ping agents that somebody may, and renew them where that is due.
        """

        async def ask(planned: Planned) -> PingRow:
            row = await self.dispatch.ping(planned, PingRequest(new_request_id()))
            if renewals is None or isinstance(planned, Unknown):
                return row
            return await renewals.renewed(planned, row)

        def record(row: PingRow) -> None:
            self.emit(pinged(row))
            watcher.arrived(row)

        return await self.ask(plan, ask, watcher, record)

    async def discover(
        self, caller: Caller, selection: Selection, watcher: Watcher[DiscoveryRow]
    ) -> Report[DiscoveryRow]:
        """
        See L{ctrlexec.dispatcher.operations.Dispatcher.discover}.
        """
        question = Question(action="ping")
        selected = await self.permitted(caller, selection, question)
        plan = await self.plan(selected, is_strict(caller))

        def record(row: DiscoveryRow) -> None:
            self.emit(discovered(row))
            watcher.arrived(row)

        rows = await self.ask(plan, self.dispatch.discover, watcher, record)
        unnoted = await self.ours.process.in_thread(self._note, rows)
        return Report(rows, (*selected.warnings, *unnoted))

    async def ps(
        self, caller: Caller, selection: Selection, watcher: Watcher[PsRow]
    ) -> Report[PsRow]:
        """
        See L{ctrlexec.dispatcher.operations.Dispatcher.ps}.
        """
        selected = await self.permitted(caller, selection, Question(action="ps"))
        plan = await self.plan(selected, is_strict(caller))
        rows = await self.ask(plan, self.dispatch.ps, watcher, watcher.arrived)
        return Report(rows, selected.warnings)

    # --- before anybody is asked -----------------------------------------

    async def permitted(
        self, caller: Caller, selection: Selection, question: Question
    ) -> Selected:
        """
        The hosts that are meant, if the caller may do it there. Who may not
        does not learn which agents there are.
        """
        try:
            selected = await self.ours.selected(selection)
        except NotFound:
            await self.require(caller, question, selection.words)
            raise
        hosts = tuple(each.host for each in selected.hosts)
        await self.require(caller, question, hosts)
        return selected

    async def require(
        self, caller: Caller, question: Question, hosts: tuple[str, ...]
    ) -> None:
        """
        @raise NotAuthorised: the caller may not do it on these hosts.
        """
        asked = attrs.evolve(question, hosts=hosts)
        await self.ours.authorisation().require(caller, asked)

    async def plan(self, selected: Selected, strict: bool) -> list[Planned]:
        """
        Where the hosts are reached, each once.

        @raise UnknownAgents: it is nobody that is registered, and that matters.
        """
        plan = [*dict.fromkeys(await self.reached(selected.hosts))]
        if strict:
            unknown = [each.name for each in plan if _is_unknown(each)]
            if unknown:
                raise UnknownAgents(unknown)
        return plan

    async def reached(self, hosts: Sequence[HostPort]) -> list[Planned]:
        """
        Where hosts are reached, in their order.
        """
        connect = self.ours.settings.unregistered_hosts == "connect"
        return await self.ours.process.in_thread(
            lambda: targets(
                self.ours.stores.registry, hosts, connect_unregistered=connect
            )
        )

    # --- asking, and afterwards ------------------------------------------

    async def ask(
        self,
        plan: Sequence[Planned],
        ask: Callable[[Planned], Awaitable[Row]],
        watcher: Watcher[Row],
        record: Callable[[Row], None],
        reqid: str = "",
    ) -> Sequence[Row]:
        """
        Ask about each host, C{max_parallel} of them at a time.

        @param record: is given each row as it comes.
        """
        watcher.planned(len(plan), reqid)
        return await fan_out(
            plan,
            ask,
            limit=self.ours.settings.max_parallel,
            wanted=watcher.wanted,
            asked=lambda each: watcher.asked(each.name),
            arrived=record,
        )

    def _note(self, rows: Sequence[DiscoveryRow]) -> tuple[str, ...]:
        """
        Write down in the registry what agents offer, where that has changed.

        @return: a warning for each record that could not be written.
        """
        warnings = []
        for row in rows:
            if row.capabilities is None:
                continue
            tags = dict(row.capabilities.tags)
            offered = row.capabilities.scripts
            scripts = tuple(script.name for script in offered)
            repeatable = tuple(each.name for each in offered if _is_idempotent(each))

            def noted(
                record: AgentRecord,
                tags: dict[str, str] = tags,
                scripts: tuple[str, ...] = scripts,
                repeatable: tuple[str, ...] = repeatable,
            ) -> AgentRecord:
                return attrs.evolve(
                    record, tags=tags, scripts=scripts, idempotent=repeatable
                )

            try:
                self.ours.stores.registry.change(row.host, noted)
            except NotFound:
                # Not registered, or not any more.
                continue
            except (StoreError, InvalidValue) as error:
                warnings.append(f"what {row.host} offers is not noted: {error}")
        return tuple(warnings)

    async def _may_repeat(self, target: Target, script: str) -> bool:
        """
        Whether the agent has said so the last time that somebody discovered it.
        """
        registry = self.ours.stores.registry
        try:
            record = await self.ours.process.in_thread(registry.get, target.name)
        except CtrlExecError:
            return False
        return script in record.idempotent

    def emit(self, event: Event) -> None:
        """
        Write an event down.
        """
        self.ours.events.emit(event)


def _is_unknown(planned: Planned) -> bool:
    # A record that can not be read is told in its row, with the reason.
    return isinstance(planned, Unknown) and planned.error == UNKNOWN_AGENT


def _is_idempotent(script: ScriptInfo) -> bool:
    # NEWER-LINE.md section 9. Nothing but true is.
    return script.schema is not None and script.schema.get("idempotent") is True


def is_strict(caller: Caller) -> bool:
    """
    The API refuses an order that names a stranger: NEWER-LINE.md section 13.
    The command line says it in the stranger's row.
    """
    return caller.door is Door.API
