# SPDX-License-Identifier: AGPL-3.0-only
"""
Changes of trust: the CA and the dispatcher's identity are made here, and
agents are let in or turned away.

Nothing here waits for a network, but keys are found and files are synced: who
must not block calls from a thread. Each change is an event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime

import attrs

from ctrlexec.dispatcher.authority import Authority
from ctrlexec.dispatcher.records import (
    AGENT_PORT,
    LOOKUPS,
    AgentRecord,
    QueuedRequest,
)
from ctrlexec.errors import Conflict, CtrlExecError, InvalidValue, NotFound, StoreError
from ctrlexec.events import (
    AuthorityCreated,
    IdentityCreated,
    PairApproved,
    PairDenied,
)
from ctrlexec.interfaces import IEventSink, IPairingQueue, IRegistry
from ctrlexec.pki import CertificateInfo, read_certificate, read_csr
from ctrlexec.protocol import messages
from ctrlexec.values import is_ip_address, iso_time, openssl_time, port_number


@attrs.frozen
class Approval:
    """
    An agent that was let in.

    @ivar record: what the registry holds about it now.
    @ivar serial: of the certificate that was issued to it, canonical hex.
    @ivar replaced: whether an agent of the same name was registered before.
    """

    record: AgentRecord
    serial: str
    replaced: bool


@attrs.frozen
class Reach:
    """
    How an agent is to be reached, where an operator knows better than the
    agent.

    @ivar lookup_by: C{"ip"}, C{"hostname"}, or C{None}.
    @ivar ip: an address, or C{None}.
    @ivar port: 1 to 65535, or C{None}.
    """

    lookup_by: str | None = None
    ip: str | None = None
    port: int | None = None

    def __attrs_post_init__(self) -> None:
        if self.lookup_by is not None and self.lookup_by not in LOOKUPS:
            raise InvalidValue("lookup", self.lookup_by, "'ip' or 'hostname'")
        if self.ip is not None and not is_ip_address(self.ip):
            raise InvalidValue("address", self.ip, "an IPv4 or IPv6 address")
        if self.port is not None:
            port_number(str(self.port))


@attrs.frozen
class Trust:
    """
    What one person can change about whom the dispatcher and its agents trust.

    @ivar user: who does it, for the events.
    """

    authority: Authority
    registry: IRegistry
    queue: IPairingQueue
    events: IEventSink
    now: Callable[[], datetime]
    user: str

    def setup_ca(self) -> CertificateInfo:
        """
        Make the private CA.

        @raise Conflict: there is one; it stays as it is.
        """
        info = self.authority.create_ca(self.now())
        self.events.emit(AuthorityCreated(info.serial, self.user))
        return info

    def agents_at_stake(self) -> int:
        """
        How many registered agents know the present identity, and may have to
        be paired again if it is replaced. None where there is no identity.
        """
        return len(self.registry.names()) if self.authority.has_identity() else 0

    def setup_identity(self, *, confirmed: bool = False) -> CertificateInfo:
        """
        Make the dispatcher's identity, in place of the one that there is.

        @param confirmed: a person has agreed although agents are registered.
        @raise Conflict: agents are registered and nobody has agreed, or there
            is no CA.
        """
        stake = self.agents_at_stake()
        if stake and not confirmed:
            raise Conflict(
                f"{stake} registered agent{'s' if stake > 1 else ''} may not trust "
                "a new dispatcher certificate",
                hint="agents of the original would have to be paired again",
            )
        info = self.authority.create_identity(self.now(), replace=True)
        self.events.emit(IdentityCreated(info.serial, self.user))
        return info

    def is_registered(self, name: str) -> bool:
        """
        Whether there is an agent of this name, even one whose record can not
        be read.
        """
        try:
            self.registry.get(name)
        except NotFound:
            return False
        except StoreError:
            pass
        return True

    def requests(self) -> Sequence[QueuedRequest]:
        """
        The requests that wait for a decision, the oldest first.
        """
        return self.queue.pending(self.now().timestamp())

    def approve(self, reqid: str, reach: Reach = Reach()) -> Approval:
        """
        Let an agent in: issue its certificate, register the agent, and leave
        the certificate for the listener to deliver.

        In this order no agent has a certificate that the registry does not
        know of. What a crash leaves behind is a request that still waits, and
        can be approved again. Nothing is decided twice.

        @raise NotFound: no such request waits.
        @raise Conflict: it is decided already.
        @raise CtrlExecError: it could not be carried through; all is as it
            was.
        """
        request = self._undecided(reqid)
        csr = read_csr(request.csr.encode())
        now = self.now()
        cert = self.authority.issue_agent(csr, request.hostname, now)
        info = read_certificate(cert)
        dispatcher = self.authority.dispatcher()
        decision = messages.PairApproved(
            cert=cert.decode("ascii"),
            ca=self.authority.ca_certificate().decode("ascii"),
            nonce=request.nonce,
            dispatcher_serial=dispatcher.serial,
            dispatcher_id=self.authority.dispatcher_id(),
        )
        record = _reached(
            AgentRecord(
                hostname=request.hostname,
                paired=iso_time(now),
                expiry=openssl_time(info.not_after),
                reqid=reqid,
                dispatcher_serial=dispatcher.serial,
                serial_status="current",
                serial_confirmed=iso_time(now),
            ),
            request,
            reach,
        )
        replaced = self.is_registered(request.hostname)
        with self._registered(record):
            self.queue.decide(reqid, decision)
        self.events.emit(PairApproved(request.hostname, reqid, info.serial, self.user))
        return Approval(record, info.serial, replaced)

    def deny(self, reqid: str) -> QueuedRequest:
        """
        Turn an agent away.

        @return: the request.
        @raise NotFound: no such request waits.
        @raise Conflict: it is decided already.
        """
        request = self._undecided(reqid)
        self.queue.decide(reqid, messages.REJECTED)
        self.events.emit(PairDenied(request.hostname, reqid, self.user))
        return request

    def _undecided(self, reqid: str) -> QueuedRequest:
        if self.queue.decision(reqid) is not None:
            raise Conflict(f"the request {reqid} is decided already")
        return self.queue.get(reqid, self.now().timestamp())

    @contextmanager
    def _registered(self, record: AgentRecord) -> Iterator[None]:
        """
        Register an agent for good if what follows goes well.
        """
        before = None
        with suppress(NotFound, StoreError):
            before = self.registry.get(record.hostname)
        self.registry.put(record)
        try:
            yield
        except CtrlExecError:
            # Somebody else may have let the same agent in meanwhile.
            if not isinstance(self.queue.decision(record.reqid), messages.PairApproved):
                if before is None:
                    self.registry.remove(record.hostname)
                else:
                    self.registry.put(before)
            raise


def _reached(record: AgentRecord, request: QueuedRequest, reach: Reach) -> AgentRecord:
    """
    What the operator says goes before what the agent said, and that before
    what is usual: NEWER-LINE.md section 5.
    """
    return attrs.evolve(
        record,
        lookup_by=reach.lookup_by or request.lookup_by or "hostname",
        ip=reach.ip or request.ip or request.source_ip,
        port=reach.port or request.port or AGENT_PORT,
    )
