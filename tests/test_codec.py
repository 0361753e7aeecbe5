# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.protocol.codec}: known answers for the bytes that hosts of
the original send and read, and anything at all from hostile ones.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st

from ctrlexec.errors import ProtocolError
from ctrlexec.protocol import codec, codec_pairing
from ctrlexec.protocol.messages import (
    PairFailed,
    PingAnswer,
    PingRequest,
    Refused,
    RunAnswer,
    RunContext,
    RunFinished,
    RunRefused,
    RunRequest,
)
from tests.messages import JSON, CodecTestCase

TEXTS = st.text()
WORDS = st.text(min_size=1)
ARGS = st.lists(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
)
FIELDS = """
    script args reqid username token exit stdout stderr error status host version
    expiry hostname csr nonce lookup_by port ip reason cert ca dispatcher_serial
    dispatcher_id staged scripts tags
""".split()
DEEP = 100_000
HOSTILE = (
    b"",
    b"null",
    b"[]",
    b'"text"',
    b"{",
    b"{}{}",
    b"\xff{}",
    b"\xef\xbb\xbf{}",
    b'{"exit":NaN}',
    b'{"exit":Infinity}',
    b'{"exit":-Infinity}',
    b'{"exit":' + b"9" * 5000 + b"}",
    b"[" * DEEP + b"]" * DEEP,
    b'{"a":' * DEEP + b"1" + b"}" * DEEP,
)
READERS: tuple[Callable[[bytes], object], ...] = (
    codec.from_json,
    codec.decode_run_request,
    codec.decode_run_answer,
    codec.decode_ping_request,
    codec.decode_ping_answer,
    codec.decode_capabilities,
    codec_pairing.decode_pair_request,
    codec_pairing.decode_pair_first,
    codec_pairing.decode_pair_decision,
    lambda body: codec.decode_refused(403, body),
)
ANSWER_READERS = (
    codec.decode_run_answer,
    codec.decode_ping_answer,
    codec.decode_capabilities,
    codec_pairing.decode_pair_first,
    codec_pairing.decode_pair_decision,
)


def texts_in(value: object) -> list[str]:
    """
    Every text that a value carries.
    """
    match value:
        case str():
            return [value]
        case dict():
            return texts_in([*value, *value.values()])
        case list() | tuple():
            return [text for item in value for text in texts_in(item)]
    if attrs.has(type(value)):
        fields: Any = value
        return texts_in(list(attrs.asdict(fields).values()))
    return []


