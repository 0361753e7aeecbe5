# SPDX-License-Identifier: AGPL-3.0-only
"""
The runs that live on an agent, of every kind, and the ids of those that must not
come to life any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from pathlib import Path

import attrs
from twisted.python.failure import Failure

from ctrlexec.agent.live import Once
from ctrlexec.agent.run_records import RunRecord
from ctrlexec.agent.run_store import Finished, RunKey
from ctrlexec.interfaces import ILiveScript
from ctrlexec.protocol.messages import RunRefused
from ctrlexec.protocol.run_messages import LiveRun, Signalled

#: For how many seconds a run that was cancelled before it came is refused.
BURIED_SECONDS = 300.0
#: How many of those are kept in mind for each dispatcher.
MOST_BURIED = 1000
#: Of how many of those that have ended and are not on record the ids are known, for
#: each dispatcher.
MOST_SPENT = 10_000
#: For how many seconds what has just ended stays in the store, however little room
#: there is: somebody is about to read it.
FRESH_SECONDS = 60.0


@attrs.define(eq=False)
class Run:
    """
    A run, from the moment at which it is asked for.

    @ivar record: what is known of it so far.
    @ivar began: when it was asked for, or found again, by a clock that nobody
        sets; in seconds.
    @ivar called: its reqid as whoever asked has spelled it, for the log.
    @ivar aged: for how many seconds it had run by then.
    @ivar ended: when it had ended, likewise.
    @ivar private: its directory is not in the store, which had no room for it.
    @ivar wanted: nobody has said that it is to be cancelled.
    @ivar lock: the name of the lock that it is started with; empty for none, and
        where that is not known.
    @ivar directory: where its output is; C{None} before it is started.
    @ivar script: what was started; C{None} before, and when it has ended.
    @ivar starting: it is about to be started, and nothing can stop that.
    @ivar settled: why it is not started, or C{None} when it is.
    @ivar finished: how it has ended; never for one that is not started.
    @ivar cancelling: what was signalled, when nothing of it is left.
    @ivar cancelled_as: why nobody wants it any more, where nobody has said so.
    @ivar callers: how many connections are there that want to hear of it.
    """

    key: RunKey
    record: RunRecord
    began: float
    aged: float = 0.0
    called: str = attrs.field(kw_only=True)
    ended: float = attrs.field(default=0.0, init=False)
    private: bool = attrs.field(default=False, init=False)
    wanted: bool = attrs.field(default=True, init=False)
    lock: str = attrs.field(default="", init=False)
    directory: Path | None = attrs.field(default=None, init=False)
    script: ILiveScript | None = attrs.field(default=None, init=False)
    starting: bool = attrs.field(default=False, init=False)
    settled: Once[RunRefused | None] = attrs.field(factory=Once, init=False)
    finished: Once[Finished] = attrs.field(factory=Once, init=False)
    cancelling: Once[tuple[Signalled, ...]] | None = attrs.field(
        default=None, init=False
    )
    cancelled_as: str = attrs.field(default="", init=False)
    callers: int = attrs.field(default=0, init=False)

    def seconds(self, now: float) -> float:
        """
        For how long it has run.

        @param now: by the clock of C{began}.
        """
        return max(0.0, self.aged + now - self.began)

    def told(self, now: float) -> LiveRun:
        """
        What is told of it to whoever asks what runs.
        """
        record = self.record
        return LiveRun(
            reqid=record.reqid,
            script=record.script,
            state=record.state,
            started=record.started,
            seconds=self.seconds(now),
            username=record.username,
            asynchronous=record.asynchronous,
            pid=self.script.pid if self.script else 0,
        )

    def fail(self, why: Failure) -> bool:
        """
        What became of it can not be said, and that is a fault of ours.

        @return: whether somebody was told.
        """
        told = [once.fail(why) for once in (self.settled, self.finished)]
        return any(told)


@attrs.define(eq=False)
class RunTable:
    """
    @ivar seconds: for how long the host has been up: a clock that nobody sets.
    @ivar unsaved: those that have ended, and whose record the store has not
        taken.
    @ivar _spent: the ids of those of them that there was no room for here either,
        by their owners.
    @ivar _fresh: until when those that have just ended must stay in the store.
    """

    seconds: Callable[[], float]
    unsaved: dict[RunKey, Run] = attrs.field(factory=dict, init=False)
    _live: dict[RunKey, Run] = attrs.field(factory=dict, init=False)
    _buried: dict[str, dict[str, float]] = attrs.field(factory=dict, init=False)
    _spent: dict[str, dict[str, None]] = attrs.field(factory=dict, init=False)
    _fresh: dict[RunKey, float] = attrs.field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[Run]:
        return iter(tuple(self._live.values()))

    @property
    def reqids(self) -> tuple[str, ...]:
        """
        The request ids of those that live, the oldest first.
        """
        return tuple(run.called for run in self)

    def holds(self, key: RunKey) -> bool:
        """
        Whether a run must stay in the store. Other threads may ask, too.
        """
        if key in self._live or key in self.unsaved:
            return True
        return self._fresh.get(key, 0.0) > self.seconds()

    def has_place(self, owner: str, trusted: Set[str], most: int) -> bool:
        """
        Whether a dispatcher may have one more run. Of the places that are free one
        is for each other dispatcher that has no run; half of all at most.

        @param trusted: the ids of all dispatchers that may come.
        @param most: how many runs there may be at once.
        """
        free = most - len(self)
        having = {run.key.owner for run in self}
        if owner in having:
            free -= min(len(trusted - having), most // 2)
        return free > 0

    def add(self, run: Run) -> None:
        """
        It lives from now on.
        """
        assert run.key not in self._live
        self._live[run.key] = run

    def discard(self, run: Run) -> None:
        """
        It lives no more.
        """
        if self._live.get(run.key) is run:
            if run.finished.came:
                self._freshen(run.key)
            del self._live[run.key]

    def _freshen(self, key: RunKey) -> None:
        now = self.seconds()
        while self._fresh and self._fresh[oldest := next(iter(self._fresh))] <= now:
            del self._fresh[oldest]
        self._fresh[key] = now + FRESH_SECONDS

    def get(self, key: RunKey) -> Run | None:
        """
        A run that lives, or that has ended and is known only here.
        """
        return self._live.get(key) or self.unsaved.get(key)

    def holder(self, owner: str, lock: str) -> str:
        """
        @param owner: the id of a dispatcher.
        @return: the reqid of a run of its own that has a lock; empty where there is
            none that we know.
        """
        for run in self:
            if run.script and run.lock == lock and run.key.owner == owner:
                return run.record.reqid
        return ""

    def bury(self, key: RunKey) -> None:
        """
        See to it that a run that has not come yet is not started when it does;
        for a while, and for a bounded number of them.
        """
        buried = self._buried.setdefault(key.owner, {})
        buried.pop(key.name, None)
        while len(buried) >= MOST_BURIED:
            del buried[next(iter(buried))]
        buried[key.name] = self.seconds() + BURIED_SECONDS

    def is_buried(self, key: RunKey) -> bool:
        """
        Whether it is one of those.
        """
        until = self._buried.get(key.owner, {}).get(key.name)
        return until is not None and self.seconds() < until

    def spend(self, key: RunKey) -> None:
        """
        Nobody can be told any more what became of a run that is L{unsaved}; one
        that has an id is not to be started again all the same.
        """
        if not self.unsaved.pop(key).record.reqid:
            return
        spent = self._spent.setdefault(key.owner, {})
        while len(spent) >= MOST_SPENT:
            del spent[next(iter(spent))]
        spent[key.name] = None

    def is_spent(self, key: RunKey) -> bool:
        """
        Whether it is one of those.
        """
        return key.name in self._spent.get(key.owner, {})
