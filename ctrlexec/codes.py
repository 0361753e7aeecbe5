# SPDX-License-Identifier: AGPL-3.0-only
"""
The six digits of a pairing that nobody in between can pass: C{docs/pairing.md}
tells the exchange, C{tests/data/pairing-codes.json} has known answers.

The agent commits to its nonce before it sees the dispatcher's, and shows it
afterwards. So neither side, nor anybody who plays one of them, can choose a
nonce that makes the digits come out as they would like them.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

import attrs

#: What the digests begin with, so that none of them is of use elsewhere.
COMMITMENT_DOMAIN = b"ctrl-exec pairing 2: commitment"
CODE_DOMAIN = b"ctrl-exec pairing 2: code"

_NONCE_BYTES = 32
_CODES = 1_000_000

#: What the digits of the original do not protect, for whoever relies on them.
LEGACY_WARNING = (
    "this code covers the agent's request and nothing of the dispatcher: whoever "
    "sits between the two can swap the CA, both screens agree all the same, and "
    "the agent obeys them from then on"
)


@attrs.frozen
class Parties:
    """
    All that the two sides have to agree on.

    @ivar agent_key: DER SubjectPublicKeyInfo, as all keys here.
    @ivar name: what the agent asks to be called.
    @ivar ca_key: of the CA that is to certify the agent.
    @ivar dispatcher_key: of the certificate shown on this TLS connection.
    @ivar nonce_a: the agent's, 64 hex characters.
    @ivar nonce_d: the dispatcher's, likewise.
    """

    agent_key: bytes
    name: str
    ca_key: bytes
    dispatcher_key: bytes
    nonce_a: str
    nonce_d: str

    @property
    def code(self) -> str:
        """
        The digits that both screens show, in two groups.
        """
        digest = _digest(
            CODE_DOMAIN,
            self.agent_key,
            self.name.encode(),
            self.ca_key,
            self.dispatcher_key,
            bytes.fromhex(self.nonce_a),
            bytes.fromhex(self.nonce_d),
        )
        digits = f"{int.from_bytes(digest[:4], 'big') % _CODES:06d}"
        return f"{digits[:3]} {digits[3:]}"


def new_pairing_nonce() -> str:
    """
    @return: 64 hex characters of 32 random bytes.
    """
    return secrets.token_hex(_NONCE_BYTES)


def commitment(nonce: str) -> str:
    """
    What an agent shows of its nonce before it shows the nonce.

    @param nonce: 64 hex characters.
    @return: SHA-256, in hex.
    """
    return _digest(COMMITMENT_DOMAIN, bytes.fromhex(nonce)).hex()


def is_committed(nonce: str, committed: str) -> bool:
    """
    Whether a nonce is the one that was committed to.
    """
    return hmac.compare_digest(commitment(nonce), committed)


def _digest(*fields: bytes) -> bytes:
    """
    SHA-256 over fields, each with its length before it: no two lists of fields
    are the same text.
    """
    whole = hashlib.sha256()
    for field in fields:
        whole.update(len(field).to_bytes(4, "big"))
        whole.update(field)
    return whole.digest()
