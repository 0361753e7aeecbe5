# SPDX-License-Identifier: AGPL-3.0-only
"""
Connections to an agent, without their bytes.
"""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from ctrlexec.certificates import CertificateInfo
from ctrlexec.protocol.exchange import Peer, Visit
from tests.agents import PEER, ResourceTestCase

OTHER = "2001:db8::7"
#: Ten and three are the defaults.
VOLUME, PROBES = 10, 3


class GateTestCase(ResourceTestCase):
    """
    An agent, and those who connect to it.
    """

    def setUp(self) -> None:
        super().setUp()
        self.told_to_go: list[Visit] = []

    def settle(self, **changes: Any) -> None:
        """
        Put other settings in force.
        """
        settings = attrs.evolve(self.agent.policy.settings, **changes)
        self.evolve(settings=settings)

    def knocks(self, address: str = PEER) -> Visit | None:
        """
        A connection that does not go on to its handshake, unless it was turned
        away.
        """
        if not self.agent.admits(address):
            return None
        visit = Visit(address, lambda: self.told_to_go.append(visit))
        self.agent.arrived(visit)
        return visit

    def knocks_often(self, count: int, address: str = PEER) -> list[bool]:
        """
        So many of them.

        @return: which were let in.
        """
        return [self.knocks(address) is not None for _ in range(count)]

    def fails(self, address: str = PEER) -> bool:
        """
        A connection whose handshake fails.

        @return: whether it got as far as that.
        """
        visit = self.knocks(address)
        if visit is not None:
            self.agent.handshake_failed(visit, Failure(ConnectionLost()))
        return visit is not None

    def comes(self, certificate: CertificateInfo, address: str = PEER) -> Visit | None:
        """
        A connection whose handshake is done, unless it was turned away.
        """
        visit = self.knocks(address)
        if visit is not None:
            self.agent.admit(Peer(address, certificate), visit)
        return visit

    def visits(self, certificate: CertificateInfo, address: str = PEER) -> bool:
        """
        Come, and go again.
        """
        visit = self.comes(certificate, address)
        if visit is not None:
            self.agent.ended(visit)
        return visit is not None

    def logged(self, action: str) -> list[str]:
        """
        What was logged of one kind since the last time.
        """
        prefix = f"ACTION={action} "
        return [
            line.removeprefix(prefix)
            for line in self.log.taken()
            if line.startswith(prefix)
        ]
