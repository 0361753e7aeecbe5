# SPDX-License-Identifier: AGPL-3.0-only
"""
The client's side of a connection to an agent: one request, one bounded answer.

Nothing of a request is sent before the peer has proved to be the agent that it
is meant for.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import attrs
from OpenSSL import SSL
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IReactorTime,
    ISSLTransport,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from ctrlexec.errors import CtrlExecError, ProtocolError, TransportError
from ctrlexec.pki import AgentRole, CertificateInfo, DispatcherRole
from ctrlexec.protocol import codec
from ctrlexec.protocol.http import (
    BadMessage,
    Body,
    End,
    Head,
    Parser,
    StatusLine,
    request,
)
from ctrlexec.protocol.messages import (
    PingAnswer,
    PingRequest,
    RunAnswer,
    RunRequest,
)
from ctrlexec.tls import peer_certificate
from ctrlexec.values import Target, is_ip_address

#: How long a peer may take to close after we have said that we are done.
LINGER_SECONDS = 5.0

#: What a peer must prove to be; raises L{TransportError} where it does not.
PeerCheck = Callable[[CertificateInfo | None], None]


_UNANSWERED = (
    "the script may still be running there: look for {reqid} in the log of {name} "
    "before you run it again"
)


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
    Sends one request when the handshake is done, and collects its answer.

    @param message: the request, spelled out.
    @param check: what the peer must prove to be.
    @param answer_bytes: how long the body of the answer may be.
    """

    def __init__(self, message: bytes, check: PeerCheck, answer_bytes: int) -> None:
        #: Whether the agent may have the request.
        self.sent = False
        self._message = message
        self._check = check
        self._parser = Parser(StatusLine.parse, body_bytes=answer_bytes)
        self._code = 0
        self._body = bytearray()
        self._result: Deferred[Answer] | None = Deferred(lambda _: self._cancel())
        self._abort: IDelayedCall | None = None

    def answer(self) -> Deferred[Answer]:
        """
        @return: fires with the answer; fails with a L{CtrlExecError}, or with
            what the transport says. Cancelling it closes the connection.
        """
        assert self._result is not None
        return self._result

    def handshakeCompleted(self) -> None:
        transport = self._transport
        try:
            self._check(peer_certificate(transport))
        except CtrlExecError:
            # Closed in good order: a reset right after the handshake ends an
            # agent of the original (PROTOCOL.md section 10).
            self._settle(Failure(), transport.loseConnection)
        else:
            self.sent = True
            transport.write(self._message)

    def dataReceived(self, data: bytes) -> None:
        if self._result is None:
            return
        self._parser.feed(data)
        try:
            while (event := self._parser.next_event()) is not None:
                self._read(event)
        except BadMessage:
            self._settle(Failure())

    def connectionLost(self, reason: Failure = Failure(error.ConnectionDone())) -> None:
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
        if self.connected:
            self._abort = clock.callLater(
                LINGER_SECONDS, self._transport.abortConnection
            )

    def _read(self, event: Head[StatusLine] | Body | End) -> None:
        match event:
            case Head(start):
                self._code = start.code
            case Body(data):
                self._body += data
            case End.END if self._code >= 200:
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
            self._transport.loseConnection()
            waiting.callback(outcome)

    def _cancel(self) -> None:
        self._result = None
        self._transport.abortConnection()

    @property
    def _transport(self) -> ISSLTransport:
        assert self.transport is not None
        return self.transport  # type: ignore[return-value]


