# SPDX-License-Identifier: AGPL-3.0-only
"""
Our client against our server, over real mutual TLS in memory.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.test.iosim import ConnectionCompleter
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.errors import PkiError, ProtocolError, TransportError
from ctrlexec.pki import AgentRole, DispatcherRole
from ctrlexec.protocol import codec, limits
from ctrlexec.protocol.messages import (
    REVOKED,
    PingAnswer,
    PingRequest,
    RunFinished,
    RunRequest,
)
from ctrlexec.protocol.sending import WRITE_BYTES
from ctrlexec.tls import ClientConnections, mutual_client, mutual_server
from tests.authority import KEY
from tests.edges import Host
from tests.wired import (
    credentials,
    original,
    showing,
)
from tests.wires import TARGET, Network, twofold

PONG = PingAnswer("agent-one", "1", "e", "9f")


class MutualTests(SynchronousTestCase):
    """
    Both sides, and what neither leaves on the clock.
    """

    def setUp(self) -> None:
        self.network = Network()
        self.host = Host(answers=[(200, codec.encode_ping_answer(PONG))])
        self.addCleanup(
            lambda: self.assertEqual(self.network.reactor.getDelayedCalls(), [])
        )

    def ping(self, **options: Any) -> Deferred[PingAnswer]:
        """
        Ping, as a client with these options.
        """
        client = self.network.client(**options)
        return self.network.ask(client.ping(TARGET, PingRequest("9f")))

    def test_ping(self) -> None:
        """
        A question and its answer; the agent knows who asked.
        """
        self.network.hosted(self.host)
        self.assertEqual(self.successResultOf(self.ping()), PONG)
        self.assertEqual(self.host.asked, [("POST", "/ping", b'{"reqid":"9f"}')])
        [peer] = self.host.admitted
        assert peer.certificate is not None
        self.assertEqual(peer.certificate.role, DispatcherRole("hq"))

    def test_oldStyle(self) -> None:
        """
        The same with a server that answers as the original does.
        """
        self.network.hosted(self.host, old_style=True)
        self.assertEqual(self.successResultOf(self.ping()), PONG)

    def test_manyTimes(self) -> None:
        """
        One client asks again and again, each time over a new connection.
        """
        self.network.hosted(self.host)
        self.host.answers *= 3
        client = self.network.client()
        for _ in range(3):
            asked = self.network.ask(client.ping(TARGET, PingRequest("9f")))
            self.assertEqual(self.successResultOf(asked), PONG)

    def test_original(self) -> None:
        """
        Hosts of an original's CA understand each other through us.
        """
        host = self.host
        tls = mutual_server(original("agent"))
        self.network = Network()
        self.network.hosted(host, tls=tls)
        asked = self.ping(tls=mutual_client(original("dispatcher")))
        self.assertEqual(self.successResultOf(asked), PONG)
        [peer] = host.admitted
        assert peer.certificate is not None
        self.assertEqual(peer.certificate.serial, "2")

    def test_run(self) -> None:
        """
        A megabyte of arguments and eight of output get through whole.
        """
        finished = RunFinished("a", 0, "ü" * 8 * 2**20, "", "9f")
        self.host.answers = [(200, codec.encode_run_answer(finished))]
        self.network.hosted(self.host)
        client = self.network.client(answer_bytes=64 * 2**20)
        request = RunRequest("a", ("x" * 1_000_000,), "9f")
        asked = self.network.ask(client.run(TARGET, request))
        self.assertEqual(self.successResultOf(asked), finished)
        [exchange] = self.host.exchanges
        self.assertEqual(codec.decode_run_request(exchange.request.body), request)

    def test_requestTooLarge(self) -> None:
        """
        One byte more than the agent takes is refused, in words.
        """
        self.network.hosted(self.host)
        request = RunRequest("a", ("x" * limits.REQUEST_BODY_BYTES,))
        asked = self.network.ask(self.network.client().run(TARGET, request))
        why = self.failureResultOf(asked, ProtocolError)
        self.assertEqual(str(why.value), "request too large")
        self.network.flush()

    def test_revoked(self) -> None:
        """
        A revoked dispatcher is told so, and no request of it is read.
        """
        self.host.refusal = REVOKED
        self.network.hosted(self.host)
        why = self.failureResultOf(self.ping(), ProtocolError)
        self.assertEqual(str(why.value), "forbidden: certificate revoked")
        self.assertEqual(self.host.exchanges, [])
        self.network.flush()

    def test_stranger(self) -> None:
        """
        A client without a certificate of the CA is a handshake that failed, on
        both sides.
        """
        self.network.hosted(self.host)
        stranger = ClientConnections(SSL.Context(SSL.TLS_METHOD))
        why = self.failureResultOf(self.ping(tls=stranger), TransportError)
        self.assertIn("TLS handshake", str(why.value))
        [(_, reason)] = self.host.failures
        reason.trap(SSL.Error)
        self.assertEqual((self.host.admitted, self.host.exchanges), ([], []))

    def test_otherAgent(self) -> None:
        """
        An agent that is not the one that was meant sees a connection, and not
        one byte of the request.
        """
        tls = mutual_server(credentials(AgentRole("agent-two")))
        self.network.hosted(self.host, tls=tls)
        why = self.failureResultOf(self.ping(), TransportError)
        self.assertIn("agent-two", str(why.value))
        self.assertEqual(self.host.exchanges, [])
        self.network.flush()

    def test_unfitCertificate(self) -> None:
        """
        A client whose certificate the CA signed, and which carries two roles,
        is turned away without an exception in the log.
        """
        self.network.hosted(self.host)
        context = showing(twofold(), KEY)
        why = self.failureResultOf(
            self.ping(tls=ClientConnections(context)), TransportError
        )
        self.assertTrue(str(why.value))
        [(_, reason)] = self.host.failures
        reason.trap(PkiError)
        self.assertEqual(self.host.exchanges, [])

    def test_callerGoes(self) -> None:
        """
        A caller that goes while a script runs: the handler is told, and its
        answer goes into nothing.
        """
        self.host.answers = []
        self.network.hosted(self.host)
        asked = self.ping()
        [exchange] = self.host.exchanges
        told: list[str] = []
        exchange.when_lost(lambda: told.append("lost"))
        self.network.reactor.advance(60)
        self.failureResultOf(asked, TransportError)
        self.network.flush()
        self.assertEqual(told, ["lost"])
        exchange.answer(200, b"x" * 10 * WRITE_BYTES)
        self.network.flush()

    def test_halfHandshake(self) -> None:
        """
        A peer that connects and goes, as a port scan does, is a handshake that
        failed.
        """
        self.network.hosted(self.host)
        asked = Deferred.fromCoroutine(
            self.network.client().ping(TARGET, PingRequest("9f"))
        )
        pump = ConnectionCompleter(self.network.reactor).succeedOnce(greet=False)
        assert pump is not None
        asked.cancel()
        asked.addErrback(lambda _: None)
        pump.flush()
        [(address, _)] = self.host.failures
        self.assertEqual(address, "")
