# SPDX-License-Identifier: AGPL-3.0-only
"""
The JSON Schema that a script's sidecar is written in: draft 2020-12, with the
patterns of ECMA-262, and nothing that is not in the file.

Nothing is ever fetched: a C{$ref} leads to somewhere in the same schema, or the
schema is not used.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from ctrlexec.errors import CtrlExecError

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
# Python's $ also stands before a last newline, and its dot for all that ends a
# line elsewhere. JSON Schema means the patterns of ECMA-262.
_PATTERN_PARTS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\$|\.", re.DOTALL)
_ECMA = {"$": r"\Z", ".": r"[^\n\r\u2028\u2029]"}
# A class that is empty there and begins with a bracket here.
_TWO_MEANINGS = ("[]", "[^]")


class SchemaError(CtrlExecError):
    """
    A sidecar can not be used.
    """


def validator_of(schema: Mapping[str, Any]) -> Any:
    """
    @return: jsonschema's validator of it, with our patterns.
    @raise SchemaError: it is no schema, or leads out of the file.
    """
    # Not a tenth of all agents has a sidecar, and this takes a tenth of a second.
    import referencing
    from jsonschema import Draft202012Validator, exceptions, validators
    from referencing.jsonschema import DRAFT202012

    try:
        Draft202012Validator.check_schema(schema)
        resource = DRAFT202012.create_resource(schema)
        registry: Any = referencing.Registry()
        _explore(registry.resolver_with_root(resource), resource)
        kind = validators.extend(Draft202012Validator, {"pattern": _pattern})
        validator = kind(
            schema,
            registry=registry,
            format_checker=Draft202012Validator.FORMAT_CHECKER,
        )
        # Finds what refers to itself without end.
        list(validator.iter_errors({}))
    except exceptions.SchemaError as error:
        raise SchemaError(f"arguments is no schema: {error.json_path}") from None
    except (referencing.exceptions.Unresolvable, LookupError):
        raise SchemaError("arguments: a $ref leads nowhere in this file") from None
    except (ArithmeticError, AttributeError, TypeError):
        # jsonschema's own: a number that no pattern can have, a $ref to what is
        # no schema. One sidecar must not keep an agent from starting.
        raise SchemaError("arguments is no schema that can be applied") from None
    return validator


def _explore(resolver: Any, resource: Any) -> None:
    """
    Follow each reference once, and compile each pattern, before there are
    values to hold against them.
    """
    schema = resource.contents
    if isinstance(schema, dict):
        if schema.get("$schema", _DIALECT).rstrip("#") != _DIALECT:
            raise SchemaError(f"arguments: the only $schema is {_DIALECT}")
        for keyword in ("$ref", "$dynamicRef"):
            if keyword in schema:
                resolver.lookup(schema[keyword])
        if "pattern" in schema:
            try:
                _compiled(schema["pattern"])
            except re.error:
                raise SchemaError("arguments: a pattern is not understood") from None
    for each in resource.subresources():
        _explore(resolver.in_subresource(each), each)


def _pattern(validator: Any, pattern: str, value: object, schema: object) -> Any:
    from jsonschema import ValidationError

    if isinstance(value, str) and not _compiled(pattern).search(value):
        yield ValidationError("does not match")


@functools.lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(_PATTERN_PARTS.sub(_translated, pattern), re.ASCII)


def _translated(part: re.Match[str]) -> str:
    if part[0].startswith(_TWO_MEANINGS):
        raise re.error("an empty class", part.string, part.start())
    return _ECMA.get(part[0], part[0])
