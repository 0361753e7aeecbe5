# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.protocol.hearing}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.errors import ProtocolError
from ctrlexec.protocol import limits
from ctrlexec.protocol.codec_runs import encode_event, encode_heartbeat
from ctrlexec.protocol.hearing import Hearing
from ctrlexec.protocol.run_messages import Output, StateChanged, StreamEnded

EVENTS = (
    StateChanged(0.0, "running"),
    Output(0.5, "stdout", "zwölf\n", 7),
    Output(0.7, "stderr", "x" * 500, 500),
)
END = StreamEnded(1.0, "a", "9f", 0)
STREAM = (
    encode_event(EVENTS[0])
    + encode_heartbeat(0.1)
    + encode_event(EVENTS[1])
    + encode_event(EVENTS[2])
    + encode_event(END)
)


class Broken(Exception):
    """
    Whoever hears something can not take it.
    """


class HearingTests(SynchronousTestCase):
    """
    L{Hearing}
    """

    def setUp(self) -> None:
        self.heard: list[Output | StateChanged] = []
        self.taken: list[Deferred[None]] = []
        self.called: list[object] = []

    def hearing(self, *, slow: bool = False) -> Hearing:
        """
        @param slow: each event is taken only when the test says so.
        """

        def hear(event: Output | StateChanged) -> Deferred[None] | None:
            self.heard.append(event)
            if not slow:
                return None
            self.taken.append(Deferred())
            return self.taken[-1]

        hearing = Hearing(hear)
        hearing.resumed = lambda: self.called.append("resumed")
        hearing.failed = self.called.append
        return hearing

    @given(st.lists(st.integers(0, len(STREAM)), max_size=8))
    def test_anySplit(self, cuts: list[int]) -> None:
        """
        All of it is told, in order, however it comes; a heartbeat is nothing to
        tell of, and the end is not told but known.
        """
        self.setUp()
        hearing = self.hearing()
        ends = [*sorted(cuts), len(STREAM)]
        for start, end in zip([0, *ends], ends, strict=False):
            hearing.feed(STREAM[start:end])
            while hearing.tell():
                self.assertFalse(hearing.waiting)
        self.assertEqual(tuple(self.heard), EVENTS)
        self.assertEqual(hearing.ended, END)
        self.assertTrue(hearing.complete)

    def test_incomplete(self) -> None:
        """
        Half a line after the end, or before it, is not all of it.
        """
        for stream in (STREAM[:-1], STREAM + b"{"):
            hearing = self.hearing()
            hearing.feed(stream)
            while hearing.tell():
                pass
            self.assertFalse(hearing.complete)

    def test_slow(self) -> None:
        """
        While somebody takes an event, they are waited for; then there is more.
        """
        hearing = self.hearing(slow=True)
        hearing.feed(STREAM)
        self.assertTrue(hearing.tell())
        self.assertTrue(hearing.waiting)
        self.assertEqual(len(self.heard), 1)
        self.taken[0].callback(None)
        self.assertFalse(hearing.waiting)
        self.assertEqual(self.called, ["resumed"])

    def test_atOnce(self) -> None:
        """
        What is taken already when it is told holds up nothing.
        """
        taken: Deferred[None] = Deferred()
        taken.callback(None)
        hearing = Hearing(lambda event: taken)
        hearing.resumed = lambda: self.called.append("resumed")
        hearing.feed(STREAM)
        self.assertTrue(hearing.tell())
        self.assertFalse(hearing.waiting)
        self.assertEqual(self.called, [])

    def test_fails(self) -> None:
        """
        Whoever can not take an event says so, now or later.
        """
        hearing = self.hearing(slow=True)
        hearing.feed(STREAM)
        hearing.tell()
        why = Failure(Broken())
        self.taken[0].errback(why)
        self.assertEqual(self.called, [why])
        for broken in (self.fail_now, self.failed_already):
            hearing = Hearing(broken)
            hearing.feed(STREAM)
            self.assertRaises(Broken, hearing.tell)

    def fail_now(self, event: object) -> None:
        """
        Can not take anything.
        """
        raise Broken

    def failed_already(self, event: object) -> Deferred[None]:
        """
        The same, said otherwise.
        """
        failed: Deferred[None] = Deferred()
        failed.errback(Broken())
        return failed

    def test_stopped(self) -> None:
        """
        Nobody is called any more once it is over.
        """
        for end in (None, Failure(Broken())):
            hearing = self.hearing(slow=True)
            hearing.feed(STREAM)
            hearing.tell()
            hearing.stop()
            self.taken[-1].callback(end)
            self.assertEqual((self.called, hearing.held_bytes), ([], 0))

    def test_afterEnd(self) -> None:
        """
        Nothing can follow the end.
        """
        hearing = self.hearing()
        hearing.feed(STREAM + encode_event(END))
        with self.assertRaises(ProtocolError) as caught:
            while hearing.tell():
                pass
        self.assertEqual(str(caught.exception), "the stream goes on after its end")

    def test_endless(self) -> None:
        """
        A line that never ends is not kept for ever.
        """
        hearing = self.hearing()
        with self.assertRaises(ProtocolError) as caught:
            for _ in range(10_000):
                hearing.feed(b"x" * 1000)
                hearing.tell()
        self.assertEqual(str(caught.exception), "an event of the stream is too long")
        self.assertLess(hearing.held_bytes, limits.EVENT_LINE_BYTES + 1001)
