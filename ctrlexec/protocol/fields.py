# SPDX-License-Identifier: AGPL-3.0-only
"""
JSON objects as all of our messages and files spell them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ctrlexec.errors import ProtocolError

_MOST_QUOTES = 4 * 2**20


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
