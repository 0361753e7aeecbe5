# SPDX-License-Identifier: AGPL-3.0-only
"""
What the API tells a command line that has asked it something:
L{ctrlexec.dispatcher.operator}.

One line of JSON for each thing that happens, at the time when it does, and a
last one for what comes of it all. A line is an object with one member, whose
name says what the line is about. Errors go through as what they are, so that a
person reads the same words whoever carries an order out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from ctrlexec.dispatcher.carried_errors import error_fields, error_of
from ctrlexec.dispatcher.members import (
    array_of,
    flag_of,
    number_of,
    object_of,
    text_of,
    text_or_none,
    texts_of,
)
from ctrlexec.dispatcher.results import DiscoveryRow, PingRow, RunRow
from ctrlexec.errors import (
    CtrlExecError,
    InvalidValue,
    ProtocolError,
    StoreError,
)
from ctrlexec.protocol.fields import from_json, to_json
from ctrlexec.values import NEVER_RAN

if TYPE_CHECKING:
    from ctrlexec.dispatcher.records import AgentRecord
    from ctrlexec.dispatcher.runs import RunRecord
    from ctrlexec.dispatcher.selection import Selected


@attrs.frozen
class Planned:
    """
    It is known to how many hosts an order goes.

    @ivar reqid: of a run, the one id that stands for all of it.
    """

    hosts: int
    reqid: str = ""


@attrs.frozen
class Asked:
    """
    A host is being asked.
    """

    host: str


@attrs.frozen
class Ended:
    """
    An order has been carried out.

    @ivar warnings: see L{ctrlexec.dispatcher.results.Report}.
    @ivar reqid: likewise.
    """

    warnings: tuple[str, ...] = ()
    reqid: str = ""


@attrs.frozen
class Failed:
    """
    An order has not been carried out.
    """

    error: CtrlExecError


Row = RunRow | PingRow | DiscoveryRow

if TYPE_CHECKING:
    #: What a line says. A L{StoreError} is about a record that can not be read.
    Line = (
        Planned
        | Asked
        | Row
        | AgentRecord
        | StoreError
        | Selected
        | RunRecord
        | Ended
        | Failed
    )


# --- as they are sent ----------------------------------------------------


def planned_line(hosts: int, reqid: str = "") -> bytes:
    """
    It is known to how many hosts an order goes.
    """
    return _line("planned", {"hosts": hosts, "reqid": reqid})


def asked_line(host: str) -> bytes:
    """
    A host is being asked.
    """
    return _line("asked", host)


def row_line(row: Row) -> bytes:
    """
    It is known what became of a host.
    """
    fields = attrs.asdict(row, recurse=False)
    match row:
        case RunRow():
            return _line("ran", fields)
        case PingRow():
            return _line("pinged", fields)
        case DiscoveryRow(capabilities=offered):
            from ctrlexec.protocol.codec import capabilities_fields

            if offered is not None:
                fields["capabilities"] = capabilities_fields(offered)
            return _line("discovered", fields)


def agent_line(record: AgentRecord) -> bytes:
    """
    An agent that is paired.
    """
    from ctrlexec.dispatcher.records import record_fields

    return _line("agent", record_fields(record))


def unreadable_line(error: StoreError) -> bytes:
    """
    The record of an agent that can not be read.
    """
    return _line("unreadable", error_fields(error))


def ended_line(warnings: Iterable[str] = (), reqid: str = "") -> bytes:
    """
    All is done; rows and agents have lines of their own.
    """
    return _line("ended", {"warnings": list(warnings), "reqid": reqid})


def selected_line(selected: Selected) -> bytes:
    """
    The hosts that somebody means.
    """
    fields = {
        "hosts": [[each.host, each.port] for each in selected.hosts],
        "repeated": selected.repeated,
        "unreadable": selected.unreadable,
    }
    return _line("selected", fields)


def record_line(record: RunRecord) -> bytes:
    """
    What became of a run.
    """
    return _line("record", record.fields)


def failed_line(error: CtrlExecError) -> bytes:
    """
    The order is not carried out.
    """
    return _line("failed", error_fields(error))


def _line(name: str, content: object) -> bytes:
    return to_json({name: content}) + b"\n"


# --- as they are read ----------------------------------------------------


def read_line(line: bytes) -> Line | None:
    """
    @param line: with its newline or without.
    @return: what it says; C{None} if that is something that we do not know.
    @raise ProtocolError: no API of ours has sent this.
    """
    fields = from_json(line)
    if len(fields) != 1:
        raise ProtocolError("a line must have one member")
    ((name, content),) = fields.items()
    read = _LINES.get(name)
    try:
        return None if read is None else read(content)
    except (InvalidValue, StoreError) as error:
        raise ProtocolError(f"{name}: {error}") from None


def _planned(content: object) -> Planned:
    fields = object_of(content)
    return Planned(number_of(fields, "hosts"), text_of(fields, "reqid"))


def _asked(content: object) -> Asked:
    return Asked(text_of({"asked": content}, "asked"))


def _ran(content: object) -> RunRow:
    fields = object_of(content)
    return RunRow(
        host=text_of(fields, "host"),
        script=text_of(fields, "script"),
        reqid=text_of(fields, "reqid"),
        rtt_ms=number_of(fields, "rtt_ms"),
        exit=number_of(fields, "exit", NEVER_RAN),
        stdout=text_of(fields, "stdout"),
        stderr=text_of(fields, "stderr"),
        error=text_or_none(fields, "error"),
        hint=text_of(fields, "hint"),
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


def _agent(content: object) -> AgentRecord:
    from ctrlexec.dispatcher.records import decode_record

    fields = object_of(content)
    return decode_record(_file(fields, "hostname"), to_json(fields))


def _record(content: object) -> RunRecord:
    from ctrlexec.dispatcher.runs import decode_run

    fields = object_of(content)
    return decode_run(_file(fields, "reqid"), to_json(fields))


def _file(fields: Mapping[str, Any], name: str) -> Path:
    """
    What the file of a record would be called that is named after this.
    """
    return Path(f"{text_of(fields, name)}.json")


def _selected(content: object) -> Selected:
    from ctrlexec.dispatcher.selection import Selected
    from ctrlexec.values import HostPort

    fields = object_of(content)
    hosts = []
    for each in array_of(fields, "hosts"):
        match each:
            case [str(host), None | int() as port] if type(port) is not bool:
                hosts.append(HostPort(host, port))
            case _:
                raise ProtocolError("hosts must be pairs of a text and a number")
    repeated, unreadable = texts_of(fields, "repeated"), texts_of(fields, "unreadable")
    return Selected(tuple(hosts), repeated, unreadable)


def _ended(content: object) -> Ended:
    fields = object_of(content)
    return Ended(texts_of(fields, "warnings"), text_of(fields, "reqid"))


def _unreadable(content: object) -> StoreError:
    error = error_of(content)
    if not isinstance(error, StoreError):
        raise ProtocolError("unreadable must be about a file")
    return error


def _failed(content: object) -> Failed:
    return Failed(error_of(content))


_LINES: Mapping[str, Callable[[object], Any]] = {
    "planned": _planned,
    "asked": _asked,
    "ran": _ran,
    "pinged": _pinged,
    "discovered": _discovered,
    "agent": _agent,
    "unreadable": _unreadable,
    "selected": _selected,
    "record": _record,
    "ended": _ended,
    "failed": _failed,
}
