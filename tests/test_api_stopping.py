# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of how the API ends, of what it does unasked, and of what systemd hears:
L{ctrlexec.api.running}.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred

from ctrlexec.api.running import (
    READ_SECONDS,
    SWEEP_SECONDS,
)
from ctrlexec.protocol.messages import RunAnswer, RunRefused
from tests.api_services import RunningCase
from tests.apis import Wire, asking
from tests.daemons import DaemonTestCase

DAY_SECONDS = 86_400


class StopTests(RunningCase):
    """
    The end of it
    """

    def running(self) -> tuple[Wire, Deferred[RunAnswer]]:
        """
        A client whose run goes on for as long as the test wants.
        """
        waiting: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-1": waiting}
        order = {"hosts": ["web-1"], "script": "a"}
        return self.wire().send(asking("POST", "/run", order)), waiting

    def test_idle(self) -> None:
        """
        Where nothing is under way, the end is at once.
        """
        service = self.started()
        self.successResultOf(service.stopService())
        self.assertEqual(self.logged("api-stop"), ["ACTION=api-stop RUNS=0"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_waits(self) -> None:
        """
        A run that goes on ends and is answered; nothing new is begun.
        """
        service = self.started()
        idle, (busy, waiting) = self.wire(), self.running()
        stopping = service.stopService()
        self.assertTrue(idle.transport.half_closed)
        idle.leave()
        self.assertFalse(busy.transport.half_closed)
        self.assertNoResult(stopping)
        waiting.callback(RunRefused("enough"))
        self.assertEqual(busy.reply().fields["connection"], "close")
        busy.leave()
        self.successResultOf(stopping)
        self.assertEqual(self.logged("api-stop"), ["ACTION=api-stop RUNS=0"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_notForEver(self) -> None:
        """
        It waits as long as an agent may take, and tells what is left.
        """
        service = self.started()
        busy, waiting = self.running()
        stopping = service.stopService()
        self.reactor.advance(69.9)
        self.assertNoResult(stopping)
        self.reactor.advance(0.1)
        self.reactor.advance(READ_SECONDS)
        self.successResultOf(stopping)
        self.assertEqual(self.logged("api-stop"), ["ACTION=api-stop RUNS=1"])
        self.assertTrue(busy.transport.aborted)
        waiting.callback(RunRefused("enough"))
        busy.leave()

    def test_secondSignal(self) -> None:
        """
        A second signal is for whoever does not want to wait.
        """
        before = signal.getsignal(signal.SIGTERM)
        service = self.started()
        busy, waiting = self.running()
        stopping = service.stopService()
        self.assertNoResult(stopping)
        os.kill(os.getpid(), signal.SIGTERM)
        self.successResultOf(stopping)
        self.assertEqual(self.logged("api-stop"), ["ACTION=api-stop RUNS=1"])
        self.assertIs(signal.getsignal(signal.SIGTERM), before)
        waiting.callback(RunRefused("enough"))
        busy.leave()

    def test_streams(self) -> None:
        """
        Nobody waits for a client that follows a run: it comes again.
        """
        service = self.started()
        gate: Deferred[None] = Deferred()

        async def follow() -> None:
            await gate

        following = service.api.streams.begin(follow, None)
        self.successResultOf(service.stopService())
        self.failureResultOf(following, CancelledError)
        self.assertEqual(self.logged("api-stop"), ["ACTION=api-stop RUNS=0"])

    def test_slowReader(self) -> None:
        """
        A client that does not read its answer is not waited for long.
        """
        service = self.started()
        busy, waiting = self.running()
        stopping = service.stopService()
        waiting.callback(RunRefused("enough"))
        self.assertNoResult(stopping)
        self.reactor.advance(READ_SECONDS)
        self.successResultOf(stopping)
        self.assertTrue(busy.transport.aborted)
        busy.leave()

    def test_reload(self) -> None:
        """
        What is about to end is not reloaded.
        """
        service = self.started()
        _, waiting = self.running()
        stopping = service.stopService()
        service.reload()
        self.assertEqual(self.logged("reload"), [])
        waiting.callback(RunRefused("enough"))
        self.reactor.advance(READ_SECONDS)
        self.successResultOf(stopping)


class SweepTests(RunningCase):
    """
    Results that are a day old
    """

    def old(self, name: str) -> Path:
        """
        A record of yesterday.
        """
        runs = self.state / "runs"
        runs.mkdir(exist_ok=True)
        path = runs / name
        path.write_text("{}")
        os.utime(path, (path.stat().st_mtime - DAY_SECONDS - 1,) * 2)
        return path

    def test_sweeps(self) -> None:
        """
        They go when the API starts, and every ten minutes; nobody has to ask
        for them.
        """
        first = self.old("one.json")
        self.started()
        self.assertFalse(first.exists())
        second = self.old("two.json")
        self.reactor.advance(SWEEP_SECONDS)
        self.assertFalse(second.exists())

    def test_fails(self) -> None:
        """
        That they can not be removed is in the log, and tried again.
        """
        (self.state / "runs").write_text("in the way")
        self.started()
        self.assertEqual(len(self.logged("run-sweep-fail")), 1)
        self.reactor.advance(SWEEP_SECONDS)
        self.assertEqual(len(self.logged("run-sweep-fail")), 2)
        self.assertEqual(self.ask("/health"), 200)


class NotifyTests(RunningCase, DaemonTestCase):
    """
    What systemd is told.
    """

    def setUp(self) -> None:
        DaemonTestCase.setUp(self)
        RunningCase.setUp(self)
        self.patch(os, "environ", {"NOTIFY_SOCKET": self.address})

    def test_states(self) -> None:
        """
        It is told when the API is at work, reloads, and ends.
        """
        service = self.started()
        self.assertEqual(
            self.told(), [["READY=1", "STATUS=Listens on port 7445 of 127.0.0.1"]]
        )
        self.hang_up()
        reloading, ready = self.told()
        self.assertEqual((reloading[0], ready[0]), ("RELOADING=1", "READY=1"))
        self.successResultOf(service.stopService())
        self.assertEqual(
            self.told(),
            [
                [
                    "STOPPING=1",
                    "EXTEND_TIMEOUT_USEC=80000000",
                    "STATUS=Waits for 0 requests",
                ]
            ],
        )
