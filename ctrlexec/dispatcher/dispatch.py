# SPDX-License-Identifier: AGPL-3.0-only
"""
Asking agents: one of them, or many, so many at a time.

Whatever happens on one host is a row of the result; it never keeps the answers
of the other hosts from whoever waits for them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

import attrs
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    FirstError,
)
from twisted.internet.interfaces import IReactorTime

from ctrlexec.dispatcher.outcomes import HOW_TO_LIST
from ctrlexec.dispatcher.registry import Unknown
from ctrlexec.dispatcher.renewal import Renewable
from ctrlexec.dispatcher.results import (
    UNKNOWN_AGENT,
    CancelRow,
    DiscoveryRow,
    PingRow,
    PsRow,
)
from ctrlexec.dispatcher.revocation import Revocable
from ctrlexec.errors import CtrlExecError, ProtocolError
from ctrlexec.protocol.codec_trust import NoSuchRequest
from ctrlexec.protocol.messages import (
    Capabilities,
    PingAnswer,
    PingRequest,
    RotateAnswer,
    RotateRequest,
    RunAnswer,
    RunRequest,
)
from ctrlexec.protocol.run_messages import (
    CancelDone,
    FollowRequest,
    LiveRunsAnswer,
    NoSuchRun,
    Output,
    RunResult,
    StateChanged,
    StreamEnded,
)
from ctrlexec.values import Target

T = TypeVar("T")
R = TypeVar("R")
Row = TypeVar("Row", PingRow, DiscoveryRow, CancelRow, PsRow)

#: Is told what a run says; see L{ctrlexec.dispatcher.results.Watcher.heard}.
Heard = Callable[[Output | StateChanged], Deferred[None] | None]

NOTHING_KNOWN = "the agent knows of no such run"
NEVER_NOW = "if it is still on its way there, it is not started within five minutes"
CAN_NOT = "the agent can not do that"
HOW_TO_UPDATE = "agents of the original line know no cancel and no list of runs"


class Answering(Protocol):
    """
    Agents that are asked things.
    """

    async def run(self, target: Target, run: RunRequest) -> RunAnswer:
        """
        @raise CtrlExecError: there is no answer, or none that makes sense.
        """

    async def run_live(
        self, target: Target, run: RunRequest, heard: Heard
    ) -> RunAnswer | StreamEnded:
        """
        The same with what the script writes, as it comes, where the agent can
        tell that.

        Raises like L{run}.
        """

    async def follow(
        self, target: Target, request: FollowRequest, heard: Heard
    ) -> StreamEnded | NoSuchRun:
        """
        Hear what a run writes until it ends. Raises like L{run}.
        """

    async def result(self, target: Target, reqid: str) -> RunResult | NoSuchRun:
        """
        Ask what became of a run. Raises like L{run}.
        """

    async def cancel(self, target: Target, reqid: str) -> CancelDone | NoSuchRun:
        """
        End a run. Raises like L{run}.
        """

    async def runs(self, target: Target) -> LiveRunsAnswer:
        """
        Ask what runs. Raises like L{run}.
        """

    async def ping(self, target: Target, ping: PingRequest) -> PingAnswer:
        """
        Raises like L{run}.
        """

    async def capabilities(self, target: Target) -> Capabilities:
        """
        Raises like L{run}.
        """


class Agents(Answering, Renewable, Revocable, Protocol):
    """
    What speaks to agents: L{ctrlexec.protocol.client.AgentClient}.
    """

    async def rotate_serial(
        self, target: Target, request: RotateRequest
    ) -> RotateAnswer:
        """
        Raises like L{Answering.run}.
        """

    def even_expired(self, since: datetime) -> Agents:
        """
        @return: what speaks to agents whose certificate has expired, too, if it
            ended at this time or later.
        """


@attrs.frozen
class Dispatch:
    """
    Asks one agent at a time.

    @ivar clock: measures how long an answer takes.
    """

    agents: Answering
    clock: IReactorTime

    async def ping(self, planned: Target | Unknown, request: PingRequest) -> PingRow:
        """
        Ask an agent whether it is there.

        @return: what became of it; no error is raised.
        """
        row = PingRow(host=planned.name, reqid=request.reqid)
        if isinstance(planned, Unknown):
            return _nowhere(row, planned)
        return await self._row(row, self.agents.ping(planned, request), _pinged)

    async def discover(self, planned: Target | Unknown) -> DiscoveryRow:
        """
        Ask an agent what it offers.

        @return: what became of it; no error is raised.
        """
        row = DiscoveryRow(host=planned.name)
        if isinstance(planned, Unknown):
            return _nowhere(row, planned)
        return await self._row(row, self.agents.capabilities(planned), _discovered)

    async def cancel(self, planned: Target | Unknown, reqid: str) -> CancelRow:
        """
        Have an agent end a run.

        @return: what became of it; no error is raised.
        """
        row = CancelRow(host=planned.name, reqid=reqid)
        if isinstance(planned, Unknown):
            return _nowhere(row, planned)
        return await self._row(
            row, _known(self.agents.cancel(planned, reqid)), _cancelled
        )

    async def ps(self, planned: Target | Unknown) -> PsRow:
        """
        Ask an agent what runs.

        @return: what became of it; no error is raised.
        """
        row = PsRow(host=planned.name)
        if isinstance(planned, Unknown):
            return _nowhere(row, planned)
        return await self._row(row, _known(self.agents.runs(planned)), _listed)

    async def _row(
        self, row: Row, answer: Awaitable[R], read: Callable[[Row, R], Row]
    ) -> Row:
        since = self.clock.seconds()
        try:
            row = read(row, await answer)
        except CancelledError:
            raise
        except CtrlExecError as error:
            row = attrs.evolve(row, error=str(error), hint=error.hint)
        except Exception as error:
            # A fault of our own must not hide what the other hosts answered.
            row = attrs.evolve(row, error=f"internal error: {error!r}")
        taken = self.clock.seconds() - since
        return attrs.evolve(row, rtt_ms=round(taken * 1000))


async def fan_out(
    items: Sequence[T],
    ask: Callable[[T], Awaitable[R]],
    *,
    limit: int,
    wanted: Callable[[], bool],
    asked: Callable[[T], None],
    arrived: Callable[[R], None],
) -> list[R]:
    """
    Ask about each of many things, a bounded number of them at a time.

    Cancelling it, or an exception from what it is given, cancels what is under
    way and starts nothing more.

    @param limit: how many are under way at most; at least 1.
    @param wanted: whether one more may be asked about.
    @param asked: is told of each thing before it is asked about.
    @param arrived: is given each answer as it comes.
    @return: the answers, in the order in which they came.
    """
    # All workers take from the one iterator: nothing is queued, and a slow
    # answer holds up one worker, not the others.
    waiting = iter(items)
    answers: list[R] = []

    async def work() -> None:
        for item in waiting:
            if not wanted():
                return
            asked(item)
            answer = await ask(item)
            answers.append(answer)
            arrived(answer)

    workers = [Deferred.fromCoroutine(work()) for _ in range(min(limit, len(items)))]
    try:
        await DeferredList(workers, fireOnOneErrback=True, consumeErrors=True)
    except FirstError as first:
        # Who cancels the list cancels all of them already.
        if not first.subFailure.check(CancelledError):
            for worker in workers:
                worker.cancel()
        first.subFailure.raiseException()
    return answers


def _nowhere(row: Row, unknown: Unknown) -> Row:
    hint = HOW_TO_LIST if unknown.error == UNKNOWN_AGENT else ""
    return attrs.evolve(row, error=unknown.error, hint=hint)


async def _known(answer: Awaitable[R]) -> R:
    """
    What is asked only of ours.
    """
    try:
        return await answer
    except NoSuchRequest as error:
        raise ProtocolError(CAN_NOT, hint=HOW_TO_UPDATE) from error


def _cancelled(row: CancelRow, answer: CancelDone | NoSuchRun) -> CancelRow:
    match answer:
        case NoSuchRun():
            return attrs.evolve(row, error=NOTHING_KNOWN, hint=NEVER_NOW)
        case CancelDone(state=state, signalled=signalled):
            return attrs.evolve(row, state=state, signalled=signalled)


def _listed(row: PsRow, answer: LiveRunsAnswer) -> PsRow:
    return attrs.evolve(row, runs=answer.runs, others=answer.others)


def _pinged(row: PingRow, answer: PingAnswer) -> PingRow:
    return attrs.evolve(
        row,
        reported_hostname=_another(row.host, answer.host),
        version=answer.version,
        expiry=answer.expiry,
        staged=answer.staged,
        renewal_due=answer.renewal_due,
    )


def _discovered(row: DiscoveryRow, answer: Capabilities) -> DiscoveryRow:
    return attrs.evolve(
        row,
        reported_hostname=_another(row.host, answer.host),
        capabilities=answer,
    )


def _another(known: str, reported: str) -> str:
    return "" if reported.lower() == known.lower() else reported
