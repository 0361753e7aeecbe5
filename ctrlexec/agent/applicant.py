# SPDX-License-Identifier: AGPL-3.0-only
"""
The connection on which an agent asks to be paired: C{docs/pairing.md},
PROTOCOL.md section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IReactorTime,
)
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from ctrlexec.errors import CtrlExecError, InvalidValue, PkiError
from ctrlexec.protocol.agreement import Awaited, Met, Opening, check_pinned, proved
from ctrlexec.protocol.listening import plain_address
from ctrlexec.protocol.pairing import AgentSide, Outcome, Unfinished, Untrusted
from ctrlexec.tls import shown_certificates
from ctrlexec.values import request_id

#: How long the first answer may take, the handshake included. Only the second
#: one waits for a person.
ANSWER_SECONDS = 20.0


class NoAnswer(CtrlExecError):
    """
    Whoever is at the other end does not behave like a pairing listener.
    """


@implementer(IHandshakeListener)
class ApplicantConnection(Protocol):
    """
    The agent's side of the exchange on a transport.

    @param clock: for how long it may take until a person is to decide.
    @param host: the dispatcher, as the operator names it.
    @param pending: told what to compare once a person is to decide.
    @param now: the time, aware.

    @ivar reqid: the same; empty until then.
    @ivar outcome: how it ends, C{None} where the person declined; fails if it
        never was a pairing. Whoever cancels it leaves.
    """

    def __init__(
        self,
        clock: IReactorTime,
        opening: Opening,
        host: str,
        pending: Callable[[Awaited], None],
        now: Callable[[], datetime],
    ) -> None:
        self._clock = clock
        self._opening = opening
        self._host = host
        self._announce = pending
        self._now = now
        self._side: AgentSide | None = None
        self._silence: IDelayedCall | None = None
        self._over = False
        self.reqid = ""
        self.outcome: Deferred[Outcome | None] = Deferred(lambda _: self._leave())

    @property
    def _transport(self) -> Any:
        """
        What the transport of TLS over TCP is, no single interface says.
        """
        return self.transport

    def connectionMade(self) -> None:
        self._silence = self._clock.callLater(ANSWER_SECONDS, self._silent)

    def handshakeCompleted(self) -> None:
        self._transport.setTcpKeepAlive(True)
        chain, now = shown_certificates(self._transport), self._now()
        pinned = self._opening.terms.authority
        if pinned:
            try:
                check_pinned(chain, pinned, now)
            except PkiError as error:
                # Not a word was sent.
                self.ended(Untrusted(str(error)))
                return
        own_address = plain_address(self._transport.getHost())
        request = attrs.evolve(self._opening.request, ip=own_address)
        if self._opening.terms.token is not None:
            # Not before the CA was found to be the one that the token names.
            request = proved(request, self._opening.terms.token, chain[0])
        opening = attrs.evolve(self._opening, request=request)
        self._side = AgentSide(opening, self._host, Met(chain[0], now), self)
        self.send(self._side.opening)

    def dataReceived(self, data: bytes) -> None:
        if self._side is not None and not self._over:
            self._side.received(data)

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:
        if self._over:
            return
        if self._side is not None and self.reqid:
            self._side.stopped("the dispatcher closed the connection")
        else:
            self._close()
            self.outcome.errback(reason)

    # What L{ctrlexec.protocol.pairing.Applicant} asks of us.

    def send(self, data: bytes) -> None:
        self._transport.write(data)

    def waiting(self, awaited: Awaited) -> None:
        try:
            # Nobody has vouched for the dispatcher yet, and the operator is
            # going to copy this into a shell.
            self.reqid = request_id(awaited.reqid)
        except InvalidValue as error:
            self.ended(Unfinished(f"the dispatcher's answer makes no sense: {error}"))
        else:
            self._calm()
            self._announce(awaited)

    def ended(self, outcome: Outcome) -> None:
        if self._over:
            return
        self._close()
        self._transport.loseConnection()
        self.outcome.callback(outcome)

    def declined(self) -> None:
        """
        The person at the agent said no.
        """
        if not self._over:
            self._close()
            self._transport.loseConnection()
            self.outcome.callback(None)

    def _silent(self) -> None:
        self._leave()
        self.outcome.errback(NoAnswer(f"no answer within {ANSWER_SECONDS:g}s"))

    def _leave(self) -> None:
        self._close()
        self._transport.abortConnection()

    def _close(self) -> None:
        self._over = True
        self._calm()

    def _calm(self) -> None:
        if self._silence is not None and self._silence.active():
            self._silence.cancel()
