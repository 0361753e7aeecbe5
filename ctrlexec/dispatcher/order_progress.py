# SPDX-License-Identifier: AGPL-3.0-only
"""
How far an order has come that somebody carries out, for whoever looks on: which
of its hosts were asked, and whether the others will be.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from ctrlexec.dispatcher.asking import Asking
from ctrlexec.dispatcher.outcomes import not_started
from ctrlexec.dispatcher.recorded import recorded_rows
from ctrlexec.dispatcher.results import RunRow
from ctrlexec.dispatcher.runs import RunRecord
from ctrlexec.dispatcher.tracing import is_under_way, on_record
from ctrlexec.errors import NotFound, StoreError

#: How often it is looked, in seconds.
LOOK_SECONDS = 0.5


@attrs.frozen
class _Known:
    """
    What a record says, for many to look at.
    """

    rows: Mapping[str, RunRow]
    pending: frozenset[str]
    unasked: frozenset[str]

    @classmethod
    def of(cls, record: RunRecord) -> _Known:
        rows = {row.host: row for row in recorded_rows(record)}
        return cls(rows, frozenset(record.pending), record.unasked)


@attrs.define(eq=False)
class OrderProgress:
    """
    @ivar record: what is on record of it, as it was when somebody looked last.
    """

    asking: Asking
    record: RunRecord
    _known: _Known = attrs.field(init=False)
    _goes_on: bool = attrs.field(default=True, init=False)
    _looked: float | None = attrs.field(default=None, init=False)

    @_known.default
    def _at_first(self) -> _Known:
        return _Known.of(self.record)

    def is_known(self, host: str) -> bool:
        """
        Whether it was known when somebody looked last what became of a host.
        """
        return host in self._known.rows and host not in self._known.pending

    async def turn(self, host: str) -> RunRow | None:
        """
        Wait until a host is asked.

        @return: what became of it, if that is known; C{None} if its agent knows.
        """
        while True:
            row = self._known.rows.get(host)
            if row is None or self.is_known(host):
                return row
            if self._was_asked(host):
                return None
            if not await self.goes_on() and host in self._known.unasked:
                return not_started(row)
            if not self.is_known(host) and not self._was_asked(host):
                await self.pause(LOOK_SECONDS)

    async def goes_on(self) -> bool:
        """
        Whether more of its hosts may be asked.
        """
        now = self._clock.seconds()
        if self._looked is not None and now - self._looked < LOOK_SECONDS:
            return self._goes_on
        self._looked = now
        ours, reqid = self.asking.ours, self.record.reqid
        # In this order: what is on record then is all that was asked.
        goes_on = await is_under_way(ours, reqid) is not False
        with suppress(NotFound, StoreError):
            self.record = await on_record(ours, reqid)
            self._known = _Known.of(self.record)
        self._goes_on = goes_on
        return goes_on

    async def pause(self, seconds: float) -> None:
        """
        Wait a little.
        """
        await deferLater(self._clock, seconds)

    def _was_asked(self, host: str) -> bool:
        live = self.asking.ours.process.live.get(self.record.reqid)
        # The record is ahead of that.
        return host not in self._known.unasked if live is None else host in live.asked

    @property
    def _clock(self) -> IReactorTime:
        clock: IReactorTime = self.asking.ours.process.reactor
        return clock
