# SPDX-License-Identifier: AGPL-3.0-only
"""
A connection to the API: our parser under Twisted's requests.

Its limits hold before anybody is asked who is there, or what they want
(PROTOCOL.md section 2, NEWER-LINE.md section 13): the same parser, numbers and
deadlines as in front of an agent. L{twisted.web.http.HTTPChannel} would take
five hundred headers and a body of any length, and refuses in plain text.

It is over 400 lines, since whoever reads, writes and closes a connection looks at
the same few flags.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable
from io import BytesIO
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.server import Request
from zope.interface import implementer

from ctrlexec.api.callers import Peer
from ctrlexec.api.place import Place
from ctrlexec.api.problems import bad_message
from ctrlexec.api.writing import SERVER, Outlet, last_words
from ctrlexec.protocol import limits
from ctrlexec.protocol.http import BadMessage, Body, End, Head, Parser, RequestLine
from ctrlexec.protocol.server import LINGER_SECONDS

#: How much of bodies that are not complete yet is held at once, for all
#: clients of a socket. Who they are is not known before they are complete.
BODIES_BYTES = 64 * limits.REQUEST_BODY_BYTES
_CROWDED = "too many bodies at once"
#: How many requests of a connection are answered before others have their turn:
#: thousands can arrive in one go.
REQUESTS_AT_ONCE = 10


@implementer(IPushProducer)
class Channel(Protocol):
    """
    Reads requests one after the other, and writes their answers as fast as the
    peer takes them.

    To a request it is what a L{twisted.web.http.HTTPChannel} would be, as far
    as requests use one.

    @ivar request: the one that is being answered.
    @ivar body_since: when the first part of a body came that is not complete.
    """

    transport: Any
    body_since: float | None = None

    def __init__(self, site: Place) -> None:
        self.site = self.factory = site
        self.request: Request | None = None
        self.head: Head[RequestLine] | None = None
        self._peer: Peer | None = None
        # We look at the length ourselves: at the end of the header it is known
        # what the request is about, and how it wants to be answered.
        self._parser = Parser(RequestLine.parse, body_bytes=sys.maxsize)
        self._body = bytearray()
        self._deadline: IDelayedCall | None = None
        self._turn: IDelayedCall | None = None
        self._reading = False
        self._read_seconds = site.read_seconds
        self._done = self._last = False
        self._closing = self._aborted = False

    @property
    def is_idle(self) -> bool:
        """
        Whether the peer is owed nothing.
        """
        return self.request is None and not self._closing

    @property
    def is_leaving(self) -> bool:
        """
        Whether the peer has all that there is, and only does not close.
        """
        return self._closing and not self._aborted

    async def identified(self, identify: Callable[[Channel], Awaitable[Peer]]) -> Peer:
        """
        Who is at the other end; asked once a connection.
        """
        if self._peer is None:
            self._peer = await identify(self)
        return self._peer

    # What the transport tells us.

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpKeepAlive(True)
            self.transport.setTcpNoDelay(True)
        self._outlet = Outlet(self.transport, self._wrote)
        self.transport.registerProducer(self, True)
        self._within(limits.HEADER_SECONDS, self._too_slow)

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            return
        if self.request is None and self._parser.between_messages:
            self._within(limits.HEADER_SECONDS, self._too_slow)
        self._parser.feed(data)
        if self.request is None and self._turn is None:
            self._read_on()
        elif self._parser.buffered_bytes > limits.HEADER_BYTES:
            # The next request can wait in the peer's memory instead of ours.
            self.transport.pauseProducing()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:
        self._closing = True
        self._outlet.clear()
        self._let_go()
        self._within(None)
        if self._turn is not None:
            self._turn.cancel()
        self.site.ended(self)
        request, self.request = self.request, None
        if request is not None and not self._done:
            request.connectionLost(reason)

    def pauseProducing(self) -> None:
        """
        The peer reads slower than we write.
        """
        self._outlet.pause()

    def resumeProducing(self) -> None:
        """
        The peer has read what there was.
        """
        self._outlet.resume()
        self._settle()

    def stopProducing(self) -> None:
        """
        The peer has gone; L{connectionLost} follows.
        """

    # Reading.

    def _read_on(self) -> None:
        if self._reading:
            # The answer was given at once: the loop below goes on by itself,
            # however many requests were sent in one go.
            return
        self._reading, dispatched = True, 0
        try:
            while self.request is None and not self._closing:
                if dispatched == REQUESTS_AT_ONCE:
                    self.transport.pauseProducing()
                    self._turn = self.site.reactor.callLater(0, self._take_turn)
                    return
                match self._parser.next_event():
                    case None:
                        return
                    case Head() as head:
                        self.head = head
                        self._within(limits.BODY_SECONDS, self._too_slow)
                        self._expect(_declared(head))
                        self._continue(head)
                    case Body(data):
                        self._hold(data)
                    case End.END:
                        self._dispatch()
                        dispatched += 1
        except BadMessage as bad:
            self._refuse(bad)
        finally:
            self._reading = False

    def _take_turn(self) -> None:
        self._turn = None
        if not self._closing:
            self.transport.resumeProducing()
            self._read_on()

    def _expect(self, body_bytes: int) -> None:
        if body_bytes > limits.REQUEST_BODY_BYTES:
            raise BadMessage(413, "request too large")

    def _hold(self, data: bytes) -> None:
        self._expect(len(self._body) + len(data))
        while self.site.body_bytes + len(data) > BODIES_BYTES:
            if not self.site.make_room(self):
                raise BadMessage(503, _CROWDED)
        if self.body_since is None:
            self.body_since = self.site.reactor.seconds()
        self.site.body_bytes += len(data)
        self._body += data

    def give_way(self) -> None:
        """
        Let go of a body that is not complete: others need the room.
        """
        self._refuse(BadMessage(503, _CROWDED))

    def _let_go(self) -> None:
        self.site.body_bytes -= len(self._body)
        self._body.clear()
        self.body_since = None

    def _continue(self, head: Head[RequestLine]) -> None:
        if head.start.minor and head.fields.get("expect", "").lower() == "100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _dispatch(self) -> None:
        assert self.head is not None
        start, body = self.head.start, bytes(self._body)
        self._let_go()
        self._within(None)
        request = self.site.requestFactory(self)
        for name, value in self.head.fields.items():
            request.requestHeaders.addRawHeader(
                name.encode("ascii"), value.encode("latin-1")
            )
        request.repeated = self.head.repeated  # type: ignore[attr-defined]
        request.content = BytesIO(body)
        request.content.seek(0, 2)
        self.request, self._done = request, False
        version = b"HTTP/1.%d" % start.minor
        request.requestReceived(start.method.encode(), start.path.encode(), version)

    # What a request needs of us.

    def getPeer(self) -> IAddress:
        peer: IAddress = self.transport.getPeer()
        return peer

    def getHost(self) -> IAddress:
        host: IAddress = self.transport.getHost()
        return host

    def isSecure(self) -> bool:
        """
        Whether it is HTTPS.
        """
        return ISSLTransport.providedBy(self.transport)

    def writeHeaders(
        self, version: bytes, code: bytes, reason: bytes, headers: Headers
    ) -> None:
        """
        Begin an answer.
        """
        headers.setRawHeaders(b"Server", [SERVER])
        headers.setRawHeaders(b"Connection", [self._connection()])
        lines = [b"%s %s %s" % (version, code, reason)]
        lines += [
            b"%s: %s" % (name, value)
            for name, values in headers.getAllRawHeaders()
            for value in values
        ]
        self.write(b"\r\n".join([*lines, b"", b""]))

    def write(self, data: bytes) -> None:
        """
        Go on with it.
        """
        if not self._closing:
            self._outlet.write(data)
            self._settle()

    def writeSequence(self, pieces: Iterable[bytes]) -> None:
        """
        See L{write}.
        """
        self.write(b"".join(pieces))

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """
        A request's answer is made as fast as the peer reads it.
        """
        assert streaming, "nobody here pulls"
        self._outlet.feed_from(producer)

    def unregisterProducer(self) -> None:
        """
        It is all made.
        """
        self._outlet.feed_from(None)

    def requestDone(self, request: Request) -> None:
        """
        The answer is complete, if perhaps not read yet.
        """
        self._done = True
        self._settle()

    def loseConnection(self) -> None:
        """
        A request gives up.
        """
        self._close()

    def take_time(self, seconds: float) -> None:
        """
        Wait so long for the peer to go on reading this answer, not as long as
        for others.
        """
        self._read_seconds = seconds

    # Writing.

    def _connection(self) -> bytes:
        assert self.head is not None
        keeps = self.head.keeps_alive and not self._last
        if not keeps:
            self._last = True
        return b"keep-alive" if keeps else b"close"

    def _wrote(self) -> None:
        self._within(self._read_seconds, self.abort)

    def _settle(self) -> None:
        """
        Whether the peer has got what there was, or all that there will be.
        """
        if self.request is None or self._closing or not self._outlet.is_empty:
            return
        self._within(None)
        if self._done:
            self._next()

    def _next(self) -> None:
        self.request = None
        if self._last:
            # Megabytes of an answer can still be in the system's hands.
            self._close(self.site.read_seconds)
            return
        self.head, self._read_seconds = None, self.site.read_seconds
        self.site.rested(self)
        if self._parser.between_messages:
            self._within(limits.IDLE_SECONDS, self._close)
        else:
            self._within(limits.HEADER_SECONDS, self._too_slow)
        self.transport.resumeProducing()
        self._read_on()

    # The end of it.

    def finish(self) -> None:
        """
        Give the answer that is owed, if one is, and close.
        """
        self._last = True
        if self.is_idle:
            self._close()

    def abort(self) -> None:
        """
        Close the connection, whatever it is in the middle of.
        """
        self._closing = self._aborted = True
        self._within(None)
        self.transport.abortConnection()

    def _too_slow(self) -> None:
        if self.head is None and self._parser.between_messages:
            # Whoever has said nothing needs no answer.
            self._close()
        else:
            self._refuse(BadMessage(408, "the request did not arrive in time"))

    def _refuse(self, bad: BadMessage) -> None:
        fields = {} if self.head is None else self.head.fields
        answer = bad_message(bad).answer(fields.get("accept", ""))
        minor = 1 if self.head is None else self.head.start.minor
        self.transport.write(last_words(answer, minor))
        self.site.refused(self, answer)
        self._close()

    def _close(self, linger_seconds: float = LINGER_SECONDS) -> None:
        """
        Close our side, but go on reading into nothing for a while: a peer that
        is still writing its request would see a reset instead of the answer.
        """
        if self._closing:
            return
        self._closing = True
        self._let_go()
        self._within(linger_seconds, self.abort)
        self.transport.unregisterProducer()
        self.transport.resumeProducing()
        if self.isSecure():
            # This sends the end of the stream, and waits for the peer's.
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def _within(
        self, seconds: float | None, otherwise: Callable[[], None] | None = None
    ) -> None:
        """
        Move the one deadline that a connection has.
        """
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None
        if seconds is not None and otherwise is not None:
            self._deadline = self.site.reactor.callLater(seconds, otherwise)


def _declared(head: Head[RequestLine]) -> int:
    """
    The length of the body, as far as it is told. The parser has seen that it is
    a number; one with twenty digits is too much already.
    """
    digits = head.fields.get("content-length", "").lstrip("0")
    return int(digits[:20] or 0)
