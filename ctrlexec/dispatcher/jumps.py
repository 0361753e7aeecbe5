# SPDX-License-Identifier: AGPL-3.0-only
"""
How old a file is on a host whose clock was set meanwhile.

A clock that is set forward makes everything before that older than it is: results
would be forgotten early, and an order be carried out a second time because nobody
knows its key any more. So it is noted when the host was started, by its clock. When
that is another time later on, and it was not started again, the clock has jumped.
One that is set back makes files younger: they are kept for longer, and that is all.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any

import attrs

from ctrlexec.errors import ProtocolError, StoreError
from ctrlexec.files import read_bounded, write_atomic
from ctrlexec.protocol.fields import from_json, to_json
from ctrlexec.uptime import boot_id, uptime_seconds

#: In the directory whose files it is about.
NAME = ".clock"
#: What is no jump, in seconds: clocks are set right all the time.
LEAST_SECONDS = 3600.0
#: How many jumps are kept in mind.
MOST = 64
_FILE_BYTES = 65_536


@attrs.frozen
class Uptime:
    """
    @ivar boot: what tells this start of the host from all others; empty where that
        is not known: then there are no jumps.
    @ivar seconds: for how long it has been up, by a clock that nobody sets.
    """

    boot: str
    seconds: float


#: Tells for how long the host has been up.
Up = Callable[[], Uptime]


def uptime() -> Uptime:
    """
    That of this host.
    """
    return Uptime(boot_id(), uptime_seconds())


@attrs.frozen
class Jumps:
    """
    What is known of a clock.

    @ivar boot: the start of the host that it is known of.
    @ivar started: when that was, by the clock; unix seconds.
    @ivar forward: the jumps: when each was noticed, by the clock as it was then,
        and by how many seconds it was.
    """

    boot: str = ""
    started: float = 0.0
    forward: tuple[tuple[float, float], ...] = ()

    def at(self, now: float, up: Uptime, kept_seconds: float) -> Jumps:
        """
        @param now: what the clock says.
        @param kept_seconds: how old files get that anybody wants to know of.
        @return: what is known now; this very value, if that is nothing new.
        """
        started = now - up.seconds
        by = started - self.started
        if up.boot and up.boot == self.boot and abs(by) < LEAST_SECONDS:
            return self
        forward = self.forward
        if up.boot and up.boot == self.boot:
            forward = _with(forward, now, by)
        # What is of the future is a jump that was taken back.
        forward = tuple(each for each in forward if each[0] <= now)
        known = Jumps(up.boot, started, forward[-MOST:])
        # Of those before the others there is nothing left.
        young = [at for at, _ in known.forward if known.age(at, now) < kept_seconds]
        left = tuple(each for each in known.forward if each[0] in young)
        return attrs.evolve(known, forward=left)

    def age(self, written: float, now: float) -> float:
        """
        @param written: when a file was, by the clock as it was then.
        @return: how old it is, in seconds; that, or less.
        """
        # What is younger than the clock was then had its time from a better one.
        jumped = [by for at, by in self.forward if written < at - by + LEAST_SECONDS]
        return now - written - sum(jumped)


def _with(
    forward: tuple[tuple[float, float], ...], at: float, by: float
) -> tuple[tuple[float, float], ...]:
    """
    Jumps, and another one; one back takes back the last ones.
    """
    while forward and by < 0:
        (last, gone), forward = forward[-1], forward[:-1]
        at, by = min(at, last), gone + by
    return (*forward, (at, by)) if by > 0 else forward


def read_jumps(directory: Path) -> Jumps:
    """
    What is known; what can not be read is not.
    """
    try:
        fields = from_json(read_bounded(directory / NAME, _FILE_BYTES))
        forward = tuple((_number(at), _number(by)) for at, by in fields["forward"])
        return Jumps(str(fields["boot"]), _number(fields["started"]), forward)
    except (
        OSError,
        ProtocolError,
        StoreError,
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
    ):
        return Jumps()


def write_jumps(directory: Path, jumps: Jumps) -> None:
    """
    @raise StoreError: it could not be written.
    """
    data = to_json(attrs.asdict(jumps)) + b"\n"
    write_atomic(directory / NAME, data, group_of_directory=True)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(value)
    if not isfinite(value):
        raise ValueError(value)
    return float(value)
