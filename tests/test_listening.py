# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.protocol.listening}.
"""

from __future__ import annotations

import errno
import os
import socket

from twisted.application.service import MultiService
from twisted.internet import reactor as real_reactor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IProtocolFactory, IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ctrlexec.errors import ListenError
from ctrlexec.protocol.listening import (
    BACKLOG,
    ListeningService,
    plain_address,
    tls_endpoint,
)
from ctrlexec.tls import mutual_server
from tests.wired import AGENT


class EndpointTests(SynchronousTestCase):
    """
    L{tls_endpoint}
    """

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.made: list[Protocol] = []

    def make(self) -> Protocol:
        """
        A protocol for a peer that got in.
        """
        self.made.append(Protocol())
        return self.made[-1]

    def listen(
        self, bind: str, *refused: str
    ) -> tuple[int, IProtocolFactory, int, str]:
        """
        Listen, and tell on what.
        """
        endpoint = tls_endpoint(
            self.reactor,
            bind,
            7443,
            mutual_server(AGENT),
            (lambda address: address not in refused) if refused else None,
        )
        verifyObject(IStreamServerEndpoint, endpoint)
        self.successResultOf(endpoint.listen(Factory.forProtocol(self.make)))
        return self.reactor.tcpServers[-1]

    def test_address(self) -> None:
        """
        An address of either family, or all there are.
        """
        everywhere = "::" if os.path.exists("/proc/net/if_inet6") else "0.0.0.0"
        for bind in ("10.0.0.1", "::1", ""):
            port, _, backlog, interface = self.listen(bind)
            self.assertEqual(
                (port, backlog, interface), (7443, BACKLOG, bind or everywhere)
            )

    def test_admits(self) -> None:
        """
        A peer from an address that is not let in costs no handshake; its
        address reads the same whatever family the socket is of.
        """
        _, factory, _, _ = self.listen("::", "10.0.0.7", "2001:db8::7")
        for host in ("::ffff:10.0.0.7", "2001:db8::7"):
            peer = IPv6Address("TCP", host, 999)
            self.assertIsNone(factory.buildProtocol(peer))
        self.assertEqual(self.made, [])
        peer = IPv6Address("TCP", "::ffff:10.0.0.8", 999)
        self.assertIsNotNone(factory.buildProtocol(peer))
        self.assertEqual(len(self.made), 1)

    def test_plainAddress(self) -> None:
        """
        Known answers; a socket that is no network's has no address.
        """
        known = {
            IPv4Address("TCP", "10.0.0.7", 1): "10.0.0.7",
            IPv6Address("TCP", "::ffff:10.0.0.7", 1): "10.0.0.7",
            IPv6Address("TCP", "2001:db8::7", 1): "2001:db8::7",
            UNIXAddress("/run/x"): "",
            None: "",
        }
        for address, expected in known.items():
            self.assertEqual(plain_address(address), expected)


class ServiceTests(SynchronousTestCase):
    """
    L{ListeningService}
    """

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.told: list[int] = []

    def service(self, endpoint: IStreamServerEndpoint, where: str) -> ListeningService:
        """
        A service within another one, as in a daemon.
        """
        service = ListeningService(
            endpoint, Factory.forProtocol(Protocol), where, self.told.append
        )
        service.setServiceParent(MultiService())
        return service

    def test_life(self) -> None:
        """
        The port is open before the service may have lost its privileges, told
        of when it runs, and closed when it stops.
        """
        endpoint = TCP4ServerEndpoint(self.reactor, 7443)
        service = self.service(endpoint, "port 7443")
        service.privilegedStartService()
        self.assertEqual((len(self.reactor.tcpServers), self.told), (1, []))
        service.startService()
        self.assertEqual((self.told, service.running), ([7443], True))
        self.assertIsNone(self.successResultOf(service.stopService()))
        self.assertFalse(service.running)

    def test_stoppedBeforeStarted(self) -> None:
        """
        A service whose port never was open can be stopped.
        """
        service = self.service(TCP4ServerEndpoint(self.reactor, 7443), "port 7443")
        self.assertIsNone(self.successResultOf(service.stopService()))

    def assertNotStarted(self, endpoint: IStreamServerEndpoint, number: int) -> None:
        """
        The service does not start, and says why in one line.
        """
        service = self.service(endpoint, "port 7443")
        with self.assertRaises(ListenError) as caught:
            service.privilegedStartService()
        self.assertEqual(
            str(caught.exception), f"cannot listen on port 7443: {os.strerror(number)}"
        )
        self.assertTrue(caught.exception.hint)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_busy(self) -> None:
        """
        A port that another one has.
        """
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            endpoint = tls_endpoint(
                real_reactor,
                "127.0.0.1",
                port,
                mutual_server(AGENT),
            )
            self.assertNotStarted(endpoint, errno.EADDRINUSE)

    def test_notOurs(self) -> None:
        """
        An address that this machine does not have.
        """
        endpoint = TCP4ServerEndpoint(real_reactor, 0, interface="192.0.2.1")
        self.assertNotStarted(endpoint, errno.EADDRNOTAVAIL)
