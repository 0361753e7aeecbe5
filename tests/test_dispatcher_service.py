# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.service}: the pairing port as agents meet it,
over real TLS in memory.

It is over 400 lines: whole pairings, played through.
"""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import attrs
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.defer import succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IHandshakeListener, ITransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.python.usage import UsageError
from twisted.test.iosim import ConnectionCompleter, IOPump
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from ctrlexec.codes import commitment
from ctrlexec.dispatcher.join_tokens import FileJoinTokens
from ctrlexec.dispatcher.joining import Doorkeeper
from ctrlexec.dispatcher.pairing import PairingListener
from ctrlexec.dispatcher.pairing_gate import STRANGERS, PairingGate
from ctrlexec.dispatcher.queue import FilePairingQueue
from ctrlexec.dispatcher.reverse_dns import ReverseName
from ctrlexec.dispatcher.service import (
    Options,
    PairingService,
    compose,
    makeService,
)
from ctrlexec.dispatcher.surroundings import World
from ctrlexec.errors import ListenError
from ctrlexec.events import TlsFailed
from ctrlexec.pki import check_issued, make_csr
from ctrlexec.protocol import codec, codec_pairing
from ctrlexec.protocol.agreement import Awaited, Met, Opening, Terms
from ctrlexec.protocol.http import request
from ctrlexec.protocol.messages import PairApproved, PairDenied, PairRequest
from ctrlexec.protocol.pairing import AgentSide, Outcome, Unfinished
from ctrlexec.rates import RateLimits
from ctrlexec.tls import (
    ClientConnections,
    Identity,
    pairing_client,
    peer_certificate,
    shown_certificates,
)
from tests.authority import KEY
from tests.dispatching import NONCE, Recorder, at_once, settings_in, trust_in
from tests.wired import TODAY

NONCE_A = "a1" * 32
CSR = make_csr(KEY, "agent-one").decode()
ASKED = PairRequest("agent-one", CSR, NONCE, commitment=commitment(NONCE_A))
OLD = PairRequest("agent-one", CSR, NONCE)


@implementer(IHandshakeListener)
class Agent(Protocol):
    """
    An agent, or somebody who can say what an agent can.

    @ivar says: what to say in place of what an agent says.
    @ivar received: all that came back.
    @ivar awaited: what a person compares.
    """

    side: AgentSide
    opening = Opening(ASKED, NONCE_A, Terms(legacy=True))

    def __init__(self, says: bytes | None = None) -> None:
        self._says = says
        self.received = b""
        self.reqid = ""
        self.awaited: Awaited | None = None
        self.outcome: Outcome | None = None
        self.lost = False

    @property
    def wire(self) -> ITransport:
        """
        The connection.
        """
        assert self.transport is not None
        return self.transport

    def handshakeCompleted(self) -> None:
        """
        Ask.
        """
        met = Met(shown_certificates(self.wire)[0], TODAY)  # type: ignore[arg-type]
        self.side = AgentSide(self.opening, "dispatcher", met, self)
        self.wire.write(self.side.opening if self._says is None else self._says)

    def send(self, data: bytes) -> None:
        """
        See L{ctrlexec.protocol.pairing.Applicant}.
        """
        self.wire.write(data)

    def dataReceived(self, data: bytes) -> None:
        """
        Hear.
        """
        self.received += data
        self.side.received(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        No answer will come any more.
        """
        self.lost = True
        if hasattr(self, "side"):
            self.side.stopped("the connection was closed")

    def waiting(self, awaited: Awaited) -> None:
        """
        See L{ctrlexec.protocol.pairing.Applicant}.
        """
        self.awaited, self.reqid = awaited, awaited.reqid

    def ended(self, outcome: Outcome) -> None:
        """
        See L{ctrlexec.protocol.pairing.Applicant}.
        """
        self.outcome = outcome


def asking(pair: PairRequest) -> bytes:
    """
    A request, spelled out.
    """
    body = codec_pairing.encode_pair_request(pair)
    return request("POST", "/pair", body, host="x", minor=0)


