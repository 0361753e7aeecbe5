# SPDX-License-Identifier: AGPL-3.0-only
"""
Messages for tests: streams of HTTP and what reads them, any JSON at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.errors import ProtocolError
from ctrlexec.protocol.http import (
    BadMessage,
    Body,
    End,
    Head,
    Parser,
    RequestLine,
    StatusLine,
)

LIMIT = 1000
CHUNKED = (
    b"POST /run HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n"
    b"5;x=y\r\nhello\r\nA \t; q\r\n, world...\r\n0\r\nTrailer: x\r\n\r\n"
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def server(limit: int = LIMIT) -> Parser[RequestLine]:
    """
    What reads requests.
    """
    return Parser(RequestLine.parse, body_bytes=limit)


def client(limit: int = LIMIT) -> Parser[StatusLine]:
    """
    What reads responses.
    """
    return Parser(StatusLine.parse, body_bytes=limit)


def read(parser: Parser[Any], *pieces: bytes) -> list[Any]:
    """
    All events of a stream that arrives in these pieces, bodies joined.
    """
    events: list[Any] = []
    for piece in pieces:
        parser.feed(piece)
        while (event := parser.next_event()) is not None:
            match events[-1:], event:
                case [Body(before)], Body(data):
                    events[-1] = Body(before + data)
                case _:
                    events.append(event)
    return events


def requests_of(events: Iterable[Any]) -> list[tuple[str, str, int, bytes]]:
    """
    The requests that events tell of.
    """
    found = []
    body = b""
    for event in events:
        match event:
            case Head(start):
                head = start
            case Body(data):
                body = data
            case End.END:
                found.append((head.method, head.path, head.minor, body))
                body = b""
    return found


def lines(*fields: str, start: str = "GET / HTTP/1.1") -> bytes:
    """
    The head of a message.
    """
    return "\r\n".join([start, *fields, "", ""]).encode("latin-1")


class HttpTestCase(SynchronousTestCase):
    """
    What tests of the parser ask.
    """

    def assertBad(
        self, code: int, error: str, *pieces: bytes, parser: Parser[Any] | None = None
    ) -> None:
        """
        The stream is refused with this status and in these words.
        """
        with self.assertRaises(BadMessage, msg=repr(pieces)) as caught:
            read(parser or server(), *pieces)
        self.assertEqual((caught.exception.code, str(caught.exception)), (code, error))


class CodecTestCase(SynchronousTestCase):
    """
    What tests of the codec ask.
    """

    def assertProtocolError(
        self, reader: Callable[[bytes], object], body: bytes, error: str
    ) -> None:
        """
        A body is none, and this is why.
        """
        with self.assertRaises(ProtocolError, msg=repr(body[:80])) as caught:
            reader(body)
        self.assertEqual(str(caught.exception), error)
