# SPDX-License-Identifier: AGPL-3.0-only
"""
Whose turn it is in an order: each host is on record as asked before it is, so that
whoever reads the record of an order that was killed can tell which were not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence

import attrs
from twisted.internet.defer import DeferredLock

#: How often a record is written for that, at the least of all: of very many hosts
#: some are put on record at a time.
WRITES = 64


@attrs.define(eq=False)
class Turns:
    """
    The hosts of an order, in the order in which they are asked.

    @ivar lots: what they are called; none of a lot is asked before the lot before
        has ended.
    @ivar most: how many are asked at a time.
    @ivar write: puts it on record that some of them are asked.
    """

    lots: Sequence[Sequence[str]]
    most: int
    write: Callable[[Collection[str]], Awaitable[None]]
    _written: set[str] = attrs.field(factory=set, init=False)
    _writing: DeferredLock = attrs.field(factory=DeferredLock, init=False)

    def first(self) -> frozenset[str]:
        """
        Those who are asked at once: who begins the record has them in it.
        """
        first = frozenset(self.lots[0][: self.most] if self.lots else ())
        self._written |= first
        return first

    async def come(self, host: str) -> None:
        """
        It is a host's turn.
        """
        if host in self._written:
            return
        await self._writing.acquire()
        try:
            if host not in self._written:
                hosts = self._next(host)
                await self.write(hosts)
                self._written |= hosts
        finally:
            self._writing.release()

    def _next(self, host: str) -> frozenset[str]:
        """
        A host, and those of its lot that are asked soon after it.
        """
        size = max(1, min(self.most, sum(map(len, self.lots)) // WRITES))
        for lot in self.lots:
            if host in lot:
                start = lot.index(host)
                return frozenset(lot[start : start + size])
        return frozenset({host})
