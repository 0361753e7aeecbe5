# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of the API's TLS.
"""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.api.sockets import Renewable
from ctrlexec.errors import PkiError
from ctrlexec.pki import AgentRole, make_ca
from ctrlexec.tls import ServerConnections, api_server
from tests.authority import DAY, KEY, OTHER_KEY, issued, pem_of
from tests.wired import CA, TODAY


class TlsTests(SynchronousTestCase):
    """
    L{api_server}
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.key, self.cert = self.directory / "api.key", self.directory / "api.crt"
        self.put(KEY, issued(AgentRole("api"), ca=CA, now=TODAY))

    def put(self, key: bytes, cert: bytes) -> None:
        """
        Put them in their place.
        """
        self.key.write_bytes(key)
        self.key.chmod(0o600)
        self.cert.write_bytes(cert)

    def shake(self, server: ServerConnections, client: ssl.SSLContext) -> str | None:
        """
        @return: the version that they agree on.
        """
        to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        theirs = client.wrap_bio(to_client, to_server)
        ours = SSL.Connection(server.context, None)
        ours.set_accept_state()
        for _ in range(4):
            try:
                theirs.do_handshake()
            except ssl.SSLWantReadError:
                ours.bio_write(to_server.read())
                with contextlib.suppress(SSL.WantReadError):
                    ours.do_handshake()
                to_client.write(ours.bio_read(65_536))
            else:
                break
        return theirs.version()

    def client(self) -> ssl.SSLContext:
        """
        A client that goes by our CA.
        """
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False
        client.load_verify_locations(cadata=CA.decode())
        return client

    def test_versions(self) -> None:
        """
        TLS 1.2 and 1.3, for clients without a certificate; nothing older.
        """
        server = api_server(self.key, self.cert)
        for version, name in (
            (ssl.TLSVersion.TLSv1_2, "TLSv1.2"),
            (ssl.TLSVersion.TLSv1_3, "TLSv1.3"),
        ):
            client = self.client()
            client.minimum_version = client.maximum_version = version
            self.assertEqual(self.shake(server, client), name)
        old = self.client()
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        self.assertRaises((SSL.Error, ssl.SSLError), self.shake, server, old)

    def test_chain(self) -> None:
        """
        What stands between the certificate and its authority is shown, too.
        """
        between = make_ca(OTHER_KEY, common_name="between", days=9, now=TODAY)
        leaf = issued(AgentRole("api"), ca=between, ca_key=OTHER_KEY, now=TODAY)
        self.put(KEY, leaf + between)
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False
        client.verify_mode = ssl.CERT_NONE
        server = api_server(self.key, self.cert)
        to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        theirs = client.wrap_bio(to_client, to_server)
        ours = SSL.Connection(server.context, None)
        ours.set_accept_state()
        self.assertRaises(ssl.SSLWantReadError, theirs.do_handshake)
        ours.bio_write(to_server.read())
        self.assertRaises(SSL.WantReadError, ours.do_handshake)
        # In TLS 1.2 the certificates are sent in the clear.
        shown = ours.bio_read(65_536)
        for pem in (leaf, between):
            self.assertIn(ssl.PEM_cert_to_DER_cert(pem.decode()), shown)

    def test_refused(self) -> None:
        """
        What can not be used is named, with what is wrong with it.
        """
        good = issued(AgentRole("api"), ca=CA, now=TODAY)
        for key, cert, file, why in (
            (OTHER_KEY, good, "api.crt", "the certificate is for another key"),
            (b"nonsense", good, "api.key", "not a PEM private key"),
            (KEY, b"nonsense", "api.crt", "not a PEM certificate"),
        ):
            self.put(key, cert)
            with self.assertRaises(PkiError) as caught:
                api_server(self.key, self.cert)
            self.assertEqual(str(caught.exception), f"{self.directory / file}: {why}")

    def test_weak(self) -> None:
        """
        A key that OpenSSL takes for too weak is refused before anybody connects.
        """
        weak = rsa.generate_private_key(public_exponent=65_537, key_size=1024)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "weak")])
        cert = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(weak.public_key())
            .serial_number(1)
            .not_valid_before(TODAY)
            .not_valid_after(TODAY + DAY)
            .sign(weak, hashes.SHA256())
        )
        pem = weak.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self.put(pem, pem_of(cert))
        with self.assertRaises(PkiError) as caught:
            api_server(self.key, self.cert)
        self.assertIn("too weak", str(caught.exception))

    def test_open(self) -> None:
        """
        A key that everybody can read is no secret.
        """
        self.key.chmod(0o644)
        self.assertRaises(PkiError, api_server, self.key, self.cert)

    def test_renewable(self) -> None:
        """
        What is shown can be replaced.
        """
        first, second = (api_server(self.key, self.cert) for _ in range(2))
        shown = Renewable(first)
        context = shown.serverConnectionForTLS(None).get_context()  # type: ignore[arg-type]
        self.assertIs(context, first.context)
        shown.current = second
        context = shown.serverConnectionForTLS(None).get_context()  # type: ignore[arg-type]
        self.assertIs(context, second.context)
