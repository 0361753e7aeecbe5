# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.gate} on connections: an agent with all its places
taken, by those who want no other to have one.
"""

from __future__ import annotations

import attrs
from OpenSSL.crypto import X509
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from ctrlexec.agent.admission import LEAVING_AT_ONCE
from ctrlexec.agent.trust import TrustedMap
from ctrlexec.certificates import AgentRole, DispatcherRole, Role
from ctrlexec.pki import parse_certificate
from ctrlexec.protocol import limits
from ctrlexec.protocol.listening import GuardedFactory
from ctrlexec.protocol.server import LINGER_SECONDS, ServerFactory
from tests.agents import ResourceTestCase
from tests.authority import issued
from tests.edges import EdgeTransport, kept, responses

MOST = 256
PING = kept("POST", "/ping", b"{}")
TRUSTED = "192.0.2.1"


@attrs.define(eq=False)
class Client:
    """
    The other end of a connection, which knows when ours is gone.
    """

    protocol: Protocol
    transport: EdgeTransport
    gone: bool = False

    def asks(self, message: bytes = PING) -> None:
        """
        Send a request.
        """
        self.protocol.dataReceived(message)

    def leaves(self) -> None:
        """
        Close, unless the agent has.
        """
        if not self.gone:
            self.gone = True
            self.protocol.connectionLost(Failure(ConnectionDone()))

    @property
    def answers(self) -> list[int]:
        """
        The statuses of what was answered.
        """
        return [code for code, _ in responses(self.transport.value())]


class CrowdedTestCase(ResourceTestCase):
    """
    An agent behind its port, without the port.
    """

    def setUp(self) -> None:
        super().setUp()
        self.evolve(trusted=TrustedMap({"0": "hq"}))
        self.clients: list[Client] = []
        self.factory = ServerFactory(self.clock, self.agent, body_bytes=1000)
        self.port = GuardedFactory(self.factory, self.agent.admits)
        self.addCleanup(self.all_leave)

    def all_leave(self) -> None:
        """
        Nothing is left of anybody who has gone.
        """
        for client in self.clients:
            client.leaves()
        self.assertEqual(self.in_force.gate.live, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def connects(
        self, address: str, role: Role | None = None, *, turn: bool = True
    ) -> Client | None:
        """
        Somebody connects, unless it was turned away.

        @param role: of the certificate that is shown; without one the handshake
            goes on for ever.
        @param turn: let the reactor go on after that.
        """
        peer = IPv4Address("TCP", address, 999)
        protocol = self.port.buildProtocol(peer)
        if protocol is None:
            return None
        client = Client(protocol, EdgeTransport(peerAddress=peer))
        self.clients.append(client)
        protocol.makeConnection(client.transport)
        if role is not None:
            shown = X509.from_cryptography(parse_certificate(CERTIFICATES[role]))
            client.transport.certificate = shown
            protocol.handshakeCompleted()
        if turn:
            self.turn()
        return client

    def turn(self) -> None:
        """
        The reactor comes to the connections that were aborted.
        """
        for client in self.clients:
            if client.transport.aborted and not client.gone:
                client.gone = True
                client.protocol.connectionLost(Failure(ConnectionAborted()))

    def holding(self, address: str, role: Role | None = None) -> int:
        """
        Connect as often as can be, and keep all of it.

        @return: how often that was.
        """
        count = 0
        while self.connects(address, role) is not None:
            count += 1
        return count

    def assertServed(self, client: Client | None) -> Client:
        """
        A trusted dispatcher was let in, and has an answer.
        """
        assert client is not None
        client.asks()
        self.assertEqual(client.answers[-1], 200)
        return client


HQ, SIBLING = DispatcherRole("hq"), AgentRole("agent-two")
CERTIFICATES: dict[Role, bytes] = {role: issued(role) for role in (HQ, SIBLING)}


class HalfOpenTests(CrowdedTestCase):
    """
    Connections that come as far as their handshake, and no further.
    """

    def test_fourAddresses(self) -> None:
        """
        Four addresses can have all places. A trusted dispatcher gets in all the
        same, as often as it likes, and is never ended for those who come after
        it: not while it is quiet, nor while its handshake goes on.
        """
        attackers = [f"10.0.0.{number}" for number in range(1, 5)]
        self.assertEqual([self.holding(each) for each in attackers], [MOST // 4] * 4)
        self.assertEqual(self.in_force.gate.live, MOST)
        trusted = [self.assertServed(self.connects(TRUSTED, HQ))]
        shaking = self.connects(TRUSTED)
        assert shaking is not None
        for _ in range(50):
            trusted.append(self.assertServed(self.connects(TRUSTED, HQ)))
            for attacker in attackers:
                self.holding(attacker)
        self.assertEqual([each.gone for each in (*trusted, shaking)], [False] * 52)
        for client in trusted:
            self.assertServed(client)

    def test_manyAddresses(self) -> None:
        """
        The same with a thousand addresses, each with a connection at once
        wherever one is free.
        """
        trusted = self.assertServed(self.connects(TRUSTED, HQ))
        for number in range(1000):
            self.connects(f"10.{number // 250}.0.{number % 250}")
            if number % 10 == 0:
                self.assertServed(self.connects(TRUSTED, HQ)).leaves()
        self.assertFalse(trusted.gone)
        self.assertEqual(self.in_force.gate.live, MOST)

    def test_inOneTurn(self) -> None:
        """
        A thousand that come in one turn of the reactor do not have it hold many
        more connections than it should, and a dispatcher that was there before
        comes in between.
        """
        self.assertServed(self.connects(TRUSTED, HQ))
        for number in range(1000):
            self.connects(f"10.{number // 250}.0.{number % 250}", turn=False)
        open_now = [client for client in self.clients if not client.gone]
        self.assertEqual(len(open_now), MOST + LEAVING_AT_ONCE)
        self.assertServed(self.connects(TRUSTED, HQ, turn=False))
        self.turn()
        self.assertEqual(self.in_force.gate.live, MOST)
        self.assertIsNotNone(self.connects("10.9.0.1"))

    def test_allTrusted(self) -> None:
        """
        Where trusted dispatchers have all places, nobody else gets one, and no
        trusted one more.
        """
        self.assertEqual(self.holding(TRUSTED, HQ), MOST)
        self.assertIsNone(self.connects("10.0.0.1"))
        self.assertIsNone(self.connects("192.0.2.2", HQ))
        self.assertEqual([client.gone for client in self.clients], [False] * MOST)

    def test_notForLong(self) -> None:
        """
        Who waits is cut off in time, and is then blocked.
        """
        self.holding("10.0.0.1")
        self.clock.advance(limits.HEADER_SECONDS)
        self.turn()
        self.assertEqual(self.in_force.gate.live, 0)
        self.assertIsNone(self.connects("10.0.0.1"))


class UntrustedTests(CrowdedTestCase):
    """
    Connections with a certificate of the CA that is not trusted.
    """

    def test_giveWay(self) -> None:
        """
        They give way as those without one do.
        """
        self.settle_volume()
        for number in range(1, 5):
            self.assertEqual(self.holding(f"10.0.0.{number}", SIBLING), MOST // 4)
        trusted = [self.assertServed(self.connects(TRUSTED, HQ)) for _ in range(50)]
        self.assertEqual([each.gone for each in trusted], [False] * 50)
        self.assertEqual(sum(client.gone for client in self.clients), 50)

    def settle_volume(self) -> None:
        """
        Limit nothing but the places.
        """
        settings = attrs.evolve(self.agent.policy.settings, rate_limit_disable=True)
        self.evolve(settings=settings)

    def test_once(self) -> None:
        """
        They have one answer, however many requests they send at once, and then
        they are closed: nobody keeps a place by asking in vain.
        """
        client = self.connects("10.0.0.1", SIBLING)
        assert client is not None
        client.asks(3 * PING)
        self.assertEqual(client.answers, [403])
        self.assertIn(b"Connection: close\r\n", client.transport.value())
        self.assertTrue(client.transport.disconnecting)
        self.clock.advance(LINGER_SECONDS)
        self.turn()
        self.assertTrue(client.gone)

    def test_atMost(self) -> None:
        """
        The longest that they can stay is a bit more than a request may take.
        """
        client = self.connects("10.0.0.1", SIBLING)
        assert client is not None
        head = b"POST /ping HTTP/1.1\r\nContent-Length: 9\r\n\r\n"
        self.clock.advance(limits.HEADER_SECONDS - 0.1)
        client.asks(head)
        self.clock.advance(limits.BODY_SECONDS - 0.1)
        client.asks(b"x" * 9)
        self.clock.advance(LINGER_SECONDS)
        self.turn()
        self.assertEqual((client.answers, client.gone), ([403], True))

    def test_trustedNoLonger(self) -> None:
        """
        A dispatcher that is trusted no longer has one answer that says so.
        """
        client = self.assertServed(self.connects(TRUSTED, HQ))
        client.asks()
        self.assertFalse(client.transport.disconnecting)
        self.evolve(trusted=TrustedMap({"1": "lab"}))
        client.asks(2 * PING)
        self.assertEqual(client.answers, [200, 200, 403])
        self.assertTrue(client.transport.disconnecting)
