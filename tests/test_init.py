# SPDX-License-Identifier: AGPL-3.0-only
"""
Whether the files in C{init/} fit the agent that they start. Whether systemd and
a shell understand them is the nox session C{init}.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.service import CONFIGURATION, SOCKET_UNIT
from ctrlexec.agent.settings import AgentSettings
from ctrlexec.protocol.listening import BACKLOG
from tests.structure import ROOT

INIT = ROOT / "init"
UNIT = INIT / "systemd" / "ctrl-exec-agent.service"
SOCKET = INIT / "systemd" / SOCKET_UNIT
DROP_INS = INIT / "systemd" / "drop-ins"
SCRIPTS = (INIT / "openwrt" / "ctrl-exec-agent", INIT / "alpine" / "ctrl-exec-agent")
SETTINGS = AgentSettings(directory=Path("/etc/ctrl-exec-agent"), name="a")


def directives(*files: Path) -> dict[str, str]:
    """
    What unit files say; the later one has the last word.
    """
    lines = [line for file in files for line in file.read_text("utf-8").split("\n")]
    pairs = (line.partition("=") for line in lines if re.match("[A-Z]", line))
    return {key: value for key, _, value in pairs}


class UnitTests(SynchronousTestCase):
    """
    The units of systemd
    """

    def test_agrees(self) -> None:
        """
        The unit and the agent mean the same by their numbers and names.
        """
        unit, port = directives(UNIT), directives(SOCKET)
        self.assertEqual(unit["RestartPreventExitStatus"], str(CONFIGURATION))
        self.assertGreater(int(unit["TimeoutStopSec"]), SETTINGS.stop_grace)
        self.assertEqual(unit["StateDirectory"], SETTINGS.state_dir.name)
        self.assertEqual(port["FileDescriptorName"], SOCKET_UNIT)
        self.assertEqual(port["ListenStream"], str(SETTINGS.port))
        self.assertEqual(port["Backlog"], str(BACKLOG))

    def test_scriptsLive(self) -> None:
        """
        Nothing in the unit ends the scripts with the agent, or takes from them
        what those that administer a host need.
        """
        unit = directives(UNIT)
        self.assertEqual(unit["KillMode"], "process")
        self.assertEqual(unit["OOMPolicy"], "continue")
        confining = set(directives(DROP_INS / "confined.conf"))
        self.assertIn("NoNewPrivileges", confining)
        self.assertEqual(confining & set(unit), set())

    def test_controlGroups(self) -> None:
        """
        The agent can make a control group for each run, confined or not, and
        is no worse confined for that.
        """
        for drop_ins in ((), (DROP_INS / "confined.conf",)):
            unit = directives(UNIT, *drop_ins)
            self.assertEqual(unit["Delegate"], "yes")
            self.assertNotIn("ProtectControlGroups", unit)
            self.assertEqual(unit["User"], "ctrl-exec-agent")
            self.assertEqual(bool(drop_ins), "NoNewPrivileges" in unit)

    def test_reloads(self) -> None:
        """
        A reload is SIGHUP with every systemd.
        """
        self.assertEqual(directives(UNIT)["Type"], "notify-reload")
        older = directives(UNIT, DROP_INS / "older-systemd.conf")
        self.assertEqual(older["Type"], "notify")
        self.assertEqual(older["ExecReload"], "/bin/kill -HUP $MAINPID")

    def test_reasons(self) -> None:
        """
        Why it is there stands right above each directive; where several serve
        one end, as in what confines the agent, above the first of them.
        """
        older = DROP_INS / "older-systemd.conf"
        confined = DROP_INS / "confined.conf"
        for file in (UNIT, SOCKET, older, confined):
            above = "^[#A-Z]" if file == confined else "^# "
            previous = ""
            for line in file.read_text("utf-8").split("\n"):
                if re.match("[A-Z]", line):
                    self.assertRegex(previous, above, f"{file.name}: {line}")
                previous = line


class ScriptTests(SynchronousTestCase):
    """
    The scripts of OpenWrt and Alpine
    """

    def test_shell(self) -> None:
        """
        A plain shell can read them, and they may be executed.
        """
        for script in SCRIPTS:
            done = subprocess.run(["sh", "-n", str(script)], check=False)
            self.assertEqual(done.returncode, 0)
            self.assertEqual(script.stat().st_mode & 0o111, 0o111)

    def test_waits(self) -> None:
        """
        They wait longer for the agent than it waits for its runs, pass SIGHUP
        on, and do not start an agent that is not paired.
        """
        for script, pattern in zip(
            SCRIPTS, (r"term_timeout (\d+)", r"TERM/(\d+)/KILL"), strict=True
        ):
            text = script.read_text("utf-8")
            found = re.search(pattern, text)
            assert found is not None
            self.assertGreater(int(found[1]), SETTINGS.stop_grace)
            self.assertIn("HUP", text)
            self.assertRegex(text, r'" paired \|\|')
