# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.keeper} with real processes: what a script finds when
it is started.
"""

from __future__ import annotations

import json
import os
import resource
import signal
from pathlib import Path

from ctrlexec.agent.runs import RunLimits
from ctrlexec.process import FIXED_PATH
from ctrlexec.protocol.run_messages import DONE, FAILED
from tests.keeping import CONTEXT, KeeperTestCase, Ran

LARGE_CONTEXT = b"x" * 1024 * 1024


class StartTests(KeeperTestCase):
    """
    How scripts are started. All of it holds whether it has limits or not.
    """

    limits = RunLimits()

    async def ran(self, path: Path, *args: str) -> Ran:
        return await self.run_script(path, args, limits=self.limits)

    async def test_exit_status_and_outputs(self) -> None:
        """
        A script's exit status and its two outputs are kept.
        """
        ran = await self.ran(self.script("cat; echo; echo oops >&2; exit 3"))
        self.assertEqual((ran.exit, ran.state), (3, DONE))
        self.assertEqual((ran.stdout, ran.stderr), (CONTEXT + b"\n", b"oops\n"))
        self.assertEqual((ran.ending.stdout_bytes, ran.ending.stderr_bytes), (16, 5))

    async def test_arguments_arrive_as_they_are(self) -> None:
        """
        No shell ever sees the arguments.
        """
        args = ["a b", "", "'\"", "$(id)`id`", "*", "x\ny", "ü€😀", "-v", "--", "a;b"]
        path = self.python(
            "import json, sys; print(json.dumps([a.encode().decode() for a in "
            "sys.argv]))"
        )
        ran = await self.ran(path, *args)
        self.assertEqual(json.loads(ran.stdout), [str(path), *args])

    async def test_environment_is_the_small_one(self) -> None:
        """
        A script's environment is what the order says, and nothing else.
        """
        ran = await self.ran(Path("/usr/bin/env"))
        self.assertEqual(
            sorted(ran.text.splitlines()),
            ["HOME=/nonexistent", "LC_ALL=C.UTF-8", f"PATH={FIXED_PATH}"],
        )

    async def test_leads_a_session(self) -> None:
        """
        A script leads a session and a process group, which are neither ours nor
        its keeper's.
        """
        path = self.python(
            "import os; print(os.getpid(), os.getsid(0), os.getpgid(0));"
            "print(os.getsid(os.getppid()))"
        )
        ran = await self.ran(path)
        ids, keeper = ran.text.splitlines()
        self.assertEqual(len(set(ids.split())), 1)
        self.assertNotIn(ids.split()[0], (str(os.getsid(0)), keeper))
        self.assertNotEqual(keeper, str(os.getsid(0)))

    async def test_inherits_no_descriptors(self) -> None:
        """
        A script has its three standard streams, and no other descriptor of ours
        or its keeper's.
        """
        with open(os.devnull) as ours:
            os.set_inheritable(ours.fileno(), True)
            ran = await self.ran(self.script("exec ls /proc/self/fd"))
        # The fourth is the directory that ls reads.
        self.assertEqual(ran.text.split(), ["0", "1", "2", "3"])

    async def test_signals_are_as_usual(self) -> None:
        """
        A script ignores no signal and holds none back, whatever its keeper does.
        """
        path = self.script("exec grep -E 'Sig(Ign|Blk)' /proc/self/status")
        ran = await self.ran(path)
        known = sum(1 << number - 1 for number in signal.valid_signals())
        masks = [int(mask, 16) & known for mask in ran.text.split()[1::2]]
        self.assertEqual(masks, [0, 0])

    async def test_works_where_we_do(self) -> None:
        """
        A script starts in the agent's directory, not in that of its run, and
        makes files like the agent.
        """
        ran = await self.ran(self.script("pwd; umask"))
        mask = os.umask(0)
        os.umask(mask)
        self.assertEqual(ran.text.split(), [os.getcwd(), f"{mask:04o}"])

    async def test_killed_by_a_signal(self) -> None:
        """
        A script that a signal ends has exit status 126.
        """
        ran = await self.ran(self.script("echo before; kill -KILL $$"))
        self.assertEqual((ran.exit, ran.stdout, ran.state), (126, b"before\n", DONE))

    async def test_missing(self) -> None:
        """
        A script that is not there is an ending.
        """
        ran = await self.ran(self.directory / "nothing")
        self.assertEqual((ran.exit, ran.state), (127, FAILED))
        self.assertEqual(
            ran.stderr.decode(),
            f"cannot execute {self.directory}/nothing: No such file or directory\n",
        )
        self.assertEqual(ran.ending.stderr_bytes, len(ran.stderr))
        self.assertEqual(ran.ending.reason, "No such file or directory")

    async def test_no_program(self) -> None:
        """
        So is one that nobody can execute.
        """
        path = self.script("")
        path.chmod(0o644)
        for obstacle, reason in (
            (path, "Not executable"),
            (self.directory, "Is a directory"),
        ):
            ran = await self.ran(obstacle)
            self.assertEqual((ran.exit, ran.ending.reason), (127, reason))

    async def test_missing_interpreter(self) -> None:
        """
        A script whose interpreter is missing exits 127, and stderr says so.
        """
        path = self.script("", interpreter="/no/such/interpreter")
        ran = await self.ran(path)
        self.assertEqual((ran.exit, ran.state), (127, FAILED))
        self.assertIn(f"{path}: No such file or directory", ran.stderr.decode())

    async def test_no_interpreter_named(self) -> None:
        """
        A script that names no interpreter is one of the shell's.
        """
        path = self.script("")
        path.write_text('echo "$0 $1"; exit 4\n')
        ran = await self.ran(path, "an argument")
        self.assertEqual((ran.exit, ran.text), (4, f"{path} an argument\n"))

    async def test_arguments_too_long(self) -> None:
        """
        Arguments that the system does not take are an ending.
        """
        path = self.script("")
        ran = await self.ran(path, "x" * 4 * 1024 * 1024)
        self.assertEqual((ran.exit, ran.state), (126, FAILED))
        self.assertEqual(
            ran.stderr.decode(), f"cannot execute {path}: Argument list too long\n"
        )

    async def test_large_context_is_read_whole(self) -> None:
        """
        A context larger than a pipe arrives whole.
        """
        path = self.script("wc -c")
        ran = await self.run_script(path, stdin=LARGE_CONTEXT, limits=self.limits)
        self.assertEqual(ran.text.strip(), str(len(LARGE_CONTEXT)))
        self.assertFalse(ran.ending.stdin_timed_out)


class LimitedStartTests(StartTests):
    """
    The same, for scripts with a limit.
    """

    limits = RunLimits(cpu_seconds=60)

    async def test_limits(self) -> None:
        """
        A script has the limits that it was given, and for the rest the agent's.
        """
        path = self.python(
            "import resource as r\n"
            "for name in ('NPROC', 'AS', 'NOFILE', 'CPU', 'CORE', 'STACK'):\n"
            "    print(*r.getrlimit(getattr(r, 'RLIMIT_' + name)))"
        )
        limits = RunLimits(nproc=1000, memory_bytes=1 << 30, nofile=50, cpu_seconds=60)
        ran = await self.run_script(path, limits=limits)
        ours = [
            "{} {}".format(*resource.getrlimit(each))
            for each in (resource.RLIMIT_CORE, resource.RLIMIT_STACK)
        ]
        self.assertEqual(
            ran.text.splitlines(),
            ["1000 1000", f"{1 << 30} {1 << 30}", "50 50", "60 61", *ours],
        )

    async def test_over_a_limit(self) -> None:
        """
        A script that takes more processor time than it may is killed.
        """
        ran = await self.run_script(
            self.script("while :; do :; done"), limits=RunLimits(cpu_seconds=1)
        )
        self.assertEqual((ran.exit, ran.state), (126, DONE))
        reason = "killed by signal 24 (XCPU): its cpu= was used up"
        self.assertEqual(ran.ending.reason, reason)

    async def test_deaf_to_a_limit(self) -> None:
        """
        So is one that does not listen, a second later.
        """
        text = "trap '' XCPU; while :; do :; done"
        limits = RunLimits(cpu_seconds=1)
        ran = await self.run_script(self.script(text), limits=limits)
        self.assertEqual((ran.exit, ran.state), (126, DONE))
        self.assertEqual(ran.ending.reason, "killed by signal 9 (KILL)")

    async def test_no_room_for_it(self) -> None:
        """
        One that does not even have the memory to begin is an ending.
        """
        limits = RunLimits(memory_bytes=4096)
        ran = await self.run_script(self.script("echo hello"), limits=limits)
        self.assertEqual((ran.exit, ran.stdout), (126, b""))

    async def test_beyond_what_there_is(self) -> None:
        """
        A limit that is higher than any that the system grants is an ending, not
        a script without one.
        """
        limits = RunLimits(nofile=1 << 40)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        ran = await self.run_script(self.script("ulimit -n"), limits=limits)
        if ran.state == FAILED:
            self.assertEqual(ran.exit, 126)
        else:
            self.assertEqual(int(ran.text), hard)
