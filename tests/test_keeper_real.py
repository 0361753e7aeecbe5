# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.keeper} with real processes: what becomes of what a
script writes, and of what it leaves behind.
"""

from __future__ import annotations

import json
import os
import signal
import stat

from twisted.internet.defer import Deferred, gatherResults

from ctrlexec.agent.runs import Ending
from ctrlexec.errors import NotStarted
from tests.keeping import MAX_OUTPUT, KeeperTestCase, dead

LARGE_CONTEXT = b"x" * 1024 * 1024

CHAINS = 8
# A daemon with some children, of whom each has one and ends, again and again for
# a second. The last one of each says that it was there.
RESTLESS = f"""
import os, sys, time
keeper = os.getppid()
if os.fork():
    time.sleep(0.1)
    os._exit(0)
os.setsid()
print(keeper, os.getpid(), flush=True)
os.closerange(0, 3)
read, write = os.pipe()
for chain in range({CHAINS}):
    if os.fork() == 0:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            if os.fork():
                os._exit(0)
        place = os.path.dirname(sys.argv[0])
        os.close(os.open(f"{{place}}/survived-{{chain}}", os.O_CREAT))
        os._exit(0)
os.close(write)
os.read(read, 1)
"""


class RunTests(KeeperTestCase):
    """
    What happens while a script runs.
    """

    async def test_every_exit_status(self) -> None:
        """
        Each exit status comes back as it is.
        """
        path = self.script("exit $1")
        found = [(await self.run_script(path, [str(n)])).exit for n in range(256)]
        self.assertEqual(found, list(range(256)))

    async def test_files(self) -> None:
        """
        What is left of a run are its outputs and its ending, for nobody else to
        read; what it has not written to is not there.
        """
        order = self.order(self.script("echo hello"))
        ending = await (await self.start(order)).ended()
        self.assertEqual(
            {
                each.name: stat.S_IMODE(each.stat().st_mode)
                for each in order.directory.iterdir()
            },
            {"stdout": 0o600, "ending.json": 0o600},
        )
        written = json.loads((order.directory / "ending.json").read_text())
        self.assertEqual(Ending(**written), ending)

    async def test_socket_is_ours(self) -> None:
        """
        Nobody else can talk to a keeper, even where everybody may come by.
        """
        order = self.order(self.script("sleep 100"))
        mask = os.umask(0)
        try:
            await self.start(order)
        finally:
            os.umask(mask)
        mode = (order.directory / "keeper.sock").stat().st_mode
        self.assertEqual(stat.S_IMODE(mode), 0o600)

    async def test_output_is_there_at_once(self) -> None:
        """
        What a script writes can be read while it runs.
        """
        order = self.order(self.script("echo one; sleep 0.2; echo two; sleep 100"))
        script = await self.start(order)
        self.assertEqual(await self.written(order, script, "one"), "one\n")
        self.assertEqual(await self.written(order, script, "two"), "one\ntwo\n")

    async def test_a_gigabyte(self) -> None:
        """
        A script that writes more than we keep is read to its end; neither its
        files nor its keeper grow.
        """
        path = self.script(
            "head -c 1073741824 /dev/zero; grep VmHWM /proc/$PPID/status >&2"
        )
        ran = await self.run_script(path)
        self.assertEqual((ran.exit, len(ran.stdout)), (0, MAX_OUTPUT))
        self.assertEqual(ran.ending.stdout_bytes, 1 << 30)
        self.assertLess(int(ran.stderr.split()[1]), 24 * 1024)

    async def test_a_follower_that_does_not_read(self) -> None:
        """
        An agent that hears nothing while a script writes much does not hold the
        script up.
        """
        order = self.order(
            self.script("for i in $(seq 2000); do echo $i; done; exit 7"),
        )
        script = await self.start(order)
        # As if the reactor had more to do than to read.
        script.watch(lambda: None)
        line = self.scripts._lines
        for each in line:
            each.transport.pauseProducing()  # type: ignore[attr-defined]
        await dead(script.pid)
        for each in line:
            each.transport.resumeProducing()  # type: ignore[attr-defined]
        ending = await script.ended()
        assert ending is not None
        self.assertEqual(ending.exit, 7)

    async def test_exits_without_reading_a_large_context(self) -> None:
        """
        A script that ends without reading its context is done at once.
        """
        ran = await self.run_script(self.script("echo done"), stdin=LARGE_CONTEXT)
        self.assertEqual((ran.exit, ran.stdout), (0, b"done\n"))
        self.assertFalse(ran.ending.stdin_timed_out)

    async def test_never_reads_a_large_context(self) -> None:
        """
        A script that lives on without reading its context is given up on, and
        then finds the end of the file; its ending comes all the same.
        """
        ran = await self.run_script(
            self.script("sleep 0.5; wc -c | grep -qvx 1048576; echo done"),
            stdin=LARGE_CONTEXT,
        )
        self.assertEqual((ran.exit, ran.stdout), (0, b"done\n"))
        self.assertTrue(ran.ending.stdin_timed_out)

    async def test_closes_its_outputs_and_lives_on(self) -> None:
        """
        A script that closes its streams is waited for.
        """
        ran = await self.run_script(
            self.script("exec <&- >&- 2>&-; sleep 1; exit 5"), stdin=LARGE_CONTEXT
        )
        self.assertEqual(ran.exit, 5)

    async def test_child_that_holds_the_pipes(self) -> None:
        """
        A child that a script leaves behind does not keep the ending back, and
        goes on running, whatever else its keeper does.
        """
        ran = await self.run_script(self.script("sleep 30 & echo $!"))
        child = int(ran.stdout)
        self.addCleanup(os.kill, child, signal.SIGKILL)
        self.assertEqual(ran.exit, 0)
        await self.run_script(self.script("true"))
        os.kill(child, 0)

    async def test_daemon(self) -> None:
        """
        So does one that has made itself independent.
        """
        ran = await self.run_script(
            self.script("(setsid sleep 30 </dev/null >/dev/null 2>&1 & echo $!)")
        )
        child = int(ran.stdout)
        self.addCleanup(os.kill, child, signal.SIGKILL)
        await self.scripts.close()
        os.kill(child, 0)

    async def test_restless_daemon(self) -> None:
        """
        One that has children all the time, while its keeper leaves, keeps all of
        them.
        """
        ran = await self.run_script(self.python(RESTLESS))
        keeper, daemon = map(int, ran.text.split())
        await dead(keeper)
        await self.run_script(self.script("true"))
        await dead(daemon)
        self.assertEqual(len(list(self.directory.glob("**/survived-*"))), CHAINS)

    async def test_talkative_daemon(self) -> None:
        """
        One that writes and writes into the script's stdout does not keep the
        ending back either.
        """
        ran = await self.run_script(self.script("yes & echo $! >&2"))
        await dead(int(ran.stderr))
        self.assertEqual(ran.exit, 0)

    async def test_side_by_side(self) -> None:
        """
        Scripts that run at the same time do not see each other's outputs.
        """
        path = self.script('cat; echo " $1"')
        found = await gatherResults(
            Deferred.fromCoroutine(self.run_script(path, [f"{n}"], stdin=b"%d" % n))
            for n in range(40)
        )
        self.assertEqual([ran.text for ran in found], [f"{n} {n}\n" for n in range(40)])

    async def test_one_after_the_other(self) -> None:
        """
        A keeper that takes one script after another hands nothing on: no
        descriptor, no bytes, no directory.
        """
        path = self.script(
            "text=$(cat); echo $PPID; ls /proc/$PPID/fd | wc -l; pwd; echo $text"
        )
        found = [await self.run_script(path, stdin=b"%d" % n) for n in range(30)]
        lines = [ran.text.splitlines() for ran in found]
        self.assertLess(len({keeper for keeper, *_ in lines}), 10)
        counts = [int(count) for _, count, *_ in lines]
        # One has the file of the output already, the other not yet.
        self.assertLessEqual(max(counts) - min(counts), 1)
        self.assertEqual({place for *_, place, _ in lines}, {os.getcwd()})
        self.assertEqual([it[-1] for it in lines], [str(n) for n in range(30)])

    async def test_no_words_for_a_program(self) -> None:
        """
        Arguments that no program can have are an error, and nothing starts.
        """
        for argument in ("a\0b", "\ud800"):
            order = self.order(self.script(""), [argument])
            with self.assertRaises(NotStarted):
                await self.scripts.start(order)
            self.assertEqual(list(order.directory.iterdir()), [])
