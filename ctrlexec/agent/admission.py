# SPDX-License-Identifier: AGPL-3.0-only
"""
Who may go on to a handshake, and who has to go to make room: decided on the
bare socket, before it costs anything (PROTOCOL.md section 5).

All of it is bookkeeping with a bound: whatever strangers do, it holds no more
than so many addresses and connections, and each question takes the same short
time.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

import attrs

from ctrlexec.rates import TRACKED_ADDRESSES

#: For how many seconds the log need not hear again of an address.
QUIET_SECONDS: Final = 3600.0
#: One address may hold this part of all connections before it has proved to be
#: a trusted dispatcher's, so that it can not take the places of those that are.
UNPROVEN_SHARE: Final = 4
#: How many may have given way and not be gone yet: they still cost memory, and
#: hundreds can come before the reactor gets round to closing the first.
LEAVING_AT_ONCE: Final = 32

C = TypeVar("C", bound=Hashable)


@attrs.define(eq=False)
class Announcements:
    """
    The addresses that the log has heard of lately.
    """

    _until: OrderedDict[str, float] = attrs.field(factory=OrderedDict, init=False)

    def due(self, address: str, now: float) -> bool:
        """
        Whether the log is to hear of an address; it then has.
        """
        if now < self._until.get(address, now):
            return False
        self._until.pop(address, None)
        if len(self._until) >= TRACKED_ADDRESSES:
            self._until.popitem(last=False)
        self._until[address] = now + QUIET_SECONDS
        return True

    def clear(self) -> None:
        """
        Forget everything.
        """
        self._until.clear()


@attrs.frozen
class Room(Generic[C]):
    """
    There is room for one more connection.

    @ivar leaver: the one that had the place, which it has no more: it is to be
        ended; C{None} where a place was free.
    @ivar news: whether all places are taken, and that has not been said since
        half of them were free.
    """

    leaver: C | None = None
    news: bool = False


@attrs.frozen
class Full:
    """
    There is no room for one more connection.

    @ivar news: whether that has not been said since there last was room.
    """

    news: bool


@attrs.define(eq=False)
class Occupancy(Generic[C]):
    """
    The connections there are, and whose they are.

    One that has proved to be a trusted dispatcher's keeps its place. The others
    have theirs on loan: where all are taken, the one that came first gives way
    to the one that comes. So who can connect as often as he likes holds up
    nobody by doing nothing. From an address where somebody has proved it
    before, none has to give way: it is most likely about to prove it too.

    For each connection that L{enter} was told of, L{leave} is to be told once
    that it is gone, also if it gave way.
    """

    _proven: set[C] = attrs.field(factory=set, init=False)
    _unproven: dict[C, str] = attrs.field(factory=dict, init=False)
    _arrivals: OrderedDict[C, None] = attrs.field(factory=OrderedDict, init=False)
    _leaving: set[C] = attrs.field(factory=set, init=False)
    _held: Counter[str] = attrs.field(factory=Counter, init=False)
    _known: OrderedDict[str, None] = attrs.field(factory=OrderedDict, init=False)
    _full: bool = attrs.field(default=False, init=False)
    _crowding: set[str] = attrs.field(factory=set, init=False)

    @property
    def live(self) -> int:
        """
        How many connections have a place.
        """
        return len(self._proven) + len(self._unproven)

    def room(self, source: str, most: int) -> Room[C] | Full:
        """
        Look for a place for a connection, which L{enter} is to be told of next.

        @param source: whose it is.
        @param most: how many places there are.
        """
        if self._held[source] >= max(1, most // UNPROVEN_SHARE):
            news = source not in self._crowding
            self._crowding.add(source)
            return Full(news)
        if self.live < most:
            # Half of it must be free again: a flood that stays at the limit would
            # else be a line of the log for each connection that ends.
            self._full = self._full and self.live > most // 2
            return Room()
        news, self._full = not self._full, True
        leaver = self._first_stranger() if self._may_replace(source) else None
        if leaver is None:
            return Full(news)
        self.leave(leaver)
        self._leaving.add(leaver)
        return Room(leaver, news)

    def enter(self, connection: C, source: str) -> None:
        """
        A connection takes a place.
        """
        self._unproven[connection] = source
        self._arrivals[connection] = None
        self._held[source] += 1

    def prove(self, connection: C) -> None:
        """
        A connection has proved to be a trusted dispatcher's; if it has a place,
        it will keep it.
        """
        source = self._unproven.get(connection)
        if source is None:
            return
        self.leave(connection)
        self._proven.add(connection)
        self._known.pop(source, None)
        if len(self._known) >= TRACKED_ADDRESSES:
            self._known.popitem(last=False)
        self._known[source] = None

    def proven(self, connection: C) -> bool:
        """
        Whether L{prove} was told of a connection that has a place.
        """
        return connection in self._proven

    def leave(self, connection: C) -> bool:
        """
        A connection needs no place any more.

        @return: whether it had one.
        """
        self._leaving.discard(connection)
        source = self._unproven.pop(connection, None)
        if source is None:
            had = connection in self._proven
            self._proven.discard(connection)
            return had
        self._arrivals.pop(connection, None)
        self._held[source] -= 1
        if not self._held[source]:
            del self._held[source]
            self._crowding.discard(source)
        return True

    def forget(self) -> None:
        """
        Forget where anybody has proved anything; the connections stay.
        """
        self._known.clear()

    def _may_replace(self, source: str) -> bool:
        return len(self._leaving) < LEAVING_AT_ONCE or source in self._known

    def _first_stranger(self) -> C | None:
        """
        Each connection is looked at once, however often this is asked.
        """
        while self._arrivals:
            connection, _ = self._arrivals.popitem(last=False)
            if self._unproven[connection] not in self._known:
                return connection
        return None
