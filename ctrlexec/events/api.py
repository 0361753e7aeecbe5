# SPDX-License-Identifier: AGPL-3.0-only
"""
What happens in the API.
"""

from __future__ import annotations

import attrs

from ctrlexec.events.event import ErrorEvent, Event, WarningEvent


@attrs.frozen
class ApiStarted(Event):
    """The API listens; C{bind} is an address or C{unix:/path}."""

    action = "api-start"
    port: int
    bind: str
    tls: str


@attrs.frozen
class ApiStopped(Event):
    """The API has stopped; so many runs are not waited for any more."""

    action = "api-stop"
    runs: int


@attrs.frozen
class ApiRequested(Event):
    """
    A request was answered. C{user} is known, not claimed: it comes from the
    unix socket.
    """

    action = "api-request"
    method: str
    path: str
    peer: str
    len: int
    status: int
    user: str | None = None


@attrs.frozen
class ApiFailed(ErrorEvent):
    """
    A request was not answered as it should have been, and that is no fault of
    the client's.
    """

    action = "api-fail"
    method: str
    path: str
    error: str


@attrs.frozen
class ApiReloaded(Event):
    """The settings were read again, and are in force."""

    action = "reload"
    status: str


@attrs.frozen
class ApiOverloaded(WarningEvent):
    """A request was turned away, since so many are under way."""

    action = "api-overload"
    peer: str
    live: int
