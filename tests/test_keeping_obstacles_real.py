# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.keeping} with real processes, and with what stands in
their way: locks, and disks that are full.
"""

from __future__ import annotations

import os
import signal
import sys

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from ctrlexec.agent.keeper.ending import RESERVED
from ctrlexec.agent.keeping import KeptScripts
from ctrlexec.agent.runs import Ending
from ctrlexec.errors import LockHeld, NotStarted
from tests.keeping import KeeperTestCase, dead, lives, parent_of


class LockTests(KeeperTestCase):
    """
    L{StartOrder.lock}
    """

    def setUp(self) -> None:
        super().setUp()
        self.lock = self.directory / "x.lock"

    async def test_busy(self) -> None:
        """
        Of two runs with the same lock the second is not started; another agent
        does not help.
        """
        path = self.script("sleep 100")
        script = await self.start(self.order(path, lock=self.lock))
        for scripts in (self.scripts, self.agent()):
            order = self.order(path, lock=self.lock)
            with self.assertRaises(LockHeld):
                await scripts.start(order)
            self.assertEqual(list(order.directory.iterdir()), [])
        await script.cancel()

    async def test_free_with_the_end(self) -> None:
        """
        Who hears of the end of a run can start the next in the same moment.
        """
        path = self.script("true")
        for _ in range(30):
            ran = await self.run_script(path, lock=self.lock)
            self.assertEqual(ran.exit, 0)

    async def test_outlives_the_agent(self) -> None:
        """
        The lock is the keeper's, and not of what the script leaves behind.
        """
        order = self.order(self.script("sleep 30 & echo $!"), lock=self.lock)
        script = await self.scripts.start(order)
        await self.scripts.close()
        agent = self.agent()
        with self.assertRaises(LockHeld):
            await agent.start(self.order(self.script("true"), lock=self.lock))
        del script
        found = await agent.adopt(order.directory)
        ending = (
            found if isinstance(found, Ending) or not found else await found.ended()
        )
        assert ending is not None
        child = int((order.directory / "stdout").read_text())
        self.addCleanup(os.kill, child, signal.SIGKILL)
        script = await agent.start(self.order(self.script("true"), lock=self.lock))
        await script.ended()

    async def test_not_executed(self) -> None:
        """
        A script that can not be executed holds no lock.
        """
        for _ in range(2):
            missing = self.directory / "missing"
            self.assertEqual((await self.run_script(missing, lock=self.lock)).exit, 127)

    async def test_no_place(self) -> None:
        """
        A lock that can not be had is not the same as one that is held.
        """
        order = self.order(self.script("true"), lock=self.directory / "no" / "x")
        with self.assertRaises(NotStarted) as caught:
            await self.scripts.start(order)
        self.assertNotIsInstance(caught.exception, LockHeld)


class SlowKeeperTests(KeeperTestCase):
    """
    L{StartOrder.lock}, where it takes a keeper some time to be as new.
    """

    lacking = "import gc, time; gc.collect = lambda: time.sleep(0.1)"

    async def test_free_with_a_refusal(self) -> None:
        """
        Who hears that a run was not started can have its lock in the same moment.
        """
        lock = self.directory / "x.lock"
        order = self.order(self.script("true"), lock=lock)
        (order.directory / RESERVED).write_text("in the way")
        with self.assertRaisesRegex(NotStarted, "File exists"):
            await self.scripts.start(order)
        await self.run_script(self.script("true"), lock=lock)


class FullDiskTests(KeeperTestCase):
    """
    A disk that is full, or broken, in the middle of a run.
    """

    async def test_ending_has_no_place(self) -> None:
        """
        A keeper that can not write down how its script has ended tells whoever
        asks, and tries until it can.
        """
        gate = self.directory / "gate"
        os.mkfifo(gate)
        order = self.order(self.script(f"echo ready; read x < {gate}; exit 7"))
        script = await self.scripts.start(order)
        await self.written(order, script, "ready")
        keeper = parent_of(script.pid)
        # Nothing can be renamed to this.
        obstacle = order.directory / "ending.json"
        obstacle.mkdir()
        (obstacle / "x").mkdir()
        gate.write_text("go\n")
        ending = await script.ended()
        assert ending is not None
        self.assertEqual(ending.exit, 7)
        self.assertTrue(lives(keeper))
        self.assertEqual(await self.agent().adopt(order.directory), ending)
        (obstacle / "x").rmdir()
        obstacle.rmdir()
        await self.scripts.close()
        await dead(keeper)
        self.assertEqual(await self.agent().adopt(order.directory), ending)

    async def test_directory_is_gone(self) -> None:
        """
        One whose directory was removed has nothing to try any more.
        """
        gate = self.directory / "gate"
        os.mkfifo(gate)
        order = self.order(self.script(f"echo ready; read x < {gate}; exit 7"))
        script = await self.start(order)
        await self.written(order, script, "ready")
        for each in order.directory.iterdir():
            each.unlink()
        order.directory.rmdir()
        gate.write_text("go\n")
        ending = await script.ended()
        assert ending is not None
        self.assertEqual(ending.exit, 7)
        self.assertEqual((await self.run_script(self.script("exit 3"))).exit, 3)

    def limited(self, blocks: int) -> None:
        """
        Have an agent of which no file can be larger, nor of what it starts: what
        the kernel says to that is an error like that of a full disk.

        @param blocks: of 512 bytes.
        """
        path = self.script(f'ulimit -f {blocks}; exec {sys.executable} "$@"')
        self.scripts = KeptScripts(reactor, self.log, python=str(path))
        self.addCleanup(lambda: Deferred.fromCoroutine(self.scripts.close()))

    async def test_no_room_for_the_ending(self) -> None:
        """
        Where there is not even room for the ending, nothing is started, and
        nothing is left.
        """
        self.limited(0)
        order = self.order(self.script("true"))
        with self.assertRaises(NotStarted):
            await self.scripts.start(order)
        self.assertEqual(list(order.directory.iterdir()), [])

    async def test_no_room_for_output(self) -> None:
        """
        What has no room is counted, what is kept stays, and the script goes on.
        """
        self.limited(195)
        ran = await self.run_script(
            self.script("head -c 1000000 /dev/zero; echo done; echo why >&2; exit 4")
        )
        self.assertEqual((ran.exit, ran.ending.stdout_bytes), (4, 1000005))
        self.assertEqual(len(ran.stdout), 195 * 512)
        self.assertEqual(ran.stderr, b"why\n")
