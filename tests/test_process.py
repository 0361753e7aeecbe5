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
from ctrlexec.process import (
    FIXED_PATH,
    KILLED,
    STDERR,
    STDIN,
    STDOUT,
    Program,
    ProgramResult,
    own_session,
    small_environment,
    start_program,
)
from tests.fakes import FakeProcess, FakeProcessReactor


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

    def test_hands_over_stdin(self) -> None:
        """
        A program can read what it was given, and its output goes nowhere.
        """
        program, process = self.start()
        process.reads_stdin()
        self.assertEqual(process.stdin, b"{}")
        self.assertEqual(process.nowhere, {STDOUT, STDERR})
        process.exits(3)
        self.assertEqual(self.successResultOf(program.result), ProgramResult(3))

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

    def test_nothing_to_read(self) -> None:
        """
        A program without stdin finds the end of the file at once.
        """
        _, process = self.start(stdin=b"")
        self.assertNotIn(STDIN, process.pipes)
        process.exits()

    def test_closed_stdin_is_no_end(self) -> None:
        """
        A program that has closed its stdin is waited for.
        """
        program, process = self.start()
        process.closes(STDIN)
        self.reactor.advance(3600)
        self.assertNoResult(program.result)
        process.exits(7)
        self.assertEqual(self.successResultOf(program.result).exit, 7)

    def test_held_stdin(self) -> None:
        """
        A child of a program that holds its stdin does not keep the result back.
        """
        program, process = self.start()
        process.exits(0, held={STDIN})
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
        now.
        """
        program, process = self.start()
        process.exits(0)
        program.kill()
        self.assertEqual(process.signals, [])
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
