# SPDX-License-Identifier: AGPL-3.0-only
"""
Directories for runs that the store has no room for, in memory where there is such a
place: a host whose disk is full must still be able to run the script that clears
it. An agent that is started again finds them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import attrs

from ctrlexec.agent.run_records import RunRecord, running_record
from ctrlexec.agent.run_store import RunKey, read_record
from ctrlexec.agent.run_writing import write_pieces
from ctrlexec.errors import InvalidValue, StoreError
from ctrlexec.values import dispatcher_id

#: Where they may be.
MEMORY = ("/dev/shm", "/run", "/tmp")
_RECORD, _RUN = "record.json", "run"


@attrs.frozen
class Elsewhere:
    """
    @ivar store: the root of the store that they are in place of; there may be
        several agents on a host.
    """

    store: Path

    @property
    def _prefix(self) -> str:
        name = hashlib.sha256(os.fsencode(self.store)).hexdigest()
        return f"ctrl-exec-agent-{name[:16]}-"

    def begin(self, record: RunRecord) -> Path:
        """
        @param record: of the run.
        @return: its directory, which is empty, and nobody else's to read.
        @raise StoreError: there is room nowhere.
        """
        for parent in MEMORY:
            with suppress(OSError):
                return self._begun(record, parent)
        raise StoreError(self.store, "there is no room for a run there or elsewhere")

    def _begun(self, record: RunRecord, parent: str) -> Path:
        place = Path(tempfile.mkdtemp(prefix=self._prefix, dir=parent))
        try:
            (place / _RUN).mkdir(0o700)
            write_pieces(place / _RECORD, [running_record(record)], False)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        return place / _RUN

    def end(self, directory: Path) -> None:
        """
        Remove the directory of a run.
        """
        shutil.rmtree(directory.parent, ignore_errors=True)

    def left(self) -> Iterator[tuple[RunKey, RunRecord, Path]]:
        """
        The runs that are there, with their directories.
        """
        for parent in MEMORY:
            with suppress(OSError), os.scandir(parent) as entries:
                for entry in entries:
                    if entry.name.startswith(self._prefix) and _is_ours(entry):
                        yield from _read(Path(entry.path))


def _is_ours(entry: os.DirEntry[str]) -> bool:
    """
    Whether nobody else can have made it: everybody may make something there.
    """
    status = entry.stat(follow_symlinks=False)
    open_to_others = stat.S_IMODE(status.st_mode) & 0o077
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and not open_to_others
    )


def _read(place: Path) -> Iterator[tuple[RunKey, RunRecord, Path]]:
    with suppress(StoreError, InvalidValue):
        record = read_record(place / _RECORD)
        if record is not None and not record.ended:
            key = RunKey.of(dispatcher_id(record.owner), record.reqid)
            yield key, record, place / _RUN
