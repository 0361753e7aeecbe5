# SPDX-License-Identifier: AGPL-3.0-only
"""
Renewing the certificates of agents: when, and how (NEWER-LINE.md section 8).

The agent asks for a key, and nothing else: what it is called the registry says.
What it answers to its new certificate is believed only if it says that it has
taken it; an error comes with HTTP status 200 too, and to write that down as
done is how agents expire unnoticed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Protocol

import attrs

from ctrlexec.dispatcher.authority import Authority
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.results import PingRow
from ctrlexec.errors import CtrlExecError, InvalidValue
from ctrlexec.events import (
    RenewalBegun,
    RenewalCompleted,
    RenewalNotBegun,
    RenewalNotCompleted,
)
from ctrlexec.interfaces import IEventSink, IRegistry
from ctrlexec.pki import Csr, read_certificate, read_csr
from ctrlexec.protocol.messages import RenewCsr, RenewDone, RenewOrder, RenewRequest
from ctrlexec.values import Target, from_openssl_time, new_request_id, openssl_time


class Renewable(Protocol):
    """
    What speaks to agents whose certificate is renewed.
    """

    async def renew(self, target: Target, asked: RenewRequest) -> RenewCsr:
        """
        @raise CtrlExecError: there is no request.
        """

    async def renew_complete(self, target: Target, order: RenewOrder) -> RenewDone:
        """
        @raise CtrlExecError: the agent does not say that it has taken it.
        """


@attrs.frozen
class Renewed:
    """
    An agent has its next certificate.

    @ivar host: the agent's name in the registry.
    @ivar expiry: when it ends, in openssl's form.
    @ivar serial: its serial, canonical hex.
    @ivar staged: whether it waits there to be put in its place.
    """

    host: str
    expiry: str
    serial: str
    staged: bool


def is_due(row: PingRow, now: datetime, next_end: datetime) -> bool:
    """
    Whether an agent's certificate should be renewed: less than half of a
    certificate's life is left, or the agent says so.

    @param next_end: when a certificate would end that is issued now. One that
        ends no later than the old one is worth nothing: no certificate outlasts
        the CA.
    """
    if not row.ok:
        return False
    try:
        end = from_openssl_time(row.expiry)
    except InvalidValue:
        # "unknown", for one; the agent may know better.
        return row.renewal_due
    if end >= next_end:
        return False
    # What waits at an agent of the original shows when somebody restarts it.
    soon = end - now < (next_end - now) / 2 and not row.staged
    return soon or row.renewal_due


@attrs.frozen
class Renewing:
    """
    Renews the certificates of agents, one at a time.

    @ivar in_thread: where files are read and written.
    """

    agents: Renewable
    authority: Authority
    registry: IRegistry
    events: IEventSink
    now: Callable[[], datetime]
    in_thread: Callable[..., Awaitable[Any]]

    async def renew(self, target: Target) -> Renewed:
        """
        Give an agent its next certificate, and write down when it ends.

        @param target: of the registry: its name decides what the certificate
            says.
        @raise CtrlExecError: it has not taken it; nothing is written down. Why
            is in the log.
        """
        reqid = new_request_id()
        try:
            asked = await self.agents.renew(target, RenewRequest(reqid, new_key=True))
            csr = read_csr(asked.csr.encode())
        except Exception as error:
            self.events.emit(RenewalNotBegun(target.name, reqid, _said(error)))
            raise
        self.events.emit(RenewalBegun(target.name, reqid))
        try:
            renewed = await self._complete(target, csr, reqid)
        except Exception as error:
            self.events.emit(RenewalNotCompleted(target.name, reqid, _said(error)))
            raise
        self.events.emit(
            RenewalCompleted(
                target.name,
                renewed.expiry,
                reqid,
                renewed.serial,
                "yes" if renewed.staged else None,
            )
        )
        return renewed

    async def _complete(self, target: Target, csr: Csr, reqid: str) -> Renewed:
        name = target.identity or target.name
        cert = await self.in_thread(self.authority.issue_agent, csr, name, self.now())
        ca = self.authority.ca_certificate()
        info = read_certificate(cert)

        def issued(record: AgentRecord) -> AgentRecord:
            return record.with_issued(info.serial)

        # The answer may be lost, or kept back until the agent is revoked.
        await self.in_thread(self.registry.change, target.name, issued)
        done = await self.agents.renew_complete(
            target, RenewOrder(cert.decode(), ca.decode(), reqid)
        )
        expiry = openssl_time(info.not_after)

        def ends(record: AgentRecord) -> AgentRecord:
            renewed = record.with_certificate(info.serial, expiry)
            # Who was revoked while it answered stays so.
            return attrs.evolve(renewed, revoked=record.revoked)

        await self.in_thread(self.registry.change, target.name, ends)
        return Renewed(target.name, expiry, info.serial, done.staged)


def _said(error: Exception) -> str:
    if isinstance(error, CtrlExecError):
        return str(error)
    return f"internal error: {error!r}"
