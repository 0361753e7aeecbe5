# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.protocol.http}.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ctrlexec.protocol import limits
from ctrlexec.protocol.http import (
    LAST_CHUNK,
    BadMessage,
    Body,
    End,
    Head,
    Parser,
    RequestLine,
    StatusLine,
    chunk,
    request,
    response_head,
)
from tests.messages import (
    CHUNKED,
    LIMIT,
    HttpTestCase,
    client,
    lines,
    read,
    requests_of,
    server,
)

STREAM = (
    request("POST", "/run", b'{"script":"a"}', host="agent:7443")
    + b"GET /ping HTTP/1.1\nHost: a\n\n"
    + CHUNKED
    + request("POST", "/ping", b"", host="agent", minor=0)
)
MESSAGES = [
    ("POST", "/run", 1, b'{"script":"a"}'),
    ("GET", "/ping", 1, b""),
    ("POST", "/run", 1, b"hello, world..."),
    ("POST", "/ping", 0, b""),
]


class StreamTests(HttpTestCase):
    """
    Messages one after the other, however they are cut.
    """

    def test_known(self) -> None:
        """
        Four requests of different kinds are read from one stream.
        """
        parser = server()
        self.assertEqual(requests_of(read(parser, STREAM)), MESSAGES)
        self.assertTrue(parser.between_messages)

    def test_bytewise(self) -> None:
        """
        The same, a byte at a time.
        """
        pieces = [bytes([byte]) for byte in STREAM]
        self.assertEqual(requests_of(read(server(), *pieces)), MESSAGES)

    @given(st.lists(st.integers(0, len(STREAM)), max_size=8))
    def test_anySplit(self, cuts: list[int]) -> None:
        """
        Any way to cut the stream gives the same events.
        """
        ends = [*sorted(cuts), len(STREAM)]
        starts = [0, *ends]
        pieces = [STREAM[a:b] for a, b in zip(starts, ends, strict=False)]
        self.assertEqual(read(server(), *pieces), read(server(), STREAM))

    @given(st.binary(max_size=300), st.integers(0, 300))
    def test_anything(self, junk: bytes, cut: int) -> None:
        """
        Any bytes at all give events or a L{BadMessage}, and the same ones
        however they are cut.
        """
        for make in (server, client):
            outcomes = []
            for pieces in ([junk], [junk[:cut], junk[cut:]]):
                parser: Parser[Any] = make()
                try:
                    outcomes.append(str(read(parser, *pieces)))
                except BadMessage as bad:
                    outcomes.append(f"{bad.code} {bad}")
            self.assertEqual(outcomes[0], outcomes[1])

    @given(
        st.lists(
            st.sampled_from(
                [
                    b"GET / HTTP/1.1",
                    b"POST /run HTTP/1.0",
                    b"HTTP/1.1 200 OK",
                    b"HTTP/1.0 204 ",
                    b"\r\n",
                    b"\n",
                    b"Content-Length: 5",
                    b"Content-Length: 005",
                    b"Transfer-Encoding: chunked",
                    b"Connection: close",
                    b"5",
                    b"0",
                    b"hello",
                    b"\0",
                    b" ",
                ]
            ),
            max_size=20,
        ),
        st.data(),
    )
    def test_nearlySound(self, parts: list[bytes], draw: st.DataObject) -> None:
        """
        The same for what looks like messages.
        """
        self.test_anything.hypothesis.inner_test(  # type: ignore[attr-defined]
            self, b"".join(parts), draw.draw(st.integers(0, 120))
        )

    def test_many(self) -> None:
        """
        A stream may be longer than any limit: they are those of one message.
        """
        stream = request("POST", "/run", b"hello", host="agent") * 1000
        self.assertEqual(len(requests_of(read(server(), stream))), 1000)

    def test_between(self) -> None:
        """
        One byte of a next message is something of a next message, and so is a
        body that is missing.
        """
        parser = server()
        self.assertTrue(parser.between_messages)
        for piece in (b"G", lines()[1:2], b"ET / HTTP/1.1\r\n", b"A: b\r\n"):
            read(parser, piece)
            self.assertFalse(parser.between_messages)
        parser = server()
        read(parser, lines("Content-Length: 1"))
        self.assertFalse(parser.between_messages)

    def test_lazy(self) -> None:
        """
        What follows an event is not read before it is asked for.
        """
        parser = server()
        parser.feed(b"GET / HTTP/1.1\r\n\r\nrubbish\r\n")
        self.assertIsInstance(parser.next_event(), Head)
        self.assertIs(parser.next_event(), End.END)
        self.assertEqual(parser.buffered_bytes, len("rubbish\r\n"))
        self.assertRaises(BadMessage, parser.next_event)


