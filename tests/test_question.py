# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.question}.
"""

from __future__ import annotations

import os
import select

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.question import ask


class AskTests(SynchronousTestCase):
    """
    L{ask}
    """

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.stdin, self.keyboard = os.pipe()
        self.addCleanup(os.close, self.stdin)
        self.shown: list[str] = []

    def asked(self) -> Deferred[bool]:
        """
        Ask.
        """
        return ask(self.reactor, self.stdin, self.shown.append, "Is it?")

    def types(self, text: bytes) -> None:
        """
        Somebody types this; nothing is the end of the terminal.
        """
        if text:
            os.write(self.keyboard, text)
        else:
            os.close(self.keyboard)
        (reader,) = self.reactor.getReaders()
        reader.doRead()

    def answered(self, text: bytes) -> bool:
        """
        What comes of typing this.
        """
        answer = self.asked()
        self.types(text)
        self.assertEqual(self.reactor.getReaders(), [])
        return self.successResultOf(answer)

    def test_yes(self) -> None:
        """
        A yes is a yes.
        """
        for text in (b"y\n", b"YES\n", b" y \r\n", b"y\nn\n"):
            self.assertTrue(self.answered(text), text)
        self.assertEqual(self.shown[0], "Is it? [y/N] ")
        os.close(self.keyboard)

    def test_no(self) -> None:
        """
        Whatever else is typed is a no, an end of the line too.
        """
        for text in (b"n\n", b"\n", b"yy\n", b"482 913\n", b"\xff\n", b"n\ny\n"):
            self.assertFalse(self.answered(text), text)
        os.close(self.keyboard)

    def test_end(self) -> None:
        """
        The end of the terminal is a no.
        """
        self.assertFalse(self.answered(b""))

    def test_half(self) -> None:
        """
        A line that is not ended is no answer yet.
        """
        answer = self.asked()
        self.types(b"y")
        self.assertNoResult(answer)
        self.types(b"es\n")
        self.assertTrue(self.successResultOf(answer))
        os.close(self.keyboard)

    def test_typedBefore(self) -> None:
        """
        Nobody has compared what was not yet shown: a line that the terminal held
        before the question is thrown away.
        """
        keyboard, stdin = os.openpty()
        self.addCleanup(os.close, keyboard)
        self.addCleanup(os.close, stdin)
        os.write(keyboard, b"y\n")
        self.assertEqual(select.select([stdin], [], [], 10)[0], [stdin])
        answer = ask(self.reactor, stdin, self.shown.append, "Is it?")
        self.assertEqual(select.select([stdin], [], [], 0)[0], [])
        self.assertNoResult(answer)
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        os.close(self.keyboard)

    def test_takenBack(self) -> None:
        """
        A question that is of no use any more is asked no longer.
        """
        answer = self.asked()
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertEqual(self.reactor.getReaders(), [])
        self.assertEqual(self.shown[-1], "\n")
        os.close(self.keyboard)
