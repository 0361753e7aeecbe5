# SPDX-License-Identifier: AGPL-3.0-only
"""
The signals that end a program from outside, SIGTERM and SIGHUP: whoever waits for
a run is told first what goes on without them, as with Ctrl-C; then the program
dies of the signal, which is what its exit status says.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic

import attrs

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
#: A terminal that is closed, or C{timeout}, sends more than one of them; one
#: that comes so many seconds later is from somebody who has lost patience.
_AT_ONCE_SECONDS = 1.0


class Terminated(KeyboardInterrupt):
    """
    Such a signal has come. Unlike a Ctrl-C it asks for nothing.
    """


@attrs.define(eq=False)
class EndingSignals:
    """
    @ivar _came: the first that has come; 0 for none.
    @ivar _at: when, in the seconds of a clock that nobody sets.
    @ivar _tell: is told of it; what is not told anything gets L{Terminated}.
    """

    _came: int = attrs.field(default=0, init=False)
    _at: float = attrs.field(default=0.0, init=False)
    _tell: Callable[[], object] | None = attrs.field(default=None, init=False)

    @contextmanager
    def deadly(self) -> Iterator[None]:
        """
        While this lasts they are told; if one has come, the process dies of it
        at the end.
        """
        self.listen()
        try:
            yield
        finally:
            if self._came:
                self._die()

    def listen(self) -> None:
        """
        Hear of them, but for those that somebody wants to be ignored
        (C{nohup}).
        """
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._caught)

    @contextmanager
    def telling(self, tell: Callable[[], object]) -> Iterator[None]:
        """
        While this lasts that is called when one comes, and nothing is raised.
        """
        self._tell = tell
        try:
            yield
        finally:
            self._tell = None
            # A reactor that has ended would go on catching some of them.
            self.listen()

    def _caught(self, number: int, frame: object) -> None:
        now = monotonic()
        if self._came:
            if now - self._at >= _AT_ONCE_SECONDS:
                self._die()
            return
        self._came, self._at = number, now
        if self._tell is None:
            raise Terminated
        self._tell()

    def _die(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            # There may be nobody any more who would read it.
            with suppress(OSError, ValueError):
                stream.flush()
        signal.signal(self._came, signal.SIG_DFL)
        os.kill(os.getpid(), self._came)
