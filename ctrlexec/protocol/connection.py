# SPDX-License-Identifier: AGPL-3.0-only
"""
A connection to an agent, as its client has it: requests, one after the other,
and their bounded answers.

Nothing of a request is sent before the peer has proved to be the agent that it
is meant for.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

import attrs
from OpenSSL import SSL
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IProtocol,
    IReactorTime,
    ISSLTransport,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from ctrlexec.errors import CtrlExecError, TransportError
from ctrlexec.pki import CertificateInfo
from ctrlexec.protocol.http import (
    BadMessage,
    Body,
    End,
    Head,
    Parser,
    StatusLine,
)
from ctrlexec.tls import peer_certificate
from ctrlexec.values import Target

#: How long a peer may take to close after we have said that we are done.
LINGER_SECONDS = 5.0

#: What a peer must prove to be; raises L{TransportError} where it does not.
PeerCheck = Callable[[CertificateInfo | None], None]


@attrs.frozen
class Answer:
    """
    @ivar code: the HTTP status.
    """

    code: int
    body: bytes


@implementer(IHandshakeListener)
class ClientConnection(Protocol):
    """
    Sends a request when the handshake is done, and collects its answer; then,
    if it was asked to stay and the agent agrees, more of them.

    @param message: the first request, spelled out.
    @param check: what the peer must prove to be.
    @param answer_bytes: how long the body of an answer may be.
    @param stays: whether more requests may follow.
    """

    def __init__(
        self,
        message: bytes,
        check: PeerCheck,
        answer_bytes: int,
        *,
        stays: bool = False,
    ) -> None:
        #: Whether the agent may have the request.
        self.sent = False
        #: Whether another request can be sent.
        self.free = False
        #: When it was wanted, by the clock of whoever wanted it.
        self.began = 0.0
        self._message = message
        self._check = check
        self._stays = stays
        self._keeps = False
        self._parser = Parser(StatusLine.parse, body_bytes=answer_bytes)
        self._code = 0
        self._body = bytearray()
        self._heard = False
        self._peer: CertificateInfo | None = None
        self._result: Deferred[Answer] | None = self._expected()
        self._abort: IDelayedCall | None = None

    def answer(self) -> Deferred[Answer]:
        """
        @return: fires with the answer; fails with a L{CtrlExecError}, or with
            what the transport says. Cancelling it closes the connection.
        """
        assert self._result is not None
        return self._result

    @property
    def silent(self) -> bool:
        """
        Whether the agent has not said a word to the last request.
        """
        return not self._heard

    def again(self, message: bytes) -> Deferred[Answer]:
        """
        Send another request on a connection that is L{free}.

        @return: see L{answer}.
        """
        assert self.free
        self.free = self._heard = False
        self._body.clear()
        self._result = self._expected()
        self._transport.write(message)
        return self._result

    def recheck(self) -> None:
        """
        A connection that is L{free} is to be used again: its peer may not be
        good enough any more.

        @raise CtrlExecError: it is not, and the connection is closed.
        """
        try:
            self._check(self._peer)
        except CtrlExecError:
            self.close()
            raise

    def close(self) -> None:
        """
        A connection that is L{free} is wanted no more.
        """
        self.free = False
        self._transport.loseConnection()

    def handshakeCompleted(self) -> None:
        transport = self._transport
        try:
            self._peer = peer_certificate(transport)
            self._check(self._peer)
        except CtrlExecError:
            # Closed in good order: a reset right after the handshake ends an
            # agent of the original (PROTOCOL.md section 10).
            self._settle(Failure(), transport.loseConnection)
        else:
            self.sent = True
            transport.write(self._message)

    def dataReceived(self, data: bytes) -> None:
        if self._result is None:
            if self.free:
                # An answer to nothing could be taken for that to what follows.
                self.free = False
                self._transport.abortConnection()
            return
        self._heard = True
        self._parser.feed(data)
        try:
            while (event := self._parser.next_event()) is not None:
                self._read(event)
        except BadMessage:
            self._settle(Failure())

    def connectionLost(self, reason: Failure = Failure(error.ConnectionDone())) -> None:
        self.free = self._keeps = False
        try:
            if self._parser.end_of_stream() is End.END:
                self._read(End.END)
        except BadMessage:
            pass
        self.connected = 0
        if self._abort is not None and self._abort.active():
            self._abort.cancel()
        self._settle(reason)

    def linger(self, clock: IReactorTime) -> None:
        """
        All is said; a peer that does not close its side in a few seconds, or
        at all, is not waited for.
        """
        if self.connected and not self.free:
            self._abort = clock.callLater(
                LINGER_SECONDS, self._transport.abortConnection
            )

    def _read(self, event: Head[StatusLine] | Body | End) -> None:
        match event:
            case Head(start):
                self._code = start.code
                self._keeps = self._stays and event.keeps_alive
            case Body(data):
                self._body += data
            case End.END if self._code >= 200:
                # What follows the answer is an answer to nothing.
                self.free = self._keeps and self._parser.between_messages
                self._settle(Answer(self._code, bytes(self._body)))

    def _settle(
        self, outcome: Answer | Failure, close: Callable[[], None] | None = None
    ) -> None:
        waiting, self._result = self._result, None
        if waiting is None:
            return
        if isinstance(outcome, Failure):
            (close or self._transport.abortConnection)()
            waiting.errback(outcome)
        else:
            if not self.free:
                self._transport.loseConnection()
            waiting.callback(outcome)

    def _expected(self) -> Deferred[Answer]:
        return Deferred(lambda _: self._cancel())

    def _cancel(self) -> None:
        self._result = None
        self._transport.abortConnection()

    @property
    def _transport(self) -> ISSLTransport:
        assert self.transport is not None
        return self.transport  # type: ignore[return-value]


@attrs.frozen
class Waiting:
    """
    How an answer is waited for.

    @ivar target: who is to give it.
    @ivar read_seconds: how long it may take once there is a connection.
    @ivar unanswered: the hint for a request that was sent and not answered.
    """

    target: Target
    read_seconds: float
    unanswered: str = ""


async def exchange(
    clock: IReactorTime,
    endpoint: IStreamClientEndpoint,
    connection: ClientConnection,
    waiting: Waiting,
) -> Answer:
    """
    Connect, ask, and wait for the answer.

    @raise TransportError: no answer came; in words that name the target.
    """
    answered = connection.answer()

    async def connected() -> Answer:
        await _cancellable(endpoint.connect(Factory.forProtocol(lambda: connection)))
        answered.addTimeout(waiting.read_seconds, clock)
        return await answered

    return await _in_time(clock, connection, connected(), waiting)


async def exchange_again(
    clock: IReactorTime,
    connection: ClientConnection,
    message: bytes,
    waiting: Waiting,
) -> Answer:
    """
    Ask once more on a connection that is free, and wait for the answer; raises
    like L{exchange}.
    """
    answered = connection.again(message)
    answered.addTimeout(waiting.read_seconds, clock)
    return await _in_time(clock, connection, answered, waiting)


async def _in_time(
    clock: IReactorTime,
    connection: ClientConnection,
    answered: Awaitable[Answer],
    waiting: Waiting,
) -> Answer:
    try:
        return await answered
    except BadMessage as bad:
        raise TransportError(
            "the answer is too large"
            if bad.code == 413
            else f"the agent's answer makes no sense: {bad}"
        ) from bad
    except (CtrlExecError, CancelledError):
        raise
    except DeferredTimeoutError as late:
        hint = waiting.unanswered if connection.sent else ""
        text = f"read timeout after {waiting.read_seconds:g}s"
        raise TransportError(text, hint=hint) from late
    except Exception as why:
        # After a failed handshake the agent has read nothing.
        cut = isinstance(why, (error.ConnectionDone, error.ConnectionLost))
        hint = waiting.unanswered if connection.sent and cut else ""
        raise TransportError(_in_words(why, waiting.target), hint=hint) from why
    finally:
        connection.linger(clock)


def _cancellable(connecting: Deferred[IProtocol]) -> Deferred[IProtocol]:
    """
    An attempt to connect that ends like any other work when it is cancelled:
    endpoints fail with errors of their own, as if the network had done it.
    """

    def cancel(waiting: Deferred[IProtocol]) -> None:
        waiting.errback(CancelledError())
        connecting.cancel()

    attempt: Deferred[IProtocol] = Deferred(cancel)
    connecting.addBoth(
        lambda result: None if attempt.called else attempt.callback(result)
    )
    return attempt


def _in_words(why: Exception, target: Target) -> str:
    """
    Transport errors as NEWER-LINE.md section 14 spells them.
    """
    host, port = target.host, target.port
    match why:
        case error.DNSLookupError():
            return (
                f"host '{host}' did not resolve - check the name or use an IP address"
            )
        case error.ConnectionRefusedError():
            return (
                f"host '{host}' did not respond on port {port} - connection refused "
                "(agent not running, or wrong port?)"
            )
        case error.NoRouteError() | error.ConnectError(osError=errno.EHOSTUNREACH):
            return f"host '{host}' is unreachable - no route to host or network down"
        case error.TimeoutError() | error.TCPTimedOutError():
            return f"host '{host}' did not respond - connection timed out"
        case SSL.Error():
            return f"TLS handshake with '{host}' failed - certificate or trust mismatch"
        case error.ConnectionDone() | error.ConnectionLost():
            return f"host '{host}' closed the connection without an answer"
    return str(why) or type(why).__name__
