# SPDX-License-Identifier: AGPL-3.0-only
"""
An order is carried out once: whoever gives it again with the same key is told
what became of it the first time.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import attrs
from twisted.internet.task import deferLater

from ctrlexec.dispatcher.asking import Asking
from ctrlexec.dispatcher.course import Commission
from ctrlexec.dispatcher.keys import KeyTaken, key_hash, order_digest
from ctrlexec.dispatcher.orders import Caller, RunOrder
from ctrlexec.dispatcher.recorded import recorded_rows
from ctrlexec.dispatcher.results import Report, RunRow, Watcher
from ctrlexec.dispatcher.running import (
    POLL_SECONDS,
    carry_out,
    permitted,
    run_request,
)
from ctrlexec.dispatcher.runs import RunRecord
from ctrlexec.dispatcher.selection import Selected
from ctrlexec.dispatcher.tracing import Tracing, on_record
from ctrlexec.errors import Conflict, Locked, NotFound
from ctrlexec.protocol.messages import RunRequest

if TYPE_CHECKING:
    from ctrlexec.dispatcher.operations import Dispatcher


async def run(
    ours: Dispatcher, caller: Caller, order: RunOrder, watcher: Watcher[RunRow]
) -> Report[RunRow]:
    """
    See L{ctrlexec.dispatcher.operations.Dispatcher.run}.
    """
    request = run_request(caller, order)
    given = Commission(Asking.of(ours), caller, order, watcher)
    selected = await permitted(given, request)
    if order.key:
        return await _Keyed(ours, given, request).run(selected)
    with ours.process.live.carrying_out(request.reqid) as live:
        return await carry_out(given, request, selected, live)


@attrs.frozen
class _Keyed:
    """
    An order with a key.
    """

    ours: Dispatcher
    given: Commission
    request: RunRequest

    async def run(self, selected: Selected) -> Report[RunRow]:
        live, clock = self.ours.process.live, self.ours.process.reactor
        while True:
            first = await self._claimed()
            if first is not None:
                while live.get(first) is not None:
                    await deferLater(clock, POLL_SECONDS)
                with suppress(NotFound):
                    return await self._repeated(await on_record(self.ours, first))
            elif not live.has_key(self._key):
                report = await self._carried_out(selected)
                if report is not None:
                    return report
                continue
            # It is not on record yet, or not any more.
            await deferLater(clock, POLL_SECONDS)

    async def _claimed(self) -> str | None:
        """
        @return: the request id that the key stands for.
        @raise Conflict: it stands for something else.
        """
        runs, process = self.ours.stores.runs, self.ours.process
        found = await process.in_thread(runs.claimed, self._key, self._now)
        if found is None:
            return None
        if found.digest != order_digest(self.given.order):
            raise Conflict(
                "another order was given with this key",
                hint="a key stands for one order for a day",
            )
        return found.reqid

    async def _carried_out(self, selected: Selected) -> Report[RunRow] | None:
        """
        @return: C{None} if another process does that.
        """
        process, reqid = self.ours.process, self.request.reqid
        try:
            with process.live.carrying_out(reqid, self._key) as live:
                return await carry_out(self.given, self.request, selected, live)
        except KeyTaken:
            return None
        except Locked:
            # That may be the very same order, about to be put on record.
            await deferLater(process.reactor, POLL_SECONDS)
            if await self._claimed() is None:
                raise
            return None

    async def _repeated(self, record: RunRecord) -> Report[RunRow]:
        """
        What became of it the first time; if it still runs, when it has ended.
        """
        tracing = Tracing(self.given.asking)
        if not record.complete and not self.request.asynchronous:
            record = await tracing.awaited(record, self.ours.settings.read_timeout)
        elif record.unasked:
            # Nobody asks them any more.
            record = await tracing.traced(record)
        rows, watcher = recorded_rows(record), self.given.watcher
        watcher.planned(len(rows), record.reqid)
        for row in rows:
            watcher.arrived(row)
        return Report(rows, (), record.reqid, replayed=True)

    @property
    def _key(self) -> str:
        return key_hash(self.given.caller, self.given.order.key)

    @property
    def _now(self) -> float:
        return self.ours.process.now().timestamp()
