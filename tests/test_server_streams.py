# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.protocol.server} and L{ctrlexec.protocol.sending}: answers
that are made while they are read.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.protocol import limits
from ctrlexec.protocol.exchange import Exchange, Nowhere, Peer, Request, Streaming
from ctrlexec.protocol.http import request
from ctrlexec.protocol.sending import PIECE_BYTES, TURN_BYTES, WRITE_BYTES
from tests.edges import ServerTestCase, kept
from tests.streaming import EVENTS, HEAD, Endless, Source, StreamTestCase


class ChunkTests(StreamTestCase):
    """
    What a peer of HTTP/1.1 gets to read.
    """

    def test_bytes(self) -> None:
        """
        A head that says neither a length nor JSON, and each piece at once, in a
        chunk of its own; then the next request.
        """
        streaming = self.stream(b"one\n")
        self.assertEqual(self.transport.value(), HEAD + b"4\r\none\n\r\n")
        self.more(streaming, b"second of them\n", b"", b"third")
        self.assertEqual(
            self.transport.value(),
            HEAD + b"4\r\none\n\r\nf\r\nsecond of them\n\r\n",
        )
        self.more(streaming, None)
        self.assertTrue(self.transport.value().endswith(b"\r\n5\r\nthird\r\n0\r\n\r\n"))
        self.host.answers = [(200, b"{}")]
        self.edge.receive(kept(path="/next"))
        self.assertEqual(
            self.edge.sent, [(200, b"one\nsecond of them\nthird"), (200, b"{}")]
        )
        self.assertEqual(self.told, [])

    def test_later(self) -> None:
        """
        Nothing is pulled before whoever answers has it in hand.
        """
        self.connect().receive(kept())
        self.host.exchanges[0].stream(200, EVENTS, self.source.pull)
        self.assertEqual(self.source.asked, 0)
        self.edge.wait(0)
        self.assertEqual(self.source.asked, 1)

    def test_empty(self) -> None:
        """
        A stream of nothing is one.
        """
        self.stream(None)
        self.assertEqual(self.transport.value(), HEAD + b"0\r\n\r\n")

    def test_long(self) -> None:
        """
        A long piece goes out in chunks of a bounded length.
        """
        body = b"0123456789" * 10_000
        self.stream(body, None)
        self.assertEqual(self.edge.sent, [(200, body)])
        self.assertIn(b"\r\n%x\r\n" % PIECE_BYTES, self.transport.value())

    def test_closing(self) -> None:
        """
        A peer that asked for it is left after the end.
        """
        self.stream(b"one", None, message=request("GET", "/", b"", host="a"))
        self.assertIn(b"Connection: close\r\n", self.transport.value())
        self.assertEqual(self.edge.sent, [(200, b"one")])
        self.assertClosing(limits.FOLLOW_SECONDS)

    def test_pipelined(self) -> None:
        """
        What was asked meanwhile is answered after it, with a stream again.
        """
        streaming = self.stream(b"one", message=kept() + kept(path="/b"))
        self.assertEqual(len(self.host.exchanges), 1)
        self.more(streaming, None)
        self.again(b"two", None)
        self.assertEqual(self.edge.sent, [(200, b"one"), (200, b"two")])

    def test_once(self) -> None:
        """
        No other answer can be given to the same request.
        """
        streaming = self.stream(b"one")
        exchange = self.host.exchanges[0]
        exchange.answer(500, b"{}")
        self.assertIsInstance(exchange.stream(200, EVENTS, self.source.pull), Nowhere)
        self.more(streaming, None)
        exchange.answer(500, b"{}")
        self.assertEqual(self.edge.sent, [(200, b"one")])

    def test_lateReady(self) -> None:
        """
        That there is more after the end is of no account, to the next request
        least of all.
        """
        streaming = self.stream(b"one", None)
        self.edge.receive(kept())
        self.more(streaming, b"late")
        streaming.abort()
        self.edge.wait(1)
        self.assertEqual(self.edge.sent, [(200, b"one")])
        self.assertFalse(self.transport.aborted)

    def test_readyWithin(self) -> None:
        """
        What becomes ready while nothing is pulled is pulled.
        """
        self.connect().receive(kept())
        found: list[bytes | None] = [None, b"one"]

        def pull() -> bytes | None:
            if len(found) == 2 and not self.told:
                self.told.append("nothing yet")
                streaming.ready()
                return b""
            return found.pop()

        streaming = self.host.exchanges[0].stream(200, EVENTS, pull)
        self.edge.wait(0)
        self.edge.wait(0)
        self.assertEqual(self.edge.sent, [(200, b"one")])


