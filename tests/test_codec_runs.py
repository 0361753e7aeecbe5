# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.protocol.codec_runs}: known answers, what an agent of the
original has on record, and peers that lie.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ctrlexec.errors import ProtocolError
from ctrlexec.protocol import codec_runs
from ctrlexec.protocol.messages import Refused
from ctrlexec.protocol.run_messages import (
    ENDS,
    STATES,
    CancelDone,
    FollowRequest,
    LiveRun,
    LiveRunsAnswer,
    NoSuchRun,
    RunResult,
    Signalled,
)
from tests.messages import JSON, CodecTestCase

TEXTS = st.text(max_size=50)
COUNTS = st.integers(0, 2**53)
IDS = st.text("abcXYZ019_-", min_size=1, max_size=64)
SECONDS = st.integers(0, 10**12).map(lambda ms: ms / 1000)
RUNS = st.builds(
    LiveRun,
    TEXTS,
    TEXTS,
    st.sampled_from(STATES),
    TEXTS,
    SECONDS,
    TEXTS,
    st.booleans(),
    COUNTS,
)
SIGNALLED = st.builds(Signalled, COUNTS, TEXTS, st.sampled_from(["TERM", "KILL"]))
FIELDS = """
    t state stdout stderr end result script reqid exit reason stdout_bytes
    stderr_bytes status signalled runs others pid command signal seconds started
    finished async username
""".split()
READERS: tuple[Callable[[bytes], object], ...] = (
    codec_runs.decode_event,
    codec_runs.decode_result,
    codec_runs.decode_cancel_done,
    codec_runs.decode_live_runs,
    codec_runs.decode_no_such_run,
    codec_runs.decode_follow_request,
    codec_runs.decode_cancel_request,
)


class JunkTests(CodecTestCase):
    """
    What is no message of ours.
    """

    @given(st.binary())
    def test_anyBytes(self, body: bytes) -> None:
        """
        Any bytes are a message or a L{ProtocolError}.
        """
        for reader in READERS:
            with contextlib.suppress(ProtocolError):
                reader(body)

    @given(st.dictionaries(st.sampled_from(FIELDS), JSON))
    def test_anyFields(self, fields: dict[str, Any]) -> None:
        """
        So are our fields with any values at all.
        """
        for body in (fields, {"status": "ok", **fields}, {"t": 1, "result": fields}):
            for reader in READERS:
                try:
                    reader(json.dumps(body).encode())
                except ProtocolError as error:
                    str(error).encode("utf-8")


class FollowTests(CodecTestCase):
    """
    C{POST /follow} and C{POST /cancel}
    """

    def test_bytes(self) -> None:
        """
        The bytes of the requests.
        """
        self.assertEqual(
            codec_runs.encode_follow_request(FollowRequest("9f", 5, 0)),
            b'{"reqid":"9f","stdout":5,"stderr":0}',
        )
        self.assertEqual(codec_runs.encode_cancel_request("9f"), b'{"reqid":"9f"}')

    @given(st.builds(FollowRequest, IDS, COUNTS, COUNTS))
    def test_roundTrip(self, request: FollowRequest) -> None:
        """
        An agent reads what a dispatcher wrote.
        """
        body = codec_runs.encode_follow_request(request)
        self.assertEqual(codec_runs.decode_follow_request(body), request)
        body = codec_runs.encode_cancel_request(request.reqid)
        self.assertEqual(codec_runs.decode_cancel_request(body), request.reqid)

    def test_defaults(self) -> None:
        """
        Who says no offset has heard nothing.
        """
        body = b'{"reqid":"9f","stdout":null}'
        self.assertEqual(codec_runs.decode_follow_request(body), FollowRequest("9f"))

    def test_names(self) -> None:
        """
        An id that could lead out of a directory is none, nor is an empty one.
        """
        readers: tuple[Callable[[bytes], object], ...] = (
            codec_runs.decode_follow_request,
            codec_runs.decode_cancel_request,
        )
        for reqid in ("", "..", "../9f", "9f/", "a\0", "a\n", ".", "x" * 65, "é"):
            for reader in readers:
                refused = reader(json.dumps({"reqid": reqid}).encode())
                assert isinstance(refused, Refused)
                self.assertEqual(refused.code, 400)
                self.assertIn("invalid request id", refused.error)

    def test_lies(self) -> None:
        """
        What is no request is refused in words.
        """
        known = {
            b"": "invalid JSON",
            b"[]": "invalid JSON",
            b'{"reqid":1}': "reqid must be a string",
            b'{"reqid":"9f","stdout":-1}': (
                "stdout must be a whole number from 0 to 2^53"
            ),
            b'{"reqid":"9f","stderr":"1"}': (
                "stderr must be a whole number from 0 to 2^53"
            ),
            b'{"reqid":"9f","stderr":true}': (
                "stderr must be a whole number from 0 to 2^53"
            ),
        }
        for body, error in known.items():
            self.assertEqual(
                codec_runs.decode_follow_request(body), Refused(400, error)
            )
        self.assertEqual(
            codec_runs.decode_cancel_request(b"{"), Refused(400, "invalid JSON")
        )


