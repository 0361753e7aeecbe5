# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.cli} and L{ctrlexec.agent.applying}: arguments, and
what the operator sees of them.
"""

from __future__ import annotations

import contextlib
import io
import socket
import subprocess
import sys
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec import __version__
from ctrlexec.agent.cli import _MODE, main
from ctrlexec.certificates import AgentRole, ca_fingerprint
from ctrlexec.values import openssl_time
from tests.agents import agent_directory, tree
from tests.authority import DAY
from tests.structure import ROOT
from tests.wired import AGENT, TODAY, credentials


@attrs.frozen
class Ended:
    """
    How a command line ended.
    """

    status: int
    stdout: str
    stderr: str


class CliTestCase(SynchronousTestCase):
    """
    An agent that is not paired.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.file = agent_directory(self.directory)
        self.before = tree(self.directory)

    def run_here(self, *argv: str) -> Ended:
        """
        Run a command line that needs no reactor.
        """
        with (
            contextlib.redirect_stdout(io.StringIO()) as stdout,
            contextlib.redirect_stderr(io.StringIO()) as stderr,
        ):
            try:
                status = main([*argv])
            except SystemExit as end:
                assert isinstance(end.code, int)
                status = end.code
        return Ended(status, stdout.getvalue(), stderr.getvalue())

    def ours(self, *argv: str) -> Ended:
        """
        The same with the agent's settings.
        """
        return self.run_here(*argv, "--config", str(self.file))

    def run_apart(self, *argv: str) -> Ended:
        """
        Run a command line in a process of its own, which needs a reactor.
        """
        code = "import sys; from ctrlexec.agent.cli import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", code, *argv, "--config", str(self.file)],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            timeout=60,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def pair(self, shown: bytes = AGENT.cert, trusted: str = "d1 hq\n") -> None:
        """
        Put an identity in its place.
        """
        names = {"agent.key": AGENT.key, "agent.crt": shown, "ca.crt": AGENT.ca}
        for name, content in names.items():
            (self.directory / name).write_bytes(content)
        (self.directory / "agent.key").chmod(0o600)
        state = self.directory / "state"
        state.mkdir()
        (state / "ctrl-exec-dispatchers").write_text(trusted)


class OptionsTests(CliTestCase):
    """
    What the arguments may be.
    """

    def test_version(self) -> None:
        """
        The version may be asked for beside any mode.
        """
        for argv in (["--version"], ["serve", "--version"], ["--version", "serve"]):
            expected = Ended(0, f"ctrl-exec-agent {__version__}\n", "")
            self.assertEqual(self.run_here(*argv), expected)

    def test_help(self) -> None:
        """
        The help names each mode.
        """
        text = self.run_here("--help").stdout
        for mode in _MODE:
            self.assertIn(f"\n  {mode}  ", text)

    def test_bad(self) -> None:
        """
        What is wrong with an option is said, with the status of usage errors;
        nothing is guessed.
        """
        for argv, words in (
            (["sreve"], "invalid choice"),
            (["serve", "more"], "unrecognized arguments"),
            (["--port", "0"], "expected a number from 1 to 65535"),
            (["--port", "65536"], "expected a number from 1 to 65535"),
            (["--conf=x"], "unrecognized arguments"),
            (["request-pairing", "--timeout", "0"], "1 to 600 seconds"),
            (["request-pairing", "--timeout", "601"], "1 to 600 seconds"),
            (["request-pairing", "--timeout", "0000000019999"], "1 to 600 seconds"),
            (["request-pairing", "--timeout", "-1"], "1 to 600 seconds"),
            (["request-pairing", "--timeout", "٣"], "1 to 600 seconds"),
            (["request-pairing", "--dispatcher", "a b"], "invalid host name"),
            (["request-pairing", "--dispatcher", "a:0"], "invalid port"),
            (["request-pairing", "--dispatcher", "../a"], "invalid host name"),
            (["request-pairing", "--lookup-by", "mac"], "invalid choice"),
            (["request-pairing", "--ca-fingerprint", "0" * 64], "sha256: and 64"),
            (["request-pairing", "--ca-fingerprint", "sha256:00"], "sha256: and 64"),
            (["request-pairing", "--ca-fingerprint", ""], "sha256: and 64"),
        ):
            ended = self.run_here(*argv)
            self.assertEqual((ended.status, ended.stdout), (2, ""), argv)
            self.assertIn(words, ended.stderr)


