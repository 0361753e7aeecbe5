# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.certificates}.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.errors import PkiError
from ctrlexec.pki import (
    AgentRole,
    ca_fingerprint,
    check_identity,
    check_issued,
    make_ca,
    parse_private_key,
    read_certificate,
)
from tests.authority import (
    CA,
    DAY,
    HOUR,
    KEY,
    NOW,
    OTHER_KEY,
    damaged_pem,
    data,
    handmade,
    issued,
)


class KeyReadingTests(SynchronousTestCase):
    """
    L{parse_private_key}.
    """

    def test_junk(self) -> None:
        """
        What is no key is refused, and nothing of it gets into the message.
        """
        broken = KEY.replace(b"M", b"-", 1)
        for junk in (b"", b"secret", CA, broken, KEY[:100]):
            error = self.assertRaises(PkiError, parse_private_key, junk)
            self.assertEqual(str(error), "not a PEM private key")
            self.assertIsNone(error.__cause__)

    def test_passphrase(self) -> None:
        """
        A key with a passphrase is refused, rather than asked about.
        """
        encrypted = parse_private_key(KEY).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"x"),
        )
        error = self.assertRaises(PkiError, parse_private_key, encrypted)
        self.assertIn("passphrase", str(error))

    def test_traditionalFormat(self) -> None:
        """
        The PEM of older openssl versions is read too.
        """
        traditional = parse_private_key(data("original-agent.key")).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        self.assertIn(b"RSA PRIVATE KEY", traditional)
        self.assertIsInstance(parse_private_key(traditional), rsa.RSAPrivateKey)


class ReadingTests(SynchronousTestCase):
    """
    L{read_certificate}.
    """

    def refused(self, pem: bytes) -> str:
        """
        Why a certificate is refused.
        """
        return str(self.assertRaises(PkiError, read_certificate, pem))

    def test_original(self) -> None:
        """
        A certificate of the original has a small serial and no role.
        """
        info = read_certificate(data("original-agent.crt"))
        self.assertEqual(info.common_name, "agent-one")
        self.assertEqual(info.serial, "3")
        self.assertIsNone(info.role)
        self.assertEqual(info.not_after.tzinfo, timezone.utc)

    def test_otherUris(self) -> None:
        """
        URIs that are not ours are no role.
        """
        info = read_certificate(handmade("x", uris=("https://example.org/",)))
        self.assertIsNone(info.role)

    def test_roles(self) -> None:
        """
        More than one role is refused, were they twice the same.
        """
        agent, dispatcher = "urn:ctrl-exec:agent:a", "urn:ctrl-exec:dispatcher:a"
        for uris in ((agent, dispatcher), (agent, agent)):
            self.assertIn("more than one role", self.refused(handmade("x", uris=uris)))

    def test_malformedRoles(self) -> None:
        """
        A role that is malformed is refused, never taken for none.
        """
        for uri in (
            "urn:ctrl-exec:",
            "urn:ctrl-exec:agent",
            "urn:ctrl-exec:agent:",
            "urn:ctrl-exec:agent:a:b",
            "urn:ctrl-exec:agent:a/../b",
            "urn:ctrl-exec:Agent:a",
            "URN:ctrl-exec:dispatcher:a",
            "urn:ctrl-exec:root:a",
            "urn:ctrl-exec:dispatcher:" + "a" * 65,
        ):
            self.assertIn("malformed role", self.refused(handmade("x", uris=(uri,))))

    def test_commonNames(self) -> None:
        """
        A certificate names one subject.
        """
        self.assertIn("2 common names", self.refused(handmade("x", "y")))
        self.assertIn("0 common names", self.refused(handmade()))

    def test_two(self) -> None:
        """
        Two certificates where one is expected are refused, for what is checked
        must be what is used.
        """
        self.assertIn("2 certificates", self.refused(CA + issued(AgentRole("a"))))

    @given(st.binary(max_size=500))
    def test_arbitrary(self, junk: bytes) -> None:
        """
        Arbitrary bytes are refused, and never anything worse.
        """
        self.assertIn("not a PEM certificate", self.refused(junk))

    @given(st.data())
    def test_damaged(self, draw: st.DataObject) -> None:
        """
        A certificate with a damaged byte is no longer the CA's.
        """
        certificate = x509.load_pem_x509_certificate(data("original-agent.crt"))
        der = certificate.public_bytes(serialization.Encoding.DER)
        wrong = damaged_pem(draw, "CERTIFICATE", der)
        ca, key = data("original-ca.crt"), data("original-agent.key")
        self.assertRaises(PkiError, check_identity, cert=wrong, ca=ca, key=key)


