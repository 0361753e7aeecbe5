# SPDX-License-Identifier: AGPL-3.0-only
"""
Speaking to agents: one question at a time, to the agent that is meant and to no
other.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import attrs
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IReactorTime,
    IStreamClientEndpoint,
)

from ctrlexec.errors import ProtocolError, TransportError
from ctrlexec.pki import AgentRole, CertificateInfo, DispatcherRole
from ctrlexec.protocol import codec, codec_revocation, codec_trust
from ctrlexec.protocol.codec_trust import NoSuchRequest
from ctrlexec.protocol.connection import (
    Answer,
    ClientConnection,
    PeerCheck,
    Waiting,
    exchange,
    exchange_again,
)
from ctrlexec.protocol.http import request
from ctrlexec.protocol.messages import (
    Capabilities,
    PingAnswer,
    PingRequest,
    RenewCsr,
    RenewDone,
    RenewOrder,
    RenewRequest,
    RotateAnswer,
    RotateRequest,
    RunAnswer,
    RunRequest,
)
from ctrlexec.protocol.pool import MOST_SECONDS, Pool
from ctrlexec.protocol.revocation import (
    Acknowledged,
    NotAcknowledged,
    SignedRevocations,
)
from ctrlexec.tls import ClientConnections, EvenExpired
from ctrlexec.values import Target, is_ip_address, new_request_id, openssl_time

_UNANSWERED = (
    "the script may still be running there: look for {reqid} in the log of {name} "
    "before you run it again"
)


@attrs.frozen
class Bounds:
    """
    How long things may take, and how large an answer may be.

    @ivar connect_seconds: for a connection to come about.
    @ivar read_seconds: for the answer, handshake included.
    @ivar answer_bytes: the body of an answer.
    """

    connect_seconds: float
    read_seconds: float
    answer_bytes: int


@attrs.frozen
class _Question:
    """
    @ivar unanswered: the hint where it was sent and is not answered.
    @ivar repeatable: whether asking twice is the same as asking once.
    """

    method: str
    path: str
    body: bytes = b""
    unanswered: str = ""
    repeatable: bool = True


@attrs.frozen
class AgentClient:
    """
    Speaks to agents.

    @ivar reactor: with C{IReactorTCP}, C{IReactorTime} and name resolution.
    @ivar tls: the one TLS context of the process.
    @ivar pool: where connections wait for the next question; C{None} where
        there will be none.
    @ivar since: see L{even_expired}.
    @ivar revoked: the serials whose holders are not spoken to, as they are now;
        asked before each question.
    """

    reactor: IReactorTime
    tls: IOpenSSLClientConnectionCreator
    bounds: Bounds
    pool: Pool | None = None
    since: datetime | None = None
    revoked: Callable[[], frozenset[str]] = frozenset

    async def run(self, target: Target, run: RunRequest) -> RunAnswer:
        """
        Ask for a script to be run.

        @raise TransportError: no answer came.
        @raise ProtocolError: the answer makes no sense.
        """
        answer = await self._ask(
            target,
            _Question(
                "POST",
                "/run",
                codec.encode_run_request(run),
                _UNANSWERED.format(reqid=run.reqid, name=target.name),
                repeatable=False,
            ),
        )
        return codec.decode_run_answer(answer)

    async def ping(self, target: Target, ping: PingRequest) -> PingAnswer:
        """
        Ask whether the agent is there. Raises like L{run}.
        """
        question = _Question("POST", "/ping", codec.encode_ping_request(ping))
        return codec.decode_ping_answer(await self._ask(target, question))

    async def capabilities(self, target: Target) -> Capabilities:
        """
        Ask what the agent offers. Raises like L{run}.
        """
        question = _Question("GET", "/capabilities")
        return codec.decode_capabilities(await self._ask(target, question))

    async def renew(self, target: Target, asked: RenewRequest) -> RenewCsr:
        """
        Ask for the request for an agent's next certificate. Raises like L{run}.
        """
        body = codec_trust.encode_renew_request(asked)
        answer = await self._ask(target, _Question("POST", "/renew", body))
        return codec_trust.decode_renew_csr(answer)

    async def renew_complete(self, target: Target, order: RenewOrder) -> RenewDone:
        """
        Give an agent its next certificate. Raises like L{run}; an agent that does
        not take it is a L{ProtocolError} too.
        """
        body = codec_trust.encode_renew_order(order)
        answer = await self._ask(target, _Question("POST", "/renew-complete", body))
        return codec_trust.decode_renew_done(answer)

    async def rotate_serial(
        self, target: Target, request: RotateRequest
    ) -> RotateAnswer:
        """
        Tell an agent of a serial of ours. Raises like L{run}; an agent of the
        older line, which knows no such request, is a L{NoSuchRequest}.
        """
        body = codec_trust.encode_rotate_request(request)
        answer = await self._ask(target, _Question("POST", "/rotate-serial", body))
        return codec_trust.decode_rotate_answer(answer)

    async def revocations(
        self, target: Target, found: SignedRevocations
    ) -> Acknowledged | NotAcknowledged:
        """
        Give an agent the list of what is revoked. Raises like L{run}; an agent
        of an original line, which knows no such list, is a L{NoSuchRequest}.
        """
        body = codec_revocation.encode_revocations(found)
        answer = await self._ask(target, _Question("POST", "/revocations", body))
        return codec_revocation.decode_acknowledgement(answer)

    async def serial(self, target: Target) -> str:
        """
        The serial of the certificate that an agent shows. It is not asked
        anything but whether it is there. Raises like L{run}.
        """
        seen: list[str] = []

        def noted(certificate: CertificateInfo | None) -> None:
            self._check(target)(certificate)
            assert certificate is not None
            seen.append(certificate.serial)

        body = codec.encode_ping_request(PingRequest(new_request_id()))
        message = request("POST", "/ping", body, host=_authority(target))
        waiting = Waiting(target, self.bounds.read_seconds)
        await self._asked_anew(message, waiting, noted)
        return seen[0]

    def even_expired(self, since: datetime) -> AgentClient:
        """
        @return: a client that speaks to an agent whose certificate has expired,
            too, if it ended at this time or later.
        """
        assert isinstance(self.tls, ClientConnections)
        return attrs.evolve(self, tls=EvenExpired(self.tls), pool=None, since=since)

    async def _ask(self, target: Target, question: _Question) -> bytes:
        message = request(
            question.method,
            question.path,
            question.body,
            host=_authority(target),
            keep_alive=self.pool is not None,
        )
        waiting = Waiting(target, self.bounds.read_seconds, question.unanswered)
        answer = await self._asked_again(message, waiting, question.repeatable)
        if answer is None:
            answer = await self._asked_anew(message, waiting)
        if answer.code != 200:
            raise _refusal(answer)
        return answer.body

    async def _asked_again(
        self, message: bytes, waiting: Waiting, repeatable: bool
    ) -> Answer | None:
        """
        Ask on a connection that is there already.

        @return: C{None} where there is none, or none that is any good: an agent
            may close one at the moment at which we use it. What may only be
            done once is not asked a second time then.
        """
        kept = self.pool and self.pool.take(waiting.target)
        if not kept:
            return None
        kept.recheck()
        try:
            answer = await exchange_again(self.reactor, kept, message, waiting)
        except TransportError:
            if repeatable and kept.silent and not kept.connected:
                return None
            raise
        self._keep(waiting.target, kept)
        return answer

    async def _asked_anew(
        self, message: bytes, waiting: Waiting, check: PeerCheck | None = None
    ) -> Answer:
        target, reactor = waiting.target, self.reactor
        connection = ClientConnection(
            message,
            check or self._check(target),
            self.bounds.answer_bytes,
            stays=self.pool is not None,
        )
        connection.began = reactor.seconds()
        bare = _endpoint(reactor, target, self.bounds.connect_seconds)
        endpoint = wrapClientTLS(self.tls, bare, clock=reactor)
        answer = await exchange(reactor, endpoint, connection, waiting)
        self._keep(target, connection)
        return answer

    def _check(self, target: Target) -> PeerCheck:
        if not target.registered:
            return unrevoked(self.revoked, any_agent)
        check = named(target.identity or target.name)
        if self.since is not None:
            check = not_before(self.since, check)
        return unrevoked(self.revoked, check)

    def _keep(self, target: Target, connection: ClientConnection) -> None:
        if self.pool is None or not connection.free:
            return
        if self.reactor.seconds() - connection.began < MOST_SECONDS:
            self.pool.put(target, connection)
        else:
            connection.close()


def _endpoint(reactor: Any, target: Target, seconds: float) -> IStreamClientEndpoint:
    """
    An address needs no resolver, and no waiting for a second one to try.
    """
    if not is_ip_address(target.host):
        return HostnameEndpoint(reactor, target.host, target.port, timeout=seconds)
    family = TCP6ClientEndpoint if ":" in target.host else TCP4ClientEndpoint
    return family(reactor, target.host, target.port, timeout=seconds)


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


def not_before(since: datetime, check: PeerCheck) -> PeerCheck:
    """
    The peer that another check lets through, if its certificate ends no earlier
    than the last one that we know of: a key that the agent has given up, and
    that somebody else may have found, is not good enough.
    """

    def checked(certificate: CertificateInfo | None) -> None:
        check(certificate)
        assert certificate is not None
        if certificate.not_after < since:
            raise TransportError(
                "the certificate ended at "
                f"{openssl_time(certificate.not_after)}, and the agent has had a "
                "later one",
                hint="if the agent was set back to an older state, pair it again",
            )

    return checked


def unrevoked(revoked: Callable[[], frozenset[str]], check: PeerCheck) -> PeerCheck:
    """
    The peer that another check lets through, unless its certificate is revoked.
    """

    def checked(certificate: CertificateInfo | None) -> None:
        check(certificate)
        assert certificate is not None
        if certificate.serial in revoked():
            raise TransportError(
                "certificate revoked",
                hint="pair the agent again if it is in good hands",
            )

    return checked


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
    kind = NoSuchRequest if answer.code == 404 else ProtocolError
    return kind(f"the agent answered {answer.code}{said}")
