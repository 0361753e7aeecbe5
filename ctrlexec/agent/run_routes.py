# SPDX-License-Identifier: AGPL-3.0-only
"""
What trusted dispatchers ask of runs: to start one, to hear what became of it, to
follow it, to end it, and what runs (NEWER-LINE.md sections 3.3 and 3.6,
C{docs/runs.md}).

A run of another dispatcher is one that is not there.
"""

from __future__ import annotations

import attrs

from ctrlexec.agent.answering import (
    Following,
    answer_output,
    answer_record,
    while_there,
)
from ctrlexec.agent.in_force import Caller
from ctrlexec.agent.ordering import Orders
from ctrlexec.agent.routes import refuse
from ctrlexec.agent.run_records import RunRecord, running_record
from ctrlexec.agent.run_store import Finished, RunKey
from ctrlexec.agent.run_table import Run
from ctrlexec.agent.running import Runs
from ctrlexec.errors import StoreError
from ctrlexec.events import Event, ResultDenied, ResultMissed, ResultTold, brief
from ctrlexec.protocol import codec, codec_runs
from ctrlexec.protocol.exchange import Exchange
from ctrlexec.protocol.messages import (
    Refused,
    RunAccepted,
    RunAnswer,
    RunFinished,
    RunRefused,
    RunRequest,
)
from ctrlexec.protocol.run_messages import (
    CANCELLED,
    DONE,
    RUNNING,
    CancelDone,
    LiveRunsAnswer,
    NoSuchRun,
)

_UNREADABLE = Refused(500, "the record of the run can not be read")
_NO_STREAM = Refused(400, "a stream takes HTTP/1.1")
_ANOTHERS = Refused(409, "the run was started by another program than this agent")


