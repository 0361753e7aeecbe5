# SPDX-License-Identifier: AGPL-3.0-only
"""
Waiting for what several may wait for: something that comes once, and the end of
all that goes on.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


@attrs.define(eq=False)
class Once(Generic[T]):
    """
    Something that comes once; everybody who waits for it gets it, and whoever
    comes later.
    """

    _came: list[T | Failure] = attrs.field(factory=list, init=False)
    _waiting: list[Deferred[T]] = attrs.field(factory=list, init=False)

    @property
    def came(self) -> bool:
        """
        Whether it is there.
        """
        return bool(self._came)

    def come(self, what: T) -> None:
        """
        Here it is.
        """
        assert not self._came
        self._came.append(what)
        self._tell()

    def fail(self, why: Failure) -> bool:
        """
        It will not come, unless it is there.

        @return: whether somebody has waited for it.
        """
        if self._came:
            return False
        self._came.append(why)
        waited = bool(self._waiting)
        self._tell()
        return waited

    def wait(self) -> Deferred[T]:
        """
        @return: fires with it, at once if it is there; fails if it will not
            come. Whoever cancels this stops waiting.
        """
        waiter: Deferred[T] = Deferred(self._waiting.remove)
        self._waiting.append(waiter)
        if self._came:
            self._tell()
        return waiter

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            match self._came[0]:
                case Failure() as why:
                    waiter.errback(why)
                case what:
                    waiter.callback(what)


@attrs.define(eq=False)
class Pending:
    """
    Work that goes on, and somebody who waits for the end of all of it.
    """

    _work: set[Deferred[None]] = attrs.field(factory=set, init=False)
    _waiting: list[Deferred[None]] = attrs.field(factory=list, init=False)

    def __len__(self) -> int:
        return len(self._work)

    def add(self, work: Deferred[None]) -> None:
        """
        @param work: whose failures somebody else takes.
        """
        self._work.add(work)

    def discard(self, work: Deferred[None]) -> None:
        """
        It has ended.
        """
        self._work.discard(work)
        if not self._work:
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                waiter.callback(None)

    def over(self) -> Deferred[None]:
        """
        @return: fires when nothing goes on any more.
        """
        waiter: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiter)
        if not self._work:
            self._waiting.remove(waiter)
            waiter.callback(None)
        return waiter
