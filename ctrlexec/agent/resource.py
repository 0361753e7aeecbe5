# SPDX-License-Identifier: AGPL-3.0-only
"""
What an agent answers: C{/run}, C{/ping}, C{/capabilities} (PROTOCOL.md
section 2).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctrlexec import __version__
from ctrlexec.agent.allowlist import NotPermitted, Permitted, Script
from ctrlexec.agent.policy import Policy
from ctrlexec.agent.trust import NotTrusted, Trusted
from ctrlexec.events import (
    AddressBlocked,
    CapabilitiesAnswered,
    CapabilitiesDenied,
    CertificateRevoked,
    PingAnswered,
    RunDenied,
    RunEnded,
    RunStarted,
    SerialRejected,
    StdinTimedOut,
    TlsFailed,
)
from ctrlexec.interfaces import IEventSink, IScriptRunner
from ctrlexec.protocol import codec
from ctrlexec.protocol.messages import (
    FORBIDDEN,
    NOT_FOUND,
    REVOKED,
    SERIAL_MISMATCH,
    Capabilities,
    PingAnswer,
    Refused,
    RunAnswer,
    RunContext,
    RunFinished,
    RunRefused,
    RunRequest,
)
from ctrlexec.protocol.server import Exchange, Peer
from ctrlexec.values import iso_time

_NOT_PERMITTED = "script not permitted"
EXPIRED = Refused(403, "certificate expired")
#: As much of a caller's words as a line of the log has room for; no name or
#: id that is any good is longer.
_LOGGED_CHARACTERS = 128


@attrs.define(eq=False)
class AgentResource:
    """
    Answers the requests of dispatchers, as the policy of the moment has it.

    @ivar policy: what is allowed; replaced whole when the settings are read
        again.
    @ivar runner: made for a policy, since it carries its limits.
    @ivar expiry: when the agent's certificate ends, in openssl's form.
    @ivar now: the time, aware.
    """

    policy: Policy
    runner: IScriptRunner
    events: IEventSink
    expiry: str
    now: Callable[[], datetime]
    _live: set[Deferred[None]] = attrs.field(factory=set, init=False)
    _log: Logger = attrs.field(factory=Logger, init=False)

    @property
    def live(self) -> int:
        """
        How many requests are being answered; nearly always runs.
        """
        return len(self._live)

    def admits(self, address: str) -> bool:
        """
        Whether a connection may go on to its handshake.
        """
        if self.policy.admits(address):
            return True
        self.events.emit(AddressBlocked(address))
        return False

    # What L{ctrlexec.protocol.server.Handler} asks of us.

    def admit(self, peer: Peer) -> Refused | None:
        """
        Refuse a revoked certificate before a byte of its request is read.
        """
        serial = _serial(peer)
        if not serial or serial in self.policy.revoked:
            self.events.emit(CertificateRevoked(peer.address, serial))
            return REVOKED
        return None

    def _expired(self, peer: Peer) -> Refused | None:
        # OpenSSL looks at the date once, when the session begins.
        if peer.certificate is None or self.now() <= peer.certificate.not_after:
            return None
        self.events.emit(TlsFailed(peer.address, EXPIRED.error))
        return EXPIRED

    def handle(self, exchange: Exchange) -> None:
        """
        Answer a request. Whom it comes from is looked at each time, since a
        connection can outlive the trust in it. A script runs to its end even if
        the caller goes away: a run belongs to the agent.
        """
        answering = Deferred.fromCoroutine(self._answer(exchange))
        self._live.add(answering)
        answering.addErrback(self._failed, exchange)
        answering.addBoth(lambda _: self._live.discard(answering))

    def handshake_failed(self, address: str, reason: Failure) -> None:
        """
        Somebody connected who can not be a dispatcher, or was no client at all.
        """
        self.events.emit(TlsFailed(address, _tls_reason(reason)))

    def _failed(self, why: Failure, exchange: Exchange) -> None:
        self._log.failure("a request could not be answered", why)
        body = codec.encode_refused(Refused(500, "internal error"))
        exchange.answer(500, body)

    # The routes.

    async def _answer(self, exchange: Exchange) -> None:
        refused = self.admit(exchange.peer) or self._expired(exchange.peer)
        match (exchange.request.method, exchange.request.path):
            case _ if refused:
                code, body = _refusal(refused)
            case ("POST", "/run"):
                code, body = await self._run(exchange)
            case ("POST", "/ping"):
                code, body = self._ping(exchange)
            case ("GET", "/capabilities"):
                code, body = self._capabilities(exchange.peer)
            case _:
                code, body = _refusal(NOT_FOUND)
        exchange.answer(code, body)

    async def _run(self, exchange: Exchange) -> tuple[int, bytes]:
        peer, request = exchange.peer, codec.decode_run_request(exchange.request.body)
        match self.policy.trusted.decide(peer.certificate):
            case NotTrusted():
                self._reject(peer, request.reqid)
                return _refusal(SERIAL_MISMATCH)
            case Trusted(dispatcher):
                answer = await self._decide(request, peer, dispatcher)
                return 200, codec.encode_run_answer(answer)

    async def _decide(
        self, request: RunRequest | RunRefused, peer: Peer, dispatcher: str
    ) -> RunAnswer:
        if isinstance(request, RunRefused):
            self._deny(request.error, request, peer, dispatcher)
            return request
        match self.policy.decide(request.script):
            case NotPermitted(reason):
                self._deny(reason, request, peer, dispatcher)
                return RunRefused(_NOT_PERMITTED, request.script, request.reqid)
            case Permitted(script):
                return await self._start(script, request, peer, dispatcher)

    async def _start(
        self, script: Script, request: RunRequest, peer: Peer, dispatcher: str
    ) -> RunFinished:
        context = RunContext(
            script=request.script,
            args=request.args,
            reqid=request.reqid,
            peer_ip=peer.address,
            username=request.username,
            token=request.token,
            timestamp=iso_time(self.now()),
            dispatcher=dispatcher,
        )
        who = (peer.address, _brief(request.reqid), dispatcher)
        self.events.emit(RunStarted(request.script, *who))
        outcome = await self.runner.run(
            script, codec.encode_run_context(context), request.args
        )
        if outcome.stdin_timed_out:
            self.events.emit(StdinTimedOut(request.script, _brief(request.reqid)))
        self.events.emit(RunEnded(request.script, outcome.exit, *who))
        return RunFinished(
            request.script, outcome.exit, outcome.stdout, outcome.stderr, request.reqid
        )

    def _ping(self, exchange: Exchange) -> tuple[int, bytes]:
        peer, request = exchange.peer, codec.decode_ping_request(exchange.request.body)
        match self.policy.trusted.decide(peer.certificate):
            case NotTrusted():
                self._reject(peer, request.reqid)
                return _refusal(SERIAL_MISMATCH)
            case Trusted(dispatcher):
                reqid = _brief(request.reqid)
                self.events.emit(PingAnswered(peer.address, reqid, dispatcher))
                answer = PingAnswer(
                    self.policy.settings.name, __version__, self.expiry, request.reqid
                )
                return 200, codec.encode_ping_answer(answer)

    def _capabilities(self, peer: Peer) -> tuple[int, bytes]:
        match self.policy.trusted.decide(peer.certificate):
            case NotTrusted(reason):
                serial = _serial(peer)
                self.events.emit(CapabilitiesDenied(peer.address, serial, reason))
                return _refusal(FORBIDDEN)
            case Trusted(dispatcher):
                scripts = self.policy.scripts()
                self.events.emit(
                    CapabilitiesAnswered(peer.address, len(scripts), dispatcher)
                )
                settings = self.policy.settings
                answer = Capabilities(
                    settings.name, __version__, scripts, settings.tags
                )
                return 200, codec.encode_capabilities(answer)

    # What is logged of a refusal.

    def _reject(self, peer: Peer, reqid: str | None) -> None:
        self.events.emit(SerialRejected(peer.address, _serial(peer), _brief(reqid)))

    def _deny(
        self,
        reason: str,
        request: RunRequest | RunRefused,
        peer: Peer,
        dispatcher: str,
    ) -> None:
        script, reqid = _brief(request.script), _brief(request.reqid)
        self.events.emit(RunDenied(script, peer.address, reqid, reason, dispatcher))


def _refusal(refused: Refused) -> tuple[int, bytes]:
    return refused.code, codec.encode_refused(refused)


def _serial(peer: Peer) -> str:
    return peer.certificate.serial if peer.certificate else ""


def _brief(text: str | None) -> str:
    text = text or ""
    if len(text) <= _LOGGED_CHARACTERS:
        return text
    return f"{text[:_LOGGED_CHARACTERS]}…"


def _tls_reason(reason: Failure) -> str:
    """
    OpenSSL's errors are lists of (library, function, reason).
    """
    match getattr(reason.value, "args", ()):
        case [[(_, _, _), *_] as errors]:
            return "; ".join(str(entry[-1]) for entry in errors)
    return reason.getErrorMessage() or type(reason.value).__name__
