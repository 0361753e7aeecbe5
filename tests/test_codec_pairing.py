# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.protocol.codec}: C{POST /pair}.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ctrlexec.protocol import codec
from ctrlexec.protocol.messages import (
    REJECTED,
    TIMED_OUT,
    PairApproved,
    PairDecision,
    PairDenied,
    PairFailed,
    PairPending,
    PairRequest,
)
from ctrlexec.values import is_ip_address
from tests.messages import JSON, CodecTestCase

NONCE = "0123456789abcdef0123456789ABCDEF"
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
        self.assertEqual(codec.encode_pair_request(request), body)
        self.assertEqual(codec.decode_pair_request(body), request)

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
        body = codec.encode_pair_request(request)
        self.assertEqual(codec.decode_pair_request(body), request)

    def test_incomplete(self) -> None:
        """
        A request without a name, a CSR or a nonce is none.
        """
        whole = {"hostname": "a", "csr": "PEM", "nonce": NONCE}
        for name in whole:
            for value in ("", None, 1, [0], "\ud800"):
                body = json.dumps({**whole, name: value}).encode()
                self.assertEqual(
                    codec.decode_pair_request(body), PairFailed("invalid request"), body
                )
        for nonce in (NONCE[:-1], NONCE + "0", "g" * 32, NONCE + "\n"):
            body = json.dumps({**whole, "nonce": nonce}).encode()
            self.assertEqual(
                codec.decode_pair_request(body), PairFailed("invalid request")
            )

    def test_names(self) -> None:
        """
        A name that would be a path is refused in words of its own.
        """
        for name in ("../a", "a/b", "-a", "a b", "a\n", "ä", "a" * 254):
            body = json.dumps({"hostname": name, "csr": "x", "nonce": NONCE}).encode()
            self.assertEqual(
                codec.decode_pair_request(body), PairFailed("invalid hostname")
            )

    @given(JSON, JSON, JSON | st.text().map("fe80::1%".__add__))
    def test_claims(self, lookup_by: Any, port: Any, ip: Any) -> None:
        """
        What an agent says about its address is taken if it makes sense, and
        else as if it were not said; a person will see it.
        """
        fields = {"hostname": "a", "csr": "x", "nonce": NONCE}
        body = json.dumps({**fields, "lookup_by": lookup_by, "port": port, "ip": ip})
        request = codec.decode_pair_request(body.encode())
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
            request = codec.decode_pair_request(body.encode())
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
            self.assertEqual(codec.encode_pair_first(answer), body)
            self.assertEqual(codec.decode_pair_first(body), answer)
        self.assertProtocolError(
            codec.decode_pair_first,
            b'{"status":"approved"}',
            "the answer is not a pairing listener's",
        )

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
            self.assertEqual(codec.encode_pair_decision(decision), body)
            self.assertEqual(codec.decode_pair_decision(body), decision)
        self.assertProtocolError(
            codec.decode_pair_decision,
            b'{"status":"pending"}',
            "the answer is not a pairing decision",
        )

    def test_olderApproval(self) -> None:
        """
        A dispatcher of the older line has no id.
        """
        body = b'{"status":"approved","cert":"C","ca":"A","nonce":"n"}'
        self.assertEqual(
            codec.decode_pair_decision(body), PairApproved("C", "A", "n", "", "")
        )

    def test_noReason(self) -> None:
        """
        A person always reads some reason.
        """
        self.assertEqual(
            codec.decode_pair_decision(b'{"status":"denied"}'),
            PairDenied("no reason given"),
        )
        self.assertEqual(
            codec.decode_pair_first(b'{"status":"error"}'),
            PairFailed("no reason given"),
        )
