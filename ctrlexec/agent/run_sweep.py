# SPDX-License-Identifier: AGPL-3.0-only
"""
What is forgotten of runs that have ended: all of it after a day (NEWER-LINE.md
section 6.1), and the oldest before where they take too much room.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterator
from contextlib import suppress
from pathlib import Path

import attrs

from ctrlexec.agent.run_store import RECORD, RUN, RunKey, RunStore
from ctrlexec.errors import StoreError

#: For how many seconds a record is kept.
KEPT_SECONDS = 86_400.0
#: For how many seconds what has just ended is left alone, however little room
#: there is: somebody is about to read it.
FRESH_SECONDS = 60.0
_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{12}\.tmp")


@attrs.frozen
class Kept:
    """
    A run of which there is something.

    @ivar changed: unix seconds.
    @ivar size: in bytes, what it takes.
    """

    key: RunKey
    changed: float
    size: int


def sweep(
    store: RunStore, now: float, most_bytes: int, living: Container[RunKey]
) -> int:
    """
    Forget what is old, and what there is no room for.

    @param now: unix seconds.
    @param most_bytes: how much may be kept.
    @param living: which runs must stay.
    @return: how many runs were forgotten.
    """
    # What is of the future was there before the clock was set back, and so before
    # all that has come since.
    runs = sorted(
        found(store, now),
        key=lambda each: (each.changed - now <= FRESH_SECONDS, each.changed),
    )
    total, forgotten = sum(each.size for each in runs), 0
    for each in runs:
        age = now - each.changed
        crowded = total > most_bytes and abs(age) > FRESH_SECONDS
        if not crowded and age <= KEPT_SECONDS:
            continue
        if each.key in living or (age <= KEPT_SECONDS and _runs(store, each.key)):
            continue
        if store.forget(each.key, each.changed):
            total -= each.size
            forgotten += 1
    return forgotten


def found(store: RunStore, now: float) -> Iterator[Kept]:
    """
    All runs of which there is something. What a crash has left of a record that
    was being written is removed on the way.
    """
    for owner in store.owners():
        names = {*store.names(owner, RECORD), *store.names(owner, RUN)}
        for key in (RunKey(owner, name) for name in names):
            with suppress(FileNotFoundError):
                yield _measured(store, key)
        _tidy(store.root / owner, now)


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


def _runs(store: RunStore, key: RunKey) -> bool:
    """
    Whether it is one that another program than this agent looks after.
    """
    try:
        record = store.read(key)
    except StoreError:
        return False
    return record is not None and not record.ended


def _tidy(directory: Path, now: float) -> None:
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name):
                with suppress(OSError):
                    if now - entry.stat().st_mtime > KEPT_SECONDS:
                        os.unlink(entry.path)
