# SPDX-License-Identifier: AGPL-3.0-only
"""
Asking one agent for a run, and staying with it until it is known what became of
it.

Where an answer is lost the agent is asked again, for the answer: nothing is said
of a run before that, and nothing is started twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from ctrlexec.dispatcher.dispatch import NOTHING_KNOWN, Answering, Heard
from ctrlexec.dispatcher.heard import Kept, noting, tell
from ctrlexec.dispatcher.orders import Seen
from ctrlexec.dispatcher.outcomes import (
    answered,
    ended,
    failed,
    forgotten,
    lost_sight,
    nowhere,
    outcome_of,
    overdue,
    unfinished,
)
from ctrlexec.dispatcher.overtime import OVERTIME_SECONDS, Overtime
from ctrlexec.dispatcher.registry import Unknown
from ctrlexec.dispatcher.results import Outcome, RunRow
from ctrlexec.errors import (
    CtrlExecError,
    Forbidden,
    NotFound,
    ProtocolError,
    TransportError,
    Unanswered,
    Unreachable,
    Untrusted,
)
from ctrlexec.protocol.codec_trust import NoSuchRequest
from ctrlexec.protocol.connection import TooLarge
from ctrlexec.protocol.messages import RunAccepted, RunAnswer, RunFinished, RunRequest
from ctrlexec.protocol.run_messages import (
    ASKED_AGAIN,
    FollowRequest,
    NoSuchRun,
    Output,
    RunResult,
    StateChanged,
    StreamEnded,
)
from ctrlexec.values import Target

#: How soon an agent is asked again whose answer is lost: that soon at first, twice
#: as long after that each time, and no longer than that; in seconds.
POLL_SECONDS, LONGEST_POLL_SECONDS = 1.0, 8.0
#: After how many times, one after the other, in which it is there and does not
#: answer: it turns us away, perhaps, and does so for longer each time.
MOST_UNANSWERED = 3
#: After how long what may be repeated is, in seconds.
RETRY_SECONDS = 1.0

#: Whether a script may be asked for again, of an agent that was not reached.
MayRepeat = Callable[[Target, str], Awaitable[bool]]


@attrs.frozen
class Following:
    """
    Stays with runs, one at a time.

    @ivar clock: measures how long an answer takes.
    @ivar patience_seconds: for how long after it was asked, or was last heard of,
        an agent is looked for.
    @ivar most: how many characters of what a run writes are kept.
    """

    agents: Answering
    clock: IReactorTime
    patience_seconds: float
    most: int
    may_repeat: MayRepeat

    async def run(
        self,
        planned: Target | Unknown,
        request: RunRequest,
        heard: Heard | None = None,
        overtime: Overtime | None = None,
    ) -> RunRow:
        """
        Ask an agent to run a script.

        @param heard: is told what it writes, as it comes; C{None} for nobody.
        @param overtime: by which somebody can say that they want it to end.
        @return: what became of it; no error is raised.
        """
        row = RunRow(
            host=planned.name,
            script=request.script,
            reqid=request.reqid,
            outcome=Outcome.UNKNOWN,
        )
        if isinstance(planned, Unknown):
            return nowhere(row, planned)
        overtime = overtime or Overtime(self.clock)
        at = _At(self, planned, row, Kept(self.most), heard, overtime)
        return await self._timed(row, at.bound(at.run(request), request.timeout))

    async def attach(
        self,
        planned: Target | Unknown,
        row: RunRow,
        seen: Seen,
        heard: Heard,
        timeout: float | None = None,
    ) -> RunRow:
        """
        Hear what a run writes until it ends.

        @param row: whose run it is.
        @param seen: how much of it somebody has seen.
        @param timeout: after how many seconds its agent was to end it, if it was.
        @return: what became of it, with what was heard now; no error is raised.
        """
        if isinstance(planned, Unknown):
            return nowhere(row, planned)
        kept = Kept.since(seen, self.most)
        at = _At(self, planned, row, kept, heard, Overtime(self.clock))
        return await self._timed(row, at.bound(at.attach(), timeout))

    async def _timed(self, row: RunRow, work: Awaitable[RunRow]) -> RunRow:
        since = self.clock.seconds()
        try:
            row = await work
        except CancelledError:
            raise
        except Exception as error:
            # A fault of our own must not hide what the other hosts answered.
            row = failed(row, error)
        taken = self.clock.seconds() - since
        return attrs.evolve(row, rtt_ms=round(taken * 1000))


def _to_nobody(event: Output | StateChanged) -> None:
    pass


def _is_there(row: RunRow) -> bool:
    return row.outcome is Outcome.RUNNING or row.error is None


@attrs.frozen
class _At:
    """
    One run on one host.

    @ivar row: what is known of it from the start.
    @ivar listener: is told what it writes; C{None} where nobody listens.
    """

    following: Following
    target: Target
    row: RunRow
    kept: Kept
    listener: Heard | None
    overtime: Overtime
    heard: Heard | None = attrs.field(init=False)

    @heard.default
    def _noting(self) -> Heard | None:
        """
        Tells the listener, and has it noted.
        """
        listener = self.listener
        return listener and noting(self.kept, self.overtime.noting(listener))

    async def bound(
        self, work: Coroutine[Deferred[Any], Any, RunRow], timeout: float | None
    ) -> RunRow:
        """
        Stay with it, but not for ever if it should have ended.

        @param timeout: see L{Following.attach}.
        """
        # It has some time to begin, too.
        most = self.following.patience_seconds + OVERTIME_SECONDS
        row = await self.overtime.bound(work, timeout and timeout + most)
        return await self._overdue(timeout) if row is None else row

    async def run(self, request: RunRequest) -> RunRow:
        since = self.following.clock.seconds()
        try:
            answer = await self._asked_for(request)
        except (Unreachable, Untrusted, Forbidden):
            raise
        except (TransportError, ProtocolError) as error:
            found = await self._found_out(error, since, waits=not request.asynchronous)
            if request.asynchronous and _is_there(found):
                return answered(self.row, RunAccepted(request.script, request.reqid))
            return found
        if isinstance(answer, StreamEnded):
            return self._heard_out(answer)
        row = answered(self.row, answer)
        if isinstance(answer, RunFinished) and self.heard is not None:
            # From an agent that can not tell what a script writes as it comes.
            await tell(self.heard, Seen(), row)
        return row

    async def attach(self) -> RunRow:
        try:
            found = await self._followed()
        except (Unreachable, Untrusted, Forbidden):
            raise
        except (TransportError, ProtocolError) as error:
            return await self._found_out(error, self.following.clock.seconds())
        return found or failed(self.row, NotFound(NOTHING_KNOWN))

    # --- the order -------------------------------------------------------

    async def _asked_for(self, request: RunRequest) -> RunAnswer | StreamEnded:
        try:
            return await self._asked_once(request)
        except Unreachable as error:
            # It was not sent: so it has not run, and it may run any number of
            # times.
            unreached = error
        if not await self._may_repeat():
            raise unreached
        await self._pause(RETRY_SECONDS)
        # Somebody may have ended the order meanwhile.
        if not await self._may_repeat():
            raise unreached
        return await self._asked_once(request)

    async def _may_repeat(self) -> bool:
        return await self.following.may_repeat(self.target, self.row.script)

    async def _asked_once(self, request: RunRequest) -> RunAnswer | StreamEnded:
        agents = self.following.agents
        if self.heard is None:
            return await agents.run(self.target, request)
        return await agents.run_live(self.target, request, self.heard)

    # --- when its answer is lost -----------------------------------------

    async def _found_out(
        self, error: CtrlExecError, since: float, *, waits: bool = True
    ) -> RunRow:
        """
        @param error: why there is no answer.
        @param since: when it was asked for, in the clock's seconds.
        @param waits: whether the end of the run is waited for.
        """
        clock, patience = self.following.clock, self.following.patience_seconds
        until = (since if self.heard is None else clock.seconds()) + patience
        row = failed(self.row, error)
        large = error if isinstance(error, TooLarge) else None
        if isinstance(error, TransportError) and large is None:
            await self._tell_loss()
        pause, unanswered = POLL_SECONDS, 0
        while True:
            events = self.kept.events
            try:
                found = await self._looked_up(large if waits else None)
            except TooLarge as large:
                # It is each time.
                return failed(self.row, large)
            except (TransportError, ProtocolError) as why:
                # It may be starting again just now.
                unanswered = unanswered + 1 if isinstance(why, Unanswered) else 0
            else:
                if found is None:
                    return forgotten(row) if not waits else row
                if found.outcome is not Outcome.RUNNING or not waits:
                    return found
                row, unanswered = unfinished(self.row, error), 0
            if self.kept.events > events:
                until = clock.seconds() + patience
                pause, unanswered = POLL_SECONDS, 0
            if clock.seconds() >= until or unanswered >= MOST_UNANSWERED:
                return lost_sight(row)
            await self._pause(min(pause, until - clock.seconds()))
            pause = min(2 * pause, LONGEST_POLL_SECONDS)

    async def _tell_loss(self) -> None:
        """
        Who listens would hear nothing, and not know why.
        """
        if self.listener is not None:
            taken = self.listener(StateChanged(0.0, ASKED_AGAIN))
            if taken is not None:
                await taken

    async def _looked_up(self, large: TooLarge | None) -> RunRow | None:
        """
        @param large: that it is too large as one answer, which it is not as a stream.
        @return: what the agent knows of the run; C{None} if nothing.
        """
        if self.heard is not None or large is not None:
            try:
                return await self._followed()
            except ProtocolError:
                # It can not tell that, or what it tells makes no sense.
                if large is not None:
                    raise large from None
        try:
            return await self._recorded()
        except TooLarge as error:
            return await self._looked_up(error)

    async def _recorded(self) -> RunRow | None:
        """
        @return: what the agent has on record; C{None} if nothing.
        """
        try:
            found = await self.following.agents.result(self.target, self.row.reqid)
        except NoSuchRequest:
            # One of the older line keeps nothing.
            return None
        match found:
            case RunResult() as result:
                row = ended(self.row, result)
                if self.heard is not None and row.outcome is not Outcome.RUNNING:
                    # What has come as it was written is not told again.
                    await tell(self.heard, self.kept.seen, row)
                return row
            case NoSuchRun():
                return None

    async def _overdue(self, timeout: float | None) -> RunRow:
        """
        It should have ended: the agent is asked once more, in another way.
        """
        row = None
        with suppress(TransportError, ProtocolError):
            row = await self._recorded()
        if row is None or row.outcome is Outcome.RUNNING:
            why = "it was cancelled"
            if timeout is not None and not self.overtime.is_hurried:
                why = f"its time was over after {timeout:g}s"
            return overdue(self.row, why)
        return row

    # --- what it writes --------------------------------------------------

    async def _followed(self) -> RunRow | None:
        seen, heard = self.kept.seen, self.heard or noting(self.kept, _to_nobody)
        request = FollowRequest(self.row.reqid, seen.stdout, seen.stderr)
        match await self.following.agents.follow(self.target, request, heard):
            case StreamEnded() as end:
                return self._heard_out(end)
            case NoSuchRun():
                return None

    def _heard_out(self, end: StreamEnded) -> RunRow:
        kept = self.kept
        return attrs.evolve(
            self.row,
            outcome=outcome_of(end.state, end.exit),
            exit=end.exit,
            stdout=kept.text("stdout", end.stdout_bytes),
            stderr=kept.text("stderr", end.stderr_bytes),
            reason=end.reason,
        )

    async def _pause(self, seconds: float) -> None:
        await deferLater(self.following.clock, seconds)
