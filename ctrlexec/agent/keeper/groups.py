# SPDX-License-Identifier: AGPL-3.0-only
"""
A control group for each run, where we may make one: cgroups(7), version 2. It
knows all members of a run, whoever they belong to, and ends them at a stroke.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

#: What the names of all groups begin with that we make.
PREFIX = b"keeper-"
_MODE = 0o755
_PROCS = b"/cgroup.procs"
_FREEZE = b"/cgroup.freeze"
#: How often we look for who was born while we moved the others, and when again.
_MOVES, _MOVE_SECONDS = 20, 0.005


def place() -> bytes | None:
    """
    @return: the directory of our own control group, if we may make groups in it.
    """
    try:
        with open("/proc/self/cgroup", "rb") as ours:
            path = own_path(ours.read())
        with open("/proc/self/mountinfo", "rb") as mounts:
            directory = where(path, mounts.read()) if path else None
    except OSError:
        return None
    if directory is None or not os.access(directory, os.W_OK):
        return None
    writable = os.access(directory + _PROCS, os.W_OK)
    return directory if writable else None


def own_path(text: bytes) -> bytes | None:
    """
    @param text: of C{/proc/self/cgroup}.
    @return: our path in the hierarchy of version 2.
    """
    for line in text.splitlines():
        if line.startswith(b"0::/"):
            return line[3:]
    return None


def where(path: bytes, text: bytes) -> bytes | None:
    """
    @param text: of C{/proc/self/mountinfo}.
    @return: the directory of a path in the hierarchy of version 2.
    """
    for line in text.splitlines():
        fields = line.split(b" ")
        if b"-" not in fields or fields[fields.index(b"-") + 1] != b"cgroup2":
            continue
        root, mount = (_plain(each).rstrip(b"/") for each in fields[3:5])
        if path == root or path.startswith(root + b"/"):
            return (mount + path[len(root) :]).rstrip(b"/")
    return None


def sweep(parent: bytes | None) -> None:
    """
    Remove the groups of keepers that are gone, unless somebody lives in them.
    """
    if parent is None:
        return
    with suppress(OSError):
        for name in os.listdir(parent):
            if name.startswith(PREFIX):
                _remove(parent + b"/" + name)


def end_orphans(parent: bytes | None, pid: int) -> None:
    """
    Kill what a keeper has left in its group that was killed itself: nobody
    looks after it any more.

    @param pid: the keeper's, which nobody has had since.
    """
    if parent is None:
        return
    with suppress(OSError):
        for name in os.listdir(parent):
            if name.startswith(PREFIX + b"%d-" % pid):
                _write(parent + b"/" + name + b"/cgroup.kill", b"1")


class Group:
    """
    The control group of a keeper, and of its script: nothing needs to be done
    for a script to be in it.
    """

    def __init__(self, parent: bytes | None, name: bytes) -> None:
        """
        @param parent: the directory of the group that it is made in; C{None} for
            none. A group that can not be made is one that is not there.
        @param name: begins with L{PREFIX}.
        """
        self._parent = parent or b""
        self._directory = b""
        self._inside = False
        if parent is not None:
            directory = parent + b"/" + name
            with suppress(OSError):
                os.mkdir(directory, _MODE)
                self._directory = directory

    def enter(self) -> bool:
        """
        Be in it.

        @return: whether we are, if there is one: somebody may have removed it
            while it was empty.
        """
        if self._directory and not self._inside:
            self._inside = _write(self._directory + _PROCS, b"0")
        return self._inside or not self._directory

    def freeze(self) -> None:
        """
        Stop all members but us, those born this moment as well. From then on we
        are no member.
        """
        self._step_out()
        if self._directory and not self._inside:
            _write(self._directory + _FREEZE, b"1")

    def kill(self) -> None:
        """
        Kill all that L{freeze} has stopped, where the kernel can do that (5.14).
        """
        if self._directory and not self._inside:
            _write(self._directory + b"/cgroup.kill", b"1")
            _write(self._directory + _FREEZE, b"0")

    def members(self) -> list[int]:
        """
        The process ids of its members, without us.
        """
        if not self._directory:
            return []
        return [pid for pid in _members(self._directory) if pid != os.getpid()]

    def leave(self) -> None:
        """
        Remove it. What goes on in it goes on in the group above.
        """
        if self._directory:
            self._step_out()
            self._move_all()
            _remove(self._directory)
            self._directory = b""

    def _move_all(self) -> None:
        """
        Have all members in the group above. Those that have children all the
        time are stopped: who leaves goes on.
        """
        for _ in range(_MOVES):
            members = self.members()
            if not members:
                return
            for pid in members:
                _write(self._parent + _PROCS, b"%d" % pid)
            self.freeze()
            # Who is just dying can not be moved, and needs a moment.
            time.sleep(_MOVE_SECONDS)
        _write(self._directory + _FREEZE, b"0")

    def _step_out(self) -> None:
        if self._inside:
            self._inside = not _write(self._parent + _PROCS, b"0")


def _members(directory: bytes) -> list[int]:
    """
    Those of the groups within it as well: a script may have made some.
    """
    members: list[int] = []
    for path, _, _ in os.walk(directory):
        with suppress(OSError), open(path + _PROCS, "rb") as procs:
            members += map(int, procs.read().split())
    return members


def _remove(directory: bytes) -> bool:
    try:
        for path, _, _ in os.walk(directory, topdown=False):
            os.rmdir(path)
    except OSError:
        return False
    return True


def _write(file: bytes, text: bytes) -> bool:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.write(descriptor, text) == len(text)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _plain(text: bytes) -> bytes:
    """
    A path as mountinfo has it: some characters stand there in octal.
    """
    for character in b" \t\n\\":
        text = text.replace(b"\\%03o" % character, bytes([character]))
    return text
