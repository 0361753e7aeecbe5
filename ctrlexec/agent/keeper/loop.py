# SPDX-License-Identifier: AGPL-3.0-only
"""
What a keeper waits for: descriptors, dead children, and the time.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable

READ = select.POLLIN
WRITE = select.POLLOUT


class Loop:
    """
    Calls back.

    Time is the monotonic clock: the other one can jump.
    """

    def __init__(self, children: Callable[[], None]) -> None:
        """
        @param children: called when some child may have died.
        """
        self._poll = select.poll()
        self._actions: dict[int, Callable[[], None]] = {}
        self._timers: dict[str, tuple[float, Callable[[], None]]] = {}
        self._children = children
        self._woken, self._waking = _woken_by_signals()
        self.watch(self._woken, READ, self._signalled)

    def watch(self, descriptor: int, event: int, action: Callable[[], None]) -> None:
        """
        Call back whenever a descriptor can be read (C{READ}) or written
        (C{WRITE}), or its other end is gone.
        """
        self._poll.register(descriptor, event)
        self._actions[descriptor] = action

    def forget(self, descriptor: int) -> None:
        """
        Call back no more.
        """
        if self._actions.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def after(self, seconds: float, name: str, action: Callable[[], None]) -> None:
        """
        Call back once.

        @param name: a timer of the same name is replaced.
        """
        self._timers[name] = (time.monotonic() + seconds, action)

    def drop(self, name: str) -> None:
        """
        Forget a timer.
        """
        self._timers.pop(name, None)

    def turn(self) -> None:
        """
        Wait until there is something to do, and do it.
        """
        for descriptor, _ in self._poll.poll(self._patience()):
            action = self._actions.get(descriptor)
            if action is not None:
                action()
        now = time.monotonic()
        for name, (when, action) in list(self._timers.items()):
            if when <= now and self._timers.get(name) == (when, action):
                del self._timers[name]
                action()

    def close(self) -> None:
        """
        Wait for nothing any more.
        """
        signal.set_wakeup_fd(-1)
        os.close(self._woken)
        os.close(self._waking)

    def _patience(self) -> float | None:
        if not self._timers:
            return None
        first = min(when for when, _ in self._timers.values())
        # A millisecond is as exact as it gets; a little late, never early.
        return max(0.0, (first - time.monotonic()) * 1000) + 0.5

    def _signalled(self) -> None:
        _drain(self._woken)
        self._children()


def _woken_by_signals() -> tuple[int, int]:
    """
    @return: a descriptor that can be read when a child has died, and its other
        end.
    """
    ours, theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return ours, theirs


def _drain(descriptor: int) -> None:
    try:
        while len(os.read(descriptor, 512)) == 512:
            pass
    except BlockingIOError:
        pass
