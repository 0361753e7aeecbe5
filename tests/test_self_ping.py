# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.self_ping}: over real TLS in memory.
"""

from __future__ import annotations

from pathlib import Path

import attrs
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.self_ping import own_target, self_ping
from ctrlexec.certificates import AgentRole
from ctrlexec.errors import CtrlExecError
from ctrlexec.protocol import codec
from ctrlexec.protocol.messages import REVOKED, SERIAL_MISMATCH, PingAnswer, Refused
from ctrlexec.tls import mutual_server
from tests.agents import agent_settings
from tests.edges import Host
from tests.wired import AGENT, credentials
from tests.wires import Network


class SelfPingTests(SynchronousTestCase):
    """
    An agent that answers itself.
    """

    def setUp(self) -> None:
        self.settings = agent_settings(Path(self.mktemp()).absolute())
        self.network = Network()
        self.host = Host()
        self.addCleanup(
            lambda: self.assertEqual(self.network.reactor.getDelayedCalls(), [])
        )

    def ping(
        self, code: int, body: bytes, tls: AgentRole | None = None
    ) -> Deferred[str]:
        """
        Ask an agent that answers like this.
        """
        shown = credentials(tls) if tls else AGENT
        self.host.answers = [(code, body)]
        self.network.hosted(self.host, tls=mutual_server(shown))
        asked: Deferred[str] = self.network.ask(
            self_ping(self.network.reactor, self.settings, AGENT)
        )
        return asked

    def refused(self, refused: Refused) -> Deferred[str]:
        """
        Ask an agent that refuses like this.
        """
        return self.ping(refused.code, codec.encode_refused(refused))

    def test_mismatch(self) -> None:
        """
        That it takes no orders from itself is what a good agent says.
        """
        said = self.successResultOf(self.refused(SERIAL_MISMATCH))
        self.assertEqual(
            said,
            "the agent at 127.0.0.1, port 7443 answers, "
            "and takes no orders from itself",
        )
        [peer] = self.host.admitted
        assert peer.certificate is not None
        self.assertEqual(peer.certificate, AGENT.info)

    def test_answered(self) -> None:
        """
        An answer is as good.
        """
        pong = codec.encode_ping_answer(PingAnswer("agent-one", "1", "e"))
        said = self.successResultOf(self.ping(200, pong))
        self.assertEqual(said, "the agent at 127.0.0.1, port 7443 answers")

    def test_otherwise(self) -> None:
        """
        No other refusal is.
        """
        for refusal in (REVOKED, Refused(403, "forbidden"), Refused(500, "")):
            self.network = Network()
            why = self.failureResultOf(self.refused(refusal), CtrlExecError)
            self.assertIn(f"answered {refusal.code}: ", str(why.value))

    def test_another(self) -> None:
        """
        Nor is what another agent on that port says.
        """
        body = codec.encode_refused(SERIAL_MISMATCH)
        asked = self.ping(403, body, AgentRole("agent-two"))
        why = self.failureResultOf(asked, CtrlExecError)
        self.assertIn("that of 'agent-two', not of 'agent-one'", str(why.value))
        self.assertEqual(self.host.exchanges, [])
        self.network.flush()

    def test_target(self) -> None:
        """
        An agent on all addresses is on loopback; any other is where it is.
        """
        for bind, host in (
            ("", "127.0.0.1"),
            ("0.0.0.0", "127.0.0.1"),
            ("::", "::1"),
            ("192.0.2.7", "192.0.2.7"),
        ):
            settings = attrs.evolve(self.settings, bind=bind)
            self.assertEqual(own_target(settings).host, host)
        unknown = attrs.evolve(self.settings, port=0)
        self.assertRaises(CtrlExecError, own_target, unknown)
