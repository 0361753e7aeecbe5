# SPDX-License-Identifier: AGPL-3.0-only
"""
The runs that live, and when there is nothing left to wait for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs
from twisted.internet.defer import Deferred


@attrs.define(eq=False)
class LiveRuns:
    """
    The runs of an agent, from their start to their end.
    """

    _reqids: dict[object, str] = attrs.field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._reqids)

    @property
    def reqids(self) -> tuple[str, ...]:
        """
        Their request ids, the oldest first; a dispatcher may have given several
        the same.
        """
        return tuple(self._reqids.values())

    @contextmanager
    def lasting(self, reqid: str) -> Iterator[None]:
        """
        A run lives for as long as the body of a C{with}.
        """
        run = object()
        self._reqids[run] = reqid
        try:
            yield
        finally:
            del self._reqids[run]


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
