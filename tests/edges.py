# SPDX-License-Identifier: AGPL-3.0-only
"""
A server's connection in the hands of a test: its transport takes as much as
the test lets it, and its clock is ours.
"""

from __future__ import annotations

from typing import Any

import attrs
from OpenSSL.crypto import X509
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.protocol.exchange import Visit
from ctrlexec.protocol.http import (
    Body,
    End,
    Head,
    Parser,
    StatusLine,
    request,
)
from ctrlexec.protocol.messages import Refused
from ctrlexec.protocol.server import LINGER_SECONDS, Exchange, Peer, ServerConnection


class EdgeTransport(StringTransport):
    """
    Where a connection to a server ends: it has a certificate, and does not take
    more than there is room for.

    @ivar room: how many bytes it takes before it asks to pause.
    """

    certificate: X509 | None = None
    keep_alive = False
    aborted = False
    room = 10**9

    def getPeerCertificate(self) -> X509 | None:
        """
        See C{ISSLTransport}.
        """
        return self.certificate

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """
        See C{ITCPTransport}.
        """
        self.keep_alive = enabled

    def abortConnection(self) -> None:
        """
        See C{ITCPTransport}.
        """
        self.aborted = True
        super().abortConnection()

    def write(self, data: bytes) -> None:
        """
        Take it, and ask for a pause when the room is full.
        """
        super().write(data)
        self.room -= len(data)
        if self.room < 0 and self.producer is not None:
            self.producer.pauseProducing()

    def read_by_peer(self, count: int) -> None:
        """
        The peer has read so much: there is room again.
        """
        self.room += count
        if self.room >= 0 and self.producer is not None:
            self.producer.resumeProducing()


@attrs.define
class Host:
    """
    A handler that writes down what it is asked, and does as it is told.

    @ivar answers: what is answered, one after the other; where there is none
        left, nothing is.
    @ivar stays: whether a peer may ask again.
    """

    refusal: Refused | None = None
    stays: bool = True
    answers: list[tuple[int, bytes]] = attrs.field(factory=list)
    visits: list[Visit] = attrs.field(factory=list)
    admitted: list[Peer] = attrs.field(factory=list)
    exchanges: list[Exchange] = attrs.field(factory=list)
    failures: list[tuple[str, Failure]] = attrs.field(factory=list)
    gone: list[Visit] = attrs.field(factory=list)

    def arrived(self, visit: Visit) -> None:
        """
        See L{ctrlexec.protocol.server.Handler}.
        """
        self.visits.append(visit)

    def admit(self, peer: Peer, visit: Visit) -> Refused | None:
        """
        See L{ctrlexec.protocol.server.Handler}.
        """
        assert visit is self.visits[-1]
        self.admitted.append(peer)
        return self.refusal

    def may_stay(self, peer: Peer, visit: Visit) -> bool:
        """
        See L{ctrlexec.protocol.server.Handler}.
        """
        return self.stays

    def handle(self, exchange: Exchange) -> None:
        """
        See L{ctrlexec.protocol.server.Handler}.
        """
        self.exchanges.append(exchange)
        if self.answers:
            exchange.answer(*self.answers.pop(0))

    def handshake_failed(self, visit: Visit, reason: Failure) -> None:
        """
        See L{ctrlexec.protocol.server.Handler}.
        """
        self.failures.append((visit.address, reason))

    def ended(self, visit: Visit) -> None:
        """
        See L{ctrlexec.protocol.server.Handler}.
        """
        self.gone.append(visit)

    @property
    def asked(self) -> list[tuple[str, str, bytes]]:
        """
        The requests so far.
        """
        return [
            (e.request.method, e.request.path, e.request.body) for e in self.exchanges
        ]


@attrs.define
class Edge:
    """
    A server's connection, from its first byte.
    """

    host: Host = attrs.field(factory=Host)
    clock: Clock = attrs.field(factory=Clock)
    transport: EdgeTransport = attrs.field(
        factory=lambda: EdgeTransport(
            peerAddress=IPv4Address("TCP", "::ffff:10.0.0.7", 999)
        )
    )
    connection: ServerConnection = attrs.field(init=False)

    def connect(self, *, handshake: bool = True, **options: Any) -> Edge:
        """
        @param handshake: go on to where the handshake is done.
        @param options: for L{ServerConnection}.
        """
        options.setdefault("body_bytes", 1000)
        self.connection = ServerConnection(self.clock, self.host, **options)
        self.connection.makeConnection(self.transport)
        if handshake:
            self.connection.handshakeCompleted()
        return self

    def receive(self, *pieces: bytes) -> Edge:
        """
        The peer sends something.
        """
        for piece in pieces:
            self.connection.dataReceived(piece)
        return self

    def lose(self) -> None:
        """
        The peer goes.
        """
        self.connection.connectionLost(Failure(ConnectionDone()))

    def wait(self, seconds: float) -> None:
        """
        Time passes.
        """
        self.clock.advance(seconds)

    @property
    def sent(self) -> list[tuple[int, bytes]]:
        """
        The responses so far: status and body.
        """
        return responses(self.transport.value())


def kept(method: str = "GET", path: str = "/", body: bytes = b"") -> bytes:
    """
    A request after which the connection stays.
    """
    closing = request(method, path, body, host="a")
    return closing.replace(b"Connection: close\r\n", b"")


class ServerTestCase(SynchronousTestCase):
    """
    One connection, which leaves nothing on the clock when it is gone.
    """

    def setUp(self) -> None:
        self.host = Host()
        self.edge = Edge(self.host)
        self.transport = self.edge.transport
        self.addCleanup(self.gone)

    def gone(self) -> None:
        """
        The connection goes, and takes its deadlines along.
        """
        if not self.edge.connection._closing or self.edge.clock.getDelayedCalls():
            self.edge.lose()
        self.assertEqual(self.edge.clock.getDelayedCalls(), [])

    def connect(self, *answers: bytes, **options: Any) -> Edge:
        """
        Connect to a host that gives these answers.
        """
        self.host.answers = [(200, answer) for answer in answers]
        return self.edge.connect(**options)

    def assertClosing(self, seconds: float) -> None:
        """
        We have closed, listen for so long to what still comes, and then abort.
        """
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.transport.producerState, "producing")
        self.edge.receive(b"more of it")
        self.edge.wait(seconds - 0.1)
        self.assertFalse(self.transport.aborted)
        self.edge.wait(0.1)
        self.assertTrue(self.transport.aborted)

    def assertRefused(self, code: int, body: bytes) -> None:
        """
        One answer was given without asking the host, and we close.
        """
        self.assertEqual(self.edge.sent, [(code, body)])
        self.assertEqual(self.host.exchanges, [])
        self.assertClosing(LINGER_SECONDS)
        self.assertEqual(self.edge.sent, [(code, body)])


def responses(stream: bytes) -> list[tuple[int, bytes]]:
    """
    The responses in a stream of bytes, which must not hold anything else.
    """
    found, body = [], b""
    parser = Parser(StatusLine.parse, body_bytes=10**9)
    parser.feed(stream)
    while (event := parser.next_event()) is not None:
        match event:
            case Head(start):
                code, body = start.code, b""
            case Body(data):
                body += data
            case End.END:
                found.append((code, body))
    assert parser.between_messages, stream
    return found
