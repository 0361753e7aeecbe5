# SPDX-License-Identifier: AGPL-3.0-only
"""
The pairing exchange, both sides of it, without a transport or a clock.

One request, and two answers on the same connection: PROTOCOL.md section 3,
NEWER-LINE.md section 5. Each side is a machine that is told what happens and
calls back; what it may do in which state is the table of its transitions.
"""

from __future__ import annotations

from typing import Protocol

import attrs
from automat import TypeMachineBuilder, pep614

from ctrlexec.errors import ProtocolError
from ctrlexec.protocol import codec, limits
from ctrlexec.protocol.http import Body, End, Head, Parser, StatusLine, request
from ctrlexec.protocol.messages import (
    TIMED_OUT,
    PairApproved,
    PairDecision,
    PairFailed,
    PairPending,
    PairRequest,
)


@attrs.frozen
class Unfinished:
    """
    The exchange ended without a decision; nothing was agreed.

    @ivar reason: a sentence for the person at the agent.
    """

    reason: str


#: How an exchange ends for an agent.
Outcome = PairDecision | PairFailed | Unfinished


# --- the agent's side ----------------------------------------------------


class Applicant(Protocol):
    """
    Who is told about the agent's side of an exchange.
    """

    def waiting(self, reqid: str) -> None:
        """
        The dispatcher has the request; a person decides.
        """

    def ended(self, outcome: Outcome) -> None:
        """
        Called once; nothing follows.
        """


class _AgentInputs(Protocol):
    """
    What can happen to the agent's side.
    """

    def pending(self, answer: PairPending) -> None:
        """
        The first answer: wait.
        """

    def failed(self, answer: PairFailed) -> None:
        """
        The first answer: no.
        """

    def decided(self, decision: PairDecision) -> None:
        """
        The second answer.
        """

    def stopped(self, reason: str) -> None:
        """
        No answer will come any more.
        """


@attrs.frozen
class _AgentCore:
    applicant: Applicant
    nonce: str


_agent = TypeMachineBuilder(_AgentInputs, _AgentCore)
_asking = _agent.state("asking")
_pending = _agent.state("pending")
_ended = _agent.state("ended")

_pending.upon(_AgentInputs.pending).loop().returns(None)
_pending.upon(_AgentInputs.failed).loop().returns(None)
_asking.upon(_AgentInputs.decided).loop().returns(None)
_ended.upon(_AgentInputs.pending).loop().returns(None)
_ended.upon(_AgentInputs.failed).loop().returns(None)
_ended.upon(_AgentInputs.decided).loop().returns(None)
_ended.upon(_AgentInputs.stopped).loop().returns(None)


@pep614(_asking.upon(_AgentInputs.pending).to(_pending))
def _wait(inputs: _AgentInputs, core: _AgentCore, answer: PairPending) -> None:
    core.applicant.waiting(answer.reqid)


@pep614(_asking.upon(_AgentInputs.failed).to(_ended))
def _fail(inputs: _AgentInputs, core: _AgentCore, answer: PairFailed) -> None:
    core.applicant.ended(answer)


@pep614(_pending.upon(_AgentInputs.decided).to(_ended))
def _take(inputs: _AgentInputs, core: _AgentCore, decision: PairDecision) -> None:
    if isinstance(decision, PairApproved) and decision.nonce != core.nonce:
        # Somebody else's approval, or an old one: PROTOCOL.md section 3.
        core.applicant.ended(Unfinished("nonce mismatch in pairing result"))
    else:
        core.applicant.ended(decision)


@pep614(_asking.upon(_AgentInputs.stopped).to(_ended))
@pep614(_pending.upon(_AgentInputs.stopped).to(_ended))
def _stop(inputs: _AgentInputs, core: _AgentCore, reason: str) -> None:
    core.applicant.ended(Unfinished(reason))


_new_agent_side = _agent.build()


