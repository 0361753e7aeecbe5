# SPDX-License-Identifier: AGPL-3.0-only
"""
What a dispatcher looks after from time to time, whoever orders it: that no
certificate ends before it is renewed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from twisted.internet.defer import CancelledError

from ctrlexec.dispatcher.authority import Authority
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.registry import Unknown, is_revoked, targets
from ctrlexec.dispatcher.renewal import Renewable, Renewed, Renewing, is_due
from ctrlexec.dispatcher.results import PingRow
from ctrlexec.dispatcher.revoking import push
from ctrlexec.dispatcher.rotation import Rotating
from ctrlexec.errors import (
    CtrlExecError,
    InvalidValue,
    NotFound,
    PkiError,
    abbreviated,
)
from ctrlexec.events import MaintenanceDone, MaintenanceFailed
from ctrlexec.values import HostPort, Target, from_openssl_time

if TYPE_CHECKING:
    from datetime import datetime

    from ctrlexec.dispatcher.operations import Dispatcher


@attrs.frozen
class Unwatched:
    """
    A L{Watcher<ctrlexec.dispatcher.results.Watcher>} where nobody looks on.
    """

    def planned(self, hosts: int, reqid: str = "") -> None:
        """
        See L{ctrlexec.dispatcher.results.Watcher}, as for the others.
        """

    def wanted(self) -> bool:
        """
        All are.
        """
        return True

    def asked(self, host: str) -> None:
        """
        Nobody is told.
        """

    def arrived(self, row: object) -> None:
        """
        Nobody is told.
        """

    def heard(self, host: str, event: object) -> None:
        """
        Nobody is told.
        """


def renewing(ours: Dispatcher, agents: Renewable) -> Renewing:
    """
    What renews agents for a dispatcher.
    """
    return Renewing(
        agents,
        Authority(ours.settings),
        ours.stores.registry,
        ours.events,
        ours.process.now,
        ours.process.in_thread,
    )


@attrs.frozen
class Renewals:
    """
    Renews agents that are pinged, where that is due, and remembers how it went.

    @ivar next_end: when a certificate would end that is issued now.
    @ivar done: those that were renewed.
    @ivar failed: what went wrong with the others, one sentence each.
    """

    renewing: Renewing
    next_end: datetime
    done: list[Renewed] = attrs.field(factory=list)
    failed: list[str] = attrs.field(factory=list)

    @classmethod
    def of(cls, ours: Dispatcher, agents: Renewable) -> Renewals | None:
        """
        @return: C{None} where this process can not sign.
        """
        authority = Authority(ours.settings)
        if not authority.can_sign():
            return None
        try:
            next_end = authority.next_end(ours.process.now())
        except CtrlExecError:
            return None
        return cls(renewing(ours, agents), next_end)

    async def renewed(self, target: Target, row: PingRow) -> PingRow:
        """
        Renew an agent that has answered a ping, if that is due.

        @return: the row, with what is true of the agent now. Whatever happens,
            the ping is what it was.
        """
        now = self.renewing.now()
        if not target.registered or not is_due(row, now, self.next_end):
            return row
        try:
            renewed = await self.renewing.renew(target)
        except CancelledError:
            raise
        except Exception as error:
            # Its line is in the log.
            why = error if isinstance(error, CtrlExecError) else f"{error!r}"
            self.failed.append(f"{target.name}: its certificate is not renewed: {why}")
            return row
        self.done.append(renewed)
        return attrs.evolve(
            row, expiry=renewed.expiry, staged=renewed.staged, renewal_due=False
        )


async def renew(ours: Dispatcher, name: str, *, even_expired: bool) -> Renewed:
    """
    See L{ctrlexec.dispatcher.operations.Dispatcher.renew}.
    """
    (found,) = targets(
        ours.stores.registry, (HostPort.parse(name),), connect_unregistered=False
    )
    if isinstance(found, Unknown):
        raise NotFound(f"{abbreviated(name)}: {found.error}")
    agents = ours.agents(ours.process.reactor)
    if even_expired:
        agents = agents.even_expired(_last_end(ours.stores.registry.get(found.name)))
    return await renewing(ours, agents).renew(found)


def _last_end(record: AgentRecord) -> datetime:
    """
    When the last certificate of an agent ended that we know of.
    """
    try:
        return from_openssl_time(record.expiry)
    except InvalidValue:
        raise PkiError(
            f"nobody has written down when the certificate of {record.hostname} "
            "ended, so an old one could be anybody's",
            hint="pair it again",
        ) from None


@attrs.frozen(kw_only=True)
class Maintained:
    """
    What became of looking after everything.

    @ivar agents: how many there are.
    @ivar pinged: how many of them have answered.
    @ivar renewed: the names of those that have a new certificate.
    @ivar silent: the names of those that have not answered.
    @ivar rotation: how far the rotation of the dispatcher's own certificate is:
        see L{ctrlexec.dispatcher.rotation_state.Stage}.
    @ivar failed: what went wrong, one sentence each. A host that is off is no
        such thing.
    """

    agents: int = 0
    pinged: int = 0
    renewed: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    rotation: str = ""
    failed: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """
        Whether all that could be done is done.
        """
        return not self.failed


async def maintain(ours: Dispatcher, user: str) -> Maintained:
    """
    See L{ctrlexec.dispatcher.operations.Dispatcher.maintain}. What can not be
    done keeps nothing else from being done.

    @param user: who has ordered it.
    """
    if not Authority(ours.settings).can_sign():
        raise PkiError(
            f"{ours.settings.ca_key} can not be read, so nothing can be renewed",
            hint="maintain is for root on the host that has the CA",
        )

    async def rotated(done: Maintained) -> Maintained:
        state = await Rotating(ours, user).advance()
        return attrs.evolve(done, rotation=state.stage.value)

    async def pinged(done: Maintained) -> Maintained:
        return await _ping_everybody(ours, done)

    async def told(done: Maintained) -> Maintained:
        # Whoever is off is told the next time, and is in the log meanwhile.
        await push(ours)
        return done

    done = Maintained()
    # Whoever was not told of the last rotation is now, and can be pinged then.
    for phase, work in (("rotate", rotated), ("ping", pinged), ("revoke", told)):
        try:
            done = await work(done)
        except CancelledError:
            raise
        except Exception as error:
            failure = _failure(ours, phase, error)
            done = attrs.evolve(done, failed=(*done.failed, failure))
    if done.ok:
        ours.events.emit(MaintenanceDone(done.agents, done.pinged))
    return done


async def _ping_everybody(ours: Dispatcher, done: Maintained) -> Maintained:
    from ctrlexec.dispatcher.asking import Asking

    asking = Asking.of(ours)
    renewals = Renewals.of(ours, asking.agents)
    registry = ours.stores.registry
    found = targets(
        registry,
        [HostPort(name) for name in registry.names()],
        connect_unregistered=False,
    )
    plan = [each for each in found if not is_revoked(each)]
    rows = await asking.ping_planned(plan, Unwatched(), renewals)
    return attrs.evolve(
        done,
        agents=len(rows),
        pinged=sum(row.ok for row in rows),
        renewed=tuple(sorted(each.host for each in renewals.done)) if renewals else (),
        silent=tuple(sorted(row.host for row in rows if not row.ok)),
        failed=(*done.failed, *sorted(renewals.failed if renewals else ())),
    )


def _failure(ours: Dispatcher, phase: str, error: Exception) -> str:
    known = isinstance(error, CtrlExecError)
    why = str(error) if known else f"internal error: {error!r}"
    ours.events.emit(MaintenanceFailed(phase, why))
    return f"{phase}: {why}"
