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

from ctrlexec.codes import LEGACY_WARNING
from ctrlexec.dispatcher.approvals import Approval, Issued
from ctrlexec.dispatcher.authority import Authority
from ctrlexec.dispatcher.orders import Reach
from ctrlexec.dispatcher.records import AGENT_PORT, AgentRecord, QueuedRequest
from ctrlexec.dispatcher.registry import former_serials
from ctrlexec.errors import (
    Conflict,
    CtrlExecError,
    NotFound,
    StoreError,
    abbreviated,
)
from ctrlexec.events import (
    AgentEdited,
    AgentUnpaired,
    AuthorityCreated,
    IdentityCreated,
    PairApproved,
    PairDenied,
)
from ctrlexec.interfaces import IEventSink, IPairingQueue, IRegistry
from ctrlexec.pki import (
    CertificateInfo,
    ca_fingerprint,
    read_certificate,
    read_csr,
)
from ctrlexec.protocol import messages
from ctrlexec.values import iso_time, openssl_time

# Where nobody knows better than the agent.
_AS_IT_IS = Reach()


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

    def ca_fingerprint(self) -> str:
        """
        What names the CA: C{docs/pairing.md}.

        @raise PkiError: there is none that can be read.
        """
        return ca_fingerprint(self.authority.ca_certificate())

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

    def approve(
        self, reqid: str, reach: Reach = _AS_IT_IS, *, legacy: bool = False
    ) -> Approval:
        """
        Let an agent in: issue its certificate, register the agent, and leave
        the certificate for the listener to deliver.

        In this order no agent has a certificate that the registry does not
        know of. What a crash leaves behind is a request that still waits, and
        can be approved again. Nothing is decided twice.

        @param legacy: a person knows that the code of the original's exchange
            protects less, and that will do.
        @raise NotFound: no such request waits.
        @raise Conflict: it is decided already; or it is of the original's
            exchange and nobody said that this will do; or its code is of
            another CA.
        @raise CtrlExecError: it could not be carried through; all is as it
            was.
        """
        request = self._undecided(reqid)
        issued = self.issue(request, reach, legacy=legacy)
        record, serial = issued.record, issued.serial
        replaced = self.is_registered(request.hostname)
        with self._registered(record):
            self.queue.decide(reqid, issued.decision)
        exchange = "legacy" if request.legacy else None
        self.events.emit(
            PairApproved(request.hostname, reqid, serial, self.user, exchange)
        )
        return Approval(record, serial, replaced)

    def issue(
        self,
        request: QueuedRequest,
        reach: Reach = _AS_IT_IS,
        *,
        legacy: bool = False,
    ) -> Issued:
        """
        Sign what an agent asks for. Nobody is registered, and nobody told.

        @param legacy: see L{approve}.
        @raise Conflict: this agent can not be let in: see L{approve}.
        @raise CtrlExecError: there is nothing to sign with.
        """
        self._check_code(request, legacy)
        self._check_free(request.hostname)
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
                reqid=request.id,
                dispatcher_serial=dispatcher.serial,
                serial_status="current",
                serial_confirmed=iso_time(now),
                cert_serial=info.serial,
                former_serials=former_serials(self.registry, request.hostname),
            ),
            request,
            reach,
        )
        return Issued(decision, record, info.serial)

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

    def edit_agent(
        self, name: str, reach: Reach, rename: str | None = None
    ) -> AgentRecord:
        """
        Change where an agent is reached, or what it is called here. Its
        certificate stays as it is, and is accepted for the new name.

        @param rename: the new name, or C{None}.
        @raise InvalidValue: the new name can be no agent's.
        @raise NotFound: there is no agent of this name.
        @raise Conflict: nothing is to be changed, there is an agent of the new
            name, or there is no address to look the agent up by.
        """
        if reach == _AS_IT_IS and rename is None:
            raise Conflict(
                f"nothing is to be changed about {abbreviated(name)}",
                hint="--rename, --ip, --agent-port and --lookup-by say what is",
            )
        before: list[AgentRecord] = []

        def change(record: AgentRecord) -> AgentRecord:
            before.append(record)
            called = record.hostname if rename is None else rename
            return _edited(record, reach, called)

        record = self.registry.change(name, change)
        if record != before[-1]:
            self.events.emit(_agent_edited(before[-1], record, self.user))
        return record

    def unpair(self, name: str) -> AgentRecord | None:
        """
        Forget an agent. Its certificate is valid until it ends.

        @return: what was known about it; C{None} where its record could not be
            read.
        @raise NotFound: there is no agent of this name.
        """
        record = None
        with suppress(StoreError):
            record = self.registry.get(name)
        if not self.registry.remove(name):
            raise NotFound(f"unknown agent: {abbreviated(name)}")
        expiry = "" if record is None else record.expiry
        self.events.emit(AgentUnpaired(name, expiry, self.user))
        return record

    def _check_code(self, request: QueuedRequest, legacy: bool) -> None:
        """
        What is delivered must be what the code was computed from.
        """
        if request.revealed is None:
            if not legacy:
                raise Conflict(
                    f"{request.hostname} asks in the old way: {LEGACY_WARNING}",
                    hint="if that will do: ctrl-exec approve --legacy "
                    f"{request.id}, or the word legacy in pairing mode",
                )
            return
        ca = self.authority.ca_certificate()
        if ca_fingerprint(ca) != ca_fingerprint(request.revealed.ca.encode()):
            raise Conflict(
                "the CA is not the one that the agent was shown",
                hint="deny the request, restart pairing mode, and ask again",
            )

    def _check_free(self, name: str) -> None:
        """
        An agent that was renamed keeps its certificate. Whoever got another one
        of that name could answer for it.

        @raise Conflict: there is such an agent.
        """
        for record in self.registry.records()[0]:
            if record.identity == name:
                raise Conflict(
                    f"{record.hostname} was called {name} before, and is known by "
                    "that name in its certificate",
                    hint=f"the new agent needs another name, or {record.hostname} "
                    "has to be paired anew under its present one",
                )

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


def _edited(record: AgentRecord, reach: Reach, name: str) -> AgentRecord:
    identity = record.identity or record.hostname
    edited = attrs.evolve(
        record,
        hostname=name,
        identity="" if identity == name else identity,
        lookup_by=reach.lookup_by or record.lookup_by,
        ip=reach.ip or record.ip,
        port=reach.port or record.port,
    )
    if reach.lookup_by == "ip" and not edited.ip:
        raise Conflict(
            f"no address of {record.hostname} is known", hint="--ip says which it is"
        )
    return edited


def _agent_edited(before: AgentRecord, record: AgentRecord, user: str) -> AgentEdited:
    old, new = attrs.asdict(before), attrs.asdict(record)
    reached = ("ip", "port", "lookup_by")
    return AgentEdited(
        agent=record.hostname,
        user=user,
        renamed_from=None if old["hostname"] == new["hostname"] else before.hostname,
        **{field: new[field] for field in reached if old[field] != new[field]},
    )
