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

from ctrlexec.errors import CtrlExecError, Overload, ShareUsed

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


@attrs.define(eq=False)
class Streams:
    """
    What is followed for clients that want to hear of it as it comes. None of
    that is work: it ends when its client leaves, and nobody waits for its end.

    @ivar most: how many may be followed at once.
    """

    most: int
    _live: dict[Deferred[Any], str | None] = attrs.field(factory=dict, init=False)
    _closed: bool = attrs.field(default=False, init=False)

    def __len__(self) -> int:
        return len(self._live)

    def begin(
        self, make: Callable[[], Coroutine[Deferred[Any], Any, T]], caller: str | None
    ) -> Deferred[T]:
        """
        Follow one more. Who cancels the result ends that.

        @param make: makes what follows it.
        @param caller: for whom: see L{ctrlexec.api.callers.share_of}. C{None} for
            somebody who may have all there is.
        @raise Overload: so many are followed already, or nothing is begun any
            more.
        @raise ShareUsed: so many are followed for this caller.
        """
        if self._closed or len(self._live) >= self.most:
            raise Overload(len(self._live))
        theirs = sum(each == caller for each in self._live.values())
        if caller is not None and theirs >= of_one_caller(self.most):
            raise ShareUsed(theirs)
        following = Deferred.fromCoroutine(make())
        self._live[following] = caller

        def over(result: T | Failure) -> T | Failure:
            del self._live[following]
            return result

        return following.addBoth(over)

    def end(self) -> None:
        """
        Follow nothing any more.
        """
        self._closed = True
        for following in tuple(self._live):
            following.cancel()


@attrs.frozen
class Share:
    """
    What callers of one kind may have under way; those of another kind have their
    own, so neither keeps the other out.
    """

    work: Work
    streams: Streams

    @classmethod
    def of(
        cls, clock: IReactorTime, most: int, failed: Callable[[Failure], None]
    ) -> Share:
        """
        @param most: how many requests; see L{Work}.
        @param failed: see L{Work}.
        """
        return cls(Work(clock, most, failed), Streams(streams_beside(most)))

    def allow(self, most: int) -> None:
        """
        From now on it is so many requests.
        """
        self.work.most, self.streams.most = most, streams_beside(most)


def streams_beside(most: int) -> int:
    """
    @param most: how many requests may be under way at once.
    @return: how many streams there may be besides: those who look on must not be
        what keeps others from giving orders.
    """
    return max(1, most // 2)


def of_one_caller(most: int) -> int:
    """
    @param most: how many streams there may be.
    @return: how many of them one caller may have, so that there are some for
        others.
    """
    return max(1, most // 2)


def _stop(call: IDelayedCall) -> None:
    if call.active():
        call.cancel()
