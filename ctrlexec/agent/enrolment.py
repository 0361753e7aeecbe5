# SPDX-License-Identifier: AGPL-3.0-only
"""
An agent asks a dispatcher to be paired: C{docs/pairing.md}, PROTOCOL.md
section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as Late
from twisted.internet.error import (
    ConnectError,
    ConnectionRefusedError,
    DNSLookupError,
    TimeoutError,
)
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThreadPool

from ctrlexec import events, pki
from ctrlexec.agent import identity
from ctrlexec.agent.applicant import ApplicantConnection
from ctrlexec.agent.settings import AgentSettings
from ctrlexec.certificates import CertificateInfo
from ctrlexec.codes import LEGACY_WARNING, commitment, new_pairing_nonce
from ctrlexec.errors import (
    CtrlExecError,
    PkiError,
    StoreError,
    TransportError,
)
from ctrlexec.interfaces import IEventSink
from ctrlexec.protocol.agreement import Awaited, Opening, Terms
from ctrlexec.protocol.messages import (
    JOIN_REFUSED,
    PairApproved,
    PairDenied,
    PairFailed,
    PairRequest,
)
from ctrlexec.protocol.pairing import Outcome, Unfinished, Unprotected, Untrusted
from ctrlexec.values import HostPort, new_nonce

CONNECT_SECONDS = 10.0


@attrs.frozen
class Paired:
    """
    The agent has an identity and trusts the dispatcher.
    """

    certificate: CertificateInfo
    dispatcher: str


@attrs.frozen
class Refused:
    """
    The dispatcher said no.
    """

    reason: str


@attrs.frozen
class NoDecision:
    """
    Nobody decided while the agent waited.
    """

    seconds: float


@attrs.frozen
class Declined:
    """
    The person at the agent said no, or could not be asked.

    @ivar approved: whether the dispatcher had said yes.
    """

    approved: bool


#: How a pairing ends for the person who began it. What else can happen is an
#: error.
Result = Paired | Refused | NoDecision | Declined


class Person(Protocol):
    """
    Who is at the agent.
    """

    def compares(self, awaited: Awaited) -> Deferred[bool]:
        """
        Show what is waited for, and ask whether the dispatcher shows the same.

        @return: fires with the answer; cancelled when it is of no use any more.
        """


@attrs.frozen
class Application:
    """
    What an agent brings to a pairing.

    @ivar opening: what it sends, and on which terms.
    """

    key: bytes = attrs.field(repr=False)
    opening: Opening

    @classmethod
    def new(
        cls,
        settings: AgentSettings,
        lookup_by: str,
        key_type: pki.KeyType,
        terms: Terms,
    ) -> Application:
        """
        A fresh key, the request to have it certified, and a nonce to commit to.
        """
        key = pki.generate_key(key_type)
        csr = pki.make_csr(key, settings.name)
        nonce_a = new_pairing_nonce()
        request = PairRequest(
            hostname=settings.name,
            csr=csr.decode("ascii"),
            nonce=new_nonce(),
            lookup_by=lookup_by,
            port=settings.port,
            commitment=commitment(nonce_a),
        )
        return cls(key, Opening(request, nonce_a, terms))


@attrs.frozen
class Enrolment:
    """
    Pairs an agent with one dispatcher.

    @ivar reactor: with a thread pool; writing to disk is its work.
    @ivar endpoint: the dispatcher's pairing port, TLS included.
    @ivar dispatcher: the same as the operator names it.
    @ivar seconds: how long to wait for a decision.
    @ivar now: the time, aware.
    """

    reactor: IReactorTime
    endpoint: IStreamClientEndpoint
    dispatcher: HostPort
    settings: AgentSettings
    events: IEventSink
    seconds: float
    now: Callable[[], datetime]

    async def pair(self, application: Application, person: Person) -> Result:
        """
        Ask, wait for both ends to say yes, and store what comes of it.

        @param person: shown what to compare once somebody is to decide.
        @raise TransportError: the dispatcher can not be reached, or went away.
        @raise PkiError: what it sent is not to be trusted, or does not belong
            to us.
        @raise StoreError: the identity could not be stored.
        @raise CtrlExecError: it did not take the request, or knows the old
            exchange only.
        """
        asking = _Asking(person)
        connection = ApplicantConnection(
            self.reactor,
            application.opening,
            self.dispatcher.host,
            asking.pending,
            self.now,
        )
        asking.connection = connection
        try:
            await self.endpoint.connect(Factory.forProtocol(lambda: connection))
            settling = Deferred.fromCoroutine(asking.settled())
            outcome = await settling.addTimeout(self.seconds, self.reactor)
        except Late:
            self.events.emit(events.PairingTimedOut(connection.reqid))
            return NoDecision(self.seconds)
        except CancelledError:
            raise
        except Exception as why:
            self.events.emit(events.PairingFailed(str(why)))
            raise _unreachable(self.dispatcher, why) from why
        return await self._conclude(outcome, application, connection.reqid)

    async def _conclude(
        self, outcome: Outcome | Declined, application: Application, reqid: str
    ) -> Result:
        match outcome:
            case PairApproved() as approval:
                return await self._accept(approval, application, reqid)
            case PairDenied(reason) | PairFailed(JOIN_REFUSED.reason as reason):
                self.events.emit(events.PairingDenied(reqid, reason))
                return Refused(reason)
            case PairFailed(reason):
                self.events.emit(events.PairingDenied(reqid, reason))
                raise CtrlExecError(
                    f"the dispatcher did not take the request: {reason[:200]}",
                    hint=_HINTS.get(reason, ""),
                )
            case Declined():
                reason = "declined at the agent"
                self.events.emit(events.PairingDenied(reqid, reason))
                return outcome
            case Unprotected():
                self.events.emit(events.PairingFailed("only the old exchange", reqid))
                raise CtrlExecError(
                    f"the dispatcher knows the old exchange only: {LEGACY_WARNING}; "
                    "nothing was stored",
                    hint=_for_an_original(application.opening.terms),
                )
            case Untrusted(reason):
                self.events.emit(events.PairingFailed(reason, reqid))
                raise PkiError(
                    f"{reason[:300]}; nothing was stored",
                    hint="somebody may be in between; ctrl-exec ca-fingerprint there "
                    "says which CA is the right one",
                )
            case Unfinished(reason):
                self.events.emit(events.PairingFailed(reason, reqid))
                raise TransportError(
                    f"{reason[:200]}; nothing was stored",
                    hint="run request-pairing again once the dispatcher is in "
                    "pairing mode",
                )

    async def _accept(
        self, approval: PairApproved, application: Application, reqid: str
    ) -> Paired:
        try:
            new, info = identity.NewIdentity.approved(
                approval,
                name=self.settings.name,
                key=application.key,
                now=self.now(),
            )
        except PkiError as error:
            self.events.emit(events.PairingFailed(str(error), reqid))
            raise PkiError(f"{error}; nothing was stored") from error
        try:
            await _in_thread(self.reactor, lambda: identity.store(self.settings, new))
        except StoreError as error:
            self.events.emit(events.PairingFailed(str(error), reqid))
            raise
        self.events.emit(
            events.PairingCompleted("stored", new.dispatcher, self.dispatcher.host)
        )
        return Paired(info, new.dispatcher)


@attrs.define(eq=False)
class _Asking:
    """
    The question at the agent and the decision at the dispatcher, whichever
    comes first.
    """

    person: Person
    connection: ApplicantConnection = attrs.field(init=False)
    _answer: Deferred[bool] | None = attrs.field(default=None, init=False)
    _yes: bool = attrs.field(default=False, init=False)

    def pending(self, awaited: Awaited) -> None:
        """
        From now on both can be answered.
        """
        self._answer = self.person.compares(awaited)
        self._answer.addCallbacks(self._answered, lambda _: None)

    def _answered(self, yes: bool) -> None:
        self._yes = yes
        if not yes:
            self.connection.declined()

    async def settled(self) -> Outcome | Declined:
        """
        @return: how it ends; an approval only where the person said yes too.
        """
        try:
            outcome = await self.connection.outcome
            if outcome is None:
                return Declined(approved=False)
            if isinstance(outcome, PairApproved):
                assert self._answer is not None
                await self._answer
                if not self._yes:
                    return Declined(approved=True)
            return outcome
        finally:
            if self._answer is not None:
                self._answer.cancel()


_HINTS = {
    "pairing queue full": "approve or deny what is waiting there, then try again",
    "too many requests were never revealed": "somebody may be guessing at codes; "
    "the dispatcher's log says where from. It takes requests again in ten minutes",
    "invalid hostname": "give the agent another name: 'name = …' in agent.conf",
}


def _for_an_original(terms: Terms) -> str:
    if terms.token is not None:
        return "a dispatcher of the original knows no join tokens"
    return "if it is one of the original and that will do, give --legacy"


async def _in_thread(reactor: Any, work: Callable[[], None]) -> None:
    pool = reactor.getThreadPool()
    await deferToThreadPool(reactor, pool, work)


def _unreachable(dispatcher: HostPort, why: Exception) -> TransportError:
    where = f"{dispatcher.host}, port {dispatcher.port}"
    match why:
        case DNSLookupError():
            return TransportError(
                f"the dispatcher {dispatcher.host!r} did not resolve",
                hint="check the name or use an IP address",
            )
        case ConnectionRefusedError():
            return TransportError(
                f"nothing listens at {where}",
                hint="start pairing mode on the dispatcher: ctrl-exec pairing-mode",
            )
        case TimeoutError():
            return TransportError(
                f"no answer from {where} within {CONNECT_SECONDS:g}s",
                hint="is a firewall in between?",
            )
        case ConnectError():
            return TransportError(f"{where} can not be reached: {why}")
    return TransportError(
        f"the port is open, but no pairing listener answers there: {where}",
        hint="is that the pairing port (7444), not the agent's or the API's?",
    )
