# SPDX-License-Identifier: AGPL-3.0-only
"""
What a service and systemd tell each other: sd_notify(3), the watchdog, and the
sockets that systemd opens for us (sd_listen_fds(3)).

Without systemd all of this does nothing.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import attrs
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IReactorTime, IStreamServerEndpoint
from twisted.internet.task import LoopingCall

from ctrlexec.datagrams import send_datagram
from ctrlexec.errors import ListenError

_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


@attrs.frozen
class Notifier:
    """
    Tells systemd in what state a service is. That nobody listens is no
    failure of the service.

    @ivar address: C{NOTIFY_SOCKET}: a path, C{@} and an abstract name, or
        nothing.
    @ivar monotonic_ns: C{CLOCK_MONOTONIC}, in nanoseconds.
    """

    address: str
    monotonic_ns: Callable[[], int] = time.monotonic_ns

    def ready(self, status: str) -> None:
        """
        The service is at work, or again after a reload.

        @param status: for people, in C{systemctl status}.
        """
        self._tell("READY=1", _status(status))

    def reloading(self) -> None:
        """
        The service reads its settings again; L{ready} follows.
        """
        now = self.monotonic_ns() // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now}")

    def stopping(self, status: str, seconds: float) -> None:
        """
        The service ends.

        @param seconds: how long that may take; systemd is not to grow
            impatient before, whatever its unit says.
        """
        patience = f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}"
        self._tell("STOPPING=1", patience, _status(status))

    def alive(self) -> None:
        """
        The service's reactor turns.
        """
        self._tell("WATCHDOG=1")

    def _tell(self, *states: str) -> None:
        if self.address.startswith(("/", "@")):
            with suppress(OSError):
                send_datagram(self.address, "\n".join(states).encode())


@attrs.define(eq=False)
class Supervision:
    """
    A service under systemd: its L{Notifier}, and its watchdog, which is fed by
    the reactor, so that one that hangs is found out.

    @ivar interval_seconds: how often the watchdog is fed; 0 for no watchdog.
    """

    clock: IReactorTime
    notifier: Notifier
    interval_seconds: float
    _feeding: LoopingCall | None = attrs.field(default=None, init=False)

    @classmethod
    def from_environment(
        cls, clock: IReactorTime, environ: Mapping[str, str]
    ) -> Supervision:
        """
        @param environ: our own environment, as systemd has made it.
        """
        notifier = Notifier(environ.get("NOTIFY_SOCKET", ""))
        return cls(clock, notifier, watchdog_interval(environ, os.getpid()))

    def start(self, status: str) -> None:
        """
        The service is at work.
        """
        self.notifier.ready(status)
        if self.interval_seconds:
            self._feeding = LoopingCall(self.notifier.alive)
            self._feeding.clock = self.clock
            self._feeding.start(self.interval_seconds)

    def stop(self) -> None:
        """
        Nothing of the service goes on. Until then the watchdog is fed: a stop
        that waits is no hang.
        """
        feeding, self._feeding = self._feeding, None
        if feeding is not None:
            feeding.stop()


def watchdog_interval(environ: Mapping[str, str], pid: int) -> float:
    """
    @param pid: our own process id: the watchdog of whoever started us is not
        ours to feed.
    @return: half the time after which systemd gives us up, in seconds; 0 where
        it does not.
    """
    limit = environ.get("WATCHDOG_USEC", "")
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return 0.0
    return int(limit) / 2_000_000 if _NUMBER.fullmatch(limit) else 0.0


#: Makes an endpoint of its description.
Parse = Callable[[Any, str], IStreamServerEndpoint]


def handed_over(
    reactor: Any,
    name: str,
    environ: Mapping[str, str],
    parse: Parse = serverFromString,
) -> IStreamServerEndpoint | None:
    """
    The port that systemd has opened for us, if it has.

    @param name: C{FileDescriptorName} of the socket unit; by default, the
        unit's own name.
    @param environ: our own environment, of which Twisted has taken the rest
        when it was loaded: all but the names of the sockets.
    @raise ListenError: what systemd hands over is not one TCP port.
    """
    count = environ.get("LISTEN_FDNAMES", "").split(":").count(name)
    if not count:
        return None
    try:
        endpoint: Any = parse(reactor, f"systemd:domain=INET:name={name}")
    except KeyError:
        # They were meant for whoever started us.
        return None
    family = listening_family(endpoint.fileno)
    if count > 1 or family is None:
        raise ListenError(
            "systemd hands over something other than one TCP port",
            hint=f"{name} takes one ListenStream= with a port number",
        )
    return parse(reactor, f"systemd:domain={family}:name={name}")


def listening_family(descriptor: int) -> str | None:
    """
    @return: C{"INET"} or C{"INET6"} for a TCP socket that listens, else C{None}.
    """
    try:
        with socket.socket(fileno=os.dup(descriptor)) as found:
            listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            families = {socket.AF_INET: "INET", socket.AF_INET6: "INET6"}
            return families.get(found.family) if listens else None
    except OSError:
        return None


def _status(text: str) -> str:
    """
    A state is a line; nothing in a text may become another one.
    """
    return "STATUS=" + "".join(c if c.isprintable() else " " for c in text)
