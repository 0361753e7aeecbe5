# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of how the API is started, and of the plugin's names.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec import __version__
from ctrlexec.api.service import CONFIGURATION, Options
from ctrlexec.api.source import Overrides
from ctrlexec.dispatcher.settings import DEFAULT_FILE

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


class OptionTests(SynchronousTestCase):
    """
    L{Options}
    """

    def parsed(self, *words: str) -> Options:
        """
        What a command line says.
        """
        options = Options()
        options.parseOptions(words)
        return options

    def test_nothing(self) -> None:
        """
        Without a word the settings decide, which are where they always are.
        """
        options = self.parsed()
        self.assertEqual(options["config"], str(DEFAULT_FILE))
        self.assertEqual(options.overrides, Overrides())

    def test_environment(self) -> None:
        """
        The settings are those that ctrl-exec has, too, unless others are named.
        """
        self.patch(os, "environ", {"CTRL_EXEC_CONFIG": "/here.conf"})
        self.assertEqual(self.parsed()["config"], "/here.conf")
        self.assertEqual(
            self.parsed("--config", "/other.conf")["config"], "/other.conf"
        )

    def test_overrides(self) -> None:
        """
        Port and addresses can be said otherwise, as the settings would.
        """
        options = self.parsed("--port", "9", "--bind", "::1,unix:/run/a.sock")
        self.assertEqual(options.overrides, Overrides(9, ("::1", Path("/run/a.sock"))))
        self.assertEqual(self.parsed("--bind", "").overrides.api_bind, ("",))

    def test_wrong(self) -> None:
        """
        What is neither is refused, with what would be right.
        """
        for words, expected in (
            (("--port", "0"), "1 to 65535"),
            (("--port", ""), "1 to 65535"),
            (("--bind", "localhost"), "unix:/absolute/path"),
            (("--bind", "unix:a.sock"), "unix:/absolute/path"),
        ):
            with self.assertRaises(UsageError) as caught:
                self.parsed(*words)
            self.assertIn(expected, str(caught.exception))


class CommandTests(SynchronousTestCase):
    """
    C{ctrl-exec-api}
    """

    def test_help(self) -> None:
        """
        Help is help, and comes without Klein and without a reactor: whoever
        asks C{twistd} for another one gets it.
        """
        code = (
            "import sys\n"
            "from ctrlexec.api.service import main\n"
            "try: main(['--help'])\n"
            "finally: print({'klein', 'twisted.internet.reactor'} & {*sys.modules})"
        )
        done = started("-c", code)
        self.assertEqual(done.returncode, 0)
        self.assertIn("--bind", done.stdout)
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

    def test_noSettings(self) -> None:
        """
        Without settings there is no API, however it is started, and a line that
        says so.
        """
        missing = str(ROOT / "missing.conf")
        for words in (
            ("-c", MAIN, "--config", missing),
            ("-m", "twisted", "ctrl-exec-api", "--config", missing),
        ):
            done = started(*words)
            self.assertEqual(done.returncode, CONFIGURATION)
            self.assertEqual(done.stdout, "")
            self.assertEqual(
                done.stderr.splitlines()[0],
                f"error: {missing}: there is no such file",
            )


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