class JunkTests(CodecTestCase):
    """
    What is no message of ours.
    """

    def test_hostile(self) -> None:
        """
        Texts made to break a parser are no JSON object for ours: nested too
        deep, numbers without end, no numbers at all, other encodings.
        """
        for body in HOSTILE:
            self.assertProtocolError(codec.from_json, body, "invalid JSON")
            for reader in ANSWER_READERS:
                with self.assertRaises(ProtocolError) as caught:
                    reader(body)
                self.assertIn(
                    str(caught.exception),
                    ("the answer is not a JSON object", "the answer is too large"),
                )
            self.assertEqual(codec.decode_run_request(body), RunRefused("invalid JSON"))
            self.assertEqual(codec.decode_ping_request(body), PingRequest())
            self.assertEqual(
                codec_pairing.decode_pair_request(body), PairFailed("invalid request")
            )
            self.assertEqual(codec.decode_refused(403, body), Refused(403, ""))

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
        Our fields with any values at all are a message or a L{ProtocolError},
        and what is read can be encoded, logged and sent on.
        """
        body = json.dumps(fields).encode()
        for reader in READERS[1:]:
            try:
                message = reader(body)
            except ProtocolError as error:
                str(error).encode("utf-8")
            else:
                "".join(texts_in(message)).encode("utf-8")

    def test_unknownFields(self) -> None:
        """
        Fields of a later line are ignored.
        """
        body = b'{"status":"ok","host":"a","new":{"x":[1]}}'
        self.assertEqual(codec.decode_ping_answer(body), PingAnswer("a", "", ""))


class RunTests(CodecTestCase):
    """
    C{POST /run}
    """

    def test_request(self) -> None:
        """
        The bytes of a request are ASCII, whatever its texts are.
        """
        request = RunRequest("check", ("a b", "ü", ""), "9f21", "me", "secret")
        self.assertEqual(
            codec.encode_run_request(request),
            b'{"script":"check","args":["a b","\\u00fc",""],"reqid":"9f21",'
            b'"username":"me","token":"secret"}',
        )
        self.assertNotIn("secret", repr(request))

    @given(TEXTS, ARGS, TEXTS, TEXTS, TEXTS)
    def test_requestRoundTrip(
        self, script: str, args: list[str], reqid: str, username: str, token: str
    ) -> None:
        """
        An agent reads what a dispatcher wrote.
        """
        request = RunRequest(script, tuple(args), reqid, username, token)
        body = codec.encode_run_request(request)
        self.assertEqual(codec.decode_run_request(body), request)

    def test_defaults(self) -> None:
        """
        What is missing or null is empty.
        """
        for body in (b"{}", b'{"args":null,"reqid":null,"script":null,"token":null}'):
            self.assertEqual(codec.decode_run_request(body), RunRequest(""))

    def test_badArgs(self) -> None:
        """
        Arguments are an array of strings that a program can be given; the
        answer to others carries the request's id.
        """
        known = {
            b'"x"': "args must be an array",
            b"{}": "args must be an array",
            b"false": "args must be an array",
            b"[1]": "args must be strings",
            b'["a",null]': "args must be strings",
            b'[["a"]]': "args must be strings",
            b'["\\ud800"]': "args must be strings",
            b'["a\\u0000b"]': "args must not contain NUL characters",
        }
        for args, error in known.items():
            self.assertEqual(
                codec.decode_run_request(b'{"reqid":"9f21","args":%s}' % args),
                RunRefused(error, reqid="9f21"),
            )

    def test_badFields(self) -> None:
        """
        Texts that are none are refused, half of a surrogate pair too.
        """
        for name in ("script", "username", "token"):
            for value in (b"1", b"[]", b"true", b'"\\udc00"'):
                body = b'{"reqid":"9f21","%s":%s}' % (name.encode(), value)
                self.assertEqual(
                    codec.decode_run_request(body),
                    RunRefused(f"{name} must be a string", reqid="9f21"),
                )
        self.assertEqual(
            codec.decode_run_request(b'{"reqid":1}'),
            RunRefused("reqid must be a string"),
        )

    def test_whole(self) -> None:
        """
        A whole pair of surrogates is one character.
        """
        body = b'{"script":"a","args":["\\ud83d\\ude00"]}'
        self.assertEqual(
            codec.decode_run_request(body), RunRequest("a", ("\U0001f600",))
        )

    def test_answers(self) -> None:
        """
        The bytes of the answers in PROTOCOL.md section 2.
        """
        known: dict[bytes, RunAnswer] = {
            b'{"script":"a","exit":3,"stdout":"o\\n","stderr":"e","reqid":"9f"}': (
                RunFinished("a", 3, "o\n", "e", "9f")
            ),
            b'{"exit":-1,"error":"invalid JSON"}': RunRefused("invalid JSON"),
            b'{"exit":-1,"error":"args must be an array","reqid":"9f"}': RunRefused(
                "args must be an array", reqid="9f"
            ),
            b'{"exit":-1,"error":"script not permitted","script":"a","reqid":"9f"}': (
                RunRefused("script not permitted", "a", "9f")
            ),
        }
        for body, answer in known.items():
            self.assertEqual(codec.encode_run_answer(answer), body)
            self.assertEqual(codec.decode_run_answer(body), answer)

    @given(WORDS, st.integers(-1, 255), TEXTS, TEXTS, TEXTS)
    def test_answerRoundTrip(
        self, script: str, exit: int, stdout: str, stderr: str, reqid: str
    ) -> None:
        """
        A dispatcher reads what an agent wrote.
        """
        for answer in (
            RunFinished(script, exit, stdout, stderr, reqid),
            RunRefused(script, stdout, reqid),
        ):
            body = codec.encode_run_answer(answer)
            self.assertTrue(body.isascii())
            self.assertEqual(codec.decode_run_answer(body), answer)

    def test_originalNumbers(self) -> None:
        """
        The original's numbers can be strings, and its failures to start a
        script have no error.
        """
        body = b'{"script":"a","exit":"-1","stderr":"cannot fork","reqid":"9f"}'
        self.assertEqual(
            codec.decode_run_answer(body), RunFinished("a", -1, "", "cannot fork", "9f")
        )

    def test_noNumber(self) -> None:
        """
        An exit that is none is not taken for success.
        """
        error = "the answer has no exit that is a number"
        for value in ("", ',"exit":null', ',"exit":true', ',"exit":false'):
            body = b'{"script":"a"%s}' % value.encode()
            self.assertProtocolError(codec.decode_run_answer, body, error)
        for value in ("0.0", "1e999", '""', '"0x0"', '" 0"', '"0\\n"', '"9999999999"'):
            body = b'{"exit":%s}' % value.encode()
            self.assertProtocolError(codec.decode_run_answer, body, error)

    def test_context(self) -> None:
        """
        What a script reads: PROTOCOL.md section 2, and who asked.
        """
        context = RunContext(
            script="a",
            args=("b",),
            reqid="9f",
            peer_ip="10.0.0.1",
            username="me",
            token="t",
            timestamp="2026-03-05T18:38:09Z",
            dispatcher="hq",
        )
        self.assertEqual(
            codec.encode_run_context(context),
            b'{"script":"a","args":["b"],"reqid":"9f","peer_ip":"10.0.0.1",'
            b'"username":"me","token":"t","timestamp":"2026-03-05T18:38:09Z",'
            b'"dispatcher":"hq"}',
        )
        self.assertNotIn("token", repr(context))
