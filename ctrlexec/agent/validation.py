# SPDX-License-Identifier: AGPL-3.0-only
"""
Values held against a schema, in a time that has a bound.

Arguments are a caller's whom nobody has authorised yet, and they are looked at
in the thread that answers everybody. So the work is counted, in units that
depend on nothing but schema and arguments, and who makes too much of it is
refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs

from ctrlexec.agent.formats import FORMATS
from ctrlexec.agent.patterns import Pattern, PatternError, pattern_of
from ctrlexec.errors import CtrlExecError, abbreviated

#: How much work the arguments of one run may make, and a schema that is looked
#: at. A unit is a keyword that is applied to a value: a few microseconds.
MOST_WORK = 50_000
# What else is as much work as that: so many instructions of a pattern to make,
# or to take for each byte of a text; entries of a list to go through, and pairs
# of them to compare; characters to hold against a format.
_INSTRUCTIONS_A_UNIT = 5
_STEPS_A_UNIT = 4000
_ENTRIES_A_UNIT = 32
_VALUES_A_UNIT = 4
_PAIRS_A_UNIT = 16
_CHARACTERS_A_UNIT = 4
# To see whether a text of a caller is a pattern, or too large for one.
_PATTERN_UNITS = 5000

Keyword = Callable[[Any, Any, Any, Any], Any]


class TooMuchWork(CtrlExecError):
    """
    To find out whether values fit would take too long.
    """


class Hidden(str):
    """
    A text of a caller, which no error repeats: it may be a secret, it may be
    long, and jsonschema makes errors that nobody reads.
    """

    def __repr__(self) -> str:
        return "'...'"


@attrs.define(eq=False)
class Work:
    """
    What is done for one request, and what came of it.

    @ivar patterns: those of the schema, by their source.
    """

    patterns: dict[str, Pattern] = attrs.field(factory=dict)
    _left: int = MOST_WORK
    _found: dict[tuple[str, str, str], bool] = attrs.field(factory=dict)

    @contextmanager
    def bounded(self) -> Iterator[None]:
        """
        Count from the start, and remember nothing of it afterwards.
        """
        self._left = MOST_WORK
        try:
            yield
        finally:
            self._found.clear()

    def spend(self, units: int) -> None:
        """
        @raise TooMuchWork: there is not that much left.
        """
        self._left -= units
        if self._left < 0:
            raise TooMuchWork("to check arguments against the schema takes too long")

    def learn(self, source: str) -> Pattern:
        """
        A pattern of the schema.

        @raise PatternError: it is none that can be used.
        """
        if source not in self.patterns:
            pattern = self.patterns[source] = pattern_of(source)
            self.spend(1 + pattern.instructions // _INSTRUCTIONS_A_UNIT)
        return self.patterns[source]

    def matches(self, source: str, text: str) -> bool:
        """
        Whether a pattern of the schema matches somewhere in a text.
        """
        key = ("pattern", source, text)
        if key not in self._found:
            pattern = self.learn(source)
            steps = pattern.instructions * len(text.encode("utf-8", "surrogatepass"))
            self.spend(1 + steps // _STEPS_A_UNIT)
            self._found[key] = pattern.found_in(text)
        return self._found[key]

    def fits(self, name: str, text: str) -> bool:
        """
        Whether a text is of a format.
        """
        key = ("format", name, text)
        if key not in self._found:
            self.spend(1 + len(text) // _CHARACTERS_A_UNIT)
            check = self._is_pattern if name == "regex" else FORMATS.get(name)
            self._found[key] = check is None or check(text)
        return self._found[key]

    def _is_pattern(self, text: str) -> bool:
        self.spend(_PATTERN_UNITS)
        try:
            pattern_of(text)
        except PatternError:
            return False
        return True


@attrs.frozen(eq=False)
class Validator:
    """
    A schema that values are held against.

    @ivar schema: ours, of what stands in the sidecar.
    @ivar unknown_formats: what its C{format}s ask for and nobody can check.
    """

    schema: Mapping[str, Any]
    unknown_formats: tuple[str, ...]
    _validator: Any
    _work: Work

    @contextmanager
    def bounded(self) -> Iterator[None]:
        """
        All that is asked in a C{with} is one request, and its work is bounded.

        @raise TooMuchWork: it would take too long, and nothing is known.
        """
        with self._work.bounded():
            yield

    def why_unfit(self, value: object, schema: object) -> str:
        """
        What one value has against it, by a schema that stands in this one.
        """
        return _explained(next(self._validator.descend(value, schema), None))

    def objection(self, values: Mapping[str, object]) -> tuple[str, str]:
        """
        @return: what all values together have against them, and the name of the
            one that is to blame, if it is one; both empty where there is
            nothing.
        """
        error = next(self._validator.iter_errors(values), None)
        blamed = str(error.absolute_path[0]) if error and error.absolute_path else ""
        return _explained(error), blamed


def applied(schema: Mapping[str, Any], work: Work) -> Any:
    """
    @return: jsonschema's validator, with our patterns and formats, and with its
        work counted.
    """
    import referencing
    from jsonschema import Draft202012Validator, ValidationError, validators

    def pattern(_: Any, source: str, value: object, __: object) -> Any:
        if isinstance(value, str) and not work.matches(source, value):
            yield ValidationError("does not match")

    def of_format(_: Any, name: str, value: object, __: object) -> Any:
        if isinstance(value, str) and not work.fits(name, value):
            yield ValidationError("is of another format")

    ours = {"pattern": pattern, "format": of_format}
    keywords = {
        name: _counted(name, ours.get(name, keyword), work)
        for name, keyword in Draft202012Validator.VALIDATORS.items()
    }
    types = _Types(Draft202012Validator.TYPE_CHECKER, work)
    kind = validators.extend(Draft202012Validator, keywords, type_checker=types)
    return kind(schema, registry=referencing.Registry())


def _counted(name: str, keyword: Keyword, work: Work) -> Keyword:
    def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        work.spend(1 + _entries(value) // _ENTRIES_A_UNIT)
        work.spend(_entries(instance) // _VALUES_A_UNIT)
        if name == "uniqueItems":
            work.spend(_entries(instance) ** 2 // _PAIRS_A_UNIT)
        return keyword(validator, value, instance, schema)

    return counted


def _entries(value: object) -> int:
    return len(value) if isinstance(value, list | dict) else 0


@attrs.frozen
class _Types:
    """
    What is of which JSON type. To ask is work too: some of jsonschema's keywords
    go through a schema by themselves, and ask at each step.
    """

    _checker: Any
    _work: Work

    def is_type(self, instance: object, name: str) -> bool:
        """
        As jsonschema asks it.
        """
        self._work.spend(1)
        return bool(self._checker.is_type(instance, name))


def _explained(error: Any) -> str:
    """
    One of jsonschema's errors, without the value: what a caller sends may be a
    secret, and the log shall not know it.
    """
    if error is None:
        return ""
    wanted = abbreviated(json.dumps(error.validator_value))
    return f"{error.validator or 'nothing is allowed'} {wanted}"
