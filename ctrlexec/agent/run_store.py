# SPDX-License-Identifier: AGPL-3.0-only
"""
Where what becomes of runs is kept: a directory for each dispatcher, in it a record
for each of its runs, and beside that, while it lives, the run's own directory
(NEWER-LINE.md section 6.1).

A record is there before its script is started, and it is the claim to the
request's id: whoever comes second finds it. All of this may wait for the disk.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock

import attrs

from ctrlexec.agent.keeper.orders import ENDING
from ctrlexec.agent.run_records import (
    HEAD_BYTES,
    PIECE_BYTES,
    RunRecord,
    head_of,
    parse_record,
    running_record,
)
from ctrlexec.agent.run_writing import reported, spelled, write_pieces
from ctrlexec.agent.runs import STDERR, STDOUT
from ctrlexec.errors import InvalidValue, ProtocolError, StoreError
from ctrlexec.files import make_directory
from ctrlexec.values import dispatcher_id

#: How large a record of the original may be that we read.
FOREIGN_BYTES = 64 * 2**20
RECORD, RUN = ".json", ".run"
#: How long it may take at the most to write a record.
DATED_SECONDS = 60.0
_LOCKS = ".locks"
#: A reqid, or what stands for one in the name of a file.
_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}|\.[0-9a-f]{16}")
#: What there is in the directory of most runs that have ended.
_USUAL = (STDOUT, STDERR, ENDING)
#: What L{write_pieces} writes to.
_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{12}\.tmp")


@attrs.frozen
class RunKey:
    """
    Which run.

    @ivar owner: the id of the dispatcher that has asked for it.
    @ivar name: its reqid; for one that has none, something that no reqid is.
    """

    owner: str
    name: str

    @classmethod
    def of(cls, owner: str, reqid: str) -> RunKey:
        """
        @param reqid: empty for one that is to have none.
        """
        return cls(owner, reqid or f".{os.urandom(8).hex()}")


@attrs.frozen
class Finished:
    """
    A run that has ended, and where that is written down.

    @ivar path: the whole record.
    @ivar directory: where the output is as it was written, for one that the
        record only has with replacements; C{None} where the record is exact.
    """

    record: RunRecord
    path: Path
    directory: Path | None = None


@attrs.frozen
class RunStore:
    """
    @ivar root: C{async_runs_dir}; made when it is needed.
    """

    root: Path
    lock: Lock = attrs.field(factory=Lock)

    def record_path(self, key: RunKey) -> Path:
        """
        Where the record of a run is, if there is one.
        """
        return self.root / key.owner / f"{key.name}{RECORD}"

    def directory(self, key: RunKey) -> Path:
        """
        The run's own directory.
        """
        return self.root / key.owner / f"{key.name}{RUN}"

    def lock_path(self, name: str) -> Path:
        """
        The file that is locked while a run has the lock of a name. It stays.

        @raise StoreError: there is no directory for it.
        """
        make_directory(self.root / _LOCKS, 0o750)
        return self.root / _LOCKS / f"{name}.lock"

    def has(self, key: RunKey) -> bool:
        """
        Whether a run was claimed. It asks for one file, and does not wait.
        """
        return os.path.lexists(self.record_path(key))

    def is_anothers(self, key: RunKey) -> bool:
        """
        Whether there is a run of the same id that another dispatcher owns.
        """
        return any(
            owner != key.owner and self.has(RunKey(owner, key.name))
            for owner in self.owners()
        )

    def claim(self, key: RunKey, record: RunRecord, *, durable: bool) -> Path | None:
        """
        Write the record of a run that is about to begin, unless there is one.
        Nobody else may claim the same at this moment.

        @param durable: it must outlive the machine.
        @return: its own directory, which is empty; C{None} where its id has been
            used.
        @raise StoreError: it could not be written; there is no claim.
        """
        path, directory = self.record_path(key), self.directory(key)
        with reported(path):
            with self.lock:
                if self.has(key):
                    return None
                _make_empty(directory)
            try:
                write_pieces(path, [running_record(record)], durable)
            except BaseException:
                # It may be there, where only the disk did not confirm it.
                self.give_up(key)
                raise
        return directory

    def give_up(self, key: RunKey) -> None:
        """
        Forget a run: it was not started after all, or nobody can ask for it.
        """
        with self.lock:
            self._remove(key)

    def forget(self, key: RunKey, changed: float) -> bool:
        """
        Forget a run, if nothing has become of it since.

        @param changed: its time, as L{changed} had it.
        @return: whether that was so.
        """
        with self.lock, suppress(OSError):
            if self.changed(key) == changed:
                self._remove(key)
                return True
        return False

    def changed(self, key: RunKey) -> float:
        """
        @return: when something became of a run; unix seconds.
        @raise FileNotFoundError: there is nothing of it.
        """
        try:
            return self.record_path(key).stat().st_mtime
        except FileNotFoundError:
            # Its record is about to be written, or a crash came first.
            return self.directory(key).stat().st_mtime

    def was_dated(self, key: RunKey) -> bool:
        """
        @return: whether somebody has set the date of a record, later.
        @raise FileNotFoundError: there is none.
        """
        status = self.record_path(key).stat()
        return status.st_ctime - status.st_mtime > DATED_SECONDS

    def _remove(self, key: RunKey) -> None:
        with suppress(OSError):
            self.record_path(key).unlink()
        self.clear(key)

    def clear(self, key: RunKey) -> None:
        """
        Remove the directory of a run, of which the record says everything.
        """
        remove_run(self.directory(key))

    def finish(
        self, key: RunKey, record: RunRecord, directory: Path, *, durable: bool
    ) -> Finished:
        """
        Write the record of a run that has ended.

        @param directory: where its output is.
        @raise StoreError: it could not be written; what was there stays.
        """
        path = self.record_path(key)
        with reported(path), spelled(record, directory) as ended:
            write_pieces(path, ended.pieces, durable)
        return Finished(ended.record, path, None if ended.exact else directory)

    def found(self, key: RunKey, record: RunRecord) -> Finished:
        """
        A run that has ended, as it is here.
        """
        directory = self.directory(key)
        left = directory if directory.is_dir() else None
        return Finished(record, self.record_path(key), left)

    def save(self, key: RunKey, written: Path) -> Path:
        """
        Take in a record that was written elsewhere.

        @return: where it is now.
        @raise StoreError: there is still no room for it.
        """
        path = self.record_path(key)
        with reported(path), written.open("rb") as source:
            write_pieces(path, iter(lambda: source.read(PIECE_BYTES), b""), True)
        return path

    def read(self, key: RunKey) -> RunRecord | None:
        """
        @return: what the record of a run says; C{None} where there is none.
        @raise StoreError: there is, and it can not be read.
        """
        return read_record(self.record_path(key))

    def running(self) -> Iterator[tuple[RunKey, RunRecord, Path]]:
        """
        The runs that an agent of ours has begun, and whose end is not written
        down, with their directories.
        """
        for owner in self.owners():
            for name in self.names(owner, RECORD):
                key = RunKey(owner, name)
                with suppress(StoreError):
                    record = self.read(key)
                    if record and record.digest and not record.ended:
                        yield key, record, self.directory(key)

    def tidy(self) -> None:
        """
        Remove what an agent that was killed has left of files that it was writing.
        Nobody may be writing one now.
        """
        for directory in (self.root, *(self.root / name for name in self.owners())):
            with suppress(OSError), os.scandir(directory) as entries:
                for entry in entries:
                    if _TEMPORARY.fullmatch(entry.name):
                        with suppress(OSError):
                            os.unlink(entry.path)

    def owners(self) -> Iterator[str]:
        """
        The dispatchers that have a directory here.
        """
        with suppress(OSError):
            for name in sorted(os.listdir(self.root)):
                with suppress(InvalidValue):
                    yield dispatcher_id(name)

    def names(self, owner: str, kind: str) -> Iterator[str]:
        """
        The names of an owner's runs that have something of a kind: a L{RECORD}
        or a directory (L{RUN}).
        """
        with suppress(OSError):
            for name in os.listdir(self.root / owner):
                stem = name.removesuffix(kind)
                if stem != name and _KEY.fullmatch(stem):
                    yield stem


def remove_run(directory: Path) -> None:
    """
    Remove the directory of a run, whatever is in it.
    """
    try:
        place = os.open(directory, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY)
        try:
            for name in _USUAL:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=place)
        finally:
            os.close(place)
        os.rmdir(directory)
    except OSError:
        shutil.rmtree(directory, ignore_errors=True)


def _make_empty(directory: Path) -> None:
    """
    Make the directory of a run.
    """
    try:
        directory.mkdir(0o700)
    except FileNotFoundError:
        make_directory(directory.parent, 0o750)
        directory.mkdir(0o700)
    except FileExistsError:
        # A crash can have left it.
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(0o700)


def read_record(path: Path) -> RunRecord | None:
    """
    See L{RunStore.read}. Only of a record of the original everything is read.
    """
    try:
        with path.open("rb") as file:
            head = head_of(file.read(HEAD_BYTES))
            if head is None:
                file.seek(0)
                head = file.read(FOREIGN_BYTES)
        return parse_record(head)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(path, f"cannot read it: {error.strerror}") from error
    except ProtocolError as error:
        raise StoreError(path, f"is not a run's record: {error}") from error
