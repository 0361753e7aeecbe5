# SPDX-License-Identifier: AGPL-3.0-only
"""
Revoking certificates: first here, where it counts at once, then at all agents
(C{docs/revocation.md}).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import attrs
from twisted.internet.defer import CancelledError

from ctrlexec.dispatcher.authority import Authority
from ctrlexec.dispatcher.dispatch import fan_out
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.registry import Unknown, targets
from ctrlexec.dispatcher.revocation import (
    REASON_CHARACTERS,
    Entry,
    FileRevocations,
    Listed,
    Revocable,
)
from ctrlexec.errors import (
    Conflict,
    CtrlExecError,
    InvalidValue,
    NotFound,
    PkiError,
    StoreError,
    abbreviated,
)
from ctrlexec.events import RevocationsNotPushed, RevocationsPushed
from ctrlexec.events import Revoked as RevokedEvent
from ctrlexec.pki import read_certificate
from ctrlexec.protocol.codec_trust import NoSuchRequest
from ctrlexec.protocol.revocation import (
    NotAcknowledged,
    Revocations,
    SignedRevocations,
    signed,
)
from ctrlexec.tls import Identity
from ctrlexec.values import HostPort, Target, agent_name, iso_time, revoked_serials

if TYPE_CHECKING:
    from ctrlexec.dispatcher.operations import Dispatcher
    from ctrlexec.dispatcher.orders import Caller

ACKNOWLEDGED, NOT_SUPPORTED = "acknowledged", "not supported"


@attrs.frozen
class PushRow:
    """
    Whether an agent knows what is revoked.

    @ivar host: the agent's name in the registry.
    @ivar result: L{ACKNOWLEDGED}, L{NOT_SUPPORTED}, or what went wrong.
    """

    host: str
    result: str

    @property
    def ok(self) -> bool:
        """
        Whether there is nothing to try again.
        """
        return self.result in (ACKNOWLEDGED, NOT_SUPPORTED)


@attrs.frozen
class Push:
    """
    What became of telling agents what is revoked.

    @ivar number: the list's; 0 where nothing is revoked.
    @ivar rows: one for each agent that had not acknowledged it, by name.
    @ivar error: why nobody could be told; C{None} where they could.
    """

    number: int = 0
    rows: tuple[PushRow, ...] = ()
    error: str | None = None

    @property
    def ok(self) -> bool:
        """
        Whether there is nothing to try again.
        """
        return self.error is None and all(row.ok for row in self.rows)


@attrs.frozen
class Revoked:
    """
    Certificates that count no more.

    @ivar agent: whose they were; empty where that is not known.
    @ivar serials: canonical, in order.
    @ivar new: how many of them were not revoked before.
    """

    agent: str
    serials: tuple[str, ...]
    new: int
    push: Push


async def revoke(ours: Dispatcher, caller: Caller, what: str, reason: str) -> Revoked:
    """
    Revoke all certificates that an agent may have, or one certificate.

    From here on no process of this dispatcher speaks to their holders, whether
    or not anybody else can be told.

    @param what: the name of an agent, or else a serial. One of digits only can
        be hex or decimal: both readings are revoked.
    @raise NotFound: it is neither; or nobody knows the agent's serial.
    @raise Conflict: it is the certificate of this dispatcher.
    @raise StoreError: nothing is revoked.
    """
    reason = reason[:REASON_CHARACTERS]
    found = await ours.process.in_thread(_registered, ours, what)
    if found is None:
        agent, serials = "", _serials(what)
    else:
        agent = found.hostname
        serials = found.serials
        if not found.cert_serial:
            serials |= {await _shown(ours, found)}
    _check_not_ours(ours, serials)
    now = ours.process.now()
    owners = await ours.process.in_thread(_owners, ours, serials)
    entries = [
        Entry(
            each, agent or owners.get(each, ""), reason, iso_time(now), caller.username
        )
        for each in sorted(serials)
    ]
    store = FileRevocations(ours.settings.revocations_dir)
    _, new = await ours.process.in_thread(store.add, entries, now)
    for each in entries:
        ours.events.emit(
            RevokedEvent(each.serial, each.user, reason or None, each.agent or None)
        )
    await ours.process.in_thread(_mark, ours, agent, serials)
    whose = agent or next(iter(owners.values()), "")
    return Revoked(whose, tuple(sorted(serials)), new, await _pushed(ours))


async def push(ours: Dispatcher) -> Push:
    """
    Tell what is revoked to every agent that has not acknowledged it. For
    whoever looks after things from time to time, too.

    @raise CtrlExecError: nobody could be told.
    """
    listed, waiting = await ours.process.in_thread(_waiting, ours)
    if not waiting:
        return Push(listed.number)
    found = await ours.process.in_thread(_signed, ours, listed)
    agents = ours.agents(ours.process.reactor)

    async def tell(target: Target | Unknown) -> PushRow:
        row = await _told(agents, target, found)
        number = listed.number
        if row.result == ACKNOWLEDGED:
            ours.events.emit(RevocationsPushed(row.host, number))
            await ours.process.in_thread(_note, ours, row.host, number)
        elif row.result != NOT_SUPPORTED:
            ours.events.emit(RevocationsNotPushed(row.host, number, row.result))
        return row

    rows = await fan_out(
        targets(
            ours.stores.registry,
            [HostPort(name) for name in waiting],
            connect_unregistered=False,
        ),
        tell,
        limit=ours.settings.max_parallel,
        wanted=lambda: True,
        asked=lambda target: None,
        arrived=lambda row: None,
    )
    return Push(listed.number, tuple(sorted(rows, key=lambda row: row.host)))


async def _pushed(ours: Dispatcher) -> Push:
    """
    What is revoked stays so, whatever becomes of telling it.
    """
    try:
        return await push(ours)
    except CtrlExecError as error:
        return Push(error=str(error))


async def _told(
    agents: Revocable, target: Target | Unknown, found: SignedRevocations
) -> PushRow:
    number = found.revocations.number
    if isinstance(target, Unknown):
        return PushRow(target.name, target.error)
    try:
        match await agents.revocations(target, found):
            case NotAcknowledged(error, held) if held != number:
                return PushRow(target.name, error)
    except CancelledError:
        raise
    except NoSuchRequest:
        return PushRow(target.name, NOT_SUPPORTED)
    except CtrlExecError as error:
        return PushRow(target.name, str(error))
    except Exception as error:
        # A fault of our own must not keep the other agents from being told.
        return PushRow(target.name, f"internal error: {error!r}")
    return PushRow(target.name, ACKNOWLEDGED)


# --- which certificates --------------------------------------------------


def _registered(ours: Dispatcher, what: str) -> AgentRecord | None:
    """
    The agent of a name, which goes before a serial that reads the same.
    """
    try:
        return ours.stores.registry.get(agent_name(what))
    except (NotFound, InvalidValue):
        return None


def _serials(what: str) -> frozenset[str]:
    try:
        return revoked_serials(what)
    except InvalidValue:
        raise NotFound(
            f"{abbreviated(what)} is neither an agent nor a serial",
            hint="ctrl-exec list-agents shows the agents that are paired",
        ) from None


async def _shown(ours: Dispatcher, record: AgentRecord) -> str:
    """
    Ask an agent whose serial nobody has written down.
    """
    (target,) = targets(
        ours.stores.registry, [HostPort(record.hostname)], connect_unregistered=False
    )
    try:
        if isinstance(target, Unknown):
            raise NotFound(target.error)
        serial: str = await ours.agents(ours.process.reactor).serial(target)
        return serial
    except CtrlExecError as error:
        raise NotFound(
            f"nobody has written down the serial of {record.hostname}, and it can "
            f"not be asked: {error}",
            hint="ctrl-exec revoke SERIAL, once you know it: openssl x509 -serial "
            "shows that of a certificate",
        ) from error


def _check_not_ours(ours: Dispatcher, serials: frozenset[str]) -> None:
    authority = Authority(ours.settings)
    with suppress(PkiError):
        if authority.dispatcher_serial() in serials:
            raise Conflict(
                "that is the certificate of this dispatcher, which could speak to "
                "nobody any more",
                hint="replace it first: ctrl-exec rotate-cert",
            )
    with suppress(PkiError):
        if read_certificate(authority.ca_certificate()).serial in serials:
            raise Conflict("that is the certificate of the CA")


def _owners(ours: Dispatcher, serials: frozenset[str]) -> dict[str, str]:
    return {
        serial: record.hostname
        for record in ours.stores.registry.records()[0]
        for serial in record.serials & serials
    }


def _mark(ours: Dispatcher, agent: str, serials: frozenset[str]) -> None:
    """
    Write down in the registry whose certificate is revoked. Where that is a
    former one the agent has a better one, and is spoken to.
    """
    when = iso_time(ours.process.now())

    def marked(record: AgentRecord) -> AgentRecord:
        if record.revoked:
            return record
        return attrs.evolve(record, revoked=when)

    registry = ours.stores.registry
    for record in registry.records()[0]:
        if record.hostname == agent or record.cert_serial in serials:
            # Somebody may have forgotten the agent in between.
            with suppress(NotFound):
                registry.change(record.hostname, marked)


# --- telling agents ------------------------------------------------------


def _waiting(ours: Dispatcher) -> tuple[Listed, list[str]]:
    """
    What is revoked, and who has not acknowledged it.
    """
    listed = FileRevocations(ours.settings.revocations_dir).listed()
    records = ours.stores.registry.records()[0] if listed.number else ()
    return listed, [
        record.hostname
        for record in records
        if not record.revoked and record.revocations != listed.number
    ]


def _signed(ours: Dispatcher, listed: Listed) -> SignedRevocations:
    """
    Signed by the CA where we have its key: what a dispatcher signs can revoke no
    other dispatcher.
    """
    authority, settings = Authority(ours.settings), ours.settings
    revocations = Revocations(
        authority.dispatcher_id(), listed.number, listed.issued, listed.serials
    )
    if authority.can_sign():
        return signed(revocations, authority.ca_private_key())
    credentials = Identity(settings.key, settings.cert, settings.ca).load()
    return signed(revocations, credentials.key, credentials.cert.decode())


def _note(ours: Dispatcher, name: str, number: int) -> None:
    # Who is not noted is told again.
    with suppress(NotFound, StoreError):
        ours.stores.registry.change(
            name, lambda record: attrs.evolve(record, revocations=number)
        )
