# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for the end of L{ctrlexec.agent.service.AgentService}, and for what it tells
systemd.
"""

from __future__ import annotations

import os
import signal

from ctrlexec.systemd import Notifier, Supervision
from tests.daemons import DaemonTestCase
from tests.enrolling import Reactor
from tests.serving import ServiceTestCase


class StoppingTests(ServiceTestCase):
    """
    L{AgentService.stopService}
    """

    def test_graceful(self) -> None:
        """
        A stop waits for a run to end, and gives its answer.
        """
        service = self.started()
        caller = self.running()
        self.logged()
        stopping = service.stopService()
        self.assertNoResult(stopping)
        self.runner.started[0].writes(b"done")
        self.runner.started[0].exits(0)
        self.pump.flush()
        self.successResultOf(stopping)
        self.assertIn(b'"stdout":"done"', caller.received)
        ran, stopped = self.logged()
        self.assertIn("ACTION=run ", ran)
        self.assertEqual(stopped, "ACTION=stop RUNS=0")

    def test_impatient(self) -> None:
        """
        After C{stop_grace}, or another signal, it names the runs that it
        leaves.
        """
        stopped = "ACTION=stop REQIDS=9f21 RUNS=1"
        before = signal.getsignal(signal.SIGTERM)
        with self.subTest(after="stop_grace"):
            service = self.started()
            self.running()
            self.logged()
            stopping = service.stopService()
            self.reactor.advance(29.9)
            self.assertNoResult(stopping)
            self.reactor.advance(0.1)
            self.successResultOf(stopping)
            self.assertEqual(self.logged()[0], stopped)
        with self.subTest(after="SIGTERM"):
            self.reactor = Reactor()
            service = self.started()
            # An id is any text; a comma in it is not one between two.
            self.running("9f,21")
            self.logged()
            stopping = service.stopService()
            self.assertNoResult(stopping)
            os.kill(os.getpid(), signal.SIGTERM)
            self.successResultOf(stopping)
            stopped = "ACTION=stop REQIDS=9f%2C21 RUNS=1"
            self.assertEqual(self.logged()[0], stopped)
        self.assertEqual(signal.getsignal(signal.SIGTERM), before)

    def test_followed(self) -> None:
        """
        Whoever follows a run is not waited for: it goes on without the agent, and
        can be followed again when there is one.
        """
        service = self.started()
        caller = self.running(more=',"stream":true')
        self.assertIn(b"Transfer-Encoding: chunked", caller.received)
        stopping = service.stopService()
        self.pump.flush()
        self.successResultOf(stopping)
        self.assertNotIn(b"result", caller.received)
        self.assertEqual(self.logged()[-1], "ACTION=stop REQIDS=9f21 RUNS=1")

    def test_stoppingStays(self) -> None:
        """
        C{SIGHUP} neither ends a stop that waits, nor reads anything for it.
        """
        service = self.started()
        self.running()
        self.logged()
        stopping = service.stopService()
        os.kill(os.getpid(), signal.SIGHUP)
        self.assertNoResult(stopping)
        self.assertEqual(self.logged(), [])
        self.reactor.advance(30)


class SupervisedTests(DaemonTestCase, ServiceTestCase):
    """
    L{AgentService} under systemd
    """

    def setUp(self) -> None:
        DaemonTestCase.setUp(self)
        ServiceTestCase.setUp(self)
        self.agent_service = self.agent()
        self.agent_service.supervision = Supervision(
            self.reactor, Notifier(self.address, lambda: 7000), 15
        )
        self.agent_service.privilegedStartService()

    def test_told(self) -> None:
        """
        Systemd is told of each step: it is ready once it listens, and again
        after a reload, however that went; its watchdog is fed to the last.
        """
        service, ready = self.agent_service, "STATUS=Lets 1 scripts run"
        self.assertEqual(self.told(), [])
        service.startService()
        self.assertEqual(self.told(), [["READY=1", ready], ["WATCHDOG=1"]])
        service.reload()
        reloaded = [["RELOADING=1", "MONOTONIC_USEC=7"], ["READY=1", ready]]
        self.assertEqual(self.told(), reloaded)
        self.file.write_text("bad\n")
        service.reload()
        self.assertEqual(self.told(), reloaded)
        self.reactor.advance(15)
        self.assertEqual(self.told(), [["WATCHDOG=1"]])
        service.stopService()
        patience = "EXTEND_TIMEOUT_USEC=40000000"
        waits = "STATUS=Waits for 0 answers"
        self.assertEqual(self.told(), [["STOPPING=1", patience, waits]])
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class NamedTests(ServiceTestCase):
    """
    The line that names what is left
    """

    def test_longId(self) -> None:
        """
        A caller's id is as long as the caller likes, and the line is not.
        """
        service = self.started()
        self.running("x" * 100_000)
        self.logged()
        service.stopService()
        self.reactor.advance(30)
        self.assertLess(len(self.logged()[0]), 300)
