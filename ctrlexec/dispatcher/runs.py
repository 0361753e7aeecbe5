# SPDX-License-Identifier: AGPL-3.0-only
"""
What became of runs: one file each, kept for a day (PROTOCOL.md section 4,
NEWER-LINE.md section 6.2).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
from zope.interface import implementer

from ctrlexec.errors import NotFound, ProtocolError, StoreError
from ctrlexec.files import make_shared_directory, read_bounded, write_atomic
from ctrlexec.interfaces import IRunStore
from ctrlexec.protocol.fields import from_json, to_json
from ctrlexec.values import Submitter, request_id

#: How long a record is kept, in seconds.
KEPT_SECONDS = 86_400
#: How large a record may be: the output of many hosts, and still no more than
#: a dispatcher can hold a few times over.
RECORD_BYTES = 256 * 2**20

_RECORD = ".json"
# A record, and what a crash in the middle of writing one leaves.
_FILE = re.compile(
    r"[A-Za-z0-9_-]{1,64}\.json|\.[A-Za-z0-9_-]{1,64}\.json\.[0-9a-f]{12}\.tmp"
)


@attrs.frozen
class RunRecord:
    """
    What became of a run.

    @ivar hosts: where it went, as whoever asked has named them.
    @ivar submitter: who asked for it, where that was written down.
    @ivar fields: the whole record, as JSON spells it.
    """

    reqid: str
    script: str
    hosts: tuple[str, ...]
    submitter: Submitter | None
    fields: Mapping[str, Any]

    @classmethod
    def sync(
        cls,
        *,
        reqid: str,
        script: str,
        hosts: tuple[str, ...],
        results: Sequence[Mapping[str, Any]],
        completed: int,
        submitter: Submitter | None,
    ) -> RunRecord:
        """
        The record of a run that was waited for.

        @param results: of each host, as JSON spells it.
        @param completed: unix seconds.
        """
        fields: dict[str, Any] = {
            "reqid": reqid,
            "script": script,
            "mode": "sync",
            "hosts": list(hosts),
            "results": list(results),
            "completed": completed,
            "complete": True,
        }
        if submitter is not None:
            fields["submitter"] = attrs.asdict(submitter)
        return cls(reqid, script, hosts, submitter, fields)

    def answer(self) -> dict[str, Any]:
        """
        @return: what the API tells of it: who asked is nobody else's business.
        """
        return {name: v for name, v in self.fields.items() if name != "submitter"}


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
        path = self._path(record.reqid)
        # As JSON it is no shorter, and would take the memory once more.
        if _output_characters(record) > self.most_bytes:
            raise self._too_large(path)
        data = to_json(record.fields) + b"\n"
        if len(data) > self.most_bytes:
            raise self._too_large(path)
        make_shared_directory(self.directory)
        write_atomic(path, data, group_of_directory=True)

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

    def _path(self, reqid: str) -> Path:
        return self.directory / f"{request_id(reqid)}{_RECORD}"


def _output_characters(record: RunRecord) -> int:
    return sum(
        len(value)
        for result in record.fields.get("results", ())
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


def decode_run(path: Path, data: bytes) -> RunRecord:
    """
    @param path: the record's file, which is named after the request id.
    @raise StoreError: the file holds no record, or another one.
    """
    try:
        fields = from_json(data)
    except ProtocolError:
        raise StoreError(path, "is cut off, or was not written by us") from None
    if fields.get("reqid") != path.stem:
        raise StoreError(path, "is not the record that it is named after")
    script = fields.get("script")
    hosts = fields.get("hosts")
    # An async record has an object here: what became of each host.
    if not isinstance(hosts, list | dict) or not isinstance(script, str):
        raise StoreError(path, "does not say which script ran where")
    return RunRecord(
        reqid=path.stem,
        script=script,
        hosts=tuple(str(host) for host in hosts),
        submitter=_submitter(fields.get("submitter")),
        fields=fields,
    )


def _submitter(value: object) -> Submitter | None:
    if not isinstance(value, dict):
        return None
    name, address = value.get("username"), value.get("source_ip")
    return Submitter(
        name if isinstance(name, str) else "",
        address if isinstance(address, str) else "",
    )