@attrs.frozen
class RunRoutes:
    """
    @ivar runs: those that live, and those that are on record.
    @ivar following: tells what they write.
    """

    runs: Runs
    following: Following

    # C{POST /run}

    async def run(self, exchange: Exchange, caller: Caller) -> None:
        """
        C{POST /run}
        """
        request = codec.decode_run_request(exchange.request.body)
        if isinstance(request, RunRefused):
            self.runs.refusing.unread(request, caller)
            exchange.answer(200, codec.encode_run_answer(request))
            return
        match await Orders(self.runs).order(request, caller):
            case RunRefused() as refusal:
                self._say(exchange, request, refusal)
            case Finished() as finished:
                await self._tell_ended(exchange, caller, request, finished)
            case Run() as run:
                await self._tell(exchange, caller, request, run)

    async def _tell(
        self, exchange: Exchange, caller: Caller, request: RunRequest, run: Run
    ) -> None:
        if not request.asynchronous:
            self.runs.attend(run, exchange)
        refused = await while_there(exchange, run.settled.wait())
        if refused is not None:
            self._say(exchange, request, refused)
        elif request.asynchronous:
            accepted = RunAccepted(request.script, request.reqid)
            self._say(exchange, request, accepted)
        elif request.stream and exchange.can_stream:
            await self.following.follow(exchange, caller, run, (0, 0), request.reqid)
        else:
            finished = await while_there(exchange, run.finished.wait())
            await self._tell_ended(exchange, caller, request, finished)

    async def _tell_ended(
        self,
        exchange: Exchange,
        caller: Caller,
        request: RunRequest,
        finished: Finished,
    ) -> None:
        if request.asynchronous:
            accepted = RunAccepted(request.script, request.reqid)
            self._say(exchange, request, accepted)
        elif request.stream and exchange.can_stream:
            await self.following.follow_ended(
                exchange, caller, finished, (0, 0), request.reqid
            )
        else:
            record = finished.record
            hollow = RunFinished(
                record.script,
                record.exit,
                "",
                "",
                request.reqid,
                record.state,
                record.reason,
            )
            answer_output(exchange, 200, codec.encode_run_answer(hollow), finished)

    def _say(self, exchange: Exchange, request: RunRequest, answer: RunAnswer) -> None:
        detached = request.asynchronous
        body = codec.encode_run_answer(answer, detached)
        exchange.answer(codec.run_answer_code(answer, detached), body)

    # What became of it.

    async def result(self, exchange: Exchange, caller: Caller, reqid: str) -> None:
        """
        C{GET /result/REQID}
        """
        found = await self._found(caller, reqid)
        match found:
            case Refused():
                refuse(exchange, found)
            case None:
                await self._miss(exchange, caller, reqid)
            case Run() as run:
                self._told(caller, reqid, RUNNING)
                exchange.answer(200, running_record(run.record))
            case Finished(record, path):
                self._told(caller, reqid, DONE if record.ended else RUNNING)
                answer_record(exchange, 200, path)

    async def follow(self, exchange: Exchange, caller: Caller) -> None:
        """
        C{POST /follow}
        """
        request = codec_runs.decode_follow_request(exchange.request.body)
        if isinstance(request, Refused):
            refuse(exchange, request)
            return
        if not exchange.can_stream:
            refuse(exchange, _NO_STREAM)
            return
        at, reqid = (request.stdout, request.stderr), request.reqid
        match await self._found(caller, reqid):
            case Run() as run if await run.settled.wait() is None:
                self._told(caller, reqid, RUNNING)
                self.runs.attend(run, exchange)
                await self.following.follow(exchange, caller, run, at, reqid)
            case Refused() as refused:
                refuse(exchange, refused)
            case Finished(record) as finished if record.digest:
                self._told(caller, reqid, DONE)
                await self.following.follow_ended(exchange, caller, finished, at, reqid)
            case Finished():
                refuse(exchange, _ANOTHERS)
            case _:
                await self._miss(exchange, caller, reqid)

    # Its end.

    async def cancel(self, exchange: Exchange, caller: Caller) -> None:
        """
        C{POST /cancel}
        """
        reqid = codec_runs.decode_cancel_request(exchange.request.body)
        if isinstance(reqid, Refused):
            refuse(exchange, reqid)
            return
        found = await self._found(caller, reqid)
        match found:
            case Refused():
                refuse(exchange, found)
            case None:
                self.runs.table.bury(RunKey(caller.dispatcher, reqid))
                await self._miss(exchange, caller, reqid)
            case Run() as run:
                signalled = await self.runs.cancel(run)
                self.runs.log_cancelled(run.record, len(signalled), caller.peer.address)
                state = run.record.state if run.finished.came else CANCELLED
                _done(exchange, CancelDone(reqid, state, signalled))
            case Finished(record) if record.ended:
                self.runs.log_cancelled(record, 0, caller.peer.address)
                _done(exchange, CancelDone(reqid, record.state))
            case Finished():
                refuse(exchange, _ANOTHERS)

    async def runs_now(self, exchange: Exchange, caller: Caller) -> None:
        """
        C{GET /runs}
        """
        await self.runs.recovered.wait()
        table = self.runs.table
        now = table.seconds()
        own = [run for run in table if run.key.owner == caller.dispatcher]
        answer = LiveRunsAnswer(
            tuple(run.told(now) for run in own), len(table) - len(own)
        )
        exchange.answer(200, codec_runs.encode_live_runs(answer))

    # Whose it is.

    async def _found(
        self, caller: Caller, reqid: str
    ) -> Run | Finished | Refused | None:
        """
        @return: a run that lives; one that is on record; C{None} for one that is
            not there, or another dispatcher's, or was not started.
        """
        await self.runs.recovered.wait()
        key = RunKey(caller.dispatcher, reqid)
        record: RunRecord | None = None
        if self.runs.table.get(key) is None:
            read = self.runs.archive.store.read
            try:
                record = await self.runs.in_force.in_thread(read, key)
            except StoreError:
                return _UNREADABLE
        # It may have come, or ended, while the disk was waited for.
        run = self.runs.table.get(key)
        if self.runs.table.is_spent(key):
            return _UNREADABLE
        if run is None:
            return self.runs.archive.store.found(key, record) if record else None
        if run.finished.came:
            return await run.finished.wait()
        if run.settled.came and await run.settled.wait() is not None:
            return None
        return run

    async def _miss(self, exchange: Exchange, caller: Caller, reqid: str) -> None:
        key = RunKey(caller.dispatcher, reqid)
        denied = await self.runs.in_force.in_thread(
            self.runs.archive.store.is_anothers, key
        )
        event = ResultDenied if denied else ResultMissed
        self._emit(event(caller.peer.address, caller.dispatcher, brief(reqid)))
        exchange.answer(404, codec_runs.encode_no_such_run(NoSuchRun(reqid)))

    def _told(self, caller: Caller, reqid: str, status: str) -> None:
        who = (caller.peer.address, caller.dispatcher, reqid)
        self._emit(ResultTold(*who, status))

    def _emit(self, event: Event) -> None:
        self.runs.in_force.events.emit(event)


def _done(exchange: Exchange, answer: CancelDone) -> None:
    exchange.answer(200, codec_runs.encode_cancel_done(answer))
