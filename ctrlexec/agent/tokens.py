# SPDX-License-Identifier: AGPL-3.0-only
"""
From the arguments of a run back to the values that they were made of.

A schema's C{argv} says how named values become tokens (NEWER-LINE.md section
9). An agent gets the tokens alone: they fit when there are values that are
valid and make exactly these tokens. The tokens are a caller's, so all here is
bounded: how many there may be, how long, and how many ways of reading them are
tried.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

import attrs

MOST_TOKENS = 256
MOST_CHARACTERS = 4096
#: How many readings of ambiguous arguments are looked at before they are
#: refused.
MOST_READINGS = 16
_MOST_STEPS = 50_000

_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,39}")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,39})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")


@attrs.frozen
class Literal:
    """
    A token that is always there.
    """

    text: str


@attrs.frozen
class Slot:
    """
    Where the value of a property goes.

    @ivar types: the JSON types that the value, or each one of an array, may
        have.
    @ivar flag: a token before the value, or in place of C{true}.
    @ivar repeat: the value is an array, one token each.
    @ivar droppable: the value may be missing.
    @ivar least: how many values an array has at least.
    @ivar most: how many at most.
    """

    name: str
    types: frozenset[str]
    flag: str = ""
    repeat: bool = False
    droppable: bool = True
    least: int = 0
    most: int = MOST_TOKENS


#: How values become tokens, in order.
Template = Sequence[Literal | Slot]

#: What one value has against it, in words; empty if nothing. For a slot that
#: repeats it is asked about each value of the array.
Check = Callable[[Slot, object], str]

#: What all values together have against them.
Judge = Callable[[Mapping[str, object]], str]


def why_unfit(
    template: Template,
    tokens: Sequence[str],
    check: Check,
    judge: Judge,
) -> str | None:
    """
    @return: what is wrong with the tokens, in words that name the argument and
        repeat nothing of the caller's; C{None} if they fit.
    """
    if len(tokens) > MOST_TOKENS:
        return f"more than {MOST_TOKENS} arguments"
    for number, token in enumerate(tokens, 1):
        if len(token) > MOST_CHARACTERS:
            return f"argument {number} has more than {MOST_CHARACTERS} characters"
    search = _Search(template, tokens, check)
    first = ""
    for values in islice(search.readings(0, 0), MOST_READINGS):
        given = {key: each for key, each in values.items() if each is not _MISSING}
        reason = judge(given)
        if not reason:
            return None
        first = first or reason
    return first or search.obstacle()


def readings_of(token: str, types: frozenset[str]) -> Iterator[object]:
    """
    The values of some JSON types that a token can stand for.
    """
    if types & {"integer", "number"} and _INTEGER.fullmatch(token):
        yield int(token)
    elif "number" in types and _NUMBER.fullmatch(token):
        number = float(token)
        if math.isfinite(number):
            yield number
    if "boolean" in types and token in ("true", "false"):
        yield token == "true"
    if "string" in types:
        yield token


class _Missing:
    """
    The value of a property that has none.
    """


_MISSING = _Missing()


@attrs.define
class _Search:
    """
    Depth first through the template, each dead end entered once.
    """

    template: Template
    tokens: Sequence[str]
    check: Check
    _steps_left: int = attrs.field(default=_MOST_STEPS, init=False)
    _dead: set[tuple[int, int]] = attrs.field(factory=set, init=False)
    _read: dict[tuple[int, int], tuple[object, ...]] = attrs.field(
        factory=dict, init=False
    )
    _furthest: int = attrs.field(default=0, init=False)
    _missing: str = attrs.field(default="", init=False)
    _refused: dict[int, str] = attrs.field(factory=dict, init=False)

    def readings(self, item: int, at: int) -> Iterator[dict[str, object]]:
        """
        The values that make the tokens from one on, by the template from an
        item on.
        """
        self._steps_left -= 1
        if self._steps_left < 0 or (item, at) in self._dead:
            return
        if item == len(self.template):
            self._furthest = max(self._furthest, at)
            if at == len(self.tokens):
                yield {}
            return
        found = False
        for after, value in self._steps(item, at):
            for rest in self.readings(item + 1, after):
                found = True
                values = self._with(self.template[item], value, rest)
                if values is not None:
                    yield values
        if not found:
            self._dead.add((item, at))

    def obstacle(self) -> str:
        """
        What stood in the way of all readings.
        """
        if self._steps_left < 0:
            return "the arguments can be read in too many ways"
        at = self._furthest
        if at in self._refused:
            return self._refused[at]
        if at < len(self.tokens):
            return f"argument {at + 1} is one too many"
        if self._missing:
            return f"argument {self._missing!r} is missing"
        return "the arguments do not fit each other"

    @staticmethod
    def _with(
        item: Literal | Slot, value: object, rest: dict[str, object]
    ) -> dict[str, object] | None:
        # A property may stand in two places, with one value or in both with none.
        if isinstance(item, Literal):
            return rest
        if rest.get(item.name, value) != value:
            return None
        return {item.name: value, **rest}

    def _steps(self, index: int, at: int) -> Iterator[tuple[int, object]]:
        """
        What an item can make of the next tokens: where that ends, and the
        value.
        """
        item = self.template[index]
        self._furthest = max(self._furthest, at)
        match item:
            case Literal(text):
                if at < len(self.tokens) and self.tokens[at] == text:
                    yield at + 1, _MISSING
                else:
                    self._stuck(at, text)
            case Slot(repeat=True):
                yield from self._array(index, item, at)
            case Slot():
                yield from self._single(index, item, at)

    def _single(self, index: int, slot: Slot, at: int) -> Iterator[tuple[int, object]]:
        place = at
        if slot.flag:
            present = at < len(self.tokens) and self.tokens[at] == slot.flag
            if present and "boolean" in slot.types and not self.check(slot, True):
                yield at + 1, True
            place = at + 1 if present else len(self.tokens)
        for value in self._values(index, slot, place):
            # A boolean with a flag has said all with it.
            if not (slot.flag and isinstance(value, bool)):
                yield place + 1, value
        if slot.flag and "boolean" in slot.types and not self.check(slot, False):
            yield at, False
        elif slot.droppable:
            yield at, _MISSING
        else:
            self._stuck(at, slot.name)

    def _array(self, index: int, slot: Slot, at: int) -> Iterator[tuple[int, object]]:
        found: list[object] = []
        while len(found) < slot.most:
            values = self._values(index, slot, at + len(found))
            if not values:
                break
            found.append(values[0])
        for count in range(len(found), max(slot.least, 1) - 1, -1):
            yield at + count, found[:count]
        if slot.droppable:
            yield at, _MISSING
        elif slot.least == 0:
            yield at, []
        else:
            self._stuck(at + len(found), slot.name)

    def _values(self, index: int, slot: Slot, at: int) -> tuple[object, ...]:
        if at >= len(self.tokens):
            return ()
        if (index, at) not in self._read:
            self._read[index, at] = self._valid(slot, at)
        return self._read[index, at]

    def _valid(self, slot: Slot, at: int) -> tuple[object, ...]:
        values, reason = [], f"expected {' or '.join(sorted(slot.types))}"
        for value in readings_of(self.tokens[at], slot.types):
            refusal = self.check(slot, value)
            if not refusal:
                values.append(value)
            reason = refusal or reason
        if not values:
            self._furthest = max(self._furthest, at)
            words = f"argument {slot.name!r} does not fit: {reason}"
            self._refused.setdefault(at, words)
        return tuple(values)

    def _stuck(self, at: int, name: str) -> None:
        self._furthest = max(self._furthest, at)
        if at >= len(self.tokens):
            self._missing = self._missing or name
        else:
            self._refused.setdefault(at, f"argument {name!r} is missing")
