# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.kept}: what is made of what a keeper says.
"""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ctrlexec.agent.keeper import orders
from ctrlexec.agent.keeper.frames import frame
from ctrlexec.agent.kept import KeptScript, Line, NeverKept
from ctrlexec.agent.runs import Ending
from ctrlexec.errors import LockHeld, NotStarted
from ctrlexec.interfaces import ILiveScript
from ctrlexec.protocol.run_messages import CANCELLED, Signalled

TEXT = (
    b'{"exit": 126, "state": "cancelled", "reason": "cancelled", "stdout_bytes": 3, '
    b'"stderr_bytes": 0, "stdin_timed_out": false, "finished": 5}'
)
ENDING = Ending(
    exit=126, state=CANCELLED, reason="cancelled", stdout_bytes=3, finished=5.0
)
RUNNING = frame(orders.RUNNING, b"77")
ENDED = frame(orders.ENDED, TEXT, b"77", b"sl\xffep", b"TERM", b"78", b"sh", b"KILL")


class KeptScriptTests(SynchronousTestCase):
    """
    L{KeptScript} and L{Line}
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.script = KeptScript(self.directory)
        self.transport = StringTransport()
        self.line = Line(self.script)
        self.script.speak_over(self.line)
        self.begun = self.script.begun()
        self.line.makeConnection(self.transport)

    def say(self, *messages: bytes) -> None:
        self.line.dataReceived(b"".join(messages))

    def cut(self) -> None:
        self.line.connectionLost(Failure(ConnectionDone()))

    def asked(self) -> bytes:
        asked: bytes = self.transport.value()
        self.transport.clear()
        return asked

    def test_provides_the_interface(self) -> None:
        """
        The agent sees nothing but L{ILiveScript}.
        """
        verifyObject(ILiveScript, self.script)

    def test_begins(self) -> None:
        """
        A script has begun when its keeper says so, and which process it is.
        """
        self.assertNoResult(self.begun)
        self.say(RUNNING)
        self.successResultOf(self.begun)
        self.assertEqual(self.script.pid, 77)

    def test_refused(self) -> None:
        """
        A keeper that does not start it says why.
        """
        self.say(frame(orders.REFUSED, b"No space left on device"))
        failure = self.failureResultOf(self.begun, NotStarted)
        self.assertEqual(str(failure.value), "No space left on device")
        self.cut()

    def test_busy(self) -> None:
        """
        A lock that another run holds has an error of its own.
        """
        self.say(frame(orders.BUSY, b"held"))
        self.failureResultOf(self.begun, LockHeld)

    def test_no_keeper(self) -> None:
        """
        A connection that ends before anything was there tells that nothing was
        started.
        """
        self.cut()
        self.failureResultOf(self.begun, NeverKept)

    def test_keeper_dies_at_once(self) -> None:
        """
        A keeper that was there may have started it: then it is lost.
        """
        (self.directory / orders.SOCKET).touch()
        self.cut()
        self.successResultOf(self.begun)
        self.assertIsNone(self.successResultOf(self.script.ended()))

    def test_ends(self) -> None:
        """
        Everybody who waits hears of the end, and who comes later too.
        """
        waiting = self.script.ended(), self.script.ended()
        self.say(RUNNING, ENDED)
        for each in (*waiting, self.script.ended()):
            self.assertEqual(self.successResultOf(each), ENDING)
        self.assertTrue(self.transport.disconnecting)
        self.cut()

    def test_keeper_is_lost(self) -> None:
        """
        A keeper that goes without a word has lost the script.
        """
        self.say(RUNNING)
        ended = self.script.ended()
        self.cut()
        self.assertIsNone(self.successResultOf(ended))

    def test_written_ending(self) -> None:
        """
        What it could not say any more it may have written down.
        """
        self.say(RUNNING)
        ended = self.script.ended()
        (self.directory / orders.ENDING).write_bytes(TEXT)
        self.cut()
        self.assertEqual(self.successResultOf(ended), ENDING)

    def test_stops_waiting(self) -> None:
        """
        Who stops waiting disturbs nobody else.
        """
        first, second = self.script.ended(), self.script.ended()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.say(RUNNING, ENDED)
        self.assertEqual(self.successResultOf(second), ENDING)

    def test_cancel(self) -> None:
        """
        A cancel is done when the script has ended, and says what was signalled.
        """
        self.say(RUNNING)
        cancelling = Deferred.fromCoroutine(self.script.cancel())
        self.assertEqual(self.asked(), frame(orders.CANCEL))
        self.assertNoResult(cancelling)
        self.say(ENDED)
        self.assertEqual(
            self.successResultOf(cancelling),
            (Signalled(77, "sl\ufffdep", "TERM"), Signalled(78, "sh", "KILL")),
        )

    def test_cancel_stops_waiting(self) -> None:
        """
        Who does not wait for the cancel any more does not take it back.
        """
        cancelling = Deferred.fromCoroutine(self.script.cancel())
        cancelling.cancel()
        self.failureResultOf(cancelling, CancelledError)
        self.say(RUNNING, ENDED)
        self.assertEqual(self.successResultOf(self.script.ended()), ENDING)

    def test_cancel_after_the_end(self) -> None:
        """
        Nothing is signalled of what has ended.
        """
        self.say(RUNNING, ENDED)
        cancelling = Deferred.fromCoroutine(self.script.cancel())
        self.assertEqual(self.successResultOf(cancelling), ())
        self.assertEqual(self.asked(), b"")

    def test_watch(self) -> None:
        """
        The keeper is asked to tell of output by the first who wants to know,
        and not to do so any more by the last.
        """
        heard: list[str] = []
        first = self.script.watch(lambda: heard.append("first"))
        self.assertEqual(self.asked(), frame(orders.WATCH))
        second = self.script.watch(lambda: heard.append("second"))
        self.assertEqual(self.asked(), b"")
        self.say(RUNNING, frame(orders.OUTPUT))
        self.assertEqual(heard, ["first", "second"])
        first()
        first()
        self.assertEqual(self.asked(), b"")
        second()
        self.assertEqual(self.asked(), frame(orders.UNWATCH))
        self.say(frame(orders.OUTPUT))
        self.assertEqual(heard, ["first", "second"])

    def test_end_is_output(self) -> None:
        """
        With the end comes what was written last.
        """
        heard: list[bool] = []
        self.script.watch(lambda: heard.append(self.script.over))
        self.say(RUNNING, ENDED)
        self.assertEqual(heard, [True])

    def test_nonsense(self) -> None:
        """
        Words that we do not know are no harm; what are none end the connection.
        """
        self.say(frame(b"weather", b"fine"), frame(), RUNNING)
        self.assertEqual(self.script.pid, 77)
        self.say(b"\xff\xff\xff\xff")
        self.assertTrue(self.transport.disconnecting)

    def test_left(self) -> None:
        """
        Who leaves it does not take its end to have come.
        """
        self.say(RUNNING)
        ended = self.script.ended()
        self.script.leave()
        self.cut()
        self.assertNoResult(ended)
        ended.cancel()
        self.failureResultOf(ended, CancelledError)
