# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.protocol.codec_pairing}: C{POST /pair}.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ctrlexec.protocol import codec_pairing
from ctrlexec.protocol.messages import (
    REJECTED,
    TIMED_OUT,
    JoinProof,
    PairApproved,
    PairDecision,
    PairDenied,
    PairFailed,
    PairOpened,
    PairPending,
    PairRequest,
    PairReveal,
)
from ctrlexec.values import is_ip_address
from tests.messages import JSON, CodecTestCase

NONCE = "0123456789abcdef0123456789ABCDEF"
DIGEST = "a1" * 32
WORDS = st.text(min_size=1)


class PairTests(CodecTestCase):
    """
    C{POST /pair}
    """

    def test_older(self) -> None:
        """
        The bytes of a request, with nothing in it that an original does not
        know.
        """
        body = b'{"hostname":"a","csr":"PEM\\n","nonce":"%s"}' % NONCE.encode()
        request = PairRequest("a", "PEM\n", NONCE)
        self.assertEqual(codec_pairing.encode_pair_request(request), body)
        self.assertEqual(codec_pairing.decode_pair_request(body), request)

    @given(
        WORDS,
        st.sampled_from(["", "ip", "hostname"]),
        st.integers(0, 65535),
        st.sampled_from(["", "10.0.0.1", "::1"]),
    )
    def test_roundTrip(self, csr: str, lookup_by: str, port: int, ip: str) -> None:
        """
        The text of the request comes through unchanged: the code covers it.
        """
        request = PairRequest("a", csr, NONCE, lookup_by, port, ip)
        body = codec_pairing.encode_pair_request(request)
        self.assertEqual(codec_pairing.decode_pair_request(body), request)

    def test_join(self) -> None:
        """
        The bytes of a join, and that they come through.
        """
        proof = JoinProof("0123456789abcdef", "b2" * 32)
        request = PairRequest("a", "PEM", NONCE, commitment=DIGEST, join=proof)
        body = codec_pairing.encode_pair_request(request)
        said = json.loads(body)["join"]
        self.assertEqual(said, {"id": "0123456789abcdef", "mac": "b2" * 32})
        self.assertEqual(codec_pairing.decode_pair_request(body), request)
        self.assertNotIn("b2b2", repr(proof))

    def test_noJoin(self) -> None:
        """
        What is only like a join is no request at all: a person must not get to
        see it as one of theirs. Nor is there one in the exchange of the
        original.
        """
        whole = {"hostname": "a", "csr": "PEM", "nonce": NONCE}
        ours = {**whole, "pair": 2, "commitment": DIGEST}
        good = {"id": "0123456789abcdef", "mac": "b2" * 32}
        broken: list[object] = [None, [], "x", 1, {}]
        wrong: list[dict[str, Any]] = [
            {**whole, "join": good},
            *({**ours, "join": each} for each in broken),
            *({**ours, "join": {**good, "id": each}} for each in ("", "g" * 16, 1)),
            *({**ours, "join": {**good, "mac": each}} for each in ("", "B2" * 32, 1)),
        ]
        for fields in wrong:
            self.assertEqual(
                codec_pairing.decode_pair_request(json.dumps(fields).encode()),
                PairFailed("invalid request"),
                fields,
            )

    def test_incomplete(self) -> None:
        """
        A request without a name, a CSR or a nonce is none.
        """
        whole = {"hostname": "a", "csr": "PEM", "nonce": NONCE}
        for name in whole:
            for value in ("", None, 1, [0], "\ud800"):
                body = json.dumps({**whole, name: value}).encode()
                self.assertEqual(
                    codec_pairing.decode_pair_request(body),
                    PairFailed("invalid request"),
                    body,
                )
        for nonce in (NONCE[:-1], NONCE + "0", "g" * 32, NONCE + "\n"):
            body = json.dumps({**whole, "nonce": nonce}).encode()
            self.assertEqual(
                codec_pairing.decode_pair_request(body), PairFailed("invalid request")
            )

    def test_names(self) -> None:
        """
        A name that would be a path is refused in words of its own.
        """
        for name in ("../a", "a/b", "-a", "a b", "a\n", "ä", "a" * 254):
            body = json.dumps({"hostname": name, "csr": "x", "nonce": NONCE}).encode()
            self.assertEqual(
                codec_pairing.decode_pair_request(body), PairFailed("invalid hostname")
            )

    @given(JSON, JSON, JSON | st.text().map("fe80::1%".__add__))
    def test_claims(self, lookup_by: Any, port: Any, ip: Any) -> None:
        """
        What an agent says about its address is taken if it makes sense, and
        else as if it were not said; a person will see it.
        """
        fields = {"hostname": "a", "csr": "x", "nonce": NONCE}
        body = json.dumps({**fields, "lookup_by": lookup_by, "port": port, "ip": ip})
        request = codec_pairing.decode_pair_request(body.encode())
        assert isinstance(request, PairRequest)
        self.assertIn(request.lookup_by, ("", "ip", "hostname"))
        self.assertIn(request.port, range(65536))
        self.assertRegex(request.ip, r"^[!-~]*\Z")
        self.assertTrue(not request.ip or is_ip_address(request.ip))

    def test_ports(self) -> None:
        """
        A port can be a number or, from the original, a string.
        """
        known = {"7443": 7443, '"7443"': 7443, "0": 0, "65536": 0, "true": 0, '"x"': 0}
        for port, expected in known.items():
            body = '{"hostname":"a","csr":"x","nonce":"%s","port":%s}' % (NONCE, port)  # noqa: UP031
            request = codec_pairing.decode_pair_request(body.encode())
            assert isinstance(request, PairRequest)
            self.assertEqual(request.port, expected)

    def test_first(self) -> None:
        """
        The bytes of the first answer.
        """
        known: dict[bytes, PairPending | PairFailed] = {
            b'{"status":"pending","reqid":"9f"}': PairPending("9f"),
            b'{"status":"error","reason":"invalid request"}': PairFailed(
                "invalid request"
            ),
        }
        for body, answer in known.items():
            self.assertEqual(codec_pairing.encode_pair_first(answer), body)
            self.assertEqual(codec_pairing.decode_pair_first(body), answer)
        self.assertProtocolError(
            codec_pairing.decode_pair_first,
            b'{"status":"approved"}',
            "the answer is not a pairing listener's",
        )

    def test_committed(self) -> None:
        """
        What ours add to a request, and what comes back as it was.
        """
        request = PairRequest("a", "PEM", NONCE, commitment=DIGEST)
        fields = json.loads(codec_pairing.encode_pair_request(request))
        self.assertEqual((fields["pair"], fields["commitment"]), (2, DIGEST))
        body = json.dumps(fields).encode()
        self.assertEqual(codec_pairing.decode_pair_request(body), request)

    def test_notCommitted(self) -> None:
        """
        Whoever says that they commit, does; whoever does not say so in so many
        words is taken for one of the original.
        """
        whole = {"hostname": "a", "csr": "x", "nonce": NONCE, "commitment": DIGEST}
        for commitment in (None, "", DIGEST[1:], DIGEST.upper(), 7, DIGEST + "\n"):
            body = json.dumps({**whole, "pair": 2, "commitment": commitment}).encode()
            failed = codec_pairing.decode_pair_request(body)
            self.assertEqual(failed, PairFailed("invalid request"), commitment)
        for pair in (None, 1, 3, "2", True, 2.0, [2]):
            body = json.dumps({**whole, "pair": pair}).encode()
            request = codec_pairing.decode_pair_request(body)
            self.assertEqual(request, PairRequest("a", "x", NONCE), pair)

    def test_opened(self) -> None:
        """
        The bytes of the answer to a commitment.
        """
        opened = PairOpened("9f", DIGEST, "CA", "CERT")
        body = (
            b'{"status":"pending","reqid":"9f","nonce_d":"%s","ca":"CA",'
            b'"cert":"CERT","pair":2}' % DIGEST.encode()
        )
        self.assertEqual(codec_pairing.encode_pair_first(opened), body)
        self.assertEqual(codec_pairing.decode_pair_first(body), opened)
        self.assertProtocolError(
            codec_pairing.decode_pair_first,
            body.replace(DIGEST.encode(), b"short"),
            "nonce_d is not 64 hex characters",
        )

    def test_reveal(self) -> None:
        """
        The bytes in which an agent shows its nonce.
        """
        reveal = PairReveal("9f", DIGEST)
        body = b'{"reqid":"9f","nonce_a":"%s"}' % DIGEST.encode()
        self.assertEqual(codec_pairing.encode_pair_reveal(reveal), body)
        self.assertEqual(codec_pairing.decode_pair_reveal(body), reveal)
        for wrong in (b"", b"{}", b"[]", body.replace(b"a1", b"A1"), b'{"reqid":7}'):
            failed = codec_pairing.decode_pair_reveal(wrong)
            self.assertEqual(failed, PairFailed("invalid request"))

    @given(
        st.binary() | st.dictionaries(st.text(), JSON).map(json.dumps).map(str.encode)
    )
    def test_anything(self, body: bytes) -> None:
        """
        Whatever a stranger sends is a message or a refusal.
        """
        for decode in (
            codec_pairing.decode_pair_request,
            codec_pairing.decode_pair_reveal,
        ):
            self.assertIsInstance(decode(body), PairFailed)

    def test_decisions(self) -> None:
        """
        The bytes of the second answer.
        """
        known: dict[bytes, PairDecision] = {
            b'{"status":"approved","cert":"C","ca":"A","nonce":"n",'
            b'"dispatcher_serial":"4f","dispatcher_id":"hq"}': (
                PairApproved("C", "A", "n", "4f", "hq")
            ),
            b'{"status":"denied","reason":"rejected by operator"}': REJECTED,
            b'{"status":"denied","reason":"approval timeout"}': TIMED_OUT,
        }
        for body, decision in known.items():
            self.assertEqual(codec_pairing.encode_pair_decision(decision), body)
            self.assertEqual(codec_pairing.decode_pair_decision(body), decision)
        self.assertProtocolError(
            codec_pairing.decode_pair_decision,
            b'{"status":"pending"}',
            "the answer is not a pairing decision",
        )

    def test_olderApproval(self) -> None:
        """
        A dispatcher of the older line has no id.
        """
        body = b'{"status":"approved","cert":"C","ca":"A","nonce":"n"}'
        self.assertEqual(
            codec_pairing.decode_pair_decision(body),
            PairApproved("C", "A", "n", "", ""),
        )

    def test_noReason(self) -> None:
        """
        A person always reads some reason.
        """
        self.assertEqual(
            codec_pairing.decode_pair_decision(b'{"status":"denied"}'),
            PairDenied("no reason given"),
        )
        self.assertEqual(
            codec_pairing.decode_pair_first(b'{"status":"error"}'),
            PairFailed("no reason given"),
        )
