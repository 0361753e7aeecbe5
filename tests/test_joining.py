# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.joining}.
"""

from __future__ import annotations

import json
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.errors import InvalidValue
from ctrlexec.joining import Joining, JoinSecret
from tests.authority import data

SECRETS = st.builds(
    JoinSecret,
    id=st.binary(min_size=8, max_size=8).map(bytes.hex),
    secret=st.binary(min_size=16, max_size=16),
    authority=st.binary(min_size=32, max_size=32).map(lambda b: f"sha256:{b.hex()}"),
)
SECRET = JoinSecret("0123456789abcdef", bytes(range(16)), "sha256:" + "ca" * 32)
JOINING = Joining(b"agent's key", "web-1", b"dispatcher's key", "c0" * 32)


def vector() -> dict[str, Any]:
    """
    The known answers.
    """
    found: dict[str, Any] = json.loads(data("join-tokens.json"))["vectors"][0]
    return found


class TokenTests(SynchronousTestCase):
    """
    L{JoinSecret}
    """

    @given(SECRETS)
    def test_roundTrip(self, secret: JoinSecret) -> None:
        """
        What a person carries holds all of it.
        """
        self.assertEqual(JoinSecret.parse(secret.text), secret)
        self.assertRegex(secret.text, r"\Acej1-[a-z2-7]{96}\Z")

    def test_forgiving(self) -> None:
        """
        Blanks round it and capital letters do no harm.
        """
        self.assertEqual(JoinSecret.parse(f" {SECRET.text.upper()}\n"), SECRET)

    @given(SECRETS, st.integers(0, 95), st.sampled_from("abcdefghijklmnopqrstuvwxyz2"))
    def test_typingError(self, secret: JoinSecret, place: int, letter: str) -> None:
        """
        Any one wrong letter is told at once.
        """
        place += len("cej1-")
        text = secret.text
        wrong = text[:place] + letter + text[place + 1 :]
        if wrong != text:
            self.assertRaises(InvalidValue, JoinSecret.parse, wrong)

    @given(st.text() | st.text("abc234-").map(lambda text: f"cej1-{text}"))
    def test_nonsense(self, text: str) -> None:
        """
        What is no token is none, and is not repeated.
        """
        error = self.assertRaises(InvalidValue, JoinSecret.parse, text)
        self.assertIn("(not shown)", str(error))

    def test_notShown(self) -> None:
        """
        The secret is not in what a log or a traceback would show.
        """
        self.assertNotIn(repr(SECRET.secret), repr(SECRET))

    def test_fresh(self) -> None:
        """
        No two tokens share an id or a secret.
        """
        made = [JoinSecret.new(SECRET.authority) for _ in range(50)]
        self.assertEqual(len({each.id for each in made}), 50)
        self.assertEqual(len({each.secret for each in made}), 50)

    def test_known(self) -> None:
        """
        Text, key and proof are those that somebody else has computed.
        """
        known = vector()
        secret = JoinSecret.parse(known["token"])
        self.assertEqual(secret.id, known["id"])
        self.assertEqual(secret.secret.hex(), known["secret"])
        self.assertEqual(secret.authority, known["authority"])
        self.assertEqual(secret.key.hex(), known["key"])
        joining = Joining(
            bytes.fromhex(known["agent_key"]),
            known["name"],
            bytes.fromhex(known["dispatcher_key"]),
            known["commitment"],
        )
        self.assertEqual(joining.proof(secret.key), known["mac"])


class ProofTests(SynchronousTestCase):
    """
    L{Joining}
    """

    def test_proves(self) -> None:
        """
        Who has the token proves it.
        """
        self.assertTrue(JOINING.is_proved(SECRET.key, JOINING.proof(SECRET.key)))

    def test_eachFieldCounts(self) -> None:
        """
        A proof is of no use for another key, name, dispatcher or nonce.
        """
        proof = JOINING.proof(SECRET.key)
        for change in (
            {"agent_key": b"another"},
            {"name": "web-2"},
            {"dispatcher_key": b"another"},
            {"commitment": "c1" * 32},
        ):
            other = attrs.evolve(JOINING, **change)
            self.assertFalse(other.is_proved(SECRET.key, proof), change)

    def test_boundariesCount(self) -> None:
        """
        What is moved from one field to the next is another text.
        """
        moved = attrs.evolve(JOINING, agent_key=b"agent's key" + b"web", name="-1")
        self.assertFalse(moved.is_proved(SECRET.key, JOINING.proof(SECRET.key)))

    def test_eachPartOfTokenCounts(self) -> None:
        """
        Tokens with another id, secret or CA have other keys.
        """
        for change in (
            {"id": "0123456789abcdee"},
            {"secret": bytes(16)},
            {"authority": "sha256:" + "cb" * 32},
        ):
            other = attrs.evolve(SECRET, **change)
            self.assertNotEqual(other.key, SECRET.key, change)
