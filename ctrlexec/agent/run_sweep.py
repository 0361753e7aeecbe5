# SPDX-License-Identifier: AGPL-3.0-only
"""
What is forgotten of runs that have ended: all of it after a day (NEWER-LINE.md
section 6.1), and before where they take too much room. Then those of the dispatcher
go that has most there; what another has made cannot push out somebody's share.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

import attrs

from ctrlexec.agent.run_ages import KEPT_SECONDS, Ages, write_ages
from ctrlexec.agent.run_store import RECORD, RUN, RunKey, RunStore
from ctrlexec.errors import InvalidValue, StoreError
from ctrlexec.values import from_iso_time

#: How much earlier than its start a date is that no clock has given to a record.
LEAST_SECONDS = 60.0


@attrs.frozen
class Kept:
    """
    A run of which there is something.

    @ivar changed: its own time: L{RunStore.changed}.
    @ivar size: in bytes, what it takes.
    """

    key: RunKey
    changed: float
    size: int


@attrs.frozen
class Sweep:
    """
    What is about to be forgotten.

    @ivar ages: what is known of all runs then.
    @ivar over: those whose time is over.
    @ivar early: those that there is no room for.
    @ivar size: what all others take, in bytes.
    """

    ages: Ages
    over: Sequence[Kept]
    early: Sequence[Kept]
    size: int

    @property
    def losers(self) -> Mapping[str, int]:
        """
        How many runs each dispatcher loses before their time.
        """
        return Counter(each.key.owner for each in self.early)


def plan(
    store: RunStore,
    ages: Ages,
    now: float,
    most_bytes: int,
    held: Callable[[RunKey], bool],
) -> Sweep:
    """
    Look through a store. Nothing is forgotten yet: first it must be known, to
    whoever starts runs, which of them must not be started again.

    @param ages: what was known, and the time by its clock.
    @param now: the time of day; unix seconds.
    @param most_bytes: how much may be kept.
    @param held: whether a run must stay; asked when there is something to decide.
    """
    runs = [*found(store)]
    ages = ages.noticed((each.key, each.changed) for each in runs)
    over = [
        each
        for each in runs
        if (
            _is_dated(store, each, now)
            or (ages.is_over(each.key) and not held(each.key))
        )
        and not _runs_on(store, each.key)
    ]
    left = sorted({*runs} - {*over}, key=lambda run: (ages.since(run.key), run.changed))
    early = [*_crowding(store, left, most_bytes, held)]
    size = sum(each.size for each in left) - sum(each.size for each in early)
    ages = ages.without(*([each.key for each in some] for some in (over, early)))
    return Sweep(ages, over, early, size)


def carry_out(store: RunStore, sweep: Sweep, *, noting: bool = True) -> int:
    """
    Forget what is to be forgotten.

    @param noting: whether what is known of the others is written down where nothing
        is forgotten.
    @return: how many runs that were.
    @raise StoreError: what is known of the others could not be written down.
    """
    gone, failed = [*sweep.over, *sweep.early], False
    if not (gone or noting):
        return 0
    try:
        write_ages(store.root, sweep.ages)
    except StoreError:
        failed = True
    count = sum(store.forget(each.key, each.changed) for each in gone)
    if failed:
        # There may be room now.
        write_ages(store.root, sweep.ages)
    return count


def _crowding(
    store: RunStore,
    runs: Sequence[Kept],
    most_bytes: int,
    held: Callable[[RunKey], bool],
) -> Iterator[Kept]:
    """
    Which of all runs there is no room for.

    @param runs: the oldest first.
    """
    taken: Counter[str] = Counter()
    left: dict[str, deque[Kept]] = {}
    for each in runs:
        taken[each.key.owner] += each.size
        left.setdefault(each.key.owner, deque()).append(each)
    while taken.total() > most_bytes:
        share = most_bytes // len(taken)
        # What lives must stay. Others need not make room for it out of their share.
        crowds = [name for name, own in left.items() if own and taken[name] > share]
        if not crowds:
            return
        each = left[max(crowds, key=taken.__getitem__)].popleft()
        if not held(each.key) and _has_ended(store, each.key):
            taken[each.key.owner] -= each.size
            yield each


def found(store: RunStore) -> Iterator[Kept]:
    """
    All runs of which there is something.
    """
    for owner in store.owners():
        names = {*store.names(owner, RECORD), *store.names(owner, RUN)}
        for key in (RunKey(owner, name) for name in names):
            with suppress(FileNotFoundError):
                yield _measured(store, key)


def _measured(store: RunStore, key: RunKey) -> Kept:
    size = 0
    with suppress(OSError), os.scandir(store.directory(key)) as entries:
        size = sum(_room(entry.stat(follow_symlinks=False)) for entry in entries)
    with suppress(FileNotFoundError):
        size += _room(store.record_path(key).stat())
    return Kept(key, store.changed(key), size)


def _room(status: os.stat_result) -> int:
    """
    What a file takes: most records are much smaller than what the disk gives out
    at once.
    """
    return max(status.st_size, status.st_blocks * 512)


def _is_dated(store: RunStore, run: Kept, now: float) -> bool:
    """
    Whether its day is over by the date of its record, where that counts: the
    original knows of nothing else, and who sets one, to a time before the run was
    started, means it. What the clock said when we wrote one may have been wrong.
    """
    if now - run.changed <= KEPT_SECONDS:
        return False
    try:
        record = store.read(run.key)
        if record is None or not record.digest:
            return record is not None
        started = from_iso_time(record.started).timestamp()
        return run.changed < started - LEAST_SECONDS and store.was_dated(run.key)
    except (OSError, StoreError, InvalidValue):
        return False


def _has_ended(store: RunStore, key: RunKey) -> bool:
    """
    Whether it does not run, here or under another program than this agent, and
    is not about to.
    """
    try:
        record = store.read(key)
    except StoreError:
        return True
    return record is not None and record.ended


def _runs_on(store: RunStore, key: RunKey) -> bool:
    """
    Whether it is one of ours that has not ended, for all that is written down.
    One of the original's may say so for ever.
    """
    try:
        record = store.read(key)
    except StoreError:
        return False
    return record is not None and bool(record.digest) and not record.ended
