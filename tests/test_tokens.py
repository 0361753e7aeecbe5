# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.tokens}.
"""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.tokens import (
    MOST_CHARACTERS,
    MOST_TOKENS,
    Literal,
    Slot,
    Template,
    readings_of,
    why_unfit,
)

TEXT, NUMBER, YES = (frozenset({name}) for name in ("string", "integer", "boolean"))


def anything(slot: Slot, value: object) -> str:
    return ""


def tokens_of(template: Template, values: Mapping[str, object]) -> list[str]:
    """
    What a dispatcher makes of values.
    """
    tokens: list[str] = []
    for item in template:
        match item:
            case Literal(text):
                tokens.append(text)
            case Slot(name, repeat=True) if isinstance(found := values[name], list):
                tokens += map(str, found)
            case Slot(name, flag=flag) if flag:
                value = values[name]
                tokens += [flag] * (value is not False)
                tokens += [str(value)] * (not isinstance(value, bool))
            case Slot(name):
                tokens.append(str(values[name]))
    return tokens


class ReadingsTests(SynchronousTestCase):
    """
    L{readings_of}
    """

    def test_types(self) -> None:
        """
        A token stands for what is spelled like it, and for nothing near it.
        """
        for token, types, expected in (
            ("7", NUMBER, [7]),
            ("-7", NUMBER, [-7]),
            ("7", TEXT, ["7"]),
            ("7", NUMBER | TEXT, [7, "7"]),
            ("7.5", frozenset({"number"}), [7.5]),
            ("1e3", frozenset({"number"}), [1000.0]),
            ("true", YES, [True]),
            ("false", YES, [False]),
            *((bad, NUMBER, []) for bad in ("", "07", "+7", " 7", "7\n", "0x7", "7.0")),
            *((bad, NUMBER, []) for bad in ("-0", "7_0", "٧", "9" * 60)),
            *((bad, frozenset({"number"}), []) for bad in ("1e999", "NaN", "inf")),
            *((bad, YES, []) for bad in ("True", "1", "yes", "")),
        ):
            self.assertEqual(list(readings_of(token, types)), expected, (token, types))


class FitTests(SynchronousTestCase):
    """
    L{why_unfit}
    """

    def unfit(self, *tokens: str, template: Template) -> str | None:
        return why_unfit(template, tokens, anything, lambda values: "")

    def test_literal(self) -> None:
        """
        A literal token stands where it must.
        """
        template: Template = [Literal("show"), Slot("what", TEXT, droppable=False)]
        self.assertIsNone(self.unfit("show", "x", template=template))
        for tokens, reason in (
            (("hide", "x"), "argument 'show' is missing"),
            ((), "argument 'show' is missing"),
            (("show",), "argument 'what' is missing"),
            (("show", "x", "y"), "argument 3 is one too many"),
        ):
            self.assertEqual(self.unfit(*tokens, template=template), reason)

    def test_named(self) -> None:
        """
        What can not be read as a value is laid to the argument that it was
        for, even where that may be missing; the value is not repeated.
        """
        template: Template = [Slot("size", NUMBER)]
        reason = "argument 'size' does not fit: expected integer"
        self.assertEqual(self.unfit("s3cret", template=template), reason)

    def test_flags(self) -> None:
        """
        A flag comes with its value, that of a boolean alone, in their order.
        """
        template: Template = [
            Slot("size", NUMBER, "--size"),
            Slot("force", YES, "--force"),
        ]
        for good in ([], ["--size", "1"], ["--force"], ["--size", "1", "--force"]):
            self.assertIsNone(self.unfit(*good, template=template), good)
        for bad in (["--size"], ["1"], ["--force", "--size", "1"], ["--force", "true"]):
            self.assertIsNotNone(self.unfit(*bad, template=template), bad)

    def test_judged(self) -> None:
        """
        Where tokens can be read in several ways, one that is valid is enough.
        """
        template: Template = [Slot("names", TEXT, repeat=True), Slot("last", TEXT)]

        def judge(values: Mapping[str, object]) -> str:
            return "" if values.get("last") == "c" else "last is not c"

        self.assertIsNone(why_unfit(template, ["a", "b", "c"], anything, judge))
        reason = why_unfit(template, ["a", "b"], anything, judge)
        self.assertEqual(reason, "last is not c")

    def test_twice(self) -> None:
        """
        A value that stands in two places is the same in both.
        """
        template: Template = [Slot("a", TEXT), Literal("="), Slot("a", TEXT)]
        self.assertIsNone(self.unfit("x", "=", "x", template=template))
        for bad in (("x", "=", "y"), ("x", "="), ("=", "x")):
            self.assertIsNotNone(self.unfit(*bad, template=template), bad)
        self.assertIsNone(self.unfit("=", template=template))

    def test_bounded(self) -> None:
        """
        A caller can not make the agent think for long: not by many arguments,
        by long ones, nor by ones that fit in countless ways but the last.
        """
        names: Template = [
            Slot(f"n{number}", TEXT, repeat=True) for number in range(50)
        ]
        for tokens, reason in (
            (["x"] * (MOST_TOKENS + 1), f"more than {MOST_TOKENS} arguments"),
            (
                ["x", "y" * (MOST_CHARACTERS + 1)],
                f"argument 2 has more than {MOST_CHARACTERS} characters",
            ),
            (["x"] * MOST_TOKENS, "the arguments can be read in too many ways"),
        ):
            template: Template = [*names, Literal("end")]
            self.assertEqual(self.unfit(*tokens, template=template), reason)
        n, m = (Slot(name, TEXT, repeat=True) for name in "nm")
        unlike = [str(number) for number in range(100)]
        reason = "the arguments can be read in too many ways"
        self.assertEqual(self.unfit(*unlike, template=[n, m, n]), reason)
        same: Template = [Slot("n", TEXT) for _ in range(60)]
        unlike = [str(number) for number in range(30)]
        reason = "the arguments do not fit each other"
        self.assertEqual(self.unfit(*unlike, template=same), reason)

    @given(
        st.text(),
        st.integers(-(10**9), 10**9),
        st.booleans(),
        st.lists(st.text(), max_size=5),
    )
    def test_roundTrip(
        self, name: str, size: int, force: bool, more: list[str]
    ) -> None:
        """
        Whatever values a dispatcher makes tokens of, they fit.
        """
        values = {"name": name, "size": size, "force": force, "more": more}
        template: Template = [
            Literal("go"),
            Slot("name", TEXT),
            Slot("size", NUMBER, "--size"),
            Slot("force", YES, "--force"),
            Slot("more", TEXT, repeat=True),
        ]
        tokens = tokens_of(template, values)
        self.assertIsNone(self.unfit(*tokens, template=template))
