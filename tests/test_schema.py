# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.schema}.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.dialect import SchemaError
from ctrlexec.agent.schema import (
    SCHEMA_BYTES,
    Schema,
    Unusable,
    load_schema,
    parse_schema,
)
from tests.structure import loaded_after

SERVICE = {
    "version": "2",
    "arguments": {
        "type": "object",
        "properties": {
            "service": {"type": "string", "pattern": "^[a-z][a-z0-9-]{0,30}$"},
            "wait": {"type": "integer", "minimum": 1, "maximum": 60},
            "force": {"type": "boolean"},
            "hosts": {"type": "array", "items": {"format": "ipv4"}, "maxItems": 2},
        },
        "required": ["service"],
    },
    "argv": [
        "restart",
        {"arg": "service"},
        {"arg": "wait", "flag": "--wait"},
        {"arg": "force", "flag": "--force"},
        {"arg": "hosts", "repeat": True},
    ],
}


def schema(document: object) -> Schema:
    return parse_schema(json.dumps(document).encode())


class SchemaTestCase(SynchronousTestCase):
    """
    What tests of schemas need.
    """

    def unfit(self, document: object, *args: str) -> str | None:
        """
        What is wrong with arguments.
        """
        rules = schema(document).rules
        assert rules is not None
        return rules.why_unfit(args)

    def one(self, value: object, *args: str, **more: Any) -> str | None:
        """
        What is wrong with arguments where there is to be one, C{x}.
        """
        arguments = {"properties": {"x": value}, "required": ["x"], **more}
        return self.unfit({"arguments": arguments}, *args)

    def refused(self, document: object) -> str:
        """
        Why a sidecar can not be used.
        """
        error: SchemaError = self.assertRaises(SchemaError, schema, document)
        return str(error)


