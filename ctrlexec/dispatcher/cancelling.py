# SPDX-License-Identifier: AGPL-3.0-only
"""
Ending a run: where it runs, with everything that it has started; where it has
not begun, before it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from ctrlexec.dispatcher.accounts import cancelled
from ctrlexec.dispatcher.asking import Asking, Planned
from ctrlexec.dispatcher.dispatch import NOTHING_KNOWN
from ctrlexec.dispatcher.orders import Caller
from ctrlexec.dispatcher.results import CancelRow, Report, Watcher
from ctrlexec.dispatcher.runs import RunRecord
from ctrlexec.dispatcher.tracing import (
    allowed,
    is_under_way,
    of_record,
    on_record,
    reached,
)
from ctrlexec.errors import NotFound, StoreError
from ctrlexec.events import RunNotStored
from ctrlexec.protocol.run_messages import CANCELLED

if TYPE_CHECKING:
    from ctrlexec.dispatcher.operations import Dispatcher


async def cancel(
    ours: Dispatcher,
    caller: Caller,
    reqid: str,
    hosts: tuple[str, ...],
    watcher: Watcher[CancelRow],
) -> Report[CancelRow]:
    """
    See L{ctrlexec.dispatcher.operations.Dispatcher.cancel}.
    """
    record = await on_record(ours, reqid)
    chosen = of_record(record, hosts)
    await allowed(ours, caller, "cancel", record, chosen)
    asking = Asking.of(ours)
    live = ours.process.live.get(record.reqid)
    under_way = await is_under_way(ours, record)
    # Before anybody is asked to end it: nobody else is to begin meanwhile.
    unasked = frozenset[str]()
    if live is not None:
        unasked = frozenset(chosen) - live.asked
        live.end(hosts)
    warnings = await _noted(ours, record, chosen)

    async def ask(planned: Planned) -> CancelRow:
        if planned.name in unasked:
            return CancelRow(host=planned.name, reqid=record.reqid, state=CANCELLED)
        row = await asking.dispatch.cancel(planned, record.reqid)
        if row.error == NOTHING_KNOWN and under_way and not warnings:
            # The order has not come to it, and does not any more.
            return attrs.evolve(row, state=CANCELLED, error=None, hint="")
        return row

    def arrived(row: CancelRow) -> None:
        asking.emit(cancelled(row, caller.username))
        watcher.arrived(row)

    plan = await reached(asking, record, chosen)
    rows = await asking.ask(plan, ask, watcher, arrived, record.reqid)
    return Report(rows, warnings, record.reqid)


async def _noted(
    ours: Dispatcher, record: RunRecord, hosts: tuple[str, ...]
) -> tuple[str, ...]:
    """
    Tell whoever else carries the order out, between two of its lots.

    @return: a warning, or none.
    """
    if record.complete:
        return ()
    now = ours.process.now().timestamp()
    try:
        await ours.process.in_thread(
            ours.stores.runs.change,
            record.reqid,
            lambda stored: stored.with_cancelled(hosts),
            now,
        )
    except (StoreError, NotFound) as error:
        ours.events.emit(RunNotStored(record.reqid, str(error)))
        return (f"another process may go on with the order: {error}",)
    return ()
