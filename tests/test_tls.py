# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for the connections of L{ctrlexec.tls}; its files are in
C{test_tls_identity}.
"""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path

from OpenSSL import SSL
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ctrlexec.errors import PkiError
from ctrlexec.pki import (
    AgentRole,
    DispatcherRole,
    make_ca,
    parse_certificate,
)
from ctrlexec.tls import (
    ClientConnections,
    Credentials,
    ServerConnections,
    mutual_client,
    mutual_server,
    pairing_client,
    pairing_server,
)
from tests.authority import CA_KEY, DAY, KEY, OTHER_KEY, data, handmade
from tests.wired import (
    AGENT,
    CA,
    DISPATCHER,
    OTHER_CA,
    TODAY,
    WiredTestCase,
    certified_by,
    client_of,
    connected,
    credentials,
    original,
    showing,
)


class MutualTests(WiredTestCase):
    """
    Who gets through a mutual connection, and who does not.
    """

    def test_interfaces(self) -> None:
        """
        The connection creators are what Twisted expects.
        """
        verifyObject(IOpenSSLServerConnectionCreator, mutual_server(AGENT))
        verifyObject(IOpenSSLClientConnectionCreator, mutual_client(AGENT))

    def test_accepted(self) -> None:
        """
        Two hosts of one CA speak, and each knows the other's role.
        """
        peers = self.assertSpoken(mutual_server(AGENT), mutual_client(DISPATCHER))
        self.assertEqual([peer.sees() for peer in peers], [DISPATCHER.info, AGENT.info])

    def test_manyConnections(self) -> None:
        """
        One context serves one connection after the other.
        """
        server, client = mutual_server(AGENT), mutual_client(DISPATCHER)
        for _ in range(3):
            self.assertSpoken(server, client)

    def test_original(self) -> None:
        """
        Hosts of the original are met as they are, in both directions, whatever
        version of X.509 their CA has.
        """
        for ca in ("original-ca.crt", "original-ca-v3.crt"):
            agent, dispatcher = original("agent", ca), original("dispatcher", ca)
            for one, other in ((agent, dispatcher), (dispatcher, agent)):
                peers = self.assertSpoken(mutual_server(one), mutual_client(other))
                self.assertEqual([p.sees() for p in peers], [other.info, one.info])

    def test_originalCaWithOurs(self) -> None:
        """
        What we issue under the original's CA meets what it issued itself.
        """
        ca, ca_key = data("original-ca.crt"), data("original-ca.key")
        ours = credentials(DispatcherRole("hq"), ca=ca, ca_key=ca_key)
        theirs = original("agent")
        self.assertSpoken(mutual_server(theirs), mutual_client(ours))
        self.assertSpoken(mutual_server(ours), mutual_client(theirs))

    def test_noCertificate(self) -> None:
        """
        A client without a certificate is refused.
        """
        self.assertRefused(
            *connected(mutual_server(AGENT), pairing_client()),
            "peer did not return a certificate",
            "certificate required",
        )

    def test_otherCa(self) -> None:
        """
        A host of another CA is refused, though that CA has the same name.
        """
        other = credentials(DispatcherRole("hq"), ca=OTHER_CA, ca_key=OTHER_KEY)
        for stranger in (other, original("dispatcher")):
            self.assertCertificateRefused(stranger.cert, stranger.key, "unknown ca")

    def test_expired(self) -> None:
        """
        A certificate that has expired is refused.
        """
        late = credentials(DispatcherRole("hq"), now=TODAY - 2 * DAY, days=1)
        self.assertCertificateRefused(late.cert, KEY, "certificate expired")

    def test_notYetValid(self) -> None:
        """
        A certificate that is not valid yet is refused.
        """
        early = credentials(DispatcherRole("hq"), now=TODAY + 2 * DAY, days=1)
        self.assertCertificateRefused(early.cert, KEY, "bad certificate")

    def test_expiredCa(self) -> None:
        """
        A certificate is worth no more than its CA.
        """
        ca = make_ca(CA_KEY, common_name="test CA", days=1, now=TODAY - 5 * DAY)
        server = mutual_server(Credentials.from_pem(key=KEY, cert=AGENT.cert, ca=ca))
        client = ClientConnections(showing(DISPATCHER.cert, KEY))
        self.assertRefused(
            *connected(server, client),
            "certificate verify failed",
            "certificate expired",
        )

    def test_selfSigned(self) -> None:
        """
        A certificate that nobody but its holder signed is refused.
        """
        lone = handmade("ctrl-exec", now=TODAY)
        self.assertCertificateRefused(lone, KEY, "unknown ca")

    def test_signedByAnAgent(self) -> None:
        """
        An agent can not certify anybody, though it shows the whole chain.
        """
        for agent in (AGENT, original("agent")):
            forged = certified_by(agent.cert, agent.key, "ctrl-exec", is_ca=False)
            context = showing(forged, OTHER_KEY, agent.cert)
            self.assertRefused(
                *connected(mutual_server(agent), ClientConnections(context)),
                "certificate verify failed",
                "unknown ca",
            )

    def test_signedBelowOurCa(self) -> None:
        """
        Nor can a CA that ours made, were there one by mistake: the original's
        does not forbid it. Trust goes no further than one signature.
        """
        agent, ca_key = original("agent"), data("original-ca.key")
        below = certified_by(agent.ca, ca_key, "CA below", is_ca=True)
        forged = certified_by(below, OTHER_KEY, "ctrl-exec", is_ca=False)
        context = showing(forged, OTHER_KEY, below)
        self.assertRefused(
            *connected(mutual_server(agent), ClientConnections(context)),
            "certificate verify failed",
            "unknown ca",
        )

    def test_wrongKey(self) -> None:
        """
        A certificate without its key is of no use, not even for making a
        connection.
        """
        stolen = Credentials(OTHER_KEY, DISPATCHER.cert, CA, DISPATCHER.info)
        for make in (mutual_server, mutual_client, pairing_server):
            self.assertRaises(SSL.Error, make, stolen)

    def test_hostNameIsNothing(self) -> None:
        """
        An agent's certificate is a valid one on any address: whose it is, the
        caller has to compare.
        """
        server = mutual_server(credentials(AgentRole("elsewhere")))
        _, at_client = self.assertSpoken(server, mutual_client(DISPATCHER))
        seen = at_client.sees()
        assert seen is not None
        self.assertEqual(seen.role, AgentRole("elsewhere"))


class PolicyTests(WiredTestCase):
    """
    Which TLS we speak, with everybody.
    """

    def test_oldVersion(self) -> None:
        """
        A client of TLS 1.1 is refused, by agent and pairing listener.
        """
        client = client_of(SSL.TLS1_1_VERSION, b"ALL:@SECLEVEL=0")
        for server in (mutual_server(AGENT), pairing_server(AGENT)):
            peers = connected(server, client)
            self.assertRefused(*peers, "unsupported protocol", "protocol version")

    def test_oldSuites(self) -> None:
        """
        Suites without authenticated encryption or without forward secrecy are
        refused, though the server's key could serve them.
        """
        server = mutual_server(original("agent"))
        for suite in (b"ECDHE-RSA-AES128-SHA256", b"AES128-GCM-SHA256"):
            client = client_of(SSL.TLS1_2_VERSION, suite, original("dispatcher"))
            peers = connected(server, client)
            self.assertRefused(*peers, "no shared cipher", "handshake failure")

    def test_version12(self) -> None:
        """
        A client of TLS 1.2 that offers everything is served.
        """
        client = client_of(SSL.TLS1_2_VERSION, b"ALL")
        self.assertSpoken(mutual_server(AGENT), client)

    def test_suites(self) -> None:
        """
        Nothing but authenticated encryption is on offer.
        """
        for creator in (mutual_client(AGENT), pairing_client()):
            connection = SSL.Connection(creator.context, None)
            for suite in connection.get_cipher_list():
                self.assertRegex(suite, "^(TLS_|ECDHE-).*(GCM|POLY1305)")


class PairingTests(WiredTestCase):
    """
    Connections that begin before there is trust.
    """

    def test_pairing(self) -> None:
        """
        A host without any certificate reaches a dispatcher, and sees its
        certificate.
        """
        at_server, at_client = self.assertSpoken(
            pairing_server(DISPATCHER), pairing_client()
        )
        self.assertIsNone(at_server.sees())
        self.assertEqual(at_client.sees(), DISPATCHER.info)

    def test_pairingWithOriginal(self) -> None:
        """
        So does it with a dispatcher of the original.
        """
        self.assertSpoken(pairing_server(original("dispatcher")), pairing_client())

    def test_ambiguousPeer(self) -> None:
        """
        A certificate with two roles is an error to whoever asks whose it is.
        """
        uris = ("urn:ctrl-exec:agent:a", "urn:ctrl-exec:dispatcher:a")
        context = showing(handmade("x", uris=uris), KEY)
        _, at_client = connected(ServerConnections(context), pairing_client())
        self.assertRaises(PkiError, at_client.sees)


class ResumptionTests(SynchronousTestCase):
    """
    Session tickets, with the C{ssl} module of Python as the client: another
    implementation, on another copy of OpenSSL.
    """

    def client(self, version: ssl.TLSVersion) -> ssl.SSLContext:
        """
        A client with the identity of an original dispatcher.
        """
        folder = Path(__file__).parent / "data"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(folder / "original-ca.crt")
        context.load_cert_chain(
            folder / "original-dispatcher.crt", folder / "original-dispatcher.key"
        )
        context.minimum_version = context.maximum_version = version
        return context

    def exchange(
        self,
        client: ssl.SSLContext,
        server: ServerConnections,
        session: ssl.SSLSession | None,
    ) -> tuple[ssl.SSLObject, SSL.Connection]:
        """
        Let a client connect, and the server say a word.
        """
        to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        theirs = client.wrap_bio(to_client, to_server, session=session)
        ours = SSL.Connection(server.context, None)
        ours.set_accept_state()
        for _ in range(3):
            with contextlib.suppress(ssl.SSLWantReadError):
                theirs.do_handshake()
            if said := to_server.read():
                ours.bio_write(said)
            with contextlib.suppress(SSL.WantReadError):
                ours.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                to_client.write(ours.bio_read(65536))
        ours.send(b"word")
        to_client.write(ours.bio_read(65536))
        self.assertEqual(theirs.read(), b"word")
        return theirs, ours

    def test_resumed(self) -> None:
        """
        A second connection resumes the first, and its peer is still known.
        """
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            client, server = self.client(version), mutual_server(original("agent"))
            first, _ = self.exchange(client, server, None)
            self.assertIs(first.session_reused, False)
            second, ours = self.exchange(client, server, first.session)
            self.assertIs(second.session_reused, True)
            peer = ours.get_peer_certificate(as_cryptography=True)
            self.assertEqual(peer, parse_certificate(data("original-dispatcher.crt")))

    def test_renewed(self) -> None:
        """
        No session outlives the context that it began with.
        """
        client = self.client(ssl.TLSVersion.TLSv1_3)
        first, _ = self.exchange(client, mutual_server(original("agent")), None)
        server = mutual_server(original("agent"))
        second, _ = self.exchange(client, server, first.session)
        self.assertIs(second.session_reused, False)

    def test_shortLived(self) -> None:
        """
        A session is given five minutes.
        """
        client = self.client(ssl.TLSVersion.TLSv1_2)
        server = mutual_server(original("agent"))
        first, _ = self.exchange(client, server, None)
        assert first.session is not None
        self.assertEqual(first.session.ticket_lifetime_hint, 300)
