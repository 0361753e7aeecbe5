# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.hooks} with real hooks.
"""

from __future__ import annotations

import json
import os
import select
import stat
from pathlib import Path

import attrs
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.process import reapProcessHandlers
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from ctrlexec.hooks import (
    VARIABLE_BYTES,
    Allowed,
    AuthHook,
    Denied,
    HookContext,
    Verdict,
)
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
        while reapProcessHandlers:
            await deferLater(reactor, 0.01)

    async def ask(self, text: str, timeout: float = PATIENT) -> Verdict:
        """
        What a hook with this source answers.
        """
        return await self.answer(self.hook(text, timeout))

    async def answer(self, hook: AuthHook, context: HookContext = QUESTION) -> Verdict:
        """
        What a hook answers, once the reactor runs. Were that to come while it
        starts, Trial would stop it then, and the next start hear of no child.
        """
        await deferLater(reactor, 0)
        return await hook.ask(context)

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

    def alive(self) -> int:
        """
        A pipe C{alive}, which whoever lives is to hold open for writing.
        """
        os.mkfifo(self.directory / "alive")
        reading = os.open(self.directory / "alive", os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reading)
        return reading

    def assertAllDead(self, alive: int) -> None:
        """
        Nobody lives, or will not in a moment.
        """
        ready, _, _ = select.select([alive], [], [], PATIENT)
        self.assertTrue(ready, "somebody lives")
        self.assertEqual(os.read(alive, 1), b"")

    async def test_group(self) -> None:
        """
        A hook that takes too long ends with all that it has started.
        """
        alive = self.alive()
        answer = await self.ask("exec 5>alive; sleep 60 & sleep 60", IMPATIENT)
        self.assertEqual(answer, Denied("denied"))
        self.assertEqual(self.log.lines[0], "ACTION=auth-hook-timeout TIMEOUT=0.5")
        self.assertAllDead(alive)

    async def test_leftBehind(self) -> None:
        """
        A hook has answered when it exits, whatever it leaves behind; and that
        is ended.
        """
        alive = self.alive()
        for status, expected in ((0, Allowed()), (1, Denied())):
            text = f"exec 5>alive; sleep 60 <&0 & exit {status}"
            hook = self.hook(text, 0.9)
            # More than a pipe holds, which the child will never read.
            asked = attrs.evolve(QUESTION, args=("x" * 60_000,) * 2)
            self.assertEqual(await self.answer(hook, asked), expected)
        self.assertAllDead(alive)

    async def test_nowhere(self) -> None:
        """
        What a hook writes goes nowhere, and it has no descriptor but these.
        """
        self.assertEqual(await self.ask("ls -l /proc/$$/fd >fds"), Allowed())
        listed = (self.directory / "fds").read_text()
        self.assertIn("1 -> /dev/null", listed)
        self.assertIn("2 -> /dev/null", listed)

    async def test_noFork(self) -> None:
        """
        Hooks are not forked off, which would take several times as long.
        """

        def refuse() -> int:
            raise AssertionError("forked")

        self.patch(os, "fork", refuse)
        self.assertEqual(await self.ask("exit 0"), Allowed())

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
        answer = await self.answer(hook, attrs.evolve(QUESTION, args=("x",) * 20_000))
        self.assertEqual(answer, Denied("bad credentials", 2))

    async def test_tooLong(self) -> None:
        """
        What the longest variable holds arrives whole. What is longer is denied,
        with a word on why, but if the hook has it on stdin alone.
        """
        longest = VARIABLE_BYTES - len("ENVEXEC_HOSTS=") - 1
        hook = self.hook('test "${#ENVEXEC_HOSTS}" = ' + f"{longest}")
        hosts = ("x" * (longest // 2), "x" * (longest - 1 - longest // 2))
        asked = attrs.evolve(QUESTION, hosts=hosts)
        self.assertEqual(await self.answer(hook, asked), Allowed())
        more = attrs.evolve(asked, hosts=(*hosts, ""))
        answer = await self.answer(hook, more)
        assert isinstance(answer, Denied)
        self.assertIn("ENVEXEC_HOSTS has 131073 bytes", answer.reason)
        hook = attrs.evolve(
            self.hook('cat >stdin; test -z "${ENVEXEC_HOSTS+set}"'), lists_on_stdin=True
        )
        self.assertEqual(await self.answer(hook, more), Allowed())
        self.assertEqual((self.directory / "stdin").read_bytes(), more.stdin())

    async def test_noInterpreter(self) -> None:
        """
        A hook whose interpreter is missing denies.
        """
        hook = self.hook("")
        hook.path.write_text("#!/no/such/interpreter\n")
        self.assertTrue(hook.path.stat().st_mode & stat.S_IXUSR)
        self.assertEqual(await self.answer(hook), Denied("hook exited 127", 127))

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
