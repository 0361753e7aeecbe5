# SPDX-License-Identifier: AGPL-3.0-only
"""
Speaking to agents: one question at a time, to the agent that is meant and to no
other. There are over 400 lines, since there are so many questions.
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

from ctrlexec.errors import Forbidden, ProtocolError, TransportError
from ctrlexec.pki import CertificateInfo
from ctrlexec.protocol import codec, codec_revocation, codec_runs, codec_trust
from ctrlexec.protocol.codec_trust import NoSuchRequest
from ctrlexec.protocol.connection import (
    Answer,
    ClientConnection,
    PeerCheck,
    TooLarge,
    Waiting,
    exchange,
    exchange_again,
)
from ctrlexec.protocol.hearing import Heard, Hearing
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
from ctrlexec.protocol.peer_checks import any_agent, named, not_before, unrevoked
from ctrlexec.protocol.pool import MOST_SECONDS, Pool
from ctrlexec.protocol.revocation import (
    Acknowledged,
    NotAcknowledged,
    SignedRevocations,
)
from ctrlexec.protocol.run_messages import (
    CancelDone,
    FollowRequest,
    LiveRunsAnswer,
    NoSuchRun,
    RunResult,
    StreamEnded,
)
from ctrlexec.tls import ClientConnections, EvenExpired
from ctrlexec.values import Target, is_ip_address, new_request_id, request_id

_UNANSWERED = (
    "the script may still be running there: look for {reqid} in the log of {name} "
    "before you run it again"
)
_TOO_LARGE = "max_answer in ctrl-exec.conf says how many bytes an answer may have"


#: Whoever ends a run gives it time to end by itself; whoever follows one may be
#: told that it is there only after some looking.
_LEAST_SECONDS = 60.0
_KNOWN_OR_NOT = (200, 404)


@attrs.frozen
class Bounds:
    """
    How long things may take, and how large an answer may be.

    @ivar connect_seconds: for a connection to come about.
    @ivar read_seconds: for the answer, handshake included; for the head of a
        stream, and at least a minute where a run is followed or ended.
    @ivar answer_bytes: the body of an answer.
    """

    connect_seconds: float
    read_seconds: float
    answer_bytes: int


@attrs.frozen(kw_only=True)
class _Question:
    """
    @ivar unanswered: the hint where it was sent and is not answered.
    @ivar repeatable: whether asking twice is the same as asking once.
    @ivar codes: the HTTP statuses that are no refusal.
    @ivar least_seconds: how long an answer may take, whatever the bounds say.
    @ivar hearing: where the answer goes if it is a stream.
    """

    method: str = "POST"
    path: str
    body: bytes = b""
    unanswered: str = ""
    repeatable: bool = True
    codes: tuple[int, ...] = (200,)
    least_seconds: float = 0.0
    hearing: Hearing | None = None


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

        @raise TransportError: no answer came: L{Unreachable
            <ctrlexec.errors.Unreachable>} or L{Untrusted
            <ctrlexec.errors.Untrusted>} if the agent was not asked for it,
            L{Unanswered<ctrlexec.errors.Unanswered>} if it may have been.
        @raise Forbidden: the agent does not take orders from us.
        @raise ProtocolError: the answer makes no sense.
        """
        answer = await self._ask(target, _running(target, run))
        return codec.decode_run_answer(answer.body, answer.code)

    async def run_live(
        self, target: Target, run: RunRequest, heard: Heard
    ) -> RunAnswer | StreamEnded:
        """
        Ask for a script to be run, and hear what it writes where the agent can
        tell that. Raises like L{run}, and what C{heard} raises.

        @param heard: is told what the script writes, and what becomes of it.
        """
        hearing = Hearing(heard)
        question = _running(target, attrs.evolve(run, stream=True), hearing)
        answer = await self._ask(target, question)
        if hearing.ended is not None:
            return hearing.ended
        return codec.decode_run_answer(answer.body, answer.code)

    async def follow(
        self, target: Target, request: FollowRequest, heard: Heard
    ) -> StreamEnded | NoSuchRun:
        """
        Hear what a run writes, from where it was left until it ends. Raises like
        L{run_live}; an agent of the original can not tell, which is a
        L{NoSuchRequest}.
        """
        hearing = Hearing(heard)
        question = _Question(
            path="/follow",
            body=codec_runs.encode_follow_request(request),
            codes=_KNOWN_OR_NOT,
            least_seconds=_LEAST_SECONDS,
            hearing=hearing,
        )
        answer = await self._ask(target, question)
        if hearing.ended is not None:
            return hearing.ended
        if answer.code == 404:
            return _no_such_run(answer)
        raise ProtocolError("the answer does not tell what the run writes")

    async def result(self, target: Target, reqid: str) -> RunResult | NoSuchRun:
        """
        Ask what became of a run. Raises like L{run}; an agent of the older line
        does not remember, which is a L{NoSuchRequest}.

        @raise InvalidValue: no run can have this id.
        """
        path = f"/result/{request_id(reqid)}"
        question = _Question(method="GET", path=path, codes=_KNOWN_OR_NOT)
        answer = await self._ask(target, question)
        if answer.code == 404:
            return _no_such_run(answer)
        result = codec_runs.decode_result(answer.body)
        if result.reqid != reqid:
            raise ProtocolError("the answer is about another run")
        return result

    async def cancel(self, target: Target, reqid: str) -> CancelDone | NoSuchRun:
        """
        End a run, and all that it has started: the answer comes when nothing of
        it is left. Raises like L{run}; an agent of the original can not do that,
        which is a L{NoSuchRequest}.
        """
        question = _Question(
            path="/cancel",
            body=codec_runs.encode_cancel_request(reqid),
            codes=_KNOWN_OR_NOT,
            least_seconds=_LEAST_SECONDS,
        )
        answer = await self._ask(target, question)
        if answer.code == 404:
            return _no_such_run(answer)
        return codec_runs.decode_cancel_done(answer.body)

    async def runs(self, target: Target) -> LiveRunsAnswer:
        """
        Ask what runs. Raises like L{run}; an agent of the original can not tell,
        which is a L{NoSuchRequest}.
        """
        answer = await self._ask(target, _Question(method="GET", path="/runs"))
        return codec_runs.decode_live_runs(answer.body)

    async def ping(self, target: Target, ping: PingRequest) -> PingAnswer:
        """
        Ask whether the agent is there. Raises like L{run}.
        """
        question = _Question(path="/ping", body=codec.encode_ping_request(ping))
        answer = await self._ask(target, question)
        return codec.decode_ping_answer(answer.body)

    async def capabilities(self, target: Target) -> Capabilities:
        """
        Ask what the agent offers. Raises like L{run}.
        """
        question = _Question(method="GET", path="/capabilities")
        answer = await self._ask(target, question)
        return codec.decode_capabilities(answer.body)

    async def renew(self, target: Target, asked: RenewRequest) -> RenewCsr:
        """
        Ask for the request for an agent's next certificate. Raises like L{run}.
        """
        body = codec_trust.encode_renew_request(asked)
        answer = await self._ask(target, _Question(path="/renew", body=body))
        return codec_trust.decode_renew_csr(answer.body)

    async def renew_complete(self, target: Target, order: RenewOrder) -> RenewDone:
        """
        Give an agent its next certificate. Raises like L{run}; an agent that does
        not take it is a L{ProtocolError} too.
        """
        body = codec_trust.encode_renew_order(order)
        answer = await self._ask(target, _Question(path="/renew-complete", body=body))
        return codec_trust.decode_renew_done(answer.body)

    async def rotate_serial(
        self, target: Target, request: RotateRequest
    ) -> RotateAnswer:
        """
        Tell an agent of a serial of ours. Raises like L{run}; an agent of the
        older line, which knows no such request, is a L{NoSuchRequest}.
        """
        body = codec_trust.encode_rotate_request(request)
        answer = await self._ask(target, _Question(path="/rotate-serial", body=body))
        return codec_trust.decode_rotate_answer(answer.body)

    async def revocations(
        self, target: Target, found: SignedRevocations
    ) -> Acknowledged | NotAcknowledged:
        """
        Give an agent the list of what is revoked. Raises like L{run}; an agent
        of an original line, which knows no such list, is a L{NoSuchRequest}.
        """
        body = codec_revocation.encode_revocations(found)
        answer = await self._ask(target, _Question(path="/revocations", body=body))
        return codec_revocation.decode_acknowledgement(answer.body)

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

    async def _ask(self, target: Target, question: _Question) -> Answer:
        message = request(
            question.method,
            question.path,
            question.body,
            host=_authority(target),
            keep_alive=self.pool is not None,
        )
        waiting = Waiting(
            target,
            max(self.bounds.read_seconds, question.least_seconds),
            question.unanswered,
            question.hearing,
        )
        try:
            answer = await self._asked_again(message, waiting, question.repeatable)
            if answer is None:
                answer = await self._asked_anew(message, waiting)
        except TooLarge as error:
            raise TooLarge(str(error), hint=_TOO_LARGE) from error
        if answer.code not in question.codes:
            raise _refusal(answer)
        return answer

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
            hearing=waiting.hearing,
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


