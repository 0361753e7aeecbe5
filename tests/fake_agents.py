# SPDX-License-Identifier: AGPL-3.0-only
"""
Agents that answer what a test has told them to, without any network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import attrs
from twisted.internet.defer import Deferred

from ctrlexec.dispatcher.dispatch import Heard
from ctrlexec.errors import CtrlExecError, TransportError
from ctrlexec.pki import make_csr
from ctrlexec.protocol.messages import (
    Capabilities,
    PingAnswer,
    PingRequest,
    RenewCsr,
    RenewDone,
    RenewOrder,
    RenewRequest,
    RotateAnswer,
    RotateDone,
    RotateRequest,
    RunAccepted,
    RunAnswer,
    RunFinished,
    RunRefused,
    RunRequest,
    ScriptInfo,
)
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
    Output,
    RunResult,
    StateChanged,
    StreamEnded,
)
from ctrlexec.values import Target
from tests.authority import OTHER_KEY

CSR = make_csr(OTHER_KEY, "another name")

#: What a stream is made of: events, what is waited for in between, and its end.
Told = Output | StateChanged | Deferred[None] | CtrlExecError | StreamEnded | NoSuchRun
Recorded = RunResult | NoSuchRun | CtrlExecError | Deferred[RunResult]


@attrs.define
class FakeAgents:
    """
    An L{Agents<ctrlexec.dispatcher.dispatch.Agents>}.

    @ivar answers: what each agent answers, by its name; for one that is not
        among them, a script ends with 0.
    @ivar offers: what each agent offers, likewise; else one script.
    @ivar asked: who was asked for what; for what it offers, C{None}.
    """

    answers: Mapping[str, RunAnswer | CtrlExecError | Deferred[RunAnswer]] = (
        attrs.field(factory=dict)
    )
    offers: Mapping[str, Capabilities] = attrs.field(factory=dict)
    asked: list[tuple[Target, RunRequest | PingRequest | None]] = attrs.field(
        factory=list
    )
    #: When the certificate of each ends, and whether it says that it is due.
    pings: Mapping[str, PingAnswer] = attrs.field(factory=dict)
    requests: Mapping[str, RenewCsr | CtrlExecError] = attrs.field(factory=dict)
    takes: Mapping[str, RenewDone | CtrlExecError] = attrs.field(factory=dict)
    trusts: Mapping[str, RotateAnswer | CtrlExecError] = attrs.field(factory=dict)
    renewed: list[str] = attrs.field(factory=list)
    orders: list[tuple[Target, RenewOrder]] = attrs.field(factory=list)
    rotated: list[tuple[str, str, str]] = attrs.field(factory=list)
    since: datetime | None = None
    knows: Mapping[str, Acknowledged | NotAcknowledged | CtrlExecError] = attrs.field(
        factory=dict
    )
    serials: Mapping[str, str | CtrlExecError] = attrs.field(factory=dict)
    told: list[tuple[str, SignedRevocations]] = attrs.field(factory=list)
    #: What each tells of a run that is followed, from its beginning, or later.
    lives: Mapping[str, Iterable[Told]] = attrs.field(factory=dict)
    follows: Mapping[str, list[Iterable[Told]]] = attrs.field(factory=dict)
    followed: list[tuple[str, FollowRequest]] = attrs.field(factory=list)
    #: What each has on record of a run, and who was asked for that.
    results: Mapping[str, list[Recorded]] = attrs.field(factory=dict)
    traced: list[tuple[Target, str]] = attrs.field(factory=list)
    ends: Mapping[str, CancelDone | NoSuchRun | CtrlExecError] = attrs.field(
        factory=dict
    )
    ended: list[tuple[str, str]] = attrs.field(factory=list)
    running: Mapping[str, LiveRunsAnswer | CtrlExecError] = attrs.field(factory=dict)

    async def run(self, target: Target, run: RunRequest) -> RunAnswer:
        """
        Answer as a test wants it.
        """
        self.asked.append((target, run))
        done = RunFinished(run.script, 0, f"{target.name}\n", "", run.reqid)
        match self.answers.get(target.name, done):
            case CtrlExecError() as error:
                raise error
            case RunFinished() | RunRefused() | RunAccepted() as answer:
                return answer
            case deferred:
                return await deferred

    async def run_live(
        self, target: Target, run: RunRequest, heard: Heard
    ) -> RunAnswer | StreamEnded:
        """
        Tell what a test has for it, or answer like an agent that can not tell.
        """
        if target.name not in self.lives:
            return await self.run(target, run)
        self.asked.append((target, run))
        end = await self._told(self.lives[target.name], heard)
        assert not isinstance(end, NoSuchRun)
        return end

    async def follow(
        self, target: Target, request: FollowRequest, heard: Heard
    ) -> StreamEnded | NoSuchRun:
        """
        Tell what a test has for it, the first of it first.
        """
        self.followed.append((target.name, request))
        left = self.follows.get(target.name, [])
        return await self._told(left.pop(0) if left else (), heard)

    async def _told(
        self, events: Iterable[Told], heard: Heard
    ) -> StreamEnded | NoSuchRun:
        for event in events:
            match event:
                case Output() | StateChanged():
                    waiting = heard(event)
                    if waiting is not None:
                        await waiting
                case Deferred():
                    await event
                case CtrlExecError():
                    raise event
                case end:
                    return end
        return NoSuchRun("")

    async def result(self, target: Target, reqid: str) -> RunResult | NoSuchRun:
        """
        Tell what a test has for it, the first of it first, the last for ever.
        """
        self.traced.append((target, reqid))
        answers = self.results.get(target.name, [NoSuchRun(reqid)])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        match answer:
            case CtrlExecError():
                raise answer
            case Deferred():
                return await answer
        return answer

    async def cancel(self, target: Target, reqid: str) -> CancelDone | NoSuchRun:
        """
        End it, unless a test has another answer.
        """
        self.ended.append((target.name, reqid))
        answer = self.ends.get(target.name, CancelDone(reqid, "cancelled"))
        if isinstance(answer, CtrlExecError):
            raise answer
        return answer

    async def runs(self, target: Target) -> LiveRunsAnswer:
        """
        Tell what runs: nothing, unless a test has another answer.
        """
        self.asked.append((target, None))
        answer = self.running.get(target.name, LiveRunsAnswer())
        if isinstance(answer, CtrlExecError):
            raise answer
        return answer

    async def ping(self, target: Target, ping: PingRequest) -> PingAnswer:
        """
        Answer, unless a test has an error for it.
        """
        self.asked.append((target, ping))
        answer = self.answers.get(target.name)
        if isinstance(answer, CtrlExecError):
            raise answer
        expiry = "Feb 22 22:32:05 2029 GMT"
        usual = PingAnswer(target.name, "0.1.0", expiry, ping.reqid)
        return self.pings.get(target.name, usual)

    async def capabilities(self, target: Target) -> Capabilities:
        """
        Tell what is offered, unless a test has an error for it.
        """
        self.asked.append((target, None))
        answer = self.answers.get(target.name)
        if isinstance(answer, CtrlExecError):
            raise answer
        backup = ScriptInfo("backup", "/opt/backup", True)
        usual = Capabilities(target.name, "0.1.0", (backup,), {"role": "web"})
        return self.offers.get(target.name, usual)

    async def renew(self, target: Target, asked: RenewRequest) -> RenewCsr:
        """
        Ask for a certificate, unless a test has an error for it.
        """
        self.renewed.append(target.name)
        answer = self.requests.get(target.name)
        if isinstance(answer, CtrlExecError):
            raise answer
        return answer or RenewCsr(CSR.decode(), asked.reqid)

    async def renew_complete(self, target: Target, order: RenewOrder) -> RenewDone:
        """
        Take it, unless a test has an error for it.
        """
        self.orders.append((target, order))
        answer = self.takes.get(target.name, RenewDone(order.reqid))
        if isinstance(answer, CtrlExecError):
            raise answer
        return answer

    async def rotate_serial(
        self, target: Target, request: RotateRequest
    ) -> RotateAnswer:
        """
        Trust a serial, unless a test has an error for it.
        """
        self.rotated.append((target.name, request.action, request.serial))
        answer = self.trusts.get(target.name)
        if isinstance(answer, CtrlExecError):
            raise answer
        return answer or RotateDone(request.action, request.serial, "ops")

    async def revocations(
        self, target: Target, found: SignedRevocations
    ) -> Acknowledged | NotAcknowledged:
        """
        Take the list, unless a test has another answer for it.
        """
        self.told.append((target.name, found))
        answer = self.knows.get(target.name, Acknowledged(found.revocations.number))
        if isinstance(answer, CtrlExecError):
            raise answer
        return answer

    async def serial(self, target: Target) -> str:
        """
        Show the certificate that a test has for it.
        """
        answer = self.serials.get(target.name, TransportError("nobody is there"))
        if isinstance(answer, CtrlExecError):
            raise answer
        return answer

    def even_expired(self, since: datetime) -> FakeAgents:
        """
        The same agents.
        """
        self.since = since
        return self

    @property
    def names(self) -> list[str]:
        """
        Who was asked.
        """
        return [target.name for target, _ in self.asked]
