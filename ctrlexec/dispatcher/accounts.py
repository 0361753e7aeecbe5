# SPDX-License-Identifier: AGPL-3.0-only
"""
What became of an order, as events: a row becomes a line of the log.
"""

from __future__ import annotations

from collections.abc import Sequence

from ctrlexec.dispatcher.registry import Unknown
from ctrlexec.dispatcher.results import (
    CancelRow,
    DiscoveryRow,
    PingRow,
    RunRow,
    submission,
)
from ctrlexec.events import (
    CancelAnswered,
    CancelFailed,
    Discovered,
    Dispatched,
    Pinged,
    RunAnswered,
    RunBusy,
    RunNotSubmitted,
    RunSettled,
    RunSubmitted,
)
from ctrlexec.protocol.messages import RunRequest
from ctrlexec.values import Target


def dispatched(request: RunRequest, plan: Sequence[Target | Unknown]) -> Dispatched:
    """
    A script is about to be asked for.
    """
    return Dispatched(
        script=request.script,
        hosts=",".join(planned.name for planned in plan),
        reqid=request.reqid,
        user=request.username,
        mode="async" if request.asynchronous else "sync",
    )


def answered(row: RunRow) -> RunAnswered:
    """
    What became of a run on a host.
    """
    return RunAnswered(
        script=row.script,
        target=row.host,
        rtt=f"{row.rtt_ms}ms",
        reqid=row.reqid,
        exit=row.exit if row.error is None else None,
        error=row.error,
        state=row.outcome.value,
    )


def submitted(row: RunRow) -> RunSubmitted | RunBusy | RunNotSubmitted:
    """
    What became of asking a host for a run that nobody waits for.
    """
    rtt = f"{row.rtt_ms}ms"
    match submission(row):
        case "accepted":
            return RunSubmitted(row.script, row.host, rtt, row.reqid)
        case "busy":
            return RunBusy(row.script, row.host, rtt, row.reqid, row.error or "")
    error, state = row.error or "", row.outcome.value
    return RunNotSubmitted(row.script, row.host, rtt, row.reqid, error, state)


def settled(row: RunRow) -> RunSettled:
    """
    It has become known later what became of a run on a host.
    """
    return RunSettled(row.script, row.host, row.outcome.value, row.reqid)


def cancelled(row: CancelRow, user: str) -> CancelAnswered | CancelFailed:
    """
    What became of ending a run on a host.
    """
    rtt = f"{row.rtt_ms}ms"
    if row.error is not None:
        return CancelFailed(row.host, row.error, rtt, row.reqid, user)
    return CancelAnswered(row.host, row.state, rtt, row.reqid, user)


def pinged(row: PingRow) -> Pinged:
    """
    What became of a ping of a host.
    """
    return Pinged(
        target=row.host,
        rtt=f"{row.rtt_ms}ms",
        reqid=row.reqid,
        result="ok" if row.ok else None,
        error=row.error,
    )


def discovered(row: DiscoveryRow) -> Discovered:
    """
    What became of asking a host what it offers.
    """
    offered = row.capabilities
    return Discovered(
        target=row.host,
        rtt=f"{row.rtt_ms}ms",
        scripts=None if offered is None else len(offered.scripts),
        error=row.error,
    )
