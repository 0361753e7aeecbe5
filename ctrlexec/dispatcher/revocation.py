# SPDX-License-Identifier: AGPL-3.0-only
"""
What a dispatcher has revoked, on disk: one file, one list, which only grows
(C{docs/revocation.md}).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import attrs

from ctrlexec.errors import InvalidValue, ProtocolError, StoreError
from ctrlexec.files import (
    exclusive_lock,
    make_shared_directory,
    read_bounded,
    sweep,
    write_atomic,
)
from ctrlexec.protocol.fields import from_json, to_json
from ctrlexec.protocol.revocation import (
    MOST_SERIALS,
    Acknowledged,
    NotAcknowledged,
    SignedRevocations,
)
from ctrlexec.values import Target, iso_time, serial_from_hex

_FILE_BYTES = 16 * 2**20
_LIST, _LOCK = "list.json", ".lock"
#: How much of a reason is kept.
REASON_CHARACTERS = 1000


class Revocable(Protocol):
    """
    What speaks to agents about revocation.
    """

    async def revocations(
        self, target: Target, found: SignedRevocations
    ) -> Acknowledged | NotAcknowledged:
        """
        @raise ProtocolError: the agent is of an original line, for one.
        @raise CtrlExecError: there is no answer, or none that makes sense.
        """

    async def serial(self, target: Target) -> str:
        """
        @return: of the certificate that the agent shows, canonical.
        @raise CtrlExecError: it shows none, or not its own.
        """


@attrs.frozen
class Entry:
    """
    A certificate that is revoked.

    @ivar serial: canonical.
    @ivar agent: whose it is; empty where that is not known.
    @ivar reason: in a person's words, or empty.
    @ivar revoked: when, in ISO 8601.
    @ivar user: by whom.
    """

    serial: str = attrs.field(converter=serial_from_hex)
    agent: str
    reason: str
    revoked: str
    user: str


@attrs.frozen
class Listed:
    """
    Everything that is revoked.

    @ivar number: 0 where nothing ever was.
    @ivar issued: when it was changed last, in ISO 8601.
    """

    number: int = 0
    issued: str = ""
    entries: tuple[Entry, ...] = ()

    @property
    def serials(self) -> frozenset[str]:
        """
        Whose holders are not spoken to.
        """
        return frozenset(entry.serial for entry in self.entries)


@attrs.frozen
class FileRevocations:
    """
    The list, in a directory that the dispatcher's users share.
    """

    directory: Path

    @property
    def path(self) -> Path:
        """
        The file that holds it.
        """
        return self.directory / _LIST

    def listed(self) -> Listed:
        """
        @raise StoreError: it can not be read. Whoever goes on without it speaks
            to those whom it was meant for.
        """
        try:
            return _listed(from_json(read_bounded(self.path, _FILE_BYTES)))
        except FileNotFoundError:
            return Listed()
        except (ProtocolError, InvalidValue, LookupError, TypeError):
            problem = "is cut off, or was not written by us"
            raise StoreError(self.path, problem) from None

    def add(self, entries: Sequence[Entry], now: datetime) -> tuple[Listed, int]:
        """
        Revoke certificates; those that are revoked already stay as they are.

        @return: the list as it is now, and how many are new in it.
        @raise StoreError: nothing has changed.
        """
        make_shared_directory(self.directory)
        with exclusive_lock(self.directory / _LOCK, shared=True):
            before = self.listed()
            new = {each.serial: each for each in entries}
            for serial in before.serials:
                new.pop(serial, None)
            if not new:
                return before, 0
            after = Listed(
                # A list that was lost, and begun anew, still has a higher number
                # than any that agents hold.
                max(before.number + 1, int(now.timestamp())),
                iso_time(now),
                (*before.entries, *new.values()),
            )
            if len(after.entries) > MOST_SERIALS:
                raise StoreError(self.path, f"would have more than {MOST_SERIALS}")
            sweep(self.path)
            data = to_json(attrs.asdict(after)) + b"\n"
            write_atomic(self.path, data, group_of_directory=True)
            return after, len(new)


@attrs.define(eq=False)
class RevokedSerials:
    """
    The serials that are revoked at this moment, whichever process has revoked
    them: asked for each question to an agent, so the file is only read when it
    is another one.
    """

    store: FileRevocations
    _stamp: tuple[int, int, int] | None = attrs.field(default=None, init=False)
    _serials: frozenset[str] = attrs.field(factory=frozenset, init=False)

    def __call__(self) -> frozenset[str]:
        """
        @raise StoreError: nobody knows.
        """
        try:
            found = os.stat(self.store.path)
        except FileNotFoundError:
            self._stamp, self._serials = None, frozenset()
            return self._serials
        except OSError as error:
            problem = f"cannot read it: {error.strerror}"
            raise StoreError(self.store.path, problem) from error
        stamp = found.st_ino, found.st_mtime_ns, found.st_size
        if stamp != self._stamp:
            self._serials = self.store.listed().serials
            self._stamp = stamp
        return self._serials


def _listed(fields: dict[str, Any]) -> Listed:
    number, issued = fields["number"], fields["issued"]
    if type(number) is not int or not isinstance(issued, str):
        raise TypeError(number, issued)
    return Listed(number, issued, tuple(map(_entry, fields["entries"])))


def _entry(fields: Any) -> Entry:
    texts = {each.name: fields[each.name] for each in attrs.fields(Entry)}
    if not all(isinstance(text, str) for text in texts.values()):
        raise TypeError(texts)
    return Entry(**texts)
