# SPDX-License-Identifier: AGPL-3.0-only
"""
HTTP/1.0 and HTTP/1.1 messages, from bytes and to bytes, without a transport.

Ours, because the protocol is: the limits and the words of each refusal are
fixed (PROTOCOL.md section 2), a pairing carries two responses to one request
(section 3), and both are the same for the four who need it, agent and
dispatcher as client and as server.

Strict where a lie could hide (one framing, numbers that are numbers, no folded
lines), lenient where peers differ (any case of a name, a bare line feed).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import attrs

from ctrlexec.errors import ProtocolError
from ctrlexec.protocol import limits

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REQUEST_LINE = re.compile(r"([A-Z]{1,16}) (/[!-~]{0,1023}) HTTP/1\.([01])")
_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-5][0-9]{2})(?: (.*))?")
_CHUNK_SIZE = re.compile(r"([0-9A-Fa-f]{1,8})(?:[ \t]*;.*)?")

REASONS: Mapping[int, str] = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class BadMessage(ProtocolError):
    """
    What arrived is no message that we take; the stream can not be used on.

    @ivar code: the HTTP status that says so, where it was a request.
    """

    def __init__(self, code: int, error: str) -> None:
        super().__init__(error)
        self.code = code


@attrs.frozen
class RequestLine:
    """
    @ivar minor: 0 for HTTP/1.0, 1 for HTTP/1.1.
    """

    method: str
    path: str
    minor: int

    @classmethod
    def parse(cls, line: str) -> RequestLine:
        """
        @raise BadMessage: the line is none of HTTP/1.
        """
        if not line:
            raise BadMessage(400, "empty request")
        found = _REQUEST_LINE.fullmatch(line)
        if found is None:
            raise BadMessage(400, "malformed request line")
        return cls(found[1], found[2], int(found[3]))


@attrs.frozen
class StatusLine:
    """
    @ivar minor: 0 for HTTP/1.0, 1 for HTTP/1.1.
    """

    code: int
    reason: str
    minor: int

    @classmethod
    def parse(cls, line: str) -> StatusLine:
        """
        @raise BadMessage: the line is none of HTTP/1.
        """
        found = _STATUS_LINE.fullmatch(line)
        if found is None:
            raise BadMessage(400, "not an HTTP answer")
        return cls(int(found[2]), found[3] or "", int(found[1]))


Start = TypeVar("Start", RequestLine, StatusLine)


@attrs.frozen
class Head(Generic[Start]):
    """
    All of a message but its body.

    @ivar fields: the header, names in lower case, values of the same name
        joined by commas.
    @ivar repeated: the names that stand there more than once.
    """

    start: Start
    fields: Mapping[str, str]
    repeated: frozenset[str] = frozenset()

    @property
    def keeps_alive(self) -> bool:
        """
        Whether another message may follow on the connection. HTTP/1.0 peers
        close; the few that would not are answered as if they did. Nothing can
        follow on HEAD, which we answer with a body, as everything.
        """
        if isinstance(self.start, RequestLine) and self.start.method == "HEAD":
            return False
        tokens = self.fields.get("connection", "").lower().split(",")
        return self.start.minor == 1 and "close" not in (t.strip() for t in tokens)


@attrs.frozen
class Body:
    """
    A piece of a message's body, never empty.
    """

    data: bytes


class End(enum.Enum):
    """
    A message is complete.
    """

    END = "end"


class _State(enum.Enum):
    HEAD = "head"
    LENGTH = "length"
    CHUNK_SIZE = "chunk size"
    CHUNK = "chunk"
    CHUNK_END = "chunk end"
    TRAILER = "trailer"
    UNTIL_CLOSE = "until close"
    COMPLETE = "complete"


class Parser(Generic[Start]):
    """
    The messages in a stream of bytes, as events: L{Head}, any number of
    L{Body}, L{End.END}; and again.

    @param start_line: L{RequestLine.parse} or L{StatusLine.parse}.
    @param body_bytes: how long a body may be.
    """

    def __init__(self, start_line: Callable[[str], Start], *, body_bytes: int) -> None:
        self._start_line: Callable[[str], Start] = start_line
        self._body_bytes = body_bytes
        self._buffer = bytearray()
        self._state = _State.HEAD
        self._lines: list[str] = []
        self._head_bytes = 0
        self._remaining = 0
        self._body_seen = 0
        self._is_bounded = True

    @property
    def buffered_bytes(self) -> int:
        """
        How much was fed and not read yet.
        """
        return len(self._buffer)

    @property
    def between_messages(self) -> bool:
        """
        Whether nothing of a next message has arrived.
        """
        return self._state is _State.HEAD and not self._lines and not self._buffer

    def feed(self, data: bytes) -> None:
        """
        Take bytes as they come.
        """
        self._buffer += data

    def take_all(self) -> None:
        """
        The body of the message whose L{Head} was the last event may be of any
        length: whoever reads it keeps none of it.
        """
        self._is_bounded = False

    def next_event(self) -> Head[Start] | Body | End | None:
        """
        @return: the next event; C{None} when more bytes are needed for it.
        @raise BadMessage: the stream can not be used on.
        """
        while True:
            before = self._state
            event = self._step(before)
            if event is not None or self._state is before:
                return event

    def end_of_stream(self) -> End | None:
        """
        The peer has closed the connection; every event has been read.

        @return: L{End.END} where that completes a message.
        @raise BadMessage: it cuts a message off.
        """
        if self._state is _State.UNTIL_CLOSE:
            return self._finish()
        if self.between_messages:
            return None
        raise BadMessage(400, "the connection was closed in the middle of a message")

    def _step(self, state: _State) -> Head[Start] | Body | End | None:
        match state:
            case _State.HEAD:
                return self._read_head()
            case _State.LENGTH | _State.CHUNK:
                return self._read_counted()
            case _State.UNTIL_CLOSE:
                return self._read_until_close()
            case _State.COMPLETE:
                return self._finish()
            case _State.CHUNK_SIZE:
                self._read_chunk_size()
            case _State.CHUNK_END:
                self._read_chunk_end()
            case _State.TRAILER:
                self._read_trailer()
        return None

    def _line(self) -> str | None:
        end = self._buffer.find(b"\n")
        length = end + 1 if end >= 0 else len(self._buffer)
        if self._head_bytes + length > limits.HEADER_BYTES:
            raise BadMessage(431, "header too large")
        if end < 0:
            return None
        line = bytes(self._buffer[:end]).removesuffix(b"\r")
        del self._buffer[:length]
        self._head_bytes += length
        return line.decode("latin-1")

    def _read_head(self) -> Head[Start] | None:
        while (line := self._line()) is not None:
            if line or not self._lines:
                self._lines.append(line)
                if len(self._lines) == 1:
                    self._start_line(line)
                elif len(self._lines) > limits.HEADER_LINES + 1:
                    raise BadMessage(431, "too many headers")
                continue
            start, lines = self._start_line(self._lines[0]), self._lines[1:]
            fields = _fields(lines)
            self._lines, self._head_bytes = [], 0
            self._state = self._framing(start, fields)
            return Head(start, fields, _repeated(lines, fields))
        return None

    def _framing(self, start: Start, fields: Mapping[str, str]) -> _State:
        """
        How the body that follows is delimited: RFC 9112 section 6.3.
        """
        self._body_seen, self._is_bounded = 0, True
        coding, length = fields.get("transfer-encoding"), fields.get("content-length")
        if isinstance(start, StatusLine) and (
            start.code < 200 or start.code in (204, 304)
        ):
            return _State.COMPLETE
        if coding is not None:
            if coding.lower() != "chunked" or length is not None or not start.minor:
                raise BadMessage(400, "unclear length of the body")
            return _State.CHUNK_SIZE
        if length is not None:
            if not (length.isascii() and length.isdigit()):
                raise BadMessage(400, "malformed Content-Length")
            # Leading zeros say nothing, and may be many; twenty digits are too
            # much already.
            self._expect(int(length.lstrip("0")[:20] or "0"))
            return _State.LENGTH if self._remaining else _State.COMPLETE
        return _State.COMPLETE if isinstance(start, RequestLine) else _State.UNTIL_CLOSE

    def _expect(self, count: int) -> None:
        self._body_seen += count
        if self._is_bounded and self._body_seen > self._body_bytes:
            raise BadMessage(413, "request too large")
        self._remaining = count

    def _read_counted(self) -> Body | None:
        if not self._buffer:
            return None
        data = bytes(self._buffer[: self._remaining])
        del self._buffer[: len(data)]
        self._remaining -= len(data)
        if not self._remaining:
            chunked = self._state is _State.CHUNK
            self._state = _State.CHUNK_END if chunked else _State.COMPLETE
        return Body(data)

    def _read_chunk_size(self) -> None:
        if (line := self._line()) is None:
            return
        self._head_bytes = 0
        found = _CHUNK_SIZE.fullmatch(line)
        if found is None:
            raise BadMessage(400, "malformed chunk")
        self._expect(int(found[1], 16))
        self._state = _State.CHUNK if self._remaining else _State.TRAILER

    def _read_chunk_end(self) -> None:
        if (line := self._line()) is None:
            return
        self._head_bytes = 0
        if line:
            raise BadMessage(400, "malformed chunk")
        self._state = _State.CHUNK_SIZE

    def _read_trailer(self) -> None:
        while (line := self._line()) is not None:
            if not line:
                self._head_bytes = 0
                self._state = _State.COMPLETE
                return

    def _read_until_close(self) -> Body | None:
        if not self._buffer:
            return None
        self._expect(len(self._buffer))
        data = bytes(self._buffer)
        self._buffer.clear()
        return Body(data)

    def _finish(self) -> End:
        self._state = _State.HEAD
        return End.END


def _fields(lines: list[str]) -> Mapping[str, str]:
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name):
            raise BadMessage(400, "malformed header")
        name, value = name.lower(), value.strip(" \t")
        # A second length, even an equal one, makes the value no number.
        fields[name] = f"{fields[name]},{value}" if name in fields else value
    return fields


def _repeated(lines: list[str], fields: Mapping[str, str]) -> frozenset[str]:
    if len(lines) == len(fields):
        return frozenset()
    names = [line.partition(":")[0].lower() for line in lines]
    return frozenset(name for name in names if names.count(name) > 1)


def request(
    method: str,
    path: str,
    body: bytes,
    *,
    host: str,
    minor: int = 1,
    keep_alive: bool = False,
) -> bytes:
    """
    @param host: what the C{Host} field says.
    @param minor: 0 for HTTP/1.0.
    @param keep_alive: whether the connection is to carry others as well.
    @return: a request, spelled out.
    """
    lines = [
        f"{method} {path} HTTP/1.{minor}",
        f"Host: {host}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"Connection: {'keep-alive' if keep_alive else 'close'}",
    ]
    return _message(lines, body)


def response_head(
    code: int,
    length: int | None,
    *,
    minor: int,
    keep_alive: bool,
    content_type: str = "application/json",
) -> bytes:
    """
    @param length: of the body that follows; C{None} for one that comes as
        L{chunk}s, which no peer of HTTP/1.0 can read.
    @return: the head of a response, spelled out.
    """
    assert minor or length is not None
    framing = "Transfer-Encoding: chunked"
    lines = [
        f"HTTP/1.{minor} {code} {REASONS.get(code, 'Unknown')}",
        f"Content-Type: {content_type}",
        framing if length is None else f"Content-Length: {length}",
        f"Connection: {'keep-alive' if keep_alive else 'close'}",
    ]
    return _message(lines, b"")


#: What follows the last chunk of a body.
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """
    @param data: a piece of a body; not empty, as that would be its end.
    @return: the piece, with its length round it.
    """
    assert data
    return b"%x\r\n%b\r\n" % (len(data), data)


def _message(lines: list[str], body: bytes) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body
