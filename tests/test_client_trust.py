# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.protocol.client}: whom it talks to, over real TLS in memory.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.test.iosim import ConnectionCompleter
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.errors import Untrusted
from ctrlexec.pki import (
    AgentRole,
    CertificateInfo,
    DispatcherRole,
    parse_certificate,
)
from ctrlexec.protocol.peer_checks import any_agent, named
from ctrlexec.tls import ServerConnections, mutual_server
from ctrlexec.values import Target
from tests.authority import KEY, NOW
from tests.wired import OTHER_CA, credentials, original, showing
from tests.wires import (
    HOST,
    PING,
    PONG,
    TARGET,
    ClientTestCase,
    http,
    twofold,
)


class TrustTests(ClientTestCase):
    """
    Whom we talk to: DESIGN.md, Trust.
    """

    def assertUnasked(
        self, tls: ServerConnections, text: str, target: Target = TARGET
    ) -> None:
        """
        The agent is not asked anything, and we say why.
        """
        self.setUp()
        agent = self.network.scripted(http(PONG), tls=tls)
        self.assertFails(self.ping(target), Untrusted, text)
        self.assertEqual(agent.received, b"")
        assert agent.lost is not None

    def test_otherAgent(self) -> None:
        """
        One agent can not answer for another.
        """
        other = mutual_server(credentials(AgentRole("agent-two")))
        text = "the certificate is that of 'agent-two', not of 'agent-one'"
        self.assertUnasked(other, text)

    def test_hint(self) -> None:
        """
        The operator is told where to look.
        """
        self.network.scripted(tls=mutual_server(credentials(AgentRole("b"))))
        why = self.failureResultOf(self.ping(), Untrusted)
        self.assertIn("registry", why.value.hint)
        self.network.flush()

    def test_dispatcher(self) -> None:
        """
        A dispatcher is no agent, even one of the right name.
        """
        text = "the peer's certificate is not an agent's"
        tls = mutual_server(credentials(DispatcherRole("agent-one")))
        self.assertUnasked(tls, text)

    def test_closedInOrder(self) -> None:
        """
        An agent that is not the right one sees its connection closed in good
        order: a reset after the handshake ends one of the original.
        """
        agent = self.network.scripted(
            tls=mutual_server(credentials(AgentRole("agent-two")))
        )
        asked = Deferred.fromCoroutine(self.network.client().ping(TARGET, PING))
        pump = ConnectionCompleter(self.reactor).succeedOnce(greet=False)
        assert pump is not None
        aborted: list[bool] = []
        pump.clientIO.abortConnection = lambda: aborted.append(True)
        pump.flush()
        self.failureResultOf(asked, Untrusted)
        self.assertEqual(aborted, [])
        assert agent.lost is not None
        agent.lost.trap(error.ConnectionDone)

    def test_ambiguous(self) -> None:
        """
        A certificate that carries two roles is nobody's.
        """
        tls = ServerConnections(showing(twofold(), KEY))
        agent = self.network.scripted(http(PONG), tls=tls)
        text = "the certificate carries more than one role"
        self.assertFails(self.ping(), Untrusted, text)
        self.assertEqual(agent.received, b"")

    def test_notOurCa(self) -> None:
        """
        A stranger's certificate ends the handshake.
        """
        text = f"TLS handshake with '{HOST}' failed - certificate or trust mismatch"
        self.assertUnasked(mutual_server(original("agent")), text)

    def test_refusesUs(self) -> None:
        """
        An agent that does not know us ends the handshake, which we learn only
        when we believe that it is over.
        """
        mixed = showing(credentials(AgentRole("agent-one")).cert, KEY)
        store = mixed.get_cert_store()
        assert store is not None
        store.add_cert(X509.from_cryptography(parse_certificate(OTHER_CA)))
        mixed.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
        self.network.scripted(http(PONG), tls=ServerConnections(mixed))
        text = f"TLS handshake with '{HOST}' failed - certificate or trust mismatch"
        self.assertFails(self.ping(), Untrusted, text)

    def test_unregistered(self) -> None:
        """
        A host that is not registered has no name to prove: any agent will do,
        and still no dispatcher.
        """
        target = attrs.evolve(TARGET, registered=False)
        for role, text in (
            (AgentRole("agent-two"), ""),
            (DispatcherRole("hq"), "the peer's certificate is not an agent's"),
        ):
            self.setUp()
            self.network.scripted(http(PONG), tls=mutual_server(credentials(role)))
            asked = self.network.ask(self.network.client().ping(target, PING))
            if text:
                self.assertFails(asked, Untrusted, text)
            else:
                self.successResultOf(asked)


class CheckTests(SynchronousTestCase):
    """
    L{named} and L{any_agent}, without a connection.
    """

    def info(
        self, common_name: str, role: AgentRole | DispatcherRole | None = None
    ) -> CertificateInfo:
        """
        A certificate of somebody.
        """
        return CertificateInfo(common_name, "1", NOW, NOW, role, "")

    def passes(
        self,
        check: Callable[[CertificateInfo | None], None],
        certificate: CertificateInfo | None,
    ) -> bool:
        """
        Whether a certificate passes a check.
        """
        try:
            check(certificate)
        except Untrusted as why:
            self.assertTrue(str(why).isprintable())
            return False
        return True

    def test_named(self) -> None:
        """
        The role says who an agent is, to the letter; without one, its common
        name does, in letters of either case and of ASCII.
        """
        check = named("Kiosk")
        for info in (
            self.info("kiosk"),
            self.info("KIOSK"),
            self.info("cut", AgentRole("Kiosk")),
        ):
            self.assertTrue(self.passes(check, info), info)
        for other in (
            None,
            self.info(""),
            self.info("kiosk2"),
            self.info("\u212aiosk"),
            self.info("kiosk", AgentRole("other")),
            self.info("Kiosk", AgentRole("kiosk")),
            self.info("kiosk", DispatcherRole("kiosk")),
            self.info("\x1b[2J"),
        ):
            self.assertFalse(self.passes(check, other), other)

    def test_anyAgent(self) -> None:
        """
        Whoever shows no certificate is no agent.
        """
        self.assertTrue(self.passes(any_agent, self.info("x")))
        self.assertFalse(self.passes(any_agent, None))
