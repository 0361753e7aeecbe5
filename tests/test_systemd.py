# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.systemd}. That a socket is really handed over is shown end
to end.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from typing import Any

from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.errors import ListenError
from ctrlexec.systemd import (
    Notifier,
    Supervision,
    handed_over,
    listening_family,
    watchdog_interval,
)
from tests.daemons import DaemonTestCase

NAME = "ctrl-exec-agent.socket"


class NotifierTests(DaemonTestCase):
    """
    L{Notifier}
    """

    def setUp(self) -> None:
        super().setUp()
        self.notifier = Notifier(self.address, lambda: 12_345_678)

    def test_states(self) -> None:
        """
        Each state is a datagram, as sd_notify(3) has it.
        """
        self.notifier.ready("All is well")
        self.notifier.reloading()
        self.notifier.stopping("Waits", 40.5)
        self.notifier.alive()
        self.assertEqual(
            self.told(),
            [
                ["READY=1", "STATUS=All is well"],
                ["RELOADING=1", "MONOTONIC_USEC=12345"],
                ["STOPPING=1", "EXTEND_TIMEOUT_USEC=40500000", "STATUS=Waits"],
                ["WATCHDOG=1"],
            ],
        )

    def test_monotonic(self) -> None:
        """
        The time of a reload is that of the clock that systemd reads.
        """
        before = time.monotonic_ns() // 1000
        Notifier(self.address).reloading()
        ((_, said),) = self.told()
        self.assertGreaterEqual(int(said.partition("=")[2]), before)

    def test_status(self) -> None:
        """
        A status is one line, whatever it is made of.
        """
        self.notifier.ready("a\nMAINPID=1\0")
        self.assertEqual(self.told(), [["READY=1", "STATUS=a MAINPID=1 "]])

    def test_nobody(self) -> None:
        """
        Where nobody listens, nothing happens.
        """
        self.daemon.close()
        for address in ("", self.address, f"{self.address}-none", "vsock:2:1"):
            Notifier(address).ready("All is well")


class SupervisionTests(DaemonTestCase):
    """
    L{Supervision}
    """

    def supervision(self, **environ: str) -> Supervision:
        """
        That of a service with an environment.
        """
        self.clock = Clock()
        environ["NOTIFY_SOCKET"] = self.address
        return Supervision.from_environment(self.clock, environ)

    def test_watchdog(self) -> None:
        """
        The watchdog is fed at half its time, until the end and no longer.
        """
        supervision = self.supervision(
            WATCHDOG_USEC="30000000", WATCHDOG_PID=str(os.getpid())
        )
        supervision.start("On")
        self.assertEqual(self.told(), [["READY=1", "STATUS=On"], ["WATCHDOG=1"]])
        self.clock.advance(14.9)
        self.assertEqual(self.told(), [])
        self.clock.advance(0.1)
        self.assertEqual(self.told(), [["WATCHDOG=1"]])
        supervision.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_noWatchdog(self) -> None:
        """
        Without one nothing is fed.
        """
        supervision = self.supervision()
        supervision.start("On")
        self.assertEqual(self.told(), [["READY=1", "STATUS=On"]])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        supervision.stop()

    def test_interval(self) -> None:
        """
        Only our own watchdog counts, and only a time that is one.
        """
        for usec, pid, seconds in (
            ("2000000", "7", 1.0),
            ("2000000", "8", 0.0),
            ("0", "7", 0.0),
            ("-1", "7", 0.0),
            ("soon", "7", 0.0),
            ("", "7", 0.0),
        ):
            environ = {"WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}
            self.assertEqual(watchdog_interval(environ, 7), seconds, environ)
        self.assertEqual(watchdog_interval({"WATCHDOG_USEC": "2000000"}, 7), 1.0)


class HandedOverTests(SynchronousTestCase):
    """
    L{handed_over}
    """

    def given(self, *sockets: socket.socket) -> Any:
        """
        What becomes of sockets of systemd's. Twisted finds the last of a name.
        """

        def parse(reactor: object, description: str) -> Any:
            kind, domain, name = description.split(":")
            self.assertEqual((kind, name), ("systemd", f"name={NAME}"))
            family = getattr(socket, f"AF_{domain.removeprefix('domain=')}")
            return AdoptedStreamServerEndpoint(reactor, sockets[-1].fileno(), family)

        environ = {"LISTEN_FDNAMES": ":".join([NAME] * len(sockets))}
        return handed_over(None, NAME, environ, parse)

    def bound(self, family: socket.AddressFamily, address: Any) -> socket.socket:
        """
        A socket that listens.
        """
        found = socket.socket(family)
        self.addCleanup(found.close)
        found.bind(address)
        found.listen()
        return found

    def test_none(self) -> None:
        """
        No socket, no endpoint; nor where the names speak of sockets that were
        meant for another process.
        """
        self.assertIsNone(handed_over(None, NAME, {}))
        self.assertIsNone(handed_over(None, NAME, {"LISTEN_FDNAMES": "other"}))
        self.assertIsNone(handed_over(None, NAME, {"LISTEN_FDNAMES": NAME}))

    def test_port(self) -> None:
        """
        A port is taken with the family that it has.
        """
        for family, address in (
            (socket.AF_INET, ("127.0.0.1", 0)),
            (socket.AF_INET6, ("::", 0)),
        ):
            port = self.bound(family, address)
            endpoint = self.given(port)
            self.assertEqual(endpoint.fileno, port.fileno())
            self.assertEqual(endpoint.addressFamily, family)

    def test_unfit(self) -> None:
        """
        What is no TCP port that listens is refused, and so are two: the
        second one would be open with nobody behind it.
        """
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        silent = socket.socket()
        self.addCleanup(silent.close)
        port = self.bound(socket.AF_INET, ("127.0.0.1", 0))
        unix = self.bound(socket.AF_UNIX, f"{directory.name}/socket")
        for sockets in ((unix,), (silent,), (port, port)):
            self.assertRaises(ListenError, self.given, *sockets)
        self.assertIsNone(listening_family(-1))
