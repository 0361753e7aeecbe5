# SPDX-License-Identifier: AGPL-3.0-only
"""
Lists of certificates that are revoked, as a dispatcher signs them and an agent
checks them: C{docs/revocation.md}.
"""

from __future__ import annotations

from datetime import datetime

import attrs
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from ctrlexec.certificates import (
    CertificateInfo,
    check_signed,
    parse_authority,
    parse_certificate,
    parse_private_key,
)
from ctrlexec.errors import PkiError
from ctrlexec.values import dispatcher_id, serial_from_hex

#: How many serials a list may have.
MOST_SERIALS = 10_000
#: A JSON number that every reader of JSON takes for the same one.
MOST_NUMBER = 2**53 - 1

# What the same key signs in TLS never begins like this. It is longer than 64
# bytes because in TLS 1.2 a client chooses the first 32 of what a server signs,
# and the server the next 32.
_DOMAIN = (
    b"ctrl-exec: a numbered list of revoked certificates, version 1, "
    b"from a dispatcher for its agents\0"
)


@attrs.frozen
class Revocations:
    """
    The certificates that a dispatcher has revoked.

    @ivar issuer: the id of the dispatcher that keeps the list.
    @ivar number: higher in each list than in the one before.
    @ivar issued: when, in ISO 8601.
    @ivar serials: canonical.
    """

    issuer: str = attrs.field(converter=dispatcher_id)
    number: int
    issued: str
    serials: frozenset[str]

    def text(self) -> bytes:
        """
        What is signed. Each field has its length before it, so that two lists
        never read the same.
        """
        fields = (self.issuer, str(self.number), self.issued, *sorted(self.serials))
        texts = [each.encode() for each in fields]
        return _DOMAIN + b"".join(len(each).to_bytes(4, "big") + each for each in texts)


@attrs.frozen
class SignedRevocations:
    """
    A list, and who answers for it.

    @ivar cert: the certificate of the dispatcher that has signed it, PEM; empty
        where the CA has.
    """

    revocations: Revocations
    signature: bytes
    cert: str = ""


@attrs.frozen
class Acknowledged:
    """
    An agent has stored a list.

    @ivar number: the list's.
    """

    number: int


@attrs.frozen
class NotAcknowledged:
    """
    An agent has not stored a list.

    @ivar held: the number of the list that it has from the same hand; 0 where
        it has none.
    """

    error: str
    held: int = 0


def signed(revocations: Revocations, key: bytes, cert: str = "") -> SignedRevocations:
    """
    Sign a list.

    @param key: PEM.
    @param cert: that of the key, unless it is the CA's.
    @raise PkiError: the key can not be used.
    """
    private, text = parse_private_key(key), revocations.text()
    match private:
        case ec.EllipticCurvePrivateKey():
            signature = private.sign(text, ec.ECDSA(hashes.SHA256()))
        case rsa.RSAPrivateKey():
            signature = private.sign(text, padding.PKCS1v15(), hashes.SHA256())
        case ed25519.Ed25519PrivateKey():
            signature = private.sign(text)
    return SignedRevocations(revocations, signature, cert)


def signer_of(
    found: SignedRevocations, ca: bytes, now: datetime
) -> CertificateInfo | None:
    """
    Who has signed a list.

    @param ca: that of whoever asks, PEM.
    @return: whose certificate it is, which says nothing of what its holder may
        do; C{None} where it is the CA itself.
    @raise PkiError: the signature is not good, or the certificate is not one of
        the CA that is in date.
    """
    if not found.cert:
        _check(found, parse_authority(ca).public_key())
        return None
    cert = found.cert.encode()
    info = check_signed(cert=cert, ca=ca)
    if not info.not_before <= now <= info.not_after:
        raise PkiError("the certificate of who has signed it is not in date")
    _check(found, parse_certificate(cert).public_key())
    return info


def _check(found: SignedRevocations, key: object) -> None:
    text = found.revocations.text()
    try:
        match key:
            case ec.EllipticCurvePublicKey():
                key.verify(found.signature, text, ec.ECDSA(hashes.SHA256()))
            case rsa.RSAPublicKey():
                key.verify(found.signature, text, padding.PKCS1v15(), hashes.SHA256())
            case ed25519.Ed25519PublicKey():
                key.verify(found.signature, text)
            case _:
                raise PkiError("the key is neither RSA, elliptic curve nor Ed25519")
    except InvalidSignature:
        raise PkiError("the signature is not good") from None


def canonical_serials(serials: list[str]) -> frozenset[str]:
    """
    @param serials: hex, digits only or not.
    @raise InvalidValue: one of them is none.
    """
    return frozenset(map(serial_from_hex, serials))
