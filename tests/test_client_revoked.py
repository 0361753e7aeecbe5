# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.protocol.client}: agents whose certificate is revoked.
"""

from __future__ import annotations

from pathlib import Path

import attrs
from twisted.internet.defer import Deferred

from ctrlexec.errors import StoreError, TransportError
from ctrlexec.pki import AgentRole
from ctrlexec.protocol.pool import Pool
from ctrlexec.tls import mutual_server
from tests.edges import Host
from tests.wired import AGENT, credentials
from tests.wires import PING, PONG, TARGET, ClientTestCase, http


class RefusedTests(ClientTestCase):
    """
    Connections to an agent that is revoked, over real TLS in memory
    """

    def test_handshake(self) -> None:
        """
        It is not asked anything, whatever the registry says of it.
        """
        agent = self.network.scripted(http(PONG))
        client = self.network.client(revoked=lambda: frozenset({AGENT.info.serial}))
        asked = self.network.ask(client.ping(TARGET, PING))
        self.assertFails(asked, TransportError, "certificate revoked")
        self.assertEqual(agent.received, b"")
        assert agent.lost is not None

    def test_unregistered(self) -> None:
        """
        Nor where it is no agent of the registry.
        """
        agent = self.network.scripted(http(PONG))
        client = self.network.client(revoked=lambda: frozenset({AGENT.info.serial}))
        target = attrs.evolve(TARGET, registered=False)
        asked = self.network.ask(client.ping(target, PING))
        self.assertFails(asked, TransportError, "certificate revoked")
        self.assertEqual(agent.received, b"")

    def test_pooled(self) -> None:
        """
        A connection that waits is closed, and not asked again.
        """
        revoked: set[str] = set()
        pool, host = Pool(self.reactor), Host(answers=[(200, PONG)] * 2)
        self.network.hosted(host)
        client = self.network.client(pool=pool, revoked=lambda: frozenset(revoked))
        self.successResultOf(self.network.ask(client.ping(TARGET, PING)))
        revoked.add(AGENT.info.serial)
        asked = Deferred.fromCoroutine(client.ping(TARGET, PING))
        self.network.flush()
        self.assertFails(asked, TransportError, "certificate revoked")
        self.assertEqual((len(host.asked), len(host.gone)), (1, 1))
        self.assertIsNone(pool.take(TARGET))

    def test_unknown(self) -> None:
        """
        Where nobody knows what is revoked, nobody is asked anything.
        """
        agent = self.network.scripted(http(PONG))

        def unreadable() -> frozenset[str]:
            raise StoreError(Path("list.json"), "is cut off")

        client = self.network.client(revoked=unreadable)
        asked = self.network.ask(client.ping(TARGET, PING))
        self.failureResultOf(asked, StoreError)
        self.assertEqual(agent.received, b"")
        self.network.flush()

    def test_serial(self) -> None:
        """
        The serial that an agent shows is learned from the agent that is meant,
        and from no other.
        """
        self.network.scripted(http(PONG))
        asked = self.network.ask(self.network.client().serial(TARGET))
        self.assertEqual(self.successResultOf(asked), AGENT.info.serial)
        self.setUp()
        self.network.scripted(tls=mutual_server(credentials(AgentRole("agent-two"))))
        asked = self.network.ask(self.network.client().serial(TARGET))
        self.failureResultOf(asked, TransportError)
        self.network.flush()