class AuthorityTests(SynchronousTestCase):
    """
    What may sign.
    """

    def refused(self, ca: bytes, ca_key: bytes = KEY) -> str:
        """
        Why a certificate is not taken for a CA.
        """
        error = self.assertRaises(
            PkiError, issued, AgentRole("a"), ca=ca, ca_key=ca_key
        )
        return str(error)

    def test_agentIsNone(self) -> None:
        """
        An agent's certificate is not a CA.
        """
        self.assertIn("not self-signed", self.refused(issued(AgentRole("a"))))

    def test_originalAgentIsNone(self) -> None:
        """
        Nor is an identity of the original, which has no extension to say so.
        """
        self.assertIn("not self-signed", self.refused(data("original-agent.crt")))

    def test_selfSigned(self) -> None:
        """
        Nor a self-signed certificate that does not say that it is one.
        """
        usage = x509.KeyUsage(*[True, *[False] * 8])
        for wrong in (
            handmade("x"),
            handmade("x", ca=x509.BasicConstraints(False, None)),
            handmade("x", ca=x509.BasicConstraints(True, None), usage=usage),
        ):
            self.assertIn("not one of a CA", self.refused(wrong))

    def test_two(self) -> None:
        """
        Two CAs in one file are one too many.
        """
        self.assertIn("2 certificates", self.refused(CA + data("original-ca.crt")))


class CheckTests(SynchronousTestCase):
    """
    L{check_issued}.
    """

    def refused(
        self,
        cert: bytes,
        *,
        ca: bytes = CA,
        key: bytes = KEY,
        now: datetime = NOW,
    ) -> str:
        """
        Why a certificate is refused.
        """
        error = self.assertRaises(
            PkiError, check_issued, cert=cert, ca=ca, key=key, now=now
        )
        return str(error)

    def test_otherCa(self) -> None:
        """
        Another CA's certificate is refused, and one of a CA that only has the
        same name.
        """
        cert = issued(AgentRole("a"))
        namesake = make_ca(OTHER_KEY, common_name="test CA", days=9, now=NOW)
        for ca in (data("original-ca.crt"), namesake):
            self.assertIn("not signed by this CA", self.refused(cert, ca=ca))

    def test_selfSigned(self) -> None:
        """
        So is one that nobody but its holder signed.
        """
        self.assertIn("not signed by this CA", self.refused(handmade("test CA")))

    def test_notYetValid(self) -> None:
        """
        The moment it begins is inside, the second before is not.
        """
        cert = issued(AgentRole("a"))
        check_issued(cert=cert, ca=CA, key=KEY, now=NOW - HOUR)
        early = NOW - HOUR - timedelta(seconds=1)
        self.assertIn(
            "not valid before 2026-03-05T17:38:09Z", self.refused(cert, now=early)
        )

    def test_expired(self) -> None:
        """
        The moment it ends is inside, the second after is not.
        """
        cert = issued(AgentRole("a"))
        check_issued(cert=cert, ca=CA, key=KEY, now=NOW + 10 * DAY)
        late = NOW + 10 * DAY + timedelta(seconds=1)
        self.assertIn("expired at 2026-03-15T18:38:09Z", self.refused(cert, now=late))

    def test_otherKey(self) -> None:
        """
        A certificate for another key is refused, of another kind too.
        """
        cert = issued(AgentRole("a"))
        for key in (OTHER_KEY, data("original-agent.key")):
            self.assertIn("for another key", self.refused(cert, key=key))

    def test_original(self) -> None:
        """
        What the original made passes as it is.
        """
        info = check_issued(
            cert=data("original-agent.crt"),
            ca=data("original-ca.crt"),
            key=data("original-agent.key"),
            now=datetime(2050, 1, 1, tzinfo=timezone.utc),
        )
        self.assertEqual(info.common_name, "agent-one")


class FingerprintTests(SynchronousTestCase):
    """
    L{ca_fingerprint}.
    """

    def test_fingerprint(self) -> None:
        """
        The fingerprint is that of the key: as openssl computes it, and the same
        for another certificate of the same key.
        """
        # openssl pkey -in original-ca.key -pubout -outform DER | sha256sum
        expected = (
            "sha256:c63a1429eebf01c2acf01f16d435e313758dea9434d75e0c14fd60a6ced34fb7"
        )
        self.assertEqual(ca_fingerprint(data("original-ca.crt")), expected)
        self.assertEqual(ca_fingerprint(data("original-ca-v3.crt")), expected)
