# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.protocol.codec}: C{POST /ping}, C{GET /capabilities} and
refusals.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ctrlexec.errors import ProtocolError
from ctrlexec.protocol import codec
from ctrlexec.protocol.messages import (
    FORBIDDEN,
    REVOKED,
    SERIAL_MISMATCH,
    Capabilities,
    PingAnswer,
    PingRequest,
    Refused,
    RunFinished,
    ScriptInfo,
)
from tests.messages import CodecTestCase

TEXTS = st.text(max_size=20)
DOCUMENTS = st.dictionaries(
    TEXTS,
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | TEXTS,
        lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
        max_leaves=5,
    ),
)
SCRIPTS = st.builds(
    ScriptInfo,
    st.from_regex(r"[A-Za-z0-9_-]{1,128}", fullmatch=True),
    TEXTS,
    st.booleans(),
    TEXTS,
    DOCUMENTS,
    TEXTS,
) | st.builds(
    ScriptInfo,
    st.from_regex(r"[A-Za-z0-9_-]{1,9}", fullmatch=True),
    TEXTS,
    st.booleans(),
    TEXTS,
)


class PingTests(CodecTestCase):
    """
    C{POST /ping} and refusals.
    """

    def test_known(self) -> None:
        """
        The bytes of a ping and its answer.
        """
        body = (
            b'{"status":"ok","host":"agent-one","version":"0.8.4",'
            b'"expiry":"Feb 22 22:32:05 2029 GMT","staged":false,"reqid":"fa17"}'
        )
        answer = PingAnswer("agent-one", "0.8.4", "Feb 22 22:32:05 2029 GMT", "fa17")
        self.assertEqual(
            codec.encode_ping_request(PingRequest("fa17")), b'{"reqid":"fa17"}'
        )
        self.assertEqual(codec.encode_ping_answer(answer), body)
        self.assertEqual(codec.decode_ping_answer(body), answer)

    @given(TEXTS, TEXTS, TEXTS, TEXTS, st.booleans())
    def test_roundTrip(
        self, host: str, version: str, expiry: str, reqid: str, staged: bool
    ) -> None:
        """
        Each side reads what the other wrote.
        """
        answer = PingAnswer(host, version, expiry, reqid, staged)
        self.assertEqual(
            codec.decode_ping_answer(codec.encode_ping_answer(answer)), answer
        )
        asked = PingRequest(reqid)
        self.assertEqual(
            codec.decode_ping_request(codec.encode_ping_request(asked)), asked
        )

    def test_staged(self) -> None:
        """
        An agent of the older line says nothing of a renewed certificate, and
        the original's booleans have several spellings; what is none of them is
        an error.
        """
        known = {
            b"{}": False,
            b'{"staged":null}': False,
            b'{"staged":false}': False,
            b'{"staged":0}': False,
            b'{"staged":"0"}': False,
            b'{"staged":""}': False,
            b'{"staged":true}': True,
            b'{"staged":1}': True,
            b'{"staged":"1"}': True,
        }
        for body, staged in known.items():
            body = body.replace(b"{", b'{"status":"ok",', 1).replace(b",}", b"}")
            self.assertIs(codec.decode_ping_answer(body).staged, staged, body)
        for bad in (b"2", b'"yes"', b"[]", b"{}", b"-1", b'"true"'):
            self.assertProtocolError(
                codec.decode_ping_answer,
                b'{"status":"ok","staged":%s}' % bad,
                "staged must be true or false",
            )

    def test_longWords(self) -> None:
        """
        What an agent says of itself is shown, and so is not long.
        """
        for member in ("host", "version", "expiry", "reqid"):
            body = json.dumps({"status": "ok", member: "a" * 5000}).encode()
            self.assertProtocolError(
                codec.decode_ping_answer, body, f"{member} is too long"
            )

    def test_manyParts(self) -> None:
        """
        An answer that would take fifty times its own size in memory is not
        read; one whose text looks like that is.
        """
        for rubbish in (b"[],", b'"",', b"1,", b'{"":0},', b'"\\\\",', b'"\\"",'):
            for decode in (codec.decode_ping_answer, codec.decode_run_answer):
                body = b'{"status":"ok","exit":0,"x":[%s0]}' % (rubbish * 70_000)
                self.assertProtocolError(decode, body, "the answer is too large")
            refused = codec.decode_refused(
                403, b'{"error":"a","x":[%s0]}' % (rubbish * 70_000)
            )
            self.assertEqual(refused.error, "")
        known = b'{"status":"ok","scripts":[],"x":[%s0]}'
        self.assertEqual(
            codec.decode_capabilities(known % (b"1," * 70_000)).scripts, ()
        )
        self.assertProtocolError(
            codec.decode_capabilities,
            known % (b"[]," * 1_400_000),
            "the answer is too large",
        )
        said = json.dumps([{'a\\"': ["\\", ""]}] * 100_000)
        body = json.dumps({"exit": 0, "stdout": said}).encode()
        answer = codec.decode_run_answer(body)
        assert isinstance(answer, RunFinished)
        self.assertEqual(answer.stdout, said)

    def test_badRequest(self) -> None:
        """
        A body that is no request is an empty one.
        """
        for body in (b"ping", b'{"reqid":1}', b"{}"):
            self.assertEqual(codec.decode_ping_request(body), PingRequest())

    def test_notOk(self) -> None:
        """
        An answer that is not C{ok} is an error, in its own words if it has any.
        """
        self.assertProtocolError(
            codec.decode_ping_answer, b"{}", "the answer is not a ping's"
        )
        self.assertProtocolError(
            codec.decode_ping_answer, b'{"status":"error","error":"tired"}', "tired"
        )

    def test_refused(self) -> None:
        """
        The bytes of the refusals in PROTOCOL.md section 2.
        """
        known = {
            b'{"error":"serial mismatch","status":"forbidden"}': SERIAL_MISMATCH,
            b'{"error":"forbidden"}': FORBIDDEN,
            b'{"error":"certificate revoked"}': REVOKED,
            b'{"error":"not found"}': Refused(404, "not found"),
        }
        for body, refused in known.items():
            self.assertEqual(codec.encode_refused(refused), body)
            self.assertEqual(codec.decode_refused(refused.code, body), refused)


