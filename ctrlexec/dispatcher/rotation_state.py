# SPDX-License-Identifier: AGPL-3.0-only
"""
Where the rotation of the dispatcher's certificate stands: C{rotation.json}
(PROTOCOL.md section 4, NEWER-LINE.md section 7), and what is to be done next.

Values and decisions; L{ctrlexec.dispatcher.rotation} does what they say.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.errors import InvalidValue, ProtocolError, StoreError
from ctrlexec.files import (
    make_directory,
    read_bounded,
    sweep,
    write_atomic,
)
from ctrlexec.protocol.fields import from_json, to_json
from ctrlexec.values import from_iso_time, serial_from_hex

if TYPE_CHECKING:
    from ctrlexec.certificates import CertificateInfo

_BYTES = 4_194_304


class Stage(enum.Enum):
    """
    How far a rotation is.
    """

    #: There is none.
    NONE = "none"
    #: Agents are told of the next certificate, with the present one.
    ANNOUNCING = "announcing"
    #: The next one is in use; agents that were off are told with the former one.
    OVERLAP = "overlap"
    #: Agents are told not to trust the former one any more.
    RETIRING = "retiring"


@attrs.frozen(kw_only=True)
class RotationState:
    """
    Serials are canonical hex, times ISO 8601; what there is not is empty.

    @ivar current_serial: of the certificate in use.
    @ivar previous_serial: of the one that was in use before, until all agents
        were told to forget it.
    @ivar next_serial: of the one that will be in use.
    @ivar rotated_at: when the one in use came into it.
    @ivar overlap_expires: when agents that were not told are given up.
    @ivar overlap_days: how long that is.
    @ivar switch_by: when the next one comes into use, whoever was not told.
    @ivar previous_retired: when the former one was.
    @ivar retiring: the names of the agents that still have to be told so.
    @ivar extra: fields that we do not know.
    """

    stage: Stage = Stage.NONE
    current_serial: str = ""
    previous_serial: str = ""
    next_serial: str = ""
    rotated_at: str = ""
    overlap_expires: str = ""
    overlap_days: int = 0
    switch_by: str = ""
    previous_retired: str = ""
    retiring: tuple[str, ...] = ()
    extra: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def announced(self) -> str:
        """
        The serial that agents are to know.
        """
        return self.next_serial or self.current_serial


@attrs.frozen
class RotationFile:
    """
    The state on disk.
    """

    path: Path

    def load(self) -> RotationState:
        """
        @raise StoreError: it can not be read, or is not ours.
        """
        try:
            return _decoded(self.path, read_bounded(self.path, _BYTES))
        except FileNotFoundError:
            return RotationState()

    def save(self, state: RotationState) -> RotationState:
        """
        @return: the same.
        @raise StoreError: it is not written, and the old one stays.
        """
        fields = attrs.asdict(state, recurse=False)
        extra = fields.pop("extra")
        said = {name: value for name, value in fields.items() if value}
        make_directory(self.path.parent)
        sweep(self.path)
        data = to_json({**extra, **said, "stage": state.stage.value}) + b"\n"
        write_atomic(self.path, data, group_of_directory=True)
        return state


@attrs.frozen
class Standing:
    """
    Where a rotation stands.

    @ivar present: the certificate in use.
    @ivar agents: all that are registered.
    """

    state: RotationState
    present: CertificateInfo
    agents: tuple[AgentRecord, ...]

    def is_told(self, record: AgentRecord) -> bool:
        """
        Whether an agent has said that it trusts the serial that it is to know.
        """
        return knows(record, self.state.announced)

    def status(self, record: AgentRecord) -> str:
        """
        What an agent knows of the serial that it is to know: C{"current"},
        C{"pending"}, C{"stale"} or C{"unknown"}.
        """
        if self.is_told(record):
            return "current"
        said = record.serial_status
        moving = self.state.stage is not Stage.NONE
        return ("pending" if moving else "unknown") if said == "current" else said


def is_rotation_due(
    not_after: datetime, next_end: datetime, now: datetime, renewal_days: int
) -> bool:
    """
    Whether the dispatcher's certificate is to be replaced.

    @param not_after: when it ends.
    @param next_end: when one would end that is issued now.
    @param renewal_days: how much is left of it then; where certificates do not
        live that long, half of their life is.
    """
    if not_after >= next_end:
        return False
    early = min(timedelta(days=renewal_days), (next_end - now) / 2)
    return not_after - now < early


def knows(record: AgentRecord, serial: str) -> bool:
    """
    Whether an agent has said that it trusts a serial.
    """
    return record.dispatcher_serial == serial and record.serial_status == "current"


def waiting(records: Sequence[AgentRecord], serial: str) -> list[AgentRecord]:
    """
    The agents that have not. Nobody speaks to one that is revoked.
    """
    return [
        record for record in records if not (record.revoked or knows(record, serial))
    ]


def is_past(moment: str, now: datetime) -> bool:
    """
    @param moment: ISO 8601. What is none is past: nothing waits for ever.
    """
    try:
        return now >= from_iso_time(moment)
    except InvalidValue:
        return True


def _decoded(path: Path, data: bytes) -> RotationState:
    try:
        fields = from_json(data)
    except ProtocolError:
        raise StoreError(path, "is cut off, or was not written by us") from None
    known = {each.name for each in attrs.fields(RotationState)}
    texts = {name: fields.get(name) for name in known}
    serials = {
        name: _serial(texts[name])
        for name in ("current_serial", "previous_serial", "next_serial")
    }
    days = fields.get("overlap_days")
    names = fields.get("retiring")
    return RotationState(
        stage=_stage(fields.get("stage"), serials["previous_serial"]),
        **serials,
        rotated_at=_text(texts["rotated_at"]),
        overlap_expires=_text(texts["overlap_expires"]),
        overlap_days=days if type(days) is int else 0,
        switch_by=_text(texts["switch_by"]),
        previous_retired=_text(texts["previous_retired"]),
        retiring=tuple(map(_text, names)) if isinstance(names, list) else (),
        extra={name: value for name, value in fields.items() if name not in known},
    )


def _stage(given: object, previous: str) -> Stage:
    """
    The original names no stage: it switches first, and tells agents then.
    """
    try:
        return Stage(given)
    except ValueError:
        return Stage.OVERLAP if previous else Stage.NONE


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _serial(value: object) -> str:
    try:
        return serial_from_hex(_text(value))
    except InvalidValue:
        return ""
