# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.protocol.server}, with a transport and a clock of ours.
"""

from __future__ import annotations

from OpenSSL.crypto import X509
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.pki import AgentRole, parse_certificate
from ctrlexec.protocol import limits
from ctrlexec.protocol.http import request
from ctrlexec.protocol.messages import REVOKED
from ctrlexec.protocol.sending import WRITE_BYTES
from ctrlexec.protocol.server import (
    LINGER_SECONDS,
    ServerConnection,
    ServerFactory,
)
from tests.authority import issued
from tests.edges import Edge, ServerTestCase, kept


class RequestTests(ServerTestCase):
    """
    Requests and their answers.
    """

    def test_answered(self) -> None:
        """
        A request is handed over whole, with who asked; the answer closes.
        """
        self.transport.certificate = X509.from_cryptography(
            parse_certificate(issued(AgentRole("agent-one")))
        )
        self.connect(b"{}").receive(request("POST", "/run", b"[1]", host="a"))
        self.assertEqual(self.host.asked, [("POST", "/run", b"[1]")])
        peer = self.host.exchanges[0].peer
        self.assertEqual(peer.address, "10.0.0.7")
        assert peer.certificate is not None
        self.assertEqual(peer.certificate.role, AgentRole("agent-one"))
        self.assertEqual(
            self.transport.value(),
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            b"Content-Length: 2\r\nConnection: close\r\n\r\n{}",
        )
        self.assertTrue(self.transport.keep_alive)
        self.assertClosing(limits.WRITE_SECONDS)

    def test_bytewise(self) -> None:
        """
        A request can come a byte at a time.
        """
        whole = kept("POST", "/run", b"hello")
        self.connect(b"").receive(*(bytes([byte]) for byte in whole))
        self.assertEqual(self.host.asked, [("POST", "/run", b"hello")])

    def test_keepAlive(self) -> None:
        """
        A connection of HTTP/1.1 carries one request after the other.
        """
        self.connect(b"1", b"2").receive(kept(path="/a"), kept(path="/b"))
        self.assertEqual([path for _, path, _ in self.host.asked], ["/a", "/b"])
        self.assertEqual(self.edge.sent, [(200, b"1"), (200, b"2")])
        self.assertIn(b"Connection: keep-alive", self.transport.value())
        self.assertFalse(self.transport.disconnecting)

    def test_http10(self) -> None:
        """
        A client of HTTP/1.0 gets an answer of its own kind, and is left.
        """
        self.connect(b"{}").receive(request("POST", "/", b"", host="a", minor=0))
        self.assertTrue(self.transport.value().startswith(b"HTTP/1.0 200 OK\r\n"))
        self.assertClosing(limits.WRITE_SECONDS)

    def test_once(self) -> None:
        """
        A peer that may not stay has one answer, for which it is not waited
        long.
        """
        self.host.stays = False
        self.connect(b"1", b"2").receive(kept(path="/a") + kept(path="/b"))
        self.assertEqual(self.edge.sent, [(200, b"1")])
        self.assertIn(b"Connection: close\r\n", self.transport.value())
        self.assertClosing(LINGER_SECONDS)

    def test_onceAtLength(self) -> None:
        """
        A long answer, to one that may stay no longer, takes its time.
        """
        self.host.stays = False
        self.connect(b"x" * (WRITE_BYTES + 1)).receive(kept())
        self.assertClosing(limits.WRITE_SECONDS)

    def test_head(self) -> None:
        """
        C{HEAD} is answered with a body, so nothing can follow.
        """
        self.connect(b"{}").receive(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertIn(b"Connection: close\r\n", self.transport.value())
        self.assertClosing(limits.WRITE_SECONDS)

    def test_oldStyle(self) -> None:
        """
        The pairing port answers everybody as HTTP/1.0, twice if need be.
        """
        self.connect(old_style=True).receive(kept())
        self.host.exchanges[0].answer(200, b"1", more=True)
        self.assertFalse(self.transport.disconnecting)
        self.edge.wait(3600)
        self.host.exchanges[0].answer(200, b"2")
        self.assertEqual(self.edge.sent, [(200, b"1"), (200, b"2")])
        self.assertEqual(self.transport.value().count(b"HTTP/1.0 200 OK"), 2)
        self.assertClosing(limits.WRITE_SECONDS)

    def test_pipeline(self) -> None:
        """
        A thousand requests in one go are answered in order, in one loop.
        """
        stream = b"".join(kept(path=f"/{n}") for n in range(1000))
        self.connect(*(b"%d" % n for n in range(1000))).receive(stream)
        self.assertEqual(self.edge.sent, [(200, b"%d" % n) for n in range(1000)])

    def test_pipelineLater(self) -> None:
        """
        The same when each answer takes its time: none is begun before the one
        in front of it is answered.
        """
        self.connect().receive(kept(path="/a") + kept(path="/b") + kept(path="/c"))
        for n, path in enumerate(("/a", "/b", "/c"), 1):
            self.assertEqual(len(self.host.exchanges), n)
            self.assertEqual(self.host.asked[-1][1], path)
            self.host.exchanges[-1].answer(200, path.encode())
        self.assertEqual(self.edge.sent, [(200, b"/a"), (200, b"/b"), (200, b"/c")])

    def test_pipelineEnd(self) -> None:
        """
        What follows a request that closes is not read.
        """
        closing = request("GET", "/", b"", host="a")
        self.connect(b"1", b"2").receive(closing + closing)
        self.assertEqual(self.edge.sent, [(200, b"1")])

    def test_impatient(self) -> None:
        """
        A peer that sends on while its request is worked on waits with us for
        no more than a header's length, and goes on after the answer.
        """
        self.connect().receive(kept(path="/a"))
        piece = kept(path="/b")
        for _ in range(limits.HEADER_BYTES):
            if self.transport.producerState == "paused":
                break
            self.edge.receive(piece)
        self.assertLess(
            self.edge.connection._parser.buffered_bytes,
            limits.HEADER_BYTES + len(piece) + 1,
        )
        self.host.exchanges[0].answer(200, b"1")
        self.assertEqual(self.transport.producerState, "producing")
        self.assertEqual(self.host.asked[-1][1], "/b")

    def test_impatientClosing(self) -> None:
        """
        The same when the answer closes: what was held back is read into
        nothing, so that the peer gets the answer and no reset.
        """
        self.connect().receive(request("GET", "/", b"", host="a"))
        self.edge.receive(b"x" * (limits.HEADER_BYTES + 1))
        self.assertEqual(self.transport.producerState, "paused")
        self.host.exchanges[0].answer(200, b"1")
        self.assertClosing(limits.WRITE_SECONDS)

    def test_chunked(self) -> None:
        """
        A request may come in chunks.
        """
        head = b"POST /run HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.connect(b"").receive(head, b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")
        self.assertEqual(self.host.asked, [("POST", "/run", b"hello")])

    def test_continue(self) -> None:
        """
        A client that waits to be told sends its body once it is.
        """
        head = b"POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: %d\r\n\r\n"
        self.connect(b"{}").receive(head % 2)
        self.assertEqual(self.transport.value(), b"HTTP/1.1 100 Continue\r\n\r\n")
        self.edge.receive(b"ab")
        self.assertEqual(self.host.asked, [("POST", "/", b"ab")])

    def test_continueRefused(self) -> None:
        """
        It is not told to send what is too large.
        """
        head = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
        self.connect().receive(head % 1001)
        self.assertRefused(413, b'{"error":"request too large"}')

    def test_answeredTwice(self) -> None:
        """
        A second last answer never becomes the answer to the next request.
        """
        self.connect().receive(kept(path="/a") + kept(path="/b"))
        first = self.host.exchanges[0]
        first.answer(200, b"a")
        first.answer(200, b"again")
        self.host.exchanges[1].answer(200, b"b")
        self.assertEqual(self.edge.sent, [(200, b"a"), (200, b"b")])


class RefusalTests(ServerTestCase):
    """
    What no handler is asked about: PROTOCOL.md section 2.
    """

    def test_notAdmitted(self) -> None:
        """
        A revoked certificate is refused before a byte of a request is read.
        """
        self.host.refusal = REVOKED
        self.connect()
        self.assertRefused(403, b'{"error":"certificate revoked"}')
        self.assertTrue(self.transport.value().startswith(b"HTTP/1.0 403 Forbidden\r"))

    def test_empty(self) -> None:
        """
        An empty request.
        """
        self.connect().receive(b"\r\n")
        self.assertRefused(400, b'{"error":"empty request"}')

    def test_rubbish(self) -> None:
        """
        What is no request at all.
        """
        self.connect().receive(b"SSH-2.0-OpenSSH\r\n")
        self.assertRefused(400, b'{"error":"malformed request line"}')

    def test_manyHeaders(self) -> None:
        """
        32 lines of header are taken, 33 are not.
        """
        self.connect(b"").receive(b"GET / HTTP/1.1\r\n", b"A: b\r\n" * 32, b"\r\n")
        self.assertEqual(self.edge.sent, [(200, b"")])
        self.host.exchanges.clear()
        self.transport.clear()
        self.edge.receive(b"GET / HTTP/1.1\r\n", b"A: b\r\n" * 33, b"\r\n")
        self.assertRefused(431, b'{"error":"too many headers"}')

    def test_tooLarge(self) -> None:
        """
        A body that is too large is refused before it is read; what comes of it
        is not kept.
        """
        self.connect(body_bytes=10)
        self.edge.receive(b"POST / HTTP/1.1\r\nContent-Length: 11\r\n\r\n" + b"x" * 11)
        self.assertRefused(413, b'{"error":"request too large"}')
        self.assertLess(self.edge.connection._parser.buffered_bytes, 12)

    def test_otherWords(self) -> None:
        """
        A server may have words of its own for a refusal.
        """
        self.connect(
            refusal=lambda peer, refused: (
                200,
                f"{peer.address} {refused.code}".encode(),
            )
        )
        self.edge.receive(b"\r\n")
        self.assertRefused(200, b"10.0.0.7 400")


class FactoryTests(SynchronousTestCase):
    """
    L{ServerFactory}
    """

    def test_builds(self) -> None:
        """
        Each peer has a connection of its own, with the factory's settings.
        """
        edge = Edge()
        factory = ServerFactory(edge.clock, edge.host, body_bytes=1)
        connections = [factory.buildProtocol(edge.transport.getPeer()) for _ in "ab"]
        self.assertIsNot(*connections)
        for connection in connections:
            assert isinstance(connection, ServerConnection)
            edge.transport.clear()
            connection.makeConnection(edge.transport)
            connection.handshakeCompleted()
            connection.dataReceived(b"GET / HTTP/1.1\r\nContent-Length: 2\r\n\r\n")
            self.assertEqual(edge.sent, [(413, b'{"error":"request too large"}')])
            edge.transport.disconnecting = False
            connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(edge.clock.getDelayedCalls(), [])
