# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.keeping} with real processes, which are killed.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from ctrlexec.agent.keeper import groups, orders
from ctrlexec.agent.keeper.frames import frame
from ctrlexec.agent.keeping import KeptScripts
from ctrlexec.agent.runs import Ending, StartOrder
from ctrlexec.errors import NotStarted
from ctrlexec.interfaces import ILiveScript, IScriptRunner
from ctrlexec.protocol.run_messages import CANCELLED, DONE
from tests.keeping import KeeperTestCase, dead, lives, parent_of


class FullReactor:
    """
    The reactor, where it can take no more connections.
    """

    def adoptStreamConnection(self, *_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


class AdoptTests(KeeperTestCase):
    """
    L{KeptScripts.adopt}: an agent that comes after another.
    """

    async def left(self, text: str, **changes: Any) -> tuple[StartOrder, int]:
        """
        Have an agent start a script, and be killed, with the program that keepers
        are made of.

        @return: also the process id of the script.
        """
        order = self.order(self.script(text), **changes)
        script = await self.scripts.start(order)
        await self.written(order, script, "ready")
        # The program ends like one that is killed: it has no part in this.
        await self.scripts.close()
        return order, script.pid

    async def live(self, found: ILiveScript | Ending | None) -> ILiveScript:
        assert found is not None and not isinstance(found, Ending)
        return found

    async def test_provides_the_interfaces(self) -> None:
        """
        The agent sees nothing but L{IScriptRunner}.
        """
        verifyObject(IScriptRunner, self.scripts)

    async def test_finds_it_again(self) -> None:
        """
        A script that goes on is found, and its end is heard of.
        """
        order, pid = await self.left("echo ready; sleep 100")
        script = await self.live(await self.agent().adopt(order.directory))
        self.assertEqual(script.pid, pid)
        os.kill(pid, signal.SIGKILL)
        ending = await script.ended()
        assert ending is not None
        self.assertEqual((ending.exit, ending.state), (126, DONE))

    async def test_no_descriptors(self) -> None:
        """
        An agent that has none left does not take a script for one that is lost:
        it waits until there are some.
        """
        order, pid = await self.left("echo ready; sleep 100")
        scripts = self.agent()
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
        reactor.callLater(0.1, resource.setrlimit, resource.RLIMIT_NOFILE, before)
        script = await self.live(await scripts.adopt(order.directory))
        self.assertEqual(script.pid, pid)
        await script.cancel()

    async def test_connection_can_not_be_had(self) -> None:
        """
        An agent that can make nothing of a connection can tell so, and can end.
        """
        order, _ = await self.left("echo ready; sleep 100")
        scripts = KeptScripts(FullReactor(), self.log)
        with self.assertRaises(OSError):
            await scripts.adopt(order.directory)
        await scripts.close()
        await (await self.live(await self.agent().adopt(order.directory))).cancel()

    async def test_output_and_exit_status(self) -> None:
        """
        What it writes after that is kept, and its exit status is its own.
        """
        gate = self.directory / "gate"
        os.mkfifo(gate)
        order, _ = await self.left(f"echo ready; read x < {gate}; echo $x; exit 7")
        script = await self.live(await self.agent().adopt(order.directory))
        gate.write_text("later\n")
        ending = await script.ended()
        assert ending is not None
        self.assertEqual((ending.exit, ending.stdout_bytes), (7, 12))
        self.assertEqual((order.directory / "stdout").read_text(), "ready\nlater\n")

    async def test_ended_in_between(self) -> None:
        """
        The exit status of one that has ended in the meantime is not lost.
        """
        gate = self.directory / "gate"
        os.mkfifo(gate)
        order, pid = await self.left(f"echo ready; read x < {gate}; exit 7")
        keeper = parent_of(pid)
        gate.write_text("go\n")
        await dead(keeper)
        found = await self.agent().adopt(order.directory)
        assert isinstance(found, Ending)
        self.assertEqual((found.exit, found.state), (7, DONE))

    async def test_cancel(self) -> None:
        """
        It can be ended by whoever has found it, with all that it has started.
        """
        order, _ = await self.left("sleep 100 & sleep 100 & echo ready; wait")
        script = await self.live(await self.agent().adopt(order.directory))
        signalled = await script.cancel()
        self.assertEqual(len(signalled), 3)
        ending = await script.ended()
        assert ending is not None
        self.assertEqual(ending.state, CANCELLED)

    async def test_several_at_once(self) -> None:
        """
        Several can be connected, and all hear the end.
        """
        order, pid = await self.left("echo ready; sleep 100")
        agents = [self.agent() for _ in range(5)]
        scripts = [await self.live(await it.adopt(order.directory)) for it in agents]
        await scripts[2].cancel()
        for script in scripts:
            ending = await script.ended()
            assert ending is not None
            self.assertEqual(ending.state, CANCELLED)
        self.assertFalse(lives(pid))

    async def test_too_many(self) -> None:
        """
        A keeper does not let more in than it can talk to; those who are do not
        suffer.
        """
        order = self.order(self.script("echo ready; exec sleep 100"))
        script = await self.start(order)
        await self.written(order, script, "ready")
        crowd = [socket.socket(socket.AF_UNIX) for _ in range(40)]
        place = os.open(order.directory, os.O_PATH)
        for each in crowd:
            self.addCleanup(each.close)
            each.setblocking(False)
            try:
                each.connect(f"/proc/self/fd/{place}/keeper.sock")
                each.send(frame(b"hello"))
            except OSError:
                pass
        os.close(place)
        await script.cancel()
        self.assertFalse(lives(script.pid))

    async def test_strange_visitors(self) -> None:
        """
        Whoever sends what makes no sense is sent away; the script goes on.
        """
        order = self.order(self.script("echo ready; exec sleep 100"))
        script = await self.start(order)
        for nonsense in (b"\xff" * 100, b"\0\0\0\0", frame(b"x" * 60), b"GET / HTTP"):
            visitor = socket.socket(socket.AF_UNIX)
            self.addCleanup(visitor.close)
            place = os.open(order.directory, os.O_PATH)
            visitor.connect(f"/proc/self/fd/{place}/keeper.sock")
            os.close(place)
            visitor.send(nonsense)
        await self.written(order, script, "ready")
        self.assertEqual(len(await script.cancel()), 1)

    async def test_nothing(self) -> None:
        """
        Where there never was a keeper, nobody can tell; and none can come any
        more.
        """
        order = self.order(self.script(""))
        self.assertIsNone(await self.scripts.adopt(order.directory))
        self.assertIsNone(await self.scripts.adopt(order.directory / "missing"))
        with self.assertRaises(NotStarted):
            await self.scripts.start(order)

    async def test_keeper_is_killed(self) -> None:
        """
        A script whose keeper was killed is lost, and ended with all that it has
        started.
        """
        order = self.order(self.script("echo ready; sleep 100 & sleep 100"))
        script = await self.start(order)
        await self.written(order, script, "ready")
        os.kill(parent_of(script.pid), signal.SIGKILL)
        self.assertIsNone(await script.ended())
        self.assertEqual(await script.cancel(), ())
        self.assertIsNone(await self.agent().adopt(order.directory))
        await dead(script.pid)

    async def test_keeper_is_told_to_end(self) -> None:
        """
        A keeper can be told to end, and does not.
        """
        order = self.order(self.script("echo ready; exec sleep 100"))
        script = await self.start(order)
        await self.written(order, script, "ready")
        keeper = parent_of(script.pid)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            os.kill(keeper, number)
        self.assertEqual(len(await script.cancel()), 1)

    async def test_long_path(self) -> None:
        """
        The directory of a run may have a longer path than a socket.
        """
        self.directory = self.directory / ("x" * 100) / ("y" * 100)
        self.directory.mkdir(parents=True)
        order, pid = await self.left("echo ready; sleep 100")
        script = await self.live(await self.agent().adopt(order.directory))
        self.assertEqual(script.pid, pid)
        await script.cancel()


class StartTests(KeeperTestCase):
    """
    L{KeptScripts.start}: what it takes to have a keeper.
    """

    async def test_zygote_is_killed(self) -> None:
        """
        The program that keepers are made of is started again when it was killed,
        which is an event, and what has a keeper already does not suffer.
        """
        order = self.order(self.script("echo ready; exec sleep 100"))
        script = await self.start(order)
        await self.written(order, script, "ready")
        for _ in range(3):
            zygote = self.scripts._zygote
            assert zygote is not None
            os.kill(parent_of(parent_of(script.pid)), signal.SIGKILL)
            ran = await self.run_script(self.script("exit 5"))
            self.assertEqual(ran.exit, 5)
            script = await self.start(self.order(self.script("exec sleep 100")))
            await zygote.over
        event = 'ACTION=keeper-program-end STATUS="signal 9"'
        self.assertEqual(self.log.taken(), [event] * 3)

    async def test_idle_keeper_is_killed(self) -> None:
        """
        So is a keeper that has nothing to do. What is left of its control group
        goes with the agent, at the latest.
        """
        path = self.script("echo $PPID")
        keepers = []
        for _ in range(5):
            keepers.append(int((await self.run_script(path)).text))
            os.kill(keepers[-1], signal.SIGKILL)
        await self.scripts.close()
        # The last may still be dying.
        names = [f"keeper-{each}-*" for each in keepers[:-1]]
        place = Path(os.fsdecode(groups.place() or b"/nonexistent"))
        self.assertEqual([it for name in names for it in place.glob(name)], [])

    async def test_can_not_be_started(self) -> None:
        """
        Without a Python there are no keepers, and that is an error.
        """
        scripts = KeptScripts(reactor, self.log, python="/no/such/python")
        self.addCleanup(lambda: Deferred.fromCoroutine(scripts.close()))
        with self.assertRaises(NotStarted):
            await scripts.start(self.order(self.script("")))

    async def test_keepers_end_with_the_agent(self) -> None:
        """
        Neither the program nor a keeper without a script outlives the agent.
        """
        ran = await self.run_script(self.script("echo $PPID"))
        keeper = int(ran.text)
        zygote = parent_of(keeper)
        await self.scripts.close()
        await dead(keeper)
        await dead(zygote)

    async def test_directory_is_used(self) -> None:
        """
        Where something stands in the way, nothing is started, and nothing of us
        is left.
        """
        for name in ("keeper.sock", "stdout", "stderr", "ending.new", "ending.json"):
            order = self.order(self.script("true"))
            (order.directory / name).write_text("mine")
            with self.assertRaises(NotStarted):
                await self.scripts.start(order)
            found = {it.name: it.read_text() for it in order.directory.iterdir()}
            self.assertEqual(found, {name: "mine"})

    async def test_no_directory(self) -> None:
        """
        Without a directory nothing is started.
        """
        order = self.order(self.script("true"))
        order.directory.rmdir()
        with self.assertRaises(NotStarted):
            await self.scripts.start(order)

    async def test_bad_orders(self) -> None:
        """
        What is no order harms nobody else.
        """
        busy = await self.start(self.order(self.script("exec sleep 100")))
        for nonsense in (b"", b"\xff" * 100, frame(b"x"), frame(*[b""] * 11)):
            ours, theirs = socket.socketpair()
            assert self.scripts._zygote is not None
            with ours, theirs:
                ours.send(nonsense)
                self.scripts._zygote.hand_over(theirs)
        self.assertEqual((await self.run_script(self.script("exit 3"))).exit, 3)
        self.assertEqual(len(await busy.cancel()), 1)

    async def test_too_long(self) -> None:
        """
        An order has a bound.
        """
        order = self.order(self.script("true"), stdin=b"x" * orders.ORDER_BYTES)
        with self.assertRaises(NotStarted):
            await self.scripts.start(order)
