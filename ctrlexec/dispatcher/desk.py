# SPDX-License-Identifier: AGPL-3.0-only
"""
What lies before an operator at the pairing port, and what a key means.

Each request has a number that no other one gets, so C{a1} approves what it
approved when it was typed or nothing. A key without a number is for the one
request that waits; where another came or went since the operator saw which
that is, it means nothing until the operator has looked again. Otherwise an
agent could slip in under the hand that approves its neighbour.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs

from ctrlexec.dispatcher.records import QueuedRequest
from ctrlexec.errors import Conflict, NotFound, abbreviated

_KEY = re.compile(r"(a|approve|legacy|d|deny|s|skip)\s*([1-9][0-9]{0,8})?")


@attrs.frozen
class Approve:
    """C{a}, or C{a1}."""

    number: int | None


@attrs.frozen
class ApproveLegacy:
    """C{legacy}, or C{legacy1}: the word is the point of it."""

    number: int | None


@attrs.frozen
class Deny:
    """C{d}, or C{d1}."""

    number: int | None


@attrs.frozen
class Skip:
    """C{s}, or C{s1}."""

    number: int | None


@attrs.frozen
class Listing:
    """C{list}."""


@attrs.frozen
class Quit:
    """C{quit}."""


@attrs.frozen
class Nothing:
    """An empty line."""


@attrs.frozen
class Unclear:
    """
    @ivar text: what is wrong with it.
    """

    text: str


Command = Approve | ApproveLegacy | Deny | Skip | Listing | Quit | Nothing | Unclear


def parse_command(line: str) -> Command:
    """
    Read what an operator has typed: PROTOCOL.md section 7.
    """
    text = line.strip().lower()
    match text:
        case "":
            return Nothing()
        case "list" | "l":
            return Listing()
        case "quit" | "q" | "exit":
            return Quit()
    found = _KEY.fullmatch(text)
    if found is None:
        return Unclear(f"{abbreviated(line.strip())} is no command")
    number = int(found[2]) if found[2] else None
    match found[1][0]:
        case "a":
            return Approve(number)
        case "l":
            return ApproveLegacy(number)
        case "d":
            return Deny(number)
        case _:
            return Skip(number)


@attrs.define
class Desk:
    """
    The requests that wait, and which of them a bare key means.
    """

    _waiting: dict[int, QueuedRequest] = attrs.field(factory=dict, init=False)
    _last: int = attrs.field(default=0, init=False)
    _meant: int | None = attrs.field(default=None, init=False)
    _surprised: bool = attrs.field(default=False, init=False)
    _decided: set[int] = attrs.field(factory=set, init=False)

    def arrive(self, request: QueuedRequest) -> int:
        """
        @return: the request's number.
        """
        alone = not self._waiting and not self._surprised
        self._last += 1
        self._waiting[self._last] = request
        self._meant = self._last if alone else None
        self._surprised = not alone
        return self._last

    def depart(self, reqid: str) -> int:
        """
        A request has left, whoever saw to that.

        @return: its number; 0 for one that never arrived.
        """
        number = next((n for n, r in self._waiting.items() if r.id == reqid), 0)
        self._waiting.pop(number, None)
        if number not in self._decided:
            self._surprised = True
        elif not self._waiting:
            self._surprised = False
        self._decided.discard(number)
        self._meant = None
        return number

    def listed(self) -> Sequence[tuple[int, QueuedRequest]]:
        """
        All that wait, which the operator is about to see.
        """
        self._surprised = False
        self._meant = next(iter(self._waiting)) if len(self._waiting) == 1 else None
        return sorted(self._waiting.items())

    def meant(self, number: int | None) -> tuple[int, QueuedRequest]:
        """
        @param number: as typed; C{None} for a bare key.
        @return: the request that a key is about.
        @raise NotFound: there is none of that number, or none at all.
        @raise Conflict: it is not clear which one is meant.
        """
        if number is None:
            if not self._waiting:
                raise NotFound("nobody waits")
            if self._meant is None:
                raise Conflict(
                    "which one?", hint="give its number, as in a1, or look with list"
                )
            number = self._meant
        if number not in self._waiting:
            raise NotFound(f"no request {number} is waiting")
        return number, self._waiting[number]

    def skip(self, number: int) -> None:
        """
        The operator leaves a request for later: no bare key means it now.
        """
        if self._meant == number:
            self._meant = None

    def deciding(self, number: int) -> None:
        """
        The operator decides on a request, so that it leaves is no surprise.
        """
        self._decided.add(number)

    def undecided(self, number: int) -> None:
        """
        It did not come to that.
        """
        self._decided.discard(number)
