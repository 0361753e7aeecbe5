# SPDX-License-Identifier: AGPL-3.0-only
"""
Ending a script with everything that it has started: TERM, grace, KILL.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from contextlib import suppress

from ctrlexec.agent.keeper.descendants import (
    Process,
    all_processes,
    below,
    descendants,
    look,
    now,
)
from ctrlexec.agent.keeper.groups import Group
from ctrlexec.agent.keeper.loop import Loop

#: How many processes are told of.
MOST_TOLD = 1000
#: From one look for what is new to the next: the first, and how much longer each
#: takes than the one before, and the last.
_LOOK_SECONDS, _SLOWER, _LONGEST_SECONDS = 0.02, 1.5, 0.25
_KILL_SECONDS = 0.005
#: What can not be killed can be waited for.
_SHORT_ROUNDS = 100
#: How often we look for who was born while we stopped the others.
_STOP_ROUNDS = 20
_GRACE, _NEXT = "grace", "clearing"


class Clearing:
    """
    All descendants of this process are told to end, and are ended.

    Who orphans its children hands them to us, so nobody gets away. Where the
    kernel does not do that for us, those count that we have seen once, and those
    in L{sessions}.

    @ivar signalled: by process id, the command and the signal, C{"KILL"} for
        what C{"TERM"} was of no use for.
    @ivar sessions: of which everybody is a descendant; none where orphans are
        ours.
    """

    def __init__(
        self, loop: Loop, script: int, group: Group, reap: Callable[[], bool]
    ) -> None:
        """
        @param script: its process id, which is also that of its process group.
        @param group: of which everybody else is a descendant.
        @param reap: reaps the dead, and tells whether a child is left.
        """
        self.signalled: dict[int, tuple[bytes, bytes]] = {}
        self.sessions: set[int] = set()
        self._loop = loop
        self._script = script
        self._group = group
        self._reap = reap
        self._told: set[int] = set()
        self._asked = math.inf
        self._pause = _LOOK_SECONDS
        self._rounds = 0
        self._priority = 0
        self._done: Callable[[], None] = lambda: None

    def start(self, grace: float, done: Callable[[], None]) -> None:
        """
        Begin.

        @param grace: seconds between TERM and KILL.
        @param done: called when nothing is left.
        """
        self._done = done
        self._priority = os.getpriority(os.PRIO_PROCESS, 0)
        self._loop.after(grace, _GRACE, self._begin_to_kill)
        self._ask()

    def somebody_died(self) -> None:
        """
        It may have been the last.
        """
        if not self._reap() and not self._left():
            self._loop.drop(_GRACE)
            self._loop.drop(_NEXT)
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, 0, self._priority)
            self._done()

    def _ask(self) -> None:
        """
        Tell those to end who were not told yet. Those born later do not count:
        what somebody starts when it is told to end is there to tidy up.
        """
        for process in self._left().values():
            if process.pid not in self._told and process.born < self._asked:
                self._told.add(process.pid)
                self._tell(process, b"TERM")
                send(process.pid, signal.SIGTERM)
            if process.stopped:
                # It can not even hear that before it goes on.
                send(process.pid, signal.SIGCONT)
        self._asked = min(self._asked, now())
        self._loop.after(self._pause, _NEXT, self._ask)
        self._pause = min(self._pause * _SLOWER, _LONGEST_SECONDS)
        self.somebody_died()

    def _begin_to_kill(self) -> None:
        with suppress(OSError):
            # Hundreds may want the processor as badly as we do.
            os.setpriority(os.PRIO_PROCESS, 0, -20)
        self._kill()

    def _kill(self) -> None:
        """
        Kill all there is. All are stopped first: otherwise those that fork as
        fast as they can are born faster than they die. The kernel does that for
        whole groups at a stroke.
        """
        self._group.freeze()
        leader = look(self._script)
        if leader is not None and leader.parent == os.getpid():
            _send_all(self._script, signal.SIGSTOP)
        stopped: dict[int, Process] = {}
        for _ in range(_STOP_ROUNDS):
            new = {pid: it for pid, it in self._left().items() if pid not in stopped}
            if not new:
                break
            for group in {each.group for each in new.values()} - {os.getpgrp()}:
                _send_all(group, signal.SIGSTOP)
            for pid, process in new.items():
                self._tell(process, b"KILL")
                send(pid, signal.SIGSTOP)
            stopped |= new
        self._group.kill()
        for pid in stopped:
            send(pid, signal.SIGKILL)
        self._rounds += 1
        short = self._rounds < _SHORT_ROUNDS
        self._loop.after(
            _KILL_SECONDS if short else _LONGEST_SECONDS, _NEXT, self._kill
        )
        self.somebody_died()

    def _left(self) -> dict[int, Process]:
        left = descendants(os.getpid())
        members = [pid for pid in self._group.members() if pid not in left]
        left |= {it.pid: it for it in map(look, members) if it is not None and it.alive}
        if self.sessions:
            left |= self._strays(left)
        return left

    def _strays(self, left: dict[int, Process]) -> dict[int, Process]:
        """
        Those that are not below us any more, and were.
        """
        self.sessions |= {each.session for each in left.values()}
        everybody = all_processes()
        found = {
            pid: each
            for pid, each in everybody.items()
            if each.session in self.sessions or pid in self._told
        }
        for pid in tuple(found):
            found |= below(pid, everybody)
        return {pid: each for pid, each in found.items() if each.alive}

    def _tell(self, process: Process, name: bytes) -> None:
        if process.pid in self.signalled or len(self.signalled) < MOST_TOLD:
            self.signalled[process.pid] = (process.command, name)


def send(pid: int, number: int) -> None:
    """
    Send a signal to a process, if that can be.
    """
    # It is gone, or it is another user's, which the group may end.
    with suppress(OSError):
        os.kill(pid, number)


def _send_all(group: int, number: int) -> None:
    """
    @param group: of a process that is below us. None but its like can be in it:
        it is of a session that one of them has made.
    """
    with suppress(OSError):
        os.killpg(group, number)
