# SPDX-License-Identifier: AGPL-3.0-only
"""
What an agent answers: C{/run}, C{/ping}, C{/capabilities} and the others
(PROTOCOL.md section 2).

It is over 400 lines, since who is asked before what is answered stands here,
for all requests; how C{/rotate-serial} and the renewal are done does not.
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
from ctrlexec.agent.contexts import (
    question,
    rotate_question,
    run_question,
    script_context,
)
from ctrlexec.agent.gate import Gate
from ctrlexec.agent.live import LiveRuns, Pending
from ctrlexec.agent.policy import Policy
from ctrlexec.agent.renewal import Asker, Renewals
from ctrlexec.agent.revoking import Revocation
from ctrlexec.agent.rotation import InThread, Rotation
from ctrlexec.agent.staging import is_staged
from ctrlexec.agent.trust import NotTrusted, Trusted
from ctrlexec.agent.trust_store import Mark, stored_trust, trust_mark
from ctrlexec.errors import StoreError
from ctrlexec.events import (
    CapabilitiesAnswered,
    CapabilitiesDenied,
    PingAnswered,
    RunDenied,
    RunEnded,
    RunStarted,
    SerialChangeFailed,
    SerialRejected,
    StdinTimedOut,
    brief,
)
from ctrlexec.hooks import Denied, HookContext, Verdict
from ctrlexec.interfaces import IAuthoriser, IEventSink, IScriptRunner
from ctrlexec.protocol import codec
from ctrlexec.protocol.exchange import Visit
from ctrlexec.protocol.messages import (
    FORBIDDEN,
    NOT_AUTHORISED,
    NOT_FOUND,
    SERIAL_MISMATCH,
    Capabilities,
    PingAnswer,
    Refused,
    RotateRequest,
    RunAnswer,
    RunFinished,
    RunRefused,
    RunRequest,
)
from ctrlexec.protocol.server import Exchange, Peer

_NOT_PERMITTED = "script not permitted"


@attrs.define(eq=False)
class AgentResource:
    """
    Answers the requests of dispatchers, as the policy of the moment has it.

    @ivar policy: what is allowed; replaced whole when the settings are read
        again.
    @ivar runner: made for a policy, since it carries its limits.
    @ivar renewals: the identity that the agent shows, and what renews it.
    @ivar now: the time, aware.
    @ivar gate: told of each connection.
    @ivar in_thread: where the trusted map is written.
    @ivar authoriser: made for a policy too; asked before anything is done but
        to answer a ping.
    @ivar runs: those that live.
    """

    policy: Policy
    runner: IScriptRunner
    events: IEventSink
    renewals: Renewals
    now: Callable[[], datetime]
    gate: Gate
    in_thread: InThread = attrs.field(kw_only=True)
    authoriser: IAuthoriser = attrs.field(kw_only=True)
    runs: LiveRuns = attrs.field(factory=LiveRuns, init=False)
    _live: Pending = attrs.field(factory=Pending, init=False)
    _log: Logger = attrs.field(factory=Logger, init=False)

    @property
    def live(self) -> int:
        """
        How many requests are being answered; nearly always runs.
        """
        return len(self._live)

    def quiet(self) -> Deferred[None]:
        """
        @return: fires when no request is being answered any more.
        """
        return self._live.over()

    def admits(self, address: str) -> bool:
        """
        Whether a connection may go on to its handshake.
        """
        return self.gate.admits(address, self.policy)

    # What L{ctrlexec.protocol.server.Handler} asks of us.

    def arrived(self, visit: Visit) -> None:
        """
        A connection that L{admits} let in.
        """
        self.gate.arrived(visit)

    def admit(self, peer: Peer, visit: Visit) -> Refused | None:
        """
        Refuse a revoked certificate before a byte of its request is read.
        """
        return self.gate.identified(peer, visit, self.policy, self.now())

    def may_stay(self, peer: Peer, visit: Visit) -> bool:
        """
        Only a trusted dispatcher may ask twice.
        """
        return self.gate.may_stay(peer, visit, self.policy, self.now())

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

    def handshake_failed(self, visit: Visit, reason: Failure) -> None:
        """
        Somebody connected who can not be a dispatcher, or was no client at all.
        """
        self.gate.failed(visit, reason, self.policy.settings)

    def ended(self, visit: Visit) -> None:
        """
        A connection that got through its handshake is over.
        """
        self.gate.ended(visit)

    def _failed(self, why: Failure, exchange: Exchange) -> None:
        self._log.failure("a request could not be answered", why)
        body = codec.encode_refused(Refused(500, "internal error"))
        exchange.answer(500, body)

    # The routes.

    async def _answer(self, exchange: Exchange) -> None:
        refused = self.gate.refusal(exchange.peer, self.policy, self.now())
        match (exchange.request.method, exchange.request.path):
            case _ if refused:
                code, body = _refusal(refused)
            case ("POST", "/run"):
                code, body = await self._run(exchange)
            case ("POST", "/ping"):
                code, body = self._ping(exchange)
            case ("POST", "/rotate-serial"):
                code, body = await self._rotate(exchange)
            case ("POST", "/renew" | "/renew-complete"):
                code, body = await self._renew(exchange)
            case ("POST", "/revocations"):
                code, body = await self._revoke(exchange)
            case ("GET", "/capabilities"):
                code, body = await self._capabilities(exchange.peer)
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
        match self._permitted(request, peer, dispatcher):
            case RunRefused() as refusal:
                return refusal
            case _:
                most = self.policy.settings.max_runs
                if len(self.runs) >= most:
                    busy = f"busy: {most} runs are going on already"
                    self._deny(busy, request, peer, dispatcher)
                    return RunRefused(busy, request.script, request.reqid)
                with self.runs.lasting(brief(request.reqid)):
                    return await self._ask_and_start(request, peer, dispatcher)

    def _permitted(
        self, request: RunRequest, peer: Peer, dispatcher: str
    ) -> Script | RunRefused:
        match self.policy.decide(request.script):
            case NotPermitted(reason):
                error = _NOT_PERMITTED
            case Permitted(script):
                unfit = self.policy.why_unfit(request.script, request.args)
                if unfit is None:
                    return script
                reason = error = unfit
        self._deny(reason, request, peer, dispatcher)
        return RunRefused(error, request.script, request.reqid)

    async def _ask_and_start(
        self, request: RunRequest, peer: Peer, dispatcher: str
    ) -> RunAnswer:
        asked = question("run", peer, dispatcher, self.now())
        verdict = await self._ask(run_question(request, asked), peer)
        if isinstance(verdict, Denied):
            error = f"not authorised: {verdict.reason}"
            self._deny(error, request, peer, dispatcher)
            return RunRefused(error, request.script, request.reqid)
        return await self._start(request, peer, dispatcher)

    async def _start(
        self, request: RunRequest, peer: Peer, dispatcher: str
    ) -> RunAnswer:
        # A hook may have taken its time, and what was permitted before it was
        # asked need not be any more.
        script = self._permitted(request, peer, dispatcher)
        if isinstance(script, RunRefused):
            return script
        context = script_context(request, peer, dispatcher, self.now())
        who = (peer.address, brief(request.reqid), dispatcher)
        self.events.emit(RunStarted(request.script, *who))
        before = trust_mark(self.policy.settings)
        outcome = await self.runner.run(
            script, codec.encode_run_context(context), request.args
        )
        if outcome.stdin_timed_out:
            self.events.emit(StdinTimedOut(request.script, brief(request.reqid)))
        self.events.emit(RunEnded(request.script, outcome.exit, *who))
        self._notice_trust(before, dispatcher)
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
                reqid = brief(request.reqid)
                self.events.emit(PingAnswered(peer.address, reqid, dispatcher))
                settings = self.policy.settings
                answer = PingAnswer(
                    settings.name,
                    __version__,
                    self.renewals.shown.expiry,
                    request.reqid,
                    staged=is_staged(settings),
                    renewal_due=self.renewals.due,
                )
                return 200, codec.encode_ping_answer(answer)

    async def _capabilities(self, peer: Peer) -> tuple[int, bytes]:
        match self.policy.trusted.decide(peer.certificate):
            case NotTrusted(reason):
                serial = _serial(peer)
                self.events.emit(CapabilitiesDenied(peer.address, serial, reason))
                return _refusal(FORBIDDEN)
            case Trusted(dispatcher):
                asked = question("discovery", peer, dispatcher, self.now())
                verdict = await self._ask(asked, peer)
                if isinstance(verdict, Denied):
                    who = (peer.address, _serial(peer))
                    reason = verdict.reason
                    self.events.emit(CapabilitiesDenied(*who, reason, dispatcher))
                    return _refusal(NOT_AUTHORISED)
                scripts = self.policy.scripts()
                self.events.emit(
                    CapabilitiesAnswered(peer.address, len(scripts), dispatcher)
                )
                settings = self.policy.settings
                answer = Capabilities(
                    settings.name,
                    __version__,
                    scripts,
                    settings.tags,
                    self.renewals.due,
                )
                return 200, codec.encode_capabilities(answer)

    async def _rotate(self, exchange: Exchange) -> tuple[int, bytes]:
        peer = exchange.peer
        match self.policy.trusted.decide(peer.certificate):
            case NotTrusted():
                self._reject(peer, "")
                return _refusal(SERIAL_MISMATCH)
            case Trusted(dispatcher):
                rotation = Rotation(
                    self.policy.settings,
                    self.events,
                    self.in_thread,
                    peer.address,
                    dispatcher,
                    self._read_trust,
                )

        async def may_rotate(request: RotateRequest) -> str | None:
            asked = question("rotate", peer, dispatcher, self.now())
            verdict = await self._ask(rotate_question(request, asked), peer)
            return verdict.reason if isinstance(verdict, Denied) else None

        request = codec.decode_rotate_request(exchange.request.body)
        answer = await rotation.answer(request, may_rotate)
        if isinstance(answer, Refused):
            return _refusal(answer)
        return 200, codec.encode_rotate_answer(answer)

    async def _renew(self, exchange: Exchange) -> tuple[int, bytes]:
        peer, request = exchange.peer, exchange.request
        match self.policy.trusted.decide(peer.certificate):
            case NotTrusted():
                # Any certificate of the CA may, in the original.
                self._reject(peer, "")
                return _refusal(SERIAL_MISMATCH)
            case Trusted(dispatcher):
                return 200, await self.renewals.answer(
                    request.path,
                    request.body,
                    self.policy.settings,
                    Asker(peer.address, dispatcher),
                )

    async def _revoke(self, exchange: Exchange) -> tuple[int, bytes]:
        peer = exchange.peer
        match self.policy.trusted.decide(peer.certificate):
            case NotTrusted():
                self._reject(peer, "")
                return _refusal(SERIAL_MISMATCH)
            case Trusted(dispatcher):
                revocation = Revocation(
                    self.policy,
                    self.events,
                    self.in_thread,
                    self.renewals.shown.credentials.ca,
                    self.now(),
                )
        body, pushed = await revocation.answer(
            exchange.request.body, peer.address, dispatcher
        )
        if pushed is not None:
            # Another one may have come while this one was written.
            joined = pushed.joined(self.policy.pushed)
            self.policy = attrs.evolve(self.policy, pushed=joined)
            self.gate.cut(self.policy)
        return 200, body

    async def _ask(self, asked: HookContext, peer: Peer) -> Verdict:
        verdict = await self.authoriser.ask(asked)
        # A hook takes its time, in which trust can end.
        trust = self.policy.trusted.decide(peer.certificate)
        trusted = trust == Trusted(asked.dispatcher)
        if not trusted or self.gate.refusal(peer, self.policy, self.now()):
            return Denied("no longer trusted")
        return verdict

    def _read_trust(self) -> None:
        """
        Trust whom the map on disk says, which is never older than what another
        order has just written.

        @raise StoreError: it can not be read, and all stays.
        """
        trusted = stored_trust(self.policy.settings)
        self.policy = attrs.evolve(self.policy, trusted=trusted)

    def _notice_trust(self, before: Mark, dispatcher: str) -> None:
        """
        A script may have changed the map: C{update-ctrl-exec-serial} does.
        """
        if trust_mark(self.policy.settings) != before:
            try:
                self._read_trust()
            except StoreError as error:
                self.events.emit(SerialChangeFailed(dispatcher, str(error)))

    # What is logged of a refusal.

    def _reject(self, peer: Peer, reqid: str | None) -> None:
        self.events.emit(SerialRejected(peer.address, _serial(peer), brief(reqid)))

    def _deny(
        self,
        reason: str,
        request: RunRequest | RunRefused,
        peer: Peer,
        dispatcher: str,
    ) -> None:
        # What could not be read names neither, and an empty field would say that
        # it named an empty one.
        script, reqid = (
            text if text is None else brief(text)
            for text in (request.script, request.reqid)
        )
        self.events.emit(RunDenied(peer.address, reason, dispatcher, script, reqid))


def _refusal(refused: Refused) -> tuple[int, bytes]:
    return refused.code, codec.encode_refused(refused)


def _serial(peer: Peer) -> str:
    return peer.certificate.serial if peer.certificate else ""