class PortTestCase(SynchronousTestCase):
    """
    A dispatcher whose pairing port is open.
    """

    def setUp(self) -> None:
        """
        Set it up, and open the port.
        """
        self.settings = settings_in(Path(self.mktemp()), pairing_bind="127.0.0.1")
        self.log, self.reactor = Recorder(), MemoryReactorClock()
        self.trust = attrs.evolve(trust_in(self.settings, self.log), now=lambda: TODAY)
        self.trust.setup_ca()
        self.trust.setup_identity()
        self.log.events.clear()
        self.pumps: list[IOPump] = []
        self.service = self.composed()
        self.service.privilegedStartService()
        self.service.startService()

    def composed(self, **settings: Any) -> PairingService:
        """
        The service, on a reactor in memory.
        """
        ours = self.settings = attrs.evolve(self.settings, **settings)
        listener = PairingListener(
            World(
                self.reactor,
                lambda: TODAY,
                at_once,
                lambda _: succeed(ReverseName()),
                Doorkeeper(self.trust, FileJoinTokens(ours.tokens_dir)).decide,
            ),
            FilePairingQueue.of(ours),
            self.log,
            Identity(ours.key, ours.cert, ours.ca).load(),
        )
        gate = PairingGate(ours, self.log, RateLimits(self.log, self.reactor.seconds))
        return compose(self.reactor, ours, listener, gate)

    def connects(
        self, says: bytes | None = None, tls: ClientConnections | None = None
    ) -> Agent:
        """
        Somebody connects and says this; by default, what an agent says.
        """
        agent, tls = Agent(says), tls or pairing_client()
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", 7444)
        wrapClientTLS(tls, endpoint, clock=self.reactor).connect(
            Factory.forProtocol(lambda: agent)
        )
        pump = ConnectionCompleter(self.reactor).succeedOnce()
        assert pump is not None
        self.pumps.append(pump)
        self.flush()
        return agent

    def flush(self) -> None:
        """
        Let everybody speak until all are silent.
        """
        for pump in self.pumps:
            pump.flush()

    def pass_time(self, seconds: float) -> None:
        """
        Time passes.
        """
        self.reactor.advance(seconds)
        self.flush()

    def assertSaid(self, agent: Agent, status: str, answer: dict[str, Any]) -> None:
        """
        An agent was told this, and then the connection was closed.
        """
        head, _, body = agent.received.partition(b"\r\n\r\n")
        self.assertEqual(head.split(b"\r\n")[0].decode(), f"HTTP/1.0 {status}")
        self.assertEqual(json.loads(body), answer)
        self.assertTrue(agent.lost)


