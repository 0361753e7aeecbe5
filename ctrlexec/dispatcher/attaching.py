# SPDX-License-Identifier: AGPL-3.0-only
"""
Hearing what a run writes that has begun: from where somebody has left it, until
it ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs
from twisted.internet.defer import Deferred

from ctrlexec.dispatcher.asking import Asking, Planned
from ctrlexec.dispatcher.dispatch import Heard
from ctrlexec.dispatcher.heard import Kept, noting, tell
from ctrlexec.dispatcher.order_progress import LOOK_SECONDS, OrderProgress
from ctrlexec.dispatcher.orders import Caller, Seen
from ctrlexec.dispatcher.results import Outcome, Report, RunRow, Watcher
from ctrlexec.dispatcher.run_record import is_open
from ctrlexec.dispatcher.tracing import (
    Tracing,
    allowed,
    of_record,
    on_record,
    reached,
)
from ctrlexec.events import AttachBegun
from ctrlexec.protocol.run_messages import Output, StateChanged

if TYPE_CHECKING:
    from ctrlexec.dispatcher.operations import Dispatcher

#: How long is waited at the most before an agent is asked again, in seconds.
LONGEST_PAUSE = 8.0


async def attach(
    ours: Dispatcher,
    caller: Caller,
    reqid: str,
    hosts: tuple[str, ...],
    seen: Mapping[str, Seen],
    watcher: Watcher[RunRow],
    *,
    bare: bool = False,
) -> Report[RunRow]:
    """
    See L{ctrlexec.dispatcher.operations.Dispatcher.attach}.
    """
    record = await on_record(ours, reqid)
    chosen = of_record(record, hosts)
    await allowed(ours, caller, "status", record, chosen)
    asking = Asking.of(ours)
    where = ",".join(chosen)
    asking.emit(AttachBegun(record.script, where, record.reqid, caller.username))
    progress = OrderProgress(asking, record)
    attaching = _Attaching(asking, progress, seen, watcher, bare)
    plan = await reached(asking, record, chosen)
    rows = await asking.ask(plan, attaching.ask, watcher, watcher.arrived, record.reqid)
    ended = {row.host for row in rows if not is_open(row)}
    await Tracing(asking).noted(record.reqid, ended)
    stopped = progress.record.stopped
    return Report(rows, (), record.reqid, stopped=stopped)


@attrs.frozen
class _Attaching:
    """
    @ivar progress: how far the order has come.
    @ivar seen: how much the watcher has had from each host.
    @ivar bare: whether rows are wanted without what was heard of them.
    """

    asking: Asking
    progress: OrderProgress
    seen: Mapping[str, Seen]
    watcher: Watcher[RunRow]
    bare: bool

    async def ask(self, planned: Planned) -> RunRow:
        """
        Hear one host.
        """
        row = await self._heard_out(planned)
        return attrs.evolve(row, stdout="", stderr="") if self.bare else row

    async def _heard_out(self, planned: Planned) -> RunRow:
        """
        What is on record is told at once: only where somebody has seen a part of
        it the agent is asked, since it knows to the byte which.
        """
        host = planned.name
        seen, pause = self.seen.get(host, Seen()), LOOK_SECONDS
        while True:
            ended = await self.progress.turn(host)
            if ended is not None and (seen == Seen() or ended.error is not None):
                return await self._told(ended, Seen())
            # Nothing of it is kept, but how much it was.
            kept = Kept.since(seen, 0)
            heard = _begun(await self._followed(planned, kept))
            if ended is not None and heard.error is not None:
                return await self._told(ended, kept.seen)
            is_lost = heard.outcome is Outcome.UNKNOWN and heard.error is not None
            if not is_lost or kept.events:
                return heard
            goes_on = await self.progress.goes_on()
            if self.progress.is_known(host):
                continue
            if not goes_on:
                return heard
            # It may be on its way there; or whoever has asked for it knows more.
            await self.progress.pause(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _followed(self, planned: Planned, kept: Kept) -> RunRow:
        record, following = self.progress.record, self.asking.following()
        if self.bare:
            following = attrs.evolve(following, most=0)
        row = RunRow(
            host=planned.name,
            script=record.script,
            reqid=record.reqid,
            outcome=Outcome.UNKNOWN,
        )
        told = noting(kept, self._heard(planned.name))
        return await following.attach(planned, row, kept.seen, told, record.timeout)

    async def _told(self, row: RunRow, seen: Seen) -> RunRow:
        await tell(self._heard(row.host), seen, row)
        return row

    def _heard(self, host: str) -> Heard:
        def heard(event: Output | StateChanged) -> Deferred[None] | None:
            return self.watcher.heard(host, event)

        return heard


def _begun(row: RunRow) -> RunRow:
    """
    Nobody who could not be asked now says that it was not asked for then.
    """
    if row.outcome in (Outcome.UNREACHABLE, Outcome.REFUSED):
        return attrs.evolve(row, outcome=Outcome.UNKNOWN)
    return row
