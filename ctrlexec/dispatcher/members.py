# SPDX-License-Identifier: AGPL-3.0-only
"""
The members of a JSON object that one program of ours has sent to another.

A member that is missing has nothing to say. One of a wrong type is a
L{ProtocolError}.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctrlexec.errors import ProtocolError

#: More than anybody waits for, and no more than a clock can count.
MOST_SECONDS = 10**9


def object_of(value: object) -> dict[str, Any]:
    """
    An object.
    """
    if not isinstance(value, dict):
        raise ProtocolError("an object was expected")
    return value


def array_of(fields: Mapping[str, Any], name: str) -> list[Any]:
    """
    A member that is an array.
    """
    value = fields.get(name, [])
    if not isinstance(value, list):
        raise ProtocolError(f"{name} must be an array")
    return value


def text_of(fields: Mapping[str, Any], name: str) -> str:
    """
    A member that is a text. It may hold half of a surrogate pair, which is how
    Python spells a byte of a command line that is none: whoever works with the
    text has to say so.
    """
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise ProtocolError(f"{name} must be a text")
    return value


def text_or_none(fields: Mapping[str, Any], name: str) -> str | None:
    """
    A member that is a text, or C{null}.
    """
    return None if fields.get(name) is None else text_of(fields, name)


def texts_of(fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """
    A member that is an array of texts.
    """
    values = array_of(fields, name)
    if not all(isinstance(value, str) for value in values):
        raise ProtocolError(f"{name} must be texts")
    return tuple(values)


def number_of(fields: Mapping[str, Any], name: str, otherwise: int = 0) -> int:
    """
    A member that is a whole number.

    @param otherwise: what it is where it is missing.
    """
    value = fields.get(name, otherwise)
    if type(value) is not int:
        raise ProtocolError(f"{name} must be a whole number")
    return value


def seconds_of(fields: Mapping[str, Any], name: str) -> float:
    """
    A member that is a span of time, for which 0 stands where it is missing.
    """
    value = fields.get(name, 0)
    if type(value) not in (int, float) or not 0 <= value <= MOST_SECONDS:
        raise ProtocolError(f"{name} must be a number of seconds")
    seconds: float = value
    return seconds


def flag_of(fields: Mapping[str, Any], name: str) -> bool:
    """
    A member that is true or false.
    """
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise ProtocolError(f"{name} must be true or false")
    return value


def path_of(fields: Mapping[str, Any], name: str) -> Path:
    """
    A member that names a file.
    """
    return Path(text_of(fields, name))