class ResultTests(CodecTestCase):
    """
    C{GET /result}: NEWER-LINE.md sections 3.6 and 6.1.
    """

    def test_original(self) -> None:
        """
        What an agent of the original has on record: numbers can be strings.
        """
        running = (
            b'{"reqid":"9f","status":"running","script":"a","owner":"hq",'
            b'"started":"2026-03-05T18:38:09Z"}'
        )
        started = RunResult("9f", "a", "running", "2026-03-05T18:38:09Z", original=True)
        self.assertEqual(codec_runs.decode_result(running), started)
        done = (
            b'{"reqid":"9f","status":"done","script":"a","owner":"hq","started":"s",'
            b'"finished":"f","exit":"3","stdout":"o","stderr":"e"}'
        )
        self.assertEqual(
            codec_runs.decode_result(done),
            RunResult("9f", "a", "done", "s", "f", 3, "o", "e", original=True),
        )

    def test_ours(self) -> None:
        """
        What ours has beside that.
        """
        body = (
            b'{"reqid":"9f","status":"done","script":"a","owner":"hq","started":"s",'
            b'"finished":"f","exit":-1,"stdout":"","stderr":"lost: the host went down",'
            b'"state":"lost","reason":"the host went down","username":"me",'
            b'"async":true,"on_disconnect":"keep","digest":"d1"}'
        )
        self.assertEqual(
            codec_runs.decode_result(body),
            RunResult(
                reqid="9f",
                script="a",
                state="lost",
                started="s",
                finished="f",
                exit=-1,
                stderr="lost: the host went down",
                reason="the host went down",
            ),
        )
        body = b'{"reqid":"9f","status":"running","state":"running"}'
        self.assertEqual(codec_runs.decode_result(body).state, "running")

    def test_lies(self) -> None:
        """
        A record that contradicts itself is none.
        """
        known = {
            b"{}": "the answer is no record of a run",
            b'{"status":"ok","exit":0}': "the answer is no record of a run",
            b'{"status":"unknown"}': "the answer is no record of a run",
            b'{"status":"done"}': "the answer has no exit that is a number",
            b'{"status":"done","exit":0,"state":"running"}': (
                "state must be that of a run which has ended"
            ),
            b'{"status":"running","state":"done"}': (
                "the record of a run contradicts itself"
            ),
            b'{"status":"done","exit":0,"stdout":[]}': "stdout must be a string",
            b'{"status":"running","started":"%s"}' % (b"9" * 5000): (
                "started is too long"
            ),
            b'{"status":"running","x":[%s1]}' % (b"[]," * 99_999): (
                "the answer is too large"
            ),
        }
        for body, error in known.items():
            self.assertProtocolError(codec_runs.decode_result, body, error)

    def test_unknown(self) -> None:
        """
        The answer about a run that is not there differs from the one of an agent
        that does not know the question.
        """
        unknown = NoSuchRun("9f")
        body = b'{"status":"unknown","reqid":"9f"}'
        self.assertEqual(codec_runs.encode_no_such_run(unknown), body)
        self.assertEqual(codec_runs.decode_no_such_run(body), unknown)
        for other in (b'{"error":"not found"}', b"<html>", b'{"status":1}'):
            self.assertIsNone(codec_runs.decode_no_such_run(other))


