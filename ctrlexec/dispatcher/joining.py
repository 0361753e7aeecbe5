# SPDX-License-Identifier: AGPL-3.0-only
"""
Agents that join without a person, by a token: C{docs/pairing.md}, "Joining
without a person".

Somebody who may decides beforehand, by making a token; whoever proves on the
pairing port that they have it is let in. Those who are not are all told the
same, and the log says why.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

import attrs

from ctrlexec.dispatcher import requests
from ctrlexec.dispatcher.approvals import Issued
from ctrlexec.dispatcher.authority import Authority
from ctrlexec.dispatcher.join_tokens import FileJoinTokens
from ctrlexec.dispatcher.lifecycle import Trust
from ctrlexec.dispatcher.orders import TokenOrder
from ctrlexec.dispatcher.queue import FilePairingQueue
from ctrlexec.dispatcher.records import QueuedRequest
from ctrlexec.dispatcher.registry import FileRegistry
from ctrlexec.dispatcher.settings import DispatcherSettings
from ctrlexec.dispatcher.token_records import Claim, JoinToken, NotRedeemed
from ctrlexec.errors import Conflict, CtrlExecError, NotFound, StoreError
from ctrlexec.events import (
    Joined,
    JoinRefused,
    JoinsOff,
    JoinTokenCreated,
    JoinTokenRevoked,
    PairApproved,
)
from ctrlexec.interfaces import IEventSink, IJoinTokens
from ctrlexec.joining import JoinSecret
from ctrlexec.protocol import messages
from ctrlexec.values import from_iso_time

_NO_KEY = "this process can not read the key of the CA"


@attrs.frozen
class Doorkeeper:
    """
    Lets agents in that bring a token.

    @ivar trust: what is changed; the token is who changes it.
    """

    trust: Trust
    tokens: IJoinTokens

    @classmethod
    def of(
        cls,
        settings: DispatcherSettings,
        events: IEventSink,
        now: Callable[[], datetime],
    ) -> Doorkeeper:
        """
        The one of a dispatcher whose state is in files.
        """
        trust = Trust(
            authority=Authority(settings),
            registry=FileRegistry(settings.registry_dir),
            queue=FilePairingQueue.of(settings),
            events=events,
            now=now,
            user="",
        )
        return cls(trust, FileJoinTokens(settings.tokens_dir))

    def report(self) -> None:
        """
        Say in the log if it can let nobody in, before anybody tries.
        """
        if not self.trust.authority.can_sign():
            self.trust.events.emit(JoinsOff(_NO_KEY))

    def decide(
        self, request: QueuedRequest, proof: messages.JoinProof
    ) -> messages.PairApproved | messages.PairFailed:
        """
        Decide on an agent; may block. One use of the token is written off
        before anything is signed, so that a crash costs a use and gives none.

        @return: its certificate, or the one refusal that there is.
        """
        try:
            if not self.trust.authority.can_sign():
                return self._refused(request, proof, _NO_KEY)
            match self._redeemed(request, proof):
                case NotRedeemed(reason):
                    return self._refused(request, proof, reason)
                case token:
                    return self._let_in(request, token)
        except CtrlExecError as error:
            return self._refused(request, proof, str(error))

    def _redeemed(
        self, request: QueuedRequest, proof: messages.JoinProof
    ) -> JoinToken | NotRedeemed:
        if request.revealed is None:
            return NotRedeemed("the request is of the old exchange")
        joining = requests.joining(request, request.revealed)

        def objection(token: JoinToken) -> str:
            if token.name:
                return self._revoked_since(token)
            # Else the next host of an image could answer for the last one.
            if self.trust.is_registered(request.hostname):
                return "an agent of this name is registered, and the token names none"
            return ""

        claim = Claim(proof.id, joining, proof.mac)
        return self.tokens.redeem(claim, self.trust.now(), objection)

    def _revoked_since(self, token: JoinToken) -> str:
        """
        Who has stolen a host may have found its token there, too.
        """
        record = None
        with suppress(NotFound, StoreError):
            record = self.trust.registry.get(token.name)
        if record is None or not record.revoked:
            return ""
        if from_iso_time(record.revoked) < from_iso_time(token.created):
            return ""
        return "the agent was revoked, and the token is not newer than that"

    def _let_in(
        self, request: QueuedRequest, token: JoinToken
    ) -> messages.PairApproved:
        trust = self.trust
        issued = trust.issue(request)
        replaced = trust.is_registered(request.hostname)
        self._register(issued, token)
        user = f"token:{token.id}"
        trust.events.emit(
            PairApproved(request.hostname, request.id, issued.serial, user)
        )
        trust.events.emit(
            Joined(
                agent=request.hostname,
                ip=request.source_ip,
                left=token.left,
                reqid=request.id,
                token_id=token.id,
                replaced="yes" if replaced else None,
            )
        )
        return issued.decision

    def _register(self, issued: Issued, token: JoinToken) -> None:
        record = attrs.evolve(issued.record, tags=dict(token.tags))
        if token.name:
            self.trust.registry.put(record)
        else:
            # Of two that join at once under one name, one does.
            self.trust.registry.add(record)

    def _refused(
        self, request: QueuedRequest, proof: messages.JoinProof, reason: str
    ) -> messages.PairFailed:
        self.trust.events.emit(
            JoinRefused(
                agent=request.hostname,
                ip=request.source_ip,
                reason=reason,
                reqid=request.id,
                token_id=proof.id,
            )
        )
        return messages.JOIN_REFUSED


def create_token(
    trust: Trust, tokens: IJoinTokens, order: TokenOrder
) -> tuple[JoinToken, JoinSecret]:
    """
    Make a token.

    @return: what is kept, and what is shown once and never again.
    @raise PkiError: there is no CA that an agent could pin.
    @raise Conflict: an agent that is called otherwise now has the name in its
        certificate.
    """
    secret = JoinSecret.new(trust.ca_fingerprint())
    for record in trust.registry.records()[0]:
        if order.name and record.identity == order.name:
            raise Conflict(
                f"{record.hostname} is known by the name {order.name} in its "
                "certificate",
                hint="the new agent needs another name",
            )
    token = JoinToken.new(secret, order, trust.now(), trust.user)
    tokens.add(token)
    tags = ",".join(f"{name}={value}" for name, value in token.tags.items())
    trust.events.emit(
        JoinTokenCreated(
            token_id=token.id,
            uses=token.uses,
            expires=token.expires,
            user=trust.user,
            name=token.name or None,
            tags=tags or None,
        )
    )
    return token, secret


def revoke_token(trust: Trust, tokens: IJoinTokens, identity: str) -> None:
    """
    Make a token useless. Who has joined with it stays.

    @raise NotFound: there is none of this id.
    """
    tokens.revoke(identity)
    trust.events.emit(JoinTokenRevoked(identity, trust.user))
