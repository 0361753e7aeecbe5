# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.protocol.codec_runs}: the events of a stream.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ctrlexec.protocol import codec_runs, limits
from ctrlexec.protocol.run_messages import (
    ENDS,
    STATES,
    Output,
    RunEvent,
    StateChanged,
    StreamEnded,
)
from tests.messages import CodecTestCase

TEXTS = st.text(max_size=50)
COUNTS = st.integers(0, 2**53)
SECONDS = st.integers(0, 10**12).map(lambda ms: ms / 1000)
EVENTS = st.one_of(
    st.builds(Output, SECONDS, st.sampled_from(["stdout", "stderr"]), TEXTS, COUNTS),
    st.builds(StateChanged, SECONDS, st.sampled_from(STATES)),
    st.builds(
        StreamEnded,
        SECONDS,
        TEXTS,
        TEXTS,
        st.integers(-1, 255),
        st.sampled_from(ENDS),
        TEXTS,
        COUNTS,
        COUNTS,
    ),
)


def event(line: bytes) -> RunEvent | None:
    """
    An event, from a line as it is sent.
    """
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    return codec_runs.decode_event(line[:-1])


class EventTests(CodecTestCase):
    """
    The events of a stream.
    """

    def test_bytes(self) -> None:
        """
        The bytes of each.
        """
        known: dict[bytes, RunEvent] = {
            b'{"t":0.0,"state":"running"}\n': StateChanged(0.0, "running"),
            b'{"t":1.234,"stdout":"a\\n","end":2}\n': (
                Output(1.234, "stdout", "a\n", 2)
            ),
            b'{"t":1.5,"stderr":"\\ufffd","end":9}\n': (
                Output(1.5, "stderr", "\ufffd", 9)
            ),
            b'{"t":2.0,"result":{"script":"a","reqid":"9f","exit":0,"state":"done",'
            b'"stdout_bytes":2,"stderr_bytes":9}}\n': (
                StreamEnded(2.0, "a", "9f", 0, stdout_bytes=2, stderr_bytes=9)
            ),
            b'{"t":2.0,"result":{"script":"a","reqid":"9f","exit":126,'
            b'"state":"timed_out","reason":"timed out after 2s","stdout_bytes":0,'
            b'"stderr_bytes":0}}\n': (
                StreamEnded(2.0, "a", "9f", 126, "timed_out", "timed out after 2s")
            ),
        }
        for line, told in known.items():
            self.assertEqual(codec_runs.encode_event(told), line)
            self.assertEqual(event(line), told)

    @given(EVENTS)
    def test_roundTrip(self, told: RunEvent) -> None:
        """
        A dispatcher reads what an agent tells.
        """
        self.assertEqual(event(codec_runs.encode_event(told)), told)

    def test_heartbeat(self) -> None:
        """
        A line with nothing but a time tells nothing, and so does one with what
        we do not know.
        """
        self.assertEqual(codec_runs.encode_heartbeat(10.0004), b'{"t":10.0}\n')
        for line in (b'{"t":10.0}', b'{"t":1}', b'{"t":1,"progress":{"of":[1,2]}}'):
            self.assertIsNone(codec_runs.decode_event(line))

    def test_unknownMembers(self) -> None:
        """
        What a later version adds is ignored.
        """
        line = b'{"t":1,"stdout":"a","end":1,"colour":"red"}'
        self.assertEqual(codec_runs.decode_event(line), Output(1.0, "stdout", "a", 1))

    def test_longest(self) -> None:
        """
        The longest event of ours fits into a line, whatever a script writes.
        """
        for text in ("\0", "\ufffd", "\x7f"):
            told = Output(1.0, "stdout", text * limits.EVENT_BYTES, 1)
            line = codec_runs.encode_event(told)
            self.assertLess(len(line), limits.EVENT_LINE_BYTES)
            self.assertEqual(event(line), told)

    def test_lies(self) -> None:
        """
        What is no event, in words.
        """
        known = {
            b"": "an event of the stream is not a JSON object",
            b"[]": "an event of the stream is not a JSON object",
            b'{"t":NaN}': "an event of the stream is not a JSON object",
            b'{"stdout":"a","end":1}': "an event of the stream has no time",
            b'{"t":1e999}': "t must be a number of seconds",
            b'{"t":true}': "t must be a number of seconds",
            b'{"t":"1"}': "t must be a number of seconds",
            b'{"t":1,"state":"eaten"}': "state must be one that a run can be in",
            b'{"t":1,"state":null}': "state must be one that a run can be in",
            b'{"t":1,"state":["done"]}': "state must be a string",
            b'{"t":1,"stdout":null,"end":1}': "stdout must be a string",
            b'{"t":1,"stdout":1,"end":1}': "stdout must be a string",
            b'{"t":1,"stderr":"\\ud800","end":1}': "stderr must be a string",
            b'{"t":1,"stdout":"a","end":-1}': (
                "end must be a whole number from 0 to 2^53"
            ),
            b'{"t":1,"stdout":"a","end":%d}' % (2**53 + 1): (
                "end must be a whole number from 0 to 2^53"
            ),
            b'{"t":1,"stdout":"a","end":1.0}': (
                "end must be a whole number from 0 to 2^53"
            ),
            b'{"t":1,"stdout":"a","stderr":"b"}': (
                "an event of the stream tells several things"
            ),
            b'{"t":1,"result":[]}': "the result must be an object",
            b'{"t":1,"result":{}}': "the answer has no exit that is a number",
            b'{"t":1,"result":{"exit":0,"state":"running"}}': (
                "state must be that of a run which has ended"
            ),
            b'{"t":1,"result":{"exit":0,"stdout_bytes":true}}': (
                "stdout_bytes must be a whole number from 0 to 2^53"
            ),
            b'{"t":1,"x":[%s]}' % (b"[],[]," * 9999 + b"1"): (
                "an event of the stream is too long"
            ),
            b'{"t":1,"stdout":"%s"}' % (b"x" * limits.EVENT_LINE_BYTES): (
                "an event of the stream is too long"
            ),
        }
        for line, error in known.items():
            self.assertProtocolError(codec_runs.decode_event, line, error)
