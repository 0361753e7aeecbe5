# SPDX-License-Identifier: AGPL-3.0-only
"""
What a connection to the API knows of the socket that it came in by.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from ctrlexec.api.problems import Answer

if TYPE_CHECKING:
    from ctrlexec.api.channel import Channel


class Place(Protocol):
    """
    Where a channel belongs: L{ctrlexec.api.http.ApiSite}.
    """

    reactor: IReactorTime
    #: How much of unfinished bodies its channels hold.
    body_bytes: int
    #: How long a peer may take to read what there is.
    read_seconds: float

    @property
    def requestFactory(self) -> Callable[[Channel], Request]:
        """
        Makes the requests that arrive.
        """

    def make_room(self, channel: Channel) -> bool:
        """
        Turn away another one that holds part of a body.

        @return: whether there was one.
        """

    def refused(self, channel: Channel, answer: Answer) -> None:
        """
        Something arrived that was no request.
        """

    def rested(self, channel: Channel) -> None:
        """
        A connection has been of use, and waits for its next request.
        """

    def ended(self, channel: Channel) -> None:
        """
        A connection is over.
        """
