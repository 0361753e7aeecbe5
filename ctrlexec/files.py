# SPDX-License-Identifier: AGPL-3.0-only
"""
Files that are whole or not there: atomic writes, exclusive creation, locks.

A crash at any byte leaves the old record or the new one, never half of one,
and a file is never readable more widely than it will be, not for an instant.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ctrlexec.errors import StoreError

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_atomic(
    path: Path,
    data: bytes,
    mode: int = 0o640,
    *,
    group_of_directory: bool = False,
    keep_owner: bool = False,
) -> None:
    """
    Write a file whole: a temporary file beside it, fsync, rename, and fsync of
    the directory.

    @param mode: the permissions of the file, whatever the umask is.
    @param group_of_directory: let the directory's group have the file, where
        we may: what root stores there is for the service's user to read.
    @param keep_owner: let the file belong to whom the old one belongs, where
        there is one and we may.
    @raise StoreError: it could not be written; what was there stays.
    """
    with (
        _reported(path, "write"),
        _written_beside(path, data, mode, group_of_directory, keep_owner) as temporary,
    ):
        os.replace(temporary, path)
        _sync_directory(path.parent)


def create_exclusive(
    path: Path, data: bytes, mode: int = 0o640, *, group_of_directory: bool = False
) -> None:
    """
    Like L{write_atomic}, for a file that must not exist yet.

    @param group_of_directory: as for L{write_atomic}.
    @raise FileExistsError: there is one; it stays as it is.
    @raise StoreError: it could not be written.
    """
    with (
        _reported(path, "write", letting=(FileExistsError,)),
        _written_beside(path, data, mode, group_of_directory) as temporary,
    ):
        os.link(temporary, path, follow_symlinks=False)
        _sync_directory(path.parent)


def sweep(path: Path) -> None:
    """
    Remove what a crash in the middle of L{write_atomic} has left beside a
    file. For whoever holds the lock under which the file is written.

    @raise StoreError: it could not be removed.
    """
    left = re.compile(rf"{re.escape(_beside(path.name))}[0-9a-f]{{12}}\.tmp")
    with _reported(path.parent, "tidy up in"):
        for found in tuple(path.parent.iterdir()):
            if left.fullmatch(found.name):
                found.unlink(missing_ok=True)


def remove(path: Path) -> bool:
    """
    Remove a file for good.

    @return: whether there was one.
    @raise StoreError: it is there and can not be removed.
    """
    with _reported(path, "remove"):
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        _sync_directory(path.parent)
        return True


def make_directory(path: Path, mode: int = 0o770) -> None:
    """
    Make a directory, and those above it that are missing, unless it is there.

    @param mode: the permissions of what is made, within the umask.
    @raise StoreError: it could not be made.
    """
    with _reported(path, "make the directory"):
        # Path.mkdir would make those above it with permissions of its own.
        for directory in (*reversed(path.parents), path):
            if not directory.is_dir():
                directory.mkdir(mode=mode, exist_ok=True)


def make_shared_directory(path: Path) -> None:
    """
    Make a directory for the group that has the one above it, unless it is
    there: whichever of its users comes first, the others can use it.

    @raise StoreError: it could not be made.
    """
    if path.is_dir():
        return
    make_directory(path.parent)
    with _reported(path, "make the directory"):
        path.mkdir(0o700, exist_ok=True)
        # Who may not was not the first.
        with suppress(PermissionError):
            os.chown(path, -1, path.parent.stat().st_gid)
            path.chmod(0o2770)


def can_write(directory: Path) -> bool:
    """
    Whether files can be made in a directory. Found out by making one: what the
    permissions say is not all, a file system can be read-only.
    """
    try:
        with _written_beside(directory / "probe", b"", 0o600):
            return True
    except OSError:
        return False


def read_bounded(path: Path, most: int) -> bytes:
    """
    @param most: how many bytes the file may have.
    @raise FileNotFoundError: there is no such file.
    @raise StoreError: it is larger, is no regular file, or can not be read.
    """
    with _reported(path, "read", letting=(FileNotFoundError,)):
        # A pipe or a device under this name must not block or feed us.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise StoreError(path, "is not a regular file")
            with os.fdopen(descriptor, "rb", closefd=False) as source:
                data = source.read(most + 1)
        finally:
            os.close(descriptor)
    if len(data) > most:
        raise StoreError(path, f"is larger than {most} bytes")
    return data


@contextmanager
def exclusive_lock(path: Path, *, shared: bool = False) -> Iterator[None]:
    """
    Hold the C{flock} of a file, which is made if it is missing. A process that
    dies lets go of it.

    @param shared: let the directory's group use the file, too, where we may.
    @raise StoreError: the file can not be opened.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with _flocked(path, flags) as descriptor:
        if shared:
            with suppress(PermissionError):
                os.fchown(descriptor, -1, path.parent.stat().st_gid)
                os.fchmod(descriptor, 0o660)
        yield


@contextmanager
def directory_lock(path: Path) -> Iterator[None]:
    """
    Hold the C{flock} of a directory. It takes no file, so whichever user came
    first leaves nothing behind that another could not open.

    @raise StoreError: the directory can not be opened.
    """
    with _flocked(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC):
        yield


def why_not_executable(path: Path) -> str | None:
    """
    What stands in the way of executing a file now, as far as one can see
    without trying.

    @return: a few words for the operator, or C{None}.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return error.strerror or str(error)
    if stat.S_ISDIR(mode):
        return "Is a directory"
    if not stat.S_ISREG(mode):
        return "Not a regular file"
    if not os.access(path, os.X_OK):
        return "Not executable"
    return None


@contextmanager
def _flocked(path: Path, flags: int) -> Iterator[int]:
    with _reported(path, "lock"):
        descriptor = os.open(path, flags, 0o660)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _written_beside(
    path: Path,
    data: bytes,
    mode: int,
    group_of_directory: bool = False,
    keep_owner: bool = False,
) -> Iterator[Path]:
    temporary = path.with_name(f"{_beside(path.name)}{os.urandom(6).hex()}.tmp")
    descriptor = os.open(temporary, _NEW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as target:
            target.write(data)
            target.flush()
            if group_of_directory:
                with suppress(PermissionError):
                    os.fchown(target.fileno(), -1, path.parent.stat().st_gid)
            if keep_owner:
                with suppress(PermissionError, FileNotFoundError):
                    old = path.stat()
                    os.fchown(target.fileno(), old.st_uid, old.st_gid)
            os.fchmod(target.fileno(), mode)
            os.fsync(target.fileno())
        yield temporary
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _beside(name: str) -> str:
    # The whole of a long name would leave no room for the rest.
    return f".{name[:100]}."


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _reported(
    path: Path, verb: str, *, letting: tuple[type[OSError], ...] = ()
) -> Iterator[None]:
    try:
        yield
    except letting:
        raise
    except OSError as error:
        raise StoreError(path, f"cannot {verb} it: {error.strerror}") from error
