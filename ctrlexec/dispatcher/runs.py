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

from ctrlexec.dispatcher.jumps import Up, read_jumps, uptime, write_jumps
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
_FILE = re.compile(rf"{_NAME}|\.(?:{_NAME}|\.clock)\.[0-9a-f]{{12}}\.tmp")
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
    @ivar up: for how long the host is up: a clock that is set forward takes no
        record away before its day is over.
    """

    directory: Path
    most_bytes: int = RECORD_BYTES
    up: Up = uptime

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
            path = self._path(reqid)
            if record != before:
                path, data = self._encoded(record)
                write_atomic(path, data, group_of_directory=True)
            elif not record.complete:
                _touch(path, now)
        return record

    def claimed(self, key: str, now: float) -> KeyClaim | None:
        """
        See L{IRunStore.claimed}.
        """
        path = self._key_path(key)
        found = _claim_in(path)
        if found is None:
            return None
        is_expired = self._expiry(now)
        try:
            # If somebody has removed the record nothing would come of the key.
            files = (path, self._path(found.reqid))
            expired = any(is_expired(each.stat()) for each in files)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(path, f"cannot read it: {error.strerror}") from error
        return None if expired else found

    def claim(self, key: str, digest: str, record: RunRecord, now: float) -> KeyClaim:
        """
        See L{IRunStore.claim}.
        """
        key_path = self._key_path(key)
        path, data = self._encoded(record)
        claim = KeyClaim(record.reqid, digest)
        make_shared_directory(self.directory)
        with directory_lock(self.directory):
            self._note_clock(now)
            found = self.claimed(key, now)
            if found is not None:
                return found
            # In this order: what a crash leaves is a run that nobody was asked
            # for, and the key is free.
            write_atomic(path, data, group_of_directory=True)
            try:
                data = to_json(attrs.asdict(claim)) + b"\n"
                write_atomic(key_path, data, group_of_directory=True)
            except StoreError:
                remove(path)
                raise
        return claim

    def get(self, reqid: str, now: float) -> RunRecord:
        """
        See L{IRunStore.get}.
        """
        path = self._path(reqid)
        try:
            if self._expiry(now)(path.stat()):
                raise _not_found(reqid)
            return decode_run(path, read_bounded(path, self.most_bytes))
        except FileNotFoundError:
            raise _not_found(reqid) from None
        except OSError as error:
            raise StoreError(path, f"cannot read it: {error.strerror}") from error

    def version(self, reqid: str) -> str:
        """
        See L{IRunStore.version}.
        """
        try:
            about = self._path(reqid).stat()
        except OSError:
            return ""
        # It is written beside the old one, which is there until then.
        return f"{about.st_ino}.{about.st_mtime_ns}"

    def sweep(self, now: float) -> int:
        """
        See L{IRunStore.sweep}. What is neither a record nor a part of one that
        a crash has left stays.
        """
        removed = 0
        if self.directory.is_dir():
            self._note_clock(now)
        is_expired = self._expiry(now)
        try:
            with os.scandir(self.directory) as entries:
                for entry in entries:
                    # Somebody else may sweep, too.
                    with suppress(FileNotFoundError):
                        removed += _swept(entry, is_expired)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise StoreError(
                self.directory, f"cannot tidy up in it: {error.strerror}"
            ) from error
        return removed

    # --- time ------------------------------------------------------------

    def _expiry(self, now: float) -> Callable[[os.stat_result], bool]:
        """
        @return: whether what is in a file is forgotten.
        """
        jumps = read_jumps(self.directory).at(now, self.up(), KEPT_SECONDS)
        return lambda about: jumps.age(about.st_mtime, now) >= KEPT_SECONDS

    def _note_clock(self, now: float) -> None:
        """
        Whoever comes later is to know whether the clock has jumped meanwhile.
        """
        known = read_jumps(self.directory)
        jumps = known.at(now, self.up(), KEPT_SECONDS)
        if jumps != known:
            # Without it, all is as the clock says.
            with suppress(StoreError):
                write_jumps(self.directory, jumps)

    # --- files -----------------------------------------------------------

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


def _claim_in(path: Path) -> KeyClaim | None:
    """
    @return: C{None} where there is none, or none that can be read: a crash can
        not leave half of one, and whoever has made it unreadable has lost it.
    """
    try:
        fields = from_json(read_bounded(path, _CLAIM_BYTES))
        return KeyClaim(request_id(str(fields.get("reqid"))), str(fields.get("digest")))
    except (FileNotFoundError, ProtocolError, InvalidValue):
        return None
    except OSError as error:
        raise StoreError(path, f"cannot read it: {error.strerror}") from error


def _touch(path: Path, now: float) -> None:
    """
    A record that somebody still asks about, and is waited for, lives on.
    """
    try:
        os.utime(path, (now, now))
    except OSError as error:
        raise StoreError(path, f"cannot write it: {error.strerror}") from error


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


def _swept(
    entry: os.DirEntry[str], is_expired: Callable[[os.stat_result], bool]
) -> bool:
    if not _FILE.fullmatch(entry.name) or not entry.is_file(follow_symlinks=False):
        return False
    if not is_expired(entry.stat()):
        return False
    os.unlink(entry.path)
    return entry.name.endswith(_RECORD)


def _not_found(reqid: str) -> NotFound:
    return NotFound(f"no result for reqid {reqid}", hint="results are kept for a day")
