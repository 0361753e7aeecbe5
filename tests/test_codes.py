# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.codes}.
"""

from __future__ import annotations

import json
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.codes import Parties, commitment, is_committed, new_pairing_nonce
from tests.authority import data

NONCES = st.binary(min_size=32, max_size=32).map(bytes.hex)


def vectors() -> list[dict[str, Any]]:
    """
    The known answers.
    """
    found: list[dict[str, Any]] = json.loads(data("pairing-codes.json"))["vectors"]
    return found


def parties(vector: dict[str, Any]) -> Parties:
    """
    What a known answer is about.
    """
    return Parties(
        agent_key=bytes.fromhex(vector["agent_key"]),
        name=vector["name"],
        ca_key=bytes.fromhex(vector["ca_key"]),
        dispatcher_key=bytes.fromhex(vector["dispatcher_key"]),
        nonce_a=vector["nonce_a"],
        nonce_d=vector["nonce_d"],
    )


class CodeTests(SynchronousTestCase):
    """
    L{Parties}
    """

    def test_known(self) -> None:
        """
        Codes are those that somebody else has computed.
        """
        for vector in vectors():
            self.assertEqual(parties(vector).code, vector["code"], vector["what"])

    def test_eachFieldCounts(self) -> None:
        """
        Whatever differs, the code does: no two known answers are the same.
        """
        codes = {vector["code"] for vector in vectors()}
        self.assertEqual(len(codes), len(vectors()))

    @given(st.binary(max_size=9), st.binary(max_size=9), st.integers(0, 9))
    def test_borders(self, first: bytes, second: bytes, cut: int) -> None:
        """
        Where one field ends and the next begins counts too.
        """
        whole = first + second
        known = parties(vectors()[0])
        one = attrs.evolve(known, ca_key=first, dispatcher_key=second)
        other = attrs.evolve(known, ca_key=whole[:cut], dispatcher_key=whole[cut:])
        self.assertEqual(one.code == other.code, one == other)

    @given(NONCES, NONCES)
    def test_groups(self, nonce_a: str, nonce_d: str) -> None:
        """
        Six digits, in two groups.
        """
        known = attrs.evolve(parties(vectors()[0]), nonce_a=nonce_a, nonce_d=nonce_d)
        self.assertRegex(known.code, r"\A[0-9]{3} [0-9]{3}\Z")


class CommitmentTests(SynchronousTestCase):
    """
    L{commitment}
    """

    def test_known(self) -> None:
        """
        Commitments are those that somebody else has computed.
        """
        for vector in vectors():
            self.assertEqual(commitment(vector["nonce_a"]), vector["commitment"])

    @given(NONCES, NONCES)
    def test_binds(self, nonce: str, other: str) -> None:
        """
        One nonce keeps the promise, and no other.
        """
        self.assertTrue(is_committed(nonce, commitment(nonce)))
        self.assertEqual(is_committed(other, commitment(nonce)), other == nonce)

    def test_nonces(self) -> None:
        """
        No nonce comes twice.
        """
        nonces = {new_pairing_nonce() for _ in range(99)}
        self.assertEqual(len(nonces), 99)
        for nonce in nonces:
            self.assertRegex(nonce, r"\A[0-9a-f]{64}\Z")
