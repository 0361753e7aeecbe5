# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.schema}: sidecars that the libraries below it stumble
over harm nothing but their own script, and no caller makes one take long.
"""

from __future__ import annotations

import json
import random
import tracemalloc
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.dialect import SchemaError
from ctrlexec.agent.schema import Rules, parse_schema
from ctrlexec.agent.validation import Hidden

HUGE = "a{99999999999999999999}"
TOO_LONG = "to check arguments against the schema takes too long"
TEXT = {"type": "string"}
MIXED = [str(number) if number % 2 else f"x{number}" for number in range(256)]


def encoded(arguments: Any) -> bytes:
    return json.dumps({"arguments": arguments}).encode()


def rules_of(arguments: Any) -> Rules:
    rules = parse_schema(encoded(arguments)).rules
    assert rules is not None
    return rules


def many(item: Any, **more: Any) -> Any:
    """
    The schema of an array.
    """
    return {"properties": {"x": {"type": "array", "items": item, **more}}}


def doubling(levels: int) -> dict[str, Any]:
    """
    Schemas of which each applies the next one twice.
    """
    schemas: dict[str, Any] = {
        f"a{level}": {"allOf": [{"$ref": f"#/$defs/a{level + 1}"}] * 2}
        for level in range(levels)
    }
    return {"$defs": {**schemas, f"a{levels}": {}}}


class LimitTests(SynchronousTestCase):
    """
    L{parse_schema}
    """

    def refused(self, arguments: Any) -> str:
        """
        Why a sidecar can not be used.
        """
        error: SchemaError = self.assertRaises(
            SchemaError, parse_schema, encoded(arguments)
        )
        return str(error)

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
        What makes jsonschema itself stumble is an error of the one sidecar, and
        found before there is a caller.
        """
        odd = {"enum": [1], "minimum": "x"}
        arguments: Any
        for arguments in (
            {"properties": {"x": {"type": "string", "pattern": HUGE}}},
            {"patternProperties": {HUGE: {}}},
            {"type": "object", "$ref": "#/type"},
            {"properties": {"x": {**TEXT, "$ref": "#/properties/x/type"}}},
            {"properties": {"x": {**TEXT, "$ref": "#/odd"}}, "odd": odd},
            {"properties": {"x": {**TEXT, "$ref": "#/odd"}}, "odd": [odd]},
            {"properties": {"x": {**TEXT, "$ref": "#/odd"}}, "odd": {"$ref": "#/no"}},
        ):
            self.refused(arguments)

    def test_numbers(self) -> None:
        """
        A number beyond what a float holds fits nothing, and harms nothing.
        """
        wide = {"type": "number", "multipleOf": int("9" * 400)}
        reason = "the schema of the script can not be applied"
        rules = rules_of({"properties": {"x": wide}})
        self.assertEqual(rules.why_unfit(["1.5"]), reason)

    def test_entries(self) -> None:
        """
        A list has so many entries at the most: some are compared each with
        each.
        """
        for count in (2000, 2001):
            values = {"properties": {"x": {"enum": [*map(str, range(count))]}}}
            if count == 2000:
                self.assertIsNone(rules_of(values).why_unfit(["1999"]))
            else:
                self.assertIn("more than 2000 entries", self.refused(values))

    def test_patterns(self) -> None:
        """
        Patterns that are much together are too much for one sidecar.
        """
        several = [{"pattern": f"a.{{990}}|{number}"} for number in range(50)]
        self.assertEqual(self.refused({"allOf": several}), TOO_LONG)
        names = {f"name{number}": TEXT for number in range(1000)}
        patterns = {f"x{number}": True for number in range(1000)}
        arguments = {"properties": names, "patternProperties": patterns}
        self.assertEqual(self.refused(arguments), TOO_LONG)

    def test_doubling(self) -> None:
        """
        A schema that is applied nearly without end is found when it is read; if
        its values have to be there for that, the caller is refused.
        """
        deep, end = doubling(20), {"$ref": "#/$defs/a0"}
        self.assertEqual(self.refused({**deep, **end}), TOO_LONG)
        value = {**TEXT, **end}
        self.assertEqual(self.refused({**deep, "properties": {"x": value}}), TOO_LONG)
        late = {"if": {"minProperties": 1}, "then": end, "properties": {"x": TEXT}}
        self.assertEqual(rules_of({**deep, **late}).why_unfit(["x"]), TOO_LONG)
        shallow = rules_of({**doubling(4), "properties": {"x": value}})
        self.assertIsNone(shallow.why_unfit(["x"]))
        for unevaluated in ("unevaluatedItems", "unevaluatedProperties"):
            last = {unevaluated: True, **deep, **end}
            self.assertEqual(self.refused(last), TOO_LONG)

    def test_levels(self) -> None:
        """
        A schema that comes back to itself is found when it is read, and so is
        one of too many levels: where Python's stack ends in jsonschema's
        libraries, the whole agent would.
        """
        reason = "a $ref leads back to itself, or there are more than 50 levels"
        link = {"$ref": "#/$defs/a0"}
        chain = {f"a{level}": {"$ref": f"#/$defs/a{level + 1}"} for level in range(99)}
        arguments: Any
        for arguments in (
            {"properties": {"x": {**TEXT, "$ref": "#/properties/x"}}},
            {"$defs": {"a0": {"not": {"not": link}}}},
            {"$anchor": "a", "properties": {"x": {**TEXT, "$ref": "#a"}}},
            {"unevaluatedProperties": False, "$ref": "#"},
            {"$dynamicAnchor": "a", "properties": {"x": {"$dynamicRef": "#a"}}},
            {"$defs": {**chain, "a99": {}}, **link},
        ):
            self.assertIn(reason, self.refused(arguments))
        deep: Any = {}
        for _ in range(60):
            deep = {"not": deep}
        self.assertIn("it has more than 50 levels", self.refused(deep))
        # Whom it leads to, a $dynamicRef does not say: here it is the outermost.
        inner = {
            "$id": "inner",
            "$defs": {"here": {"$dynamicAnchor": "a", "not": False}},
            "allOf": [{"$dynamicRef": "#a"}],
        }
        outer = {"$id": "https://example.net/", "$dynamicAnchor": "a", "$ref": "inner"}
        self.assertIn(reason, self.refused({**outer, "$defs": {"x": inner}}))

    def test_unseen(self) -> None:
        """
        jsonschema's own walks through a schema, which apply no keyword, are
        work too.
        """
        links = {
            f"a{level}": {
                "dependentSchemas": {
                    name: {"$ref": f"#/$defs/a{level + 1}"} for name in "xy"
                }
            }
            for level in range(20)
        }
        walk = {"unevaluatedProperties": False, "$ref": "#/$defs/a0"}
        rules = rules_of(
            {
                "properties": {"x": TEXT, "y": TEXT},
                "if": {"minProperties": 2},
                "then": walk,
                "$defs": {**links, "a20": {}},
            }
        )
        self.assertIsNone(rules.why_unfit([]))
        self.assertEqual(rules.why_unfit(["1", "2"]), TOO_LONG)