class EnforcedTests(SchemaTestCase):
    """
    L{Rules.why_unfit<ctrlexec.agent.schema.Rules.why_unfit>}
    """

    def test_fitting(self) -> None:
        """
        What valid values make is let through.
        """
        for args in (
            "restart web",
            "restart web --wait 60",
            "restart web --force",
            "restart web --wait 1 --force 192.0.2.1 192.0.2.2",
        ):
            self.assertIsNone(self.unfit(SERVICE, *args.split()), args)

    def test_unfit(self) -> None:
        """
        What is not valid is refused by the name of its argument.
        """
        service = "argument 'service' does not fit: pattern '\"^[a-z]"
        for args, reason in (
            ("restart", "argument 'service' is missing"),
            ("stop web", "argument 'restart' is missing"),
            ("restart Web", service),
            ("restart --force", service),
            ("restart ../web", service),
            ("restart web --wait 61", "argument 'wait' does not fit: maximum '60'"),
            ("restart web --wait x", "argument 'wait' does not fit: expected integer"),
            ("restart web --wait", "argument 'hosts' does not fit: format"),
            ("restart web 192.0.2.999", "argument 'hosts' does not fit: format"),
            ("restart web 192.0.2.1 192.0.2.2 192.0.2.3", "argument 5 is one too many"),
            ("restart web --force --wait 1", "argument 'hosts' does not fit: format"),
        ):
            found = self.unfit(SERVICE, *args.split(" "))
            self.assertTrue(str(found).startswith(reason), (args, found))

    def test_declared(self) -> None:
        """
        Without C{argv} the values follow each other as they are declared;
        without properties there are none.
        """
        properties = {"b": {"type": "integer"}, "a": {"type": "boolean"}}
        document = {"arguments": {"properties": properties}}
        self.assertIsNone(self.unfit(document, "1", "true"))
        self.assertIsNotNone(self.unfit(document, "true", "1"))
        self.assertIsNotNone(self.unfit({"arguments": {}}, "x"))

    def test_argvAlone(self) -> None:
        """
        C{argv} without C{arguments} is the whole command line.
        """
        self.assertIsNone(self.unfit({"argv": ["-a"]}, "-a"))
        self.assertIsNotNone(self.unfit({"argv": ["-a"]}))

    def test_default(self) -> None:
        """
        What has a default always stands in the command line.
        """
        value = {"type": "integer", "default": 5}
        document = {"arguments": {"properties": {"x": value}}}
        self.assertIsNone(self.unfit(document, "5"))
        self.assertEqual(self.unfit(document), "argument 'x' is missing")

    def test_together(self) -> None:
        """
        What the schema says of several values counts too.
        """
        arguments = {
            "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}},
            "dependentRequired": {"a": ["b"]},
        }
        self.assertIsNone(self.unfit({"arguments": arguments}, "1", "true"))
        reason = str(self.unfit({"arguments": arguments}, "1"))
        self.assertIn("the arguments do not fit: dependentRequired", reason)

    def test_untyped(self) -> None:
        """
        Where a schema names no type, its limits count all the same: a number
        can not pass them by as a text.
        """
        self.assertIsNone(self.one({"maximum": 10}, "7"))
        self.assertIsNotNone(self.one({"maximum": 10}, "11"))
        self.assertIsNotNone(self.one({"maximum": 10}, "x"))
        self.assertIsNotNone(self.one({"pattern": "^[0-9]$"}, "11"))
        self.assertIsNone(self.one({"enum": [1, "x"]}, "1"))
        self.assertIsNotNone(self.one({"enum": [1, "x"]}, "2"))
        self.assertIsNotNone(self.one(False, "x"))

    def test_references(self) -> None:
        """
        References within the file are followed.
        """
        more = {"$defs": {"port": {"type": "integer", "maximum": 9}}}
        value = {"$ref": "#/$defs/port"}
        self.assertIsNone(self.one(value, "9", **more))
        self.assertIsNotNone(self.one(value, "10", **more))

    def test_patterns(self) -> None:
        """
        Patterns are those of ECMA-262: C{$} is the end, not the place before a
        last newline, and a digit is one of ten.
        """
        for pattern, good, bad in (
            ("^[a-z]+$", "web", "web\n"),
            ("^\\d$", "7", "٧"),
            ("^a.b$", "a-b", "a\rb"),
            ("^[$.]$", "$", "x"),
            ("^\\$\\.$", "$.", "$x"),
            ("^(a|b$)", "b", "b\n"),
        ):
            value = {"type": "string", "pattern": pattern}
            self.assertIsNone(self.one(value, good), pattern)
            self.assertIsNotNone(self.one(value, bad), pattern)

    def test_secret(self) -> None:
        """
        No refusal repeats what the caller sent.
        """
        for value in ({"const": 1}, {"type": "integer"}, {"maxLength": 2}, False):
            self.assertNotIn("s3cret", str(self.one(value, "s3cret")))

    @given(st.lists(st.text(), max_size=8))
    def test_anyArguments(self, args: list[str]) -> None:
        """
        Any arguments are answered; none are let through that do not begin as
        they must.
        """
        if self.unfit(SERVICE, *args) is None:
            self.assertEqual(args[0], "restart")
            self.assertTrue(args[1].isascii())


class UnusableTests(SchemaTestCase):
    """
    L{parse_schema}, where there is nothing that one could hold to.
    """

    def test_junk(self) -> None:
        """
        What is no JSON object is an error, however deep.
        """
        for data in (b"", b"{", b"[]", b"1", b"\xff", b'{"a":NaN}', b'{"a":' * 9999):
            self.assertRaises(SchemaError, parse_schema, data)

    def test_arguments(self) -> None:
        """
        C{arguments} must be the schema of an object, and one of ours.
        """
        bad: Any
        for bad in (
            [],
            True,
            {"type": "array"},
            {"properties": []},
            {"properties": {"x": {"type": "integr"}}},
            {"properties": {"x": {"type": "string", "pattern": "("}}},
            {"properties": {"x": {"type": "string", "pattern": "[]$]"}}},
            {"properties": {"x": {"type": "object"}}},
            {"properties": {"x": {"type": "null"}}},
            {"properties": {"x": {"maximum": 1, "pattern": "x"}}},
            {"$schema": "http://json-schema.org/draft-07/schema#"},
            {"$defs": {"x": {"$schema": "https://example.net/mine"}}},
        ):
            self.refused({"arguments": bad})

    def test_references(self) -> None:
        """
        A reference out of the file, or to nowhere, or to itself for ever is
        found before there is a value, and nothing is fetched.
        """
        for reference in ("https://example.net/x", "file:///etc/passwd", "#/none"):
            for arguments in (
                {"properties": {"x": {"type": "string", "$ref": reference}}},
                {"$defs": {"deep": {"items": {"$ref": reference}}}},
                {"properties": {"x": {"type": "string", "$dynamicRef": reference}}},
            ):
                self.assertIn(
                    "$ref leads nowhere", self.refused({"arguments": arguments})
                )
        self.refused({"arguments": {"$ref": "#"}})

    def test_argv(self) -> None:
        """
        Each item of C{argv} is one of those that are described.
        """
        arguments = {"properties": {"x": {"type": "string"}}}
        bad: Any
        for bad in (
            "x",
            {},
            [1],
            [["x"]],
            [{}],
            [{"arg": "y"}],
            [{"arg": 1}],
            [{"arg": "x", "flag": 1}],
            [{"arg": "x", "repeat": "yes"}],
            [{"arg": "x", "flag": "-x", "repeat": True}],
            [{"arg": "x", "shell": True}],
            ["x"] * 101,
        ):
            self.refused({"arguments": arguments, "argv": bad})

    @given(st.recursive(st.none() | st.integers() | st.text(), st.lists))
    def test_anyDocument(self, value: object) -> None:
        """
        Whatever stands in a sidecar, it is used or it is refused.
        """
        for document in (value, {"arguments": value}, {"argv": value}):
            with contextlib.suppress(SchemaError):
                schema(document)


