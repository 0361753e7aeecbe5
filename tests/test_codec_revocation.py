# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.protocol.revocation} and
L{ctrlexec.protocol.codec_revocation}: lists of what is revoked, as they are
signed, sent and checked.
"""

from __future__ import annotations

import json
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.certificates import (
    DispatcherRole,
)
from ctrlexec.errors import PkiError, ProtocolError
from ctrlexec.pki import KeyType, generate_key, make_ca
from ctrlexec.protocol.codec_revocation import (
    decode_acknowledgement,
    decode_revocations,
    encode_acknowledgement,
    encode_revocations,
)
from ctrlexec.protocol.revocation import (
    MOST_SERIALS,
    Acknowledged,
    NotAcknowledged,
    Revocations,
    SignedRevocations,
    signed,
    signer_of,
)
from tests.authority import CA, CA_KEY, DAY, KEY, NOW, OTHER_KEY, issued
from tests.revocations import by, listed, of_ca

SERIALS = st.frozensets(st.integers(0, 2**160).map("{:x}".format), max_size=5)
LISTS = st.builds(
    Revocations,
    issuer=st.sampled_from(["hq", "lab"]),
    number=st.integers(1, 2**53 - 1),
    issued=st.just("2026-03-05T18:38:09Z"),
    serials=SERIALS,
)


class CodecTests(SynchronousTestCase):
    """
    The list on the wire
    """

    @given(LISTS)
    def test_roundTrip(self, revocations: Revocations) -> None:
        """
        What is sent is what arrives, and its signature is good still.
        """
        for cert in ("", issued(DispatcherRole("hq")).decode()):
            sent = signed(revocations, KEY if cert else CA_KEY, cert)
            found = decode_revocations(encode_revocations(sent))
            self.assertEqual(found, sent)
            info = signer_of(found, CA, NOW)
            self.assertEqual(info is None, not cert)

    def test_digitsOnly(self) -> None:
        """
        A serial of digits only is hex here, and nothing else.
        """
        fields = json.loads(encode_revocations(of_ca(1)))
        body = json.dumps({**fields, "serials": ["10", "0A"]}).encode()
        found = decode_revocations(body).revocations
        self.assertEqual(found.serials, {"10", "a"})

    def test_nonsense(self) -> None:
        """
        What is no list is none.
        """
        fields = json.loads(encode_revocations(of_ca(1, "a1")))
        many = [f"{each:x}" for each in range(MOST_SERIALS + 1)]
        for change in (
            {"number": 0},
            {"number": True},
            {"number": "1"},
            {"number": 2**53},
            {"serials": None},
            {"serials": "a1"},
            {"serials": [1]},
            {"serials": ["no hex"]},
            {"serials": many},
            {"issued": ""},
            {"issued": 7},
            {"issuer": ""},
            {"issuer": "../hq"},
            {"signature": "no hex"},
            {"signature": "ü"},
            {"cert": 1},
        ):
            body = json.dumps({**fields, **change}).encode()
            self.assertRaises(ProtocolError, decode_revocations, body)
        for body in (b"", b"[]", b"{}", b"{"):
            self.assertRaises(ProtocolError, decode_revocations, body)

    @given(
        st.one_of(
            st.builds(Acknowledged, st.integers(1, 2**53 - 1)),
            st.builds(NotAcknowledged, st.just("no"), st.integers(0, 2**53 - 1)),
        )
    )
    def test_answers(self, answer: Acknowledged | NotAcknowledged) -> None:
        """
        So are the answers, and nothing is taken for one of them.
        """
        body = encode_acknowledgement(answer)
        self.assertEqual(decode_acknowledgement(body), answer)
        for body in (b"{}", b"[]", b'{"status":"ok"}', b'{"status":"error"}'):
            self.assertRaises(ProtocolError, decode_acknowledgement, body)


class SignatureTests(SynchronousTestCase):
    """
    L{signer_of}
    """

    def refused(self, found: SignedRevocations, now: Any = NOW, ca: bytes = CA) -> str:
        """
        Why a list is nobody's.
        """
        return str(self.assertRaises(PkiError, signer_of, found, ca, now))

    def test_changed(self) -> None:
        """
        Whatever is changed about a list, its signature is not good any more.
        """
        for sent in (of_ca(5, "a1"), by(DispatcherRole("hq"), 5, "a1")):
            before = sent.revocations
            for change in (
                {"number": 6},
                {"serials": frozenset({"a2"})},
                {"serials": frozenset({"a", "1"})},
                {"serials": frozenset[str]()},
                {"issuer": "lab"},
                {"issued": "2026-03-05T18:38:10Z"},
            ):
                other = attrs.evolve(before, **change)
                found = attrs.evolve(sent, revocations=other)
                self.assertIn("not good", self.refused(found))

    def test_otherHand(self) -> None:
        """
        Another key, another CA, or the certificate of somebody else: none of
        them will do.
        """
        forged = signed(listed(5, "a1"), OTHER_KEY)
        self.assertIn("not good", self.refused(forged))
        cert = issued(DispatcherRole("hq")).decode()
        forged = signed(listed(5, "a1"), OTHER_KEY, cert)
        self.assertIn("not good", self.refused(forged))
        other = make_ca(OTHER_KEY, common_name="test CA", days=9, now=NOW)
        self.assertIn("not good", self.refused(of_ca(5), ca=other))
        self.assertIn(
            "not signed by", self.refused(by(DispatcherRole("hq"), 5), ca=other)
        )

    def test_outOfDate(self) -> None:
        """
        A certificate that has ended signs nothing more.
        """
        found = by(DispatcherRole("hq"), 5)
        self.assertIn("not in date", self.refused(found, NOW + 11 * DAY))
        self.assertIn("not in date", self.refused(found, NOW - DAY))

    def test_rsa(self) -> None:
        """
        A CA of the original has a key of another kind.
        """
        key = generate_key(KeyType.RSA)
        ca = make_ca(key, common_name="test CA", days=9, now=NOW)
        found = signed(listed(5, "a1"), key)
        self.assertIsNone(signer_of(found, ca, NOW))
        other = attrs.evolve(found, revocations=listed(6, "a1"))
        self.assertIn("not good", self.refused(other, ca=ca))
