# SPDX-License-Identifier: AGPL-3.0-only
"""
How often an address may do something before it is turned away for a while
(PROTOCOL.md section 5, NEWER-LINE.md section 5).

All of it is bookkeeping with a bound: whatever strangers do, it holds no more
than so many addresses, and each question takes the same short time.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

import attrs

from ctrlexec.events import RateBlocked, RateEvicted
from ctrlexec.interfaces import IEventSink
from ctrlexec.values import Rate as Rate

#: How many addresses are kept in mind.
TRACKED_ADDRESSES: Final = 1000
#: How many are forgotten at once when there is one more: to forget one each
#: time would be a line of the log each time, and a search each time.
EVICTED_ADDRESSES: Final = 100

VOLUME: Final = "volume"
PROBE: Final = "probe"


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
        evicted = self._evict(now) if len(self._tracks) >= TRACKED_ADDRESSES else 0
        self._tracks[address] = track
        return Counted(track.count(what, rate, now), evicted)

    def clear(self) -> None:
        """
        Forget everything.
        """
        self._tracks.clear()

    def _evict(self, now: float) -> int:
        """
        Those that are not blocked go first: to come once costs an attacker less
        than to be blocked, and must not end the block of another. It looks at
        all of them, which so many newcomers share.
        """
        free: list[str] = []
        held: list[str] = []
        for address, track in self._tracks.items():
            (held if track.blocked(now) else free).append(address)
        for address in (free + held)[:EVICTED_ADDRESSES]:
            del self._tracks[address]
        return EVICTED_ADDRESSES


@attrs.define(eq=False)
class RateLimits:
    """
    The limits of a port: what addresses do is counted for each source, and the
    log hears of it once.

    @ivar seconds: tells the time, of a clock that nobody sets.
    """

    events: IEventSink
    seconds: Callable[[], float]
    _limiter: RateLimiter = attrs.field(factory=RateLimiter, init=False)

    def blocked(self, address: str) -> bool:
        """
        Whether an address is turned away.
        """
        return self._limiter.blocked(source_of(address), self.seconds())

    def too_often(self, address: str, what: str, rate: Rate) -> bool:
        """
        Count one more of something.

        @param what: L{VOLUME} or L{PROBE}; the log's word for it.
        @return: whether it was once too often, and the address is blocked now.
        """
        counted = self._limiter.count(source_of(address), what, rate, self.seconds())
        if counted.evicted:
            self.events.emit(RateEvicted(counted.evicted))
        if counted.blocks:
            self.events.emit(RateBlocked(address, what))
        return counted.blocks

    def forget(self) -> None:
        """
        Forget what addresses did, and end their blocks.
        """
        self._limiter.clear()


def source_of(address: str) -> str:
    """
    Whose doings are counted together: an IPv4 address by itself, and the whole
    /64 of an IPv6 address, since one host can have any of it.
    """
    try:
        source = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(source, IPv6Address):
        return str(ip_network((source, 64), strict=False))
    return str(source)
