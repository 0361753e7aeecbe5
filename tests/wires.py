# SPDX-License-Identifier: AGPL-3.0-only
"""
A whole network in memory, TLS included: a dispatcher, and agents of every kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint, wrapServerTLS
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.test.iosim import ConnectionCompleter, IOPump
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from ctrlexec.errors import CtrlExecError
from ctrlexec.pki import parse_certificate, parse_private_key
from ctrlexec.protocol.client import AgentClient, Bounds
from ctrlexec.protocol.http import (
    response_head,
)
from ctrlexec.protocol.messages import PingAnswer, PingRequest
from ctrlexec.protocol.server import ServerConnection
from ctrlexec.tls import ServerConnections, mutual_client, mutual_server
from ctrlexec.values import Target
from tests.authority import CA_KEY, KEY
from tests.edges import Host
from tests.wired import AGENT, CA, DISPATCHER

TARGET = Target("agent-one", "agent-one.example", 7443)


@implementer(IHandshakeListener)
class ScriptedAgent(Protocol):
    """
    An agent that sends what a test tells it to, whatever it is asked.

    @param script: what it sends when it has been asked, piece by piece.
    @param closes: whether it closes the connection when it has sent it.
    """

    def __init__(self, script: Sequence[bytes], *, closes: bool) -> None:
        self.script = script
        self.closes = closes
        self.received = b""
        self.lost: Failure | None = None

    def handshakeCompleted(self) -> None:
        """
        The dispatcher has shown who it is.
        """

    def dataReceived(self, data: bytes) -> None:
        """
        Answer to the first bytes.
        """
        asked, self.received = bool(self.received), self.received + data
        assert self.transport is not None
        if not asked:
            for piece in self.script:
                self.transport.write(piece)
            if self.closes:
                self.transport.loseConnection()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:
        """
        Remember why.
        """
        self.lost = reason


@attrs.define
class Network:
    """
    A reactor in memory, a dispatcher on it, and one agent at most.
    """

    reactor: MemoryReactorClock = attrs.field(factory=MemoryReactorClock)
    pump: IOPump | None = None

    def client(self, **options: Any) -> AgentClient:
        """
        @param options: for L{AgentClient}, or for its L{Bounds}.
        """
        bounds = Bounds(
            connect_seconds=options.pop("connect_seconds", 10),
            read_seconds=options.pop("read_seconds", 60),
            answer_bytes=options.pop("answer_bytes", 100_000),
        )
        tls = options.pop("tls", None) or mutual_client(DISPATCHER)
        return AgentClient(self.reactor, tls, bounds, **options)

    def serve(
        self, make: Callable[[], Protocol], tls: ServerConnections | None = None
    ) -> None:
        """
        Let an agent listen.
        """
        endpoint = TCP4ServerEndpoint(self.reactor, TARGET.port)
        secured = wrapServerTLS(
            tls or mutual_server(AGENT), endpoint, clock=self.reactor
        )
        secured.listen(Factory.forProtocol(make))

    def scripted(
        self,
        *script: bytes,
        closes: bool = True,
        tls: ServerConnections | None = None,
    ) -> ScriptedAgent:
        """
        Let a scripted agent listen.
        """
        agent = ScriptedAgent(script, closes=closes)
        self.serve(lambda: agent, tls)
        return agent

    def hosted(
        self, host: Host, *, tls: ServerConnections | None = None, **options: Any
    ) -> None:
        """
        Let our own server listen.

        @param options: for L{ServerConnection}.
        """
        options.setdefault("body_bytes", 1_048_576)
        self.serve(lambda: ServerConnection(self.reactor, host, **options), tls)

    def ask(self, asking: Any) -> Deferred[Any]:
        """
        Start a question, and let both sides speak until they are silent.

        @param asking: a coroutine.
        """
        asked: Deferred[Any] = Deferred.fromCoroutine(asking)
        self.pump = ConnectionCompleter(self.reactor).succeedOnce()
        self.flush()
        return asked

    def flush(self) -> None:
        """
        Let both sides speak until they are silent.
        """
        if self.pump is not None:
            self.pump.flush()


def twofold() -> bytes:
    """
    A certificate of the CA that carries two roles.
    """
    info = DISPATCHER.info
    roles = ("urn:ctrl-exec:dispatcher:hq", "urn:ctrl-exec:agent:agent-one")
    names = x509.SubjectAlternativeName(
        [x509.UniformResourceIdentifier(role) for role in roles]
    )
    signed = (
        x509.CertificateBuilder()
        .subject_name(parse_certificate(AGENT.cert).subject)
        .issuer_name(parse_certificate(CA).subject)
        .public_key(parse_private_key(KEY).public_key())
        .serial_number(7)
        .not_valid_before(info.not_before)
        .not_valid_after(info.not_after)
        .add_extension(names, critical=False)
        .sign(parse_private_key(CA_KEY), hashes.SHA256())
    )
    return signed.public_bytes(Encoding.PEM)


HOST = TARGET.host
PONG = b'{"status":"ok","host":"agent-one","version":"0.8.4","expiry":"e","reqid":"9f"}'
PING = PingRequest("9f")


def http(body: bytes, code: int = 200, minor: int = 1) -> bytes:
    """
    A response with a body.
    """
    return response_head(code, len(body), minor=minor, keep_alive=False) + body


class ClientTestCase(SynchronousTestCase):
    """
    A network in memory, which leaves nothing on the clock.
    """

    def setUp(self) -> None:
        self.network = Network()
        self.reactor = self.network.reactor
        self.addCleanup(lambda: self.assertEqual(self.reactor.getDelayedCalls(), []))

    def ping(self, target: Target = TARGET) -> Deferred[PingAnswer]:
        """
        Ping, and let both sides speak until they are silent.
        """
        return self.network.ask(self.network.client().ping(target, PING))

    def fail_once(self, why: Exception) -> None:
        """
        Let a connection fail, and give the endpoint time for another address.
        """
        ConnectionCompleter(self.reactor).failOnce(Failure(why))
        self.reactor.advance(1)

    def assertFails(
        self, asked: Deferred[PingAnswer], kind: type[CtrlExecError], text: str
    ) -> None:
        """
        There is no answer, for this reason, and none of it is left.
        """
        why = self.failureResultOf(asked, kind)
        self.assertEqual(str(why.value), text)
        self.network.flush()
