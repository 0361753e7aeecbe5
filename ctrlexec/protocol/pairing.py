# SPDX-License-Identifier: AGPL-3.0-only
"""
The agent's side of a pairing, without a transport or a clock.

Between two of ours the agent commits to a nonce, is answered with the
dispatcher's, and reveals its own: C{docs/pairing.md}. Then, or at once where
one side is of the original, come two answers on the same connection:
PROTOCOL.md section 3, NEWER-LINE.md section 5. It is a machine that is told what
happens and calls back; what it may do in which state is the table of its
transitions. L{ctrlexec.protocol.pairing_dispatcher} is the other side.
"""

from __future__ import annotations

from typing import Protocol

import attrs
from automat import TypeMachineBuilder, pep614

from ctrlexec.errors import PkiError, ProtocolError
from ctrlexec.protocol import codec_pairing, limits
from ctrlexec.protocol.agreement import (
    Awaited,
    Met,
    Opening,
    agreed,
    check_approval,
    old_style,
)
from ctrlexec.protocol.http import Body, End, Head, Parser, StatusLine, request
from ctrlexec.protocol.messages import (
    PairApproved,
    PairDecision,
    PairFailed,
    PairOpened,
    PairPending,
    PairReveal,
)

REVEAL_PATH = "/pair-reveal"


@attrs.frozen
class Unfinished:
    """
    The exchange ended without a decision; nothing was agreed.

    @ivar reason: a sentence for the person at the agent.
    """

    reason: str


@attrs.frozen
class Unprotected:
    """
    The dispatcher speaks the exchange of the original alone, which is not
    enough here.
    """


@attrs.frozen
class Untrusted:
    """
    The dispatcher is not who it says it is, or somebody is in between.

    @ivar reason: a sentence for the person at the agent.
    """

    reason: str


#: How an exchange ends for an agent.
Outcome = PairDecision | PairFailed | Unfinished | Unprotected | Untrusted


class Applicant(Protocol):
    """
    Who is told about the agent's side of an exchange.
    """

    def send(self, data: bytes) -> None:
        """
        This goes to the dispatcher.
        """

    def waiting(self, awaited: Awaited) -> None:
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

    def opened(self, reveal: bytes) -> None:
        """
        The dispatcher has shown its nonce and itself, and all is in order.
        """

    def pending(self, awaited: Awaited) -> None:
        """
        The request waits for a decision.
        """

    def failed(self, answer: PairFailed) -> None:
        """
        There is nothing to decide.
        """

    def decided(self, decision: PairDecision) -> None:
        """
        The last answer.
        """

    def over(self, outcome: Outcome) -> None:
        """
        Nothing will come of it any more.
        """


@attrs.frozen
class _AgentCore:
    applicant: Applicant
    nonce: str


def _as_awaited(inputs: _AgentInputs, core: _AgentCore, awaited: Awaited) -> Awaited:
    return awaited


_agent = TypeMachineBuilder(_AgentInputs, _AgentCore)
_asking = _agent.state("asking")
_revealing = _agent.state("revealing")
_pending = _agent.state("pending", _as_awaited)
_ended = _agent.state("ended")

_asking.upon(_AgentInputs.decided).loop().returns(None)
_revealing.upon(_AgentInputs.opened).loop().returns(None)
_revealing.upon(_AgentInputs.decided).loop().returns(None)
_pending.upon(_AgentInputs.opened).loop().returns(None)
_pending.upon(_AgentInputs.pending).loop().returns(None)
_pending.upon(_AgentInputs.failed).loop().returns(None)
_ended.upon(_AgentInputs.opened).loop().returns(None)
_ended.upon(_AgentInputs.pending).loop().returns(None)
_ended.upon(_AgentInputs.failed).loop().returns(None)
_ended.upon(_AgentInputs.decided).loop().returns(None)
_ended.upon(_AgentInputs.over).loop().returns(None)


@pep614(_asking.upon(_AgentInputs.opened).to(_revealing))
def _reveal(inputs: _AgentInputs, core: _AgentCore, reveal: bytes) -> None:
    core.applicant.send(reveal)


