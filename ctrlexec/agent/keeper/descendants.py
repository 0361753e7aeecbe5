# SPDX-License-Identifier: AGPL-3.0-only
"""
What a keeper has below it: the processes that its script has started, and those
that they have.
"""

from __future__ import annotations

import os
import time
from collections.abc import Container

#: As many fields there are at least, behind the name.
_FIELDS = 20
_TICKS = os.sysconf("SC_CLK_TCK")


class Process:
    """
    A process as the kernel tells of it.

    @ivar command: its name, at most 15 bytes.
    @ivar born: when, in seconds as L{now} tells them.
    @ivar stopped: whether it does nothing before somebody lets it go on.
    @ivar alive: whether anything of it runs: its first thread can be over before
        the others are.
    """

    __slots__ = (
        "alive",
        "born",
        "command",
        "group",
        "parent",
        "pid",
        "session",
        "stopped",
    )

    def __init__(self, pid: int, text: bytes) -> None:
        """
        @param text: of C{/proc/PID/stat}. The name is in parentheses and may
            hold anything, those as well.
        @raise ValueError: it is none.
        """
        start, end = text.index(b"("), text.rindex(b")")
        fields = text[end + 2 :].split()
        if len(fields) < _FIELDS:
            raise ValueError("this tells nothing of a process")
        self.pid = pid
        self.command = text[start + 1 : end]
        self.parent, self.group, self.session = map(int, fields[1:4])
        self.stopped = fields[0] == b"T"
        self.born = int(fields[19]) / _TICKS
        self.alive = fields[0] not in (b"Z", b"X") or int(fields[17]) > 1


def now() -> float:
    """
    Seconds since the system was started, rounded down to its ticks.
    """
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS) / _TICKS


def look(pid: int) -> Process | None:
    """
    @return: the process, unless it is gone.
    """
    text = _read(f"/proc/{pid}/stat")
    try:
        return Process(pid, text)
    except ValueError:
        return None


def descendants(root: int, besides: Container[int] = ()) -> dict[int, Process]:
    """
    The descendants of a process that live, by their ids. One that is born in the
    meantime may be missing: whoever wants all of them looks again.

    @param besides: ids of those that do not count, nor does what is below them.
    """
    if os.path.exists(f"/proc/{root}/task/{root}/children"):
        found = _walked(root, besides)
    else:
        found = below(root, all_processes(), besides)
    return {pid: each for pid, each in found.items() if each.alive}


def below(
    root: int, processes: dict[int, Process], besides: Container[int] = ()
) -> dict[int, Process]:
    """
    Those of some processes that descend from one; see L{descendants}.
    """
    children: dict[int, list[Process]] = {}
    for each in processes.values():
        children.setdefault(each.parent, []).append(each)
    found: dict[int, Process] = {}
    waiting = [root]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child.pid not in found and child.pid not in besides:
                found[child.pid] = child
                waiting.append(child.pid)
    return found


def all_processes() -> dict[int, Process]:
    """
    Every process that we are shown.
    """
    found = (look(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {each.pid: each for each in found if each is not None}


def _walked(root: int, besides: Container[int]) -> dict[int, Process]:
    found: dict[int, Process] = {}
    waiting = [root]
    while waiting:
        for child in _children(waiting.pop()):
            if child in found or child in besides:
                continue
            process = look(child)
            if process is not None:
                found[child] = process
                waiting.append(child)
    return found


def _children(pid: int) -> list[int]:
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    return [
        int(child)
        for task in tasks
        for child in _read(f"/proc/{pid}/task/{task}/children").split()
    ]


def _read(path: str) -> bytes:
    """
    @return: nothing, if there is no such file any more.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        text = b""
        while piece := os.read(descriptor, 65536):
            text += piece
        return text
    except OSError:
        return b""
    finally:
        os.close(descriptor)
