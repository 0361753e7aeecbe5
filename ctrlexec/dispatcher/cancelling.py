# SPDX-License-Identifier: AGPL-3.0-only
"""
Ending a run: where it runs, with everything that it has started; where it has
not begun, before it does.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

from ctrlexec.dispatcher.accounts import cancelled
from ctrlexec.dispatcher.asking import Asking, Planned
from ctrlexec.dispatcher.dispatch import NOTHING_KNOWN
from ctrlexec.dispatcher.orders import Caller
from ctrlexec.dispatcher.recorded import recorded_rows
from ctrlexec.dispatcher.results import NEVER_BEGAN, CancelRow, Report, Watcher
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


HOW_TO_REPEAT = "to cancel it again does no harm: ctrl-exec cancel {reqid}"


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
    under_way = await is_under_way(ours, record.reqid)
    # Before anybody is asked to end it: nobody else is to begin meanwhile.
    unasked = frozenset[str]()
    if live is not None:
        unasked = frozenset(chosen) - live.asked
        live.end(hosts)
    warnings = await _noted(ours, record, chosen)
    never = await _never_asked(ours, record, is_over=under_way is False)

    async def ask(planned: Planned) -> CancelRow:
        if planned.name in never:
            state = never[planned.name]
            return CancelRow(host=planned.name, reqid=record.reqid, state=state)
        if planned.name in unasked:
            return CancelRow(host=planned.name, reqid=record.reqid, state=CANCELLED)
        row = await asking.dispatch.cancel(planned, record.reqid)
        if row.error == NOTHING_KNOWN and under_way and not warnings:
            # The order has not come to it, and does not any more.
            return attrs.evolve(row, state=CANCELLED, error=None, hint="")
        if row.error is not None and not row.hint:
            return attrs.evolve(row, hint=HOW_TO_REPEAT.format(reqid=record.reqid))
        return row

    def arrived(row: CancelRow) -> None:
        if live is not None and row.host in live.hurries:
            # Whatever its agent says: nobody is to wait for its end for ever.
            live.hurries[row.host]()
        asking.emit(cancelled(row, caller.username))
        watcher.arrived(row)

    plan = await reached(asking, record, chosen)
    rows = await asking.ask(plan, ask, watcher, arrived, record.reqid)
    return Report(rows, warnings, record.reqid)


async def _never_asked(
    ours: Dispatcher, record: RunRecord, *, is_over: bool
) -> dict[str, str]:
    """
    The hosts that have not begun, and do not any more, so that there is nothing
    to end; and why, in one word.

    @param is_over: whether nobody carries the order out any more.
    """
    with suppress(NotFound, StoreError):
        # What was written before the order was given up.
        record = await on_record(ours, record.reqid)
    return {
        row.host: row.outcome.value
        for row in recorded_rows(record)
        if row.outcome in NEVER_BEGAN and (is_over or row.host not in record.pending)
    }


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
