# SPDX-License-Identifier: AGPL-3.0-only
"""
What became of runs: one file each, kept for a day (PROTOCOL.md section 4,
NEWER-LINE.md section 6.2); and a file for each key that was given with one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import attrs
from zope.interface import implementer

from ctrlexec.dispatcher.run_record import RunRecord as RunRecord
from ctrlexec.dispatcher.run_record import decode_run as decode_run
from ctrlexec.errors import InvalidValue, NotFound, ProtocolError, StoreError
from ctrlexec.files import (
    directory_lock,
    make_shared_directory,
    read_bounded,
    remove,
    write_atomic,
)
from ctrlexec.interfaces import IRunStore
from ctrlexec.protocol.fields import from_json, to_json
from ctrlexec.values import request_id

#: How long a record is kept, in seconds.
KEPT_SECONDS = 86_400
#: How large a record may be: the output of many hosts, and still no more than
#: a dispatcher can hold a few times over.
RECORD_BYTES = 256 * 2**20

_RECORD, _KEY = ".json", ".key"
# A record, and what a crash in the middle of writing one leaves.
_NAME = r"(?:[A-Za-z0-9_-]{1,64}\.json|[0-9a-f]{64}\.key)"
_FILE = re.compile(rf"{_NAME}|\.{_NAME}\.[0-9a-f]{{12}}\.tmp")
_HASH = re.compile("[0-9a-f]{64}")
_CLAIM_BYTES = 4096


@attrs.frozen
class KeyClaim:
    """
    What a key stands for that somebody has given with an order.

    @ivar reqid: of the run that it was.
    @ivar digest: of the order, so that another one is told from it.
    """

    reqid: str
    digest: str


@implementer(IRunStore)
@attrs.frozen
class FileRunStore:
    """
    The store of NEWER-LINE.md section 6.2.

    @ivar directory: where the records are; made when the first is written.
    @ivar most_bytes: how large a record may be.
    """

    directory: Path
    most_bytes: int = RECORD_BYTES

    def put(self, record: RunRecord) -> None:
        """
        See L{IRunStore.put}.
        """
        path, data = self._encoded(record)
        make_shared_directory(self.directory)
        with directory_lock(self.directory):
            write_atomic(path, data, group_of_directory=True)

    def change(
        self, reqid: str, change: Callable[[RunRecord], RunRecord], now: float
    ) -> RunRecord:
        """
        See L{IRunStore.change}.
        """
        # Where there is no directory to lock, there is no record.
        self.get(reqid, now)
        with directory_lock(self.directory):
            before = self.get(reqid, now)
            record = change(before)
            if record != before:
                path, data = self._encoded(record)
                write_atomic(path, data, group_of_directory=True)
        return record

    def claim(self, key: str, reqid: str, digest: str, now: float) -> KeyClaim:
        """
        See L{IRunStore.claim}.
        """
        path = self._key_path(key)
        make_shared_directory(self.directory)
        with directory_lock(self.directory):
            found = _claim_in(path, now)
            if found is not None:
                return found
            claim = KeyClaim(request_id(reqid), digest)
            data = to_json(attrs.asdict(claim)) + b"\n"
            write_atomic(path, data, group_of_directory=True)
        return claim

    def unclaim(self, key: str, reqid: str, now: float) -> None:
        """
        See L{IRunStore.unclaim}.
        """
        path = self._key_path(key)
        if not self.directory.is_dir():
            return
        with directory_lock(self.directory):
            found = _claim_in(path, now)
            if found is not None and found.reqid == reqid:
                remove(path)

    def get(self, reqid: str, now: float) -> RunRecord:
        """
        See L{IRunStore.get}.
        """
        path = self._path(reqid)
        try:
            if _is_expired(path.stat(), now):
                raise _not_found(reqid)
            return decode_run(path, read_bounded(path, self.most_bytes))
        except FileNotFoundError:
            raise _not_found(reqid) from None
        except OSError as error:
            raise StoreError(path, f"cannot read it: {error.strerror}") from error

    def sweep(self, now: float) -> int:
        """
        See L{IRunStore.sweep}. What is neither a record nor a part of one that
        a crash has left stays.
        """
        removed = 0
        try:
            with os.scandir(self.directory) as entries:
                for entry in entries:
                    # Somebody else may sweep, too.
                    with suppress(FileNotFoundError):
                        removed += _swept(entry, now)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise StoreError(
                self.directory, f"cannot tidy up in it: {error.strerror}"
            ) from error
        return removed

    def _too_large(self, path: Path) -> StoreError:
        return StoreError(path, f"would be larger than {self.most_bytes} bytes")

    def _encoded(self, record: RunRecord) -> tuple[Path, bytes]:
        path = self._path(record.reqid)
        # As JSON it is no shorter, and would take the memory once more.
        if _output_characters(record) > self.most_bytes:
            raise self._too_large(path)
        data = to_json(record.fields) + b"\n"
        if len(data) > self.most_bytes:
            raise self._too_large(path)
        return path, data

    def _path(self, reqid: str) -> Path:
        return self.directory / f"{request_id(reqid)}{_RECORD}"

    def _key_path(self, key: str) -> Path:
        if not _HASH.fullmatch(key):
            raise InvalidValue("key", key, "64 hex characters")
        return self.directory / f"{key}{_KEY}"


def _claim_in(path: Path, now: float) -> KeyClaim | None:
    """
    @return: C{None} where there is none, or none that can be read: a crash can
        not leave half of one, and whoever has made it unreadable has lost it.
    """
    try:
        if _is_expired(path.stat(), now):
            return None
        fields = from_json(read_bounded(path, _CLAIM_BYTES))
        return KeyClaim(request_id(str(fields.get("reqid"))), str(fields.get("digest")))
    except (FileNotFoundError, ProtocolError, InvalidValue):
        return None
    except OSError as error:
        raise StoreError(path, f"cannot read it: {error.strerror}") from error


def _output_characters(record: RunRecord) -> int:
    hosts = record.fields.get("hosts")
    entries = hosts.values() if isinstance(hosts, dict) else ()
    return sum(
        len(value)
        for result in (*record.fields.get("results", ()), *entries)
        if isinstance(result, dict)
        for value in result.values()
        if isinstance(value, str)
    )


def _swept(entry: os.DirEntry[str], now: float) -> bool:
    if not _FILE.fullmatch(entry.name) or not entry.is_file(follow_symlinks=False):
        return False
    if not _is_expired(entry.stat(), now):
        return False
    os.unlink(entry.path)
    return entry.name.endswith(_RECORD)


def _is_expired(about: os.stat_result, now: float) -> bool:
    return now - about.st_mtime >= KEPT_SECONDS


def _not_found(reqid: str) -> NotFound:
    return NotFound(f"no result for reqid {reqid}", hint="results are kept for a day")
