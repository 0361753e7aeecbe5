# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.pki}; its requests are in C{test_pki_requests}.
"""

from __future__ import annotations

from datetime import datetime, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.errors import InvalidValue, PkiError
from ctrlexec.pki import (
    AgentRole,
    DispatcherRole,
    KeyType,
    check_identity,
    check_issued,
    generate_key,
    is_unmistakable,
    issue,
    make_csr,
    parse_private_key,
    random_serial,
    read_certificate,
    read_csr,
)
from tests.authority import (
    CA,
    CA_KEY,
    DAY,
    HOUR,
    KEY,
    NOW,
    OTHER_KEY,
    data,
    issued,
)


class KeyTests(SynchronousTestCase):
    """
    L{generate_key}.
    """

    def test_ec(self) -> None:
        """
        Our default key is on P-256.
        """
        key = parse_private_key(generate_key(KeyType.EC))
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self.assertEqual(key.curve.name, "secp256r1")

    def test_rsa(self) -> None:
        """
        An RSA key is long enough for a dispatcher of the original's newer line.
        """
        key = parse_private_key(generate_key(KeyType.RSA))
        assert isinstance(key, rsa.RSAPrivateKey)
        self.assertEqual(key.key_size, 4096)


class SerialTests(SynchronousTestCase):
    """
    L{random_serial}.
    """

    def test_random(self) -> None:
        """
        Serials are 128 bits, unmistakably hex, and different.
        """
        serials = {random_serial() for _ in range(200)}
        self.assertEqual(len(serials), 200)
        for serial in serials:
            self.assertRegex(f"{serial:x}", r"^(?=.*[a-f])[1-9a-f][0-9a-f]{31}$")

    def test_mistakable(self) -> None:
        """
        Only digits, or a zero in front, could be misread.
        """
        self.assertFalse(is_unmistakable(int("1" * 32, 16)))
        self.assertFalse(is_unmistakable(int("0" + "a" * 31, 16)))
        self.assertFalse(is_unmistakable(1 << 128))
        self.assertTrue(is_unmistakable(int("1" * 31 + "a", 16)))

    @given(st.integers(min_value=0, max_value=(1 << 130) - 1))
    def test_reading(self, serial: int) -> None:
        """
        An unmistakable serial has no reading as a decimal number.
        """
        text = f"{serial:x}"
        expected = len(text) == 32 and any(c in "abcdef" for c in text)
        self.assertEqual(is_unmistakable(serial), expected)


class CaTests(SynchronousTestCase):
    """
    L{make_ca}.
    """

    def test_extensions(self) -> None:
        """
        Our CA signs certificates and revocation lists, and no other CA.
        """
        ca = x509.load_pem_x509_certificate(CA)
        constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = ca.extensions.get_extension_for_class(x509.KeyUsage)
        self.assertTrue(constraints.critical and usage.critical)
        self.assertEqual(constraints.value, x509.BasicConstraints(True, 0))
        self.assertTrue(usage.value.key_cert_sign and usage.value.crl_sign)
        self.assertFalse(usage.value.digital_signature)
        self.assertTrue(is_unmistakable(ca.serial_number))

    def test_info(self) -> None:
        """
        Its name, its validity and its lack of a role can be read.
        """
        info = read_certificate(CA)
        self.assertEqual(info.common_name, "test CA")
        self.assertEqual(info.not_before, NOW - HOUR)
        self.assertEqual(info.not_after, NOW + 1000 * DAY)
        self.assertIsNone(info.role)


class IssueTests(SynchronousTestCase):
    """
    L{issue}.
    """

    def names(self, certificate: bytes) -> tuple[list[str], list[str]]:
        """
        The URIs and the DNS names of a certificate.
        """
        found = x509.load_pem_x509_certificate(certificate).extensions
        names = found.get_extension_for_class(x509.SubjectAlternativeName).value
        return (
            names.get_values_for_type(x509.UniformResourceIdentifier),
            names.get_values_for_type(x509.DNSName),
        )

    def test_agent(self) -> None:
        """
        An agent's certificate says who it is, from when, until when.
        """
        cert = issued(AgentRole("agent-one"))
        info = check_issued(cert=cert, ca=CA, key=KEY, now=NOW)
        self.assertEqual(info.common_name, "agent-one")
        self.assertEqual(info.role, AgentRole("agent-one"))
        self.assertEqual(info.not_before, NOW - HOUR)
        self.assertEqual(info.not_after, NOW + 10 * DAY)
        self.assertEqual(
            self.names(cert), (["urn:ctrl-exec:agent:agent-one"], ["agent-one"])
        )

    def test_dispatcher(self) -> None:
        """
        A dispatcher's certificate keeps the original's common name beside the
        id.
        """
        cert = issued(DispatcherRole("hq-1"), common_name="ctrl-exec")
        info = read_certificate(cert)
        self.assertEqual(info.common_name, "ctrl-exec")
        self.assertEqual(info.role, DispatcherRole("hq-1"))
        self.assertEqual(
            self.names(cert), (["urn:ctrl-exec:dispatcher:hq-1"], ["hq-1"])
        )

    def test_extensions(self) -> None:
        """
        The holder is no CA, signs with its key, and is both ends of TLS.
        """
        certificate = x509.load_pem_x509_certificate(issued(AgentRole("a")))
        found = certificate.extensions
        constraints = found.get_extension_for_class(x509.BasicConstraints)
        usage = found.get_extension_for_class(x509.KeyUsage)
        purposes = found.get_extension_for_class(x509.ExtendedKeyUsage).value
        self.assertTrue(constraints.critical and usage.critical)
        self.assertFalse(constraints.value.ca)
        self.assertTrue(usage.value.digital_signature)
        self.assertFalse(usage.value.key_cert_sign or usage.value.key_encipherment)
        self.assertEqual(
            set(purposes),
            {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH},
        )
        self.assertTrue(is_unmistakable(certificate.serial_number))

    def test_keyIdentifiers(self) -> None:
        """
        The certificate points at the key of its CA.
        """
        for ca, ca_key in (
            (CA, CA_KEY),
            (data("original-ca-v3.crt"), data("original-ca.key")),
        ):
            found = x509.load_pem_x509_certificate(
                issued(AgentRole("a"), ca=ca, ca_key=ca_key)
            ).extensions
            authority = x509.load_pem_x509_certificate(ca).extensions
            own = authority.get_extension_for_class(x509.SubjectKeyIdentifier)
            pointer = found.get_extension_for_class(x509.AuthorityKeyIdentifier)
            self.assertEqual(pointer.value.key_identifier, own.value.digest)

    def test_originalCa(self) -> None:
        """
        The original's CA, of either version of X.509, signs RSA and our keys.
        """
        ca_key = data("original-ca.key")
        request = read_csr(data("original-agent.csr"))
        for ca in (data("original-ca.crt"), data("original-ca-v3.crt")):
            for csr, key in (
                (request, data("original-agent.key")),
                (read_csr(make_csr(KEY, "agent-one")), KEY),
            ):
                cert = issue(
                    csr,
                    ca_cert=ca,
                    ca_key=ca_key,
                    role=AgentRole("agent-one"),
                    common_name="agent-one",
                    days=825,
                    now=datetime(2030, 1, 1, tzinfo=timezone.utc),
                )
                check_identity(cert=cert, ca=ca, key=key)

    def test_rsaKeyUsage(self) -> None:
        """
        An RSA key may encipher keys too, as old peers expect.
        """
        cert = issue(
            read_csr(data("original-agent.csr")),
            ca_cert=CA,
            ca_key=CA_KEY,
            role=AgentRole("agent-one"),
            common_name="agent-one",
            days=1,
            now=NOW,
        )
        usage = x509.load_pem_x509_certificate(cert).extensions
        self.assertTrue(
            usage.get_extension_for_class(x509.KeyUsage).value.key_encipherment
        )

    def test_nothingFromTheRequest(self) -> None:
        """
        A request that asks to be a dispatcher and a CA gets neither.
        """
        private = parse_private_key(KEY)
        wish = x509.UniformResourceIdentifier("urn:ctrl-exec:dispatcher:hq-1")
        request = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "boss")]))
            .add_extension(x509.SubjectAlternativeName([wish]), critical=True)
            .add_extension(x509.BasicConstraints(True, None), critical=True)
            .sign(private, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )
        cert = issue(
            read_csr(request),
            ca_cert=CA,
            ca_key=CA_KEY,
            role=AgentRole("agent-one"),
            common_name="agent-one",
            days=1,
            now=NOW,
        )
        info = read_certificate(cert)
        self.assertEqual(info.common_name, "agent-one")
        self.assertEqual(info.role, AgentRole("agent-one"))
        found = x509.load_pem_x509_certificate(cert).extensions
        self.assertFalse(found.get_extension_for_class(x509.BasicConstraints).value.ca)

    def test_longName(self) -> None:
        """
        A name beyond the 64 characters of X.509 is whole in role and DNS name.
        """
        name = ".".join(["a" * 60] * 4)
        cert = issued(AgentRole(name), common_name=name)
        self.assertEqual(read_certificate(cert).common_name, name[:64])
        self.assertEqual(read_certificate(cert).role, AgentRole(name))
        self.assertEqual(self.names(cert), ([f"urn:ctrl-exec:agent:{name}"], [name]))

    def test_noDnsName(self) -> None:
        """
        A name that DNS does not allow is left out there, and only there.
        """
        for name in ("db_1", "a..b", "a-", "a.", "10.0.0.1", "7", "x" * 64):
            uris, dns = self.names(issued(AgentRole(name), common_name=name))
            self.assertEqual(uris, [f"urn:ctrl-exec:agent:{name}"])
            self.assertEqual(dns, [])

    def test_outlastsCa(self) -> None:
        """
        No certificate outlasts its CA.
        """
        info = read_certificate(issued(AgentRole("a"), days=5000))
        self.assertEqual(info.not_after, NOW + 1000 * DAY)

    def test_expiredCa(self) -> None:
        """
        A CA that has expired signs nothing.
        """
        with self.assertRaisesRegex(PkiError, "the CA expired at 2028-11-29"):
            issued(AgentRole("a"), now=NOW + 1000 * DAY)

    def test_otherCaKey(self) -> None:
        """
        A key that is not the CA's signs nothing.
        """
        with self.assertRaisesRegex(PkiError, "does not belong to the CA"):
            issued(AgentRole("a"), ca_key=OTHER_KEY)

    def test_roleNames(self) -> None:
        """
        A role is for a name that can be one, and nothing that forges another.
        """
        for wrong in ("", "a:b", "a b", "../a", "-a", "a" * 254, "a\n"):
            self.assertRaises(InvalidValue, AgentRole, wrong)
            self.assertRaises(InvalidValue, DispatcherRole, wrong)