class WorkTests(SynchronousTestCase):
    """
    L{Rules.why_unfit}: what a caller sends is held against a schema before
    anybody has authorised it.
    """

    def assertTooLong(self, arguments: Any, tokens: list[str]) -> None:
        """
        Tokens are refused since there is too much to them, and a few of them
        are looked at.
        """
        rules = rules_of(arguments)
        self.assertEqual(rules.why_unfit(tokens), TOO_LONG)
        self.assertNotEqual(rules.why_unfit(tokens[:2]), TOO_LONG)

    def test_repeated(self) -> None:
        """
        A repetition that is repeated costs no more than any other pattern, and
        as many long arguments as there can be are looked at.
        """
        rules = rules_of(many({**TEXT, "pattern": "^(a+)+$"}))
        long = "a" * 4090
        self.assertIsNone(
            rules.why_unfit([f"{long}{'a' * (n % 6)}" for n in range(256)])
        )
        reason = rules.why_unfit([f"{long}{number}" for number in range(256)])
        self.assertEqual(reason, "argument 'x' does not fit: pattern '\"^(a+)+$\"'")

    def test_usual(self) -> None:
        """
        What a script is usually given is far from all limits, if there are as
        many arguments as there can be.
        """
        rules = rules_of(
            many(
                {
                    **TEXT,
                    "pattern": "^/[A-Za-z0-9._/-]{1,255}$",
                    "format": "uri-reference",
                    "maxLength": 200,
                },
                uniqueItems=True,
            )
        )
        paths = [f"/srv/{'directory/' * 10}{number}" for number in range(256)]
        self.assertIsNone(rules.why_unfit(paths))
        self.assertIsNone(rules.why_unfit(paths), "the count starts again each time")

    def test_patterns(self) -> None:
        """
        A pattern that has to remember much of a text is held against so much
        text.
        """
        source = random.Random(1)
        texts = ["".join(source.choices("ab", k=4096)) for _ in range(256)]
        large = {"pattern": "[ab]*a[ab]{500}z"}
        self.assertTooLong(many({**TEXT, "not": large}), texts)

    def test_formats(self) -> None:
        """
        So are texts held against a format, most of all against that of a
        pattern.
        """
        long = ["a" * 4000 + str(number) for number in range(256)]
        self.assertTooLong(many({**TEXT, "format": "uri-reference"}), long)
        sources = [f".{{0,900}}{number}" for number in range(256)]
        self.assertTooLong(many({**TEXT, "format": "regex"}), sources)

    def test_lists(self) -> None:
        """
        So are values compared with each other, and with long lists.
        """
        mixed = {"type": ["string", "integer"]}
        unique = [{"uniqueItems": True}] * 100
        self.assertTooLong(many(mixed, allOf=unique), MIXED)
        values = [f"value{number}" for number in range(1900)]
        several = [{"enum": values[number:]} for number in range(3)]
        self.assertTooLong(many({**TEXT, "allOf": several}), values[-256:])
        evaluated = [{"unevaluatedItems": False}] * 1500
        self.assertTooLong(many(mixed, anyOf=evaluated), MIXED)
        contains = [{"contains": {"const": -number}} for number in range(400)]
        self.assertTooLong(many(mixed, anyOf=contains), MIXED)

    def test_memory(self) -> None:
        """
        The errors that jsonschema makes on its way hold none of the values: each
        would be a copy of all of them.
        """
        rules = rules_of({**many(TEXT), "anyOf": [{"minProperties": 99}] * 500})
        tokens = ["x" * 4096] * 256
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.assertIn("anyOf", str(rules.why_unfit(tokens)))
        _, most = tracemalloc.get_traced_memory()
        self.assertLess(most, 20_000_000)
        self.assertNotIn("x", repr([Hidden("x")]))
