# SPDX-License-Identifier: AGPL-3.0-only
"""
An order to many agents, from its words to its report: select, authorise, plan,
lock, dispatch, record.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import attrs
from twisted.internet.task import deferLater

from ctrlexec.dispatcher.accounts import answered, discovered, dispatched, pinged
from ctrlexec.dispatcher.authorisation import Question
from ctrlexec.dispatcher.dispatch import Agents, Dispatch, fan_out
from ctrlexec.dispatcher.locks import Busy, Held, Holder
from ctrlexec.dispatcher.maintenance import Renewals
from ctrlexec.dispatcher.orders import Caller, Door, RunOrder, Selection
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.registry import Unknown, targets
from ctrlexec.dispatcher.results import (
    UNKNOWN_AGENT,
    DiscoveryRow,
    PingRow,
    Report,
    RunRow,
    Watcher,
    run_fields,
)
from ctrlexec.dispatcher.runs import RunRecord
from ctrlexec.dispatcher.selection import Selected
from ctrlexec.errors import (
    InvalidValue,
    Locked,
    NotFound,
    StoreError,
    Unconfirmed,
    UnknownAgents,
)
from ctrlexec.events import (
    Event,
    LockAcquired,
    LockConflict,
    LockReleased,
    RunNotStored,
)
from ctrlexec.protocol.codec import is_sound
from ctrlexec.protocol.messages import PingRequest, RunRequest
from ctrlexec.values import Submitter, Target, new_request_id, script_name

if TYPE_CHECKING:
    from ctrlexec.dispatcher.operations import Dispatcher

#: How often a lock that somebody else holds is tried again, in seconds.
LOCK_POLL_SECONDS = 0.2

Planned = Target | Unknown
Row = TypeVar("Row", RunRow, PingRow, DiscoveryRow)


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

    async def run(
        self, caller: Caller, order: RunOrder, watcher: Watcher[RunRow]
    ) -> Report[RunRow]:
        """
        See L{ctrlexec.dispatcher.operations.Dispatcher.run}.
        """
        request = _run_request(caller, order)
        selected = await self._permitted(
            caller,
            order.selection,
            Question(
                action="run",
                script=request.script,
                args=request.args,
                reqid=request.reqid,
            ),
        )
        limit = self.ours.settings.confirm_hosts
        if len(selected.hosts) > limit and not order.confirmed:
            raise Unconfirmed(len(selected.hosts), limit)
        plan = await self._plan(selected, _is_strict(caller))
        held = await self._locked(
            plan, request, order.wait_lock_seconds, watcher.wanted
        )
        try:
            self._emit(dispatched(request, plan))

            def record(row: RunRow) -> None:
                self._release(held, request, row.host)
                self._emit(answered(row))
                watcher.arrived(row)

            rows = await self._ask(
                plan,
                lambda each: self.dispatch.run(each, request),
                watcher,
                record,
                request.reqid,
            )
        finally:
            self._release(held, request, *held.hosts)
        unkept = await self._keep(caller, request, selected, rows)
        return Report(rows, (*selected.warnings, *unkept), request.reqid)

    async def ping(
        self, caller: Caller, selection: Selection, watcher: Watcher[PingRow]
    ) -> Report[PingRow]:
        """
        See L{ctrlexec.dispatcher.operations.Dispatcher.ping}.
        """
        signs = self.ours.process.signs
        renewals = Renewals.of(self.ours, self.agents) if signs else None
        question = Question(action="ping")
        selected = await self._permitted(caller, selection, question)
        plan = await self._plan(selected, _is_strict(caller))
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
            self._emit(pinged(row))
            watcher.arrived(row)

        return await self._ask(plan, ask, watcher, record)

    async def discover(
        self, caller: Caller, selection: Selection, watcher: Watcher[DiscoveryRow]
    ) -> Report[DiscoveryRow]:
        """
        See L{ctrlexec.dispatcher.operations.Dispatcher.discover}.
        """
        question = Question(action="ping")
        selected = await self._permitted(caller, selection, question)
        plan = await self._plan(selected, _is_strict(caller))

        def record(row: DiscoveryRow) -> None:
            self._emit(discovered(row))
            watcher.arrived(row)

        rows = await self._ask(plan, self.dispatch.discover, watcher, record)
        unnoted = await self.ours.process.in_thread(self._note, rows)
        return Report(rows, (*selected.warnings, *unnoted))

    # --- before anybody is asked -----------------------------------------

    async def _permitted(
        self, caller: Caller, selection: Selection, question: Question
    ) -> Selected:
        """
        The hosts that are meant, if the caller may do it there. Who may not
        does not learn which agents there are.
        """
        try:
            selected = await self.ours.selected(selection)
        except NotFound:
            await self._require(caller, question, selection.words)
            raise
        hosts = tuple(each.host for each in selected.hosts)
        await self._require(caller, question, hosts)
        return selected

    async def _require(
        self, caller: Caller, question: Question, hosts: tuple[str, ...]
    ) -> None:
        asked = attrs.evolve(question, hosts=hosts)
        await self.ours.authorisation().require(caller, asked)

    async def _plan(self, selected: Selected, strict: bool) -> list[Planned]:
        connect = self.ours.settings.unregistered_hosts == "connect"
        found = await self.ours.process.in_thread(
            lambda: targets(
                self.ours.stores.registry, selected.hosts, connect_unregistered=connect
            )
        )
        plan = [*dict.fromkeys(found)]
        if strict:
            unknown = [each.name for each in plan if _is_unknown(each)]
            if unknown:
                raise UnknownAgents(unknown)
        return plan

    async def _locked(
        self,
        plan: Sequence[Planned],
        request: RunRequest,
        seconds: float,
        wanted: Callable[[], bool],
    ) -> Held:
        """
        Lock the script wherever it will run.

        @param seconds: how long to wait for others that run it.
        @param wanted: whether whoever gave the order still waits as well.
        """
        hosts = [*dict.fromkeys(each.name for each in plan if isinstance(each, Target))]
        holder = Holder(request.script, request.reqid, request.username)
        clock = self.ours.process.reactor
        until = clock.seconds() + seconds
        while True:
            match await self.ours.process.in_thread(
                self.ours.stores.locks.take, hosts, holder
            ):
                case Held() as held:
                    if hosts:
                        where = ",".join(hosts)
                        self._emit(LockAcquired(where, request.script, request.reqid))
                    return held
                case Busy(conflicts):
                    left = until - clock.seconds()
                    if left <= 0 or not wanted():
                        self._emit(
                            LockConflict(
                                ",".join(conflicts), request.reqid, request.username
                            )
                        )
                        raise Locked(conflicts)
                    await deferLater(clock, min(left, LOCK_POLL_SECONDS))

    # --- asking, and afterwards ------------------------------------------

    async def _ask(
        self,
        plan: Sequence[Planned],
        ask: Callable[[Planned], Awaitable[Row]],
        watcher: Watcher[Row],
        record: Callable[[Row], None],
        reqid: str = "",
    ) -> Sequence[Row]:
        watcher.planned(len(plan), reqid)
        return await fan_out(
            plan,
            ask,
            limit=self.ours.settings.max_parallel,
            wanted=watcher.wanted,
            asked=lambda each: watcher.asked(each.name),
            arrived=record,
        )

    def _release(self, held: Held, request: RunRequest, *hosts: str) -> None:
        released = held.release(*hosts)
        if released:
            where = ",".join(released)
            self._emit(LockReleased(where, request.script, request.reqid))

    async def _keep(
        self,
        caller: Caller,
        request: RunRequest,
        selected: Selected,
        rows: Sequence[RunRow],
    ) -> tuple[str, ...]:
        """
        Keep the results for whoever asks later. If that fails, whoever asks
        now has them all the same.

        @return: a warning, or none.
        """
        record = RunRecord.sync(
            reqid=request.reqid,
            script=request.script,
            hosts=tuple(each.host for each in selected.hosts),
            results=[run_fields(row) for row in rows],
            completed=int(self.ours.process.now().timestamp()),
            submitter=Submitter(caller.username, caller.source_ip),
        )
        try:
            await self.ours.process.in_thread(self.ours.stores.runs.put, record)
        except StoreError as error:
            self._emit(RunNotStored(request.reqid, str(error)))
            return (f"the results are not kept, status will not know them: {error}",)
        return ()

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
            scripts = tuple(script.name for script in row.capabilities.scripts)

            def noted(
                record: AgentRecord,
                tags: dict[str, str] = tags,
                scripts: tuple[str, ...] = scripts,
            ) -> AgentRecord:
                return attrs.evolve(record, tags=tags, scripts=scripts)

            try:
                self.ours.stores.registry.change(row.host, noted)
            except NotFound:
                # Not registered, or not any more.
                continue
            except (StoreError, InvalidValue) as error:
                warnings.append(f"what {row.host} offers is not noted: {error}")
        return tuple(warnings)

    def _emit(self, event: Event) -> None:
        self.ours.events.emit(event)


def _is_unknown(planned: Planned) -> bool:
    # A record that can not be read is told in its row, with the reason.
    return isinstance(planned, Unknown) and planned.error == UNKNOWN_AGENT


def _is_strict(caller: Caller) -> bool:
    """
    The API refuses an order that names a stranger: NEWER-LINE.md section 13.
    The command line says it in the stranger's row.
    """
    return caller.door is Door.API


def _run_request(caller: Caller, order: RunOrder) -> RunRequest:
    for arg in order.args:
        if "\0" in arg or not is_sound(arg):
            raise InvalidValue("argument", arg, "UTF-8 text without NUL characters")
    return RunRequest(
        script=script_name(order.script),
        args=order.args,
        reqid=new_request_id(),
        username=caller.username,
        token=caller.token,
    )
