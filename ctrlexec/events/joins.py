# SPDX-License-Identifier: AGPL-3.0-only
"""
What happens on a dispatcher where agents join without a person.
"""

from __future__ import annotations

import attrs

from ctrlexec.events.event import Event, WarningEvent


@attrs.frozen
class JoinTokenCreated(Event):
    """There is a new join token; C{name} is the only one it is good for."""

    action = "join-token-create"
    token_id: str
    uses: int
    expires: str
    user: str
    name: str | None = None
    tags: str | None = None


@attrs.frozen
class JoinTokenRevoked(Event):
    """A person has made a join token useless."""

    action = "join-token-revoke"
    token_id: str
    user: str


@attrs.frozen
class Joined(Event):
    """A join token has let an agent in; so many uses are left. C{replaced} if
    there was an agent of that name."""

    action = "join"
    agent: str
    ip: str
    left: int
    reqid: str
    token_id: str
    replaced: str | None = None


@attrs.frozen
class JoinRefused(WarningEvent):
    """Somebody brought a join token that will not do. They are not told why."""

    action = "join-refused"
    agent: str
    ip: str
    reason: str
    reqid: str
    token_id: str


@attrs.frozen
class JoinsOff(WarningEvent):
    """Nobody can join through this pairing port."""

    action = "join-off"
    reason: str
