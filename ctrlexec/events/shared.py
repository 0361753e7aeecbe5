# SPDX-License-Identifier: AGPL-3.0-only
"""
What happens on both sides.
"""

from __future__ import annotations

import attrs

from ctrlexec.events.event import Event, WarningEvent


@attrs.frozen
class Authorised(Event):
    """The auth hook has allowed something."""

    action = "auth"
    authaction: str
    user: str
    ip: str
    dispatcher: str | None = None
    result: str = "pass"


@attrs.frozen
class NotAuthorised(WarningEvent):
    """The auth hook has denied something, or could not be asked."""

    action = "auth"
    authaction: str
    user: str
    ip: str
    reason: str
    dispatcher: str | None = None
    result: str = "deny"


@attrs.frozen
class AuthHookTimedOut(WarningEvent):
    """The auth hook took too many seconds, and was killed."""

    action = "auth-hook-timeout"
    timeout: str


@attrs.frozen
class LinesLost(WarningEvent):
    """The log took no lines for a while, and so many were too much to keep."""

    action = "log-lost"
    count: int
