# SPDX-License-Identifier: AGPL-3.0-only
"""
For how long a store has had each of its runs, by a clock that nobody sets.

The time of day is no measure of that. A device whose clock has no battery comes up
in 1970, or when it was switched off, until the network knows better: a record of a
minute ago is then years old, or of the future. So what counts is the time that the
host has been up since the store was first seen with a run. That is never more than
the time that has passed, whatever happens to clocks, agents, this file and the disk
that it is on; where it is less, something is kept for longer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from math import isfinite
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs

from ctrlexec.agent.run_store import RunKey
from ctrlexec.agent.run_writing import reported, write_pieces
from ctrlexec.errors import ProtocolError, StoreError
from ctrlexec.files import read_bounded
from ctrlexec.protocol.fields import from_json, text_field, to_json

#: For how many seconds a run is kept after its end.
KEPT_SECONDS = 86_400.0
#: Of how many runs of each dispatcher that had to go before the ids are known.
MOST_GONE = 10_000
#: In the root of a store. It is no dispatcher's id.
AGES = ".ages"
_FILE_BYTES = 64 * 2**20


@attrs.frozen
class Ages:
    """
    @ivar total: for how long the host has been up, as far as we know, since
        somebody counts; in seconds. All other times are by this clock.
    @ivar boot: since which start it is up; empty where that is not known.
    @ivar uptime: for how long it had been then since that.
    @ivar seen: the runs of which there is something: what their own time was
        (L{RunStore.changed<ctrlexec.agent.run_store.RunStore.changed>}), and since
        when it was that.
    @ivar gone: those that had to go before their time, and since when there was
        something of them; the oldest first.
    """

    total: float = 0.0
    boot: str = ""
    uptime: float = 0.0
    seen: Mapping[RunKey, tuple[float, float]] = MappingProxyType({})
    gone: Mapping[RunKey, float] = MappingProxyType({})

    def at(self, uptime: float) -> Ages:
        """
        Time has gone on, since the same start.

        @param uptime: for how long the host has been up, in seconds.
        """
        total = self.total + uptime - self.uptime
        return attrs.evolve(self, total=total, uptime=uptime)

    def resumed(self, boot: str, uptime: float) -> Ages:
        """
        Another agent goes on to count. Whatever has passed before the host was
        started, which may be another host, does not count.

        @param boot: since which start it is up.
        @param uptime: likewise.
        """
        if boot and boot == self.boot:
            return self.at(uptime)
        return attrs.evolve(self, boot=boot, uptime=uptime)

    def noticed(self, runs: Iterable[tuple[RunKey, float]]) -> Ages:
        """
        Of these there is something now, and of no others; what is over is
        forgotten.

        @param runs: each with its own time. With another one than before it is
            another one.
        """
        seen = {key: (changed, self._since(key, changed)) for key, changed in runs}
        limit = self.total - KEPT_SECONDS
        gone = {key: since for key, since in self.gone.items() if since >= limit}
        return attrs.evolve(self, seen=seen, gone=gone)

    def _since(self, key: RunKey, changed: float) -> float:
        before, since = self.seen.get(key, (changed, self.total))
        return since if before == changed else self.total

    def since(self, key: RunKey) -> float:
        """
        @param key: of a run that was noticed.
        """
        return self.seen[key][1]

    def is_over(self, key: RunKey) -> bool:
        """
        Whether its time is over; likewise.
        """
        return self.total - self.since(key) > KEPT_SECONDS

    def without(self, over: Collection[RunKey], early: Collection[RunKey]) -> Ages:
        """
        There is nothing any more of these.

        @param over: those whose time is over.
        @param early: those that have to go before. Who has no reqid can not be asked
            for again.
        """
        named = (key for key in early if not key.name.startswith("."))
        gone = {**self.gone, **{key: self.since(key) for key in named}}
        left = self.seen.keys() - {*over, *early}
        seen = {key: self.seen[key] for key in left}
        return attrs.evolve(self, seen=seen, gone=_newest(gone))

    def is_gone(self, key: RunKey) -> bool:
        """
        Whether it is one that had to go before its time.
        """
        return key in self.gone


def _newest(gone: dict[RunKey, float]) -> dict[RunKey, float]:
    """
    As many of each dispatcher as are kept in mind.
    """
    more = Counter(key.owner for key in gone)
    more.subtract(dict.fromkeys(more, MOST_GONE))
    kept: dict[RunKey, float] = {}
    for key, since in gone.items():
        if more[key.owner] > 0:
            more[key.owner] -= 1
        else:
            kept[key] = since
    return kept


def read_ages(root: Path) -> Ages:
    """
    @param root: of a store.
    @raise StoreError: what it says can not be read.
    """
    path = root / AGES
    try:
        return parse_ages(read_bounded(path, _FILE_BYTES))
    except FileNotFoundError:
        return Ages()
    except ProtocolError as error:
        raise StoreError(path, f"does not tell the age of runs: {error}") from error


def write_ages(root: Path, ages: Ages) -> None:
    """
    @raise StoreError: it could not be written; what was there stays.
    """
    path = root / AGES
    with reported(path):
        if ages.seen or ages.gone:
            write_pieces(path, [spelled_ages(ages)], True)
        else:
            path.unlink(missing_ok=True)


def spelled_ages(ages: Ages) -> bytes:
    """
    As they are kept: JSON.
    """
    return to_json(
        {
            "total": ages.total,
            "boot": ages.boot,
            "uptime": ages.uptime,
            "seen": _by_owner(ages.seen),
            "gone": _by_owner(ages.gone),
        }
    )


def _by_owner(runs: Mapping[RunKey, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for key, value in runs.items():
        found.setdefault(key.owner, {})[key.name] = value
    return found


def parse_ages(text: bytes) -> Ages:
    """
    @raise ProtocolError: it is nothing that L{spelled_ages} has written.
    """
    fields = from_json(text)
    try:
        total, uptime = _number(fields["total"]), _number(fields["uptime"])
        boot = text_field(fields, "boot")
        seen = {
            # Nothing is of the future.
            key: (_number(changed), min(_number(since), total))
            for key, (changed, since) in _runs(fields["seen"])
        }
        gone = {key: min(_number(since), total) for key, since in _runs(fields["gone"])}
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise ProtocolError("it makes no sense") from error
    return Ages(total, boot, uptime, seen, gone)


def _runs(owners: Any) -> Iterable[tuple[RunKey, Any]]:
    for owner, names in owners.items():
        for name, value in names.items():
            yield RunKey(owner, name), value


def _number(value: Any) -> float:
    number = float(value)
    if isinstance(value, (str, bool)) or not isfinite(number):
        raise ValueError(value)
    return number
