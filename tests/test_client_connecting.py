# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.protocol.client}: connections that do not come about, and
questions that nobody asks any more.
"""

from __future__ import annotations

import errno
from typing import Any

import attrs
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IHostnameResolver,
    IHostResolution,
    IResolutionReceiver,
)
from twisted.internet.testing import MemoryReactorClock
from zope.interface import implementer

from ctrlexec.errors import TransportError
from ctrlexec.protocol.messages import (
    PingAnswer,
)
from ctrlexec.values import Target
from tests.wires import (
    HOST,
    ClientTestCase,
)


@implementer(IHostnameResolver)
@attrs.frozen
class Resolver:
    """
    A resolver that knows nobody, or never says so.
    """

    answers: bool

    def resolveHostName(
        self, resolutionReceiver: IResolutionReceiver, *args: Any, **options: Any
    ) -> IHostResolution:
        """
        See C{IHostnameResolver}.
        """
        resolution: Any = None
        resolutionReceiver.resolutionBegan(resolution)
        if self.answers:
            resolutionReceiver.resolutionComplete()
        resolved: IHostResolution = resolution
        return resolved


class CancelTests(ClientTestCase):
    """
    Questions that nobody asks any more.
    """

    def test_answering(self) -> None:
        """
        While the agent works, the connection is closed.
        """
        agent = self.network.scripted(closes=False)
        asked = self.ping()
        self.assertTrue(agent.received)
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.network.flush()
        self.assertIsNotNone(agent.lost)

    def test_connecting(self) -> None:
        """
        While the connection comes about, it is given up, and that is no
        failure of the network.
        """
        asked = self.ping()
        [connector] = self.reactor.connectors
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertTrue(connector.stoppedConnecting)

    def test_resolving(self) -> None:
        """
        Nor is it while the name is looked up.
        """

        self.reactor.installNameResolver(Resolver(answers=False))
        asked = self.ping()
        asked.cancel()
        self.failureResultOf(asked, CancelledError)


class ConnectTests(ClientTestCase):
    """
    Connections that do not come about: NEWER-LINE.md section 14.
    """

    def fail_with(self, why: Exception) -> Deferred[PingAnswer]:
        """
        Let the connection fail.
        """
        asked = self.ping()
        self.fail_once(why)
        return asked

    def test_words(self) -> None:
        """
        Each failure in its own words.
        """
        unreachable = f"host '{HOST}' is unreachable - no route to host or network down"
        late = f"host '{HOST}' did not respond - connection timed out"
        known = {
            errno.ECONNREFUSED: (
                f"host '{HOST}' did not respond on port 7443 - connection refused "
                "(agent not running, or wrong port?)"
            ),
            errno.ENETUNREACH: unreachable,
            errno.EHOSTUNREACH: unreachable,
            errno.ETIMEDOUT: late,
        }
        for number, text in known.items():
            self.setUp()
            why = error.getConnectError(OSError(number, "from the system"))
            self.assertFails(self.fail_with(why), TransportError, text)
        self.setUp()
        self.assertFails(self.fail_with(error.TimeoutError()), TransportError, late)

    def test_otherWords(self) -> None:
        """
        A failure that we do not know in the transport's own words.
        """
        why = self.fail_with(OSError("out of sockets"))
        self.assertFails(why, TransportError, "out of sockets")

    def test_unresolvable(self) -> None:
        """
        A name that does not resolve.
        """

        self.reactor.installNameResolver(Resolver(answers=True))
        text = f"host '{HOST}' did not resolve - check the name or use an IP address"
        self.assertFails(self.ping(), TransportError, text)

    def test_impossibleName(self) -> None:
        """
        A name that no resolver can be asked for.
        """
        name = "a" * 64
        asked = self.ping(Target(name, name, 7443))
        self.assertFails(asked, TransportError, f"invalid hostname: {name}")


class AddressTests(ClientTestCase):
    """
    Where connections go.
    """

    def test_destination(self) -> None:
        """
        To the host and port of the target, not to its name.
        """
        self.assertIsInstance(self.reactor, MemoryReactorClock)
        self.ping(Target("agent-one", "10.0.0.9", 7555)).addErrback(lambda _: None)
        [(_, port, *_rest)] = self.reactor.tcpClients
        self.assertEqual(port, 7555)
        self.fail_once(OSError())
