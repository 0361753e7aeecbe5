# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.protocol.server}: streams that do not come to their end,
since their peer goes, or the server.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.protocol import limits
from ctrlexec.protocol.server import LINGER_SECONDS, ServerFactory
from tests.edges import Edge, EdgeTransport, Host, kept
from tests.streaming import EVENTS, HEAD, Endless, Source, StreamTestCase


class LossTests(StreamTestCase):
    """
    Streams that do not come to their end.
    """

    def test_gone(self) -> None:
        """
        A peer that goes in the middle: whoever streams is told, and nothing more
        is pulled.
        """
        streaming = self.stream(b"one")
        self.edge.lose()
        self.assertEqual(self.told, ["lost"])
        self.assertFalse(self.host.exchanges[0].stopping)
        asked = self.source.asked
        self.more(streaming, b"two", None)
        self.edge.wait(1)
        self.assertEqual(self.source.asked, asked)
        self.assertNotIn(b"two", self.transport.value())

    def test_goneInTurn(self) -> None:
        """
        The same just before a turn.
        """
        self.source = Endless()
        self.stream()
        self.edge.lose()
        asked = self.source.asked
        self.edge.wait(1)
        self.assertEqual(self.source.asked, asked)

    def test_goneWithin(self) -> None:
        """
        The same while something is pulled: that is for nobody.
        """
        for piece in (b"one", b"", None):
            self.setUp()
            self.connect().receive(kept())

            def pull(edge: Edge = self.edge, piece: bytes | None = piece) -> Any:
                edge.lose()
                return piece

            self.host.exchanges[0].stream(200, EVENTS, pull)
            self.edge.wait(0)
            self.assertEqual(self.transport.value(), HEAD)
            self.gone()

    def test_afterEnd(self) -> None:
        """
        Who goes after the end is not missed.
        """
        self.stream(b"one", None)
        self.edge.lose()
        self.assertEqual(self.told, [])

    def test_abort(self) -> None:
        """
        A stream whose rest can not be had is cut, without an end that would make
        it look whole.
        """
        self.stream(b"one").abort()
        self.assertTrue(self.transport.aborted)
        self.assertEqual(self.transport.value(), HEAD + b"3\r\none\r\n")

    def test_fault(self) -> None:
        """
        So is one that can not be made.
        """

        class Broken(Exception):
            pass

        def pull() -> bytes | None:
            raise Broken

        self.connect().receive(kept())
        self.host.exchanges[0].stream(200, EVENTS, pull)
        self.assertRaises(Broken, self.edge.wait, 0)
        self.assertTrue(self.transport.aborted)
        self.assertEqual(self.transport.value(), HEAD)
        self.edge.wait(1)


class StopTests(StreamTestCase):
    """
    Servers that stop while something is streamed.
    """

    def test_owed(self) -> None:
        """
        A stream that is under way is an answer that is owed, and the last one.
        """
        streaming = self.stream(b"one")
        self.edge.connection.finish()
        self.assertTrue(self.host.exchanges[0].stopping)
        self.more(streaming, b"two", None)
        self.assertEqual(self.edge.sent, [(200, b"onetwo")])
        self.assertClosing(limits.FOLLOW_SECONDS)

    def test_cut(self) -> None:
        """
        It can be cut: what was told is delivered, there is no end, and whoever
        streams can tell that the peer did not go by itself.
        """
        streaming = self.stream(b"one")
        self.edge.connection.cut()
        self.assertEqual(self.told, ["lost"])
        self.assertTrue(self.host.exchanges[0].stopping)
        self.more(streaming, b"two", None)
        self.assertEqual(self.transport.value(), HEAD + b"3\r\none\r\n")
        self.assertIsNone(self.transport.producer)
        self.assertClosing(LINGER_SECONDS)
        self.edge.lose()
        self.assertEqual(self.told, ["lost"])

    def test_cutStalled(self) -> None:
        """
        The same where the peer does not read.
        """
        self.transport.room = 0
        self.stream(b"one")
        self.edge.connection.cut()
        self.assertClosing(LINGER_SECONDS)

    def test_notStreaming(self) -> None:
        """
        Other answers that are owed are not cut, however long they are.
        """
        self.connect().receive(kept())
        exchange = self.host.exchanges[0]
        self.edge.connection.cut()
        streaming = exchange.answer_from(200, 6, self.source.pull)
        self.edge.wait(0)
        self.edge.connection.cut()
        self.more(streaming, b"123456", None)
        self.assertEqual(self.edge.sent, [(200, b"123456")])


class FactoryTests(SynchronousTestCase):
    """
    L{ServerFactory}
    """

    def setUp(self) -> None:
        self.clock, self.host = Clock(), Host()
        self.factory = ServerFactory(self.clock, self.host, 1000)
        self.transports = [EdgeTransport() for _ in range(2)]
        for transport in self.transports:
            connection = self.factory.buildProtocol(None)
            connection.makeConnection(transport)
            connection.handshakeCompleted()
            connection.dataReceived(kept())
            self.addCleanup(connection.connectionLost)

    def test_cut(self) -> None:
        """
        All streams are cut, and nothing else is.
        """
        self.host.exchanges[0].stream(200, EVENTS, Source().pull)
        self.factory.cut_streams()
        closing = [transport.disconnecting for transport in self.transports]
        self.assertEqual(closing, [True, False])

    def test_abort(self) -> None:
        """
        Who is aborted was left by us.
        """
        self.factory.abort_all()
        for transport, exchange in zip(
            self.transports, self.host.exchanges, strict=True
        ):
            self.assertTrue(transport.aborted)
            self.assertTrue(exchange.stopping)
