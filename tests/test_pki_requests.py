# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.pki}: signing requests and their codes.
"""

from __future__ import annotations

import json

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.errors import RequestRejected
from ctrlexec.pki import (
    confirmation_code,
    make_csr,
    parse_private_key,
    read_csr,
)
from tests.authority import (
    CA,
    KEY,
    OTHER_KEY,
    damaged_pem,
    data,
    framed,
)


class RequestTests(SynchronousTestCase):
    """
    L{read_csr}.
    """

    def rejected(self, pem: bytes) -> str:
        """
        The sentence with which a request is rejected.
        """
        return str(self.assertRaises(RequestRejected, read_csr, pem))

    def test_ours(self) -> None:
        """
        What we make, we read.
        """
        pem = make_csr(KEY, "agent-one")
        csr = read_csr(pem)
        self.assertEqual(csr.pem, pem)
        self.assertEqual(csr.common_name, "agent-one")
        self.assertEqual(csr.public_key, parse_private_key(KEY).public_key())

    def test_openssl(self) -> None:
        """
        Requests made by openssl are read, whatever their kind of key.
        """
        for name in ("original-agent.csr", "p256.csr", "ed25519.csr"):
            self.assertEqual(read_csr(data(name)).common_name, "agent-one")

    def test_carriageReturns(self) -> None:
        """
        Lines may end in CR LF, and the text is kept so for the code.
        """
        pem = data("p256.csr").replace(b"\n", b"\r\n")
        self.assertEqual(read_csr(pem).pem, pem)

    def test_tooLong(self) -> None:
        """
        One byte over the limit is refused, the limit itself is not.
        """
        pem = data("p256.csr")
        self.assertIn("10241 bytes", self.rejected(pem + b"\n" * (10_241 - len(pem))))
        read_csr(pem + b"\n" * (10_240 - len(pem)))

    def test_notOneRequest(self) -> None:
        """
        Anything around, before or instead of the one request is refused.
        """
        pem = data("p256.csr")
        for wrong in (b"", b"x", b"x\n" + pem, pem + b"x", pem + pem, CA, pem[:-20]):
            self.assertIn("not one PEM certificate request", self.rejected(wrong))

    def test_notWellFormed(self) -> None:
        """
        A PEM frame round something else is refused.
        """
        wrong = framed("CERTIFICATE REQUEST", b"no request at all")
        self.assertIn("not well formed", self.rejected(wrong))

    def test_weak(self) -> None:
        """
        Weak keys and weak hashes are refused, each for what it is.
        """
        for name, reason in {
            "weak-md5.csr": "signed with md5",
            "weak-sha1.csr": "signed with sha1",
            "weak-rsa-1024.csr": "RSA of 1024 bits",
            "weak-secp256k1.csr": "curve secp256k1",
            "weak-ed448.csr": "neither RSA, elliptic curve nor Ed25519",
            "weak-dsa.csr": "neither RSA, elliptic curve nor Ed25519",
        }.items():
            self.assertIn(reason, self.rejected(data(name)))

    def test_names(self) -> None:
        """
        A request asks in one name.
        """
        self.assertIn("2 common names", self.rejected(data("two-names.csr")))
        self.assertIn("0 common names", self.rejected(data("no-name.csr")))

    def test_badSignature(self) -> None:
        """
        A request that is signed by another key than its own is refused.
        """
        mine, other = (
            x509.load_pem_x509_csr(make_csr(key, "agent-one"))
            for key in (KEY, OTHER_KEY)
        )
        point, foreign = (
            request.public_key().public_bytes(
                serialization.Encoding.DER,
                serialization.PublicFormat.SubjectPublicKeyInfo,
            )
            for request in (mine, other)
        )
        der = mine.public_bytes(serialization.Encoding.DER).replace(point, foreign)
        forged = x509.load_der_x509_csr(der).public_bytes(serialization.Encoding.PEM)
        self.assertIn("not signed by its own key", self.rejected(forged))

    @given(st.data())
    def test_damaged(self, draw: st.DataObject) -> None:
        """
        A request with a damaged byte is rejected, and never anything worse.
        """
        request = x509.load_pem_x509_csr(data("p256.csr"))
        der = request.public_bytes(serialization.Encoding.DER)
        wrong = damaged_pem(draw, "CERTIFICATE REQUEST", der)
        self.assertRaises(RequestRejected, read_csr, wrong)

    @given(st.binary(max_size=2000))
    def test_arbitrary(self, junk: bytes) -> None:
        """
        Arbitrary bytes are rejected, and never anything worse.
        """
        self.assertRaises(RequestRejected, read_csr, junk)


class CodeTests(SynchronousTestCase):
    """
    L{confirmation_code}.
    """

    def test_knownAnswers(self) -> None:
        """
        The codes are those that sha256sum and a calculator give.
        """
        for vector in json.loads(data("confirmation-codes.json"))["vectors"]:
            code = confirmation_code(vector["text"].encode())
            self.assertEqual(code, vector["code"], vector["what"])

    @given(st.binary())
    def test_form(self, text: bytes) -> None:
        """
        A code always has six digits.
        """
        self.assertRegex(confirmation_code(text), r"^[0-9]{6}$")