class PairingTests(PortTestCase):
    """
    Whole pairings.
    """

    def test_approved(self) -> None:
        """
        An agent asks, both ends show the same code, a person approves, and the
        agent has an identity that this dispatcher's other agents and this
        dispatcher will accept.
        """
        agent = self.connects()
        (waiting,) = self.trust.requests()
        assert agent.awaited is not None
        self.assertEqual(
            (waiting.id, waiting.code, waiting.legacy),
            (agent.reqid, agent.awaited.code, agent.awaited.legacy),
        )
        self.assertRegex(waiting.code, r"\A[0-9]{3} [0-9]{3}\Z")
        self.assertFalse(waiting.legacy)
        self.trust.approve(agent.reqid)
        self.pass_time(0.5)
        assert isinstance(agent.outcome, PairApproved)
        cert, ca = agent.outcome.cert.encode(), agent.outcome.ca.encode()
        check_issued(cert=cert, ca=ca, key=KEY, now=TODAY)
        self.assertTrue(agent.lost)
        self.assertEqual(
            self.log.actions,
            ["pairing-mode-start", "pair-request", "pair-approve", "pair-end"],
        )

    def test_exactAnswers(self) -> None:
        """
        Both answers are whole HTTP/1.0 messages, as an original agent reads
        them; to one of the original there is nothing new in them.
        """
        agent = self.connects(asking(OLD))
        self.assertTrue([r.legacy for r in self.trust.requests()])
        first = agent.received
        body = codec.to_json({"status": "pending", "reqid": agent.reqid})
        head = (
            "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.assertEqual(first, head.encode() + body)
        self.trust.deny(agent.reqid)
        self.pass_time(0.5)
        second = agent.received[len(first) :]
        self.assertTrue(second.startswith(b"HTTP/1.0 200 OK\r\n"))
        self.assertTrue(
            second.endswith(b'{"status":"denied","reason":"rejected by operator"}')
        )

    def test_denied(self) -> None:
        """
        A person denies, and the agent hears it.
        """
        agent = self.connects()
        self.trust.deny(agent.reqid)
        self.pass_time(0.5)
        self.assertEqual(agent.outcome, PairDenied("rejected by operator"))

    def test_timeout(self) -> None:
        """
        Nobody decides, and the agent hears that.
        """
        agent = self.connects()
        self.pass_time(599)
        self.assertIsNone(agent.outcome)
        self.pass_time(1)
        self.assertEqual(agent.outcome, PairDenied("approval timeout"))
        self.assertEqual(list(self.trust.requests()), [])

    def test_agentLeaves(self) -> None:
        """
        An agent that closes the connection waits no more.
        """
        agent = self.connects()
        agent.wire.loseConnection()
        self.flush()
        self.assertEqual(list(self.trust.requests()), [])

    def test_stop(self) -> None:
        """
        When the port closes, the agents that wait see it.
        """
        agent = self.connects()
        self.successResultOf(self.service.stopService())
        self.flush()
        self.assertEqual(agent.outcome, Unfinished("the connection was closed"))
        self.assertEqual(list(self.trust.requests()), [])
        self.assertEqual(self.log.actions[-1], "pairing-mode-stop")
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_showsItself(self) -> None:
        """
        The port shows the dispatcher's own certificate.
        """
        agent = self.connects()
        shown = peer_certificate(agent.wire)  # type: ignore[arg-type]
        self.assertEqual(shown, self.trust.authority.dispatcher())


class HostileTests(PortTestCase):
    """
    What else may come to the port.
    """

    def test_tooLarge(self) -> None:
        """
        A body that is too long is refused unread, in the port's own words.
        """
        agent = self.connects(b"POST /pair HTTP/1.0\r\nContent-Length: 65537\r\n\r\n")
        self.assertSaid(
            agent, "200 OK", {"status": "error", "reason": "request too large"}
        )
        self.assertEqual(self.log.actions[-1], "pair-reject")

    def test_largest(self) -> None:
        """
        One byte less is read.
        """
        body = codec_pairing.encode_pair_request(OLD)
        agent = self.connects(
            request("POST", "/pair", body.ljust(65536), host="x", minor=0)
        )
        self.assertNotEqual(agent.reqid, "")

    def test_rubbish(self) -> None:
        """
        What is no HTTP is refused like what is no request.
        """
        for rubbish in (b"\0\r\n\r\n", b"\r\n\r\n", b"POST /pair\r\n\r\n"):
            agent = self.connects(rubbish)
            self.assertSaid(
                agent, "200 OK", {"status": "error", "reason": "invalid request"}
            )

    def test_elsewhere(self) -> None:
        """
        There is nothing else here.
        """
        agent = self.connects(b"GET / HTTP/1.1\r\n\r\n")
        self.assertSaid(agent, "404 Not Found", {"error": "not found"})

    def test_oneRequestAConnection(self) -> None:
        """
        Who sends two requests has sent one.
        """
        agent = self.connects()
        agent.wire.write(agent.side.opening * 3)
        self.flush()
        self.assertEqual(len(self.trust.requests()), 1)

    def test_slow(self) -> None:
        """
        Who does not get to the point is shown the door.
        """
        agent = self.connects(b"POST /pair HTTP/1.0\r\n")
        self.pass_time(15)
        self.assertTrue(agent.lost)

    def reopened(self, **settings: Any) -> None:
        """
        Open the port again, with other settings.
        """
        self.reactor.tcpServers.clear()
        self.service = self.composed(**settings)
        self.service.privilegedStartService()
        self.service.startService()

    def test_tooOften(self) -> None:
        """
        An address that comes too often is paid for with a handshake no more,
        which the log hears once.
        """
        for _ in range(10):
            self.connects(b"").wire.loseConnection()
        self.flush()
        factory = self.reactor.tcpServers[0][1]
        stranger = IPv4Address("TCP", "", 1024)
        for _ in range(100):
            self.assertIsNone(factory.buildProtocol(stranger))
        self.assertEqual(
            self.log.events[-1].line(), "ACTION=rate-block PEER= REASON=volume"
        )
        self.assertEqual(self.log.actions.count("rate-block"), 1)
        other = IPv4Address("TCP", "192.0.2.9", 1024)
        self.assertIsNotNone(factory.buildProtocol(other))

    def half_open(self) -> None:
        """
        Somebody connects and says nothing.
        """
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", 7444)
        endpoint.connect(Factory.forProtocol(Protocol))
        pump = ConnectionCompleter(self.reactor).succeedOnce()
        assert pump is not None
        self.pumps.append(pump)

    def test_handshakeFailed(self) -> None:
        """
        A handshake that never ends, and one of a client that shares no version
        with us, are in the log.
        """
        self.half_open()
        self.pass_time(15)
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_max_proto_version(SSL.TLS1_1_VERSION)
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        self.connects(tls=ClientConnections(context))
        failures = [event for event in self.log.events if isinstance(event, TlsFailed)]
        self.assertEqual(len(failures), 2)
        self.assertEqual(failures[1].reason, "unsupported protocol")

    def test_handshakeOver(self) -> None:
        """
        When the port closes that is nobody's failure.
        """
        self.half_open()
        self.successResultOf(self.service.stopService())
        self.flush()
        self.assertEqual(self.log.actions, ["pairing-mode-start", "pairing-mode-stop"])

    def test_tooManyConnections(self) -> None:
        """
        Beyond a number of connections, none is paid for with a handshake; when
        one closes, there is room again.
        """
        self.reopened(pairing_rate_limit_disable=True)
        most = self.settings.pairing_max_queue + STRANGERS
        silent = [self.connects(b"") for _ in range(most)]
        factory = self.reactor.tcpServers[0][1]
        stranger = IPv4Address("TCP", "192.0.2.9", 1024)
        self.assertIsNone(factory.buildProtocol(stranger))
        self.assertEqual(
            self.log.events[-1].line(),
            'ACTION=pair-reject IP=192.0.2.9 REASON="too many connections"',
        )
        silent[0].wire.loseConnection()
        self.flush()
        self.assertNotEqual(self.connects().reqid, "")


class OptionsTests(SynchronousTestCase):
    """
    The command line of C{twistd ctrl-exec-pairing}.
    """

    def test_overrides(self) -> None:
        """
        Port and address go before the settings.
        """
        options = Options()
        options.parseOptions(["--port", "7000", "--bind", "::1"])
        self.assertEqual(
            options.overrides, {"pairing_port": 7000, "pairing_bind": "::1"}
        )

    def test_wrong(self) -> None:
        """
        What is no port and what is no address is refused.
        """
        for words in (["--port", "0x1"], ["--port", "65536"], ["--bind", "here"]):
            self.assertRaises(UsageError, Options().parseOptions, words)

    def test_noSettings(self) -> None:
        """
        Settings that can not be used end it with the status that tells an init
        system not to try again.
        """
        options = Options()
        options.parseOptions(["--config", str(Path(self.mktemp()))])
        with redirect_stderr(io.StringIO()) as shown:
            error = self.assertRaises(SystemExit, makeService, options)
        self.assertEqual(error.code, 78)
        self.assertTrue(shown.getvalue().startswith("error: "))


class Busy(MemoryReactorClock):
    """
    A machine whose ports are all in use.
    """

    def listenTCP(self, port: int, *args: Any, **kwargs: Any) -> Any:
        """
        Refuse.
        """
        raise CannotListenError("127.0.0.1", port, OSError(98, "Address in use"))


class BusyTests(PortTestCase):
    """
    A port that somebody else has.
    """

    def test_oneLine(self) -> None:
        """
        C{twistd} ends with a sentence, not with a traceback.
        """
        self.reactor = Busy()
        service = self.composed()
        error = self.assertRaises(ListenError, service.privilegedStartService)
        self.assertIn(
            "cannot listen on port 7444 of 127.0.0.1: Address in use", str(error)
        )
