# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.joining}: where the token comes from, and what the
command line says.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.joining import VARIABLE, given_token
from ctrlexec.errors import CtrlExecError, InvalidValue, StoreError
from ctrlexec.joining import JoinSecret
from tests.agents import tree
from tests.test_agent_cli import CliTestCase

SECRETS = [JoinSecret.new("sha256:" + "ca" * 32) for _ in range(3)]
ARGUMENT, FILE, ENVIRONMENT = (secret.text for secret in SECRETS)


class GivenTests(SynchronousTestCase):
    """
    L{given_token}
    """

    def setUp(self) -> None:
        self.file = Path(self.mktemp())
        self.file.write_text(f"{FILE}\n")
        self.file.chmod(0o600)
        self.environ = {VARIABLE: ENVIRONMENT}

    def test_order(self) -> None:
        """
        What was typed goes before the environment.
        """
        given = (
            given_token(ARGUMENT, None, self.environ),
            given_token(None, self.file, self.environ),
            given_token(None, None, self.environ),
        )
        self.assertEqual(list(given), SECRETS)

    def test_none(self) -> None:
        """
        Without one the operator is told where they come from.
        """
        error = self.assertRaises(CtrlExecError, given_token, None, None, {})
        self.assertIn("join-token create", error.hint)

    def test_empty(self) -> None:
        """
        An empty text is a token with a mistake in it, and not none.
        """
        for argument, environ in (("", self.environ), (None, {VARIABLE: ""})):
            with self.assertRaises(InvalidValue):
                given_token(argument, None, environ)

    def test_badFile(self) -> None:
        """
        A file that is missing, no text, or too long is none.
        """
        missing = self.file.with_name("missing")
        self.assertRaises(CtrlExecError, given_token, None, missing, self.environ)
        self.file.write_bytes(b"\xff" * 100)
        self.assertRaises(InvalidValue, given_token, None, self.file, self.environ)
        self.file.write_bytes(b"a" * 5000)
        self.assertRaises(StoreError, given_token, None, self.file, self.environ)

    def test_readable(self) -> None:
        """
        A file that anybody can read is used, with a warning.
        """
        self.file.chmod(0o644)
        with contextlib.redirect_stderr(io.StringIO()) as stderr:
            given_token(None, self.file, {})
        self.assertIn("anybody on this host can read", stderr.getvalue())
        self.assertNotIn(FILE, stderr.getvalue())


class JoinTests(CliTestCase):
    """
    C{join}, as far as it needs no dispatcher.
    """

    def test_usage(self) -> None:
        """
        Options that the token makes senseless are a wrong use, and so is a
        token for another mode.
        """
        asked = ("join", ARGUMENT, "--dispatcher", "hq.example.net")
        for words in (
            (*asked, "--legacy"),
            (*asked, "--background"),
            (*asked, "--ca-fingerprint", "sha256:" + "0" * 64),
            (*asked, "--token-file", "x"),
            (*asked, "more"),
            ("request-pairing", ARGUMENT, "--dispatcher", "hq.example.net"),
            ("pairing-status", "x"),
        ):
            done = self.ours(*words)
            self.assertEqual((done.status, done.stdout), (2, ""), words)
            self.assertIn("hint: ", done.stderr)
            self.assertNotIn(ARGUMENT, done.stderr)

    def test_nobodyToAsk(self) -> None:
        """
        It needs to know the dispatcher.
        """
        done = self.ours("join", ARGUMENT)
        self.assertEqual(done.status, 1)
        self.assertIn("whom to ask", done.stderr)

    def test_typingError(self) -> None:
        """
        A wrong letter is told before anything is sent or made, wherever the
        token stands, and the token is not repeated.
        """
        wrong = ARGUMENT[:-1] + ("a" if ARGUMENT[-1] != "a" else "b")
        for words in (
            ("join", wrong, "--dispatcher", "hq.example.net"),
            ("join", "--dispatcher", "hq.example.net", wrong),
        ):
            done = self.ours(*words)
            self.assertEqual(done.status, 1)
            self.assertIn("a letter is wrong", done.stderr)
            self.assertNotIn(wrong, done.stderr)
        self.assertEqual(tree(self.directory), self.before)

    def test_help(self) -> None:
        """
        The mode is listed.
        """
        self.assertIn("\n  join   ", self.run_here("--help").stdout)