class CapabilitiesTests(CodecTestCase):
    """
    C{GET /capabilities}
    """

    def read(self, **fields: Any) -> Capabilities:
        """
        What a dispatcher takes from an agent's answer.
        """
        body = json.dumps({"status": "ok", **fields}).encode()
        return codec.decode_capabilities(body)

    def refused(self, error: str, **fields: Any) -> None:
        """
        Assert that a dispatcher takes nothing from it.
        """
        body = json.dumps({"status": "ok", **fields}).encode()
        self.assertProtocolError(codec.decode_capabilities, body, error)

    def of_script(self, error: str, **fields: Any) -> None:
        """
        The same for an answer with one script.
        """
        self.refused(error, scripts=[{"name": "s", **fields}])

    def test_known(self) -> None:
        """
        The bytes of an agent's capabilities.
        """
        more = ScriptInfo("t", "/opt/t", False, "web", {"idempotent": True}, "1")
        scripts = (ScriptInfo("s", "/opt/s", True), more)
        answer = Capabilities("a", "1", scripts, {"k": "v"})
        body = (
            b'{"status":"ok","host":"a","version":"1","scripts":'
            b'[{"name":"s","path":"/opt/s","executable":true},'
            b'{"name":"t","path":"/opt/t","executable":false,"profile":"web",'
            b'"schema":{"idempotent":true},"schema_version":"1"}],"tags":{"k":"v"}}'
        )
        self.assertEqual(codec.encode_capabilities(answer), body)
        self.assertEqual(codec.decode_capabilities(body), answer)

    def test_originals(self) -> None:
        """
        What originals send: numbers for booleans and for words, an empty array
        for no tags, fields that are missing, scripts in any order.
        """
        body = (
            b'{"scripts":[{"path":"/opt/t","executable":"0","name":"t"},'
            b'{"executable":1,"name":"s","path":"/opt/s","profile":null,'
            b'"schema":{}}],"tags":[],"status":"ok","version":0.8,"host":7}'
        )
        schema: dict[str, Any] = {}
        scripts = (
            ScriptInfo("s", "/opt/s", True, schema=schema),
            ScriptInfo("t", "/opt/t", False),
        )
        expected = Capabilities("7", "0.8", scripts)
        self.assertEqual(codec.decode_capabilities(body), expected)
        self.assertEqual(self.read(), Capabilities("", ""))
        self.assertEqual(
            self.read(tags={"rack": 12, "load": 0.5, "none": None}).tags,
            {"rack": "12", "load": "0.5", "none": ""},
        )

    @given(TEXTS, TEXTS, st.lists(SCRIPTS), st.dictionaries(TEXTS, TEXTS))
    def test_roundTrip(
        self, host: str, version: str, scripts: list[ScriptInfo], tags: dict[str, str]
    ) -> None:
        """
        A dispatcher reads what an agent wrote.
        """
        by_name = {each.name: each for each in scripts}
        given = tuple(by_name[name] for name in sorted(by_name))
        answer = Capabilities(host, version, given, tags)
        body = codec.encode_capabilities(answer)
        self.assertEqual(codec.decode_capabilities(body), answer)
        turned = Capabilities(host, version, given[::-1], tags)
        body = codec.encode_capabilities(turned)
        self.assertEqual(codec.decode_capabilities(body), answer)

    def test_notOk(self) -> None:
        """
        An answer that is not C{ok} is an error, in its own words if it has any.
        """
        read = codec.decode_capabilities
        error = "the answer does not say what an agent offers"
        self.assertProtocolError(read, b"{}", error)
        self.assertProtocolError(read, b'{"status":"no","error":"tired"}', "tired")
        self.assertProtocolError(read, b"[]", "the answer is not a JSON object")

    def test_types(self) -> None:
        """
        What is of another type is an error, and named.
        """
        bad: Any
        for bad in ({}, [], True):
            self.refused("host must be a string", host=bad)
            self.refused("version must be a string", version=bad)
            self.of_script("path must be a string", path=bad)
            self.of_script("profile must be a string", profile=bad)
            self.of_script("schema_version must be a string", schema_version=bad)
        self.refused("scripts must be an array of at most 10000", scripts={})
        for bad in (None, 1, "s", []):
            self.refused("a script must be an object", scripts=[bad])
        for bad in (2, "yes", [], {}):
            self.of_script("executable must be true or false", executable=bad)
        for bad in ([], "x", 1, True):
            error = "schema must be an object that can be written again"
            self.of_script(error, schema=bad)
        for bad in (["x"], "x", 1, True):
            self.refused("tags must be an object of at most 1000", tags=bad)
        self.refused("a tag must be a string", tags={"x": {}})
        self.refused("a tag must be a string", tags={"\ud800": "x"})

    def test_names(self) -> None:
        """
        A script has a name that it can be run by, and no other has the same.
        """
        for bad in ("", "a b", "../x", "x" * 129, "é"):
            with self.assertRaises(ProtocolError) as caught:
                self.read(scripts=[{"name": bad}])
            self.assertIn("invalid script name", str(caught.exception))
        twice = [{"name": "s"}, {"name": "t"}, {"name": "s"}]
        self.refused("two scripts have the same name", scripts=twice)

    def test_bounded(self) -> None:
        """
        An agent can not make a dispatcher keep without end.
        """
        many = [{"name": str(number)} for number in range(10_001)]
        self.assertEqual(len(self.read(scripts=many[1:]).scripts), 10_000)
        self.refused("scripts must be an array of at most 10000", scripts=many)
        tags = {str(number): "" for number in range(1001)}
        self.refused("tags must be an object of at most 1000", tags=tags)
        tags.popitem()
        self.assertEqual(len(self.read(tags=tags).tags), 1000)
        long = "x" * 4096
        self.assertEqual(self.read(host=long).host, long)
        self.refused("host is too long", host=long + "x")
        self.refused("a tag is too long", tags={long + "x": ""})
        self.refused("a tag is too long", tags={"": long + "x"})

    def test_schemas(self) -> None:
        """
        A schema that could not be passed on is an error: one too deep, one with
        a number that is none, one with half a character.
        """
        error = "schema must be an object that can be written again"
        for levels, good in ((99, True), (101, False)):
            schema: dict[str, Any] = {}
            for _ in range(levels):
                schema = {"a": schema}
            if good:
                [script] = self.read(scripts=[{"name": "s", "schema": schema}]).scripts
                self.assertEqual(script.schema, schema)
            else:
                self.of_script(error, schema=schema)
        for bad in ({"a": ["\ud800"]}, {"\ud800": 1}):
            self.of_script(error, schema=bad)
        body = b'{"status":"ok","scripts":[{"name":"s","schema":{"a":[1e999]}}]}'
        self.assertProtocolError(codec.decode_capabilities, body, error)
