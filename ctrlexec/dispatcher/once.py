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
from ctrlexec.dispatcher.keys import key_hash, order_digest
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
from ctrlexec.errors import Conflict, NotFound, StoreError
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
        process, settings = self.ours.process, self.ours.settings
        clock = process.reactor
        until = clock.seconds() + settings.connect_timeout + settings.read_timeout
        while True:
            first = await self._claimed()
            if first == self.request.reqid:
                return await self._carry_out(selected)
            while process.live.get(first) is not None:
                await deferLater(clock, POLL_SECONDS)
            try:
                return await self._repeated(await on_record(self.ours, first))
            except NotFound:
                # It is locked out, and may go away; or it was killed just then.
                if clock.seconds() >= until:
                    raise Conflict(
                        "another order with this key was begun, and nothing is "
                        "known of it",
                        hint=f"look for {first} in the log; another key is another "
                        "order",
                    ) from None
            await deferLater(clock, POLL_SECONDS)

    async def _claimed(self) -> str:
        """
        @return: the request id that the key stands for.
        @raise Conflict: it stands for something else.
        """
        digest = order_digest(self.given.order)
        runs, process = self.ours.stores.runs, self.ours.process
        found = await process.in_thread(
            runs.claim, self._key, self.request.reqid, digest, self._now
        )
        if found.digest != digest:
            raise Conflict(
                "another order was given with this key",
                hint="a key stands for one order for a day",
            )
        return found.reqid

    async def _carry_out(self, selected: Selected) -> Report[RunRow]:
        process, reqid = self.ours.process, self.request.reqid
        with process.live.carrying_out(reqid) as live:
            try:
                return await carry_out(self.given, self.request, selected, live)
            except BaseException:
                if not live.asked:
                    with suppress(StoreError):
                        self.ours.stores.runs.unclaim(self._key, reqid, self._now)
                raise

    async def _repeated(self, record: RunRecord) -> Report[RunRow]:
        """
        What became of it the first time; if it still runs, when it has ended.
        """
        if not record.complete and not self.request.asynchronous:
            tracing = Tracing(self.given.asking)
            record = await tracing.awaited(record, self.ours.settings.read_timeout)
        rows, watcher = recorded_rows(record), self.given.watcher
        watcher.planned(len(rows), record.reqid)
        for row in rows:
            watcher.arrived(row)
        return Report(rows, (), record.reqid)

    @property
    def _key(self) -> str:
        return key_hash(self.given.caller, self.given.order.key)

    @property
    def _now(self) -> float:
        return self.ours.process.now().timestamp()
