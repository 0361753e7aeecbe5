# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.protocol.codec}: orders to run a script that say more than
those of the older line, and what they are answered.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ctrlexec.protocol import codec
from ctrlexec.protocol.messages import (
    RunAccepted,
    RunAnswer,
    RunFinished,
    RunRefused,
    RunRequest,
)
from ctrlexec.protocol.run_messages import ENDS
from ctrlexec.values import ON_DISCONNECT
from tests.messages import JSON, CodecTestCase

TIMES = st.floats(0, codec.MOST_TIMEOUT_SECONDS, exclude_min=True) | st.integers(
    1, codec.MOST_TIMEOUT_SECONDS
)
ORDERS = st.builds(
    RunRequest,
    st.text(),
    reqid=st.text(),
    asynchronous=st.booleans(),
    stream=st.booleans(),
    timeout=st.none() | TIMES,
    on_disconnect=st.sampled_from(ON_DISCONNECT),
)

BAD_FLAGS: tuple[object, ...] = ("yes", 2, -1, [], {}, [True])
BAD_TIMES: tuple[object, ...] = (0, -1, -0.0, True, False, "30", "30s", [], {}, [30])
BAD_DISCONNECTS: tuple[object, ...] = ("", "KEEP", "kill", 0, True, ["keep"], {})


def read(**fields: Any) -> RunRequest | RunRefused:
    """
    What an agent reads.
    """
    return codec.decode_run_request(json.dumps({"reqid": "9f", **fields}).encode())


class OrderTests(CodecTestCase):
    """
    Requests.
    """

    def test_bytes(self) -> None:
        """
        What is asked for is said, and nothing else is: a peer of the original
        sees what it always saw.
        """
        plain = b'{"script":"a","args":[],"reqid":"9f","username":"","token":""'
        known = {
            RunRequest("a", reqid="9f"): b"}",
            RunRequest("a", reqid="9f", asynchronous=True): b',"async":true}',
            RunRequest("a", reqid="9f", stream=True): b',"stream":true}',
            RunRequest("a", reqid="9f", timeout=1.5): b',"timeout":1.5}',
            RunRequest("a", reqid="9f", on_disconnect="cancel"): (
                b',"on_disconnect":"cancel"}'
            ),
        }
        for request, rest in known.items():
            self.assertEqual(codec.encode_run_request(request), plain + rest)

    @given(ORDERS)
    def test_roundTrip(self, request: RunRequest) -> None:
        """
        An agent reads what a dispatcher wrote.
        """
        body = codec.encode_run_request(request)
        self.assertEqual(codec.decode_run_request(body), request)

    def test_null(self) -> None:
        """
        What is null was not said.
        """
        fields = {"async": None, "stream": None, "timeout": None, "on_disconnect": None}
        self.assertEqual(read(**fields), RunRequest("", reqid="9f"))

    def test_flags(self) -> None:
        """
        The booleans of the original can be numbers.
        """
        for value, expected in ((True, True), (1, True), (0, False), (False, False)):
            for name, field in (("async", "asynchronous"), ("stream", "stream")):
                request = read(**{name: value})
                self.assertEqual(getattr(request, field), expected)

    def test_truth(self) -> None:
        """
        Whether nobody waits is whatever Perl takes for true.
        """
        true: Any = (True, 1, 2, "1", "true", "yes", "0.0", " ", [], {}, -1, 0.5)
        false: Any = (None, False, 0, 0.0, "", "0")
        for values, expected in ((true, True), (false, False)):
            for value in values:
                request = read(**{"async": value})
                assert isinstance(request, RunRequest)
                self.assertIs(request.asynchronous, expected)

    def test_badFlags(self) -> None:
        """
        What is no boolean is refused in words.
        """
        for value in BAD_FLAGS:
            refused = RunRefused("stream must be true or false", reqid="9f")
            self.assertEqual(read(stream=value), refused)

    def test_badTimes(self) -> None:
        """
        A time limit is a number of seconds above 0, and not above a month.
        """
        for value in BAD_TIMES:
            self.assertEqual(
                read(timeout=value),
                RunRefused("timeout must be a number of seconds above 0", reqid="9f"),
            )
        for number in ("1e999", "2592000.1", "9" * 400):
            self.assertEqual(
                codec.decode_run_request(b'{"timeout":%s}' % number.encode()),
                RunRefused("timeout must be at most 2592000 seconds", reqid=""),
            )
        for number in ("NaN", "Infinity", "-Infinity"):
            self.assertEqual(
                codec.decode_run_request(b'{"timeout":%s}' % number.encode()),
                RunRefused("invalid JSON"),
            )

    def test_badDisconnects(self) -> None:
        """
        There are two things that can happen to a run whose caller goes.
        """
        for value in BAD_DISCONNECTS:
            self.assertEqual(
                read(on_disconnect=value),
                RunRefused("on_disconnect must be 'keep' or 'cancel'", reqid="9f"),
            )

    @given(
        st.dictionaries(
            st.sampled_from(["async", "stream", "timeout", "on_disconnect"]), JSON
        )
    )
    def test_anything(self, fields: dict[str, Any]) -> None:
        """
        Whatever is sent is read as an order, or refused in words.
        """
        match read(**fields):
            case RunRefused(error=error):
                self.assertTrue(error.isprintable())
            case request:
                self.assertIn(request.on_disconnect, ON_DISCONNECT)
                self.assertIs(type(request.asynchronous), bool)


