# SPDX-License-Identifier: AGPL-3.0-only
"""
The life of a run on an agent: asked for, started at most once, cancelled, ended,
written down; found again after a restart.

It is over 400 lines, since all that can happen to a run stands here in the order
in which it does; who may have one, and how it is kept, does not.

A run belongs to the agent and not to the connection that asked for it. Those who
ask wait for what becomes of it: L{ctrlexec.agent.run_table.Run}.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctrlexec.agent.allowlist import Script
from ctrlexec.agent.contexts import question, run_question, script_context
from ctrlexec.agent.in_force import Caller, InForce
from ctrlexec.agent.live import Once
from ctrlexec.agent.refusing import BURIED, Refusing
from ctrlexec.agent.run_archive import RunArchive
from ctrlexec.agent.run_records import RunRecord, ended_by
from ctrlexec.agent.run_store import RunKey
from ctrlexec.agent.run_table import Run, RunTable
from ctrlexec.agent.runs import Ending, StartOrder
from ctrlexec.agent.trust_store import Mark
from ctrlexec.errors import InvalidValue, LockHeld, NotStarted, StoreError
from ctrlexec.events import (
    RunAdopted,
    RunCancelled,
    RunDetached,
    RunEnded,
    RunLost,
    RunStarted,
    StdinTimedOut,
    brief,
)
from ctrlexec.hooks import Denied
from ctrlexec.interfaces import ILiveScript, IScriptRunner
from ctrlexec.protocol import codec
from ctrlexec.protocol.exchange import Exchange
from ctrlexec.protocol.messages import NEVER_RAN, RunRefused, RunRequest
from ctrlexec.protocol.run_messages import CANCELLED, DONE, FAILED, Signalled
from ctrlexec.values import from_iso_time, iso_time

#: How much is kept of each output of a run that the store has no room for, in
#: bytes: what is kept of it elsewhere may be in memory.
PRIVATE_BYTES = 2**20
#: How often the store is swept, in seconds.
SWEEP_SECONDS = 600.0
#: What somebody is told whose id was another run's.
USED = "request id was used for another run"
_NOT_DETACHED = "could not start async job"
_NO_REQID = "async run requires a valid reqid"
#: Why a run is cancelled that nobody has cancelled, as the log has it and as it is
#: told.
_UNASKED = {
    "disconnect": "the caller went away",
    "restart": "the agent was started again",
}


@attrs.frozen
class Wanted:
    """
    A script that is to run.

    @ivar script: as it was permitted when it was asked for.
    """

    request: RunRequest
    caller: Caller
    script: Script


@attrs.define(eq=False)
class Runs:
    """
    @ivar env: the whole environment of each script.
    @ivar recovered: the runs that an agent before us has started are in it.
    """

    in_force: InForce
    runner: IScriptRunner
    archive: RunArchive
    env: Mapping[str, str]
    recovered: Once[None] = attrs.field(factory=Once, init=False)
    refusing: Refusing = attrs.field(init=False)
    _sweeping: LoopingCall = attrs.field(init=False)
    _lives: set[Deferred[None]] = attrs.field(factory=set, init=False)
    _log: Logger = attrs.field(factory=Logger, init=False)

    @_sweeping.default
    def _from_time_to_time(self) -> LoopingCall:
        return LoopingCall(self.sweep)

    @refusing.default
    def _of_what_is_in_force(self) -> Refusing:
        return Refusing(self.in_force)

    @property
    def table(self) -> RunTable:
        """
        Those that live.
        """
        return self.archive.table

    # The agent begins, and ends.

    def start(self, clock: IReactorTime) -> None:
        """
        Find the runs of before, and sweep the store from time to time.
        """
        self._sweeping.clock = clock
        Deferred.fromCoroutine(self._recover()).addErrback(
            lambda why: self._log.failure("the runs of before were not found", why)
        )
        self._sweeping.start(SWEEP_SECONDS, now=False)

    def warm_up(self) -> None:
        """
        Make ready what starts scripts. Where it can not be, the first start says
        so.
        """
        with suppress(NotStarted):
            self.runner.warm_up()

    async def leave(self) -> None:
        """
        Leave the runs that live to themselves.
        """
        if self._sweeping.running:
            self._sweeping.stop()
        await self.runner.close()

    # It lives.

    def begin(self, key: RunKey, record: RunRecord, wanted: Wanted) -> Run:
        """
        A run is in the table from now on. Whether it is started, and what becomes
        of it, it says itself.
        """
        called = brief(wanted.request.reqid)
        run = Run(key, record, self.table.seconds(), called=called)
        self.table.add(run)
        self._lead(run, self._live(run, wanted))
        return run

    def _lead(self, run: Run, life: Coroutine[Any, Any, None]) -> None:
        leading = Deferred.fromCoroutine(life)
        self._lives.add(leading)

        def over(outcome: Failure | None) -> None:
            self._lives.discard(leading)
            self.table.discard(run)
            if outcome is not None and not run.fail(outcome):
                self._log.failure("what became of a run is not known", outcome)

        leading.addBoth(over)

    async def _live(self, run: Run, wanted: Wanted) -> None:
        script = await self._asked(run, wanted)
        if not isinstance(script, RunRefused):
            run.starting = True
            before = self.in_force.trust_mark()
            begun = await self._started(run, script, wanted.request, wanted.caller)
            if not isinstance(begun, RunRefused):
                await self._to_its_end(run, *begun, before)
                return
            script = begun
        if not run.settled.came:
            run.settled.come(script)

    async def _asked(self, run: Run, wanted: Wanted) -> Script | RunRefused:
        request, caller = wanted.request, wanted.caller
        asked = question("run", caller.peer, caller.dispatcher, self.in_force.now())
        asking = Deferred.fromCoroutine(
            self.in_force.ask(run_question(request, asked), caller)
        )
        at_once = asking.called
        verdict = await asking
        if not run.wanted:
            return self.refusing.cancelled(request, caller)
        if isinstance(verdict, Denied):
            return self.refusing.denied(
                request, caller, f"not authorised: {verdict.reason}"
            )
        if request.asynchronous and not run.record.reqid:
            return self.refusing.denied(request, caller, _NO_REQID)
        if at_once:
            return wanted.script
        # The hook has taken its time, and what was permitted before it was asked
        # need not be any more.
        return self.refusing.permitted(request, caller)

    async def _started(
        self, run: Run, script: Script, request: RunRequest, caller: Caller
    ) -> tuple[Path, ILiveScript | Ending] | RunRefused:
        now = self.in_force.now()
        run.record = attrs.evolve(run.record, started=iso_time(now))
        run.began = self.table.seconds()
        try:
            directory = await self.archive.begin(run)
        except StoreError as error:
            why = getattr(error.__cause__, "strerror", None) or "it has no room"
            told = f"the run store: {why}"
            return self.refusing.denied(
                request, caller, str(error), _NOT_DETACHED, told=told
            )
        if directory is None:
            return self.refusing.denied(request, caller, USED)
        if not run.wanted:
            await self.archive.give_up(run, directory)
            return self.refusing.cancelled(request, caller)
        context = codec.encode_run_context(
            script_context(request, caller.peer, caller.dispatcher, now)
        )
        try:
            order = self._start_order(run, script, request, directory, context)
            live = await self.runner.start(order)
        except LockHeld:
            await self.archive.give_up(run, directory)
            holder = self.table.holder(run.key.owner, run.lock)
            return self.refusing.busy(script, request, caller, holder)
        except (NotStarted, StoreError, OSError) as error:
            # Nothing was started; an OSError says that we have no descriptor left.
            why = getattr(error, "strerror", None) or str(error)
            if request.asynchronous:
                await self.archive.give_up(run, directory)
                return self.refusing.denied(
                    request, caller, why, _NOT_DETACHED, told=why
                )
            ending = Ending(exit=NEVER_RAN, state=FAILED, reason=why)
            return directory, ending
        self.in_force.events.emit(
            RunStarted(script.name, caller.peer.address, run.called, caller.dispatcher)
        )
        if request.asynchronous:
            self.in_force.events.emit(RunDetached(*_names(run.record), run.called))
            if self.archive.due:
                self.sweep()
        return directory, live

    def _start_order(
        self,
        run: Run,
        script: Script,
        request: RunRequest,
        directory: Path,
        context: bytes,
    ) -> StartOrder:
        settings = self.in_force.policy.settings
        run.lock = lock = script.lock_of(asynchronous=request.asynchronous)
        most = settings.max_output if script.max_output is None else script.max_output
        limits = (request.timeout, script.timeout)
        return StartOrder(
            directory=directory,
            argv=(str(script.path), *request.args),
            env=self.env,
            stdin=context,
            stdin_timeout=settings.stdin_timeout,
            max_output=min(most, PRIVATE_BYTES) if run.private else most,
            timeout=min((each for each in limits if each is not None), default=None),
            grace=settings.run_grace,
            limits=script.limits,
            lock=self.archive.store.lock_path(lock) if lock else None,
        )

    async def _to_its_end(
        self,
        run: Run,
        directory: Path,
        found: ILiveScript | Ending | None,
        before: Mark,
    ) -> None:
        ending, run.directory = found, directory
        if found is not None and not isinstance(found, Ending):
            run.script = found
            run.settled.come(None)
            ending = await found.ended()
            # Who comes now waits for the record: the files are about to go.
            run.script = None
        else:
            run.settled.come(None)
        assert ending is None or isinstance(ending, Ending)
        record = ended_by(run.record, ending, self.in_force.now())
        if record.state == CANCELLED and run.cancelled_as:
            reason = f"{record.reason}: {run.cancelled_as}"
            record = attrs.evolve(record, reason=reason)
        self._log_end(run, record, ending)
        # Whoever is answered may rely on what the script has made of the map.
        self.in_force.notice_trust(before, run.record.owner)
        await self.archive.end(run, record, directory)
        wanted = self.archive.is_full or self.archive.has_room_again(run)
        if wanted and self.archive.due:
            self.sweep()

    def _log_end(self, run: Run, record: RunRecord, ending: Ending | None) -> None:
        events = self.in_force.events
        if ending is None:
            events.emit(RunLost(*_names(record), run.called))
        elif ending.stdin_timed_out:
            events.emit(StdinTimedOut(record.script, run.called))
        state = None if record.state == DONE else record.state
        peer, owner = record.peer, record.owner
        events.emit(
            RunEnded(record.script, record.exit, peer, run.called, owner, state)
        )

    # It is cancelled.

    def attend(self, run: Run, exchange: Exchange) -> None:
        """
        Somebody waits for a run, or follows it. If that was to be its end it is
        cancelled when nobody is left who does.
        """
        run.callers += 1

        def gone() -> None:
            run.callers -= 1
            record = run.record
            ends = record.on_disconnect == "cancel" and not record.asynchronous
            # An agent that stops will look at it when it is there again.
            if ends and not (run.callers or exchange.stopping or run.finished.came):
                self._cancel_unasked(run, "disconnect")

        exchange.when_lost(gone)

    def cancel(self, run: Run) -> Deferred[tuple[Signalled, ...]]:
        """
        End a run, or see to it that it is not started; once, however many want
        it.

        @return: fires with what was signalled, when nothing is left of it.
        """
        if run.cancelling is not None:
            return run.cancelling.wait()
        run.wanted, run.cancelling = False, Once()
        waiting = run.cancelling.wait()
        cancelling = Deferred.fromCoroutine(self._cancel(run))
        cancelling.addCallback(run.cancelling.come)
        cancelling.addErrback(self._not_cancelled, run)
        return waiting

    async def _cancel(self, run: Run) -> tuple[Signalled, ...]:
        if not run.starting and not run.settled.came:
            self.table.bury(run.key)
            record = run.record
            run.settled.come(
                RunRefused(BURIED, record.script, run.called, state=CANCELLED)
            )
        if await run.settled.wait() is not None:
            # It was about to be started, and may be sent once more.
            self.table.bury(run.key)
            return ()
        signalled = await run.script.cancel() if run.script else ()
        await run.finished.wait()
        return tuple(signalled)

    def _not_cancelled(self, why: Failure, run: Run) -> None:
        cancelling, run.cancelling = run.cancelling, None
        if cancelling is not None and not cancelling.fail(why):
            self._log.failure("a run could not be cancelled", why)

    def _cancel_unasked(self, run: Run, reason: str) -> None:
        def cancelled(signalled: Sequence[Signalled]) -> None:
            self.log_cancelled(run.record, len(signalled), run.record.peer, reason)

        if run.cancelling is None:
            run.cancelled_as = _UNASKED[reason]
        self.cancel(run).addCallbacks(cancelled, lambda _: None)

    def log_cancelled(
        self, record: RunRecord, signalled: int, peer: str, reason: str | None = None
    ) -> None:
        """
        Nothing is left of it.

        @param peer: the address of who wanted that.
        """
        event = RunCancelled(
            record.script, peer, record.owner, record.reqid, signalled, reason
        )
        self.in_force.events.emit(event)

    # The agent was started again.

    async def _recover(self) -> None:
        """
        Find the runs that live from before, and those that were lost.
        """
        try:
            for key, record, directory in await self.archive.left():
                if self.table.get(key) is None:
                    self._find(key, record, directory)
        finally:
            self.recovered.come(None)
        # A host may not be up for long.
        self.sweep()

    def _find(self, key: RunKey, record: RunRecord, directory: Path) -> None:
        # Whatever the clock says: before the host was up nothing ran.
        aged = min(_since(record.started, self.in_force.now()), self.table.seconds())
        run = Run(key, record, self.table.seconds(), aged, called=record.reqid)
        run.starting = True
        self.table.add(run)
        run.private = directory != self.archive.store.directory(key)
        self._lead(run, self._adopted(run, directory))

    async def _adopted(self, run: Run, directory: Path) -> None:
        before = self.in_force.trust_mark()
        found = await self.runner.adopt(directory)
        if found is not None and not isinstance(found, Ending):
            self.in_force.events.emit(RunAdopted(*_names(run.record), run.called))
            if run.record.on_disconnect == "cancel" and not run.record.asynchronous:
                self._cancel_unasked(run, "restart")
        await self._to_its_end(run, directory, found, before)

    def sweep(self) -> Deferred[None]:
        """
        Forget what is old, and write what could not be written before.
        """
        sweeping = Deferred.fromCoroutine(self.archive.sweep())
        sweeping.addErrback(
            lambda why: self._log.failure("the run store was not swept", why)
        )
        return sweeping


def _names(record: RunRecord) -> tuple[str, str, str]:
    """
    What events say of a run: its script, whence and by whom it was wanted.
    """
    return record.script, record.peer, record.owner


def _since(started: str, now: datetime) -> float:
    try:
        return max(0.0, (now - from_iso_time(started)).total_seconds())
    except InvalidValue:
        return 0.0
