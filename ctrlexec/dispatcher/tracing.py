# SPDX-License-Identifier: AGPL-3.0-only
"""
What became of a run that has begun: its record, with what its agents have to say
since.

An agent that can not be asked keeps nothing from being known of the others, and
takes nothing back that was known of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from ctrlexec.dispatcher.asking import Asking, Planned
from ctrlexec.dispatcher.authorisation import Question
from ctrlexec.dispatcher.dispatch import fan_out
from ctrlexec.dispatcher.orders import Caller
from ctrlexec.dispatcher.outcomes import outcome_of
from ctrlexec.dispatcher.registry import Unknown
from ctrlexec.dispatcher.run_record import DONE, EXPIRED, RUNNING, Entry
from ctrlexec.dispatcher.runs import RunRecord
from ctrlexec.errors import CtrlExecError, NotFound, StoreError
from ctrlexec.events import ResultFetched, ResultNotFetched, RunNotStored
from ctrlexec.protocol.codec_trust import NoSuchRequest
from ctrlexec.protocol.run_messages import RUNNING as LIVES
from ctrlexec.protocol.run_messages import NoSuchRun, RunResult
from ctrlexec.values import HostPort, Target, request_id

if TYPE_CHECKING:
    from ctrlexec.dispatcher.operations import Dispatcher

#: How long is waited before agents are asked again: that long at first, twice as
#: long each time, and no longer than that; in seconds.
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 2.0
#: How long agents have to answer, however short somebody wants to wait.
LEAST_SECONDS = 1.0


async def status(ours: Dispatcher, caller: Caller, reqid: str) -> RunRecord:
    """
    See L{ctrlexec.dispatcher.operations.Dispatcher.status}.
    """
    record = await on_record(ours, reqid)
    await allowed(ours, caller, "status", record)
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
    await allowed(ours, caller, "status", record)
    if record.complete:
        return record
    return await Tracing.of(ours).awaited(record, seconds)


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


async def is_under_way(ours: Dispatcher, record: RunRecord) -> bool:
    """
    Whether somebody carries the order out, so that hosts may not have been asked
    for it yet. Its locks are taken before it is on record, and each is held until
    its host has answered.
    """
    if ours.process.live.get(record.reqid) is not None:
        return True
    try:
        locked = await ours.process.in_thread(ours.stores.locks.listed)
    except StoreError:
        return False
    return any(each.reqid == record.reqid for each in locked)


@attrs.frozen
class _News:
    """
    @ivar entry: what is known of the host now; see
        L{ctrlexec.dispatcher.run_record.Entry}.
    """

    host: str
    entry: Entry
    rtt_ms: int


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
        self, record: RunRecord, seconds: float | None = None
    ) -> RunRecord:
        """
        A record with what agents say now, which is kept.

        @param seconds: what is not known after that is left.
        """
        news: list[_News] = []
        under_way = await is_under_way(self.asking.ours, record)
        asked = Deferred.fromCoroutine(self._asked(record, news))
        if seconds is not None:
            asked.addTimeout(seconds, self._clock)
        with suppress(DeferredTimeoutError):
            await asked
        if under_way:
            # Whom it has not come to yet has not forgotten it.
            news = [each for each in news if each.entry.get("status") != EXPIRED]
        return await self._kept(record, news)

    async def awaited(self, record: RunRecord, seconds: float) -> RunRecord:
        """
        The same, until it is complete.

        @param seconds: or until then.
        """
        clock, pause = self._clock, FIRST_PAUSE
        until = clock.seconds() + seconds
        while True:
            left = until - clock.seconds()
            record = await self.traced(record, max(left, LEAST_SECONDS))
            left = until - clock.seconds()
            if record.complete or left <= 0:
                return record
            await deferLater(clock, min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE)

    # --- asking ----------------------------------------------------------

    async def _asked(self, record: RunRecord, news: list[_News]) -> None:
        await fan_out(
            await reached(self.asking, record, record.pending),
            lambda each: self._ask(each, record.reqid),
            limit=self.asking.ours.settings.max_parallel,
            wanted=lambda: True,
            asked=lambda each: None,
            arrived=news.append,
        )

    async def _ask(self, planned: Planned, reqid: str) -> _News:
        since = self._clock.seconds()
        try:
            entry = await self._entry(planned, reqid)
        except CancelledError:
            raise
        except NoSuchRequest:
            # An agent of the older line knows nothing of runs that were.
            entry = {"status": EXPIRED}
        except CtrlExecError as error:
            entry = {"fetch_error": str(error)}
        except Exception as error:
            entry = {"fetch_error": f"internal error: {error!r}"}
        taken = round((self._clock.seconds() - since) * 1000)
        return _News(planned.name, entry, taken)

    async def _entry(self, planned: Target | Unknown, reqid: str) -> Entry:
        if isinstance(planned, Unknown):
            return {"fetch_error": planned.error}
        match await self.asking.agents.result(planned, reqid):
            case NoSuchRun():
                return {"status": EXPIRED}
            case RunResult(state=state) if state == LIVES:
                return {"status": RUNNING}
            case RunResult() as result:
                return _done(result)

    # --- what it means ---------------------------------------------------

    async def _kept(self, record: RunRecord, news: Sequence[_News]) -> RunRecord:
        found = {each.host: each.entry for each in news}
        self._tell(record, news)
        ours = self.asking.ours
        try:
            return await ours.process.in_thread(
                ours.stores.runs.change,
                record.reqid,
                lambda stored: stored.with_entries(found),
                ours.process.now().timestamp(),
            )
        except (StoreError, NotFound) as error:
            # Whoever asks now knows it all the same.
            self.asking.emit(RunNotStored(record.reqid, str(error)))
            return record.with_entries(found)

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


def _done(result: RunResult) -> Entry:
    entry = {
        "status": DONE,
        "exit": result.exit,
        "stdout": result.stdout,
        "stderr": result.stderr,
        "state": outcome_of(result.state, result.exit).value,
    }
    return {**entry, "reason": result.reason} if result.reason else entry
