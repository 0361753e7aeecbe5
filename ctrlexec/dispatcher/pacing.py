# SPDX-License-Identifier: AGPL-3.0-only
"""
How often agents are asked what became of a run while somebody waits for it: one of
ours soon at first, and then less often. One of the original line takes ten
connections in a minute, and none for five after more than that; so may one that
does not answer.
"""

from __future__ import annotations

from collections.abc import Collection

import attrs

#: How long is waited before an agent is asked again: that long at first, twice as
#: long each time, and no longer than that; in seconds.
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 2.0
#: The same for one that is not known to be ours.
FIRST_SLOW_PAUSE, LONGEST_SLOW_PAUSE = 2.0, 10.0


@attrs.define(eq=False)
class Pacing:
    """
    When each host is asked next, in the seconds of some clock.
    """

    _due: dict[str, float] = attrs.field(factory=dict, init=False)
    _pauses: dict[str, float] = attrs.field(factory=dict, init=False)

    def due(self, hosts: Collection[str], now: float) -> list[str]:
        """
        @return: which of them are to be asked now.
        """
        return [host for host in hosts if self._due.get(host, now) <= now]

    def asked(self, host: str, now: float, *, ours: bool) -> None:
        """
        A host has been asked.

        @param ours: whether it has answered as one of ours does.
        """
        first, longest = FIRST_PAUSE, LONGEST_PAUSE
        if not ours:
            first, longest = FIRST_SLOW_PAUSE, LONGEST_SLOW_PAUSE
        pause = max(self._pauses.get(host, first), first)
        self._due[host] = now + pause
        self._pauses[host] = min(2 * pause, longest)

    def pause(self, hosts: Collection[str], now: float) -> float:
        """
        @return: for how many seconds nobody is to be asked.
        """
        due = [self._due.get(host, now) for host in hosts]
        return max(0.0, min(due, default=now) - now)