class AnswerTests(CodecTestCase):
    """
    Answers: NEWER-LINE.md section 3.3.
    """

    def test_asynchronous(self) -> None:
        """
        The status and the bytes of each answer to an order that nobody waits
        for, and what a dispatcher makes of them.
        """
        known: dict[RunAnswer, tuple[int, bytes]] = {
            RunAccepted("a", "9f"): (
                202,
                b'{"script":"a","status":"accepted","reqid":"9f"}',
            ),
            RunRefused("script already running", "a", "9f", "busy"): (
                409,
                b'{"status":"busy","error":"script already running","script":"a",'
                b'"reqid":"9f"}',
            ),
            RunRefused("script already running", "a", "9f", "busy", "r-2 has it"): (
                409,
                b'{"status":"busy","error":"script already running",'
                b'"reason":"r-2 has it","script":"a","reqid":"9f"}',
            ),
            RunRefused("script not permitted", "a", "9f"): (
                200,
                b'{"exit":-1,"error":"script not permitted","script":"a","reqid":"9f"}',
            ),
        }
        for answer, (code, body) in known.items():
            self.assertEqual(codec.run_answer_code(answer, True), code)
            self.assertEqual(codec.encode_run_answer(answer, True), body)
            self.assertEqual(codec.decode_run_answer(body, code), answer)

    def test_states(self) -> None:
        """
        A state is said where it is not the ordinary one, and so is a reason.
        """
        known: dict[bytes, RunAnswer] = {
            b'{"script":"a","exit":126,"stdout":"","stderr":"","reqid":"9f",'
            b'"state":"timed_out","reason":"timed out after 30s"}': RunFinished(
                "a", 126, "", "", "9f", "timed_out", "timed out after 30s"
            ),
            b'{"exit":-1,"error":"busy: db is held by another run","state":"busy"}': (
                RunRefused("busy: db is held by another run", state="busy")
            ),
            b'{"exit":-1,"error":"cancelled before it was started",'
            b'"state":"cancelled"}': RunRefused(
                "cancelled before it was started", state="cancelled"
            ),
        }
        for body, answer in known.items():
            self.assertEqual(codec.run_answer_code(answer, False), 200)
            self.assertEqual(codec.encode_run_answer(answer), body)
            self.assertEqual(codec.decode_run_answer(body), answer)

    @given(st.integers(-1, 255), st.sampled_from(ENDS), st.text(max_size=1000))
    def test_roundTrip(self, status: int, state: str, reason: str) -> None:
        """
        A dispatcher reads how a run has ended.
        """
        answer = RunFinished("a", status, "o", "e", "9f", state, reason)
        body = codec.encode_run_answer(answer)
        self.assertEqual(codec.decode_run_answer(body), answer)

    def test_busyOfTheOriginal(self) -> None:
        """
        A 409 is a refusal, whatever its body says of it.
        """
        body = b'{"script":"a","status":"busy","reqid":"9f","exit":0}'
        self.assertEqual(
            codec.decode_run_answer(body, 409), RunRefused("busy", "a", "9f", "busy")
        )

    def test_olderLine(self) -> None:
        """
        An agent that knows no such order answers with the result.
        """
        body = b'{"script":"a","exit":3,"stdout":"","stderr":"","reqid":"9f"}'
        self.assertEqual(
            codec.decode_run_answer(body), RunFinished("a", 3, "", "", "9f")
        )

    def test_lies(self) -> None:
        """
        What contradicts itself is no answer: it is not taken for a success.
        """
        known = {
            (202, b"{}"): "the answer does not say that the run was accepted",
            (202, b'{"exit":0}'): "the answer does not say that the run was accepted",
            (200, b'{"exit":0,"state":"running"}'): (
                "state must be that of a run which has ended"
            ),
            (200, b'{"exit":0,"state":"eaten"}'): (
                "state must be that of a run which has ended"
            ),
            (200, b'{"exit":0,"state":1}'): "state must be a string",
            (200, b'{"exit":0,"state":"failed","reason":[]}'): (
                "reason must be a string"
            ),
            (200, b'{"exit":-1,"error":"no","state":"done"}'): (
                "state must be that of a run which was not started"
            ),
            (409, b"[]"): "the answer is not a JSON object",
        }
        for (code, body), error in known.items():
            self.assertProtocolError(
                partial(codec.decode_run_answer, code=code), body, error
            )
