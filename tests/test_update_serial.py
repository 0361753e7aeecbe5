# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.update_serial}: what the script is given, and what
comes of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.trust import TrustedMap
from ctrlexec.agent.update_serial import CONFIG
from tests.agents import agent_directory
from tests.structure import ROOT


class UpdateSerialTests(SynchronousTestCase):
    """
    An agent that trusts C{hq}, and a dispatcher of the older line.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.file = agent_directory(self.directory)
        (self.directory / "state").mkdir()
        self.map = self.directory / "state" / "ctrl-exec-dispatchers"
        self.map.write_text("d1 hq\ne1 dispatcher\n")

    def update(self, *argv: str, stdin: str = "") -> tuple[int, str, str]:
        """
        Run the script as an agent does.
        """
        code = (
            "import sys; from ctrlexec.agent.update_serial import *; sys.exit(main())"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *argv],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env={CONFIG: str(self.file)},
            timeout=60,
        )
        return done.returncode, done.stdout, done.stderr

    def context(self, **fields: str) -> str:
        """
        What an agent writes to a script.
        """
        return json.dumps({"peer_ip": "192.0.2.1", "token": "s3cret", **fields})

    def entries(self) -> dict[str, str]:
        """
        Whom the map trusts.
        """
        return dict(TrustedMap.parse(self.map.read_text()).entries)

    def test_added(self) -> None:
        """
        The serial is that of the dispatcher that the agent names.
        """
        ended = self.update("00D2", stdin=self.context(dispatcher="hq"))
        self.assertEqual(ended, (0, "trusted: d2 hq\n", ""))
        self.assertEqual(self.entries(), {"d1": "hq", "d2": "hq", "e1": "dispatcher"})
        logged = (self.directory / "log").read_text()
        line = "ACTION=rotate DISPATCHER=hq PEER=192.0.2.1 SERIAL=d2 SERIAL_ACTION=add"
        self.assertTrue(logged.endswith(f": {line}\n"))
        self.assertNotIn("s3cret", logged)

    def test_nameless(self) -> None:
        """
        By hand, it is that of the dispatcher of the older line, which has no
        id.
        """
        self.assertEqual(self.update("e2")[:2], (0, "trusted: e2 dispatcher\n"))
        self.assertEqual(self.entries()["e2"], "dispatcher")

    def test_refused(self) -> None:
        """
        Anything else is an error in words, and changes nothing.
        """
        before = self.entries()
        hq = self.context(dispatcher="hq")
        for argv, stdin, words in (
            ((), hq, "usage"),
            (("d2", "lab"), hq, "usage"),
            (("--config=/etc/passwd",), hq, "invalid serial"),
            (("d2\nf1 hq",), hq, "invalid serial"),
            (("d2",), self.context(), "invalid dispatcher id"),
            (("d2",), "rubbish", "invalid JSON"),
            (("e1",), hq, "serial not owned by 'hq'"),
            (("f1",), self.context(dispatcher="lab"), "'lab' is not trusted"),
        ):
            status, out, err = self.update(*argv, stdin=stdin)
            self.assertEqual((status, out), (1, ""), argv)
            self.assertTrue(err.startswith("error: "), err)
            self.assertIn(words, err)
            self.assertEqual(self.entries(), before)