class ServeTests(CliTestCase):
    """
    C{serve}, where it does not come to that
    """

    def test_notPaired(self) -> None:
        """
        An agent that is not paired ends with the status that stops a supervisor
        from trying again; C{serve} is what is meant where no mode is given.
        """
        expected = Ended(
            78,
            "",
            "error: this agent is not paired\n"
            "hint: ctrl-exec-agent request-pairing --dispatcher HOST\n",
        )
        self.assertEqual(self.ours("serve"), expected)
        self.assertEqual(self.ours(), expected)

    def test_settings(self) -> None:
        """
        So does one whose settings can not be used, by file, line and key.
        """
        self.file.write_text("port = many\n")
        ended = self.ours("serve")
        self.assertEqual((ended.status, ended.stdout), (78, ""))
        self.assertTrue(ended.stderr.startswith(f"error: {self.file}:1: port: "))

    def test_busy(self) -> None:
        """
        A port in use is one line, and a status that lets a supervisor try
        again.
        """
        self.pair()
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
            port = taken.getsockname()[1]
            ended = self.ours("serve", "--port", str(port))
        line = f"cannot listen on port {port} of 127.0.0.1: Address already in use"
        self.assertEqual((ended.status, ended.stdout), (1, ""))
        self.assertEqual(ended.stderr.splitlines()[0], f"error: {line}")
        self.assertNotIn("Traceback", ended.stderr)


class StatusTests(CliTestCase):
    """
    C{pairing-status}
    """

    def test_notPaired(self) -> None:
        """
        No identity is status 1, and no error.
        """
        expected = Ended(1, "agent-one is not paired\n", "")
        self.assertEqual(self.ours("pairing-status"), expected)

    def test_paired(self) -> None:
        """
        What the identity is, and whom the agent trusts.
        """
        self.pair()
        self.assertEqual(
            self.ours("pairing-status"),
            Ended(
                0,
                "agent-one is paired\n"
                f"  CA           {ca_fingerprint(AGENT.ca)}\n"
                f"  certificate  {AGENT.info.serial}, "
                f"ends {openssl_time(AGENT.info.not_after)}\n"
                "  trusts       hq (d1)\n",
                "",
            ),
        )

    def test_unfit(self) -> None:
        """
        An identity that is of no use is status 1, and says why.
        """
        self.pair(trusted="")
        ended = self.ours("pairing-status")
        self.assertEqual(ended.status, 1)
        self.assertIn("trusts no dispatcher", ended.stderr)
        old = credentials(AgentRole("agent-one"), now=TODAY - 4 * DAY)
        (self.directory / "agent.crt").write_bytes(old.cert)
        (self.directory / "state" / "ctrl-exec-dispatchers").write_text("d1 hq\n")
        ended = self.ours("pairing-status")
        self.assertEqual(ended.status, 1)
        self.assertIn("has expired", ended.stderr)
        (self.directory / "agent.crt").write_text("rubbish")
        ended = self.ours("pairing-status")
        self.assertEqual((ended.status, ended.stdout), (1, ""))
        self.assertIn("agent.crt: not a PEM certificate", ended.stderr)


class PairingTests(CliTestCase):
    """
    C{request-pairing}, where nobody is there to decide
    """

    def unchanged(self) -> dict[str, bytes]:
        """
        All files but the log.
        """
        found = tree(self.directory)
        found.pop("log", None)
        return found

    def test_whom(self) -> None:
        """
        Without a dispatcher nobody is asked.
        """
        ended = self.ours("request-pairing")
        self.assertEqual((ended.status, ended.stdout), (1, ""))
        self.assertIn("needs to know whom to ask", ended.stderr)

    def test_nobodyToAsk(self) -> None:
        """
        Where nobody can compare the codes, one of two options says what is to
        be done instead; without it nobody is asked at all.
        """
        argv = ("request-pairing", "--dispatcher", "hq.invalid")
        ended = self.ours(*argv, "--background")
        self.assertEqual((ended.status, ended.stdout), (2, ""))
        self.assertIn("it needs --ca-fingerprint or --legacy", ended.stderr)
        ended = self.run_apart(*argv)
        self.assertEqual((ended.status, ended.stdout), (1, ""))
        self.assertIn("no terminal to ask at", ended.stderr)
        self.assertEqual(self.unchanged(), self.before)

    def test_notStorable(self) -> None:
        """
        That an identity could not be stored is said before anybody is asked.
        """
        (self.directory / "state").touch()
        ended = self.ours("request-pairing", "--dispatcher", "hq.invalid", "--legacy")
        self.assertEqual((ended.status, ended.stdout), (1, ""))
        self.assertIn(f"error: {self.directory}/state", ended.stderr)

    def test_nothingListens(self) -> None:
        """
        Where nothing listens that is said, in the foreground and in the
        background, before which the parent does not end; nothing is left.
        """
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
            port = taken.getsockname()[1]
        pinned = ("--ca-fingerprint", "sha256:" + "0" * 64)
        argv = ("request-pairing", "--ctrl-exec", f"127.0.0.1:{port}", *pinned)
        expected = (
            "warning: 'agent-one' has no domain; other hosts may have the same name\n"
            f"error: nothing listens at 127.0.0.1, port {port}\n"
            "hint: start pairing mode on the dispatcher: ctrl-exec pairing-mode\n"
        )
        for more in ((), ("--background",)):
            ended = self.run_apart(*argv, *more)
            self.assertEqual(ended, Ended(1, "", expected))
            self.assertEqual(self.unchanged(), self.before)