class VersionTests(SchemaTestCase):
    """
    C{schema_version}
    """

    def test_own(self) -> None:
        """
        A version that is a word is taken as it is.
        """
        found = schema({"version": "1.0-b_2", "description": "x"})
        self.assertEqual((found.version, found.remark), ("1.0-b_2", ""))
        self.assertIsNone(found.rules)

    def test_derived(self) -> None:
        """
        Without one it comes from the content, in whatever order; that a bad one
        was there is said.
        """
        digest = hashlib.sha256('{"a":1,"b":"ü"}'.encode()).hexdigest()[:12]
        for text in ('{"a": 1, "b": "ü"}', '{"b":"\\u00fc","a":1}'):
            found = parse_schema(text.encode())
            self.assertEqual((found.version, found.remark), (f"sha256:{digest}", ""))
        for bad in (1, "", "a b", "x" * 65, "sha256:abc", "1\n"):
            found = schema({"version": bad})
            self.assertTrue(found.version.startswith("sha256:"))
            self.assertTrue(found.remark)


class LoadTests(SchemaTestCase):
    """
    L{load_schema}
    """

    def setUp(self) -> None:
        self.script = Path(self.mktemp()).absolute() / "restart"
        self.script.parent.mkdir()
        self.sidecar = self.script.with_name("restart.schema.json")

    def reason(self) -> str:
        found = load_schema(self.script)
        assert isinstance(found, Unusable), found
        return found.reason

    def test_none(self) -> None:
        """
        Most scripts have no sidecar, and cost nothing.
        """
        self.assertIsNone(load_schema(self.script))
        self.assertIsNone(load_schema(self.script / "below" / "a-file"))
        unwanted = ("jsonschema", "referencing")
        self.assertEqual(loaded_after("ctrlexec.agent.schema", unwanted), "")

    def test_found(self) -> None:
        """
        The sidecar beside the script.
        """
        self.sidecar.write_text(json.dumps(SERVICE))
        found = load_schema(self.script)
        assert isinstance(found, Schema)
        self.assertEqual((found.document, found.version), (SERVICE, "2"))

    def test_limit(self) -> None:
        """
        It may have 64 KiB.
        """
        self.sidecar.write_text("{}".ljust(SCHEMA_BYTES))
        self.assertIsInstance(load_schema(self.script), Schema)
        self.sidecar.write_text("{}".ljust(SCHEMA_BYTES + 1))
        self.assertIn("larger than", self.reason())

    def test_exposed(self) -> None:
        """
        One that anybody may write says nothing.
        """
        self.sidecar.write_text("{}")
        self.sidecar.chmod(0o666)
        self.assertIn("world-writable", self.reason())

    def test_unreadable(self) -> None:
        """
        One that is there and can not be read is not taken for none.
        """
        self.sidecar.symlink_to("nowhere")
        self.assertIn("leads nowhere", self.reason())
        self.sidecar.unlink()
        self.sidecar.mkdir()
        self.assertIn("no regular file", self.reason().replace("not a", "no"))
        self.sidecar.rmdir()
        os.mkfifo(self.sidecar)
        self.assertIn("no regular file", self.reason().replace("not a", "no"))
