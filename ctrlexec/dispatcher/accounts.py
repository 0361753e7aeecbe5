# SPDX-License-Identifier: AGPL-3.0-only
"""
What became of an order, as events: a row becomes a line of the log.
"""

from __future__ import annotations

from collections.abc import Sequence

from ctrlexec.dispatcher.registry import Unknown
from ctrlexec.dispatcher.results import DiscoveryRow, PingRow, RunRow
from ctrlexec.events import Discovered, Dispatched, Pinged, RunAnswered
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
    )


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
