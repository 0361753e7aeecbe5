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
    seconds_of,
    text_of,
    texts_of,
)
from ctrlexec.dispatcher.operator_rows import READERS, spelled
from ctrlexec.dispatcher.operator_rows import Row as Row
from ctrlexec.dispatcher.operator_rows import row_line as row_line
from ctrlexec.errors import (
    CtrlExecError,
    InvalidValue,
    ProtocolError,
    StoreError,
)
from ctrlexec.protocol.fields import from_json, to_json

if TYPE_CHECKING:
    from ctrlexec.dispatcher.records import AgentRecord
    from ctrlexec.dispatcher.run_record import RunRecord
    from ctrlexec.dispatcher.selection import Selected
    from ctrlexec.protocol.run_messages import (
        Output,
        StateChanged,
    )


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
class Heard:
    """
    A run that is followed has said something.
    """

    host: str
    event: Output | StateChanged


@attrs.frozen
class Ended:
    """
    An order has been carried out.

    @ivar warnings: see L{ctrlexec.dispatcher.results.Report}.
    @ivar reqid: likewise.
    @ivar stopped: likewise.
    """

    warnings: tuple[str, ...] = ()
    reqid: str = ""
    stopped: bool = False


@attrs.frozen
class Failed:
    """
    An order has not been carried out.
    """

    error: CtrlExecError


_STREAMS = ("stdout", "stderr")

if TYPE_CHECKING:
    #: What a line says. A L{StoreError} is about a record that can not be read.
    Line = (
        Planned
        | Asked
        | Heard
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
    return spelled("planned", {"hosts": hosts, "reqid": reqid})


def asked_line(host: str) -> bytes:
    """
    A host is being asked.
    """
    return spelled("asked", host)


def heard_line(host: str, event: Output | StateChanged) -> bytes:
    """
    A run that is followed has said something.
    """
    from ctrlexec.protocol.run_messages import Output

    said: dict[str, Any] = (
        {event.stream: event.text, "end": event.end}
        if isinstance(event, Output)
        else {"state": event.state}
    )
    return spelled("heard", {"host": host, "t": event.seconds, **said})


def agent_line(record: AgentRecord) -> bytes:
    """
    An agent that is paired.
    """
    from ctrlexec.dispatcher.records import record_fields

    return spelled("agent", record_fields(record))


def unreadable_line(error: StoreError) -> bytes:
    """
    The record of an agent that can not be read.
    """
    return spelled("unreadable", error_fields(error))


def ended_line(
    warnings: Iterable[str] = (), reqid: str = "", stopped: bool = False
) -> bytes:
    """
    All is done; rows and agents have lines of their own.
    """
    fields = {"warnings": list(warnings), "reqid": reqid, "stopped": stopped}
    return spelled("ended", fields)


def selected_line(selected: Selected) -> bytes:
    """
    The hosts that somebody means.
    """
    fields = {
        "hosts": [[each.host, each.port] for each in selected.hosts],
        "repeated": selected.repeated,
        "unreadable": selected.unreadable,
    }
    return spelled("selected", fields)


def record_line(record: RunRecord) -> bytes:
    """
    What became of a run.
    """
    return spelled("record", record.fields)


def failed_line(error: CtrlExecError) -> bytes:
    """
    The order is not carried out.
    """
    return spelled("failed", error_fields(error))


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


def _heard(content: object) -> Heard:
    from ctrlexec.protocol.run_messages import Output, StateChanged

    fields = object_of(content)
    host, seconds = text_of(fields, "host"), seconds_of(fields, "t")
    if "state" in fields:
        return Heard(host, StateChanged(seconds, text_of(fields, "state")))
    for stream in _STREAMS:
        if stream in fields:
            text, end = text_of(fields, stream), number_of(fields, "end")
            return Heard(host, Output(seconds, stream, text, end))
    raise ProtocolError("heard must be of stdout, stderr or a state")


def _agent(content: object) -> AgentRecord:
    from ctrlexec.dispatcher.records import decode_record

    fields = object_of(content)
    return decode_record(_file(fields, "hostname"), to_json(fields))


def _record(content: object) -> RunRecord:
    from ctrlexec.dispatcher.run_record import decode_run

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
    return Ended(
        texts_of(fields, "warnings"),
        text_of(fields, "reqid"),
        flag_of(fields, "stopped"),
    )


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
    "heard": _heard,
    **READERS,
    "agent": _agent,
    "unreadable": _unreadable,
    "selected": _selected,
    "record": _record,
    "ended": _ended,
    "failed": _failed,
}
