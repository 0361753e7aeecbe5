# SPDX-License-Identifier: AGPL-3.0-only
"""
The gate of an agent: every connection passes it, first before its handshake and
then with the certificate that it has shown.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from ipaddress import IPv6Address, ip_address, ip_network

import attrs
from twisted.python.failure import Failure

from ctrlexec.agent.admission import (
    PROBE,
    VOLUME,
    Announcements,
    Counted,
    Full,
    Occupancy,
    Opened,
    RateLimiter,
)
from ctrlexec.agent.policy import Policy
from ctrlexec.agent.settings import AgentSettings
from ctrlexec.agent.trust import Trusted
from ctrlexec.events import (
    AddressBlocked,
    CertificateRevoked,
    Overloaded,
    RateBlocked,
    RateEvicted,
    TlsFailed,
)
from ctrlexec.interfaces import IEventSink
from ctrlexec.protocol.exchange import Peer
from ctrlexec.protocol.messages import REVOKED, Refused

EXPIRED = Refused(403, "certificate expired")


@attrs.define(eq=False)
class Gate:
    """
    Lets connections in, and remembers whose were none of a trusted dispatcher's.

    Each connection that it let in must be ended by L{failed} or by L{ended},
    and by one of them only.

    @ivar seconds: tells the time, of a clock that nobody sets.
    """

    events: IEventSink
    seconds: Callable[[], float]
    _limiter: RateLimiter = attrs.field(factory=RateLimiter, init=False)
    _strangers: Announcements = attrs.field(factory=Announcements, init=False)
    _occupancy: Occupancy = attrs.field(factory=Occupancy, init=False)
    _proven: set[Peer] = attrs.field(factory=set, init=False)

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
        settings, now = policy.settings, self.seconds()
        if not policy.admits(address):
            if self._strangers.due(source_of(address), now):
                self.events.emit(AddressBlocked(address))
            return False
        if not settings.rate_limit_disable and self._limiter.blocked(
            source_of(address), now
        ):
            return False
        if settings.rate_limit_trusted and self._blocks(address, VOLUME, settings):
            return False
        match self._occupancy.open(source_of(address), settings.max_connections):
            case Opened():
                return True
            case Full(live, news):
                if news:
                    self.events.emit(Overloaded(address, live))
                return False

    def identified(self, peer: Peer, policy: Policy, now: datetime) -> Refused | None:
        """
        A connection has shown a certificate of the CA. Only that of a trusted
        dispatcher proves anything.

        @return: the refusal of one that is revoked.
        """
        refused = self._revoked(peer, policy)
        trust = policy.trusted.decide(peer.certificate)
        if isinstance(trust, Trusted) and not refused and not _past(peer, now):
            self._proven.add(peer)
            self._occupancy.prove(source_of(peer.address))
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

    def failed(self, address: str, reason: Failure, settings: AgentSettings) -> None:
        """
        A connection is over that never got through its handshake.
        """
        self.events.emit(TlsFailed(address, _tls_reason(reason)))
        self._occupancy.close(source_of(address), proven=False)
        blocks = self._blocks(address, PROBE, settings)
        if not blocks and not settings.rate_limit_trusted:
            self._blocks(address, VOLUME, settings)

    def ended(self, peer: Peer) -> None:
        """
        A connection is over that got through its handshake.
        """
        self._occupancy.close(source_of(peer.address), proven=peer in self._proven)
        self._proven.discard(peer)

    def forget(self) -> None:
        """
        Forget what addresses did; the connections stay counted.
        """
        self._limiter.clear()
        self._strangers.clear()

    def _revoked(self, peer: Peer, policy: Policy) -> Refused | None:
        serial = peer.certificate.serial if peer.certificate else ""
        if serial and serial not in policy.revoked:
            return None
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
        match self._limiter.count(source_of(address), what, rate, self.seconds()):
            case Counted(blocks, evicted):
                if evicted:
                    self.events.emit(RateEvicted(evicted))
                if blocks:
                    self.events.emit(RateBlocked(address, what))
                return blocks


def source_of(address: str) -> str:
    """
    Whose doings are counted together: an IPv4 address by itself, and the whole
    /64 of an IPv6 address, since one host can have any of it.
    """
    try:
        source = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(source, IPv6Address):
        return str(ip_network((source, 64), strict=False))
    return str(source)


def _past(peer: Peer, now: datetime) -> bool:
    return peer.certificate is not None and now > peer.certificate.not_after


def _tls_reason(reason: Failure) -> str:
    """
    OpenSSL's errors are lists of (library, function, reason).
    """
    match getattr(reason.value, "args", ()):
        case [[(_, _, _), *_] as errors]:
            return "; ".join(str(entry[-1]) for entry in errors)
    return reason.getErrorMessage() or type(reason.value).__name__
