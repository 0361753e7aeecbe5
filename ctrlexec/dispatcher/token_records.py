# SPDX-License-Identifier: AGPL-3.0-only
"""
What a dispatcher writes down about a join token, and what makes a claim to one
a good one: C{docs/pairing.md}, "Joining without a person".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs

from ctrlexec.dispatcher.orders import MOST_USES, TokenOrder
from ctrlexec.errors import InvalidValue, ProtocolError, StoreError
from ctrlexec.joining import Joining, JoinSecret
from ctrlexec.protocol.fields import from_json, to_json
from ctrlexec.values import from_iso_time, iso_time

_KEY = re.compile("[0-9a-f]{64}")
# As much of a commitment as tells two of them apart.
_SPENT_CHARACTERS = 32


@attrs.frozen(kw_only=True)
class JoinToken:
    """
    A join token, as the dispatcher keeps it.

    @ivar key: L{ctrlexec.joining.JoinSecret.key}, in hex.
    @ivar name: see L{ctrlexec.dispatcher.orders.TokenOrder}.
    @ivar created: when, in ISO 8601.
    @ivar expires: from when on it is good for nothing, likewise.
    @ivar user: who has made it.
    @ivar spent: what each use was spent on, the first characters of a
        commitment: no request counts twice.
    """

    id: str
    key: str = attrs.field(repr=False)
    name: str
    tags: Mapping[str, str]
    uses: int
    created: str
    expires: str
    user: str
    spent: tuple[str, ...] = ()

    @classmethod
    def new(
        cls, secret: JoinSecret, order: TokenOrder, now: datetime, user: str
    ) -> JoinToken:
        """
        @param secret: what the agent is given.
        """
        return cls(
            id=secret.id,
            key=secret.key.hex(),
            name=order.name,
            tags=dict(order.tags),
            uses=order.uses,
            created=iso_time(now),
            expires=iso_time(now + order.ttl),
            user=user,
        )

    @property
    def left(self) -> int:
        """
        How many may still join with it.
        """
        return max(0, self.uses - len(self.spent))

    def is_over(self, now: datetime) -> bool:
        """
        Whether its time is over.
        """
        return now >= from_iso_time(self.expires)

    def spend(self, commitment: str) -> JoinToken:
        """
        The token with one use less.
        """
        return attrs.evolve(self, spent=(*self.spent, _mark(commitment)))


@attrs.frozen
class Claim:
    """
    An agent says that it has a token.

    @ivar id: the token's.
    @ivar proof: as the agent has sent it, 64 hex characters.
    """

    id: str
    joining: Joining
    proof: str = attrs.field(repr=False)


@attrs.frozen
class NotRedeemed:
    """
    A claim that gives nothing.

    @ivar reason: why, for the log and nobody else.
    """

    reason: str


def why_not(token: JoinToken, claim: Claim, now: datetime) -> str:
    """
    @return: what is wrong with a claim to a token; empty where nothing is.
    """
    if not claim.joining.is_proved(bytes.fromhex(token.key), claim.proof):
        return "the proof is wrong"
    if token.is_over(now):
        return "the token has expired"
    if _mark(claim.joining.commitment) in token.spent:
        return "the request was made before"
    if not token.left:
        return "the token is used up"
    if token.name and token.name != claim.joining.name:
        return f"the token is for {token.name}"
    return ""


# --- files ---------------------------------------------------------------


def encode_token(token: JoinToken) -> bytes:
    """
    @return: what the token's file holds.
    """
    return to_json(attrs.asdict(token)) + b"\n"


def decode_token(path: Path, data: bytes) -> JoinToken:
    """
    @param path: the token's file, which is named after its id.
    @raise StoreError: anything in it is not as we write it. Then it is good for
        nothing.
    """
    try:
        fields = from_json(data)
        token = JoinToken(
            id=_text(fields, "id"),
            key=_text(fields, "key"),
            name=_text(fields, "name"),
            tags=_texts(fields["tags"]),
            uses=_count(fields["uses"]),
            created=_text(fields, "created"),
            expires=_text(fields, "expires"),
            user=_text(fields, "user"),
            spent=_spent(fields["spent"]),
        )
        from_iso_time(token.created), from_iso_time(token.expires)
    except (ProtocolError, InvalidValue, KeyError, TypeError, ValueError):
        raise StoreError(path, "is cut off, or was not written by us") from None
    if token.id != path.stem or not _KEY.fullmatch(token.key):
        raise StoreError(path, "is not the join token that it is named after")
    return token


def _text(fields: Mapping[str, Any], name: str) -> str:
    if not isinstance(fields[name], str):
        raise TypeError(name)
    text: str = fields[name]
    return text


def _texts(pairs: Mapping[Any, Any]) -> dict[Any, str]:
    if not isinstance(pairs, dict):
        raise TypeError
    for value in pairs.values():
        if not isinstance(value, str):
            raise TypeError
    return pairs


def _spent(marks: object) -> tuple[str, ...]:
    if not isinstance(marks, list):
        raise TypeError
    return tuple(_texts(dict(enumerate(marks))).values())


def _count(value: object) -> int:
    if type(value) is not int or not 1 <= value <= MOST_USES:
        raise TypeError
    return value


def _mark(commitment: str) -> str:
    return commitment[:_SPENT_CHARACTERS]
