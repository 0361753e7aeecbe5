# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.upkeep}: command lines, and what comes of them.
"""

from __future__ import annotations

import contextlib
import errno
import socket

from ctrlexec.agent import upkeep
from ctrlexec.errors import StoreError
from tests.agents import tree
from tests.test_agent_cli import CliTestCase, Ended
from tests.wired import AGENT, DISPATCHER


class SelfCheckTests(CliTestCase):
    """
    C{self-check}
    """

    def test_printed(self) -> None:
        """
        A line for each check, verdict first; the status is 0 if none has
        failed, whatever was warned of.
        """
        self.pair()
        ended = self.ours("self-check")
        self.assertEqual((ended.status, ended.stderr), (0, ""))
        lines = ended.stdout.splitlines()
        self.assertTrue(lines[0].startswith("ok    settings          "), lines[0])
        self.assertTrue(any(line.startswith("warn  certificate") for line in lines))

    def test_failed(self) -> None:
        """
        One that has failed is status 1.
        """
        ended = self.ours("self-check")
        self.assertEqual((ended.status, ended.stderr), (1, ""))
        self.assertIn("FAIL  identity          this agent is not paired", ended.stdout)


class InitTests(CliTestCase):
    """
    What init scripts ask: silent, by exit status
    """

    def test_paired(self) -> None:
        """
        C{paired} is 0 where there is an identity.
        """
        self.assertEqual(self.ours("paired"), Ended(1, "", ""))
        self.pair()
        self.assertEqual(self.ours("paired"), Ended(0, "", ""))

    def test_staged(self) -> None:
        """
        C{cert-staged} is 0 where a certificate waits.
        """
        self.pair()
        self.assertEqual(self.ours("cert-staged"), Ended(1, "", ""))
        (self.directory / "state" / "agent.crt.staged").touch()
        self.assertEqual(self.ours("cert-staged"), Ended(0, "", ""))

    def test_noSettings(self) -> None:
        """
        Without settings both are 1.
        """
        self.file.unlink()
        for mode in ("paired", "cert-staged"):
            ended = self.ours(mode)
            self.assertEqual((ended.status, ended.stdout), (1, ""))
            self.assertIn("there is no such file", ended.stderr)

    def test_promote(self) -> None:
        """
        C{promote-cert} says what it has done.
        """
        self.pair(shown=DISPATCHER.cert)
        staged = self.directory / "state" / "agent.crt.staged"
        staged.write_bytes(AGENT.cert)
        live = self.directory / "agent.crt"
        words = f"{live} is the renewed certificate\n"
        self.assertEqual(self.ours("promote-cert"), Ended(0, words, ""))
        self.assertEqual(live.read_bytes(), AGENT.cert)

    def test_promoteAnyway(self) -> None:
        """
        Whatever is wrong, C{promote-cert} is 0: the agent starts next.
        """
        self.assertEqual(self.ours("promote-cert"), Ended(0, "", ""))
        self.assertEqual(tree(self.directory), self.before)
        state = self.directory / "state"
        state.mkdir()
        (state / "agent.crt.staged").write_bytes(AGENT.cert)
        ended = self.ours("promote-cert")
        self.assertEqual((ended.status, ended.stdout), (0, ""))
        self.assertIn("error: this agent is not paired", ended.stderr)
        self.assertNotPromoted("this agent is not paired")
        self.file.unlink()
        ended = self.ours("promote-cert")
        self.assertEqual((ended.status, ended.stdout), (0, ""))
        self.assertIn("there is no such file", ended.stderr)

    def test_promoteFails(self) -> None:
        """
        So it is where the new certificate can not be written, and whatever a
        system or a fault of ours makes of it; the log says so.
        """
        self.pair(shown=DISPATCHER.cert)
        (self.directory / "state" / "agent.crt.staged").write_bytes(AGENT.cert)
        for error, words in (
            (StoreError(self.file, "cannot write it"), "cannot write it"),
            (OSError(errno.EIO, "Input/output error"), "Input/output error"),
            (KeyError("x"), "internal error: KeyError"),
        ):

            def fails(*_: object, error: Exception = error) -> bool:
                raise error

            self.patch(upkeep, "promote", fails)
            ended = self.ours("promote-cert")
            self.assertEqual((ended.status, ended.stdout), (0, ""))
            self.assertIn(words, ended.stderr)
            self.assertNotPromoted(words)

    def assertNotPromoted(self, words: str) -> None:
        """
        The last line of the log says that there was nothing, and why.
        """
        last = (self.directory / "log").read_text().splitlines()[-1]
        self.assertIn(": ACTION=cert-promote ERROR=", last)
        self.assertIn(words, last)


class SelfPingTests(CliTestCase):
    """
    C{self-ping}, where nobody answers
    """

    def test_notPaired(self) -> None:
        """
        Without an identity there is nothing to show.
        """
        ended = self.ours("self-ping")
        self.assertEqual((ended.status, ended.stdout), (1, ""))
        self.assertIn("agent.key", ended.stderr)

    def test_nobody(self) -> None:
        """
        Where nothing listens that is an error in words, and a hint.
        """
        self.pair()
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
            port = taken.getsockname()[1]
        ended = self.run_apart("self-ping", "--port", str(port))
        self.assertEqual((ended.status, ended.stdout), (1, ""))
        self.assertIn(f"did not respond on port {port}", ended.stderr)
        self.assertIn("hint: does the agent run", ended.stderr)
