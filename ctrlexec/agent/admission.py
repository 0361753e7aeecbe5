# SPDX-License-Identifier: AGPL-3.0-only
"""
Who may go on to a handshake: decided on the bare socket, before it costs
anything (PROTOCOL.md section 5).

All of it is bookkeeping with a bound: whatever strangers do, it holds no more
than so many addresses, and each question takes the same short time.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from typing import Final

import attrs

#: How many addresses are kept in mind.
TRACKED_ADDRESSES: Final = 1000
#: How many are forgotten at once when there is one more: to forget one each
#: time would be a line of the log each time.
EVICTED_ADDRESSES: Final = 100
#: For how many seconds the log need not hear again of an address.
QUIET_SECONDS: Final = 3600.0
#: One address may hold this part of all connections before it has proved to be
#: a trusted dispatcher's, so that it can not take the places of those that are.
UNPROVEN_SHARE: Final = 4

VOLUME: Final = "volume"
PROBE: Final = "probe"


@attrs.frozen
class Rate:
    """
    How often something may happen.

    @ivar most: how often within the window; once more is too often.
    @ivar window_seconds: how long it is remembered.
    @ivar block_seconds: how long an address is blocked after that.
    """

    most: int
    window_seconds: float
    block_seconds: float


@attrs.frozen
class Counted:
    """
    What came of counting something.

    @ivar blocks: it was too often: the address is blocked from now on.
    @ivar evicted: how many other addresses were forgotten for it.
    """

    blocks: bool = False
    evicted: int = 0


@attrs.define
class _Track:
    """
    What an address has done lately, and until when it is blocked.
    """

    times: dict[str, deque[float]] = attrs.field(factory=dict)
    blocked_until: float | None = None

    def blocked(self, now: float) -> bool:
        return self.blocked_until is not None and now < self.blocked_until

    def count(self, what: str, rate: Rate, now: float) -> bool:
        times = self.times.setdefault(what, deque())
        while times and times[0] <= now - rate.window_seconds:
            times.popleft()
        times.append(now)
        if len(times) <= rate.most:
            return False
        self.times.clear()
        self.blocked_until = now + rate.block_seconds
        return True


@attrs.define(eq=False)
class RateLimiter:
    """
    Counts what addresses do, and blocks those that do it too often.

    C{now} is in seconds, of a clock that nobody sets.
    """

    _tracks: OrderedDict[str, _Track] = attrs.field(factory=OrderedDict, init=False)

    @property
    def tracked(self) -> int:
        """
        How many addresses are kept in mind.
        """
        return len(self._tracks)

    def blocked(self, address: str, now: float) -> bool:
        """
        Whether an address is blocked.
        """
        track = self._tracks.get(address)
        return track is not None and track.blocked(now)

    def count(self, address: str, what: str, rate: Rate, now: float) -> Counted:
        """
        Count one more of something. What a blocked address does counts no more:
        a block ends when it was said to end.
        """
        if self.blocked(address, now):
            return Counted()
        track = self._tracks.pop(address, None) or _Track()
        evicted = self._evict() if len(self._tracks) >= TRACKED_ADDRESSES else 0
        self._tracks[address] = track
        return Counted(track.count(what, rate, now), evicted)

    def clear(self) -> None:
        """
        Forget everything.
        """
        self._tracks.clear()

    def _evict(self) -> int:
        for _ in range(EVICTED_ADDRESSES):
            self._tracks.popitem(last=False)
        return EVICTED_ADDRESSES


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
class Opened:
    """
    There is room for the connection, and it now has it.
    """


@attrs.frozen
class Full:
    """
    There is no room for the connection.

    @ivar live: how many there are.
    @ivar news: whether that has not been said since there last was room.
    """

    live: int
    news: bool


@attrs.define(eq=False)
class Occupancy:
    """
    The connections there are, and which addresses hold those that have not
    proved to be a trusted dispatcher's.
    """

    live: int = attrs.field(default=0, init=False)
    _unproven: Counter[str] = attrs.field(factory=Counter, init=False)
    _full: bool = attrs.field(default=False, init=False)
    _crowding: set[str] = attrs.field(factory=set, init=False)

    def open(self, address: str, most: int) -> Opened | Full:
        """
        Give a connection its place.

        @param most: how many places there are.
        """
        if self.live >= most:
            news, self._full = not self._full, True
            return Full(self.live, news)
        if self._unproven[address] >= max(1, most // UNPROVEN_SHARE):
            news = address not in self._crowding
            self._crowding.add(address)
            return Full(self.live, news)
        # Half of it must be free again: a flood that stays at the limit would
        # else be a line of the log for each connection that ends.
        self._full = self._full and self.live > most // 2
        self.live += 1
        self._unproven[address] += 1
        return Opened()

    def prove(self, address: str) -> None:
        """
        A connection has proved to be a trusted dispatcher's.
        """
        self._leave(address)

    def close(self, address: str, *, proven: bool) -> None:
        """
        A connection is over.

        @param proven: whether L{prove} was told of it.
        """
        self.live -= 1
        if not proven:
            self._leave(address)

    def _leave(self, address: str) -> None:
        self._unproven[address] -= 1
        if not self._unproven[address]:
            del self._unproven[address]
            self._crowding.discard(address)
