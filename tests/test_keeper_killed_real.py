# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.keeper.orphans} and L{ctrlexec.agent.keeper.zygote}, with
real keepers that are killed: what they leave is ended, and nothing else.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from pathlib import Path

from ctrlexec.agent.keeper.descendants import all_processes
from ctrlexec.agent.runs import StartOrder
from ctrlexec.interfaces import ILiveScript
from tests.keeping import KeeperTestCase, dead, lives, parent_of

# One is in a session of its own, deaf, and has lost its parent.
FAMILY = """\
(setsid sh -c 'trap "" TERM; sleep 99 & echo $!; echo $$; wait' &)
sleep 98 & echo $!
sleep 0.1; echo ready; wait
"""
# Eight have children as fast as they can.
BOMB = """
import os, time
for _ in range(3):
    os.fork()
print("ready", flush=True)
while True:
    if os.fork() == 0:
        time.sleep(0.01)
        os._exit(0)
    os.waitpid(-1, os.WNOHANG)
    time.sleep(0.001)
"""


def end(pid: int) -> None:
    """
    Kill a process, if it is still there.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


class KilledTests(KeeperTestCase):
    """
    A keeper that is killed, where it may make no control groups.
    """

    lacking = "os.access = lambda *_: False"

    async def live(self, path: Path, lock: Path | None = None) -> ILiveScript:
        """
        Start a script, and wait until it says that it is ready.
        """
        self.last: StartOrder = self.order(path, lock=lock)
        script = await self.start(self.last)
        self.said = await self.written(self.last, script, "ready")
        return script

    async def swept(self) -> None:
        """
        What makes keepers has seen all that was before.
        """
        # It may have come to the first before.
        for _ in range(2):
            await self.run_script(self.script("true"))

    async def test_all(self) -> None:
        """
        All that its script has started is killed: what has a session of its own and
        what has lost its parent, too.
        """
        script = await self.live(self.script(FAMILY))
        *pids, _ = map(str, self.said.split())
        os.kill(parent_of(script.pid), signal.SIGKILL)
        self.assertIsNone(await script.ended())
        self.assertEqual(len(pids), 3)
        for pid in (script.pid, *map(int, pids)):
            await dead(pid)

    async def test_faster(self) -> None:
        """
        Those that are born faster than they die are killed as well.
        """
        script = await self.live(self.python(BOMB))
        os.kill(parent_of(script.pid), signal.SIGKILL)
        await dead(script.pid)
        await self.swept()
        family = [
            each.pid
            for each in all_processes().values()
            if each.session == script.pid and each.alive
        ]
        self.assertEqual(family, [])

    async def test_others(self) -> None:
        """
        Scripts that have another keeper go on, and so do daemons: those of before,
        and those that come while somebody is killed.
        """
        daemon = self.script("(setsid sleep 30 </dev/null >/dev/null 2>&1 & echo $!)")
        daemons = [int((await self.run_script(daemon)).text)]
        others = [
            await self.live(self.script("echo ready; exec sleep 97")) for _ in range(3)
        ]
        for _ in range(5):
            script = await self.live(self.script("echo ready; exec sleep 96"))
            os.kill(parent_of(script.pid), signal.SIGKILL)
            # One that lets go of its daemon at this moment may save it.
            self.addCleanup(end, script.pid)
            daemons.append(int((await self.run_script(daemon)).text))
        await self.swept()
        for pid in daemons:
            self.addCleanup(os.kill, pid, signal.SIGKILL)
        self.assertTrue(all(map(lives, daemons)))
        for other in others:
            self.assertEqual(len(await other.cancel()), 1)

    async def test_lock(self) -> None:
        """
        The lock of its run is not free before what it leaves is ended.
        """
        lock = self.directory / "x.lock"
        script = await self.live(self.script("echo ready; exec sleep 95"), lock)
        keeper = parent_of(script.pid)
        zygote = parent_of(keeper)
        os.kill(zygote, signal.SIGSTOP)
        try:
            os.kill(keeper, signal.SIGKILL)
            self.assertIsNone(await script.ended())
            with lock.open() as file, self.assertRaises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.kill(zygote, signal.SIGCONT)
        await dead(script.pid)
        await self.swept()
        await self.run_script(self.script("true"), lock=lock)


class NotAdoptingTests(KeeperTestCase):
    """
    The same, where orphans are nobody's.
    """

    lacking = f"{KilledTests.lacking}; sys.modules['ctypes'] = None"

    async def test_unseen(self) -> None:
        """
        It goes on unseen, and its lock is free.
        """
        lock = self.directory / "x.lock"
        script = await self.start(self.order(self.script("exec sleep 94"), lock=lock))
        self.addCleanup(os.kill, script.pid, signal.SIGKILL)
        os.kill(parent_of(script.pid), signal.SIGKILL)
        self.assertIsNone(await script.ended())
        await self.run_script(self.script("true"))
        await self.run_script(self.script("true"), lock=lock)
        self.assertTrue(lives(script.pid))
