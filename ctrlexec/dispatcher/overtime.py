# SPDX-License-Identifier: AGPL-3.0-only
"""
How long somebody stays with a run that should have ended.

Its agent ends it when its time is over, or somebody has cancelled it. One that is
broken, or means harm, can go on saying that it lives; whoever follows it is not to
wait for that.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ctrlexec.dispatcher.dispatch import Heard
from ctrlexec.protocol.run_messages import Output, StateChanged

#: How long a run may take to end once its time is over, in seconds: for TERM, for
#: the grace that its agent gives it, for KILL, and for the news of it.
OVERTIME_SECONDS = 60.0
#: How soon it is looked again at the earliest, in seconds.
LEAST_SECONDS = 1.0

T = TypeVar("T")


@attrs.define(eq=False)
class Overtime:
    """
    Measures how long an agent has kept somebody waiting: not while they were the
    ones who had not taken yet what they were told.

    @ivar is_hurried: whether somebody has asked the agent to end it.
    """

    clock: IReactorTime
    is_hurried: bool = attrs.field(default=False, init=False)
    _held_seconds: float = attrs.field(default=0.0, init=False)
    _held_since: float | None = attrs.field(default=None, init=False)
    _is_over: bool = attrs.field(default=False, init=False)
    _working: Deferred[Any] | None = attrs.field(default=None, init=False)
    _timer: IDelayedCall | None = attrs.field(default=None, init=False)

    def noting(self, heard: Heard) -> Heard:
        """
        @return: tells somebody what is heard, and has it noted how long they take
            over it.
        """

        def noted(event: Output | StateChanged) -> Deferred[None] | None:
            taken = heard(event)
            if taken is not None and not taken.called:
                self._held_since = self.clock.seconds()
                taken.addBoth(self._let_go)
            return taken

        return noted

    async def bound(
        self, work: Coroutine[Deferred[Any], Any, T], seconds: float | None
    ) -> T | None:
        """
        Do something that is to take no longer than that.

        @param seconds: C{None} for as long as nobody is in a L{hurry}.
        @return: what comes of it; C{None} if it took longer, and was ended.
        """
        self._working = working = Deferred.fromCoroutine(work)
        if seconds is not None:
            self._look_after(seconds, 0.0)
        try:
            return await working
        except CancelledError:
            if self._is_over:
                return None
            raise
        finally:
            self._working = None
            self._stop()

    def hurry(self) -> None:
        """
        Somebody has asked the agent to end it: it is to take no longer than that
        takes.
        """
        if self._working is None or self.is_hurried:
            return
        self.is_hurried = True
        until = self.clock.seconds() + OVERTIME_SECONDS
        if self._timer is None or self._timer.getTime() > until:
            self._stop()
            self._look_after(OVERTIME_SECONDS, self._held)

    def _look_after(self, seconds: float, allowed: float) -> None:
        """
        @param allowed: how much of the time that does not count it has had.
        """
        self._timer = self.clock.callLater(seconds, self._look, allowed)

    def _look(self, allowed: float) -> None:
        held = self._held
        if held > allowed:
            self._look_after(max(held - allowed, LEAST_SECONDS), held)
        elif self._working is not None:
            self._is_over = True
            self._working.cancel()

    def _stop(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    @property
    def _held(self) -> float:
        if self._held_since is None:
            return self._held_seconds
        return self._held_seconds + self.clock.seconds() - self._held_since

    def _let_go(self, result: T) -> T:
        self._held_seconds, self._held_since = self._held, None
        return result
