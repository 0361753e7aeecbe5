# SPDX-License-Identifier: AGPL-3.0-only
"""
Asking agents: one of them, or many, so many at a time.

Whatever happens on one host is a row of the result; it never keeps the answers
of the other hosts from whoever waits for them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

import attrs
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    FirstError,
)
from twisted.internet.interfaces import IReactorTime

from ctrlexec.dispatcher.registry import Unknown
from ctrlexec.dispatcher.results import UNKNOWN_AGENT, PingRow, RunRow
from ctrlexec.errors import CtrlExecError
from ctrlexec.protocol.messages import (
    PingAnswer,
    PingRequest,
    RunAnswer,
    RunFinished,
    RunRefused,
    RunRequest,
)
from ctrlexec.values import Target

T = TypeVar("T")
R = TypeVar("R")
Row = TypeVar("Row", RunRow, PingRow)

_HOW_TO_LIST = "ctrl-exec list-agents shows the agents that are paired"


class Agents(Protocol):
    """
    What speaks to agents: L{ctrlexec.protocol.client.AgentClient}.
    """

    async def run(self, target: Target, run: RunRequest) -> RunAnswer:
        """
        @raise CtrlExecError: there is no answer, or none that makes sense.
        """

    async def ping(self, target: Target, ping: PingRequest) -> PingAnswer:
        """
        Raises like L{run}.
        """


@attrs.frozen
class Dispatch:
    """
    Asks one agent at a time.

    @ivar clock: measures how long an answer takes.
    """

    agents: Agents
    clock: IReactorTime

    async def run(self, planned: Target | Unknown, request: RunRequest) -> RunRow:
        """
        Ask an agent to run a script.

        @return: what became of it; no error is raised.
        """
        row = RunRow(host=planned.name, script=request.script, reqid=request.reqid)
        if isinstance(planned, Unknown):
            return _nowhere(row, planned)
        return await self._row(row, self.agents.run(planned, request), _ran)

    async def ping(self, planned: Target | Unknown, request: PingRequest) -> PingRow:
        """
        Ask an agent whether it is there.

        @return: what became of it; no error is raised.
        """
        row = PingRow(host=planned.name, reqid=request.reqid)
        if isinstance(planned, Unknown):
            return _nowhere(row, planned)
        return await self._row(row, self.agents.ping(planned, request), _pinged)

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
    arrived: Callable[[R], None],
) -> list[R]:
    """
    Ask about each of many things, a bounded number of them at a time.

    Cancelling it, or an exception from C{ask} or C{arrived}, cancels what is
    under way and starts nothing more.

    @param limit: how many are under way at most; at least 1.
    @param arrived: is given each answer as it comes.
    @return: the answers, in the order in which they came.
    """
    # All workers take from the one iterator: nothing is queued, and a slow
    # answer holds up one worker, not the others.
    waiting = iter(items)
    answers: list[R] = []

    async def work() -> None:
        for item in waiting:
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
    hint = _HOW_TO_LIST if unknown.error == UNKNOWN_AGENT else ""
    return attrs.evolve(row, error=unknown.error, hint=hint)


def _ran(row: RunRow, answer: RunAnswer) -> RunRow:
    match answer:
        case RunRefused(error=error):
            return attrs.evolve(row, error=error)
        case RunFinished(exit=status, stdout=stdout, stderr=stderr):
            return attrs.evolve(row, exit=status, stdout=stdout, stderr=stderr)


def _pinged(row: PingRow, answer: PingAnswer) -> PingRow:
    another = answer.host if answer.host.lower() != row.host.lower() else ""
    return attrs.evolve(
        row,
        reported_hostname=another,
        version=answer.version,
        expiry=answer.expiry,
    )
