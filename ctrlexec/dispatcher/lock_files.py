# SPDX-License-Identifier: AGPL-3.0-only
"""
The files that are locked while a script runs: what they are called, what they
say, and which of them are locked at this moment.

What a file says is for people, and may be old; that it is locked, and by which
process, the system says.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import attrs

from ctrlexec.errors import InvalidValue
from ctrlexec.values import agent_name

SUFFIX = ".lock"
#: Where Linux tells of all locks.
PROC_LOCKS = Path("/proc/locks")

_ODD = re.compile(r"[^A-Za-z0-9_.-]")
_NAME_BYTES = 255
_LINE_BYTES = 4096
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
# 1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF
_FLOCK = re.compile(
    r"^\d+: FLOCK +\w+ +\w+ +(-?\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) ", re.MULTILINE
)
# Each reading can lose a lock only if others come or go just then.
_READINGS = 8


@attrs.frozen
class LockState:
    """
    A script that is locked on a host.

    @ivar pid: the process that locked it, where the system tells.
    @ivar user: for whom; this and what follows is empty in a lock that is not
        ours.
    @ivar since: in ISO 8601.
    """

    host: str
    script: str
    pid: int | None
    user: str = ""
    reqid: str = ""
    since: str = ""


def file_name(host: str, script: str) -> str:
    """
    PROTOCOL.md section 4. Where that is too long for a file, no original can
    have it, and the end of it is a digest.
    """
    whole = f"{host}--{script}"
    plain = _ODD.sub("_", whole)
    if len(plain) + len(SUFFIX) > _NAME_BYTES:
        digest = hashlib.sha256(whole.encode("utf-8", "surrogateescape"))
        plain = f"{plain[:180]}.{digest.hexdigest()}"
    return plain + SUFFIX


# --- what a file says ----------------------------------------------------


def line_of(state: LockState) -> bytes:
    """
    @return: what a lock's file says about it; the line of the one before may
        follow it.
    """
    fields = attrs.asdict(state)
    return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"


def state_of(path: Path, pid: int | None) -> LockState:
    """
    What is known about a lock.

    @param pid: the process that holds it, where the system tells: what another
        one has said about it is old.
    """
    said = _said(path)
    if said is None or (pid is not None and said.pid != pid):
        return LockState(*_split(path.name), pid)
    return said


def _said(path: Path) -> LockState | None:
    try:
        descriptor = os.open(path, _READ)
        try:
            data = os.read(descriptor, _LINE_BYTES)
        finally:
            os.close(descriptor)
        fields = json.loads(data.partition(b"\n")[0])
        said = LockState(
            host=str(fields["host"]),
            script=str(fields["script"]),
            pid=int(fields["pid"]),
            user=str(fields["user"]),
            reqid=str(fields["reqid"]),
            since=str(fields["since"]),
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return said if file_name(said.host, said.script) == path.name else None


def _split(name: str) -> tuple[str, str]:
    """
    @return: host and script, as far as the name of a lock's file tells them.
    """
    whole = name.removesuffix(SUFFIX)
    for found in re.finditer("(?=--)", whole):
        host, script = whole[: found.start()], whole[found.end() + 2 :]
        with suppress(InvalidValue):
            return agent_name(host), script
    return whole, ""


# --- which are locked ----------------------------------------------------


def locked_files(directory: Path, read: Callable[[], str]) -> dict[str, int | None]:
    """
    @param read: what L{PROC_LOCKS} says now.
    @return: the names of the files in a directory that are locked, each with
        the process that did it, where that is known.
    @raise OSError: one of them can not be read.
    """
    holders = _holders(directory, read)
    with os.scandir(directory) as entries:
        return {
            entry.name: holders[entry.inode()]
            for entry in entries
            if entry.inode() in holders and entry.name.endswith(SUFFIX)
        }


def _holders(directory: Path, read: Callable[[], str]) -> dict[int, int | None]:
    """
    The kernel tells it in pieces of a page, and what others lock in between
    can hide a lock. So it is read until there is nothing new.
    """
    devices = _devices(directory)
    found: dict[int, int | None] = {}
    for _ in range(_READINGS):
        known = len(found)
        for device, inode, pid in _flocks(read()):
            if device in devices:
                found[inode] = pid
        if len(found) == known:
            break
    return found


def _flocks(text: str) -> Iterator[tuple[tuple[int, int], int, int | None]]:
    """
    @return: device, inode, and process of each; who only waits is passed over.
    """
    for pid, major, minor, inode in _FLOCK.findall(text):
        yield (int(major, 16), int(minor, 16)), int(inode), _process(int(pid))


def _process(pid: int) -> int | None:
    return pid if pid > 0 else None


def _devices(directory: Path) -> set[tuple[int, int]]:
    """
    What a file's device may be called: on btrfs and others, C{stat} does not
    say what the kernel calls it, but the table of mounts does.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        device = os.fstat(descriptor).st_dev
        devices = {(os.major(device), os.minor(device))}
        with suppress(OSError, ValueError, StopIteration):
            devices.add(_mounted(descriptor))
        return devices
    finally:
        os.close(descriptor)


def _mounted(descriptor: int) -> tuple[int, int]:
    about = Path(f"/proc/self/fdinfo/{descriptor}").read_text("utf-8")
    mount = next(line.split()[1] for line in about.splitlines() if "mnt_id:" in line)
    mounts = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    device = next(
        words[2]
        for words in map(str.split, mounts.splitlines())
        if words[:1] == [mount]
    )
    major, _, minor = device.partition(":")
    return int(major), int(minor)
