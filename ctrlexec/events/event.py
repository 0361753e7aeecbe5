# SPDX-License-Identifier: AGPL-3.0-only
"""
What an event is, and how it reads as a line.
"""

from __future__ import annotations

import re
import syslog
from collections.abc import Iterable
from typing import ClassVar

import attrs

from ctrlexec.errors import one_line

_PLAIN = re.compile(r"[^\s\"\\=\x00-\x1f\x7f-\x9f\u2028\u2029]*")
_CHARACTERS = 128


@attrs.frozen
class Event:
    """
    One thing that happened. A field that is C{None} is left out of the line.
    """

    action: ClassVar[str]
    level: ClassVar[int] = syslog.LOG_INFO

    def line(self) -> str:
        """
        The event as it is logged.
        """
        fields = self.fields()
        pairs = [f"{key}={_spelled(fields[key])}" for key in sorted(fields)]
        return " ".join([f"ACTION={self.action}", *pairs])

    def fields(self) -> dict[str, str]:
        """
        What the event says, by key; its action is none of the keys.
        """
        return {
            name.rstrip("_").upper(): str(value)
            for name, value in attrs.asdict(self).items()
            if value is not None
        }


def listed(names: Iterable[str]) -> str:
    """
    Names in one value, with commas in between; a comma in a name is C{%2C}, so
    that nothing reads as two.
    """
    return ",".join(each.replace("%", "%25").replace(",", "%2C") for each in names)


def brief(text: str | None) -> str:
    """
    As much of a caller's words as a line of the log has room for; no name or id
    that is any good is longer.
    """
    text = text or ""
    if len(text) <= _CHARACTERS:
        return text
    return f"{text[:_CHARACTERS]}…"


def _spelled(value: str) -> str:
    if _PLAIN.fullmatch(value) and value.isprintable():
        return value
    escaped = one_line(value.replace("\\", "\\\\").replace('"', '\\"'))
    return f'"{escaped}"'


class WarningEvent(Event):
    """
    Something that an operator should look at.
    """

    level = syslog.LOG_WARNING


class ErrorEvent(Event):
    """
    Something that could not be done.
    """

    level = syslog.LOG_ERR
