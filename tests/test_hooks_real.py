# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.hooks} with real hooks.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import attrs
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.process import ProcessReader
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from ctrlexec.hooks import Allowed, AuthHook, Denied, HookContext, Verdict
from ctrlexec.process import small_environment
from tests.agents import Recorded

QUESTION = HookContext(
    action="run",
    script="hello",
    args=("a b", "ü\n"),
    username="ann",
    token="s3cret",
    source_ip="192.0.2.1",
    timestamp="2026-03-05T18:38:09Z",
)
PATIENT, IMPATIENT = 20.0, 0.5


class RealHookTests(TestCase):
    """
    Hooks that do what hooks do.
    """

    timeout = 30

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.log = Recorded()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.buried()))

    def hook(self, text: str, timeout: float = PATIENT) -> AuthHook:
        """
        A hook with this source.
        """
        path = self.directory / "hook"
        path.write_text(f"#!/bin/sh\ncd {self.directory}\n{text}\n")
        path.chmod(0o755)
        return AuthHook(reactor, path, timeout, small_environment({}), self.log)

    async def buried(self) -> None:
        """
        A hook that was killed has been buried, too.
        """
        while any(isinstance(each, ProcessReader) for each in reactor.getReaders()):
            await deferLater(reactor, 0.01)

    async def ask(self, text: str, timeout: float = PATIENT) -> Verdict:
        """
        What a hook with this source answers.
        """
        return await self.hook(text, timeout).ask(QUESTION)

    async def test_question(self) -> None:
        """
        A hook finds the question on stdin and in its environment, and has no
        arguments.
        """
        answer = await self.ask('cat >stdin; env >env; test "$#" = 0')
        self.assertEqual(answer, Allowed())
        said = json.loads((self.directory / "stdin").read_text())
        self.assertEqual((said["token"], said["args"]), ("s3cret", ["a b", "ü\n"]))
        lines = (self.directory / "env").read_text().splitlines()
        self.assertIn("ENVEXEC_TOKEN=s3cret", lines)
        self.assertIn('ENVEXEC_ARGS_JSON=["a b","\\u00fc\\n"]', lines)
        self.assertIn("ENVEXEC_DISPATCHER=", lines)

    async def test_signal(self) -> None:
        """
        A hook that kills itself denies.
        """
        answer = await self.ask("kill -9 $$")
        self.assertEqual(answer, Denied("hook killed by SIGKILL"))

    async def test_group(self) -> None:
        """
        A hook that takes too long ends with all that it has started.
        """
        os.mkfifo(self.directory / "alive")
        reading = os.open(self.directory / "alive", os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reading)
        # Whoever lives holds the pipe open for writing.
        answer = await self.ask("exec 5>alive; sleep 60 & sleep 60", IMPATIENT)
        self.assertEqual(answer, Denied("denied"))
        self.assertEqual(self.log.lines[0], "ACTION=auth-hook-timeout TIMEOUT=0.5")
        os.set_blocking(reading, True)
        self.assertEqual(os.read(reading, 1), b"")

    async def test_loud(self) -> None:
        """
        A hook can write more than any pipe holds; nobody listens.
        """
        self.assertEqual(await self.ask("head -c 10000000 /dev/zero"), Allowed())

    async def test_unread(self) -> None:
        """
        A hook may leave unread more than any pipe holds.
        """
        hook = self.hook("exit 2")
        answer = await hook.ask(attrs.evolve(QUESTION, args=("x",) * 20_000))
        self.assertEqual(answer, Denied("bad credentials", 2))

    async def test_tooLong(self) -> None:
        """
        A question that the system does not let into an environment is denied.
        """
        hook = self.hook("exit 0")
        answer = await hook.ask(attrs.evolve(QUESTION, args=("x" * 500_000,)))
        self.assertEqual(answer, Denied("hook not started: Argument list too long"))

    async def test_noInterpreter(self) -> None:
        """
        A hook whose interpreter is missing denies.
        """
        hook = self.hook("")
        hook.path.write_text("#!/no/such/interpreter\n")
        self.assertTrue(hook.path.stat().st_mode & stat.S_IXUSR)
        self.assertEqual(await hook.ask(QUESTION), Denied("hook exited 127", 127))

    async def test_sideBySide(self) -> None:
        """
        Many hooks run at the same time, and nothing waits for them: each ends
        only once the last one was started.
        """
        os.mkfifo(self.directory / "gate")
        hook = self.hook("read -r line <gate")
        asking = gatherResults(
            Deferred.fromCoroutine(hook.ask(QUESTION)) for _ in range(10)
        )
        self.assertFalse(asking.called)
        gate = os.open(self.directory / "gate", os.O_RDWR)
        self.addCleanup(os.close, gate)
        await deferLater(reactor, 0)
        os.write(gate, b"go\n" * 10)
        self.assertEqual(await asking, [Allowed()] * 10)
