# SPDX-License-Identifier: AGPL-3.0-only
"""
What trusted dispatchers ask of an agent beside runs: whether it is there, what it
offers, whom it trusts from now on, and its next certificate (PROTOCOL.md section 2,
NEWER-LINE.md section 3).
"""

from __future__ import annotations

import attrs

from ctrlexec import __version__
from ctrlexec.agent.contexts import question, rotate_question
from ctrlexec.agent.in_force import Caller, InForce, serial_of
from ctrlexec.agent.renewal import Asker, Renewals
from ctrlexec.agent.revoking import Revocation
from ctrlexec.agent.rotation import Rotation
from ctrlexec.agent.staging import is_staged
from ctrlexec.events import (
    CapabilitiesAnswered,
    CapabilitiesDenied,
    PingAnswered,
    brief,
)
from ctrlexec.hooks import Denied
from ctrlexec.protocol import codec
from ctrlexec.protocol.exchange import Exchange
from ctrlexec.protocol.messages import (
    NOT_AUTHORISED,
    Capabilities,
    PingAnswer,
    Refused,
    RotateRequest,
)


@attrs.frozen
class Routes:
    """
    @ivar renewals: the identity that the agent shows, and what renews it.
    """

    in_force: InForce
    renewals: Renewals

    async def ping(self, exchange: Exchange, caller: Caller) -> None:
        """
        C{POST /ping}
        """
        request = codec.decode_ping_request(exchange.request.body)
        who = (caller.peer.address, brief(request.reqid), caller.dispatcher)
        self.in_force.events.emit(PingAnswered(*who))
        settings = self.in_force.policy.settings
        answer = PingAnswer(
            settings.name,
            __version__,
            self.renewals.shown.expiry,
            request.reqid,
            staged=is_staged(settings),
            renewal_due=self.renewals.due,
        )
        exchange.answer(200, codec.encode_ping_answer(answer))

    async def capabilities(self, exchange: Exchange, caller: Caller) -> None:
        """
        C{GET /capabilities}
        """
        in_force, address = self.in_force, caller.peer.address
        asked = question("discovery", caller.peer, caller.dispatcher, in_force.now())
        verdict = await in_force.ask(asked, caller)
        if isinstance(verdict, Denied):
            why = (serial_of(caller.peer), verdict.reason, caller.dispatcher)
            in_force.events.emit(CapabilitiesDenied(address, *why))
            refuse(exchange, NOT_AUTHORISED)
            return
        scripts, settings = in_force.policy.scripts(), in_force.policy.settings
        in_force.events.emit(
            CapabilitiesAnswered(address, len(scripts), caller.dispatcher)
        )
        answer = Capabilities(
            settings.name, __version__, scripts, settings.tags, self.renewals.due
        )
        exchange.answer(200, codec.encode_capabilities(answer))

    async def rotate(self, exchange: Exchange, caller: Caller) -> None:
        """
        C{POST /rotate-serial}
        """
        in_force = self.in_force
        rotation = Rotation(
            in_force.policy.settings,
            in_force.events,
            in_force.in_thread,
            caller.peer.address,
            caller.dispatcher,
            in_force.read_trust,
        )

        async def may_rotate(request: RotateRequest) -> str | None:
            asked = question("rotate", caller.peer, caller.dispatcher, in_force.now())
            verdict = await in_force.ask(rotate_question(request, asked), caller)
            return verdict.reason if isinstance(verdict, Denied) else None

        request = codec.decode_rotate_request(exchange.request.body)
        answer = await rotation.answer(request, may_rotate)
        if isinstance(answer, Refused):
            refuse(exchange, answer)
        else:
            exchange.answer(200, codec.encode_rotate_answer(answer))

    async def renew(self, exchange: Exchange, caller: Caller) -> None:
        """
        C{POST /renew} and C{POST /renew-complete}
        """
        request = exchange.request
        body = await self.renewals.answer(
            request.path,
            request.body,
            self.in_force.policy.settings,
            Asker(caller.peer.address, caller.dispatcher),
        )
        exchange.answer(200, body)

    async def revoke(self, exchange: Exchange, caller: Caller) -> None:
        """
        C{POST /revocations}
        """
        in_force = self.in_force
        revocation = Revocation(
            in_force.policy,
            in_force.events,
            in_force.in_thread,
            self.renewals.shown.credentials.ca,
            in_force.now(),
        )
        body, pushed = await revocation.answer(
            exchange.request.body, caller.peer.address, caller.dispatcher
        )
        if pushed is not None:
            # Another one may have come while this one was written.
            joined = pushed.joined(in_force.policy.pushed)
            in_force.policy = attrs.evolve(in_force.policy, pushed=joined)
            in_force.gate.cut(in_force.policy)
        exchange.answer(200, body)


def refuse(exchange: Exchange, refused: Refused) -> None:
    """
    Answer that something is not done.
    """
    exchange.answer(refused.code, codec.encode_refused(refused))
