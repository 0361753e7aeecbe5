# SPDX-License-Identifier: AGPL-3.0-only
"""
Writing the records of runs: piece by piece, whole or not at all, and in memory
where the disk has no room.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import attrs

from ctrlexec.agent.run_output import STREAMS, FileOutput
from ctrlexec.agent.run_records import (
    OutputText,
    RunRecord,
    ended_record,
    spelled_output,
    whole_bytes,
)
from ctrlexec.errors import StoreError
from ctrlexec.files import make_directory

_OPEN = "/proc/self/fd/"


@attrs.define
class Spelled:
    """
    The whole record of a run that has ended, as it will be written.

    @ivar record: with what is kept of the output counted.
    @ivar pieces: of the record, each of which is there once.
    """

    record: RunRecord
    pieces: Iterator[bytes]
    _texts: tuple[OutputText, ...]

    @property
    def exact(self) -> bool:
        """
        Whether the output is in it just as it was written; known at the end.
        """
        return all(text.exact for text in self._texts)


@contextmanager
def spelled(
    record: RunRecord,
    directory: Path,
    most_bytes: int | None = None,
    sharing: bool = False,
) -> Iterator[Spelled]:
    """
    Spell the record of a run that has ended.

    @param directory: where its output is.
    @param most_bytes: how much of each output is kept; C{None} for all that is
        there.
    @param sharing: see L{write_in_memory}.
    @raise OSError: the output can not be read.
    """
    readers = [_reader(directory / name) for name in STREAMS]
    try:
        record = _counted(record, readers, most_bytes, sharing)
        texts = tuple(OutputText(name) for name in STREAMS)
        reads = (reader.read for reader in readers)
        before, after = ended_record(record)
        outputs = spelled_output(record, list(zip(texts, reads, strict=True)))
        yield Spelled(record, chain([before], outputs, [after]), texts)
    finally:
        for reader in readers:
            reader.close()


def write_in_memory(
    record: RunRecord, directory: Path, most_bytes: int, sharing: bool = False
) -> tuple[RunRecord, Path]:
    """
    Write the record of a run that has ended where no store is needed: in the
    memory of this machine, for as long as somebody has it open.

    @param sharing: the record is to find room where the output is now. So a third
        is kept of one that was cut already, and that may be what fills the disk.
    @return: the record, and where it is; it is open, until L{forget_in_memory}.
    @raise OSError: there is no memory for it, or the output can not be read.
    """
    descriptor = os.memfd_create("run-record", os.MFD_CLOEXEC)
    try:
        with (
            spelled(record, directory, most_bytes, sharing) as ended,
            os.fdopen(descriptor, "wb", closefd=False) as target,
        ):
            for piece in ended.pieces:
                target.write(piece)
    except BaseException:
        os.close(descriptor)
        raise
    return ended.record, open_path(descriptor)


def open_path(descriptor: int) -> Path:
    """
    @return: where a file is that we have open, wherever else it is or was; only
        for as long.
    """
    return Path(f"{_OPEN}{descriptor}")


def forget_in_memory(path: Path) -> None:
    """
    Nobody will ask for a record in memory any more.
    """
    os.close(int(str(path).removeprefix(_OPEN)))


def shorten(directory: Path, record: RunRecord) -> bool:
    """
    Cut what a run has written to what its record has of it.

    @param directory: where its output is.
    @return: whether there is more room now.
    """
    shorter = False
    for name in STREAMS:
        with suppress(OSError):
            flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            descriptor = os.open(directory / name, flags)
            try:
                kept = record.kept(name)
                if os.fstat(descriptor).st_size > kept:
                    os.ftruncate(descriptor, kept)
                    shorter = True
            finally:
                os.close(descriptor)
    return shorter


def _reader(path: Path) -> FileOutput:
    try:
        return FileOutput.open(path)
    except (FileNotFoundError, NotADirectoryError):
        # It did not get as far as that.
        return FileOutput(-1, most=0)


def _counted(
    record: RunRecord,
    readers: Iterable[FileOutput],
    most_bytes: int | None,
    sharing: bool,
) -> RunRecord:
    """
    See to it that what is kept of each output, and how much there was, is what
    the record says.
    """
    counts: dict[str, Any] = {}
    for name, reader in zip(STREAMS, readers, strict=True):
        size = os.fstat(reader.descriptor).st_size if reader.most is None else 0
        total = max(record.total(name), size)
        if sharing and total > size:
            size //= 3
        size = size if most_bytes is None else min(size, most_bytes)
        tail = os.pread(reader.descriptor, 3, max(size - 3, 0)) if size else b""
        reader.most = size
        kept = whole_bytes(tail, size, total)
        counts |= {f"{name}_bytes": total, f"{name}_kept": kept}
    return attrs.evolve(record, **counts)


def write_pieces(path: Path, pieces: Iterable[bytes], durable: bool) -> None:
    """
    Write a file whole, or leave what is there. Its directory is made if it is
    missing.

    @param durable: it is on the disk when this returns. A run that somebody
        waits for needs less: should its host lose power, it is lost with it.
    @raise OSError: it could not be written.
    @raise StoreError: nor could its directory be made.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}.tmp")
    try:
        with os.fdopen(_made(temporary), "wb") as target:
            for piece in pieces:
                target.write(piece)
            target.flush()
            os.fchmod(target.fileno(), 0o640)
            if durable:
                os.fsync(target.fileno())
        os.replace(temporary, path)
        if durable:
            _sync(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _made(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        # To look for the directory each time would cost more than to write.
        make_directory(path.parent, 0o750)
        return os.open(path, flags, 0o600)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def reported(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(path, f"cannot write it: {error.strerror}") from error
