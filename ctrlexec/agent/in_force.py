# SPDX-License-Identifier: AGPL-3.0-only
"""
What is in force on an agent at the moment, for all that is asked of it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import attrs

from ctrlexec.agent.gate import Gate
from ctrlexec.agent.policy import Policy
from ctrlexec.agent.rotation import InThread
from ctrlexec.agent.trust import NotTrusted, Trusted
from ctrlexec.agent.trust_store import Mark, stored_trust, trust_mark
from ctrlexec.errors import StoreError
from ctrlexec.events import SerialChangeFailed
from ctrlexec.hooks import Denied, HookContext, Verdict
from ctrlexec.interfaces import IAuthoriser, IEventSink
from ctrlexec.protocol.exchange import Peer


@attrs.frozen
class Caller:
    """
    A trusted dispatcher that has asked for something.

    @ivar dispatcher: the id that its certificate stands for.
    """

    peer: Peer
    dispatcher: str


@attrs.define(eq=False)
class InForce:
    """
    @ivar policy: what is allowed; replaced whole when the settings are read
        again.
    @ivar authoriser: made for a policy; asked before anything is done but to
        answer a ping.
    @ivar gate: told of each connection.
    @ivar now: the time, aware.
    @ivar in_thread: where work is done that waits for the disk.
    """

    policy: Policy
    authoriser: IAuthoriser
    events: IEventSink
    gate: Gate
    now: Callable[[], datetime]
    in_thread: InThread

    def whose(self, peer: Peer) -> Caller | NotTrusted:
        """
        Whose certificate somebody has shown, as the map has it now.
        """
        match self.policy.trusted.decide(peer.certificate):
            case Trusted(dispatcher):
                return Caller(peer, dispatcher)
            case NotTrusted() as refusal:
                return refusal

    async def ask(self, asked: HookContext, caller: Caller) -> Verdict:
        """
        Ask the hook. It takes its time, in which trust can end: then its answer
        is of no use.
        """
        verdict = await self.authoriser.ask(asked)
        return verdict if self.trusts(caller) else Denied("no longer trusted")

    def trusts(self, caller: Caller) -> bool:
        """
        Whether a dispatcher that was trusted still is.
        """
        if self.gate.refusal(caller.peer, self.policy, self.now()) is not None:
            return False
        return self.whose(caller.peer) == caller

    def read_trust(self) -> None:
        """
        Trust whom the map on disk says, which is never older than what another
        order has just written.

        @raise StoreError: it can not be read, and all stays.
        """
        trusted = stored_trust(self.policy.settings)
        self.policy = attrs.evolve(self.policy, trusted=trusted)

    def trust_mark(self) -> Mark:
        """
        For L{notice_trust}, before something that may change the map.
        """
        return trust_mark(self.policy.settings)

    def notice_trust(self, before: Mark, dispatcher: str) -> None:
        """
        A script may have changed the map: C{update-ctrl-exec-serial} does.
        """
        if self.trust_mark() != before:
            try:
                self.read_trust()
            except StoreError as error:
                self.events.emit(SerialChangeFailed(dispatcher, str(error)))


def serial_of(peer: Peer) -> str:
    """
    The serial of the certificate that somebody has shown; empty for none.
    """
    return peer.certificate.serial if peer.certificate else ""