@pep614(_asking.upon(_AgentInputs.pending).to(_pending))
@pep614(_revealing.upon(_AgentInputs.pending).to(_pending))
def _wait(inputs: _AgentInputs, core: _AgentCore, awaited: Awaited) -> None:
    core.applicant.waiting(awaited)


@pep614(_asking.upon(_AgentInputs.failed).to(_ended))
@pep614(_revealing.upon(_AgentInputs.failed).to(_ended))
def _fail(inputs: _AgentInputs, core: _AgentCore, answer: PairFailed) -> None:
    core.applicant.ended(answer)


@pep614(_pending.upon(_AgentInputs.decided).to(_ended))
def _take(
    inputs: _AgentInputs, core: _AgentCore, awaited: Awaited, decision: PairDecision
) -> None:
    core.applicant.ended(_believed(core, awaited, decision))


@pep614(_asking.upon(_AgentInputs.over).to(_ended))
@pep614(_revealing.upon(_AgentInputs.over).to(_ended))
def _stop(inputs: _AgentInputs, core: _AgentCore, outcome: Outcome) -> None:
    core.applicant.ended(outcome)


@pep614(_pending.upon(_AgentInputs.over).to(_ended))
def _stop_waiting(
    inputs: _AgentInputs, core: _AgentCore, awaited: Awaited, outcome: Outcome
) -> None:
    core.applicant.ended(outcome)


_new_agent_side = _agent.build()


def _believed(core: _AgentCore, awaited: Awaited, decision: PairDecision) -> Outcome:
    if not isinstance(decision, PairApproved):
        return decision
    if decision.nonce != core.nonce:
        # Somebody else's approval, or an old one: PROTOCOL.md section 3.
        return Unfinished("nonce mismatch in pairing result")
    try:
        check_approval(decision, awaited)
    except PkiError as error:
        return Untrusted(str(error))
    return decision


class AgentSide:
    """
    The agent's side: what to send, and what to make of what comes back.

    @param host: the dispatcher, as the operator names it.
    @param met: who is at the other end.
    """

    def __init__(
        self, opening: Opening, host: str, met: Met, applicant: Applicant
    ) -> None:
        self._opening, self._host, self._met = opening, host, met
        core = _AgentCore(applicant, opening.request.nonce)
        self._machine = _new_agent_side(core)
        self._parser = Parser(StatusLine.parse, body_bytes=limits.PAIRING_ANSWER_BYTES)
        self._body = bytearray()
        self._agreed: Awaited | None = None
        self._queued = False
        self.opening = self._request(
            "/pair", codec_pairing.encode_pair_request(opening.request)
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
        self._machine.over(Unfinished(reason))

    def _request(self, path: str, body: bytes) -> bytes:
        return request("POST", path, body, host=self._host, minor=0)

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
                self._answer(body)

    def _answer(self, body: bytes) -> None:
        if self._queued:
            self._machine.decided(codec_pairing.decode_pair_decision(body))
            return
        match codec_pairing.decode_pair_first(body):
            case PairFailed() as failed:
                self._machine.failed(failed)
            case PairOpened() as opened:
                self._open(opened)
            case PairPending(reqid):
                self._wait(reqid)

    def _open(self, opened: PairOpened) -> None:
        if self._agreed is not None:
            raise ProtocolError("the dispatcher introduces itself again")
        try:
            self._agreed = agreed(self._opening, opened, self._met)
        except PkiError as error:
            self._machine.over(Untrusted(str(error)))
        else:
            # Not before: until now the nonce was ours alone.
            reveal = PairReveal(opened.reqid, self._opening.nonce_a)
            body = codec_pairing.encode_pair_reveal(reveal)
            self._machine.opened(self._request(REVEAL_PATH, body))

    def _wait(self, reqid: str) -> None:
        self._queued = True
        if self._agreed is None:
            if not self._opening.terms.legacy:
                self._machine.over(Unprotected())
                return
            self._agreed = old_style(self._opening, reqid)
        if reqid != self._agreed.reqid:
            raise ProtocolError("the dispatcher answers to another request")
        self._machine.pending(self._agreed)
