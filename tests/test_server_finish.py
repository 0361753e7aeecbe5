# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for the end of a server: what L{ctrlexec.protocol.server} still answers
when it is to close.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.protocol.limits import WRITE_SECONDS
from ctrlexec.protocol.sending import WRITE_BYTES
from ctrlexec.protocol.server import LINGER_SECONDS, ServerFactory
from tests.edges import EdgeTransport, Host, ServerTestCase, kept


class FinishTests(ServerTestCase):
    """
    L{ctrlexec.protocol.server.ServerConnection.finish}
    """

    def test_handshake(self) -> None:
        """
        A connection that is not one yet is closed at once.
        """
        self.connect(handshake=False).connection.finish()
        self.assertTrue(self.transport.aborted)

    def test_idle(self) -> None:
        """
        So is one between two requests, with no answer and in all form.
        """
        edge = self.connect(b"one").receive(kept())
        edge.connection.finish()
        self.assertEqual(edge.sent, [(200, b"one")])
        self.assertClosing(LINGER_SECONDS)

    def test_half(self) -> None:
        """
        Half a request is not waited for.
        """
        edge = self.connect().receive(kept(body=b"long")[:-1])
        edge.connection.finish()
        self.assertEqual(edge.sent, [])
        self.assertClosing(LINGER_SECONDS)

    def test_owed(self) -> None:
        """
        An answer that is owed is given, says that it is the last, and what was
        asked after it is not heard.
        """
        edge = self.connect().receive(kept() + kept())
        edge.connection.finish()
        self.assertFalse(self.transport.disconnecting)
        (exchange,) = self.host.exchanges
        exchange.answer(200, b"one")
        self.assertIn(b"Connection: close\r\n", self.transport.value())
        self.assertEqual(edge.sent, [(200, b"one")])
        self.assertEqual(len(self.host.exchanges), 1)
        self.assertClosing(WRITE_SECONDS)

    def test_underWay(self) -> None:
        """
        An answer that is being read already comes to its end.
        """
        answer = b"x" * (3 * WRITE_BYTES)
        self.transport.room = 0
        edge = self.connect(answer).receive(kept())
        edge.connection.finish()
        self.assertFalse(self.transport.disconnecting)
        self.transport.read_by_peer(10**9)
        self.assertEqual(edge.sent, [(200, answer)])
        self.assertClosing(WRITE_SECONDS)

    def test_closing(self) -> None:
        """
        One that is closing is left to it.
        """
        edge = self.connect(b"one").receive(kept().replace(b"1.1", b"1.0"))
        edge.connection.finish()
        self.assertClosing(WRITE_SECONDS)


class FactoryTests(SynchronousTestCase):
    """
    L{ctrlexec.protocol.server.ServerFactory.finish}
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.factory = ServerFactory(self.clock, Host(), 1000)

    def test_none(self) -> None:
        """
        Without a connection it is done.
        """
        self.successResultOf(self.factory.finish())

    def test_last(self) -> None:
        """
        It is done with the last connection.
        """
        connections = [self.factory.buildProtocol(None) for _ in range(2)]
        for connection in connections:
            connection.makeConnection(EdgeTransport())
            connection.handshakeCompleted()
        done = self.factory.finish()
        for connection in connections:
            self.assertNoResult(done)
            connection.connectionLost()
        self.successResultOf(done)
        self.assertEqual(self.clock.getDelayedCalls(), [])
