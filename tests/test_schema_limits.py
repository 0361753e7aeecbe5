# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.schema}: sidecars that the libraries below it stumble
over harm nothing but their own script.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.dialect import SchemaError
from ctrlexec.agent.schema import parse_schema

HUGE = "a{99999999999999999999}"


def encoded(arguments: Any) -> bytes:
    return json.dumps({"arguments": arguments}).encode()


class LimitTests(SynchronousTestCase):
    """
    L{parse_schema}
    """

    def test_unwritable(self) -> None:
        """
        What could be read but not be written again, on C{/capabilities}, is an
        error.
        """
        for data in (b'{"a":1e999}', b'{"a":' + b"[" * 900 + b"]" * 900 + b"}"):
            self.assertRaises(SchemaError, parse_schema, data)
        parse_schema(b'{"a":' + b"[" * 90 + b"]" * 90 + b"}")

    def test_notApplicable(self) -> None:
        """
        What makes jsonschema itself stumble is an error of the one sidecar.
        """
        arguments: Any
        for arguments in (
            {"properties": {"x": {"type": "string", "pattern": HUGE}}},
            {"patternProperties": {HUGE: {}}},
            {"type": "object", "$ref": "#/type"},
        ):
            self.assertRaises(SchemaError, parse_schema, encoded(arguments))

    def test_numbers(self) -> None:
        """
        A number beyond what a float holds fits nothing, and harms nothing.
        """
        wide = {"type": "number", "multipleOf": int("9" * 400)}
        rules = parse_schema(encoded({"properties": {"x": wide}})).rules
        assert rules is not None
        reason = "the schema of the script can not be applied"
        self.assertEqual(rules.why_unfit(["1.5"]), reason)