class HeadTests(HttpTestCase):
    """
    First lines and headers.
    """

    def test_requestLines(self) -> None:
        """
        A method, a path, and a version of HTTP/1.
        """
        self.assertEqual(
            RequestLine.parse("GET / HTTP/1.0"), RequestLine("GET", "/", 0)
        )
        self.assertBad(400, "empty request", b"\r\n")
        self.assertBad(400, "empty request", b"\n")
        for line in (
            "GET /",
            "get / HTTP/1.1",
            "GET  / HTTP/1.1",
            "GET run HTTP/1.1",
            "GET / HTTP/2.0",
            "GET / HTTP/1.1 ",
            " GET / HTTP/1.1",
            "GET /a b HTTP/1.1",
            "GET /\x00 HTTP/1.1",
            "GET /\xe9 HTTP/1.1",
            "GET /" + "x" * 1024 + " HTTP/1.1",
            "\x16\x03\x01\x02",
        ):
            self.assertBad(400, "malformed request line", lines(start=line))

    def test_earlyRefusal(self) -> None:
        """
        A first line that is none is refused before the header has come.
        """
        self.assertBad(400, "malformed request line", b"SSH-2.0-OpenSSH\r\n")

    def test_statusLines(self) -> None:
        """
        With a reason or without one; anything else is no answer.
        """
        known = {
            "HTTP/1.1 200 OK": StatusLine(200, "OK", 1),
            "HTTP/1.0 403 ": StatusLine(403, "", 0),
            "HTTP/1.0 500": StatusLine(500, "", 0),
            "HTTP/1.1 413 Content Too Large": StatusLine(413, "Content Too Large", 1),
        }
        for line, expected in known.items():
            self.assertEqual(StatusLine.parse(line), expected)
        for line in ("", "HTTP/1.1 600 x", "HTTP/2 200 OK", "HTTP/1.1 20 x", "hello"):
            self.assertBad(
                400, "not an HTTP answer", lines(start=line), parser=client()
            )

    def test_fields(self) -> None:
        """
        Names in any case, blanks round values gone, the same name joined.
        """
        head = read(server(), lines("X-A:1", "x-a: \t2 ", "B:", "C: d:e"))[0]
        self.assertEqual(head.fields, {"x-a": "1,2", "b": "", "c": "d:e"})

    def test_badFields(self) -> None:
        """
        No folded lines, no blank before the colon, no line without one.
        """
        for field in (
            "no colon",
            ": x",
            "A : x",
            " A: x",
            "\tfolded",
            "A\0: x",
            "é: x",
        ):
            self.assertBad(400, "malformed header", lines("Host: a", field))

    def test_manyLines(self) -> None:
        """
        32 lines of header are taken, and the 33rd is refused before the rest
        has come.
        """
        fields = [f"X-{n}: y" for n in range(limits.HEADER_LINES)]
        self.assertEqual(len(read(server(), lines(*fields))), 2)
        self.assertBad(431, "too many headers", lines(*fields, "X: y")[:-2])

    def test_longLines(self) -> None:
        """
        A header of the greatest length is taken, one byte more is not, and a
        line that never ends is not kept.
        """
        room = limits.HEADER_BYTES - len(lines("X: "))
        self.assertEqual(len(read(server(), lines("X: " + "y" * room))), 2)
        self.assertBad(431, "header too large", lines("X: y" + "y" * room))
        self.assertBad(431, "header too large", b"G" * (limits.HEADER_BYTES + 1))

    def test_keepsAlive(self) -> None:
        """
        HTTP/1.1 stays unless it says C{close}; HTTP/1.0 never does.
        """
        known = {
            lines(): True,
            lines("Connection: keep-alive"): True,
            lines("Connection: TE, close"): False,
            lines("Connection: TE", "Connection: CLOSE"): False,
            lines(start="GET / HTTP/1.0"): False,
            lines("Connection: keep-alive", start="GET / HTTP/1.0"): False,
        }
        for message, expected in known.items():
            self.assertEqual(read(server(), message)[0].keeps_alive, expected)


class WriteTests(HttpTestCase):
    """
    What we send.
    """

    def test_request(self) -> None:
        """
        The bytes of a request.
        """
        self.assertEqual(
            request("POST", "/run", b"{}", host="agent:7443"),
            b"POST /run HTTP/1.1\r\nHost: agent:7443\r\n"
            b"Content-Type: application/json\r\nContent-Length: 2\r\n"
            b"Connection: close\r\n\r\n{}",
        )

    def test_response(self) -> None:
        """
        The bytes of a response's head, with a reason that peers know.
        """
        self.assertEqual(
            response_head(413, 3, minor=0, keep_alive=False),
            b"HTTP/1.0 413 Content Too Large\r\n"
            b"Content-Type: application/json\r\nContent-Length: 3\r\n"
            b"Connection: close\r\n\r\n",
        )
        self.assertEqual(
            response_head(299, 0, minor=1, keep_alive=True).split(b"\r\n")[::3],
            [b"HTTP/1.1 299 Unknown", b"Connection: keep-alive"],
        )

    def test_chunked(self) -> None:
        """
        The bytes of a response whose length nobody knows; a peer of HTTP/1.0 is
        never sent one.
        """
        head = response_head(
            200, None, minor=1, keep_alive=True, content_type="application/x-ndjson"
        )
        self.assertEqual(
            head,
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
            b"Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n",
        )
        self.assertEqual(chunk(b"hello world, hi\n"), b"10\r\nhello world, hi\n\r\n")
        self.assertRaises(
            AssertionError, response_head, 200, None, minor=0, keep_alive=False
        )
        self.assertRaises(AssertionError, chunk, b"")

    @given(st.lists(st.binary(min_size=1), max_size=9))
    def test_chunkedRoundTrip(self, pieces: list[bytes]) -> None:
        """
        What we write in chunks, we can read, and what follows it too.
        """
        head = response_head(200, None, minor=1, keep_alive=True)
        stream = head + b"".join(map(chunk, pieces)) + LAST_CHUNK
        events = read(client(10**6), stream * 2)
        body = [Body(b"".join(pieces))] if pieces else []
        self.assertEqual(events[1:], [*body, End.END, events[0], *body, End.END])

    @given(st.sampled_from([200, 403, 404, 413, 503]), st.binary(max_size=LIMIT))
    def test_roundTrip(self, code: int, body: bytes) -> None:
        """
        What we write, we can read.
        """
        head = response_head(code, len(body), minor=1, keep_alive=True)
        events = read(client(), head + body)
        self.assertEqual(events[0].start.code, code)
        self.assertEqual(events[1:], [*([Body(body)] if body else []), End.END])
