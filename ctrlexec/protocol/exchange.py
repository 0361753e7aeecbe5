# SPDX-License-Identifier: AGPL-3.0-only
"""
What a server and whoever answers its requests say to each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol as Shape

import attrs
from twisted.python.failure import Failure

from ctrlexec.pki import CertificateInfo
from ctrlexec.protocol.messages import Refused


@attrs.frozen(eq=False)
class Visit:
    """
    A connection, from before its handshake to its end; each is itself alone.

    @ivar address: the IP address of the peer.
    @ivar end: closes the connection, whatever it is in the middle of.
    """

    address: str
    end: Callable[[], None]


@attrs.frozen(eq=False)
class Peer:
    """
    Who is at the other end of a connection; each connection has its own.

    @ivar address: the IP address.
    @ivar certificate: what the peer proved to be; C{None} where the server
        asks for no certificate.
    """

    address: str
    certificate: CertificateInfo | None


@attrs.frozen
class Request:
    """
    A whole request.
    """

    method: str
    path: str
    body: bytes


@attrs.define(eq=False)
class Exchange:
    """
    One request on a connection, and what is answered to it.
    """

    request: Request
    peer: Peer
    _write: Callable[[int, bytes, bool], None]
    _over: bool = attrs.field(default=False, init=False)
    _lost: bool = attrs.field(default=False, init=False)
    _callbacks: list[Callable[[], None]] = attrs.field(factory=list, init=False)
    _next: Callable[[Request], None] | None = attrs.field(default=None, init=False)

    def answer(self, code: int, body: bytes, *, more: bool = False) -> None:
        """
        Answer; nothing happens when the peer has gone, or has the last answer.

        @param more: another answer to the same request will follow.
        """
        if not self._over:
            self._over = not more
            self._next = None
            self._write(code, body, more)

    @property
    def listens(self) -> bool:
        """
        Whether another request belongs to this exchange.
        """
        return self._next is not None

    def when_asked(self, callback: Callable[[Request], None]) -> None:
        """
        The peer is to send one more request before its last answer, and this is
        called back with it.
        """
        self._next = callback

    def asked(self, request: Request) -> None:
        """
        It has sent that; for the connection to say.
        """
        callback, self._next = self._next, None
        assert callback is not None
        callback(request)

    def when_lost(self, callback: Callable[[], None]) -> None:
        """
        Call back once if the peer goes before the last answer, or has gone.
        """
        if self._lost:
            callback()
        else:
            self._callbacks.append(callback)

    def lost(self) -> None:
        """
        The peer has gone; for the connection to say.
        """
        if not self._over:
            self._over = self._lost = True
            self._next = None
            for callback in self._callbacks:
                callback()


class Handler(Shape):
    """
    What a server does with the requests of its peers.
    """

    def arrived(self, visit: Visit) -> None:
        """
        A connection begins, which will be ended by L{handshake_failed} or by
        L{ended}, and by one of them only.
        """

    def admit(self, peer: Peer, visit: Visit) -> Refused | None:
        """
        The handshake is done, no byte of a request was read.

        @return: the refusal that ends the connection at once, if it is one.
        """

    def may_stay(self, peer: Peer, visit: Visit) -> bool:
        """
        Whether a connection may stay for another request, and take its time to
        read an answer; asked at each answer.
        """

    def handle(self, exchange: Exchange) -> None:
        """
        A request has arrived; it is answered now or later.
        """

    def handshake_failed(self, visit: Visit, reason: Failure) -> None:
        """
        A connection is over that did not get as far as a request's first byte:
        its handshake failed, or nobody can read its certificate.
        """

    def ended(self, visit: Visit) -> None:
        """
        A connection is over whose handshake was done.
        """


def handshake_fault(reason: Failure) -> str:
    """
    Why a handshake failed, for the log. OpenSSL's errors are lists of (library,
    function, reason).
    """
    match getattr(reason.value, "args", ()):
        case [[(_, _, _), *_] as errors]:
            return "; ".join(str(entry[-1]) for entry in errors)
    return reason.getErrorMessage() or type(reason.value).__name__