class AgentSide:
    """
    The agent's side: what to send, and what to make of what comes back.

    @param host: the dispatcher, as the operator names it.
    """

    def __init__(self, pair: PairRequest, host: str, applicant: Applicant) -> None:
        self._machine = _new_agent_side(_AgentCore(applicant, pair.nonce))
        self._parser = Parser(StatusLine.parse, body_bytes=limits.PAIRING_ANSWER_BYTES)
        self._body = bytearray()
        self._answers = 0
        self.opening = request(
            "POST", "/pair", codec.encode_pair_request(pair), host=host, minor=0
        )

    def received(self, data: bytes) -> None:
        """
        The dispatcher sent something.
        """
        self._parser.feed(data)
        try:
            while (event := self._parser.next_event()) is not None:
                self._read(event)
        except ProtocolError as error:
            self.stopped(f"the dispatcher's answer makes no sense: {error}")

    def stopped(self, reason: str) -> None:
        """
        No answer will come any more: the connection is lost, or time is up.
        """
        self._machine.stopped(reason)

    def _read(self, event: Head[StatusLine] | Body | End) -> None:
        match event:
            case Head(start):
                if start.code != 200:
                    raise ProtocolError(f"HTTP {start.code} {start.reason}".rstrip())
            case Body(data):
                self._body += data
            case End.END:
                body = bytes(self._body)
                self._body.clear()
                self._answers += 1
                self._answer(body)

    def _answer(self, body: bytes) -> None:
        if self._answers > 1:
            self._machine.decided(codec.decode_pair_decision(body))
            return
        match codec.decode_pair_first(body):
            case PairPending() as pending:
                self._machine.pending(pending)
            case PairFailed() as failed:
                self._machine.failed(failed)


# --- the dispatcher's side -----------------------------------------------


class Listener(Protocol):
    """
    Who carries out the dispatcher's side of an exchange.
    """

    def say(self, answer: PairPending | PairFailed | PairDecision) -> None:
        """
        Answer the agent; anything but L{PairPending} is the last answer.
        """

    def settled(self, decision: PairDecision | None) -> None:
        """
        The request is out of the queue.

        @param decision: C{None} where the agent went away before one.
        """


class DispatcherInputs(Protocol):
    """
    What can happen to the dispatcher's side.
    """

    def queued(self, pending: PairPending) -> None:
        """
        The request is one to decide on, and is in the queue.
        """

    def refused(self, failed: PairFailed) -> None:
        """
        The request is none to decide on.
        """

    def decided(self, decision: PairDecision) -> None:
        """
        A person has decided.
        """

    def out_of_time(self) -> None:
        """
        Nobody has decided.
        """

    def agent_gone(self) -> None:
        """
        The agent has closed the connection.
        """


_dispatcher = TypeMachineBuilder(DispatcherInputs, Listener)  # type: ignore[type-abstract]
_reading = _dispatcher.state("reading")
_queued = _dispatcher.state("queued")
_over = _dispatcher.state("over")

_reading.upon(DispatcherInputs.agent_gone).to(_over).returns(None)
_reading.upon(DispatcherInputs.out_of_time).to(_over).returns(None)
_reading.upon(DispatcherInputs.decided).loop().returns(None)
_queued.upon(DispatcherInputs.queued).loop().returns(None)
_queued.upon(DispatcherInputs.refused).loop().returns(None)
_over.upon(DispatcherInputs.queued).loop().returns(None)
_over.upon(DispatcherInputs.refused).loop().returns(None)
_over.upon(DispatcherInputs.decided).loop().returns(None)
_over.upon(DispatcherInputs.out_of_time).loop().returns(None)
_over.upon(DispatcherInputs.agent_gone).loop().returns(None)


@pep614(_reading.upon(DispatcherInputs.queued).to(_queued))
def _say_pending(
    inputs: DispatcherInputs, listener: Listener, pending: PairPending
) -> None:
    listener.say(pending)


@pep614(_reading.upon(DispatcherInputs.refused).to(_over))
def _say_refused(
    inputs: DispatcherInputs, listener: Listener, failed: PairFailed
) -> None:
    listener.say(failed)


@pep614(_queued.upon(DispatcherInputs.decided).to(_over))
def _say_decided(
    inputs: DispatcherInputs, listener: Listener, decision: PairDecision
) -> None:
    listener.say(decision)
    listener.settled(decision)


@pep614(_queued.upon(DispatcherInputs.out_of_time).to(_over))
def _say_timed_out(inputs: DispatcherInputs, listener: Listener) -> None:
    listener.say(TIMED_OUT)
    listener.settled(TIMED_OUT)


@pep614(_queued.upon(DispatcherInputs.agent_gone).to(_over))
def _withdraw(inputs: DispatcherInputs, listener: Listener) -> None:
    listener.settled(None)


#: Makes the dispatcher's side of one exchange, given its L{Listener}.
dispatcher_side = _dispatcher.build()