class CancelTests(CodecTestCase):
    """
    The answer to C{POST /cancel}
    """

    def test_bytes(self) -> None:
        """
        Its bytes.
        """
        answer = CancelDone("9f", "cancelled", (Signalled(7, "sleep", "TERM"),))
        body = (
            b'{"status":"ok","reqid":"9f","state":"cancelled",'
            b'"signalled":[{"pid":7,"command":"sleep","signal":"TERM"}]}'
        )
        self.assertEqual(codec_runs.encode_cancel_done(answer), body)
        self.assertEqual(codec_runs.decode_cancel_done(body), answer)

    @given(
        st.builds(
            CancelDone,
            TEXTS,
            st.sampled_from(ENDS),
            st.lists(SIGNALLED, max_size=9).map(tuple),
        )
    )
    def test_roundTrip(self, answer: CancelDone) -> None:
        """
        A dispatcher reads what an agent wrote.
        """
        body = codec_runs.encode_cancel_done(answer)
        self.assertEqual(codec_runs.decode_cancel_done(body), answer)

    def test_many(self) -> None:
        """
        Of a run of very many processes, some are named.
        """
        many = CancelDone("9f", "cancelled", (Signalled(7, "sh", "KILL"),) * 5000)
        read = codec_runs.decode_cancel_done(codec_runs.encode_cancel_done(many))
        self.assertEqual(len(read.signalled), 1000)

    def test_lies(self) -> None:
        """
        A run that is not said to have ended has not.
        """
        known = {
            b"{}": "the agent does not say that the run has ended",
            b'{"status":"error","error":"no"}': "no",
            b'{"status":"ok","state":"running"}': (
                "state must be that of a run which has ended"
            ),
            b'{"status":"ok","signalled":[1]}': "signalled must be objects",
            b'{"status":"ok","signalled":{"a":1}}': (
                "signalled must be an array of at most 1000"
            ),
            b'{"status":"ok","signalled":[%s{}]}' % (b"{}," * 1000): (
                "signalled must be an array of at most 1000"
            ),
            b'{"status":"ok","signalled":[{"pid":-1}]}': (
                "pid must be a whole number from 0 to 2^53"
            ),
        }
        for body, error in known.items():
            self.assertProtocolError(codec_runs.decode_cancel_done, body, error)


class LiveTests(CodecTestCase):
    """
    The answer to C{GET /runs}
    """

    def test_bytes(self) -> None:
        """
        Its bytes.
        """
        run = LiveRun("9f", "a", "running", "2026-03-05T18:38:09Z", 1.23456, "me")
        body = (
            b'{"status":"ok","others":2,"runs":[{"reqid":"9f","script":"a",'
            b'"state":"running","started":"2026-03-05T18:38:09Z","seconds":1.235,'
            b'"username":"me","async":false,"pid":0}]}'
        )
        self.assertEqual(codec_runs.encode_live_runs(LiveRunsAnswer((run,), 2)), body)
        self.assertEqual(codec_runs.decode_live_runs(body).runs[0].seconds, 1.235)

    @given(
        st.builds(LiveRunsAnswer, st.lists(RUNS, max_size=5).map(tuple), COUNTS),
    )
    def test_roundTrip(self, answer: LiveRunsAnswer) -> None:
        """
        A dispatcher reads what an agent wrote.
        """
        body = codec_runs.encode_live_runs(answer)
        self.assertEqual(codec_runs.decode_live_runs(body), answer)

    def test_none(self) -> None:
        """
        An agent on which nothing runs.
        """
        for body in (b'{"status":"ok"}', b'{"status":"ok","others":0,"runs":[]}'):
            self.assertEqual(codec_runs.decode_live_runs(body), LiveRunsAnswer())

    def test_lies(self) -> None:
        """
        What is no list of runs.
        """
        known = {
            b"{}": "the answer does not say what runs there",
            b'{"status":"ok","runs":{"a":1}}': (
                "runs must be an array of at most 10000"
            ),
            b'{"status":"ok","runs":[[]]}': "runs must be objects",
            b'{"status":"ok","runs":[{"state":"eaten"}]}': (
                "state must be one that a run can be in"
            ),
            b'{"status":"ok","runs":[{"state":"running","seconds":1e999}]}': (
                "seconds must be a number of seconds"
            ),
            b'{"status":"ok","runs":[{"state":"running","async":"maybe"}]}': (
                "async must be true or false"
            ),
            b'{"status":"ok","others":-1}': (
                "others must be a whole number from 0 to 2^53"
            ),
        }
        for body, error in known.items():
            self.assertProtocolError(codec_runs.decode_live_runs, body, error)
