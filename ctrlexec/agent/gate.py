# SPDX-License-Identifier: AGPL-3.0-only
"""
The gate of an agent: every connection passes it, first before its handshake and
then with the certificate that it has shown.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import attrs
from twisted.python.failure import Failure

from ctrlexec.agent.admission import Announcements, Full, Occupancy, Room
from ctrlexec.agent.policy import Policy
from ctrlexec.agent.settings import AgentSettings
from ctrlexec.agent.trust import Trusted
from ctrlexec.events import AddressBlocked, CertificateRevoked, Overloaded, TlsFailed
from ctrlexec.interfaces import IEventSink
from ctrlexec.protocol.exchange import Peer, Visit, handshake_fault
from ctrlexec.protocol.messages import REVOKED, Refused
from ctrlexec.rates import PROBE, VOLUME, RateLimits, source_of

EXPIRED = Refused(403, "certificate expired")
#: What the log says of a handshake that took longer than there was room for it.
GAVE_WAY = "gave way to a newer connection"


@attrs.define(eq=False)
class Gate:
    """
    Lets connections in, and remembers whose were none of a trusted dispatcher's.

    Where all places are taken, the oldest connection that has not proved to be
    a trusted dispatcher's is ended for a new one. So half-open connections, and
    certificates that are good for nothing, keep nobody out.

    @ivar seconds: tells the time, of a clock that nobody sets.
    """

    events: IEventSink
    seconds: Callable[[], float]
    _limits: RateLimits = attrs.field(init=False)
    _strangers: Announcements = attrs.field(factory=Announcements, init=False)
    _occupancy: Occupancy[Visit] = attrs.field(factory=Occupancy, init=False)
    _peers: dict[Visit, Peer] = attrs.field(factory=dict, init=False)

    @_limits.default
    def _nothing_counted(self) -> RateLimits:
        return RateLimits(self.events, self.seconds)

    @property
    def live(self) -> int:
        """
        How many connections are within.
        """
        return self._occupancy.live

    def admits(self, address: str, policy: Policy) -> bool:
        """
        Whether a connection may go on to its handshake. The cheapest question
        comes first, and whoever is turned away leaves no trace but in the log.
        """
        settings = policy.settings
        if not policy.admits(address):
            if self._strangers.due(source_of(address), self.seconds()):
                self.events.emit(AddressBlocked(address))
            return False
        if not settings.rate_limit_disable and self._limits.blocked(address):
            return False
        if settings.rate_limit_trusted and self._blocks(address, VOLUME, settings):
            return False
        return self._has_room(address, settings.max_connections)

    def arrived(self, visit: Visit) -> None:
        """
        A connection that L{admits} let in begins. It must be ended by L{failed}
        or by L{ended}, and by one of them only.
        """
        self._occupancy.enter(visit, source_of(visit.address))

    def identified(
        self, peer: Peer, visit: Visit, policy: Policy, now: datetime
    ) -> Refused | None:
        """
        A connection has shown a certificate of the CA. Only that of a trusted
        dispatcher proves anything.

        @return: the refusal of one that is revoked.
        """
        self._peers[visit] = peer
        refused = self._revoked(peer, policy)
        if _is_trusted(peer, policy, now):
            self._occupancy.prove(visit)
        elif not policy.settings.rate_limit_trusted:
            self._blocks(peer.address, VOLUME, policy.settings)
        return refused

    def refusal(self, peer: Peer, policy: Policy, now: datetime) -> Refused | None:
        """
        @return: why a request is not even looked at: its certificate was good
            when the connection began, and is no longer.
        """
        refused = self._revoked(peer, policy)
        if refused or not _past(peer, now):
            return refused
        # OpenSSL looks at the date once, when the session begins.
        self.events.emit(TlsFailed(peer.address, EXPIRED.error))
        return EXPIRED

    def may_stay(self, peer: Peer, visit: Visit, policy: Policy, now: datetime) -> bool:
        """
        Whether a connection may ask once more: whoever is no trusted dispatcher,
        or no longer one, would keep a place for ever by asking in vain.
        """
        return self._occupancy.proven(visit) and _is_trusted(peer, policy, now)

    def failed(self, visit: Visit, reason: Failure, settings: AgentSettings) -> None:
        """
        A connection is over that never got through its handshake. That it was
        ended to make room is not the same as to fail, but still no visit of a
        trusted dispatcher.
        """
        address = visit.address
        stayed = self._occupancy.leave(visit)
        fault = handshake_fault(reason) if stayed else GAVE_WAY
        self.events.emit(TlsFailed(address, fault))
        blocks = stayed and self._blocks(address, PROBE, settings)
        if not blocks and not settings.rate_limit_trusted:
            self._blocks(address, VOLUME, settings)

    def ended(self, visit: Visit) -> None:
        """
        A connection is over that got through its handshake.
        """
        self._peers.pop(visit, None)
        self._occupancy.leave(visit)

    def cut(self, policy: Policy) -> None:
        """
        End the connections whose certificate is revoked now. Their runs go on.
        """
        for visit, peer in tuple(self._peers.items()):
            if self._revoked(peer, policy):
                visit.end()

    def forget(self) -> None:
        """
        Forget what addresses did, of good and bad; the connections stay counted.
        """
        self._limits.forget()
        self._strangers.clear()
        self._occupancy.forget()

    def _has_room(self, address: str, most: int) -> bool:
        live = self.live
        found = self._occupancy.room(source_of(address), most)
        if found.news:
            self.events.emit(Overloaded(address, live))
        match found:
            case Room(leaver):
                if leaver is not None:
                    leaver.end()
                return True
            case Full():
                return False

    def _revoked(self, peer: Peer, policy: Policy) -> Refused | None:
        if not policy.is_revoked(peer.certificate):
            return None
        serial = peer.certificate.serial if peer.certificate else ""
        self.events.emit(CertificateRevoked(peer.address, serial))
        return REVOKED

    def _blocks(self, address: str, what: str, settings: AgentSettings) -> bool:
        """
        Count something, unless nothing is to be counted.

        @return: whether it was once too often.
        """
        if settings.rate_limit_disable:
            return False
        rate = {
            VOLUME: settings.rate_limit_volume,
            PROBE: settings.rate_limit_probe,
        }[what]
        return self._limits.too_often(address, what, rate)


def _is_trusted(peer: Peer, policy: Policy, now: datetime) -> bool:
    """
    Whether a trusted dispatcher's certificate is as good as it was.
    """
    if policy.is_revoked(peer.certificate) or _past(peer, now):
        return False
    return isinstance(policy.trusted.decide(peer.certificate), Trusted)


def _past(peer: Peer, now: datetime) -> bool:
    return peer.certificate is not None and now > peer.certificate.not_after
