# SPDX-License-Identifier: AGPL-3.0-only
"""
What the pairing listener needs of the world round it, and what it tells it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar
from typing import Protocol as Shape

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from ctrlexec.dispatcher.records import QueuedRequest
from ctrlexec.dispatcher.reverse_dns import ReverseName
from ctrlexec.protocol.messages import (
    JOIN_REFUSED,
    JoinProof,
    PairApproved,
    PairFailed,
)

T = TypeVar("T")


class Ending(enum.Enum):
    """
    How a request leaves the queue.
    """

    DELIVERED = "delivered"
    DENIED = "denied"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    UNDELIVERED = "undelivered"


class PairingWatcher(Shape):
    """
    Who wants to know what waits.
    """

    def arrived(self, request: QueuedRequest) -> None:
        """
        A request is in the queue.
        """

    def departed(self, request: QueuedRequest, ending: Ending) -> None:
        """
        It is there no more.
        """

    def abandoned(self, address: str) -> None:
        """
        Somebody began to ask, and left or was sent away when it was their turn
        to reveal what they had committed to.
        """


@attrs.frozen
class _Unwatched:
    """
    Nobody does.
    """

    def arrived(self, request: QueuedRequest) -> None:
        """
        See L{PairingWatcher}.
        """

    def departed(self, request: QueuedRequest, ending: Ending) -> None:
        """
        See L{PairingWatcher}.
        """

    def abandoned(self, address: str) -> None:
        """
        See L{PairingWatcher}.
        """


#: The watcher that nobody is.
UNWATCHED: PairingWatcher = _Unwatched()


class InThread(Shape):
    """
    Where work is done that would hold up the reactor.
    """

    def __call__(self, work: Callable[..., T], *args: Any) -> Deferred[T]:
        """
        @return: fires with what the work returns, or fails with what it raises.
        """


#: Decides on an agent that brings a join token; may block.
Joins = Callable[[QueuedRequest, JoinProof], PairApproved | PairFailed]


def _nobody_joins(request: QueuedRequest, proof: JoinProof) -> PairFailed:
    return JOIN_REFUSED


@attrs.frozen
class World:
    """
    What the listener needs of the world round it.

    @ivar names: finds the reverse DNS name of an address; never fails.
    @ivar joins: see L{Joins}.
    """

    clock: IReactorTime
    now: Callable[[], datetime]
    in_thread: InThread
    names: Callable[[str], Deferred[ReverseName]]
    joins: Joins = _nobody_joins
