# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of the place that is kept for the HTTP API, and of the plugin's names.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec import __version__
from ctrlexec.api import service

ROOT = Path(__file__).resolve().parent.parent
MAIN = "from ctrlexec.api.service import main; main()"


def started(*arguments: str) -> subprocess.CompletedProcess[str]:
    """
    Run a Python of its own, as C{python ARGUMENTS}, with this project's code.
    """
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )


class ApiPlaceTests(SynchronousTestCase):
    """
    Whoever starts the API learns that it is not there yet.
    """

    def test_command(self) -> None:
        """
        The command says so in one line on stderr and fails.
        """
        done = started("-c", MAIN)
        self.assertEqual(done.returncode, 1)
        self.assertEqual((done.stdout, done.stderr), ("", service.NOT_YET + "\n"))
        self.assertIn("later release", done.stderr)

    def test_twistd(self) -> None:
        """
        C{twistd} does the same, before it goes into the background.
        """
        done = started("-m", "twisted", "ctrl-exec-api")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stderr, service.NOT_YET + "\n")

    def test_help(self) -> None:
        """
        Help is help, and comes without Klein and without a reactor.
        """
        code = (
            "import sys\n"
            "from ctrlexec.api.service import main\n"
            "try: main(['--help'])\n"
            "finally: print({'klein', 'twisted.internet.reactor'} & {*sys.modules})"
        )
        done = started("-c", code)
        self.assertEqual(done.returncode, 0)
        self.assertIn("later release", done.stdout)
        self.assertEqual(done.stdout.splitlines()[-1], "set()")

    def test_version(self) -> None:
        """
        The version shown is that of ctrl-exec, not that of Twisted.
        """
        done = started("-c", MAIN, "--version")
        self.assertEqual(done.returncode, 0)
        self.assertEqual(done.stdout, f"ctrl-exec-api {__version__}\n")

    def test_unknownOption(self) -> None:
        """
        An option that does not exist is named.
        """
        done = started("-c", MAIN, "--bogus")
        self.assertEqual(done.returncode, 1)
        self.assertIn("error: option --bogus not recognized", done.stderr)


class PluginTests(SynchronousTestCase):
    """
    C{twistd} finds the daemons.
    """

    def test_names(self) -> None:
        """
        All three are there under their own names, with a line for the help.
        """
        ours = {
            maker.tapname: maker.description
            for maker in getPlugins(IServiceMaker)
            if maker.tapname.startswith("ctrl-exec")
        }
        self.assertEqual(
            sorted(ours), ["ctrl-exec-agent", "ctrl-exec-api", "ctrl-exec-pairing"]
        )
        self.assertNotIn("", ours.values())
