# SPDX-License-Identifier: AGPL-3.0-only
"""
C{<script>.schema.json}: what arguments a script takes (NEWER-LINE.md section
9), as the host describes it beside the script.

The original only shows it to callers; here the arguments must fit.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import attrs

from ctrlexec.agent.dialect import MOST_LEVELS, SchemaError, validator_of
from ctrlexec.agent.tokens import MOST_TOKENS, Literal, Slot, why_unfit
from ctrlexec.agent.validation import Hidden, TooMuchWork, Validator
from ctrlexec.errors import StoreError, abbreviated
from ctrlexec.files import read_bounded
from ctrlexec.placement import why_exposed

SCHEMA_BYTES = 65_536
_MOST_ITEMS = 100
_MOST_LEVELS = 100
_MOST_ENTRIES = 2000
_ITEM_KEYS = {"arg", "flag", "repeat"}
_VERSION = re.compile(r"(?!sha256:)[A-Za-z0-9._-]{1,64}")
_SAMPLES = ("", 1, True)
_SCALARS = frozenset({"integer", "number", "boolean", "string"})
_KEYWORDS = {
    "number": {
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
    },
    "string": {"pattern", "minLength", "maxLength", "format"},
}


@attrs.frozen
class Rules:
    """
    What the arguments of a script must fit.

    @ivar template: how values become arguments.
    @ivar validator: of all values together, and of each.
    """

    template: tuple[Literal | Slot, ...]
    validator: Validator

    def why_unfit(self, tokens: Sequence[str]) -> str | None:
        """
        @return: what is wrong with the arguments of a run, or C{None}.
        """
        hidden = [Hidden(token) for token in tokens[: MOST_TOKENS + 1]]
        try:
            with self.validator.bounded():
                return why_unfit(self.template, hidden, self.check, self._judge)
        except TooMuchWork as error:
            return str(error)
        except (ArithmeticError, RecursionError):
            # A number beyond what a float holds, in the schema or in a value.
            return "the schema of the script can not be applied"

    def check(self, slot: Slot, value: object) -> str:
        """
        What one value has against it, in words; empty if nothing.
        """
        schema = self.validator.schema["properties"][slot.name]
        if slot.repeat:
            schema = schema.get("items", True) if isinstance(schema, dict) else schema
        return self.validator.why_unfit(value, schema)

    def _judge(self, values: Mapping[str, object]) -> str:
        for name in self.validator.schema.get("required", ()):
            if name not in values:
                return f"argument {name!r} is missing"
        reason, blamed = self.validator.objection(values)
        if blamed:
            return f"argument {blamed!r} does not fit: {reason}"
        return reason and f"the arguments do not fit: {reason}"


@attrs.frozen
class Schema:
    """
    @ivar document: the sidecar as it stands.
    @ivar version: its own, or one made of its content.
    @ivar rules: C{None} where it says nothing of arguments.
    @ivar remark: what is odd about its version, or an empty string.
    """

    document: Mapping[str, Any]
    version: str
    rules: Rules | None = None
    remark: str = ""

    @property
    def unknown_formats(self) -> tuple[str, ...]:
        """
        What the C{format}s of the arguments ask for and nobody here can check.
        """
        return self.rules.validator.unknown_formats if self.rules else ()


@attrs.frozen
class Unusable:
    """
    There is a sidecar, and it says nothing that one could hold to.
    """

    reason: str


def load_schema(script: Path) -> Schema | Unusable | None:
    """
    @param script: as the allowlist has it.
    @return: C{None} where a script has no sidecar.
    """
    path = script.with_name(f"{script.name}.schema.json")
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return Unusable(f"{path} can not be looked at: {error.strerror}")
    if exposed := why_exposed(path):
        return Unusable(exposed)
    try:
        return parse_schema(read_bounded(path, SCHEMA_BYTES))
    except FileNotFoundError:
        return Unusable(f"{path} leads nowhere")
    except (SchemaError, StoreError) as error:
        return Unusable(str(error))


def parse_schema(data: bytes) -> Schema:
    """
    @raise SchemaError: it is no JSON object, or what it says of arguments can
        not be held to.
    """
    try:
        document = json.loads(
            data.decode("utf-8"), parse_constant=_no_constant, parse_float=_finite
        )
        if not isinstance(document, dict):
            raise SchemaError("it is not a JSON object")
        _check_shape(document, _MOST_LEVELS)
        version, remark = _version(document)
        return Schema(document, version, _rules(document), remark)
    except (ValueError, RecursionError):
        raise SchemaError("it is not JSON that can be read") from None


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _finite(text: str) -> float:
    """
    1e999 reads as infinity, which C{/capabilities} could not write as JSON.
    """
    number = float(text)
    if math.isinf(number):
        raise ValueError(text)
    return number


def _check_shape(document: object, most_levels: int) -> None:
    """
    What can be read just so could not be written, from deeper in the program,
    and jsonschema compares the entries of some lists each with each.
    """
    level, depth = [document], 0
    while level:
        depth += 1
        if depth > most_levels:
            raise SchemaError(f"it has more than {most_levels} levels")
        below = [each for each in level if isinstance(each, (dict, list))]
        if any(len(each) > _MOST_ENTRIES for each in below):
            raise SchemaError(f"a list of it has more than {_MOST_ENTRIES} entries")
        level = [
            value
            for each in below
            for value in (each.values() if isinstance(each, dict) else each)
        ]


def _version(document: Mapping[str, Any]) -> tuple[str, str]:
    given = document.get("version")
    if isinstance(given, str) and _VERSION.fullmatch(given):
        return given, ""
    canonical = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    remark = "" if given is None else "version is no word of letters, digits, . _ -"
    return f"sha256:{digest[:12]}", remark


def _rules(document: Mapping[str, Any]) -> Rules | None:
    if "arguments" not in document and "argv" not in document:
        return None
    arguments = document.get("arguments", {})
    if not isinstance(arguments, dict) or arguments.get("type", "object") != "object":
        raise SchemaError("arguments is not the schema of an object")
    _check_shape(arguments, MOST_LEVELS)
    validator = validator_of(arguments)
    properties = arguments.get("properties", {})
    argv = document.get("argv")
    if argv is None:
        argv = [
            {"arg": name, "repeat": _types(each) == {"array"}}
            for name, each in properties.items()
        ]
    if not isinstance(argv, list) or len(argv) > _MOST_ITEMS:
        raise SchemaError(f"argv is not an array of at most {_MOST_ITEMS} items")
    template = tuple(_item(each, arguments, properties) for each in argv)
    rules = Rules(template, validator)
    _try_out(rules)
    return rules


def _try_out(rules: Rules) -> None:
    """
    Hold some value of each type against what each argument must be: a schema
    that can not be applied is found here, and not by the first caller.
    """
    slots = [item for item in rules.template if isinstance(item, Slot)]
    try:
        with rules.validator.bounded():
            for slot, sample in product(slots, _SAMPLES):
                rules.check(slot, sample)
    except TooMuchWork as error:
        raise SchemaError(str(error)) from None
    except (ArithmeticError, AttributeError, TypeError):
        raise SchemaError("arguments is no schema that can be applied") from None


def _item(
    item: Any, arguments: Mapping[str, Any], properties: Mapping[str, Any]
) -> Literal | Slot:
    match item:
        case str():
            return Literal(item)
        case {"arg": str(name)} if name in properties and item.keys() <= _ITEM_KEYS:
            flag, repeat = item.get("flag", ""), item.get("repeat", False)
            # What both together mean, nobody has said.
            sound = isinstance(flag, str) and isinstance(repeat, bool)
            if sound and not (flag and repeat):
                required = name in arguments.get("required", ())
                return _slot(name, properties[name], flag, repeat, required)
    raise SchemaError(f"argv: {abbreviated(json.dumps(item))} is not understood")


def _slot(name: str, schema: Any, flag: str, repeat: bool, required: bool) -> Slot:
    plain = schema if isinstance(schema, dict) else {}
    types = _types(plain.get("items", True) if repeat else plain)
    if not types & _SCALARS:
        raise SchemaError(f"argument {name!r} has no type that an argument can have")
    return Slot(
        name,
        types & _SCALARS,
        flag,
        repeat,
        # What has a default is never left out.
        droppable=not required and "default" not in plain,
        least=int(plain.get("minItems", 0)),
        most=min(int(plain.get("maxItems", MOST_TOKENS)), MOST_TOKENS),
    )


def _types(schema: Any) -> frozenset[str]:
    """
    The JSON types that a value of a schema can have. Where it does not say, its
    other keywords do: they hold for one type only, and a value of another would
    pass them by.
    """
    match schema:
        case {"type": str(one)}:
            return frozenset({one})
        case {"type": [*several]}:
            return frozenset(several)
        case {}:
            meant = [{name} for name, each in _KEYWORDS.items() if each & schema.keys()]
            return _SCALARS.intersection(*meant)
    return _SCALARS
