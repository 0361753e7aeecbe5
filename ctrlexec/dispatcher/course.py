# SPDX-License-Identifier: AGPL-3.0-only
"""
The way that an order takes over its hosts: on record before the first is asked,
in lots, and kept as far as it has come. There are over 400 lines, since what is
asked and what is on record of it go together.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from itertools import islice

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from ctrlexec.dispatcher.accounts import answered, submitted
from ctrlexec.dispatcher.asking import Asking, Planned
from ctrlexec.dispatcher.dispatch import Heard, fan_out
from ctrlexec.dispatcher.keys import KeyTaken, key_hash, order_digest
from ctrlexec.dispatcher.live_orders import LiveOrder
from ctrlexec.dispatcher.means import InThread
from ctrlexec.dispatcher.orders import Caller, Rolling, RunOrder
from ctrlexec.dispatcher.outcomes import lost, not_started, nowhere
from ctrlexec.dispatcher.overtime import Overtime
from ctrlexec.dispatcher.registry import Unknown
from ctrlexec.dispatcher.results import (
    Outcome,
    RunRow,
    Watcher,
    run_fields,
)
from ctrlexec.dispatcher.rolling import Tally, lots
from ctrlexec.dispatcher.run_record import (
    ACCEPTED,
    NOT_ASKED,
    Entry,
    entry_of,
    is_open,
)
from ctrlexec.dispatcher.runs import RunRecord
from ctrlexec.dispatcher.selection import Selected
from ctrlexec.dispatcher.turns import Turns
from ctrlexec.errors import NotFound, StoreError
from ctrlexec.events import (
    DispatchStopped,
    RunNotStored,
)
from ctrlexec.interfaces import IRunStore
from ctrlexec.protocol.messages import RunRequest
from ctrlexec.protocol.run_messages import Output, StateChanged
from ctrlexec.values import (
    Submitter,
    Target,
)

#: How often somebody is looked for who waits between two lots, in seconds.
POLL_SECONDS = 0.2
#: How old may be what is known of whether another process has ended the order, in
#: seconds. Agents that know a cancel would not begin it anyway; others would.
LOOK_SECONDS = 1.0


@attrs.frozen
class Commission:
    """
    An order, and who has given it.

    @ivar watcher: who looks on.
    """

    asking: Asking
    caller: Caller
    order: RunOrder
    watcher: Watcher[RunRow]


@attrs.frozen
class Course:
    """
    The way that an order takes over its hosts.

    @ivar rows: what has come of it so far.
    @ivar turns: whose turn it is.
    """

    given: Commission
    request: RunRequest
    selected: Selected
    plan: Sequence[Planned]
    live: LiveOrder
    rows: list[RunRow] = attrs.field(factory=list)
    turns: Turns = attrs.field(init=False)

    @turns.default
    def _turns(self) -> Turns:
        names = iter([each.name for each in self.plan])
        sizes = lots(len(self.plan), self.given.order.rolling or Rolling())
        in_lots = [[*islice(names, size)] for size in sizes]
        most = self.given.asking.ours.settings.max_parallel
        return Turns(in_lots, most, self._note_asked)

    async def begin(self) -> None:
        """
        Put it on record.

        @raise StoreError: that is not possible, and nobody would wait for it; or
            it was given with a key, which would stand for nothing.
        @raise KeyTaken: another one is on record with that key.
        """
        request, caller = self.request, self.given.caller
        first = self.turns.first()
        self.live.record = record = RunRecord.begun(
            reqid=request.reqid,
            script=request.script,
            mode="async" if request.asynchronous else "sync",
            hosts={each.name: self._beginning(each, first) for each in self.plan},
            ports=self._ports(),
            created=self._now(),
            submitter=Submitter(caller.username, caller.source_ip),
            timeout=request.timeout,
        )
        try:
            await self._put(record)
        except StoreError as error:
            self._unkept(error)
            if request.asynchronous or self.given.order.key:
                raise

    async def _put(self, record: RunRecord) -> None:
        caller, order = self.given.caller, self.given.order
        if not order.key:
            await self._in_thread(self._runs.put, record)
            return
        key, digest = key_hash(caller, order.key), order_digest(order)
        claim = await self._in_thread(
            self._runs.claim, key, digest, record, self._now()
        )
        if claim.reqid != record.reqid:
            raise KeyTaken("another order with this key is on record")

    async def run(self, released: Callable[[str], None]) -> tuple[str, ...]:
        """
        Ask for it.

        @param released: is told of each host when it has ended there.
        @return: a warning, if not everybody was asked because others failed.
        """
        given, watcher = self.given, self.given.watcher
        rolling = given.order.rolling or Rolling()
        tally = Tally(len(self.plan), rolling)

        def arrived(row: RunRow) -> None:
            self.rows.append(row)
            if row.outcome is not Outcome.NOT_STARTED:
                tally.count(row.ok)
            released(row.host)
            accounted = submitted if self.request.asynchronous else answered
            given.asking.emit(accounted(row))
            watcher.arrived(row)

        async def ask(planned: Planned) -> RunRow:
            await self._look(LOOK_SECONDS)
            if tally.why_stopped() or not self.live.wants(planned.name):
                return not_started(self._row(planned))
            if isinstance(planned, Target):
                await self.turns.come(planned.name)
                if tally.why_stopped() or not self.live.wants(planned.name):
                    return not_started(self._row(planned))
            return await self._asked(planned)

        self.live.looked = self._clock.seconds()
        watcher.planned(len(self.plan), self.request.reqid)
        try:
            await self._ask_in_lots(rolling, tally, ask, arrived)
        except Exception:
            # Who has given the order has left, and others may still ask.
            self._keep_later()
            raise
        return self._stopped(tally.why_stopped())

    async def _ask_in_lots(
        self,
        rolling: Rolling,
        tally: Tally,
        ask: Callable[[Planned], Awaitable[RunRow]],
        arrived: Callable[[RunRow], None],
    ) -> None:
        given, start = self.given, 0
        for size in lots(len(self.plan), rolling):
            if start and not tally.why_stopped():
                await self._between(rolling.wait_seconds, self.plan[start:])
            await fan_out(
                self.plan[start : start + size],
                ask,
                limit=given.asking.ours.settings.max_parallel,
                wanted=given.watcher.wanted,
                asked=lambda planned: None,
                arrived=arrived,
            )
            start += size

    async def keep(self, *, stopped: bool = False) -> tuple[str, ...]:
        """
        Keep the results for whoever asks later. If that fails, whoever asks
        now has them all the same.

        @param stopped: whether hosts were left out since others had failed.
        @return: a warning, or none.
        """
        try:
            if self.request.asynchronous:
                await self._keep_entries(stopped)
            else:
                await self._keep_results(self._results(stopped))
        except (StoreError, NotFound) as error:
            self._unkept(error)
            return (f"the results are not kept, status will not know them: {error}",)
        return ()

    def _keep_later(self) -> None:
        """
        The same, where nobody waits for it.
        """

        def failed(fault: Failure) -> None:
            self._unkept(fault.value)

        Deferred.fromCoroutine(self.keep()).addErrback(failed)

    # --- one host --------------------------------------------------------

    def _row(self, planned: Planned) -> RunRow:
        return RunRow(
            host=planned.name,
            script=self.request.script,
            reqid=self.request.reqid,
            outcome=Outcome.UNKNOWN,
        )

    async def _asked(self, planned: Planned) -> RunRow:
        given, host = self.given, planned.name
        self.live.asked.add(host)
        given.watcher.asked(host)
        heard: Heard | None = None
        if given.order.follow and not self.request.asynchronous:

            def heard(event: Output | StateChanged) -> Deferred[None] | None:
                return given.watcher.heard(host, event)

        following = given.asking.following()
        known = following.may_repeat

        async def may_repeat(target: Target, script: str) -> bool:
            return self.live.wants(target.name) and await known(target, script)

        following = attrs.evolve(following, may_repeat=may_repeat)
        overtime = Overtime(self._clock)
        self.live.hurries[host] = overtime.hurry
        try:
            return await following.run(planned, self.request, heard, overtime)
        finally:
            del self.live.hurries[host]

    # --- between two lots ------------------------------------------------

    async def _between(self, seconds: float, left: Sequence[Planned]) -> None:
        """
        Wait, for as long as anybody does, and there is somebody to be asked.

        @param left: who is to be asked after that.
        """
        clock = self._clock
        until = clock.seconds() + seconds
        while (more := until - clock.seconds()) > 0:
            await self._look(LOOK_SECONDS)
            wanted = any(self.live.wants(each.name) for each in left)
            if not wanted or not self.given.watcher.wanted():
                return
            await deferLater(clock, min(more, POLL_SECONDS))
        await self._look(0.0)

    async def _look(self, seconds: float) -> None:
        """
        Look whether another process has ended it on some hosts.

        @param seconds: not if somebody has looked within that time.
        """
        now = self._clock.seconds()
        if now - self.live.looked < seconds:
            return
        self.live.looked, reqid = now, self.request.reqid
        try:
            version = await self._in_thread(self._runs.version, reqid)
            if version == self.live.version:
                return
            self.live.version = version
            record = await self._in_thread(self._runs.get, reqid, self._now())
        except (NotFound, StoreError):
            return
        if record.cancelled:
            self.live.end(record.cancelled)

    def _stopped(self, why: str) -> tuple[str, ...]:
        left = sum(row.outcome is Outcome.NOT_STARTED for row in self.rows)
        if not why or not left:
            return ()
        request = self.request
        self.given.asking.emit(
            DispatchStopped(request.script, request.reqid, left, why)
        )
        return (f"{why}: not started on {left} of {len(self.plan)} hosts",)

    # --- the record ------------------------------------------------------

    def _beginning(self, planned: Planned, first: Collection[str]) -> Entry:
        if isinstance(planned, Unknown):
            return entry_of(nowhere(self._row(planned), planned))
        return {"status": ACCEPTED} if planned.name in first else NOT_ASKED

    async def _note_asked(self, hosts: Collection[str]) -> None:
        """
        Put it on record that some hosts are asked now. Where that is not possible
        any more nobody else is asked: it would be taken for sure later that they
        were not.
        """
        news = {host: {"status": ACCEPTED} for host in hosts}

        def asked(record: RunRecord) -> RunRecord:
            return record.with_entries(news)

        if self.live.record is not None:
            self.live.record = asked(self.live.record)
        try:
            record = await self._in_thread(
                self._runs.change, self.request.reqid, asked, self._now()
            )
        except NotFound:
            # It was not possible from the beginning.
            return
        except StoreError as error:
            self._unkept(error)
            self.live.end(())
            return
        if record.cancelled:
            self.live.end(record.cancelled)

    def _ports(self) -> Mapping[str, int]:
        named = {each.host: each.port for each in self.selected.hosts}
        return {host: port for host, port in named.items() if port is not None}

    def _all(self) -> list[RunRow]:
        """
        What is known of every host, those included whose answer nobody waited
        for.
        """
        known = {row.host for row in self.rows}
        left = [each for each in self.plan if each.name not in known]
        return self.rows + [
            lost(self._row(each))
            if each.name in self.live.asked
            else not_started(self._row(each))
            for each in left
        ]

    def _results(self, stopped: bool) -> RunRecord:
        rows, caller = self._all(), self.given.caller
        pending = [row.host for row in rows if is_open(row)]
        return RunRecord.sync(
            reqid=self.request.reqid,
            script=self.request.script,
            hosts=tuple(each.host for each in self.selected.hosts),
            results=[run_fields(row) for row in rows],
            completed=self._now(),
            submitter=Submitter(caller.username, caller.source_ip),
            pending=pending,
            ports=self._ports() if pending else {},
            timeout=self.request.timeout,
            stopped=stopped,
        )

    async def _keep_results(self, results: RunRecord) -> None:
        def told(record: RunRecord) -> RunRecord:
            # Others may have ended it meanwhile.
            return results.with_cancelled(record.cancelled)

        try:
            await self._in_thread(
                self._runs.change, self.request.reqid, told, self._now()
            )
        except NotFound:
            await self._in_thread(self._runs.put, results)

    async def _keep_entries(self, stopped: bool) -> None:
        news = {row.host: entry_of(row) for row in self._all()}

        def told(record: RunRecord) -> RunRecord:
            record = record.with_entries(news)
            return record.with_stopped() if stopped else record

        await self._in_thread(self._runs.change, self.request.reqid, told, self._now())

    def _unkept(self, error: object) -> None:
        self.given.asking.emit(RunNotStored(self.request.reqid, str(error)))

    @property
    def _clock(self) -> IReactorTime:
        clock: IReactorTime = self.given.asking.ours.process.reactor
        return clock

    @property
    def _runs(self) -> IRunStore:
        return self.given.asking.ours.stores.runs

    @property
    def _in_thread(self) -> InThread:
        return self.given.asking.ours.process.in_thread

    def _now(self) -> int:
        return int(self.given.asking.ours.process.now().timestamp())
