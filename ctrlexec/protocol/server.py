# SPDX-License-Identifier: AGPL-3.0-only
"""
The server's side of a connection: the parser on a transport, with deadlines.

Agent and pairing listener both stand on it. What is answered is the
L{Handler}'s; what a connection may cost is decided here, all of it, as it has
one deadline and one state: hence so many lines.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IReactorTime,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from ctrlexec.errors import PkiError
from ctrlexec.protocol import codec, limits
from ctrlexec.protocol.exchange import (
    Exchange,
    Handler,
    LongAnswer,
    Peer,
    Request,
    Streaming,
    Visit,
)
from ctrlexec.protocol.http import (
    BadMessage,
    Body,
    End,
    Head,
    Parser,
    RequestLine,
    response_head,
)
from ctrlexec.protocol.listening import plain_address
from ctrlexec.protocol.messages import Refused
from ctrlexec.protocol.sending import WRITE_BYTES, ITlsTransport, Sender, Stream
from ctrlexec.tls import peer_certificate

__all__ = [
    "LINGER_SECONDS",
    "Exchange",
    "Handler",
    "Peer",
    "Refusal",
    "Request",
    "ServerConnection",
    "ServerFactory",
    "plain_refusal",
]

#: How long a peer may take to close after we have said that we are done.
LINGER_SECONDS = 5.0

#: What a server answers to a peer that it refuses before a handler is asked:
#: an HTTP status and a body.
Refusal = Callable[[Peer, Refused], tuple[int, bytes]]


def plain_refusal(peer: Peer, refused: Refused) -> tuple[int, bytes]:
    """
    The refusal of an agent: PROTOCOL.md section 2.
    """
    return refused.code, codec.encode_refused(refused)


@implementer(IHandshakeListener)
class ServerConnection(Protocol):
    """
    A connection to a server: requests one after the other, each answered
    before the next is read.

    @param clock: for the deadlines.
    @param body_bytes: how long the body of a request may be.
    @param old_style: answer as HTTP/1.0 whatever the peer speaks.
    @param refusal: how a message that is no request is answered.
    @param ended: told once when the connection is lost.
    """

    def __init__(
        self,
        clock: IReactorTime,
        handler: Handler,
        *,
        body_bytes: int,
        old_style: bool = False,
        refusal: Refusal = plain_refusal,
        ended: Callable[[ServerConnection], None] = lambda _: None,
    ) -> None:
        self._clock = clock
        self._handler = handler
        self._old_style = old_style
        self._refusal = refusal
        self._ended = ended
        self._parser = Parser(RequestLine.parse, body_bytes=body_bytes)
        self._deadline: IDelayedCall | None = None
        self._visit: Visit | None = None
        self._peer: Peer | None = None
        self._unfit: Failure | None = None
        self._head: Head[RequestLine] | None = None
        self._body = bytearray()
        self._exchange: Exchange | None = None
        self._stream: Stream | None = None
        self._closing = False
        self._reading = False
        self._idle = False
        self._last = False

    @property
    def _transport(self) -> ITlsTransport:
        assert self.transport is not None
        return self.transport  # type: ignore[return-value]

    # What the transport tells us.

    def connectionMade(self) -> None:
        self._transport.setTcpKeepAlive(True)
        # Without it an answer that follows the session tickets waits for their
        # delayed acknowledgement: 40 ms a run.
        self._transport.setTcpNoDelay(True)
        self._within(limits.HEADER_SECONDS, self._too_slow)
        self._visit = Visit(plain_address(self._transport.getPeer()), self.abort)
        self._handler.arrived(self._visit)

    def handshakeCompleted(self) -> None:
        assert self._visit is not None
        try:
            certificate = peer_certificate(self._transport)
        except PkiError:
            self._unfit = Failure()
            self._transport.abortConnection()
            return
        self._peer = Peer(self._visit.address, certificate)
        refused = self._handler.admit(self._peer, self._visit)
        if refused is not None:
            self._refuse(refused)

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            return
        if self._idle:
            self._idle = False
            self._within(limits.HEADER_SECONDS, self._too_slow)
        self._parser.feed(data)
        if self._may_read:
            self._read_on()
        elif self._parser.buffered_bytes > limits.HEADER_BYTES:
            # The next request can wait in the peer's memory instead of ours.
            self._transport.pauseProducing()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:
        self._closing = True
        if self._stream is not None:
            self._stream.stop()
            self._stream = None
        self._within(None)
        self._ended(self)
        # It knows how to end us: a circle, which would keep all of this in
        # memory until somebody looks for circles.
        visit, self._visit = self._visit, None
        assert visit is not None
        if self._peer is None:
            self._handler.handshake_failed(visit, self._unfit or reason)
        else:
            self._handler.ended(visit)
        if self._exchange is not None:
            self._exchange.lost()

    def abort(self) -> None:
        """
        Close the connection, whatever it is in the middle of.
        """
        self._transport.abortConnection()

    def stopping(self) -> None:
        """
        The server stops: the answer that is owed, if one is, is the last.
        """
        self._last = True
        if self._exchange is not None:
            self._exchange.stopping = True

    def cut(self) -> None:
        """
        The server stops, and does not wait for the end of what is streamed here,
        if something is: close, and give no end to it.
        """
        if self._stream is not None and self._stream.answer.length is None:
            self.stopping()
            self._stream.stop()
            self._stream, exchange = None, self._exchange
            assert exchange is not None
            self._close()
            exchange.lost()

    def finish(self) -> None:
        """
        Give the answer that is owed, if one is, to its end, and close.
        """
        self.stopping()
        if self._peer is None:
            self.abort()
        elif self._exchange is None and not self._closing:
            self._close()

    # Reading.

    def _read_on(self) -> None:
        if self._reading:
            # An answer was given at once: the loop below goes on by itself,
            # however many requests were sent in one go.
            return
        self._reading = True
        try:
            while self._may_read and not self._closing:
                match self._parser.next_event():
                    case None:
                        return
                    case Head() as head:
                        self._head = head
                        self._within(limits.BODY_SECONDS, self._too_slow)
                        self._continue(head)
                    case Body(data):
                        self._body += data
                    case End.END:
                        self._dispatch()
        except BadMessage as bad:
            self._refuse(Refused(bad.code, str(bad)))
        finally:
            self._reading = False

    @property
    def _may_read(self) -> bool:
        return self._exchange is None or self._exchange.listens

    def _continue(self, head: Head[RequestLine]) -> None:
        if head.start.minor and head.fields.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _dispatch(self) -> None:
        assert self._head is not None and self._peer is not None
        start, body = self._head.start, bytes(self._body)
        self._body.clear()
        self._within(None)
        request = Request(start.method, start.path, body)
        if self._exchange is not None:
            self._exchange.asked(request)
            return
        exchange = Exchange(
            request,
            self._peer,
            self._answer,
            self._begin,
            can_stream=start.minor == 1 and not self._old_style,
        )
        self._exchange = exchange
        self._handler.handle(exchange)

    # Answering.

    def _answer(self, code: int, body: bytes, more: bool) -> None:
        stays = self._may_stay()
        keep_alive = stays and self._keeps_alive
        head = response_head(code, len(body), minor=self._minor, keep_alive=keep_alive)
        finish = self._next if keep_alive else self._close_answered
        if not stays and len(body) <= WRITE_BYTES:
            # It is a refusal, and who gets one is not waited for.
            finish = self._close
        if more:
            self._transport.write(head + body)
        elif len(body) <= WRITE_BYTES:
            self._transport.write(head + body)
            finish()
        else:
            self._transport.write(head)
            sender = Sender(self._transport, memoryview(body), self._wrote, finish)
            sender.start()

    def _begin(self, answer: LongAnswer) -> Streaming:
        keep_alive = self._may_stay() and self._keeps_alive
        head = response_head(
            answer.code,
            answer.length,
            minor=self._minor,
            keep_alive=keep_alive,
            content_type=answer.content_type,
        )
        self._transport.write(head)
        live = answer.length is None
        seconds = limits.FOLLOW_SECONDS if live else limits.WRITE_SECONDS

        def waits(waiting: bool) -> None:
            self._within(seconds if waiting else None, self.abort)

        def done() -> None:
            exchange, self._stream = self._exchange, None
            assert exchange is not None
            exchange.complete()
            if keep_alive and not self._last:
                self._next(max(seconds, limits.IDLE_SECONDS))
            else:
                self._close(seconds)

        self._stream = Stream(self._clock, self._transport, answer, waits, done)
        self._stream.start()
        return self._stream

    @property
    def _keeps_alive(self) -> bool:
        assert self._head is not None
        return self._head.keeps_alive and not (self._old_style or self._last)

    @property
    def _minor(self) -> int:
        assert self._head is not None
        return 0 if self._old_style else self._head.start.minor

    def _may_stay(self) -> bool:
        assert self._peer is not None and self._visit is not None
        return self._handler.may_stay(self._peer, self._visit)

    def _wrote(self) -> None:
        self._within(limits.WRITE_SECONDS, self._transport.abortConnection)

    def _next(self, idle_seconds: float = limits.IDLE_SECONDS) -> None:
        if self._last:
            self._close_answered()
            return
        self._exchange = self._head = None
        self._idle = self._parser.between_messages
        if self._idle:
            self._within(idle_seconds, self._close)
        else:
            self._within(limits.HEADER_SECONDS, self._too_slow)
        self._transport.resumeProducing()
        self._read_on()

    def _refuse(self, refused: Refused) -> None:
        minor = self._head.start.minor if self._head and not self._old_style else 0
        assert self._peer is not None
        code, body = self._refusal(self._peer, refused)
        head = response_head(code, len(body), minor=minor, keep_alive=False)
        self._transport.write(head + body)
        exchange = self._exchange
        self._close()
        if exchange is not None:
            exchange.lost()

    def _too_slow(self) -> None:
        if self._peer is None:
            # There is no TLS yet to say anything over.
            self._transport.abortConnection()
            return
        self._refuse(Refused(408, "request timeout"))

    def _close_answered(self) -> None:
        # Megabytes of an answer can still be in the system's hands, which an
        # abort would throw away.
        self._close(limits.WRITE_SECONDS)

    def _close(self, linger_seconds: float = LINGER_SECONDS) -> None:
        """
        Close, but go on reading into nothing for a while: a peer that is still
        writing its request would see a reset instead of the answer.
        """
        self._closing = True
        self._exchange = None
        self._within(linger_seconds, self._transport.abortConnection)
        self._transport.resumeProducing()
        self._transport.loseConnection()

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
            self._deadline = self._clock.callLater(seconds, otherwise)


@attrs.define(eq=False)
class ServerFactory(Factory):
    """
    Makes a L{ServerConnection} for each peer, and knows those that are open.

    The parameters are those of L{ServerConnection}.
    """

    clock: IReactorTime
    handler: Handler
    body_bytes: int
    old_style: bool = False
    refusal: Refusal = plain_refusal
    _open: set[ServerConnection] = attrs.field(factory=set, init=False)
    _waiting: list[Deferred[None]] = attrs.field(factory=list, init=False)

    noisy = False

    @property
    def connections(self) -> int:
        """
        How many connections are open.
        """
        return len(self._open)

    def buildProtocol(self, addr: object) -> ServerConnection:
        connection = ServerConnection(
            self.clock,
            self.handler,
            body_bytes=self.body_bytes,
            old_style=self.old_style,
            refusal=self.refusal,
            ended=self._lost,
        )
        self._open.add(connection)
        return connection

    def abort_all(self) -> None:
        """
        The server stops: close every connection, whatever it is in the middle of.
        """
        for connection in tuple(self._open):
            connection.stopping()
            connection.abort()

    def cut_streams(self) -> None:
        """
        The server stops: end each stream where it is, as what it tells of goes
        on without us, and can be followed again later.
        """
        for connection in tuple(self._open):
            connection.cut()

    def finish(self) -> Deferred[None]:
        """
        Close every connection, once the answer that it is owed is given; a stream
        is given to its end, see L{cut_streams}.

        @return: fires when none is open any more.
        """
        for connection in tuple(self._open):
            connection.finish()
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        self._tell()
        return waiter

    def _lost(self, connection: ServerConnection) -> None:
        self._open.discard(connection)
        self._tell()

    def _tell(self) -> None:
        if not self._open:
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                waiter.callback(None)
