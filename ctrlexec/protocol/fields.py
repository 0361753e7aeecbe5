# SPDX-License-Identifier: AGPL-3.0-only
"""
JSON objects as all of our messages and files spell them, and what they hold.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from ctrlexec.errors import ProtocolError

#: How much of an error in a peer's words is worth showing.
ERROR_CHARACTERS = 1000
#: How much an answer may hold beside text. That of a script can be long; but one
#: agent that answers with millions of empty lists must not take all of a
#: dispatcher's memory, or stop it for as long as it takes to read them.
MOST_PARTS = 65_536
_MOST_QUOTES = 4 * 2**20
_CHARACTERS = 4096
# What JSON's numbers can count to, wherever they are read.
_MOST = 2**53


def to_json(fields: Mapping[str, Any]) -> bytes:
    """
    ASCII only, so that it reads the same whatever a peer takes for the text's
    encoding.
    """
    return json.dumps(fields, separators=(",", ":")).encode("ascii")


def from_json(text: bytes) -> dict[str, Any]:
    """
    @raise ProtocolError: the text is not JSON, or not an object.
    """
    try:
        value = json.loads(text.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ProtocolError("invalid JSON") from None
    if not isinstance(value, dict):
        raise ProtocolError("invalid JSON")
    return value


def parts(text: bytes) -> int:
    """
    How much there is in some JSON beside what its strings hold, at the least:
    each value and each name costs memory and time, a character of a string
    hardly any.
    """
    # A quote that a string holds follows a backslash, and so do backslashes.
    bare = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    quotes = bare.count(b'"')
    # What has more than that is not looked at in detail, as that costs, too.
    if quotes > _MOST_QUOTES:
        return quotes
    return quotes + sum(map(len, bare.split(b'"')[::2]))


def _no_constant(name: str) -> None:
    raise ValueError(name)


def is_sound(text: str) -> bool:
    """
    JSON can spell half of a surrogate pair, which no encoding can carry on.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


# --- what a message holds -------------------------------------------------


def answer_fields(body: bytes, most_parts: int = MOST_PARTS) -> dict[str, Any]:
    """
    The fields of a peer's answer.

    @param most_parts: how much it may hold beside text.
    """
    if parts(body) > most_parts:
        raise ProtocolError("the answer is too large")
    try:
        return from_json(body)
    except ProtocolError:
        raise ProtocolError("the answer is not a JSON object") from None


def ok_fields(
    body: bytes, otherwise: str, most_parts: int = MOST_PARTS
) -> dict[str, Any]:
    """
    The fields of an answer that says that all went well.

    @param otherwise: the error of one that says neither that nor why not.
    @param most_parts: how many values may be in it.
    """
    fields = answer_fields(body, most_parts)
    if text_field(fields, "status") != "ok":
        error = text_field(fields, "error")[:ERROR_CHARACTERS]
        raise ProtocolError(error or otherwise)
    return fields


def text_field(fields: Mapping[str, Any], name: str) -> str:
    """
    A text; an empty one where there is none.
    """
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or not is_sound(value):
        raise ProtocolError(f"{name} must be a string")
    return value


def integer_field(fields: Mapping[str, Any], name: str) -> int:
    """
    A whole number, which must be there.
    """
    value = fields.get(name)
    # The original's numbers can be strings.
    if isinstance(value, str) and re.fullmatch("-?[0-9]{1,9}", value):
        return int(value)
    if type(value) is not int:
        raise ProtocolError(f"the answer has no {name} that is a number")
    return value


def count_field(fields: Mapping[str, Any], name: str) -> int:
    """
    How many; 0 where that is not said.
    """
    value = fields.get(name)
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= _MOST:
        raise ProtocolError(f"{name} must be a whole number from 0 to 2^53")
    return value


def seconds_field(fields: Mapping[str, Any], name: str) -> float:
    """
    A time, or how long something took; 0 where that is not said.
    """
    value = fields.get(name)
    if value is None:
        return 0.0
    if type(value) not in (int, float) or not -_MOST <= value <= _MOST:
        raise ProtocolError(f"{name} must be a number of seconds")
    return float(value)


def short_text(value: object, name: str) -> str:
    """
    A text that is not long. The original's can be numbers.
    """
    if type(value) is int or (isinstance(value, float) and math.isfinite(value)):
        value = str(value)
    if isinstance(value, str) and len(value) > _CHARACTERS:
        raise ProtocolError(f"{name} is too long")
    return text_field({name: value}, name)


def truth_field(fields: Mapping[str, Any], name: str) -> bool:
    """
    A field of which the contract says no more than that it is true, or is not: as
    Perl has it.
    """
    value = fields.get(name)
    return not (value in (None, "", "0") or value == 0)


def flag_field(fields: Mapping[str, Any], name: str) -> bool:
    """
    The original's booleans can be numbers, and its numbers strings.
    """
    value = fields.get(name)
    if value is not None and value not in (True, False, 1, 0, "1", "0", ""):
        raise ProtocolError(f"{name} must be true or false")
    return value in (True, 1, "1")