@attrs.frozen
class AgentClient:
    """
    Speaks to agents.

    @ivar reactor: with C{IReactorTCP}, C{IReactorTime} and name resolution.
    @ivar tls: the one TLS context of the process.
    @ivar connect_seconds: how long a connection may take to come about.
    @ivar read_seconds: how long the answer may take, handshake included.
    @ivar answer_bytes: how long the body of an answer may be.
    """

    reactor: IReactorTime
    tls: IOpenSSLClientConnectionCreator
    connect_seconds: float
    read_seconds: float
    answer_bytes: int

    async def run(self, target: Target, run: RunRequest) -> RunAnswer:
        """
        Ask for a script to be run.

        @raise TransportError: no answer came.
        @raise ProtocolError: the answer makes no sense.
        """
        body = codec.encode_run_request(run)
        hint = _UNANSWERED.format(reqid=run.reqid, name=target.name)
        answer = await self._ask(target, "POST", "/run", body, unanswered=hint)
        return codec.decode_run_answer(answer)

    async def ping(self, target: Target, ping: PingRequest) -> PingAnswer:
        """
        Ask whether the agent is there. Raises like L{run}.
        """
        answer = await self._ask(
            target, "POST", "/ping", codec.encode_ping_request(ping)
        )
        return codec.decode_ping_answer(answer)

    async def _ask(
        self,
        target: Target,
        method: str,
        path: str,
        body: bytes,
        unanswered: str = "",
    ) -> bytes:
        message = request(method, path, body, host=_authority(target))
        check = named(target.name) if target.registered else any_agent
        endpoint = wrapClientTLS(
            self.tls,
            _endpoint(self.reactor, target, self.connect_seconds),
            clock=self.reactor,
        )
        answer = await exchange(
            self.reactor,
            endpoint,
            ClientConnection(message, check, self.answer_bytes),
            target=target,
            read_seconds=self.read_seconds,
            unanswered=unanswered,
        )
        if answer.code != 200:
            raise _refusal(answer)
        return answer.body


async def exchange(
    clock: IReactorTime,
    endpoint: IStreamClientEndpoint,
    connection: ClientConnection,
    *,
    target: Target,
    read_seconds: float,
    unanswered: str = "",
) -> Answer:
    """
    Connect, ask, and wait for the answer.

    @param read_seconds: how long the answer may take once there is a
        connection.
    @param unanswered: the hint for a request that was sent and not answered.
    @raise TransportError: no answer came; in words that name the target.
    """
    answered = connection.answer()
    try:
        await _cancellable(endpoint.connect(Factory.forProtocol(lambda: connection)))
        answered.addTimeout(read_seconds, clock)
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
        hint = unanswered if connection.sent else ""
        text = f"read timeout after {read_seconds:g}s"
        raise TransportError(text, hint=hint) from late
    except Exception as why:
        # After a failed handshake the agent has read nothing.
        cut = isinstance(why, (error.ConnectionDone, error.ConnectionLost))
        hint = unanswered if connection.sent and cut else ""
        raise TransportError(_in_words(why, target), hint=hint) from why
    finally:
        connection.linger(clock)


def _endpoint(reactor: Any, target: Target, seconds: float) -> IStreamClientEndpoint:
    """
    An address needs no resolver, and no waiting for a second one to try.
    """
    if not is_ip_address(target.host):
        return HostnameEndpoint(reactor, target.host, target.port, timeout=seconds)
    family = TCP6ClientEndpoint if ":" in target.host else TCP4ClientEndpoint
    return family(reactor, target.host, target.port, timeout=seconds)


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


def any_agent(certificate: CertificateInfo | None) -> None:
    """
    Any certificate of the CA, as the original has it, but a dispatcher's.
    """
    if certificate is None or isinstance(certificate.role, DispatcherRole):
        raise TransportError("the peer's certificate is not an agent's")


def named(name: str) -> PeerCheck:
    """
    The agent of this name and no other, so that one compromised agent can not
    answer for another: DESIGN.md, Trust. A certificate that was made by the
    original carries its name in the subject only.
    """

    def check(certificate: CertificateInfo | None) -> None:
        any_agent(certificate)
        assert certificate is not None
        match certificate.role:
            case AgentRole(found):
                # The registry tells names apart by case, so a role does too:
                # WEB-1, once it is paired, must not answer for web-1.
                same = found == name
            case _:
                found = certificate.common_name
                # Outside of ASCII there are letters whose small form is an
                # ASCII one.
                same = found.isascii() and found.lower() == name.lower()
        if not same:
            raise TransportError(
                f"the certificate is that of {found!r}, not of {name!r}",
                hint="does the registry hold the right address for this agent?",
            )

    return check


def _authority(target: Target) -> str:
    host = f"[{target.host}]" if ":" in target.host else target.host
    return f"{host}:{target.port}"


def _refusal(answer: Answer) -> ProtocolError:
    refused = codec.decode_refused(answer.code, answer.body)
    match answer.code:
        case 403:
            return ProtocolError(f"forbidden: {refused.error or 'no reason given'}")
        case 413:
            return ProtocolError("request too large")
    said = f": {refused.error}" if refused.error else ""
    return ProtocolError(f"the agent answered {answer.code}{said}")


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
