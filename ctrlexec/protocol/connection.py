# SPDX-License-Identifier: AGPL-3.0-only
"""
A connection to an agent, as its client has it: requests, one after the other,
and their answers, which are bounded, or heard while they come.

Nothing of a request is sent before the peer has proved to be the agent that it
is meant for. It is one state from the first byte to the last, and the words for
all that can go wrong with it: hence over 400 lines.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Awaitable, Callable, Mapping

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
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from ctrlexec.errors import (
    CtrlExecError,
    PkiError,
    ProtocolError,
    TransportError,
    Unanswered,
    Unreachable,
    Untrusted,
)
from ctrlexec.pki import CertificateInfo
from ctrlexec.protocol import limits
from ctrlexec.protocol.codec_runs import EVENTS_TYPE
from ctrlexec.protocol.exchange import handshake_fault
from ctrlexec.protocol.hearing import Hearing
from ctrlexec.protocol.http import (
    BadMessage,
    Body,
    End,
    Head,
    Parser,
    StatusLine,
)
from ctrlexec.protocol.sending import ITlsTransport
from ctrlexec.tls import peer_certificate
from ctrlexec.values import Target

_OF_CERTIFICATES = re.compile("alert .*(certificate|unknown ca)")

#: How long a peer may take to close after we have said that we are done.
LINGER_SECONDS = 5.0

#: What a peer must prove to be; raises L{Untrusted} where it does not.
PeerCheck = Callable[[CertificateInfo | None], None]


class TooLarge(Unanswered):
    """
    There is an answer, and more of it than anybody takes.
    """


@attrs.frozen
class Answer:
    """
    @ivar code: the HTTP status.
    @ivar body: empty where it was heard.
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
    @param hearing: where the answer goes if it is a stream; C{None} for a
        request that has no such answer.
    """

    def __init__(
        self,
        message: bytes,
        check: PeerCheck,
        answer_bytes: int,
        *,
        stays: bool = False,
        hearing: Hearing | None = None,
    ) -> None:
        #: Whether the agent may have the request.
        self.sent = False
        #: Whether another request can be sent.
        self.free = False
        #: When it was wanted, by the clock of whoever wanted it.
        self.began = 0.0
        #: The error of whoever hears the answer, if that has ended it.
        self.fault: BaseException | None = None
        self._message = message
        self._check = check
        self._stays = stays
        self._keeps = False
        self._is_first = True
        self._hearing = hearing
        self._streams = False
        self._parser = Parser(StatusLine.parse, body_bytes=answer_bytes)
        self._code = 0
        self._body = bytearray()
        self._heard = False
        self._is_paused = False
        self._gone: Failure | None = None
        self._peer: CertificateInfo | None = None
        self._result: Deferred[Answer] | None = self._expected()
        self._clock: IReactorTime | None = None
        self._deadline: IDelayedCall | None = None
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

    @property
    def held_bytes(self) -> int:
        """
        How much has come of a stream that nobody has taken yet.
        """
        held = self._hearing.held_bytes if self._hearing is not None else 0
        return self._parser.buffered_bytes + held

    def is_unasked(self, why: Exception) -> bool:
        """
        Whether the agent has done nothing, although we have sent it a request:
        it may look at our certificate only then, and says what is wrong with it
        before it reads on. Nobody else can say that, as it is encrypted; other
        alerts it can be made to give at any time.
        """
        if not (self._is_first and self.silent and isinstance(why, SSL.Error)):
            return False
        return bool(_OF_CERTIFICATES.search(handshake_fault(Failure(why))))

    def again(self, message: bytes, hearing: Hearing | None = None) -> Deferred[Answer]:
        """
        Send another request on a connection that is L{free}.

        @param hearing: where the answer goes if it is a stream.
        @return: see L{answer}.
        """
        assert self.free
        self.free = self._heard = self._is_first = False
        self._hearing = hearing
        self._body.clear()
        self._result = self._expected()
        self._transport.write(message)
        return self._result

    def limit(self, clock: IReactorTime, seconds: float) -> None:
        """
        Fail with C{TimeoutError} if there is no answer in time; once it is a
        stream, if nothing comes of that for L{limits.SILENCE_SECONDS}.
        """
        if self._result is not None:
            self._clock = clock
            self._within(seconds)

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

    def linger(self, clock: IReactorTime) -> None:
        """
        All is said; a peer that does not close its side in a few seconds, or
        at all, is not waited for.
        """
        if self.connected and not self.free:
            self._abort = clock.callLater(
                LINGER_SECONDS, self._transport.abortConnection
            )

    # What the transport tells us.

    def handshakeCompleted(self) -> None:
        transport = self._transport
        try:
            self._peer = _certificate_of(transport)
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
        if self._streams and not self._is_held:
            self._within(limits.SILENCE_SECONDS)
        self._read_on()

    def connectionLost(self, reason: Failure = Failure(error.ConnectionDone())) -> None:
        self.free = self._keeps = False
        self.connected = 0
        if self._abort is not None and self._abort.active():
            self._abort.cancel()
        # What is still to be heard was said before that.
        self._gone = reason
        self._read_on()

    # Reading.

    def _read_on(self) -> None:
        """
        Read what there is, as far as it is taken.
        """
        try:
            while self._result is not None and not self._is_held:
                if self._hearing is not None and self._hearing.tell():
                    continue
                event = self._parser.next_event()
                if event is None:
                    break
                self._read(event)
            if self._gone is not None and not self._is_held:
                self._end(self._gone)
        except ProtocolError:
            self._settle(Failure())
        except Exception as why:
            self._failed(Failure(why))
        self._hold_or_go_on()

    @property
    def _is_held(self) -> bool:
        return self._hearing is not None and self._hearing.waiting

    def _hold_or_go_on(self) -> None:
        if self._gone is not None or self._is_held == self._is_paused:
            return
        self._is_paused = self._is_held
        if self._is_paused:
            # It can not be blamed for its silence.
            self._within(None)
            self._transport.pauseProducing()
        else:
            if self._streams:
                self._within(limits.SILENCE_SECONDS)
            self._transport.resumeProducing()

    def _read(self, event: Head[StatusLine] | Body | End) -> None:
        match event:
            case Head(start, fields):
                self._code = start.code
                self._keeps = self._stays and event.keeps_alive
                if self._hearing is not None and _is_stream(start, fields):
                    self._streams = True
                    self._parser.take_all()
                    self._within(limits.SILENCE_SECONDS)
            case Body(data):
                if self._streams:
                    assert self._hearing is not None
                    self._hearing.feed(data)
                else:
                    self._body += data
            case End.END if self._code >= 200:
                if self._streams and not self._has_all:
                    raise BadMessage(400, "the stream has no end")
                # What follows the answer is an answer to nothing.
                self.free = self._keeps and self._parser.between_messages
                self._settle(Answer(self._code, bytes(self._body)))

    @property
    def _has_all(self) -> bool:
        return self._streams and self._hearing is not None and self._hearing.complete

    def _end(self, reason: Failure) -> None:
        """
        The connection is lost, and all that had come of the answer is read.
        """
        try:
            if self._parser.end_of_stream() is End.END:
                self._read(End.END)
        except BadMessage:
            pass
        self._settle(Answer(self._code, b"") if self._has_all else reason)

    def _late(self, seconds: float) -> None:
        """
        The time is over. If we have been kept from reading, by whoever shows an
        answer to somebody slow, what has come meanwhile counts.
        """
        assert self._clock is not None
        self._deadline = self._clock.callLater(0, self._too_late, seconds)

    def _too_late(self, seconds: float) -> None:
        late = DeferredTimeoutError(seconds, "Deferred")
        self._settle(Answer(self._code, b"") if self._has_all else Failure(late))

    def _failed(self, why: Failure) -> None:
        """
        Whoever hears the answer can not go on.
        """
        self.fault = why.value
        self._settle(why)

    # The end of it.

    def _settle(
        self, outcome: Answer | Failure, close: Callable[[], None] | None = None
    ) -> None:
        waiting = self._over()
        if waiting is None:
            return
        if isinstance(outcome, Failure):
            if self._gone is None:
                (close or self._transport.abortConnection)()
            waiting.errback(outcome)
        else:
            if not self.free and self._gone is None:
                self._transport.loseConnection()
            self._hold_or_go_on()
            waiting.callback(outcome)

    def _over(self) -> Deferred[Answer] | None:
        """
        Nothing more is waited for.
        """
        waiting, self._result = self._result, None
        hearing, self._hearing = self._hearing, None
        self._streams = False
        self._within(None)
        if hearing is not None:
            hearing.stop()
        return waiting

    def _expected(self) -> Deferred[Answer]:
        if self._hearing is not None:
            self._hearing.resumed, self._hearing.failed = self._read_on, self._failed
        return Deferred(lambda _: self._cancel())

    def _cancel(self) -> None:
        self._over()
        if self._gone is None:
            self._transport.abortConnection()

    def _within(self, seconds: float | None) -> None:
        """
        Move the deadline, if there is one.
        """
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None
        if seconds is not None and self._clock is not None:
            self._deadline = self._clock.callLater(seconds, self._late, seconds)

    @property
    def _transport(self) -> ITlsTransport:
        assert self.transport is not None
        return self.transport  # type: ignore[return-value]


def _certificate_of(transport: ITlsTransport) -> CertificateInfo | None:
    try:
        return peer_certificate(transport)
    except PkiError as error:
        raise Untrusted(str(error), hint=error.hint) from error


def _is_stream(start: StatusLine, fields: Mapping[str, str]) -> bool:
    kind = fields.get("content-type", "").partition(";")[0].strip().lower()
    return start.code == 200 and kind == EVENTS_TYPE


@attrs.frozen
class Waiting:
    """
    How an answer is waited for.

    @ivar target: who is to give it.
    @ivar read_seconds: how long it may take once there is a connection; of a
        stream, until its head is there.
    @ivar unanswered: the hint for a request that was sent and not answered.
    @ivar hearing: where the answer goes if it is a stream.
    """

    target: Target
    read_seconds: float
    unanswered: str = ""
    hearing: Hearing | None = None


async def exchange(
    clock: IReactorTime,
    endpoint: IStreamClientEndpoint,
    connection: ClientConnection,
    waiting: Waiting,
) -> Answer:
    """
    Connect, ask, and wait for the answer.

    @raise TransportError: no answer came; in words that name the target:
        L{Unreachable} or L{Untrusted} if the agent was not asked, L{Unanswered}
        if it may have been.
    """
    answered = connection.answer()

    async def connected() -> Answer:
        await _cancellable(endpoint.connect(Factory.forProtocol(lambda: connection)))
        connection.limit(clock, waiting.read_seconds)
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
    answered = connection.again(message, waiting.hearing)
    connection.limit(clock, waiting.read_seconds)
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
        if bad.code == 413:
            raise TooLarge("the answer is too large") from bad
        raise Unanswered(f"the agent's answer makes no sense: {bad}") from bad
    except (CtrlExecError, CancelledError):
        raise
    except DeferredTimeoutError as late:
        hint = waiting.unanswered if connection.sent else ""
        kind = Unanswered if connection.sent else Unreachable
        raise kind(f"read timeout after {late.args[0]:g}s", hint=hint) from late
    except Exception as why:
        if why is connection.fault:
            raise
        # After a failed handshake the agent has read nothing.
        cut = isinstance(why, (error.ConnectionDone, error.ConnectionLost))
        hint = waiting.unanswered if connection.sent and cut else ""
        raise _kind(why, connection)(_in_words(why, waiting.target), hint=hint) from why
    finally:
        connection.linger(clock)


def _kind(why: Exception, connection: ClientConnection) -> type[TransportError]:
    if connection.sent and not connection.is_unasked(why):
        return Unanswered
    return Untrusted if isinstance(why, SSL.Error) else Unreachable


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