def _running(
    target: Target, run: RunRequest, hearing: Hearing | None = None
) -> _Question:
    return _Question(
        path="/run",
        body=codec.encode_run_request(run),
        unanswered=_UNANSWERED.format(reqid=run.reqid, name=target.name),
        repeatable=False,
        codes=(200, codec.ACCEPTED, codec.CONFLICT),
        hearing=hearing,
    )


def _no_such_run(answer: Answer) -> NoSuchRun:
    unknown = codec_runs.decode_no_such_run(answer.body)
    if unknown is None:
        raise _refusal(answer)
    return unknown


def _endpoint(reactor: Any, target: Target, seconds: float) -> IStreamClientEndpoint:
    """
    An address needs no resolver, and no waiting for a second one to try.
    """
    if not is_ip_address(target.host):
        return HostnameEndpoint(reactor, target.host, target.port, timeout=seconds)
    family = TCP6ClientEndpoint if ":" in target.host else TCP4ClientEndpoint
    return family(reactor, target.host, target.port, timeout=seconds)


def _authority(target: Target) -> str:
    host = f"[{target.host}]" if ":" in target.host else target.host
    return f"{host}:{target.port}"


def _refusal(answer: Answer) -> ProtocolError:
    refused = codec.decode_refused(answer.code, answer.body)
    match answer.code:
        case 403:
            return Forbidden(f"forbidden: {refused.error or 'no reason given'}")
        case 413:
            return ProtocolError("request too large")
    said = f": {refused.error}" if refused.error else ""
    kind = NoSuchRequest if answer.code == 404 else ProtocolError
    return kind(f"the agent answered {answer.code}{said}")
