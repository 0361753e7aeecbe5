# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.protocol.http}: how long a body is.
"""

from __future__ import annotations

from ctrlexec.protocol import limits
from ctrlexec.protocol.http import (
    LAST_CHUNK,
    BadMessage,
    Body,
    End,
    Head,
    chunk,
    request,
)
from tests.messages import (
    CHUNKED,
    LIMIT,
    HttpTestCase,
    client,
    lines,
    read,
    server,
)


class LengthTests(HttpTestCase):
    """
    How long a body is: one truth, no two readings.
    """

    def test_exact(self) -> None:
        """
        The longest body is taken; one byte more is refused before any of it
        is read.
        """
        message = lines(f"Content-Length: {LIMIT}")
        events = read(server(), message, b"x" * LIMIT)
        self.assertEqual(events[1:], [Body(b"x" * LIMIT), End.END])
        self.assertBad(413, "request too large", lines(f"Content-Length: {LIMIT + 1}"))

    def test_leadingZeros(self) -> None:
        """
        However many zeros stand before a length, it is the same length.
        """
        for zeros in (1, 20, 5000):
            message = lines(f"Content-Length: {'0' * zeros}5") + b"hello"
            self.assertEqual(read(server(), message)[1], Body(b"hello"))

    def test_endlessLength(self) -> None:
        """
        A length of thousands of digits is too large, and costs nothing.
        """
        for digits in (20, 21, 40, 10_000):
            message = lines(f"Content-Length: 1{'0' * digits}")
            self.assertBad(413, "request too large", message)

    def test_badLengths(self) -> None:
        """
        What is no number is refused, two equal numbers too.
        """
        for length in ("", "-1", "+5", "5,5", "0x5", "5 5", "٣", "1e3", "\xb2", "5;"):
            message = b"GET / HTTP/1.1\r\nContent-Length: %s\r\n\r\n" % length.encode()
            self.assertBad(400, "malformed Content-Length", message)
        fields = ["Content-Length: 5", "content-length: 5"]
        self.assertBad(400, "malformed Content-Length", lines(*fields))

    def test_twoTruths(self) -> None:
        """
        A length beside chunks, chunks twice, unknown codings, and chunks in
        HTTP/1.0 are refused.
        """
        chunked = "Transfer-Encoding: chunked"
        for message in (
            lines(chunked, "Content-Length: 5"),
            lines(chunked, chunked),
            lines("Transfer-Encoding: gzip, chunked"),
            lines("Transfer-Encoding: identity"),
            lines("Transfer-Encoding: chunked\r"),
            lines("Transfer-Encoding:"),
            lines(chunked, start="GET / HTTP/1.0"),
        ):
            self.assertBad(400, "unclear length of the body", message)

    def test_noLength(self) -> None:
        """
        A request without a length has no body; an answer without one goes on
        until the connection is closed.
        """
        self.assertEqual(len(read(server(), lines())), 2)
        parser = client()
        events = read(parser, lines(start="HTTP/1.0 200 OK"), b"he", b"llo")
        self.assertEqual(events[1:], [Body(b"hello")])
        self.assertIs(parser.end_of_stream(), End.END)
        self.assertTrue(parser.between_messages)

    def test_noLengthTooLong(self) -> None:
        """
        Such an answer is bounded too.
        """
        parser = client()
        head = lines(start="HTTP/1.0 200 OK")
        self.assertEqual(len(read(parser, head, b"x" * LIMIT)), 2)
        self.assertBad(413, "request too large", b"x", parser=parser)

    def test_bodiless(self) -> None:
        """
        Answers that have no body have none, whatever they say.
        """
        for code in (100, 101, 204, 304):
            head = lines("Content-Length: 5", start=f"HTTP/1.1 {code} x")
            self.assertEqual(len(read(client(), head)), 2)

    def test_cutOff(self) -> None:
        """
        A connection that is closed within a message is told from one that is
        closed between two.
        """
        whole = request("POST", "/run", b"hello", host="a")
        for end in range(1, len(whole)):
            parser = server()
            read(parser, whole[:end])
            self.assertRaises(BadMessage, parser.end_of_stream)
        parser = server()
        self.assertIsNone(parser.end_of_stream())
        read(parser, whole)
        self.assertIsNone(parser.end_of_stream())


class ChunkTests(HttpTestCase):
    """
    Bodies in chunks.
    """

    head = lines("Transfer-Encoding: chunked")

    def test_cutOff(self) -> None:
        """
        No cut of a chunked message is a whole one.
        """
        for end in range(1, len(CHUNKED)):
            parser = server()
            read(parser, CHUNKED[:end])
            self.assertRaises(BadMessage, parser.end_of_stream)

    def test_bad(self) -> None:
        """
        Sizes are hex and nothing else, and chunks end where they say.
        """
        for size in (b"", b"g", b"-1", b"0x5", b" 5", b"5 ", b"123456789", b"5 x"):
            self.assertBad(400, "malformed chunk", self.head, size + b"\r\n")
        self.assertBad(400, "malformed chunk", self.head, b"5\r\nhello!\r\n")

    def test_tooLarge(self) -> None:
        """
        All chunks together are bounded, before the one too many is read.
        """
        half = b"%x\r\n%s\r\n" % (LIMIT // 2, b"x" * (LIMIT // 2))
        body = read(server(), self.head, half, half, b"0\r\n\r\n")[1]
        self.assertEqual(len(body.data), LIMIT)
        self.assertBad(413, "request too large", self.head, half, half, b"1\r\n")
        self.assertBad(413, "request too large", self.head, b"ffffffff\r\n")

    def test_takeAll(self) -> None:
        """
        The body of a stream may be of any length, and only that body: the next
        message is bounded as before.
        """
        stream = lines("Transfer-Encoding: chunked", start="HTTP/1.1 200 OK")
        piece = chunk(b"x" * LIMIT)
        parser = client()
        parser.feed(stream + piece * 9 + LAST_CHUNK)
        self.assertIsInstance(parser.next_event(), Head)
        parser.take_all()
        events = read(parser, b"")
        self.assertEqual(events, [Body(b"x" * LIMIT * 9), End.END])
        self.assertBad(413, "request too large", stream + piece * 2, parser=parser)

    def test_longLines(self) -> None:
        """
        Lines between chunks, and trailers, are bounded like a header.
        """
        endless = b"x" * (limits.HEADER_BYTES + 1)
        for pieces in (
            (b"5;" + endless,),
            (b"5\r\nhello", endless),
            (b"0\r\n", endless),
            (b"0\r\n", b"a: b\r\n" * limits.HEADER_BYTES),
        ):
            self.assertBad(431, "header too large", self.head, *pieces)

    def test_nothingLeftOver(self) -> None:
        """
        Long lines of one message are not counted against the next.
        """
        filler = b"x" * (limits.HEADER_BYTES - 100)
        message = b"".join(
            (self.head, b"1;", filler, b"\r\na\r\n0\r\nT:", filler, b"\r\n\r\n")
        )
        parser = server()
        for _ in range(3):
            self.assertEqual(len(read(parser, message)), 3)
