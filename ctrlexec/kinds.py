# SPDX-License-Identifier: AGPL-3.0-only
"""
The kinds of value that a key of a settings file may hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import attrs

from ctrlexec.errors import InvalidValue
from ctrlexec.values import Rate, is_ip_address

_WHOLE = re.compile(r"[0-9]{1,18}")
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_SIZE = re.compile(r"([0-9]{1,18})([kKmMgG]?)")
_RATE_FORM = re.compile(r" *([0-9]{1,6}) */ *([0-9]{1,6}) */ *([0-9]{1,6}) *")
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}
_DURATION = re.compile(r"([0-9]{1,9})([smhd]?)")
_TIME_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST_SECONDS = 30 * 86_400
_YES = frozenset({"1", "y", "yes", "true", "on"})
_NO = frozenset({"0", "n", "no", "false", "off"})

T = TypeVar("T")


@attrs.frozen
class Partly(Generic[T]):
    """
    A value made of the good part of a text.

    @ivar remarks: what the operator should know about the rest.
    """

    value: T
    remarks: tuple[str, ...] = ()


@attrs.frozen
class Kind(Generic[T]):
    """
    A kind of value.

    @ivar expected: what a text of this kind is; completes "expected …".
    @ivar parse: makes the value of a text; raises C{ValueError}, or an
        L{InvalidValue} that knows better than C{expected} what is wrong.
    """

    expected: str
    parse: Callable[[str], T | Partly[T]]

    def read(self, text: str) -> T | Partly[T]:
        """
        @raise InvalidValue: the text is not of this kind.
        """
        try:
            return self.parse(text)
        except ValueError:
            raise InvalidValue("value", text, self.expected) from None


def number(least: int, most: int) -> Kind[int]:
    """
    A whole number in decimal digits.
    """

    def parse(text: str) -> int:
        if _WHOLE.fullmatch(text) and least <= int(text) <= most:
            return int(text)
        raise ValueError(text)

    return Kind(f"a number from {least} to {most}", parse)


def seconds(most: int) -> Kind[float]:
    """
    A span of time in seconds, longer than none.
    """

    def parse(text: str) -> float:
        if _DECIMAL.fullmatch(text) and 0 < float(text) <= most:
            return float(text)
        raise ValueError(text)

    return Kind(f"a number of seconds above 0 and up to {most}", parse)


def size(gigabytes: int) -> Kind[int]:
    """
    A number of bytes, more than none; C{k}, C{M} and C{G} count in powers of
    1024.

    @param gigabytes: the most that it may be.
    """

    def parse(text: str) -> int:
        found = _SIZE.fullmatch(text)
        size = int(found[1]) * _UNITS[found[2].lower()] if found else 0
        if 0 < size <= gigabytes * _UNITS["g"]:
            return size
        raise ValueError(text)

    expected = f"a number of bytes up to {gigabytes}G, for example 8388608, 512k or 8M"
    return Kind(expected, parse)


def choice(*words: str) -> Kind[str]:
    """
    One of some words.
    """

    def parse(text: str) -> str:
        if text in words:
            return text
        raise ValueError(text)

    return Kind(" or ".join(words), parse)


def entries(text: str, separators: str) -> list[str]:
    """
    @param separators: characters, each of which ends an entry.
    @return: the entries of a list, without the blanks round them and without
        the empty ones.
    """
    found = re.split(f"[{re.escape(separators)}]", text)
    return [entry.strip() for entry in found if entry.strip()]


def _boolean(text: str) -> bool:
    word = text.lower()
    if word in _YES or word in _NO:
        return word in _YES
    raise ValueError(text)


def _duration(text: str) -> int:
    found = _DURATION.fullmatch(text)
    span = int(found[1]) * _TIME_UNITS[found[2]] if found else 0
    if 0 < span <= _LONGEST_SECONDS:
        return span
    raise ValueError(text)


def _rate(text: str) -> Rate:
    """
    The bound on the count is one on memory: each tracked address may hold that
    many times.
    """
    found = _RATE_FORM.fullmatch(text)
    if found is None:
        raise ValueError(text)
    most, window, block = map(int, found.groups())
    if 0 < most <= 1000 and 0 < window <= 86_400 and 0 < block <= 604_800:
        return Rate(most, window, block)
    raise ValueError(text)


def _path(text: str) -> Path:
    if text:
        return Path(text)
    raise ValueError(text)


def _address_to_bind(text: str) -> str:
    if not text or is_ip_address(text):
        return text
    raise ValueError(text)


def _log(text: str) -> str | Path:
    if text in {"auto", "stderr", "syslog"}:
        return text
    if text.startswith("/"):
        return Path(text)
    raise ValueError(text)


BOOLEAN = Kind("yes or no", _boolean)
"""NEWER-LINE.md section 10.1 has the words for yes, in any case."""

SIZE = size(1)
"""What is held in memory."""

SPACE = size(1024)
"""What is not: room on disk, or of addresses."""

DURATION = Kind("a time of up to 30d such as 90, 30s, 5m or 2h", _duration)
"""How long a script may take, in whole seconds."""

RATE = Kind(
    "COUNT/SECONDS/BLOCK such as 10/60/300: up to 1000 in up to 86400 seconds, "
    "above which an address is blocked for up to 604800",
    _rate,
)
"""How often an address may do something."""

PATH = Kind("a path", _path)
"""Relative ones start at the directory of the settings file."""

PORT = number(1, 65535)
"""A TCP port to connect to."""

PORT_TO_BIND = number(0, 65535)
"""A TCP port to listen on; 0 is any free one."""

ADDRESS_TO_BIND = Kind(
    "an IPv4 or IPv6 address, or nothing for all addresses", _address_to_bind
)
"""An address to listen on."""

LOG: Kind[str | Path] = Kind("auto, stderr, syslog, or a path that starts with /", _log)
"""Where log lines go: a word, or a file."""
