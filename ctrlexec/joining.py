# SPDX-License-Identifier: AGPL-3.0-only
"""
The join token: what lets an agent pair without a person, as one string, and
the proof that an agent has it (C{docs/pairing.md}, "Joining without a person").

A token names the CA that the agent must meet and holds a secret. The secret
never goes over the wire, and the dispatcher keeps only the key that is derived
from it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets

import attrs

from ctrlexec.errors import InvalidValue

PREFIX = "cej1-"

# What the digests begin with, so that none of them is of use elsewhere.
_CHECK_DOMAIN = b"ctrl-exec join 1: checksum"
_KEY_DOMAIN = b"ctrl-exec join 1: key"
_PROOF_DOMAIN = b"ctrl-exec join 1: proof"

_ID_BYTES, _SECRET_BYTES, _CA_BYTES, _CHECK_BYTES = 8, 16, 32, 4
# 60 bytes: a whole number of letters, without padding.
_LETTERS = re.compile("[a-z2-7]{96}")
_PIN = "sha256:"
_EXPECTED = (
    f"{PREFIX} and 96 letters and digits, exactly as ctrl-exec join-token "
    "create has printed it"
)


@attrs.frozen
class JoinSecret:
    """
    A join token, as an agent is given it.

    @ivar id: 16 hex digits; no secret.
    @ivar secret: 16 bytes.
    @ivar authority: the fingerprint of the CA that the dispatcher must have:
        C{sha256:} and 64 hex digits.
    """

    id: str
    secret: bytes = attrs.field(repr=False)
    authority: str

    @classmethod
    def new(cls, authority: str) -> JoinSecret:
        """
        A fresh one.
        """
        identity = secrets.token_hex(_ID_BYTES)
        return cls(identity, secrets.token_bytes(_SECRET_BYTES), authority)

    @classmethod
    def parse(cls, text: str) -> JoinSecret:
        """
        @raise InvalidValue: it is none, or has a typing error; the text is
            not in the message.
        """
        letters = text.strip().lower().removeprefix(PREFIX)
        if not text.strip().lower().startswith(PREFIX) or not _LETTERS.fullmatch(
            letters
        ):
            raise _invalid(_EXPECTED)
        try:
            whole = base64.b32decode(letters.upper())
        except binascii.Error:
            raise _invalid(_EXPECTED) from None
        inside, check = whole[:-_CHECK_BYTES], whole[-_CHECK_BYTES:]
        if not hmac.compare_digest(_checksum(inside), check):
            raise _invalid(f"{_EXPECTED}; by its checksum a letter is wrong")
        rest = inside[_ID_BYTES:]
        secret, ca = rest[:_SECRET_BYTES], rest[_SECRET_BYTES:]
        return cls(inside[:_ID_BYTES].hex(), secret, _PIN + ca.hex())

    @property
    def text(self) -> str:
        """
        The one string, for a person to carry.
        """
        ca = bytes.fromhex(self.authority.removeprefix(_PIN))
        inside = bytes.fromhex(self.id) + self.secret + ca
        letters = base64.b32encode(inside + _checksum(inside)).decode("ascii")
        return PREFIX + letters.lower()

    @property
    def key(self) -> bytes:
        """
        What proofs are made and checked with: all that a dispatcher keeps. The
        secret can not be computed from it, and is random, so it can not be
        guessed either.
        """
        ca = bytes.fromhex(self.authority.removeprefix(_PIN))
        return _mac(self.secret, _KEY_DOMAIN, bytes.fromhex(self.id), ca)


@attrs.frozen
class Joining:
    """
    What a proof is about: whoever changes one of these needs another proof.

    @ivar agent_key: of the certificate request, DER SubjectPublicKeyInfo.
    @ivar name: what the agent asks to be called.
    @ivar dispatcher_key: of the certificate shown on this TLS connection, DER
        SubjectPublicKeyInfo.
    @ivar commitment: to the nonce that the agent reveals next, 64 hex
        characters.
    """

    agent_key: bytes
    name: str
    dispatcher_key: bytes
    commitment: str

    def proof(self, key: bytes) -> str:
        """
        @param key: L{JoinSecret.key}.
        @return: 64 hex characters.
        """
        return _mac(
            key,
            _PROOF_DOMAIN,
            self.agent_key,
            self.name.encode(),
            self.dispatcher_key,
            bytes.fromhex(self.commitment),
        ).hex()

    def is_proved(self, key: bytes, proof: str) -> bool:
        """
        Whether somebody who has the key has made this proof. It takes as long
        whatever is wrong with it.
        """
        return hmac.compare_digest(self.proof(key), proof)


def _invalid(expected: str) -> InvalidValue:
    # Most of a token with a typing error is a secret still.
    return InvalidValue("join token", "(not shown)", expected)


def _checksum(inside: bytes) -> bytes:
    return hashlib.sha256(_CHECK_DOMAIN + inside).digest()[:_CHECK_BYTES]


def _mac(key: bytes, *fields: bytes) -> bytes:
    """
    HMAC-SHA256 over fields, each with its length before it: no two lists of
    fields are the same text.
    """
    whole = hmac.new(key, digestmod=hashlib.sha256)
    for field in fields:
        whole.update(len(field).to_bytes(4, "big"))
        whole.update(field)
    return whole.digest()
