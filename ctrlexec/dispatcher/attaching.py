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
from ctrlexec.dispatcher.following import Kept, noting, tell
from ctrlexec.dispatcher.orders import Caller, Seen
from ctrlexec.dispatcher.recorded import recorded_rows
from ctrlexec.dispatcher.results import Outcome, Report, RunRow, Watcher
from ctrlexec.dispatcher.runs import RunRecord
from ctrlexec.dispatcher.tracing import allowed, of_record, on_record, reached
from ctrlexec.events import AttachBegun
from ctrlexec.protocol.run_messages import Output, StateChanged

if TYPE_CHECKING:
    from ctrlexec.dispatcher.operations import Dispatcher


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
    attaching = _Attaching(asking, _ended(record), record, seen, watcher, bare)
    plan = await reached(asking, record, chosen)
    rows = await asking.ask(plan, attaching.ask, watcher, watcher.arrived, record.reqid)
    return Report(rows, (), record.reqid)


def _ended(record: RunRecord) -> Mapping[str, RunRow]:
    """
    The hosts of which it is known already what became of it there.
    """
    rows = {row.host: row for row in recorded_rows(record)}
    return {host: row for host, row in rows.items() if host not in record.pending}


@attrs.frozen
class _Attaching:
    """
    @ivar ended: see L{_ended}.
    @ivar seen: how much the watcher has had from each host.
    @ivar bare: whether rows are wanted without what was heard of them.
    """

    asking: Asking
    ended: Mapping[str, RunRow]
    record: RunRecord
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
        seen, ended = self.seen.get(host, Seen()), self.ended.get(host)
        if ended is not None and (seen == Seen() or ended.error is not None):
            return await self._told(ended, Seen())
        row = RunRow(
            host=host,
            script=self.record.script,
            reqid=self.record.reqid,
            outcome=Outcome.UNKNOWN,
        )
        following = self.asking.following()
        if self.bare:
            following = attrs.evolve(following, most=0)
        # Nothing of it is kept, but how much it was.
        kept = Kept.since(seen, 0)
        told = noting(kept, self._heard(host))
        heard = await following.attach(planned, row, seen, told)
        if ended is not None and heard.error is not None:
            return await self._told(ended, kept.seen)
        return heard

    async def _told(self, row: RunRow, seen: Seen) -> RunRow:
        await tell(self._heard(row.host), seen, row)
        return row

    def _heard(self, host: str) -> Heard:
        def heard(event: Output | StateChanged) -> Deferred[None] | None:
            return self.watcher.heard(host, event)

        return heard