class CapableTests(StreamTestCase):
    """
    L{Exchange.can_stream}
    """

    def test_capable(self) -> None:
        """
        A peer of HTTP/1.1 can read a stream, one of HTTP/1.0 can not, and the
        pairing port speaks like one to everybody.
        """
        for old_style, message, expected in (
            (False, kept(), True),
            (False, request("GET", "/", b"", host="a"), True),
            (False, request("GET", "/", b"", host="a", minor=0), False),
            (True, kept(), False),
        ):
            self.setUp()
            self.connect(old_style=old_style).receive(message)
            exchange = self.host.exchanges[0]
            self.assertEqual(exchange.can_stream, expected)
            if not expected:
                self.assertRaises(
                    AssertionError, exchange.stream, 200, EVENTS, self.source.pull
                )
            exchange.answer(200, b"{}")
            self.gone()

    def test_nowhere(self) -> None:
        """
        A peer that has gone before the answer is answered into nothing.
        """
        self.connect().receive(kept())
        self.edge.lose()
        streaming = self.host.exchanges[0].stream(200, EVENTS, self.source.pull)
        streaming.ready()
        streaming.abort()
        self.edge.wait(0)
        self.assertEqual((self.source.asked, self.transport.value()), (0, b""))


class PressureTests(StreamTestCase):
    """
    Peers that read slowly, or not at all.
    """

    def setUp(self) -> None:
        super().setUp()
        self.source = Endless()
        self.transport.room = WRITE_BYTES

    def test_held(self) -> None:
        """
        For a peer that does not read nothing is pulled any more, and what is
        held is little; when it reads, it goes on.
        """
        streaming = self.stream()
        asked = self.source.asked
        self.assertLess(len(self.transport.value()), WRITE_BYTES * 2)
        for _ in range(9):
            streaming.ready()
            self.edge.wait(1)
        self.assertEqual(self.source.asked, asked)
        self.transport.read_by_peer(WRITE_BYTES)
        self.assertGreater(self.source.asked, asked)
        self.assertLess(len(self.transport.value()), WRITE_BYTES * 3)

    def test_slow(self) -> None:
        """
        A peer that takes minutes to read what is on its way is waited for.
        """
        self.stream()
        for _ in range(9):
            asked = self.source.asked
            self.edge.wait(limits.FOLLOW_SECONDS - 1)
            self.transport.read_by_peer(WRITE_BYTES)
            self.assertGreater(self.source.asked, asked)
        self.assertFalse(self.transport.aborted)

    def test_stalled(self) -> None:
        """
        One that reads nothing at all for long is cut off, and whoever streams is
        told.
        """
        self.stream()
        self.edge.wait(limits.FOLLOW_SECONDS - 0.1)
        self.assertFalse(self.transport.aborted)
        self.edge.wait(0.1)
        self.assertTrue(self.transport.aborted)
        self.edge.lose()
        self.assertEqual(self.told, ["lost"])

    def test_idle(self) -> None:
        """
        A stream that has nothing to tell lives.
        """
        self.source = Source()
        streaming = self.stream(b"one")
        for _ in range(1000):
            self.edge.wait(limits.FOLLOW_SECONDS)
            self.more(streaming, b".")
            self.transport.read_by_peer(100)
        self.assertFalse(self.transport.aborted)
        self.more(streaming, None)
        self.assertEqual(self.edge.sent, [(200, b"one" + b"." * 1000)])

    def test_afterwards(self) -> None:
        """
        After the end there is time to read what is on its way, before the
        connection counts as idle.
        """
        self.source = Source()
        self.stream(b"x" * 2 * WRITE_BYTES, None)
        self.transport.read_by_peer(WRITE_BYTES)
        self.edge.wait(limits.FOLLOW_SECONDS - 1)
        self.assertFalse(self.transport.disconnecting)
        self.edge.wait(1)
        self.assertTrue(self.transport.disconnecting)

    def test_turns(self) -> None:
        """
        However fast the peer takes it, others have their turn.
        """
        self.transport.room = 10**9
        self.source = Source()
        written: list[int] = []
        self.connect().receive(kept())
        self.source.pieces = [b"x" * WRITE_BYTES] * 20 + [None]
        self.host.exchanges[0].stream(200, EVENTS, self.source.pull)
        self.edge.clock.callLater(
            0, lambda: written.append(len(self.transport.value()))
        )
        self.edge.wait(0)
        self.assertEqual(len(written), 1)
        self.assertLess(written[0], TURN_BYTES + WRITE_BYTES)
        self.assertEqual(self.edge.sent, [(200, b"x" * WRITE_BYTES * 20)])


