# SPDX-License-Identifier: AGPL-3.0-only
"""
What became of a host, as the API tells a command line of it: the rows among
L{ctrlexec.dispatcher.operator_lines}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from ctrlexec.dispatcher.live_fields import live_run_fields
from ctrlexec.dispatcher.members import (
    array_of,
    flag_of,
    number_of,
    object_of,
    seconds_of,
    text_of,
    text_or_none,
)
from ctrlexec.dispatcher.results import (
    CancelRow,
    DiscoveryRow,
    Outcome,
    PingRow,
    PsRow,
    RunRow,
)
from ctrlexec.errors import ProtocolError
from ctrlexec.protocol.fields import to_json
from ctrlexec.values import NEVER_RAN

if TYPE_CHECKING:
    from ctrlexec.protocol.run_messages import LiveRun, Signalled

Row = RunRow | PingRow | DiscoveryRow | CancelRow | PsRow

_OUTCOMES = {outcome.value: outcome for outcome in Outcome}


def spelled(name: str, content: object) -> bytes:
    """
    @return: a line about something.
    """
    return to_json({name: content}) + b"\n"


def row_line(row: Row) -> bytes:
    """
    It is known what became of a host.
    """
    fields = attrs.asdict(row, recurse=False)
    match row:
        case RunRow(outcome=outcome):
            return spelled("ran", {**fields, "outcome": outcome.value})
        case CancelRow(signalled=signalled):
            fields["signalled"] = [attrs.asdict(each) for each in signalled]
            return spelled("cancelled", fields)
        case PsRow(runs=runs):
            fields["runs"] = [live_run_fields(run) for run in runs]
            return spelled("ps", fields)
        case PingRow():
            return spelled("pinged", fields)
        case DiscoveryRow(capabilities=offered):
            from ctrlexec.protocol.codec import capabilities_fields

            if offered is not None:
                fields["capabilities"] = capabilities_fields(offered)
            return spelled("discovered", fields)


def _ran(content: object) -> RunRow:
    fields = object_of(content)
    return RunRow(
        host=text_of(fields, "host"),
        script=text_of(fields, "script"),
        reqid=text_of(fields, "reqid"),
        outcome=_outcome(fields),
        rtt_ms=number_of(fields, "rtt_ms"),
        exit=number_of(fields, "exit", NEVER_RAN),
        stdout=text_of(fields, "stdout"),
        stderr=text_of(fields, "stderr"),
        error=text_or_none(fields, "error"),
        reason=text_of(fields, "reason"),
        hint=text_of(fields, "hint"),
    )


def _outcome(fields: Mapping[str, Any]) -> Outcome:
    said = text_of(fields, "outcome")
    if said not in _OUTCOMES:
        raise ProtocolError("outcome must be one that is known")
    return _OUTCOMES[said]


def _cancelled(content: object) -> CancelRow:
    fields = object_of(content)
    return CancelRow(
        host=text_of(fields, "host"),
        reqid=text_of(fields, "reqid"),
        rtt_ms=number_of(fields, "rtt_ms"),
        state=text_of(fields, "state"),
        signalled=tuple(map(_signalled, array_of(fields, "signalled"))),
        error=text_or_none(fields, "error"),
        hint=text_of(fields, "hint"),
    )


def _signalled(content: object) -> Signalled:
    from ctrlexec.protocol.run_messages import Signalled

    fields = object_of(content)
    return Signalled(
        number_of(fields, "pid"), text_of(fields, "command"), text_of(fields, "signal")
    )


def _ps(content: object) -> PsRow:
    fields = object_of(content)
    return PsRow(
        host=text_of(fields, "host"),
        rtt_ms=number_of(fields, "rtt_ms"),
        runs=tuple(map(_live_run, array_of(fields, "runs"))),
        others=number_of(fields, "others"),
        error=text_or_none(fields, "error"),
        hint=text_of(fields, "hint"),
    )


def _live_run(content: object) -> LiveRun:
    from ctrlexec.protocol.run_messages import LiveRun

    fields = object_of(content)
    return LiveRun(
        reqid=text_of(fields, "reqid"),
        script=text_of(fields, "script"),
        state=text_of(fields, "state"),
        started=text_of(fields, "started"),
        seconds=seconds_of(fields, "seconds"),
        username=text_of(fields, "username"),
        asynchronous=flag_of(fields, "async"),
        pid=number_of(fields, "pid"),
    )


def _pinged(content: object) -> PingRow:
    fields = object_of(content)
    return PingRow(
        host=text_of(fields, "host"),
        reqid=text_of(fields, "reqid"),
        rtt_ms=number_of(fields, "rtt_ms"),
        reported_hostname=text_of(fields, "reported_hostname"),
        version=text_of(fields, "version"),
        expiry=text_of(fields, "expiry"),
        staged=flag_of(fields, "staged"),
        renewal_due=flag_of(fields, "renewal_due"),
        error=text_or_none(fields, "error"),
        hint=text_of(fields, "hint"),
    )


def _discovered(content: object) -> DiscoveryRow:
    fields = object_of(content)
    offered = fields.get("capabilities")
    if offered is not None:
        from ctrlexec.protocol.codec import decode_capabilities

        offered = decode_capabilities(to_json(object_of(offered)))
    return DiscoveryRow(
        host=text_of(fields, "host"),
        rtt_ms=number_of(fields, "rtt_ms"),
        reported_hostname=text_of(fields, "reported_hostname"),
        capabilities=offered,
        error=text_or_none(fields, "error"),
        hint=text_of(fields, "hint"),
    )


#: What reads the lines of rows, by their names.
READERS: Mapping[str, Callable[[object], Row]] = {
    "ran": _ran,
    "pinged": _pinged,
    "discovered": _discovered,
    "cancelled": _cancelled,
    "ps": _ps,
}
