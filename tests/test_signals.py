# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.signals}.
"""

from __future__ import annotations

import signal
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.signals import EndingSignals, Terminated
from tests.structure import ROOT

_PROGRAM = """
import signal
from ctrlexec.dispatcher.signals import EndingSignals
signals = EndingSignals()
with signals.deadly():
    try:
        signal.raise_signal(signal.{name})
    except KeyboardInterrupt:
        print("it runs on at web-1", end="")
print("never")
"""


class EndingTests(SynchronousTestCase):
    """
    A signal that ends the program.
    """

    def setUp(self) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
            signal.signal(number, signal.SIG_DFL)
        self.signals = EndingSignals()

    def test_dies(self) -> None:
        """
        What there is to say is said, and the exit status is as shells expect it.
        """
        for name in ("SIGTERM", "SIGHUP"):
            done = subprocess.run(
                [sys.executable, "-c", _PROGRAM.format(name=name)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            self.assertEqual(done.returncode, -getattr(signal, name), done.stderr)
            self.assertEqual((done.stdout, done.stderr), ("it runs on at web-1", ""))

    def test_once(self) -> None:
        """
        It ends the waiting once: who closes a terminal sends it twice.
        """
        self.signals.listen()
        with self.assertRaises(Terminated):
            signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)

    def test_ignored(self) -> None:
        """
        What somebody wants to be ignored is.
        """
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self.signals.listen()
        signal.raise_signal(signal.SIGHUP)
        with self.assertRaises(Terminated):
            signal.raise_signal(signal.SIGTERM)

    def test_told(self) -> None:
        """
        What runs a reactor is told, and nothing is raised there; what comes when
        it has ended is heard again, whoever has listened meanwhile.
        """
        told: list[str] = []
        with self.signals.telling(lambda: told.append("stop")):
            self.signals.listen()
            signal.raise_signal(signal.SIGTERM)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
        self.assertEqual(told, ["stop"])
        signal.raise_signal(signal.SIGHUP)
