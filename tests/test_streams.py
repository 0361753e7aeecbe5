# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.streams}.
"""

from __future__ import annotations

import json
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.run_records import RunRecord
from ctrlexec.agent.streams import RunStream
from ctrlexec.protocol.limits import EVENT_BYTES, EVENT_LINE_BYTES
from tests.test_run_records import OUTPUT, shown

RECORD = RunRecord(
    reqid="r-1",
    owner="hq",
    script="hello",
    started="2026-03-05T18:38:09Z",
    state="done",
    exit=3,
)


@attrs.define
class Pipe:
    """
    An output that grows as the test has it.
    """

    data: bytes = b""
    at: int = 0
    reads: int = 0
    closed: bool = False

    def read(self, most: int) -> bytes:
        """
        See L{ctrlexec.agent.run_output.OutputReader}.
        """
        assert not self.closed
        self.reads += 1
        piece = self.data[self.at : self.at + most]
        self.at += len(piece)
        return piece

    def look(self) -> None:
        """
        See L{ctrlexec.agent.run_output.OutputReader}.
        """

    def close(self) -> None:
        """
        See L{ctrlexec.agent.run_output.OutputReader}.
        """
        self.closed = True


class StreamTests(SynchronousTestCase):
    """
    L{RunStream}
    """

    def setUp(self) -> None:
        self.seconds = 1.2345
        self.begin()

    def begin(self, at: tuple[int, int] = (0, 0), lives: bool = True) -> None:
        """
        Follow a run that has written nothing yet.
        """
        self.out, self.err = Pipe(at=at[0]), Pipe(at=at[1])
        self.stream = RunStream.of(
            (self.out, self.err), at, lambda: self.seconds, lives
        )

    def told(self) -> list[Any]:
        """
        The events that there are.
        """
        lines = []
        while line := self.stream.pull():
            self.assertTrue(line.endswith(b"\n"))
            self.assertLessEqual(len(line), EVENT_LINE_BYTES)
            lines.append(json.loads(line))
        return lines

    def test_life(self) -> None:
        """
        That it runs, what it writes, how it has ended; then nothing more.
        """
        self.assertEqual(self.told(), [{"t": 1.234, "state": "running"}])
        self.assertEqual(self.stream.pull(), b"")
        self.out.data = b"out\n"
        self.assertEqual(self.told(), [{"t": 1.234, "stdout": "out\n", "end": 4}])
        self.err.data = b"err\n"
        self.seconds = 2
        record = attrs.evolve(RECORD, stdout_bytes=4, stderr_bytes=4)
        self.stream.ended(record, "r-1")
        result = {"script": "hello", "reqid": "r-1", "exit": 3, "state": "done"}
        result |= {"stdout_bytes": 4, "stderr_bytes": 4}
        self.assertEqual(
            self.told(),
            [{"t": 2, "stderr": "err\n", "end": 4}, {"t": 2, "result": result}],
        )
        self.assertIsNone(self.stream.pull())
        self.assertTrue(self.out.closed and self.err.closed)

    def test_cut(self) -> None:
        """
        Where we have kept the beginning only, a last event says so, and counts
        for nothing.
        """
        self.begin(lives=False)
        self.out.data = b"abc\xe2\x82"
        record = attrs.evolve(
            RECORD, stdout_bytes=9, state="timed_out", reason="timed out after 3s"
        )
        self.stream.ended(record, "r-1")
        first, note, last = self.told()
        self.assertEqual((first["stdout"], first["end"]), ("abc", 3))
        self.assertEqual(note["stdout"], "\n[stdout cut: 3 of 9 bytes kept]\n")
        self.assertEqual(note["end"], 3)
        self.assertEqual(last["result"]["reason"], "timed out after 3s")

    def test_notYet(self) -> None:
        """
        A character that has only begun waits for its rest, or for the end.
        """
        self.told()
        self.out.data = b"a\xe2"
        self.assertEqual(self.told(), [{"t": 1.234, "stdout": "a", "end": 1}])
        self.out.data += b"\x82\xac\xe2"
        self.assertEqual(self.told(), [{"t": 1.234, "stdout": "€", "end": 4}])
        self.stream.ended(attrs.evolve(RECORD, stdout_bytes=5), "r-1")
        first, last = self.told()
        self.assertEqual((first["stdout"], first["end"]), ("\ufffd", 5))
        self.assertIn("result", last)

    def test_heartbeat(self) -> None:
        """
        Who hears nothing for a while hears that, once.
        """
        self.told()
        self.stream.beat()
        self.assertEqual(self.told(), [])
        for _ in "abc":
            self.stream.beat()
        self.assertEqual(self.told(), [{"t": 1.234}])
        self.stream.beat()
        self.out.data = b"x"
        self.assertEqual(len(self.told()), 1)

    def test_lazy(self) -> None:
        """
        Nothing is read that nobody wants, and no more at once than goes into an
        event, whatever JSON makes of it.
        """
        self.begin(lives=False)
        self.out.data = bytes(3 * EVENT_BYTES)
        self.assertEqual(self.out.reads, 0)
        self.assertIsNotNone(self.stream.pull())
        self.assertEqual((self.out.at, self.out.reads), (EVENT_BYTES, 1))
        self.assertEqual(len(self.told()), 2)

    def test_gone(self) -> None:
        """
        Who goes holds nothing open.
        """
        self.stream.close()
        self.assertTrue(self.out.closed and self.err.closed)
        self.assertIsNone(self.stream.pull())

    def test_beyond(self) -> None:
        """
        Who claims to have more than there is gets nothing but the end.
        """
        self.begin((99, 0), lives=False)
        self.out.data = b"abc"
        self.stream.ended(attrs.evolve(RECORD, stdout_bytes=3), "r-1")
        [last] = self.told()
        self.assertIn("result", last)

    @settings(deadline=None)
    @given(OUTPUT, st.lists(st.integers(0, 100), max_size=5), st.integers(0, 9))
    def test_anyPieces(self, data: bytes, cuts: list[int], more: int) -> None:
        """
        However it is written, and wherever a follower breaks off and comes again
        with what it was told to have, it is the same text.
        """
        said, end = "", 0
        for cut in sorted(min(cut, len(data)) for cut in cuts):
            self.begin((end, 0), lives=False)
            self.out.data = data[:cut]
            for event in self.told():
                said, end = said + event["stdout"], event["end"]
        self.begin((end, 0), lives=False)
        self.out.data = data
        total = len(data) + more
        self.stream.ended(attrs.evolve(RECORD, stdout_bytes=total), "r-1")
        *events, last = self.told()
        said += "".join(event["stdout"] for event in events)
        kept = events[-1]["end"] if events else end
        self.assertEqual(said, shown(data, kept, total))
        self.assertIn("result", last)
