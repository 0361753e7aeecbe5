# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.keeper} with real processes: scripts that are ended,
with all that they have started.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from ctrlexec.agent.keeper import groups
from ctrlexec.agent.runs import RunLimits, StartOrder
from ctrlexec.interfaces import ILiveScript
from ctrlexec.protocol.run_messages import CANCELLED, DONE, TIMED_OUT
from tests.keeping import KeeperTestCase, dead, lives, parent_of

# A grandchild in a session of its own, which nobody waits for; it ignores TERM.
RUNAWAY = r"""
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(1, b"ready %d\n" % os.getpid())
        os.closerange(0, 3)
        time.sleep(100)
    os._exit(0)
os.wait()
time.sleep(100)
"""

# Each has two children, as fast as they can, and at most so many as its user may
# have; none of them listens to TERM.
BOMB = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
depth = 0
while depth < 5:
    depth += 1
    os.fork()
while True:
    if os.fork() == 0:
        time.sleep(0.01)
        os._exit(0)
    os.waitpid(-1, os.WNOHANG)
    time.sleep(0.001)
"""


class CancelTests(KeeperTestCase):
    """
    L{ILiveScript.cancel}
    """

    async def live(self, text: str, **changes: Any) -> tuple[StartOrder, ILiveScript]:
        """
        Start a script, and wait until it says that it is ready.
        """
        order = self.order(self.script(text), **changes)
        script = await self.start(order)
        await self.written(order, script, "ready")
        return order, script

    async def ending(self, script: ILiveScript) -> tuple[int, str, str]:
        ending = await script.ended()
        assert ending is not None
        return ending.exit, ending.state, ending.reason

    async def test_cancel(self) -> None:
        """
        A script that is told to end does.
        """
        _, script = await self.live("echo ready; exec sleep 100", grace=30)
        signalled = await script.cancel()
        (only,) = signalled
        self.assertEqual((only.pid, only.signal), (script.pid, "TERM"))
        self.assertIn(only.command, ("script", "sleep"))
        self.assertEqual(await self.ending(script), (126, CANCELLED, "cancelled"))
        self.assertFalse(lives(script.pid))

    async def test_last_words(self) -> None:
        """
        What a script does when it is told to end counts, and is heard.
        """
        order, script = await self.live(
            "trap 'echo bye; exit 7' TERM; sleep 100 & echo ready; wait"
        )
        await script.cancel()
        self.assertEqual(await self.ending(script), (7, CANCELLED, "cancelled"))
        self.assertEqual((order.directory / "stdout").read_text(), "ready\nbye\n")

    async def test_ignores_term(self) -> None:
        """
        One that does not listen is killed, after its grace and not long after.
        """
        _, script = await self.live("trap '' TERM; echo ready; sleep 100; sleep 100")
        before = reactor.seconds()
        signalled = await script.cancel()
        took = reactor.seconds() - before
        self.assertEqual({each.signal for each in signalled}, {"KILL"})
        self.assertEqual({each.command for each in signalled}, {"script", "sleep"})
        self.assertTrue(0.3 <= took < 1.3, took)
        for each in signalled:
            self.assertFalse(lives(each.pid))

    async def test_runs_away(self) -> None:
        """
        A grandchild in a session of its own, which has closed all of its
        streams, is ended too.
        """
        order = self.order(self.python(RUNAWAY))
        script = await self.start(order)
        grandchild = int((await self.written(order, script, "\n")).split()[1])
        self.assertNotEqual(os.getsid(grandchild), script.pid)
        signalled = await script.cancel()
        self.assertEqual(
            {each.pid: each.signal for each in signalled},
            {script.pid: "TERM", grandchild: "KILL"},
        )
        self.assertFalse(lives(grandchild))

    async def test_fork_bomb(self) -> None:
        """
        One that has children faster than they can be ended is ended.
        """
        order = self.order(self.python(BOMB), limits=RunLimits(nproc=2000))
        script = await self.start(order)
        await self.written(order, script, "ready")
        before = reactor.seconds()
        signalled = await script.cancel()
        took = reactor.seconds() - before
        self.assertGreater(len(signalled), 30)
        self.assertLess(took, 5)
        for each in signalled:
            self.assertFalse(lives(each.pid))

    async def test_stopped(self) -> None:
        """
        One that was stopped hears that it is to end.
        """
        order, script = await self.live(
            "trap 'echo bye; exit 3' TERM; echo ready; kill -STOP $$", grace=30
        )
        await script.cancel()
        self.assertEqual((await self.ending(script))[0], 3)
        self.assertIn("bye", (order.directory / "stdout").read_text())

    async def test_twice(self) -> None:
        """
        Two that want it at once get the same answer.
        """
        _, script = await self.live("echo ready; exec sleep 100", grace=30)
        first, second = await gatherResults(
            Deferred.fromCoroutine(script.cancel()) for _ in range(2)
        )
        self.assertEqual(first, second)
        self.assertEqual(len(first), 1)

    async def test_after_the_end(self) -> None:
        """
        Who comes too late ends nothing.
        """
        script = await self.start(self.order(self.script("exit 3")))
        self.assertEqual((await self.ending(script))[:2], (3, DONE))
        self.assertEqual(await script.cancel(), ())
        self.assertEqual((await self.ending(script))[:2], (3, DONE))

    async def test_at_once(self) -> None:
        """
        A cancel in the moment of the start finds the script.
        """
        path = self.script("exec sleep 100")
        for limits in (RunLimits(), RunLimits(cpu_seconds=60)):
            for _ in range(10):
                script = await self.start(self.order(path, grace=30, limits=limits))
                self.assertEqual(len(await script.cancel()), 1)
                self.assertEqual((await self.ending(script))[1], CANCELLED)

    async def test_leftovers(self) -> None:
        """
        A cancel while we still listen to what a script has left ends that, and
        the exit status is the script's.
        """
        order = self.order(self.script("sleep 100 & echo ready; exit 4"))
        script = await self.start(order)
        await dead(script.pid)
        signalled = await script.cancel()
        self.assertEqual(len(signalled), 1)
        self.assertEqual((await self.ending(script))[:2], (4, CANCELLED))

    async def test_tidies_up(self) -> None:
        """
        What a script starts when it is told to end is not told to end.
        """
        order, script = await self.live(
            "trap 'sleep 0.2 && echo tidy; exit 5' TERM; echo ready; "
            "while :; do sleep 0.05; done",
            grace=30,
        )
        await script.cancel()
        self.assertEqual((await self.ending(script))[0], 5)
        self.assertEqual((order.directory / "stdout").read_text(), "ready\ntidy\n")

    async def test_listens_on(self) -> None:
        """
        A script that writes a lot before it ends does not wait for its keeper,
        which waits for it.
        """
        order, script = await self.live(
            "trap 'sleep 0.1; head -c 3000000 /dev/zero; exit 5' TERM; echo ready; "
            "while :; do sleep 0.05; done",
            grace=30,
        )
        await script.cancel()
        self.assertEqual((await self.ending(script))[0], 5)
        self.assertEqual((order.directory / "stdout").stat().st_size, 3000006)

    async def test_keeper_takes_the_next(self) -> None:
        """
        A keeper that has ended one script looks after another, which it can
        end too.
        """
        for _ in range(5):
            _, script = await self.live("trap '' TERM; echo ready; sleep 100")
            await script.cancel()
            self.assertFalse(lives(script.pid))


class NoGroupsTests(CancelTests):
    """
    The same, where a keeper may make no control groups.
    """

    lacking = "os.access = lambda *_: False"

    async def test_is_lacking(self) -> None:
        """
        A script has no control group then.
        """
        ran = await self.run_script(self.script("cat /proc/self/cgroup"))
        self.assertNotIn("keeper-", ran.text)


class OnlyGroupsTests(CancelTests):
    """
    The same, where orphans are not a keeper's.
    """

    lacking = "sys.modules['ctypes'] = None"

    async def test_runs_away(self) -> None:
        """
        Where there are no groups either, who has left both the family and the
        session gets away.
        """
        if groups.place() is not None:
            await super().test_runs_away()
            return
        order = self.order(self.python(RUNAWAY))
        script = await self.start(order)
        grandchild = int((await self.written(order, script, "\n")).split()[1])
        self.addCleanup(os.kill, grandchild, signal.SIGKILL)
        self.assertEqual([each.pid for each in await script.cancel()], [script.pid])

    async def test_is_lacking(self) -> None:
        """
        A keeper has no more orphans than any other process then.
        """
        order = self.order(self.script("(sleep 30 & echo ready $!); sleep 100"))
        script = await self.start(order)
        orphan = int((await self.written(order, script, "\n")).split()[1])
        self.assertNotEqual(parent_of(orphan), parent_of(script.pid))
        await script.cancel()
        self.assertFalse(lives(orphan))


class NeitherTests(KeeperTestCase):
    """
    What there is of it where both are lacking.
    """

    lacking = f"{NoGroupsTests.lacking}; {OnlyGroupsTests.lacking}"

    async def test_session(self) -> None:
        """
        Orphans in the session of the script are found, and those in others that
        are still in their family.
        """
        order = self.order(
            self.script(
                "(sleep 98 & echo $!)\n"
                'setsid sh -c \'trap "" TERM; (sleep 99 & echo $!); echo ready; '
                "sleep 100' &\nwait"
            )
        )
        script = await self.start(order)
        first, second, _ = (await self.written(order, script, "ready")).split()
        signalled = {each.pid: each.signal for each in await script.cancel()}
        self.assertEqual(signalled[int(first)], "TERM")
        self.assertEqual(signalled[int(second)], "KILL")
        for pid in signalled:
            self.assertFalse(lives(pid))

    async def test_next(self) -> None:
        """
        A keeper that can not know what is left of a script takes no other.
        """
        path = self.script("echo $PPID")
        keepers = {(await self.run_script(path)).text for _ in range(5)}
        self.assertEqual(len(keepers), 5)


class TimeoutTests(KeeperTestCase):
    """
    L{StartOrder.timeout}
    """

    async def test_times_out(self) -> None:
        """
        A script is ended when its time is over, and what it wrote is kept.
        """
        ran = await self.run_script(self.script("echo hello; sleep 100"), timeout=0.2)
        self.assertEqual((ran.exit, ran.state), (126, TIMED_OUT))
        self.assertEqual(ran.ending.reason, "timed out after 0.2s")
        self.assertEqual(ran.text, "hello\n")

    async def test_in_time(self) -> None:
        """
        One that is faster knows nothing of it.
        """
        ran = await self.run_script(self.script("exit 3"), timeout=30)
        self.assertEqual((ran.exit, ran.state, ran.ending.reason), (3, DONE, ""))

    async def test_leaves_nothing(self) -> None:
        """
        All that it has started is ended too.
        """
        order = self.order(self.python(RUNAWAY), timeout=0.5)
        script = await self.start(order)
        ending = await script.ended()
        assert ending is not None
        self.assertEqual(ending.state, TIMED_OUT)
        self.assertFalse(
            lives(int((order.directory / "stdout").read_text().split()[1]))
        )

    async def test_daemon_after_the_end(self) -> None:
        """
        The time of a script is over when it ends: what it leaves is not ended.
        """
        ran = await self.run_script(
            self.script("sleep 30 & echo $!; exit 0"), timeout=0.5
        )
        child = int(ran.stdout)
        self.addCleanup(os.kill, child, signal.SIGKILL)
        self.assertEqual((ran.exit, ran.state), (0, DONE))
        os.kill(child, 0)

    async def test_first_reason_counts(self) -> None:
        """
        A cancel of what is being ended already changes nothing.
        """
        order = self.order(
            self.script("trap 'echo late; sleep 0.3; exit 4' TERM; sleep 100 & wait"),
            timeout=0.1,
            grace=30,
        )
        script = await self.start(order)
        await self.written(order, script, "late")
        await script.cancel()
        ending = await script.ended()
        assert ending is not None
        self.assertEqual(ending.state, TIMED_OUT)
