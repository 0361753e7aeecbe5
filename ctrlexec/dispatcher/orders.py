# SPDX-License-Identifier: AGPL-3.0-only
"""
What a dispatcher is asked to do, and by whom.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from datetime import timedelta

import attrs

from ctrlexec.errors import InvalidValue
from ctrlexec.values import (
    LOOKUPS,
    Portion,
    agent_name,
    is_ip_address,
    port_number,
)

#: Where a caller on this very host is said to be.
HERE = "127.0.0.1"
#: For how long a join token may be good.
LEAST_TTL, MOST_TTL = timedelta(minutes=1), timedelta(days=30)
DEFAULT_TTL = timedelta(minutes=30)
#: How many agents may join with one.
MOST_USES = 1000


class Door(enum.Enum):
    """
    Which way a caller came in. It decides what is done where there is no auth
    hook: PROTOCOL.md section 6.
    """

    COMMAND_LINE = "command line"
    #: The command line of somebody who needs the API for it.
    SOCKET = "socket"
    API = "api"


@attrs.frozen(kw_only=True)
class Caller:
    """
    Who asks.

    @ivar username: as they claim it; through the unix socket, as the system
        says it.
    @ivar token: what they can prove it with; never logged.
    @ivar source_ip: the address that they ask from.
    """

    username: str
    token: str = attrs.field(default="", repr=False)
    source_ip: str = HERE
    door: Door = Door.COMMAND_LINE


@attrs.frozen
class Selection:
    """
    Hosts, as somebody has named them.

    @ivar words: names with or without C{:PORT}, globs, ranges, C{@tag=value}.
    @ivar exclude: the same, for hosts that are not meant.
    @ivar port: a port for those that were named without one; C{None} for the
        registered ones.
    """

    words: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    port: int | None = None


@attrs.frozen(kw_only=True)
class Rolling:
    """
    Hosts are asked some at a time, each lot only when the one before has ended.

    @ivar canary: how many are asked first, alone: only if all of them end well
        are the others asked at all. 0 for none.
    @ivar batch: how many are asked at a time after that; C{None} for all.
    @ivar wait_seconds: how long to wait between two lots.
    @ivar max_failures: how many may fail before no more are asked; C{None} for
        any number.
    """

    canary: int = 0
    batch: Portion | None = None
    wait_seconds: float = 0.0
    max_failures: Portion | None = None


@attrs.frozen(kw_only=True)
class RunOrder:
    """
    A script that is to be run on some hosts.

    @ivar args: what follows the script's own name in its argv.
    @ivar wait_lock_seconds: how long to wait where the script runs already.
    @ivar confirmed: a person, or a program that has none, has said yes to
        however many hosts it is.
    @ivar asynchronous: nobody waits for its end.
    @ivar follow: what it writes is told as it comes.
    @ivar timeout_seconds: after how long it is ended; C{None} for what the host
        has to say about that.
    @ivar on_disconnect: one of L{ON_DISCONNECT<ctrlexec.values.ON_DISCONNECT>}.
    @ivar rolling: how it goes over the hosts; C{None} for all at once, as far
        as C{max_parallel} goes.
    @ivar key: the same key from the same caller is the same run, which is not
        started again; empty for none.
    """

    selection: Selection
    script: str
    args: tuple[str, ...] = ()
    wait_lock_seconds: float = 0
    confirmed: bool = False
    asynchronous: bool = False
    follow: bool = False
    timeout_seconds: float | None = None
    on_disconnect: str = "keep"
    rolling: Rolling | None = None
    key: str = attrs.field(default="", repr=False)


@attrs.frozen
class Seen:
    """
    How much of what a run has written on a host somebody has, in bytes.
    """

    stdout: int = 0
    stderr: int = 0


@attrs.frozen
class Reach:
    """
    How an agent is to be reached, where an operator knows better than the
    agent.

    @ivar lookup_by: C{"ip"}, C{"hostname"}, or C{None}.
    @ivar ip: an address, or C{None}.
    @ivar port: 1 to 65535, or C{None}.
    """

    lookup_by: str | None = None
    ip: str | None = None
    port: int | None = None

    def __attrs_post_init__(self) -> None:
        if self.lookup_by is not None and self.lookup_by not in LOOKUPS:
            raise InvalidValue("lookup", self.lookup_by, "'ip' or 'hostname'")
        if self.ip is not None and not is_ip_address(self.ip):
            raise InvalidValue("address", self.ip, "an IPv4 or IPv6 address")
        if self.port is not None:
            port_number(str(self.port))


@attrs.frozen(kw_only=True)
class Seat:
    """
    Where somebody sits who decides on pairing requests as they come: see
    L{ctrlexec.dispatcher.console.PairingMode}.

    @ivar port: where to listen, in place of the setting; or C{None}.
    """

    write: Callable[[str], None]
    stdin: int
    attended: bool
    timeout_seconds: int | None = None
    port: int | None = None


@attrs.frozen(kw_only=True)
class TokenOrder:
    """
    What a new token is to allow.

    @ivar name: the only name that an agent may join under; empty for any that
        is not registered.
    @ivar tags: what is noted about who joins.
    @ivar ttl: how long it is good.
    @ivar uses: how many agents may join with it.
    """

    name: str = ""
    tags: Mapping[str, str] = attrs.field(factory=dict)
    ttl: timedelta = DEFAULT_TTL
    uses: int = 1

    def __attrs_post_init__(self) -> None:
        if self.name:
            agent_name(self.name)
        if not LEAST_TTL <= self.ttl <= MOST_TTL:
            raise InvalidValue("time", str(self.ttl), "one minute to 30 days")
        if not 1 <= self.uses <= MOST_USES:
            raise InvalidValue("number of uses", str(self.uses), f"1 to {MOST_USES}")
        if self.name and self.uses > 1:
            raise InvalidValue(
                "number of uses", str(self.uses), "1: only one agent has this name"
            )
