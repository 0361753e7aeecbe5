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


#: Gives the next piece of an answer that is made while it is read, when the
#: peer has room for it; C{b""} for nothing yet, C{None} for the end. Whatever it
#: raises closes the connection, so that nobody takes a part for the whole.
Pull = Callable[[], bytes | None]


@attrs.frozen
class LongAnswer:
    """
    An answer that is made while it is read.

    @ivar code: the HTTP status.
    @ivar length: how many bytes it has; C{None} where nobody knows that yet,
        which only a peer can read that L{may be told so<Exchange.can_stream>}.
    """

    code: int
    content_type: str
    length: int | None
    pull: Pull


class Streaming(Shape):
    """
    An answer on its way, as whoever makes it sees it.
    """

    def ready(self) -> None:
        """
        There is more of it, after there was nothing: it will be pulled, now or
        when there is room. Nothing happens once it is over.
        """

    def abort(self) -> None:
        """
        The rest can not be had: close the connection without an end.
        """


class Nowhere:
    """
    An answer that nobody is there to read.
    """

    def ready(self) -> None:
        """
        There is no room for it, and will be none.
        """

    def abort(self) -> None:
        """
        There is nothing to close.
        """


@attrs.define(eq=False)
class Exchange:
    """
    One request on a connection, and what is answered to it.

    @ivar can_stream: whether the peer can read an answer whose length nobody
        knows: one of HTTP/1.1 can.
    @ivar stopping: whether the server stops: a peer that is lost now is one that
        we have left.
    """

    request: Request
    peer: Peer
    _write: Callable[[int, bytes, bool], None]
    _begin: Callable[[LongAnswer], Streaming] | None = None
    can_stream: bool = False
    stopping: bool = attrs.field(default=False, init=False)
    _begun: bool = attrs.field(default=False, init=False)
    _over: bool = attrs.field(default=False, init=False)
    _lost: bool = attrs.field(default=False, init=False)
    _callbacks: list[Callable[[], None]] = attrs.field(factory=list, init=False)
    _next: Callable[[Request], None] | None = attrs.field(default=None, init=False)

    def answer(self, code: int, body: bytes, *, more: bool = False) -> None:
        """
        Answer; nothing happens when the peer has gone, or has the last answer,
        or a part of it.

        @param more: another answer to the same request will follow.
        """
        if not self._over and not self._begun:
            self._over = not more
            self._next = None
            self._write(code, body, more)

    def stream(self, code: int, content_type: str, pull: Pull) -> Streaming:
        """
        Answer with what comes, until that ends: only where L{can_stream}. A peer
        is waited for, for as long as it takes it to read, and holds up nothing
        but C{pull}.

        @return: to say that there is more. Nothing is pulled before this has
            returned, or once the peer has gone.
        """
        assert self.can_stream
        return self._answer_at_length(LongAnswer(code, content_type, None, pull))

    def answer_from(self, code: int, length: int, pull: Pull) -> Streaming:
        """
        Answer with JSON that is longer than anybody wants to hold.

        @param length: how many bytes C{pull} will give in all.
        @return: see L{stream}.
        """
        answer = LongAnswer(code, "application/json", length, pull)
        return self._answer_at_length(answer)

    def _answer_at_length(self, answer: LongAnswer) -> Streaming:
        if self._over or self._begun:
            return Nowhere()
        assert self._begin is not None
        self._begun = True
        self._next = None
        return self._begin(answer)

    def complete(self) -> None:
        """
        The last piece of a long answer is on its way; for the connection to say.
        """
        self._over = True

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
        Call back once if the peer goes before the end of the last answer, or has
        gone; L{stopping} tells whether it was left.
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
