# SPDX-License-Identifier: AGPL-3.0-only
"""
The JSON Schema that a script's sidecar is written in: draft 2020-12, with the
patterns of ECMA-262, and nothing that is not in the file.

Nothing is ever fetched: a C{$ref} leads to somewhere in the same schema, or the
schema is not used.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from ctrlexec.agent.formats import FORMATS
from ctrlexec.agent.patterns import PatternError
from ctrlexec.agent.validation import TooMuchWork, Validator, Work, applied
from ctrlexec.errors import CtrlExecError

#: How many levels of schemas there are at the most, in one another or by
#: reference.
MOST_LEVELS = 50
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REFER = ("$ref", "$dynamicRef")
_ANY_ANCHOR = -1


class SchemaError(CtrlExecError):
    """
    A sidecar can not be used.
    """


def validator_of(schema: Mapping[str, Any]) -> Validator:
    """
    @raise SchemaError: it is no schema, it leads out of the file, or to apply it
        takes too long.
    """
    # Not a tenth of all agents has a sidecar, and this takes a tenth of a second.
    import referencing
    from jsonschema import exceptions

    work, ours = Work(), copy.deepcopy(dict(schema))
    try:
        survey = _Survey(work, tuple(_checked(ours).get("properties", ())))
        # What the first one rewrites, a reference may have led to.
        survey.look_through(ours)
        survey.look_through(ours)
        validator = Validator(
            ours, tuple(survey.unknown_formats), applied(ours, work), work
        )
        # Finds what takes too long whatever the values are.
        with validator.bounded():
            validator.objection({})
    except exceptions.SchemaError as error:
        raise SchemaError(f"arguments is no schema: {error.json_path}") from None
    except (referencing.exceptions.Unresolvable, LookupError):
        raise SchemaError("arguments: a $ref leads nowhere in this file") from None
    except PatternError as error:
        raise SchemaError(f"arguments: {error}") from None
    except TooMuchWork as error:
        raise SchemaError(str(error)) from None
    except (ArithmeticError, AttributeError, TypeError):
        # jsonschema's own: a $ref to what is no schema. One sidecar must not
        # keep an agent from starting.
        raise SchemaError("arguments is no schema that can be applied") from None
    return validator


def _checked(schema: Any) -> Any:
    """
    @return: the schema, which is one. Its formats are looked at elsewhere.
    """
    from jsonschema import Draft202012Validator

    if not isinstance(schema, dict | bool):
        raise SchemaError("arguments: a $ref leads to what is no schema")
    Draft202012Validator.check_schema(schema, format_checker=None)
    return schema


@attrs.define(eq=False)
class _Survey:
    """
    Looks through a schema before there are values to hold against it, and makes
    it one that jsonschema can apply with our patterns.

    @ivar names: all that a value can be called. C{argv} gives no other.
    """

    work: Work
    names: tuple[str, ...]
    unknown_formats: dict[str, None] = attrs.field(factory=dict)

    def look_through(self, schema: dict[str, Any]) -> None:
        """
        Visit all that stands in a schema or is referred to, once.
        """
        import referencing
        from referencing.jsonschema import DRAFT202012

        root = DRAFT202012.create_resource(schema)
        registry: Any = referencing.Registry()
        resolver = registry.resolver_with_root(root)
        # What stands here comes first, and what is referred to only after it.
        waiting = deque([(resolver, root, True)])
        graph = _Graph()
        while waiting:
            resolver, resource, checked = waiting.popleft()
            here = resource.contents
            if isinstance(here, bool) or graph.knows(here):
                continue
            self._visit(here if checked else _checked(here))
            referred = [resolver.lookup(here[key]) for key in _REFER if key in here]
            within = list(resource.subresources())
            graph.add(here, [each.contents for each in (*referred, *within)])
            waiting.extend(
                (each.resolver, DRAFT202012.create_resource(each.contents), False)
                for each in referred
            )
            waiting.extendleft(
                (resolver.in_subresource(each), each, True) for each in within
            )
        graph.check(schema)

    def _visit(self, schema: dict[str, Any]) -> None:
        # jsonschema takes another validator, with patterns of its own, wherever
        # it meets this key.
        if schema.pop("$schema", _DIALECT).rstrip("#") != _DIALECT:
            raise SchemaError(f"arguments: the only $schema is {_DIALECT}")
        if "pattern" in schema:
            self.work.learn(schema["pattern"])
        for source, each in schema.pop("patternProperties", {}).items():
            self.work.learn(source)
            self._spell_out(schema, source, each)
        name = schema.get("format", "regex")
        if name != "regex" and name not in FORMATS:
            self.unknown_formats[name] = None

    def _spell_out(self, schema: dict[str, Any], source: str, value: Any) -> None:
        """
        What C{patternProperties} says of the names that there are, said of each
        by C{properties}: three keywords look at the patterns, all with Python's.
        """
        for name in self.names:
            if self.work.matches(source, name):
                known = schema.setdefault("properties", {})
                if name in known:
                    schema.setdefault("allOf", []).append({"properties": {name: value}})
                else:
                    known[name] = value


@attrs.define(eq=False)
class _Graph:
    """
    Which schema leads to which, by holding it or by reference.
    """

    _below: dict[int, set[int]] = attrs.field(factory=dict)
    _anchors: set[int] = attrs.field(factory=set)

    def knows(self, schema: object) -> bool:
        """
        Whether a schema has been added.
        """
        return id(schema) in self._below

    def add(self, schema: Mapping[str, Any], below: Iterable[object]) -> None:
        """
        A schema leads to others.
        """
        self._below[id(schema)] = {id(each) for each in below}
        if "$dynamicAnchor" in schema:
            self._anchors.add(id(schema))
        if "$dynamicRef" in schema:
            # It may lead to another anchor of the name, so take it for any.
            self._below[id(schema)].add(_ANY_ANCHOR)

    def check(self, top: object) -> None:
        """
        Values have no levels, so a schema that comes back to itself is applied
        without end; and one that is applied through too many others is too much
        for the libraries, some of which can not say so.

        @raise SchemaError: so it is.
        """
        below = {**self._below, _ANY_ANCHOR: self._anchors}
        level = {id(top)}
        for _ in range(MOST_LEVELS):
            level = {each for above in level for each in below.get(above, ())}
            if not level:
                return
        raise SchemaError(
            "arguments: a $ref leads back to itself, or there are more than "
            f"{MOST_LEVELS} levels"
        )
