# SPDX-License-Identifier: AGPL-3.0-only
"""
Lists of what is revoked, for tests.
"""

from __future__ import annotations

from ctrlexec.certificates import Role
from ctrlexec.protocol.revocation import Revocations, SignedRevocations, signed
from tests.authority import CA_KEY, KEY, issued


def of_ca(number: int, *serials: str, issuer: str = "hq") -> SignedRevocations:
    """
    A list that the CA has signed.
    """
    return signed(listed(number, *serials, issuer=issuer), CA_KEY)


def by(role: Role, number: int, *serials: str) -> SignedRevocations:
    """
    A list that the holder of a certificate has signed.
    """
    return signed(listed(number, *serials), KEY, issued(role).decode())


def listed(number: int, *serials: str, issuer: str = "hq") -> Revocations:
    """
    A list.
    """
    return Revocations(issuer, number, "2026-03-05T18:38:09Z", frozenset(serials))
