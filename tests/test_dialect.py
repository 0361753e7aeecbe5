# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.dialect}: the patterns and formats of a schema,
wherever they stand in it.
"""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.dialect import SchemaError, validator_of
from ctrlexec.agent.formats import FORMATS

DIALECT = "https://json-schema.org/draft/2020-12/schema"
#: Python's C{re} would find it in both names.
WHOLE = "^(a+)+$"
NAMES = ("a" * 64, "a" * 64 + "\n")
KEYS = st.dictionaries(st.text("ab", max_size=3), st.integers(0, 3), max_size=4)


class DialectTestCase(SynchronousTestCase):
    """
    What tests of schemas need.
    """

    def fits(self, schema: dict[str, Any], value: object) -> bool:
        """
        Whether a value fits, by what stands under C{properties} for C{x}, or
        an object by all of it.
        """
        validator = validator_of(schema)
        with validator.bounded():
            if isinstance(value, dict):
                return validator.objection(value) == ("", "")
            return not validator.why_unfit(value, validator.schema["properties"]["x"])

    def refused(self, schema: dict[str, Any]) -> str:
        """
        Why a schema can not be used.
        """
        error: SchemaError = self.assertRaises(SchemaError, validator_of, schema)
        return str(error)


class PatternsTests(DialectTestCase):
    """
    Regular expressions
    """

    def test_keywords(self) -> None:
        """
        Each keyword that has to do with patterns takes ours, for which the end
        is the end.
        """
        known: dict[str, Any] = dict.fromkeys(NAMES, True)
        no = {"patternProperties": {WHOLE: False}}
        open_ = {"patternProperties": {WHOLE: True}}
        for schema, first, second in (
            (no, False, True),
            ({**open_, "additionalProperties": False}, True, False),
            ({**open_, "additionalProperties": {"type": "string"}}, True, False),
            ({**open_, "unevaluatedProperties": False}, True, False),
            ({"allOf": [open_], "unevaluatedProperties": False}, True, False),
            ({"$ref": "#/$defs/y", "unevaluatedProperties": False}, True, False),
            ({"propertyNames": {"pattern": WHOLE}}, True, False),
            ({"dependentSchemas": dict.fromkeys(NAMES, no)}, False, True),
            ({"if": {"propertyNames": {"pattern": WHOLE}}, "then": False}, False, True),
        ):
            whole = {"allOf": [schema], "properties": known, "$defs": {"y": open_}}
            self.assertEqual(self.fits(whole, {NAMES[0]: 1}), first, schema)
            self.assertEqual(self.fits(whole, {NAMES[1]: 1}), second, schema)

    def test_values(self) -> None:
        """
        So does each place where a pattern can meet a value.
        """
        pattern = {"pattern": "^a$"}
        for schema in (
            pattern,
            {"allOf": [pattern]},
            {"not": {"not": pattern}},
            {"$ref": "#/$defs/a"},
            {"$ref": "#/elsewhere/a"},
            {"$dynamicRef": "#/elsewhere/a"},
            {"$schema": DIALECT, **pattern},
            {"allOf": [{"$schema": f"{DIALECT}#", **pattern}]},
            {"$id": "https://example.net/x", "$schema": DIALECT, **pattern},
        ):
            whole = {
                "$schema": DIALECT,
                "properties": {"x": schema},
                "$defs": {"a": pattern},
                "elsewhere": {"a": {"$schema": DIALECT, **pattern}},
            }
            self.assertTrue(self.fits(whole, "a"), schema)
            self.assertFalse(self.fits(whole, "a\n"), schema)
            self.assertTrue(self.fits(whole, {"x": "a"}), schema)
            self.assertFalse(self.fits(whole, {"x": "a\n"}), schema)

    @given(KEYS, st.sampled_from(["a", "^a", "b$", "^ab?$", "^$"]), st.booleans())
    def test_spelledOut(self, values: dict[str, int], source: str, alone: bool) -> None:
        """
        What is said of all names that a pattern matches holds for each of them,
        whether something is said of that name besides or not.
        """
        within = {"patternProperties": {source: {"maximum": 1}}}
        if not alone:
            within["properties"] = {"a": {"minimum": 1}, "b": {"minimum": 1}}
        schema = {
            "properties": dict.fromkeys(values, True),
            "allOf": [{**within, "additionalProperties": {"const": 2}}],
        }
        expected = True
        for name, value in values.items():
            named = not alone and name in ("a", "b")
            matched = re.search(source, name) is not None
            good = (value <= 1 or not matched) and (value >= 1 or not named)
            expected = expected and good and (named or matched or value == 2)
        self.assertEqual(self.fits(schema, values), expected)

    def test_unknown(self) -> None:
        """
        A pattern that can not be used makes the schema unusable wherever it
        stands, and the reason names it.
        """
        ahead = {"type": "string", "pattern": "^(?!x)"}
        reason = (
            "arguments: the pattern '^(?!x)' can not be used: "
            "invalid perl operator: (?!"
        )
        for schema in (
            {"properties": {"x": ahead}},
            {"$defs": {"never": ahead}},
            {"patternProperties": {"^(?!x)": True}},
            {"propertyNames": ahead},
            {"properties": {"x": {"$ref": "#/elsewhere"}}, "elsewhere": ahead},
        ):
            self.assertEqual(self.refused(schema), reason)

    def test_ownKeys(self) -> None:
        """
        What is no keyword is data, and may be called as it likes.
        """
        schema = {
            "properties": {"pattern": True, "$schema": True, "$ref": True, "x": True},
            "const": {"pattern": "(", "$schema": 1},
            "$comment": "(",
        }
        self.assertTrue(self.fits(schema, {"pattern": "(", "$schema": 1}))

    def test_untouched(self) -> None:
        """
        The sidecar itself stays as it is, for those to whom it is shown.
        """
        schema: dict[str, Any] = {
            "$schema": DIALECT,
            "properties": {"x": {"$schema": DIALECT}},
            "patternProperties": {"x": {"type": "string"}},
        }
        before = repr(schema)
        self.assertFalse(self.fits(schema, {"x": 1}))
        self.assertEqual(repr(schema), before)

    def test_rewritten(self) -> None:
        """
        A reference into what had to be rewritten leads nowhere, and is found
        when the schema is read, whichever comes first.
        """
        value = {"properties": {"y": {"patternProperties": {"a": {"maxLength": 1}}}}}
        link = {"$ref": "#/properties/y/patternProperties/a"}
        for order in (("x", "y"), ("y", "x")):
            both = {"x": link, "y": value["properties"]["y"]}
            schema = {"properties": {name: both[name] for name in order}}
            self.assertIn("a $ref leads nowhere", self.refused(schema))


class FormatTests(DialectTestCase):
    """
    C{format}
    """

    def test_asserted(self) -> None:
        """
        Every format that there is in JSON Schema counts, for texts.
        """
        for name in (*FORMATS, "regex"):
            schema = {"properties": {"x": {"format": name}}}
            bad = "(" if name == "regex" else "\\{\n~ä"
            self.assertFalse(self.fits(schema, bad), name)
            self.assertTrue(self.fits(schema, 1), name)
            self.assertEqual(validator_of(schema).unknown_formats, ())

    def test_examples(self) -> None:
        """
        Those that nobody looked at before are looked at.
        """
        for name, good, bad in (
            ("date-time", "2026-03-05T18:38:09Z", "2026-03-05 18:38"),
            ("uri", "https://example.org/", "example.org"),
            ("hostname", "web-1.example.org", "web_1"),
            ("duration", "PT1H", "1h"),
            ("regex", "^[a-z]+$", "(?=x)"),
        ):
            schema = {"properties": {"x": {"type": "string", "format": name}}}
            self.assertTrue(self.fits(schema, good), name)
            self.assertFalse(self.fits(schema, bad), name)

    def test_unknown(self) -> None:
        """
        A format that nobody knows is let through and remembered, each once,
        wherever it stands.
        """
        schema = {
            "properties": {"x": {"format": "int32"}, "y": {"format": "int32"}},
            "$defs": {"z": {"items": {"format": "mine"}}},
        }
        self.assertTrue(self.fits(schema, "x"))
        self.assertEqual(
            sorted(validator_of(schema).unknown_formats), ["int32", "mine"]
        )
