# SPDX-License-Identifier: AGPL-3.0-only
"""
Answers of a server that are made while they are read, for tests.
"""

from __future__ import annotations

import attrs

from ctrlexec.protocol.exchange import Streaming
from tests.edges import ServerTestCase, kept

EVENTS = "application/x-ndjson"
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n"
)


@attrs.define
class Source:
    """
    What an answer is made from.

    @ivar pieces: what is pulled, one after the other; where there is none left,
        there is nothing yet.
    @ivar asked: how often something was pulled.
    """

    pieces: list[bytes | None] = attrs.field(factory=list)
    asked: int = 0

    def pull(self) -> bytes | None:
        """
        The next piece.
        """
        self.asked += 1
        return self.pieces.pop(0) if self.pieces else b""


class Endless(Source):
    """
    What never ends.
    """

    def pull(self) -> bytes | None:
        """
        A piece.
        """
        self.asked += 1
        return b"x" * 1000


class StreamTestCase(ServerTestCase):
    """
    A connection, and one request on it.
    """

    def setUp(self) -> None:
        super().setUp()
        self.source = Source()
        self.told: list[str] = []

    def stream(self, *pieces: bytes | None, message: bytes = b"") -> Streaming:
        """
        Ask, and be answered with a stream of these pieces.
        """
        self.connect().receive(message or kept())
        return self.again(*pieces)

    def again(self, *pieces: bytes | None) -> Streaming:
        """
        Answer the last request with a stream.
        """
        self.source.pieces += pieces
        exchange = self.host.exchanges[-1]
        exchange.when_lost(lambda: self.told.append("lost"))
        streaming = exchange.stream(200, EVENTS, self.source.pull)
        self.edge.wait(0)
        return streaming

    def more(self, streaming: Streaming, *pieces: bytes | None) -> None:
        """
        There is more to tell.
        """
        self.source.pieces += pieces
        streaming.ready()
