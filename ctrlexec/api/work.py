# SPDX-License-Identifier: AGPL-3.0-only
"""
What the API works on: so much at a time, and each of it to its end.

A run belongs to the dispatcher, not to the connection that it was asked for on.
Who leaves takes nothing along: what they began goes on, holds its locks, and is
kept for whoever asks later.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from ctrlexec.errors import CtrlExecError, Overload

T = TypeVar("T")


@attrs.define(eq=False)
class Work:
    """
    What is under way.

    @ivar clock: tells how long a stop waits.
    @ivar most: how many may be under way at once.
    @ivar failed: is given a fault of ours that nobody waits for any more.
    """

    clock: IReactorTime
    most: int
    failed: Callable[[Failure], None]
    _live: int = attrs.field(default=0, init=False)
    _ending: list[Deferred[int]] = attrs.field(factory=list, init=False)
    _closed: bool = attrs.field(default=False, init=False)

    def __len__(self) -> int:
        return self._live

    def begin(
        self, make: Callable[[], Coroutine[Deferred[Any], Any, T]]
    ) -> Deferred[T]:
        """
        Do one more thing. Who cancels the result stops waiting for it, and
        nothing else.

        @param make: makes what is to be done.
        @raise Overload: there is too much to do already, or nothing is begun
            any more.
        """
        if self._closed or self._live >= self.most:
            raise Overload(self._live)
        self._live += 1
        left: list[bool] = []
        waiting: Deferred[T] = Deferred(left.append)  # type: ignore[arg-type]

        def ended(result: T | Failure) -> None:
            self._live -= 1
            if not left:
                waiting.callback(result)
            elif isinstance(result, Failure) and not result.check(CtrlExecError):
                self.failed(result)
            self._tell()

        Deferred.fromCoroutine(make()).addBoth(ended)
        return waiting

    def finish(self, seconds: float) -> Deferred[int]:
        """
        Begin nothing more.

        @param seconds: how long to wait for what is under way.
        @return: fires when nothing is any more, or the time is over, with the
            number of what is left. Cancelling it ends the waiting at once.
        """
        self._closed = True
        waiter: Deferred[int] = Deferred(lambda late: late.callback(self._live))
        self._ending.append(waiter)
        patience = self.clock.callLater(seconds, waiter.cancel)

        def done(left: int) -> int:
            self._ending.remove(waiter)
            _stop(patience)
            return left

        waiter.addCallback(done)
        self._tell()
        return waiter

    def _tell(self) -> None:
        if not self._live:
            for waiter in tuple(self._ending):
                waiter.callback(0)


def _stop(call: IDelayedCall) -> None:
    if call.active():
        call.cancel()
