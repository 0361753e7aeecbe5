# SPDX-License-Identifier: AGPL-3.0-only
"""
The agents that a dispatcher knows: one file each, named after the agent.

A file that is cut off or not ours is reported by its name; the others work.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import attrs
from zope.interface import implementer

from ctrlexec.dispatcher.records import (
    AGENT_PORT,
    RECORD_BYTES,
    AgentRecord,
    decode_record,
    encode_record,
)
from ctrlexec.dispatcher.results import REVOKED_AGENT, UNKNOWN_AGENT
from ctrlexec.errors import (
    Conflict,
    InvalidValue,
    NotFound,
    StoreError,
    abbreviated,
)
from ctrlexec.files import (
    exclusive_lock,
    make_shared_directory,
    read_bounded,
    remove,
    sweep,
    write_atomic,
)
from ctrlexec.interfaces import IRegistry
from ctrlexec.values import HostPort, Target, agent_name

#: Who writes holds its C{flock}, an original dispatcher too.
LOCK_FILE = ".registry.lock"


@implementer(IRegistry)
@attrs.frozen
class FileRegistry:
    """
    The registry of PROTOCOL.md section 4.

    @ivar directory: where the records are; made when the first is written.
    """

    directory: Path

    def get(self, name: str) -> AgentRecord:
        """
        See L{IRegistry.get}.
        """
        path = self._path(name)
        try:
            return decode_record(path, read_bounded(path, RECORD_BYTES))
        except FileNotFoundError:
            raise NotFound(
                f"unknown agent: {abbreviated(name)}",
                hint="ctrl-exec list-agents shows those that are known",
            ) from None

    def put(self, record: AgentRecord) -> None:
        """
        See L{IRegistry.put}.
        """
        make_shared_directory(self.directory)
        with self._changing():
            sweep(self._path(record.hostname))
            self._write(record)

    def add(self, record: AgentRecord) -> None:
        """
        See L{IRegistry.add}.
        """
        make_shared_directory(self.directory)
        with self._changing():
            path = self._path(record.hostname)
            if os.path.lexists(path):
                raise Conflict(f"there is an agent called {record.hostname}")
            sweep(path)
            self._write(record)

    def change(
        self, name: str, change: Callable[[AgentRecord], AgentRecord]
    ) -> AgentRecord:
        """
        See L{IRegistry.change}. A record that stays the same is not written;
        and nothing here takes longer where there are more agents, since a
        discovery changes all of them, one by one.
        """
        # Where there is no directory to lock, there is no agent.
        self.get(name)
        with self._changing():
            before = self.get(name)
            record = change(before)
            if record.hostname != name:
                self._move(name, record)
            elif record != before:
                self._write(record)
        return record

    def names(self) -> Sequence[str]:
        """
        See L{IRegistry.names}.
        """
        return sorted(path.stem for path in self._files() if _is_name(path.stem))

    def records(self) -> tuple[Sequence[AgentRecord], Sequence[StoreError]]:
        """
        See L{IRegistry.records}.
        """
        records: list[AgentRecord] = []
        errors: list[StoreError] = []
        for path in sorted(self._files()):
            try:
                records.append(self.get(path.stem))
            except NotFound:
                continue
            except InvalidValue:
                # The older line let any name in.
                errors.append(StoreError(path, "is not called as an agent can be"))
            except StoreError as error:
                errors.append(error)
        return records, errors

    def remove(self, name: str) -> bool:
        """
        See L{IRegistry.remove}.
        """
        if not self.directory.is_dir():
            return False
        with self._changing():
            return remove(self._path(name))

    def _changing(self) -> AbstractContextManager[None]:
        return exclusive_lock(self.directory / LOCK_FILE, shared=True)

    def _move(self, name: str, record: AgentRecord) -> None:
        if os.path.lexists(self._path(record.hostname)):
            raise Conflict(f"there is an agent called {record.hostname}")
        self._write(record)
        try:
            remove(self._path(name))
        except StoreError:
            with suppress(StoreError):
                remove(self._path(record.hostname))
            raise

    def _write(self, record: AgentRecord) -> None:
        path, data = self._path(record.hostname), encode_record(record)
        if len(data) > RECORD_BYTES:
            # Nobody could read it any more.
            raise StoreError(path, f"would be larger than {RECORD_BYTES} bytes")
        write_atomic(path, data, group_of_directory=True)

    def _files(self) -> list[Path]:
        try:
            return [path for path in self.directory.iterdir() if path.suffix == ".json"]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(
                self.directory, f"cannot list it: {error.strerror}"
            ) from error

    def _path(self, name: str) -> Path:
        return self.directory / f"{agent_name(name)}.json"


def _is_name(text: str) -> bool:
    try:
        agent_name(text)
    except InvalidValue:
        return False
    return True


def former_serials(registry: IRegistry, name: str) -> tuple[str, ...]:
    """
    Of the certificates of an agent that is let in anew: they are good until they
    end.
    """
    try:
        before = registry.get(name)
    except (NotFound, StoreError):
        return ()
    return before.with_certificate("", "").former_serials


@attrs.frozen
class Unknown:
    """
    A name that leads to no agent.

    @ivar name: as the operator gave it, without a port.
    @ivar error: why, for the agent's row in the result.
    """

    name: str
    error: str = UNKNOWN_AGENT


def is_revoked(planned: Target | Unknown) -> bool:
    """
    Whether somebody is spoken to no more, for good.
    """
    return isinstance(planned, Unknown) and planned.error == REVOKED_AGENT


def targets(
    registry: IRegistry, names: Sequence[HostPort], *, connect_unregistered: bool
) -> list[Target | Unknown]:
    """
    Where the agents of these names are reached: NEWER-LINE.md section 14.

    @param names: a port that one of them carries goes before the record's.
    @param connect_unregistered: take a name without a record for a host to
        connect to, as the older line does.
    @return: one for each name, in the same order. An unreadable record makes
        its own agent L{Unknown}, and no other.
    """
    return [_target(registry, each, connect_unregistered) for each in names]


def _target(
    registry: IRegistry, asked: HostPort, connect_unregistered: bool
) -> Target | Unknown:
    try:
        record = registry.get(asked.host)
    except (NotFound, InvalidValue):
        if not connect_unregistered:
            return Unknown(asked.host)
        port = asked.port or AGENT_PORT
        return Target(asked.host, asked.host, port, registered=False)
    except StoreError as error:
        return Unknown(asked.host, str(error))
    if record.revoked:
        return Unknown(asked.host, REVOKED_AGENT)
    return Target(
        record.hostname,
        record.address(),
        asked.port or record.port,
        identity=record.identity,
    )
