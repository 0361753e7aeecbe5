# SPDX-License-Identifier: AGPL-3.0-only
"""
Real TLS in memory: hosts, strangers, and a wire between them.

OpenSSL reads the machine's clock and lets nobody hand it another, so the
certificates here are made round the time that it is.
"""

from __future__ import annotations

from datetime import datetime, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    wrapClientTLS,
    wrapServerTLS,
)
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.test.iosim import ConnectionCompleter
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.pki import (
    AgentRole,
    CertificateInfo,
    DispatcherRole,
    Role,
    make_ca,
    make_csr,
    parse_certificate,
    parse_private_key,
    read_csr,
)
from ctrlexec.tls import (
    ClientConnections,
    Credentials,
    ServerConnections,
    mutual_client,
    mutual_server,
    peer_certificate,
)
from tests.authority import CA_KEY, DAY, HOUR, KEY, OTHER_KEY, data, issued, pem_of

TODAY = datetime.now(timezone.utc)
CA = make_ca(CA_KEY, common_name="test CA", days=9, now=TODAY - 5 * DAY)
OTHER_CA = make_ca(OTHER_KEY, common_name="test CA", days=9, now=TODAY)


def credentials(
    role: Role,
    *,
    days: int = 2,
    now: datetime = TODAY,
    ca: bytes = CA,
    ca_key: bytes = CA_KEY,
) -> Credentials:
    """
    Credentials of one of our hosts.
    """
    cert = issued(role, days=days, now=now, ca=ca, ca_key=ca_key)
    return Credentials.from_pem(key=KEY, cert=cert, ca=ca)


def original(name: str, ca: str = "original-ca.crt") -> Credentials:
    """
    Credentials of a host of the original.
    """
    return Credentials.from_pem(
        key=data(f"original-{name}.key"),
        cert=data(f"original-{name}.crt"),
        ca=data(ca),
    )


AGENT = credentials(AgentRole("agent-one"))
DISPATCHER = credentials(DispatcherRole("hq"))


class Peer(Protocol):
    """
    One side: it says C{hello} when it is connected, and remembers what it sees.
    """

    def __init__(self) -> None:
        self.received = b""
        self.lost: Failure | None = None

    def connectionMade(self) -> None:
        """
        Say something, which only a finished handshake delivers.
        """
        assert self.transport is not None
        self.transport.write(b"hello")

    def dataReceived(self, data: bytes) -> None:
        """
        Remember it.
        """
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Remember why.
        """
        self.lost = reason

    def sees(self) -> CertificateInfo | None:
        """
        Who is at the other end.
        """
        assert self.transport is not None
        return peer_certificate(self.transport)  # type: ignore[arg-type]


def factory_of(peer: Peer) -> Factory:
    """
    A factory that makes one peer.
    """
    return Factory.forProtocol(lambda: peer)


def connected(
    server: IOpenSSLServerConnectionCreator, client: IOpenSSLClientConnectionCreator
) -> tuple[Peer, Peer]:
    """
    Connect two sides in memory, and let them speak until both are silent.
    """
    reactor = MemoryReactorClock()
    peers = Peer(), Peer()
    listening = TCP4ServerEndpoint(reactor, 7443)
    connecting = TCP4ClientEndpoint(reactor, "127.0.0.1", 7443)
    wrapServerTLS(server, listening, clock=reactor).listen(factory_of(peers[0]))
    wrapClientTLS(client, connecting, clock=reactor).connect(factory_of(peers[1]))
    pump = ConnectionCompleter(reactor).succeedOnce()
    assert pump is not None
    pump.flush()
    return peers


def client_of(
    version: int, suites: bytes, shown: Credentials = DISPATCHER
) -> ClientConnections:
    """
    A client of one version of TLS, with suites of its own choice.
    """
    context = showing(shown.cert, shown.key)
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    context.set_cipher_list(suites)
    return ClientConnections(context)


def certified_by(cert: bytes, key: bytes, common_name: str, *, is_ca: bool) -> bytes:
    """
    A certificate for L{OTHER_KEY}, signed by whoever holds this certificate and
    its key, whether or not it is for certifying.
    """
    csr = read_csr(make_csr(OTHER_KEY, common_name))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.load_pem_x509_csr(csr.pem).subject)
        .issuer_name(parse_certificate(cert).subject)
        .public_key(csr.public_key)
        .serial_number(99)
        .not_valid_before(TODAY - HOUR)
        .not_valid_after(TODAY + DAY)
        .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
        .sign(parse_private_key(key), hashes.SHA256())
    )
    return pem_of(certificate)


def showing(cert: bytes, key: bytes, *chain: bytes) -> SSL.Context:
    """
    A context that shows any certificate at all, and verifies nothing.
    """
    context = SSL.Context(SSL.TLS_METHOD)
    context.use_certificate(parse_certificate(cert))
    context.use_privatekey(parse_private_key(key))
    for link in chain:
        context.add_extra_chain_cert(parse_certificate(link))
    return context


class WiredTestCase(SynchronousTestCase):
    """
    What tests of connections ask.
    """

    def assertSpoken(
        self,
        server: IOpenSSLServerConnectionCreator,
        client: IOpenSSLClientConnectionCreator,
    ) -> tuple[Peer, Peer]:
        """
        Both sides accept each other, and hear each other.
        """
        peers = connected(server, client)
        for peer in peers:
            self.assertIsNone(peer.lost)
            self.assertEqual(peer.received, b"hello")
        return peers

    def assertRefused(
        self, refusing: Peer, refused: Peer, why: str, alert: str
    ) -> None:
        """
        One side refused the other for this reason, and told it with this alert.
        No word got through in either direction.

        In TLS 1.3 a client is connected before the server has looked at its
        certificate, so a refused client may believe for a moment that all is
        well: what counts is that its connection is lost.
        """
        for peer, reason in ((refusing, why), (refused, alert)):
            self.assertEqual(peer.received, b"")
            assert peer.lost is not None
            peer.lost.trap(SSL.Error)
            self.assertIn(reason, str(peer.lost.value))

    def assertCertificateRefused(self, cert: bytes, key: bytes, alert: str) -> None:
        """
        An agent refuses a client that shows this certificate, a dispatcher
        refuses such a server, and the alert tells what is wrong with it.
        """
        stranger, why = showing(cert, key), "certificate verify failed"
        peers = connected(mutual_server(AGENT), ClientConnections(stranger))
        self.assertRefused(*peers, why, alert)
        peers = connected(ServerConnections(stranger), mutual_client(DISPATCHER))
        self.assertRefused(peers[1], peers[0], why, alert)
