# SPDX-License-Identifier: AGPL-3.0-only
"""
An order that goes over its hosts in lots: how large each is, and whether the
next one is asked at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from ctrlexec.dispatcher.orders import Rolling


def lots(total: int, rolling: Rolling | None) -> Sequence[int]:
    """
    @param total: how many hosts there are.
    @return: how many are asked in each lot, in their order. None is empty.
    """
    if rolling is None:
        return (total,) if total else ()
    canary = min(rolling.canary, total)
    left = total - canary
    # A portion of few hosts may be none of them, and nobody would be asked.
    batch = max(1, rolling.batch.of(total)) if rolling.batch else left
    found = [canary] if canary else []
    while left:
        found.append(min(batch, left))
        left -= found[-1]
    return tuple(found)


@attrs.define
class Tally:
    """
    What has come of an order so far.

    @ivar total: how many hosts there are.
    """

    total: int
    rolling: Rolling
    _ended: int = attrs.field(default=0, init=False)
    _failed: int = attrs.field(default=0, init=False)

    def count(self, ok: bool) -> None:
        """
        One more host has ended.
        """
        self._ended += 1
        self._failed += not ok

    def why_stopped(self) -> str:
        """
        @return: why nobody else is to be asked, in a few words; empty if there
            is no reason. Once there is one, it stays.
        """
        canary = min(self.rolling.canary, self.total)
        if self._failed and self._ended <= canary:
            return "the canary has failed"
        most = self.rolling.max_failures
        if most is None or self._failed <= most.of(self.total):
            return ""
        return f"more than {most} have failed" if most.number else "one has failed"
