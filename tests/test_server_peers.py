# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.protocol.server}: peers that are slow, or go.
"""

from __future__ import annotations

from OpenSSL.crypto import X509
from twisted.internet.error import ConnectionDone

from ctrlexec.errors import PkiError
from ctrlexec.pki import parse_certificate
from ctrlexec.protocol import limits
from ctrlexec.protocol.http import request
from ctrlexec.protocol.messages import Refused
from ctrlexec.protocol.sending import WRITE_BYTES
from ctrlexec.protocol.server import LINGER_SECONDS
from tests.authority import handmade
from tests.edges import Edge, Host, ServerTestCase, kept

ROLE = "urn:ctrl-exec:agent:"


class DeadlineTests(ServerTestCase):
    """
    How long a peer may take.
    """

    def test_handshake(self) -> None:
        """
        A peer that never finishes its handshake is dropped without a word.
        """
        self.connect(handshake=False)
        self.edge.wait(limits.HEADER_SECONDS - 0.1)
        self.assertFalse(self.transport.aborted)
        self.edge.wait(0.1)
        self.assertTrue(self.transport.aborted)
        self.assertEqual(self.transport.value(), b"")

    def test_slowHeader(self) -> None:
        """
        A byte a second is not enough: the time runs from the start of the
        connection, whenever the first byte comes.
        """
        self.connect()
        for _ in range(int(limits.HEADER_SECONDS) - 1):
            self.edge.wait(1)
            self.edge.receive(b"G")
        self.assertEqual(self.edge.sent, [])
        self.edge.wait(1)
        self.assertRefused(408, b'{"error":"request timeout"}')

    def test_lateHandshake(self) -> None:
        """
        A handshake that takes long leaves less time for the request.
        """
        self.connect(handshake=False)
        self.edge.wait(limits.HEADER_SECONDS - 1)
        self.edge.connection.handshakeCompleted()
        self.edge.receive(b"G")
        self.edge.wait(1)
        self.assertRefused(408, b'{"error":"request timeout"}')

    def test_slowBody(self) -> None:
        """
        A body has a time of its own.
        """
        self.connect().receive(b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\n")
        for _ in range(int(limits.BODY_SECONDS) - 1):
            self.edge.wait(1)
            self.edge.receive(b"x")
        self.assertEqual(self.edge.sent, [])
        self.edge.wait(1)
        self.assertRefused(408, b'{"error":"request timeout"}')

    def test_idle(self) -> None:
        """
        Between two requests a peer may be silent for a while, and is left
        without a word.
        """
        self.connect(b"1").receive(kept())
        self.transport.clear()
        self.edge.wait(limits.IDLE_SECONDS - 0.1)
        self.assertFalse(self.transport.disconnecting)
        self.edge.wait(0.1)
        self.assertEqual(self.transport.value(), b"")
        self.assertClosing(LINGER_SECONDS)

    def test_slowNext(self) -> None:
        """
        The next request's time runs from its own first byte.
        """
        self.connect(b"1").receive(kept())
        self.transport.clear()
        self.host.exchanges.clear()
        self.edge.wait(limits.IDLE_SECONDS - 1)
        self.edge.receive(b"G")
        self.edge.wait(limits.HEADER_SECONDS - 0.1)
        self.edge.receive(b"E")
        self.assertEqual(self.edge.sent, [])
        self.edge.wait(0.1)
        self.assertRefused(408, b'{"error":"request timeout"}')

    def test_slowPipelined(self) -> None:
        """
        A next request that began to arrive early does not wait for ever.
        """
        self.connect(b"1").receive(kept() + b"GET /")
        self.transport.clear()
        self.host.exchanges.clear()
        self.edge.wait(limits.HEADER_SECONDS)
        self.assertRefused(408, b'{"error":"request timeout"}')

    def test_working(self) -> None:
        """
        A run takes as long as it takes.
        """
        self.connect().receive(kept())
        self.edge.wait(10**6)
        self.host.exchanges[0].answer(200, b"done")
        self.assertEqual(self.edge.sent, [(200, b"done")])


class LongAnswerTests(ServerTestCase):
    """
    Answers that are longer than a transport takes at once.
    """

    body = b"0123456789" * (WRITE_BYTES // 2)

    def ask(self, message: bytes) -> None:
        """
        Get the long answer over a transport that takes little.
        """
        self.transport.room = 0
        self.connect(self.body).receive(message)

    def read_all(self) -> None:
        """
        The peer reads, slowly.
        """
        while self.transport.producer is not None:
            self.edge.wait(limits.WRITE_SECONDS / 3)
            self.transport.read_by_peer(WRITE_BYTES)

    def test_pressure(self) -> None:
        """
        We hold no more than a piece for a peer that does not read.
        """
        self.ask(kept())
        self.assertLess(len(self.transport.value()), WRITE_BYTES * 2)
        self.transport.read_by_peer(WRITE_BYTES)
        self.assertLess(len(self.transport.value()), WRITE_BYTES * 3)

    def test_slowReader(self) -> None:
        """
        A peer that reads slowly but steadily gets all of it, and the next
        request is taken.
        """
        self.ask(kept())
        self.read_all()
        self.assertEqual(self.edge.sent, [(200, self.body)])
        self.edge.receive(kept(path="/next"))
        self.assertEqual(self.host.asked[-1][1], "/next")

    def test_closing(self) -> None:
        """
        After the last piece there is time to deliver it.
        """
        self.ask(request("GET", "/", b"", host="a"))
        self.assertFalse(self.transport.disconnecting)
        self.read_all()
        self.assertEqual(self.edge.sent, [(200, self.body)])
        self.assertClosing(limits.WRITE_SECONDS)

    def test_stalled(self) -> None:
        """
        A peer that stops reading is dropped.
        """
        self.ask(kept())
        self.transport.read_by_peer(WRITE_BYTES)
        self.edge.wait(limits.WRITE_SECONDS - 0.1)
        self.assertFalse(self.transport.aborted)
        self.edge.wait(0.1)
        self.assertTrue(self.transport.aborted)

    def test_pipelined(self) -> None:
        """
        The next request waits until the long answer is out.
        """
        self.ask(kept() + kept(path="/next"))
        self.assertEqual(len(self.host.exchanges), 1)
        self.read_all()
        self.assertEqual(self.host.asked[-1][1], "/next")

    def test_gone(self) -> None:
        """
        A peer that goes in the middle of it costs nothing more.
        """
        self.ask(kept())
        assert self.transport.producer is not None
        self.transport.producer.stopProducing()
        self.edge.lose()
        written = self.transport.value()
        self.edge.wait(10**6)
        self.assertEqual(self.transport.value(), written)


class LossTests(ServerTestCase):
    """
    Peers that go.
    """

    def lost_after(self, *pieces: bytes) -> list[str]:
        """
        What a handler that asked to be told is told.
        """
        told: list[str] = []
        self.connect().receive(*pieces)
        for exchange in self.host.exchanges:
            exchange.when_lost(lambda: told.append("lost"))
        return told

    def test_whileWorking(self) -> None:
        """
        Whoever works on an answer is told, once, and may answer into nothing.
        """
        told = self.lost_after(kept())
        self.edge.lose()
        self.assertEqual(told, ["lost"])
        self.host.exchanges[0].answer(200, b"late")
        self.assertEqual(self.transport.value(), b"")

    def test_late(self) -> None:
        """
        Whoever asks only after the peer has gone is told too.
        """
        told = self.lost_after(kept())
        self.edge.lose()
        self.host.exchanges[0].when_lost(lambda: told.append("late"))
        self.assertEqual(told, ["lost", "late"])

    def test_betweenAnswers(self) -> None:
        """
        A peer can go between its first answer and its second.
        """
        told = self.lost_after(kept())
        self.host.exchanges[0].answer(200, b"1", more=True)
        self.edge.lose()
        self.assertEqual(told, ["lost"])

    def test_afterAnswer(self) -> None:
        """
        After the last answer nobody is told.
        """
        told = self.lost_after(kept())
        self.host.exchanges[0].answer(200, b"1")
        self.edge.lose()
        self.assertEqual(told, [])
        self.assertEqual(self.host.failures, [])

    def test_ended(self) -> None:
        """
        The end of a connection is told once, and of which: also of one that was
        refused.
        """
        for refusal in (None, Refused(403, "no")):
            self.edge = Edge(Host(refusal))
            self.edge.connect()
            self.edge.connection.abort()
            self.assertEqual(self.edge.host.gone, [])
            self.edge.lose()
            self.assertEqual(self.edge.host.failures, [])
            [arrived], [gone] = self.edge.host.visits, self.edge.host.gone
            self.assertIs(arrived, gone)

    def test_duringLongAnswer(self) -> None:
        """
        Nor while the last answer is on its way.
        """
        self.transport.room = 0
        told = self.lost_after(kept())
        self.host.exchanges[0].answer(200, b"x" * 10 * WRITE_BYTES)
        self.edge.lose()
        self.assertEqual(told, [])

    def test_beforeHandshake(self) -> None:
        """
        A port scan is a handshake that failed.
        """
        self.connect(handshake=False)
        self.edge.lose()
        [(address, why)] = self.host.failures
        self.assertEqual((address, self.host.gone), ("10.0.0.7", []))
        why.trap(ConnectionDone)

    def test_unfitCertificate(self) -> None:
        """
        A certificate that the CA signed and nobody can read is no exception in
        the log: the peer is dropped, and the handler is told why.
        """
        unfit = handmade("agent-one", uris=(ROLE + "a", ROLE + "b"))
        self.transport.certificate = X509.from_cryptography(parse_certificate(unfit))
        self.connect()
        self.assertTrue(self.transport.aborted)
        self.edge.lose()
        [(_, why)] = self.host.failures
        why.trap(PkiError)
        self.assertEqual(self.host.admitted, [])