class LengthTests(ServerTestCase):
    """
    L{Exchange.answer_from}
    """

    def answer(self, length: int, *pieces: bytes | None, message: bytes = b"") -> None:
        """
        Ask, and be answered at length.
        """
        self.connect().receive(message or kept())
        self.begin(length, *pieces)

    def begin(self, length: int, *pieces: bytes | None) -> Streaming:
        """
        Answer the last request at length.
        """
        source = Source([*pieces])
        streaming = self.host.exchanges[-1].answer_from(200, length, source.pull)
        self.edge.wait(0)
        return streaming

    def test_bytes(self) -> None:
        """
        The peer sees an answer as any, and may ask again.
        """
        self.answer(6, b"12", b"3456", None)
        self.assertEqual(
            self.transport.value(),
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            b"Content-Length: 6\r\nConnection: keep-alive\r\n\r\n123456",
        )
        self.edge.receive(kept())
        self.begin(0, None)
        self.assertEqual(self.edge.sent, [(200, b"123456"), (200, b"")])

    def test_http10(self) -> None:
        """
        One of HTTP/1.0 can read it, too, and is left.
        """
        asked = request("GET", "/", b"", host="a", minor=0)
        self.answer(3, b"123", None, message=asked)
        self.assertTrue(self.transport.value().startswith(b"HTTP/1.0 200 OK\r\n"))
        self.assertEqual(self.edge.sent, [(200, b"123")])
        self.assertClosing(limits.WRITE_SECONDS)

    def test_stalled(self) -> None:
        """
        A peer that does not read it is cut off, as with any answer.
        """
        self.transport.room = 0
        self.answer(9 * WRITE_BYTES, b"x" * WRITE_BYTES)
        self.edge.wait(limits.WRITE_SECONDS)
        self.assertTrue(self.transport.aborted)

    def test_wrong(self) -> None:
        """
        An answer that is not as long as it was said to be is cut, so that what
        follows is not taken for the rest of it.
        """
        for length, pieces in ((3, (b"12", None)), (3, (b"12", b"34", None))):
            self.setUp()
            self.connect().receive(kept())
            source = Source([*pieces])
            self.host.exchanges[0].answer_from(200, length, source.pull)
            self.assertRaises(ValueError, self.edge.wait, 0)
            self.assertTrue(self.transport.aborted)
            self.assertTrue(self.transport.value().endswith(b"\r\n\r\n12"))
            self.edge.wait(1)
            self.gone()


class FakeTests(SynchronousTestCase):
    """
    L{Exchange} without a connection, as tests of handlers have it.
    """

    def test_unable(self) -> None:
        """
        One that was not told how is not able to stream.
        """
        exchange = Exchange(
            Request("GET", "/", b""), Peer("", None), lambda *_: self.fail("answered")
        )
        self.assertFalse(exchange.can_stream)
        exchange.lost()
        self.assertIsInstance(exchange.answer_from(200, 0, Source().pull), Nowhere)
