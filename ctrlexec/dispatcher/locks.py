# SPDX-License-Identifier: AGPL-3.0-only
"""
Which scripts run where: C{host:script} is locked for as long as it runs there.

A lock is the C{flock} of a file (PROTOCOL.md section 4), so a dispatcher that
dies lets go of all that it has locked, and an original one is kept out as it
keeps us out. The files are never removed: who had just opened one would lock a
file that nobody else finds any more.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import stat
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

import attrs
from zope.interface import implementer

from ctrlexec.dispatcher.lock_files import (
    PROC_LOCKS,
    SUFFIX,
    LockState,
    file_name,
    line_of,
    locked_files,
    state_of,
)
from ctrlexec.errors import StoreError
from ctrlexec.events import brief
from ctrlexec.files import directory_lock, make_shared_directory
from ctrlexec.interfaces import ILocks
from ctrlexec.values import iso_time

__all__ = ["Busy", "FileLocks", "Held", "Holder", "LockState"]

#: How many descriptors are left for all else that a dispatcher does.
_SPARE = 512
_ALL = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_OURS = os.O_RDWR | os.O_CREAT | _ALL
_THEIRS = os.O_RDONLY | _ALL


def _now() -> datetime:
    return datetime.now(timezone.utc)


@attrs.frozen
class Holder:
    """
    For whom a script is locked.

    @ivar reqid: of the run.
    @ivar user: who asked for it.
    """

    script: str
    reqid: str
    user: str


@attrs.frozen
class Busy:
    """
    The script is locked already, and nothing was locked now.

    @ivar conflicts: where, as C{"HOST:SCRIPT"}, sorted.
    """

    conflicts: tuple[str, ...]


class Held:
    """
    Locks that were taken. They are free again once nobody knows this any more:
    who was waiting for them may have left.
    """

    def __init__(
        self, files: Mapping[str, str], descriptors: Mapping[str, int]
    ) -> None:
        """
        @param files: what the lock's file is called, by host; two hosts can
            have one.
        @param descriptors: what holds its lock, by that name.
        """
        self._files = dict(files)
        self._descriptors = dict(descriptors)
        self._hosts = Counter(files.values())

    @property
    def hosts(self) -> tuple[str, ...]:
        """
        Where the script is still locked.
        """
        return tuple(self._files)

    def release(self, *hosts: str) -> tuple[str, ...]:
        """
        Let go of the locks on some hosts.

        @return: the hosts where there was one.
        """
        released = tuple(host for host in hosts if host in self._files)
        for host in released:
            file = self._files.pop(host)
            self._hosts[file] -= 1
            if not self._hosts[file]:
                _let_go(self._descriptors.pop(file))
        return released

    def __del__(self) -> None:
        # No more than that: in a forked child, the locks are its parent's.
        self._files.clear()
        # Who lets go of them later must not close what is somebody else's then.
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])


@implementer(ILocks)
@attrs.frozen
class FileLocks:
    """
    The locks of PROTOCOL.md section 4.

    @ivar directory: where the files are; made when the first is.
    @ivar now: the time, aware of its zone.
    @ivar proc_locks: where the system tells of all locks.
    """

    directory: Path
    now: Callable[[], datetime] = _now
    proc_locks: Path = PROC_LOCKS

    def take(self, hosts: Sequence[str], holder: Holder) -> Held | Busy:
        """
        See L{ILocks.take}.
        """
        files = {host: file_name(host, holder.script) for host in sorted(hosts)}
        make_shared_directory(self.directory)
        # One at a time: what somebody only tries turns nobody else away.
        with directory_lock(self.directory):
            taken = self._take(files)
        if isinstance(taken, str):
            return self._busy(files, taken, holder.script)
        self._label(files, taken, holder)
        return Held(files, taken)

    def listed(self) -> Sequence[LockState]:
        """
        See L{ILocks.listed}.
        """
        try:
            locked = self._locked()
        except OSError as error:
            raise StoreError(
                self.directory, f"cannot list it: {error.strerror}"
            ) from error
        states = [state_of(self.directory / name, pid) for name, pid in locked.items()]
        return sorted(states, key=lambda state: (state.host, state.script))

    def _take(self, files: Mapping[str, str]) -> dict[str, int] | str:
        """
        @return: what holds each lock, by the name of its file; or the first
            host where somebody else has it, and nothing is held.
        """
        taken: dict[str, int] = {}
        try:
            for host, file in files.items():
                if file in taken:
                    continue
                descriptor = _locked(f"{self.directory}/{file}")
                if descriptor is None:
                    _let_go(*taken.values())
                    return host
                taken[file] = descriptor
        except BaseException:
            _let_go(*taken.values())
            raise
        return taken

    def _label(
        self, files: Mapping[str, str], taken: Mapping[str, int], holder: Holder
    ) -> None:
        """
        Write down whose locks they are. They are no worse if that fails.
        """
        since = iso_time(self.now())
        user, pid = brief(holder.user), os.getpid()
        for host, file in files.items():
            state = LockState(host, holder.script, pid, user, holder.reqid, since)
            with suppress(OSError):
                os.pwrite(taken[file], line_of(state), 0)

    def _busy(self, files: Mapping[str, str], first: str, script: str) -> Busy:
        """
        Where else there is a lock is looked up: to try would be to turn
        somebody away who may have it.
        """
        locked: Mapping[str, int | None] = {}
        with suppress(OSError):
            locked = locked_files(self.directory, self._told)
        there = {host for host, file in files.items() if file in locked}
        return Busy(tuple(f"{host}:{script}" for host in sorted({first, *there})))

    def _locked(self) -> Mapping[str, int | None]:
        if not self.directory.exists():
            return {}
        if self.proc_locks.exists():
            return locked_files(self.directory, self._told)
        # Where the system does not tell, there is nothing but to try.
        names = (path.name for path in self.directory.glob(f"*{SUFFIX}"))
        return {name: None for name in names if self._is_locked(name)}

    def _is_locked(self, name: str) -> bool:
        descriptor = os.open(self.directory / name, _THEIRS)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _told(self) -> str:
        return self.proc_locks.read_text("utf-8")


def _locked(path: str) -> int | None:
    """
    @return: what holds the lock, unless somebody else does.
    @raise StoreError: it can not be had.
    """
    try:
        descriptor = _opened(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
    except BlockingIOError:
        return None
    except OSError as error:
        raise _unusable(Path(path), error) from error
    _make_room(descriptor)
    return descriptor


def _opened(path: str) -> int:
    """
    @raise OSError: it can not be opened, or is no file.
    """
    try:
        descriptor = os.open(path, _OURS, 0o660)
    except PermissionError as denied:
        # One of root's, by an original: to lock it, reading is enough.
        try:
            descriptor = os.open(path, _THEIRS)
        except FileNotFoundError:
            raise denied from None
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "Not a regular file")
    if about.st_mode & 0o777 != 0o660 and about.st_uid == os.geteuid():
        os.fchmod(descriptor, 0o660)
    return descriptor


def _make_room(descriptor: int) -> None:
    """
    Raise the soft limit of descriptors when it comes near.

    @param descriptor: the newest: it is the lowest number that was free.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard and descriptor + _SPARE > soft:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _let_go(*descriptors: int) -> None:
    for descriptor in descriptors:
        with suppress(OSError):
            # What it says is not true any more.
            os.pwrite(descriptor, b"\n", 0)
        with suppress(OSError):
            # A child that is just being started has it, too.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _unusable(path: Path, error: OSError) -> StoreError:
    hint = ""
    match error.errno:
        case errno.EMFILE | errno.ENFILE:
            hint = "each host takes a descriptor: see ulimit -n, or LimitNOFILE="
        case errno.ENOSPC | errno.EDQUOT:
            hint = "the disk is full"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            hint = "who runs scripts must be able to write there"
    return StoreError(path, f"cannot lock it: {error.strerror}", hint=hint)
