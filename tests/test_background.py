# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.background}, and of the mode that uses it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.background import PID_FILE, PairingProcess, why_not
from ctrlexec.dispatcher.world import launched
from ctrlexec.errors import Conflict
from tests.command_lines import CommandLineCase
from tests.dispatching import Recorder
from tests.structure import ROOT

#: No process has it: the system's own limit is lower.
NOBODY = 2**30


class PairingProcessTests(SynchronousTestCase):
    """
    The process whose pairing mode is open.
    """

    def setUp(self) -> None:
        """
        A system without processes.
        """
        self.home, self.log = Path(self.mktemp()), Recorder()
        self.signals: list[tuple[int, int]] = []
        self.process = PairingProcess(
            self.home, self.log, self.home / "proc", lambda *sent: self.signalled(*sent)
        )

    def signalled(self, pid: int, number: int) -> None:
        """
        A signal is sent.
        """
        self.signals.append((pid, number))

    def runs(self, pid: int, *words: str, file: str | None = None) -> None:
        """
        A process runs, and a file names it.
        """
        (self.home / "proc" / str(pid)).mkdir(parents=True)
        line = "".join(f"{word}\0" for word in words)
        (self.home / "proc" / str(pid) / "cmdline").write_text(line)
        (self.home / PID_FILE).write_text(f"{pid}\n" if file is None else file)

    def assertClosed(self) -> None:
        """
        It is not open, and there is nothing to be stopped.
        """
        self.assertIsNone(self.process.pid)
        self.process.require_closed()
        self.assertRaises(Conflict, self.process.stop)
        self.assertEqual((self.signals, self.log.events), ([], []))
        self.assertFalse((self.home / PID_FILE).exists())

    def test_open(self) -> None:
        """
        It is found, no second one is started, and it is told to end.
        """
        self.runs(7, "/usr/bin/perl", "/usr/bin/ced", "pairing-mode")
        self.assertEqual(self.process.pid, 7)
        refused = self.assertRaises(Conflict, self.process.require_closed)
        self.assertIn("process 7", str(refused))
        self.assertEqual(self.process.stop(), 7)
        self.assertEqual(self.signals, [(7, signal.SIGTERM)])
        (stopped,) = self.log.events
        self.assertEqual(stopped.line(), "ACTION=pairing-mode-stop PID=7")

    def test_closed(self) -> None:
        """
        Nobody has opened it.
        """
        self.assertClosed()

    def test_killed(self) -> None:
        """
        What one left behind that was killed is removed.
        """
        self.home.mkdir()
        (self.home / PID_FILE).write_text("7\n")
        self.assertClosed()

    def test_another(self) -> None:
        """
        Nor is anybody hit who has got its process id since then.
        """
        self.runs(7, "/bin/sh", "-c", "pairing-mode and more")
        self.assertClosed()

    def test_rubbish(self) -> None:
        """
        Or who is named by what is no process id.
        """
        self.runs(7, "ced", "pairing-mode", file="seven")
        self.assertClosed()

    def test_goneMeanwhile(self) -> None:
        """
        One that ends by itself at this moment is as good as closed.
        """

        def gone(pid: int, number: int) -> None:
            raise ProcessLookupError

        self.runs(7, "ced", "pairing-mode")
        process = attrs.evolve(self.process, kill=gone)
        self.assertRaises(Conflict, process.stop)
        self.assertEqual(self.log.events, [])


@attrs.define
class FakeChild:
    """
    A L{ctrlexec.dispatcher.background.Child}.
    """

    pid: int = NOBODY
    said: str = ""
    ended: bool = False
    told: int = 0

    def has_ended(self) -> bool:
        return self.ended

    def complaint(self) -> str:
        return self.said

    def end(self) -> None:
        self.told += 1


class WhyNotTests(SynchronousTestCase):
    """
    Why there is no pairing mode.
    """

    def test_said(self) -> None:
        """
        It has said so itself, among the lines of its log.
        """
        why = why_not(FakeChild(said="ACTION=x\nerror: no port\nhint: use another\n"))
        self.assertEqual((str(why), why.hint), ("no port", "use another"))

    def test_unsaid(self) -> None:
        """
        It has not.
        """
        self.assertIn("not opened", str(why_not(FakeChild(said="Killed\n"))))


class LaunchedTests(SynchronousTestCase):
    """
    A command line that is really launched.
    """

    def test_complaint(self) -> None:
        """
        It is this program, with these words and this environment, and what it
        complains of can be read.
        """
        child = launched(
            ["--output", "text", "no-such-mode"],
            {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"},
        )
        _, status = os.waitpid(child.pid, 0)
        self.assertEqual(os.waitstatus_to_exitcode(status), 2)
        self.assertTrue(child.has_ended())
        self.assertEqual(str(why_not(child)), "there is no mode 'no-such-mode'")


class StartTests(CommandLineCase):
    """
    C{ctrl-exec pairing-mode start} and C{stop}.
    """

    def setUp(self) -> None:
        super().setUp()
        self.child = FakeChild()
        self.launched: list[tuple[list[str], Mapping[str, str]]] = []
        self.sleep = self.clock.advance

    def launch(self, words: Sequence[str], environ: Mapping[str, str]) -> FakeChild:
        """
        See L{CommandLineCase.launch}.
        """
        self.launched.append(([*words], environ))
        return self.child

    def test_words(self) -> None:
        """
        The other process has the same settings, name and port, and no token
        where others can read it.
        """
        self.command("--token", "secret", "--port", "9", "pairing-mode", "start")
        ((words, environ),) = self.launched
        self.assertEqual(
            words,
            [
                "pairing-mode",
                f"--config={self.settings}",
                "--username=alice",
                "--timeout=600",
                "--port=9",
            ],
        )
        self.assertEqual(environ["ENVEXEC_TOKEN"], "secret")

    def test_late(self) -> None:
        """
        One that has no open port after five seconds is given up.
        """
        done = self.command("pairing-mode", "start", "--timeout", "60")
        self.assertEqual((done.status, done.out, self.child.told), (1, "", 1))
        self.assertIn("has not opened its port", done.err)
        self.assertAlmostEqual(self.clock.seconds(), 5)
        ((words, _),) = self.launched
        self.assertIn("--timeout=60", words)

    def test_failed(self) -> None:
        """
        One that ends at once is not waited for, and has said why.
        """
        self.child.ended, self.child.said = True, "error: no port\nhint: another\n"
        done = self.command("pairing-mode", "start", "--json")
        self.assertEqual(done.status, 1)
        self.assertEqual(done.err, "error: no port\nhint: another\n")
        said = {"ok": False, "error": "no port", "hint": "another"}
        self.assertEqual(done.json, said)
        self.assertEqual(self.clock.seconds(), 0)

    def test_denied(self) -> None:
        """
        Who may not open the port starts and stops nothing.
        """
        self.configure("auth_hook = /nonexistent/hook\n")
        for action in ("start", "stop"):
            done = self.command("pairing-mode", action)
            self.assertEqual((done.status, done.out), (1, ""))
            self.assertTrue(done.err.startswith("Denied: "), done.err)
        self.assertEqual(self.launched, [])

    def test_nothingToStop(self) -> None:
        """
        What is not open can not be closed.
        """
        done = self.command("pairing-mode", "stop")
        self.assertEqual((done.status, done.out), (1, ""))
        self.assertEqual(done.err, "error: pairing mode is not open\n")
