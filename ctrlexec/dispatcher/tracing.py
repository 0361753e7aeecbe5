# SPDX-License-Identifier: AGPL-3.0-only
"""
What became of a run that has begun: its record, with what its agents have to say
since.

An agent that can not be asked keeps nothing from being known of the others, and
takes nothing back that was known of it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from ctrlexec.dispatcher.accounts import settled
from ctrlexec.dispatcher.asking import Asking, Planned
from ctrlexec.dispatcher.authorisation import Question
from ctrlexec.dispatcher.dispatch import fan_out
from ctrlexec.dispatcher.inquiry import Told, inquire
from ctrlexec.dispatcher.orders import Caller, Door
from ctrlexec.dispatcher.pacing import Pacing
from ctrlexec.dispatcher.recorded import recorded_rows
from ctrlexec.dispatcher.run_record import (
    DONE,
    EXPIRED,
    NEVER_ASKED,
    Entry,
)
from ctrlexec.dispatcher.runs import RunRecord
from ctrlexec.errors import CtrlExecError, NotFound, StoreError
from ctrlexec.events import ResultFetched, ResultNotFetched, RunNotStored
from ctrlexec.values import HostPort, request_id

if TYPE_CHECKING:
    from ctrlexec.dispatcher.operations import Dispatcher

#: How long agents have to answer, however short somebody wants to wait.
LEAST_SECONDS = 1.0


async def status(ours: Dispatcher, caller: Caller, reqid: str) -> RunRecord:
    """
    See L{ctrlexec.dispatcher.operations.Dispatcher.status}.
    """
    record = await on_record(ours, reqid)
    await _visible(ours, caller, record)
    if record.complete or ours.process.reactor is None:
        return record
    return await Tracing.of(ours).traced(record)


async def wait(
    ours: Dispatcher, caller: Caller, reqid: str, seconds: float
) -> RunRecord:
    """
    See L{ctrlexec.dispatcher.operations.Dispatcher.wait}.
    """
    record = await on_record(ours, reqid)
    await _visible(ours, caller, record)
    if record.complete:
        return record
    return await Tracing.of(ours).awaited(record, seconds)


async def _visible(ours: Dispatcher, caller: Caller, record: RunRecord) -> None:
    """
    Who reads our key can read our records: no hook is asked about them.
    """
    if caller.door is not Door.COMMAND_LINE:
        await allowed(ours, caller, "status", record)


async def on_record(ours: Dispatcher, reqid: str) -> RunRecord:
    """
    What is on record of a run.

    @raise NotFound: nothing is, and this process does not carry it out.
    """
    now = ours.process.now().timestamp()
    reqid = request_id(reqid)
    try:
        return await ours.process.in_thread(ours.stores.runs.get, reqid, now)
    except NotFound:
        # Its record could not be written, perhaps.
        live = ours.process.live.get(reqid)
        if live is None or live.record is None:
            raise
        return live.record


async def allowed(
    ours: Dispatcher,
    caller: Caller,
    action: str,
    record: RunRecord,
    hosts: tuple[str, ...] | None = None,
) -> None:
    """
    @param hosts: where; C{None} for all hosts of the run.
    @raise NotAuthorised: the caller may not do that to somebody's run.
    """
    await ours.authorisation().require(
        caller,
        Question(
            action=action,
            hosts=record.hosts if hosts is None else hosts,
            script=record.script,
            reqid=record.reqid,
            submitter=record.submitter,
        ),
    )


def of_record(record: RunRecord, hosts: Sequence[str]) -> tuple[str, ...]:
    """
    Which hosts of a run are meant: all of them, if none is named.

    @raise NotFound: it does not go to one that is named.
    """
    foreign = [host for host in hosts if host not in record.hosts]
    if foreign:
        raise NotFound(
            f"run {record.reqid} does not go to {', '.join(foreign)}",
            hint=f"ctrl-exec status {record.reqid} shows its hosts",
        )
    return tuple(dict.fromkeys(hosts or record.hosts))


async def reached(
    asking: Asking, record: RunRecord, hosts: Sequence[str]
) -> list[Planned]:
    """
    Where the hosts of a run are reached.
    """
    named = [HostPort(host, record.port(host)) for host in hosts]
    return await asking.reached(named)


async def is_under_way(ours: Dispatcher, reqid: str) -> bool | None:
    """
    Whether somebody carries the order out, so that hosts may not have been asked
    for it yet. Its locks are taken before it is on record, and each is held until
    its host has answered.

    @return: C{None} where nobody can tell.
    """
    if ours.process.live.get(reqid) is not None:
        return True
    try:
        locked = await ours.process.in_thread(ours.stores.locks.listed)
    except StoreError:
        return None
    return any(each.reqid == reqid for each in locked)


def not_asked(ours: Dispatcher, record: RunRecord) -> frozenset[str]:
    """
    The hosts of a run that were not asked for it yet. Whoever carries the order
    out knows it better than the record, which is ahead of that.
    """
    live = ours.process.live.get(record.reqid)
    if live is None:
        return record.unasked
    return frozenset(record.pending) - live.asked


@attrs.frozen
class _News:
    """
    @ivar entry: what is known of the host now; see
        L{ctrlexec.dispatcher.run_record.Entry}.
    @ivar ours: whether it has answered as an agent of ours does.
    """

    host: str
    entry: Entry
    rtt_ms: int
    ours: bool


@attrs.frozen
class Tracing:
    """
    Asks agents what became of runs.
    """

    asking: Asking

    @classmethod
    def of(cls, ours: Dispatcher) -> Tracing:
        """
        @raise PkiError: the dispatcher has no identity that an agent would
            accept.
        """
        return cls(Asking.of(ours))

    async def traced(
        self,
        record: RunRecord,
        seconds: float | None = None,
        pacing: Pacing | None = None,
    ) -> RunRecord:
        """
        A record with what agents say now, which is kept.

        @param seconds: what is not known after that is left.
        @param pacing: which of them are asked; C{None} for all.
        """
        ours = self.asking.ours
        left = not_asked(ours, record)
        under_way = await is_under_way(ours, record.reqid)
        pacing = pacing or Pacing()
        due = pacing.due(record.pending, self._clock.seconds())
        news = await self._news(record, [h for h in due if h not in left], seconds)
        is_ours = {each.host: each.ours for each in news}
        for host in due:
            ours_there = is_ours.get(host, host in left)
            pacing.asked(host, self._clock.seconds(), ours=ours_there)
        if under_way is False:
            return await self._kept(record, news, left)
        # Whom it has not come to yet has not forgotten it.
        news = [each for each in news if each.entry.get("status") != EXPIRED]
        # Whoever carries it out and waits for it tells how it ends.
        is_told = under_way is True and record.fields.get("mode") == "sync"
        return await self._kept(record, news, is_told=is_told)

    async def noted(self, reqid: str, ended: Collection[str]) -> None:
        """
        Somebody has heard that a run has ended: its agents have all of what they
        have heard a part of, and that is kept.

        @param ended: where.
        """
        ours = self.asking.ours
        try:
            record = await on_record(ours, reqid)
        except (NotFound, StoreError):
            return
        hosts = [host for host in record.pending if host in ended]
        if not hosts or await is_under_way(ours, record.reqid) is not False:
            return
        news = await self._news(record, hosts, LEAST_SECONDS)
        await self._kept(record, [n for n in news if n.entry.get("status") == DONE])

    async def awaited(self, record: RunRecord, seconds: float) -> RunRecord:
        """
        The same, until it is complete.

        @param seconds: or until then.
        """
        clock, pacing = self._clock, Pacing()
        until = clock.seconds() + seconds
        while True:
            left = until - clock.seconds()
            record = await self.traced(record, max(left, LEAST_SECONDS), pacing)
            left = until - clock.seconds()
            if record.complete or left <= 0:
                return record
            pause = pacing.pause(record.pending, clock.seconds())
            await deferLater(clock, min(pause, left))

    # --- asking ----------------------------------------------------------

    async def _news(
        self, record: RunRecord, hosts: Sequence[str], seconds: float | None
    ) -> list[_News]:
        news: list[_News] = []
        asked = Deferred.fromCoroutine(self._asked(record, hosts, news))
        if seconds is not None:
            asked.addTimeout(seconds, self._clock)
        with suppress(DeferredTimeoutError):
            await asked
        return news

    async def _asked(
        self, record: RunRecord, hosts: Sequence[str], news: list[_News]
    ) -> None:
        await fan_out(
            await reached(self.asking, record, hosts),
            lambda each: self._ask(each, record.reqid),
            limit=self.asking.ours.settings.max_parallel,
            wanted=lambda: True,
            asked=lambda each: None,
            arrived=news.append,
        )

    async def _ask(self, planned: Planned, reqid: str) -> _News:
        since = self._clock.seconds()
        try:
            told = await inquire(self.asking, planned, reqid)
        except CancelledError:
            raise
        except CtrlExecError as error:
            why = f"{error}: {error.hint}" if error.hint else str(error)
            told = Told({"fetch_error": why})
        except Exception as error:
            told = Told({"fetch_error": f"internal error: {error!r}"})
        taken = round((self._clock.seconds() - since) * 1000)
        return _News(planned.name, told.entry, taken, told.ours)

    # --- what it means ---------------------------------------------------

    async def _kept(
        self,
        record: RunRecord,
        news: Sequence[_News],
        left: frozenset[str] = frozenset(),
        *,
        is_told: bool = False,
    ) -> RunRecord:
        """
        @param left: the hosts that nobody asks any more who was not asked yet.
        @param is_told: whether somebody else tells how it ends.
        """
        found = {each.host: each.entry for each in news}
        self._tell(record, news)
        ours, before = self.asking.ours, record

        def changed(stored: RunRecord) -> RunRecord:
            # Nobody else changes it meanwhile: what is new now is so only once.
            nonlocal before
            before = stored
            # Whoever has asked them meanwhile has written that before.
            never = dict.fromkeys(left & stored.unasked, NEVER_ASKED)
            return stored.with_entries({**found, **never})

        try:
            now = ours.process.now().timestamp()
            after = await ours.process.in_thread(
                ours.stores.runs.change, record.reqid, changed, now
            )
        except (StoreError, NotFound) as error:
            # Whoever asks now knows it all the same.
            self.asking.emit(RunNotStored(record.reqid, str(error)))
            return changed(record)
        if not is_told:
            self._settle(before, after)
        return after

    def _settle(self, before: RunRecord, after: RunRecord) -> None:
        new = {*before.pending} - {*after.pending}
        for row in recorded_rows(after) if new else ():
            if row.host in new:
                self.asking.emit(settled(row))

    def _tell(self, record: RunRecord, news: Sequence[_News]) -> None:
        for each in news:
            entry, rtt = each.entry, f"{each.rtt_ms}ms"
            known = record.entry(each.host)
            if all(known.get(name) == value for name, value in entry.items()):
                # It is asked often, and says the same each time.
                continue
            error, status = entry.get("fetch_error"), entry.get("status")
            self.asking.emit(
                ResultNotFetched(each.host, error, rtt, record.reqid)
                if error is not None
                else ResultFetched(each.host, str(status), rtt, record.reqid)
            )

    @property
    def _clock(self) -> IReactorTime:
        clock: IReactorTime = self.asking.ours.process.reactor
        return clock
