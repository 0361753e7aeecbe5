# SPDX-License-Identifier: AGPL-3.0-only
"""
Whether the units of the dispatcher's host fit what they start. Whether systemd
understands them is the nox session C{init}.
"""

from __future__ import annotations

import re
from pathlib import Path

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.api.running import STOPPING_SECONDS
from ctrlexec.api.service import CONFIGURATION, PROGRAM
from ctrlexec.dispatcher.settings import DEFAULT_SOCKET, DispatcherSettings
from tests.test_init import DROP_INS, INIT, directives

API = INIT / "systemd" / "ctrl-exec-api.service"
PAIRING = INIT / "systemd" / "ctrl-exec-pairing.service"
SETTINGS = DispatcherSettings(directory=Path("/etc/ctrl-exec"))
#: What closes most of the host to a service.
CLOSED = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "ProtectSystem": "strict",
    "ReadWritePaths": str(SETTINGS.state_dir),
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "SystemCallFilter": "@system-service",
    "LimitCORE": "0",
}


class ApiUnitTests(SynchronousTestCase):
    """
    C{ctrl-exec-api.service}
    """

    def setUp(self) -> None:
        self.unit = directives(API)

    def test_agrees(self) -> None:
        """
        The unit and the API mean the same by their numbers and names.
        """
        self.assertEqual(self.unit["ExecStart"], f"/usr/bin/{PROGRAM}")
        self.assertEqual(self.unit["SyslogIdentifier"], PROGRAM)
        self.assertEqual(self.unit["RestartPreventExitStatus"], str(CONFIGURATION))
        patience = SETTINGS.connect_timeout + SETTINGS.read_timeout + STOPPING_SECONDS
        self.assertGreater(int(self.unit["TimeoutStopSec"]), patience)
        self.assertEqual(self.unit["Group"], SETTINGS.api_group)

    def test_socket(self) -> None:
        """
        The directory of the unix socket is its group's.
        """
        self.assertEqual(
            Path("/run") / self.unit["RuntimeDirectory"], DEFAULT_SOCKET.parent
        )
        self.assertEqual(self.unit["RuntimeDirectoryMode"], "0750")

    def test_closed(self) -> None:
        """
        It is no root, and the host is closed to it but for the state.
        """
        self.assertEqual(self.unit["User"], "ctrl-exec")
        self.assertEqual(self.unit, {**self.unit, **CLOSED})

    def test_locks(self) -> None:
        """
        There are descriptors for a lock on as many hosts as a request may name.
        """
        self.assertGreater(int(self.unit["LimitNOFILE"]), SETTINGS.max_hosts * 2)

    def test_reloads(self) -> None:
        """
        A reload is SIGHUP with every systemd.
        """
        self.assertEqual(self.unit["Type"], "notify-reload")
        older = directives(API, DROP_INS / "older-systemd.conf")
        self.assertEqual(older["ExecReload"], "/bin/kill -HUP $MAINPID")


class PairingUnitTests(SynchronousTestCase):
    """
    C{ctrl-exec-pairing.service}
    """

    def setUp(self) -> None:
        self.unit = directives(PAIRING)

    def test_agrees(self) -> None:
        """
        It starts what C{twistd} knows.
        """
        names = {maker.tapname for maker in getPlugins(IServiceMaker)}
        self.assertIn(self.unit["ExecStart"].split()[-1], names)

    def test_closes(self) -> None:
        """
        The port is open no longer than pairing mode's, does not open again by
        itself, and not after a start of the machine.
        """
        self.assertEqual(self.unit["RuntimeMaxSec"], str(SETTINGS.pairing_timeout))
        self.assertEqual(self.unit["Restart"], "no")
        self.assertNotIn("[Install]", PAIRING.read_text("utf-8"))

    def test_closed(self) -> None:
        """
        The host is closed to it but for the state.
        """
        self.assertEqual(self.unit, {**self.unit, **CLOSED})


class ReasonTests(SynchronousTestCase):
    """
    Both
    """

    def test_reasons(self) -> None:
        """
        Each paragraph of directives begins with why.
        """
        for file in (API, PAIRING):
            previous = ""
            for line in file.read_text("utf-8").split("\n"):
                if re.match("[A-Z]", line):
                    self.assertRegex(previous, "^[#A-Z]", f"{file.name}: {line}")
                previous = line


class MaintenanceUnitTests(SynchronousTestCase):
    """
    C{ctrl-exec-maintenance.service} and its timer
    """

    def test_service(self) -> None:
        """
        It does in its own process what the API can not, and writes nothing but
        the state and the identity.
        """
        unit = directives(INIT / "systemd" / "ctrl-exec-maintenance.service")
        *_, option, mode = unit["ExecStart"].split()
        self.assertEqual((option, mode), ("--direct", "maintain"))
        self.assertNotIn("User", unit)
        self.assertEqual(
            unit["ReadWritePaths"].split(),
            [str(SETTINGS.state_dir), str(SETTINGS.ca_dir)],
        )
        self.assertEqual(unit["LimitCORE"], "0")

    def test_timer(self) -> None:
        """
        It comes soon after the host, and then every few hours.
        """
        unit = directives(INIT / "systemd" / "ctrl-exec-maintenance.timer")
        self.assertEqual((unit["OnBootSec"], unit["OnUnitActiveSec"]), ("5min", "4h"))
