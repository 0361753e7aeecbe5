# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.runs}, on a reactor that starts nothing.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ctrlexec.agent.allowlist import Script
from ctrlexec.agent.runs import RunOutcome, ScriptRunner
from ctrlexec.files import why_not_executable
from ctrlexec.interfaces import IScriptRunner
from tests.fakes import STDERR, STDOUT, FakeProcessReactor


class RunTests(SynchronousTestCase):
    """
    L{ScriptRunner}
    """

    def setUp(self) -> None:
        self.reactor = FakeProcessReactor()
        self.runner = ScriptRunner(
            self.reactor, stdin_timeout=10, max_output=8, env={"PATH": "/bin"}
        )
        self.path = Path(self.mktemp()).absolute()
        self.addCleanup(lambda: self.assertEqual(self.reactor.getDelayedCalls(), []))

    def make_script(self, mode: int = 0o755) -> None:
        self.path.write_text("#!/bin/sh\n")
        self.path.chmod(mode)

    def run_script(self, *args: str) -> Deferred[RunOutcome]:
        return Deferred.fromCoroutine(
            self.runner.run(Script("demo", self.path), b"context", args)
        )

    def assert_not_run(self, exit: int, reason: str) -> None:
        self.assertEqual(
            self.successResultOf(self.run_script()),
            RunOutcome(exit, stderr=f"cannot execute {self.path}: {reason}\n"),
        )
        self.assertEqual(self.reactor.processes, [])

    def test_provides_the_interface(self) -> None:
        """
        The agent sees nothing but L{IScriptRunner}.
        """
        verifyObject(IScriptRunner, self.runner)

    def test_runs_a_script(self) -> None:
        """
        A script gets its context and arguments, and its outputs come back as
        text, bounded.
        """
        self.make_script()
        running = self.run_script("-n", "a b")
        [process] = self.reactor.processes
        self.assertEqual(process.argv[-3:], [os.fsencode(self.path), b"-n", b"a b"])
        self.assertEqual(process.env, {"PATH": "/bin"})
        process.reads_stdin()
        self.assertEqual(process.stdin, b"context")
        process.writes(STDOUT, b"out\xff")
        process.writes(STDERR, b"too long by far")
        self.assertNoResult(running)
        process.exits(4)
        self.assertEqual(
            self.successResultOf(running),
            RunOutcome(4, "out\ufffd", "too long\n[stderr cut: 8 of 15 bytes kept]\n"),
        )

    def test_script_that_does_not_read(self) -> None:
        """
        The outcome says when a script left its context unread.
        """
        self.make_script()
        running = self.run_script()
        self.reactor.advance(10)
        self.reactor.processes[0].exits()
        self.assertEqual(
            self.successResultOf(running), RunOutcome(0, stdin_timed_out=True)
        )

    def test_caller_that_goes_away(self) -> None:
        """
        A caller that goes away leaves the script running.
        """
        self.make_script()
        running = self.run_script()
        running.cancel()
        self.failureResultOf(running, CancelledError)
        [process] = self.reactor.processes
        process.reads_stdin()
        self.assertEqual(process.signals, [])
        self.assertEqual(set(process.pipes), {STDOUT, STDERR})
        process.exits()

    def test_missing(self) -> None:
        """
        A script that is not there is not run, and stderr says why.
        """
        self.assert_not_run(127, "No such file or directory")

    def test_directory(self) -> None:
        """
        A directory is no script.
        """
        self.path.mkdir()
        self.assert_not_run(127, "Is a directory")

    def test_special_file(self) -> None:
        """
        A named pipe is no script, executable or not.
        """
        os.mkfifo(self.path, 0o755)
        self.assert_not_run(127, "Not a regular file")

    def test_not_executable(self) -> None:
        """
        A script that nobody may execute is not run.
        """
        self.make_script(0o644)
        self.assert_not_run(127, "Not executable")

    def test_system_refuses(self) -> None:
        """
        A system that is out of processes is an outcome, not an accident.
        """
        self.make_script()
        self.reactor.refuse(errno.EAGAIN)
        self.assert_not_run(126, "Resource temporarily unavailable")

    def test_link(self) -> None:
        """
        A link is what it points to.
        """
        self.make_script()
        link = self.path.with_suffix(".link")
        link.symlink_to(self.path)
        self.assertIsNone(why_not_executable(link))
        self.path.unlink()
        self.assertEqual(why_not_executable(link), "No such file or directory")
