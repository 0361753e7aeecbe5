# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.process}, on a reactor that starts nothing.
"""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IProcessTransport, IReactorProcess
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ctrlexec.errors import NotStarted
from ctrlexec.output import Captured
from ctrlexec.process import (
    DRAIN_SECONDS,
    FIXED_PATH,
    KILLED,
    STDERR,
    STDIN,
    STDOUT,
    Program,
    own_session,
    small_environment,
    start_program,
)
from tests.fakes import FakeProcess, FakeProcessReactor

STDIN_TIMEOUT = 10.0
MAX_OUTPUT = 16


class EnvironmentTests(SynchronousTestCase):
    """
    L{small_environment}
    """

    def test_only_the_known_variables(self) -> None:
        """
        Of our own environment a program sees a few harmless variables, and
        never our C{PATH}.
        """
        ours = {
            "HOME": "/root",
            "LANG": "de_DE.UTF-8",
            "PATH": "/home/me/bin",
            "LD_PRELOAD": "/tmp/evil.so",
            "ENVEXEC_TOKEN": "secret",
        }
        self.assertEqual(
            small_environment(ours),
            {"PATH": FIXED_PATH, "HOME": "/root", "LANG": "de_DE.UTF-8"},
        )

    def test_path_is_there_without_anything_else(self) -> None:
        """
        A program has a C{PATH} even when we have no environment.
        """
        self.assertEqual(small_environment({}), {"PATH": FIXED_PATH})


class OwnSessionTests(SynchronousTestCase):
    """
    L{own_session}
    """

    def fallback(self, *argv: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*own_session(path=""), *argv],
            env={"PATH": FIXED_PATH},
            capture_output=True,
        )

    def test_fallback_leads_a_session(self) -> None:
        """
        Without a C{setsid} program a Python does the same: the program leads
        a session, and gets its arguments as they are.
        """
        report = (
            "import json, os, sys; print(json.dumps("
            "[os.getpid() == os.getsid(0) == os.getpgid(0), *sys.argv[1:]]))"
        )
        words = ["a b", "", "ü\n"]
        found = self.fallback(sys.executable, "-Ic", report, *words)
        self.assertEqual(json.loads(found.stdout), [True, *words])

    def test_fallback_leaves_no_trace(self) -> None:
        """
        That Python adds nothing of its own to the environment of the program,
        and the program dies of SIGPIPE as any other.
        """
        found = self.fallback("/usr/bin/env")
        self.assertEqual(found.stdout, f"PATH={FIXED_PATH}\n".encode())
        found = self.fallback("/bin/grep", "SigIgn", "/proc/self/status")
        ignored = int(found.stdout.split()[1], 16)
        # Those that Python ignores; what else whoever runs the tests has the
        # system ignore (nohup does) is not for a program in between to change.
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            self.assertFalse(ignored & 1 << (number - 1), number)

    def test_fallback_reports_what_it_can_not_execute(self) -> None:
        """
        Where that Python can not execute the program it says so and exits 127.
        """
        found = self.fallback("/no/such/program")
        self.assertEqual(found.returncode, 127)
        self.assertEqual(
            found.stderr,
            b"cannot execute /no/such/program: No such file or directory\n",
        )


class ProgramTests(SynchronousTestCase):
    """
    L{start_program} and L{Program}
    """

    def setUp(self) -> None:
        self.reactor = FakeProcessReactor()
        self.addCleanup(lambda: self.assertEqual(self.reactor.getDelayedCalls(), []))

    def start(self, *args: str, stdin: bytes = b"{}") -> tuple[Program, FakeProcess]:
        program = start_program(
            self.reactor,
            ["/opt/script", *args],
            stdin=stdin,
            stdin_timeout=STDIN_TIMEOUT,
            max_output=MAX_OUTPUT,
            env={"PATH": FIXED_PATH},
        )
        return program, self.reactor.processes[-1]

    def test_the_fakes_are_faithful(self) -> None:
        """
        The fake reactor and process have the methods of the real ones.
        """
        _, process = self.start()
        verifyObject(IReactorProcess, self.reactor)
        verifyObject(IProcessTransport, process)
        process.exits()

    def test_starts_in_a_session_of_its_own(self) -> None:
        """
        The argv is passed on as it is, in UTF-8, behind the words that make a
        session, and the environment is exactly the given one.
        """
        _, process = self.start("a b", "", "ü'\n")
        prefix = [word.encode() for word in own_session()]
        self.assertEqual(
            process.argv, [*prefix, b"/opt/script", b"a b", b"", "ü'\n".encode()]
        )
        self.assertEqual(process.env, {"PATH": FIXED_PATH})
        process.exits()

    def test_collects_what_a_program_does(self) -> None:
        """
        The result holds the exit status and the two outputs, apart.
        """
        program, process = self.start()
        process.reads_stdin()
        process.writes(STDOUT, b"one ")
        process.writes(STDERR, b"warning")
        process.writes(STDOUT, b"two")
        process.exits(3)
        result = self.successResultOf(program.result)
        self.assertEqual(process.stdin, b"{}")
        self.assertEqual(result.exit, 3)
        self.assertEqual(result.stdout, Captured("stdout", b"one two", 7))
        self.assertEqual(result.stderr, Captured("stderr", b"warning", 7))
        self.assertIsNone(result.signal)
        self.assertFalse(result.stdin_timed_out)

    def test_success(self) -> None:
        """
        A program that ends well exits 0.
        """
        program, process = self.start()
        process.exits(0)
        self.assertEqual(self.successResultOf(program.result).exit, 0)

    def test_killed_by_a_signal(self) -> None:
        """
        A program that a signal ends has exit status 126, and we know which.
        """
        program, process = self.start()
        process.exits(signal=9)
        result = self.successResultOf(program.result)
        self.assertEqual((result.exit, result.signal), (KILLED, 9))

    def test_pid_outlives_the_process(self) -> None:
        """
        The id of the session is still known after its leader is gone.
        """
        program, process = self.start()
        pid = process.pid
        process.exits()
        self.assertEqual(program.pid, pid)

    def test_output_beyond_the_limit_is_read_and_dropped(self) -> None:
        """
        Each stream is kept up to the limit, and counted to its end.
        """
        program, process = self.start()
        process.writes(STDOUT, b"x" * (MAX_OUTPUT - 1))
        process.writes(STDOUT, b"yz")
        process.writes(STDOUT, b"z" * 100)
        process.writes(STDERR, b"e" * MAX_OUTPUT)
        process.exits()
        result = self.successResultOf(program.result)
        self.assertEqual(result.stdout.kept, b"x" * (MAX_OUTPUT - 1) + b"y")
        self.assertEqual(result.stdout.total_bytes, MAX_OUTPUT + 101)
        self.assertTrue(result.stdout.cut)
        self.assertFalse(result.stderr.cut)

    def test_gives_up_on_unread_stdin(self) -> None:
        """
        A program that does not read its stdin in time finds it closed, and
        goes on.
        """
        program, process = self.start()
        self.reactor.advance(STDIN_TIMEOUT - 1)
        self.assertIn(STDIN, process.pipes)
        self.reactor.advance(1)
        self.assertNotIn(STDIN, process.pipes)
        self.assertNoResult(program.result)
        process.exits(0)
        result = self.successResultOf(program.result)
        self.assertTrue(result.stdin_timed_out)
        self.assertEqual(result.exit, 0)

    def test_read_stdin_stops_the_clock(self) -> None:
        """
        A program that has read its stdin can take as long as it likes.
        """
        program, process = self.start()
        process.reads_stdin()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.reactor.advance(STDIN_TIMEOUT * 100)
        process.exits()
        self.assertFalse(self.successResultOf(program.result).stdin_timed_out)

    def test_nothing_to_read(self) -> None:
        """
        A program without stdin finds the end of the file at once.
        """
        _, process = self.start(stdin=b"")
        self.assertNotIn(STDIN, process.pipes)
        process.exits()

    def test_waits_for_a_program_that_closed_its_outputs(self) -> None:
        """
        Closed pipes are not the end of a program.
        """
        program, process = self.start()
        process.closes(STDIN, STDOUT, STDERR)
        self.reactor.advance(3600)
        self.assertNoResult(program.result)
        process.exits(7)
        self.assertEqual(self.successResultOf(program.result).exit, 7)

    def test_waits_a_moment_for_held_pipes(self) -> None:
        """
        Where a child of the program holds its outputs, what comes within a
        moment counts; then our ends are closed and the result is there.
        """
        program, process = self.start()
        process.exits(0, held={STDIN, STDOUT, STDERR})
        self.assertNoResult(program.result)
        process.writes(STDOUT, b"late")
        self.reactor.advance(DRAIN_SECONDS)
        self.assertEqual(process.pipes, {})
        process.writes(STDOUT, b"too late")
        result = self.successResultOf(program.result)
        self.assertEqual(result.stdout.kept, b"late")
        self.assertFalse(result.stdin_timed_out)

    def test_held_pipes_that_close_in_time(self) -> None:
        """
        The result does not wait longer than for the last pipe.
        """
        program, process = self.start()
        process.exits(0, held={STDERR})
        process.closes(STDERR)
        self.assertEqual(self.successResultOf(program.result).exit, 0)

    def test_cancelling_leaves_the_program_alone(self) -> None:
        """
        Whoever stops waiting for a program does not stop it.
        """
        program, process = self.start()
        program.result.cancel()
        self.failureResultOf(program.result, CancelledError)
        process.reads_stdin()
        self.assertEqual(process.signals, [])
        self.assertEqual(set(process.pipes), {STDOUT, STDERR})
        process.exits()

    def test_killing(self) -> None:
        """
        A program can be ended, and we still hear how it ended.
        """
        program, process = self.start()
        program.kill()
        self.assertEqual(process.signals, ["KILL"])
        process.exits(signal=9)
        self.assertEqual(self.successResultOf(program.result).signal, 9)

    def test_killing_what_has_exited(self) -> None:
        """
        A program that has exited is sent no signal: its id can be another's by
        now, even while its pipes are still open.
        """
        program, process = self.start()
        process.exits(0, held={STDOUT})
        program.kill()
        self.assertEqual(process.signals, [])
        self.reactor.advance(DRAIN_SECONDS)
        self.assertEqual(self.successResultOf(program.result).exit, 0)

    def test_the_system_refuses(self) -> None:
        """
        A start that the system refuses is an error in the system's words.
        """
        self.reactor.refuse(errno.E2BIG)
        refusal = self.assertRaises(NotStarted, self.start)
        self.assertEqual(str(refusal), "Argument list too long")

    def test_arguments_that_are_none(self) -> None:
        """
        JSON can carry strings that no argv can.
        """
        for argument, problem in (
            ("a\0b", "an argument holds a NUL character"),
            ("\ud800", "an argument is not valid Unicode"),
        ):
            refusal = self.assertRaises(NotStarted, self.start, argument)
            self.assertEqual(str(refusal), problem)
        self.assertEqual(self.reactor.processes, [])
