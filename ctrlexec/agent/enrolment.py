# SPDX-License-Identifier: AGPL-3.0-only
"""
An agent asks a dispatcher to be paired: PROTOCOL.md section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import attrs
from twisted.internet.defer import CancelledError
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
from ctrlexec.errors import (
    CtrlExecError,
    PkiError,
    StoreError,
    TransportError,
)
from ctrlexec.interfaces import IEventSink
from ctrlexec.protocol.messages import (
    PairApproved,
    PairDenied,
    PairFailed,
    PairRequest,
)
from ctrlexec.protocol.pairing import Outcome, Unfinished
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


#: How a pairing ends for the person who began it. What else can happen is an
#: error.
Result = Paired | Refused | NoDecision


@attrs.frozen
class Application:
    """
    What an agent brings to a pairing.

    @ivar code: six digits, which the dispatcher shows too.
    """

    key: bytes = attrs.field(repr=False)
    request: PairRequest
    code: str

    @classmethod
    def new(
        cls, settings: AgentSettings, lookup_by: str, key_type: pki.KeyType
    ) -> Application:
        """
        A fresh key, and the request to have it certified.
        """
        key = pki.generate_key(key_type)
        csr = pki.make_csr(key, settings.name)
        request = PairRequest(
            hostname=settings.name,
            csr=csr.decode("ascii"),
            nonce=new_nonce(),
            lookup_by=lookup_by,
            port=settings.port,
        )
        return cls(key, request, pki.confirmation_code(csr))


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

    async def pair(
        self, application: Application, pending: Callable[[str], None]
    ) -> Result:
        """
        Ask, wait, and store what comes of it.

        @param pending: told the request's id once a person is to decide.
        @raise TransportError: the dispatcher can not be reached, or went away.
        @raise PkiError: what it sent can not be used. Nothing is stored.
        @raise StoreError: it could not be stored.
        """
        connection = ApplicantConnection(
            self.reactor, application.request, self.dispatcher.host, pending
        )
        try:
            await self.endpoint.connect(Factory.forProtocol(lambda: connection))
            outcome = await connection.outcome.addTimeout(self.seconds, self.reactor)
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
        self, outcome: Outcome, application: Application, reqid: str
    ) -> Result:
        match outcome:
            case PairApproved() as approval:
                return await self._accept(approval, application, reqid)
            case PairDenied(reason):
                self.events.emit(events.PairingDenied(reqid, reason))
                return Refused(reason)
            case PairFailed(reason):
                self.events.emit(events.PairingDenied(reqid, reason))
                raise CtrlExecError(
                    f"the dispatcher did not take the request: {reason[:200]}",
                    hint=_HINTS.get(reason, ""),
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


_HINTS = {
    "pairing queue full": "approve or deny what is waiting there, then try again",
    "invalid hostname": "give the agent another name: 'name = …' in agent.conf",
}


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
