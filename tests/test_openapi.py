# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.api.definitions}, L{ctrlexec.api.schemas} and
L{ctrlexec.api.openapi}.
"""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate as validate_document
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec import __version__
from ctrlexec.api.definitions import (
    BY_ID,
    MOST_MEMBERS,
    OPERATIONS,
    BadRequest,
    headers,
    validate,
)
from ctrlexec.api.openapi import document, live_document
from ctrlexec.api.schemas import COMPONENTS
from ctrlexec.dispatcher.results import DiscoveryRow
from ctrlexec.protocol.messages import Capabilities, ScriptInfo

RUN = {"hosts": ["web-1"], "script": "backup"}


def body(**members: Any) -> bytes:
    """
    The body of a run, with other members.
    """
    return json.dumps({**RUN, **members}).encode()


class RequestTests(SynchronousTestCase):
    """
    What is no request is refused, in words that say what and where.
    """

    def refused(self, text: bytes, operation: str = "run") -> str:
        """
        @return: why it is refused.
        """
        return str(self.assertRaises(BadRequest, validate, operation, text))

    def test_good(self) -> None:
        """
        What is asked for comes through as it is.
        """
        asked = body(args=["--full", "ü\n"], username="kim", token="t\n")
        self.assertEqual(validate("run", asked), json.loads(asked))

    def test_null(self) -> None:
        """
        A member that is null, as scripts like to write, is none.
        """
        asked = body(args=None, username=None, token=None, exclude=None)
        self.assertEqual(validate("run", asked), RUN)

    def test_noBody(self) -> None:
        """
        Where nothing is needed nothing need be sent.
        """
        self.assertEqual(validate("discover", b""), {})
        self.assertEqual(validate("health", b""), {})

    def test_notJson(self) -> None:
        """
        Bodies that are no JSON object, or are one that nobody could read.
        """
        deep = b'{"x":' + b"[" * 10_000 + b"]" * 10_000 + b"}"
        for text in (b"{", b"[]", b'"run"', b"null", b"\xff", b'{"x":NaN}', deep):
            self.assertEqual(self.refused(text), "the body is not a JSON object")

    def test_types(self) -> None:
        """
        Each wrong type is named together with the right one.
        """
        for member, value, words in (
            ("hosts", "web-1", "hosts: must be array"),
            ("hosts", [7], "hosts: 0: must be string"),
            ("hosts", [], "hosts: must not be empty"),
            ("hosts", [""], "hosts: 0: must not be empty"),
            ("script", None, "script: must be string"),
            ("args", {}, "args: must be array"),
            ("args", ["a", 1], "args: 1: must be string"),
            ("username", 7, "username: must be string"),
            ("token", [], "token: must be string"),
        ):
            self.assertEqual(self.refused(body(**{member: value})), words)

    def test_missing(self) -> None:
        """
        So is what is missing.
        """
        self.assertEqual(self.refused(b"{}"), "hosts, script must be given")
        self.assertEqual(self.refused(b"{}", "ping"), "hosts must be given")

    def test_control(self) -> None:
        """
        Names have no control characters, arguments no NUL, and nothing half a
        character.
        """
        for members in (
            {"hosts": ["web\0-1"]},
            {"hosts": ["web-1\n"]},
            {"script": "back\x1bup"},
            {"script": "../sh"},
            {"script": "backup\n"},
            {"args": ["a\0b"]},
            {"username": "kim\nUSER=root"},
            {"token": "a\0"},
        ):
            self.assertIn("is not what it must be", self.refused(body(**members)))
        self.assertIn("Unicode", self.refused(body(args=["\ud800"])))

    def test_numbers(self) -> None:
        """
        What a number, a word or a portion may be is said.
        """
        for member, value, words in (
            ("timeout", 0, "timeout: must be more than 0"),
            ("timeout", 10**9, "timeout: must be at most 2,592,000"),
            ("timeout", "3s", "timeout: must be number"),
            ("batch", 0, "batch: must be at least 1"),
            ("canary", "1", "canary: must be integer"),
            ("batch_wait", -1, "batch_wait: must be at least 0"),
        ):
            self.assertEqual(self.refused(body(**{member: value})), words)
        said = self.refused(body(batch="0%"))
        self.assertIn("batch: must be a number from 1, or a portion", said)
        said = self.refused(body(on_disconnect="x"))
        self.assertEqual(said, "on_disconnect: must be 'keep' or 'cancel'")

    def test_headers(self) -> None:
        """
        Of the header an operation has what it listens to, if there is any.
        """
        given = {"Idempotency-Key": "a", "Last-Event-ID": "b"}
        self.assertEqual(headers("run", given.get), {"Idempotency-Key": "a"})
        self.assertEqual(headers("events", given.get), {"Last-Event-ID": "b"})
        self.assertEqual(headers("health", given.get), {})
        self.assertEqual(headers("run", lambda name: None), {})
        given = {"Idempotency-Key": "\n", "Last-Event-ID": "!"}
        for operation in ("run", "events"):
            self.assertRaises(BadRequest, headers, operation, given.get)

    def test_long(self) -> None:
        """
        A list of a megabyte is refused before it is read member by member.
        """
        self.assertIn("no longer than", self.refused(body(args=[""] * 300_000)))
        validate("run", body(hosts=["a"] * MOST_MEMBERS))

    def test_harmless(self) -> None:
        """
        What is said about a bad value repeats little of it, and no escape.
        """
        said = self.refused(body(script="\x1b[2J" * 1000))
        self.assertLess(len(said), 300)
        self.assertNotIn("\x1b", said)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        )
    )
    def test_anything(self, value: Any) -> None:
        """
        Whatever arrives is a request or a refusal.
        """
        for operation in OPERATIONS:
            with contextlib.suppress(BadRequest):
                validate(operation.id, json.dumps(value).encode())


class DocumentTests(SynchronousTestCase):
    """
    The document says what the API does.
    """

    def test_valid(self) -> None:
        """
        It is an OpenAPI 3.1 document, the live one too.
        """
        validate_document(document(max_hosts=10_000))
        validate_document(live_document([], max_hosts=10_000, now=0))

    def test_schemas(self) -> None:
        """
        Each of its schemas is one, and each is used.
        """
        text = json.dumps([document(max_hosts=1)["paths"], dict(COMPONENTS)])
        for name, schema in COMPONENTS.items():
            Draft202012Validator.check_schema(schema)
            self.assertIn(f'"#/components/schemas/{name}"', text)

    def test_everyOperation(self) -> None:
        """
        Each operation is there, with every status that it can answer.
        """
        paths = document(max_hosts=1)["paths"]
        for operation in BY_ID.values():
            described = paths[operation.path][operation.method.lower()]
            self.assertEqual(described["operationId"], operation.id)
            self.assertEqual(
                set(described["responses"]), set(map(str, operation.every_answer()))
            )

    def test_answerHeaders(self) -> None:
        """
        What the header of an answer may say is there.
        """
        responses = document(max_hosts=9)["paths"]["/run"]["post"]["responses"]
        for status, response in responses.items():
            named = {*response.get("headers", {})}
            expected = {"Idempotency-Replayed"} if status in ("200", "202") else set()
            self.assertEqual(named, expected, status)

    def test_parameters(self) -> None:
        """
        What stands in the path or in the header is described.
        """
        paths = document(max_hosts=1)["paths"]
        found = {
            (parameter["in"], parameter["name"]): parameter["required"]
            for path in paths.values()
            for described in path.values()
            for parameter in described.get("parameters", ())
        }
        self.assertEqual(
            found,
            {
                ("path", "reqid"): True,
                ("header", "Idempotency-Key"): False,
                ("header", "Last-Event-ID"): False,
            },
        )
        events = paths["/runs/{reqid}/events"]["get"]["responses"]
        (media,) = events["200"]["content"]
        self.assertEqual(media, "text/event-stream")
        self.assertNotIn("content", events["204"])

    def test_maxHosts(self) -> None:
        """
        The setting's limit is the document's.
        """
        schemas = document(max_hosts=7)["components"]["schemas"]
        self.assertEqual(schemas["RunRequest"]["properties"]["hosts"]["maxItems"], 7)
        self.assertNotIn("maxItems", COMPONENTS["RunRequest"]["properties"]["hosts"])


def offering(host: str, *scripts: ScriptInfo) -> DiscoveryRow:
    """
    What a host answers that has these scripts.
    """
    return DiscoveryRow(host=host, capabilities=Capabilities(host, "0.1.0", scripts))


class LiveTests(SynchronousTestCase):
    """
    The live document knows what there is now.
    """

    def test_live(self) -> None:
        """
        Hosts and scripts are enumerated; each version of a script says where
        it is.
        """
        backup = ScriptInfo("backup", "/b", True)
        first = ScriptInfo("restart", "/r", True, "", {"version": "1"}, "1")
        second = ScriptInfo("restart", "/r", True, "", {"version": "2"}, "2")
        now = int(time.time())
        whole = live_document(
            [
                offering("web-2", backup, first),
                offering("web-1", first),
                DiscoveryRow(host="web-4", error="lost"),
                offering("web-3", second),
            ],
            max_hosts=10,
            now=now,
        )
        schemas = whole["components"]["schemas"]
        self.assertEqual(schemas["Host"]["enum"], ["web-1", "web-2", "web-3", "web-4"])
        self.assertEqual(schemas["Script"]["enum"], ["backup", "restart"])
        self.assertEqual(whole["info"]["version"], f"{__version__}+{now}")
        self.assertEqual(
            whole["x-ctrl-exec-scripts"],
            {
                "backup": [{"hosts": ["web-2"]}],
                "restart": [
                    {
                        "hosts": ["web-1", "web-2"],
                        "schema_version": "1",
                        "schema": {"version": "1"},
                    },
                    {
                        "hosts": ["web-3"],
                        "schema_version": "2",
                        "schema": {"version": "2"},
                    },
                ],
            },
        )
        validate_document(whole)

    def test_sameVersion(self) -> None:
        """
        Two hosts that call different things the same version are both shown.
        """
        one = ScriptInfo("restart", "/r", True, "", {"version": "1"}, "1")
        other = ScriptInfo(
            "restart", "/r", True, "", {"version": "1", "read_only": True}, "1"
        )
        whole = live_document(
            [offering("a", one), offering("b", other)], max_hosts=10, now=0
        )
        self.assertEqual(len(whole["x-ctrl-exec-scripts"]["restart"]), 2)

    def test_nothing(self) -> None:
        """
        Where there is no agent there is no enum, which would allow nothing.
        """
        schemas = live_document([], max_hosts=10, now=0)["components"]["schemas"]
        self.assertNotIn("enum", schemas["Host"])
        self.assertNotIn("enum", schemas["Script"])
