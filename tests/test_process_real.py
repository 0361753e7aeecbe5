# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.process} and L{ctrlexec.agent.runs} with real processes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from ctrlexec.agent.allowlist import Script
from ctrlexec.agent.runs import RunOutcome, ScriptRunner
from ctrlexec.process import FIXED_PATH, small_environment

MAX_OUTPUT = 8 * 1024 * 1024
STDIN_TIMEOUT = 0.2
SMALL_CONTEXT = b'{"script": "x"}'
LARGE_CONTEXT = b"x" * 1024 * 1024


class RealScriptTests(TestCase):
    """
    Scripts that do what scripts do.
    """

    timeout = 30

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.environ = {"HOME": "/nonexistent", "LC_ALL": "C.UTF-8", "SECRET": "x"}

    def script(self, text: str, *, interpreter: str = "/bin/sh") -> Path:
        path = self.directory / "script"
        path.write_text(f"#!{interpreter}\n{text}\n", encoding="utf-8")
        path.chmod(0o755)
        return path

    def python(self, text: str) -> Path:
        return self.script(text, interpreter=sys.executable)

    async def run_script(
        self, path: Path, args: Sequence[str] = (), context: bytes = SMALL_CONTEXT
    ) -> RunOutcome:
        runner = ScriptRunner(
            reactor,
            stdin_timeout=STDIN_TIMEOUT,
            max_output=MAX_OUTPUT,
            env=small_environment(self.environ),
        )
        return await runner.run(Script("script", path), context, args)

    async def test_exit_status_and_outputs(self) -> None:
        """
        A script's exit status and its two outputs come back.
        """
        outcome = await self.run_script(self.script("cat; echo; echo oops >&2; exit 3"))
        self.assertEqual(
            outcome, RunOutcome(3, SMALL_CONTEXT.decode() + "\n", "oops\n")
        )

    async def test_arguments_arrive_as_they_are(self) -> None:
        """
        No shell ever sees the arguments.
        """
        args = ["a b", "", "'\"", "$(id)`id`", "*", "x\ny", "ü€😀", "-v", "--", "a;b"]
        path = self.python("import json, sys; print(json.dumps(sys.argv[1:]))")
        outcome = await self.run_script(path, args)
        self.assertEqual(json.loads(outcome.stdout), args)

    async def test_environment_is_the_small_one(self) -> None:
        """
        A program's environment is the small one and nothing else, whatever
        started it.
        """
        outcome = await self.run_script(Path("/usr/bin/env"))
        self.assertEqual(
            sorted(outcome.stdout.splitlines()),
            ["HOME=/nonexistent", "LC_ALL=C.UTF-8", f"PATH={FIXED_PATH}"],
        )

    async def test_leads_a_session(self) -> None:
        """
        A script leads a session and a process group.
        """
        path = self.python("import os; print(os.getpid(), os.getsid(0), os.getpgid(0))")
        outcome = await self.run_script(path)
        ids = set(outcome.stdout.split())
        self.assertEqual(len(ids), 1)
        self.assertNotIn(str(os.getsid(0)), ids)

    async def test_inherits_no_descriptors(self) -> None:
        """
        A script has its three standard streams and no other descriptor of
        ours.
        """
        with open(os.devnull) as ours:
            os.set_inheritable(ours.fileno(), True)
            outcome = await self.run_script(self.script("exec ls /proc/self/fd"))
        # The fourth is the directory that ls reads.
        self.assertEqual(outcome.stdout.split(), ["0", "1", "2", "3"])

    async def test_sigpipe_is_not_ignored(self) -> None:
        """
        Python ignores SIGPIPE; a script must not inherit that, or its
        pipelines never end.
        """
        outcome = await self.run_script(
            self.script("exec grep SigIgn /proc/self/status")
        )
        ignored = int(outcome.stdout.split()[1], 16)
        self.assertFalse(ignored & 1 << signal.SIGPIPE - 1)

    async def test_killed_by_a_signal(self) -> None:
        """
        A script that a signal ends has exit status 126.
        """
        outcome = await self.run_script(self.script("echo before; kill -KILL $$"))
        self.assertEqual(outcome, RunOutcome(126, "before\n", ""))

    async def test_a_hundred_megabytes(self) -> None:
        """
        A script that writes more than we keep is read to its end.
        """
        outcome = await self.run_script(
            self.script("head -c 104857600 /dev/zero; echo done >&2")
        )
        notice = f"\n[stdout cut: {MAX_OUTPUT} of 104857600 bytes kept]\n"
        self.assertEqual(outcome.exit, 0)
        self.assertEqual(outcome.stderr, "done\n")
        self.assertTrue(outcome.stdout.endswith("\0" + notice))
        self.assertEqual(len(outcome.stdout), MAX_OUTPUT + len(notice))

    async def test_invalid_utf8(self) -> None:
        """
        Bytes that are not UTF-8 are replaced.
        """
        outcome = await self.run_script(self.script(r"printf 'a\377b'"))
        self.assertEqual(outcome.stdout, "a\ufffdb")

    async def test_large_context_is_read_whole(self) -> None:
        """
        A context larger than a pipe arrives whole.
        """
        outcome = await self.run_script(self.script("wc -c"), (), LARGE_CONTEXT)
        self.assertEqual(outcome.stdout.strip(), str(len(LARGE_CONTEXT)))
        self.assertFalse(outcome.stdin_timed_out)

    async def test_exits_without_reading_a_large_context(self) -> None:
        """
        A script that ends without reading its context is done at once.
        """
        outcome = await self.run_script(self.script("echo done"), (), LARGE_CONTEXT)
        self.assertEqual(outcome, RunOutcome(0, "done\n", ""))

    async def test_never_reads_a_large_context(self) -> None:
        """
        A script that lives on without reading its context is given up on, and
        then finds the end of the file; its result comes all the same.
        """
        outcome = await self.run_script(
            self.script("sleep 0.5; wc -c | grep -qvx 1048576; echo done"),
            (),
            LARGE_CONTEXT,
        )
        self.assertEqual(outcome, RunOutcome(0, "done\n", "", stdin_timed_out=True))

    async def test_closes_its_outputs_and_lives_on(self) -> None:
        """
        A script that closes its outputs is waited for.
        """
        outcome = await self.run_script(
            self.script("exec <&- >&- 2>&-; sleep 1; exit 5")
        )
        self.assertEqual(outcome, RunOutcome(5))

    async def test_child_that_holds_the_pipes(self) -> None:
        """
        A child that a script leaves behind does not keep the result back, and
        goes on running.
        """
        path = self.script("sleep 30 & echo $!")
        outcome = await self.run_script(path, (), LARGE_CONTEXT)
        child = int(outcome.stdout)
        os.kill(child, signal.SIGKILL)
        self.assertEqual(outcome.exit, 0)
        self.assertFalse(outcome.stdin_timed_out)

    async def test_missing_interpreter(self) -> None:
        """
        A script whose interpreter is missing exits 127, and stderr says so.
        """
        path = self.script("", interpreter="/no/such/interpreter")
        outcome = await self.run_script(path)
        self.assertEqual(outcome.exit, 127)
        self.assertIn(f"{path}: No such file or directory", outcome.stderr)

    async def test_arguments_too_long(self) -> None:
        """
        Arguments that the system does not take are an outcome.
        """
        path = self.script("")
        outcome = await self.run_script(path, ["x" * 4 * 1024 * 1024])
        self.assertEqual(
            outcome,
            RunOutcome(126, stderr=f"cannot execute {path}: Argument list too long\n"),
        )

    async def test_side_by_side(self) -> None:
        """
        Scripts that run at the same time do not see each other's outputs.
        """
        path = self.script('cat; echo " $1"')
        outcomes = await gatherResults(
            Deferred.fromCoroutine(self.run_script(path, [f"{n}"], b"%d" % n))
            for n in range(20)
        )
        self.assertEqual(
            [outcome.stdout for outcome in outcomes],
            [f"{n} {n}\n" for n in range(20)],
        )
