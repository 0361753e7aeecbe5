# SPDX-License-Identifier: AGPL-3.0-only
"""
Who may go on to a handshake on the pairing port: decided on the bare socket,
before it costs anything (NEWER-LINE.md section 5).
"""

from __future__ import annotations

import attrs

from ctrlexec.dispatcher.settings import DispatcherSettings
from ctrlexec.events import PairRejected
from ctrlexec.interfaces import IEventSink
from ctrlexec.rates import VOLUME, RateLimits

#: How many may be connected who do not wait for a decision.
STRANGERS = 54


@attrs.frozen(eq=False)
class PairingGate:
    """
    Lets connections in. Nobody can prove anything on this port, so all of them
    count.

    That an address is blocked is the same line of the log as an agent's,
    C{rate-block}, for whoever watches both; C{pair-reject} stays what it is, one
    connection that was refused.
    """

    settings: DispatcherSettings
    events: IEventSink
    limits: RateLimits

    def admits(self, address: str, connections: int) -> bool:
        """
        Whether a connection may go on to its handshake. An address that is
        blocked leaves no trace, not even in the log.

        @param connections: how many there are.
        """
        if not self.settings.pairing_rate_limit_disable:
            rate = self.settings.pairing_rate_limit_volume
            if self.limits.blocked(address):
                return False
            if self.limits.too_often(address, VOLUME, rate):
                return False
        if connections < self.settings.pairing_max_queue + STRANGERS:
            return True
        self.events.emit(PairRejected(address, "too many connections"))
        return False
