# SPDX-License-Identifier: AGPL-3.0-only
"""
A small CA, and what it makes: keys and certificates for tests.

Keys take time to make, so all tests share these.
"""

from __future__ import annotations

import base64
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID
from hypothesis import strategies as st

from ctrlexec.pki import (
    KeyType,
    Role,
    generate_key,
    issue,
    make_ca,
    make_csr,
    parse_private_key,
    read_csr,
)

DATA = Path(__file__).parent / "data"
NOW = datetime(2026, 3, 5, 18, 38, 9, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

CA_KEY = generate_key(KeyType.EC)
CA = make_ca(CA_KEY, common_name="test CA", days=1000, now=NOW)
KEY = generate_key(KeyType.EC)
OTHER_KEY = generate_key(KeyType.EC)


def data(name: str) -> bytes:
    """
    A fixture, as it is.
    """
    return (DATA / name).read_bytes()


def issued(
    role: Role,
    *,
    common_name: str = "agent-one",
    days: int = 10,
    now: datetime = NOW,
    ca: bytes = CA,
    ca_key: bytes = CA_KEY,
) -> bytes:
    """
    A certificate for L{KEY}.
    """
    return issue(
        read_csr(make_csr(KEY, common_name)),
        ca_cert=ca,
        ca_key=ca_key,
        role=role,
        common_name=common_name,
        days=days,
        now=now,
    )


def handmade(
    *names: str,
    uris: tuple[str, ...] = (),
    ca: x509.BasicConstraints | None = None,
    usage: x509.KeyUsage | None = None,
    now: datetime = NOW,
) -> bytes:
    """
    A self-signed certificate of L{KEY} that C{issue} would never make.
    """
    private = parse_private_key(KEY)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, n) for n in names])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
    )
    if uris:
        alternatives = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(
            x509.SubjectAlternativeName(alternatives), critical=False
        )
    for extension in filter(None, (ca, usage)):
        builder = builder.add_extension(extension, critical=True)
    return pem_of(builder.sign(private, hashes.SHA256()))


def pem_of(certificate: x509.Certificate) -> bytes:
    """
    A certificate as PEM.
    """
    return certificate.public_bytes(serialization.Encoding.PEM)


def damaged_pem(draw: st.DataObject, label: str, der: bytes) -> bytes:
    """
    A PEM text with this label, in which one byte is not what it was.
    """
    damaged = bytearray(der)
    damaged[draw.draw(st.integers(0, len(der) - 1))] ^= draw.draw(st.integers(1, 255))
    return framed(label, bytes(damaged))


def framed(label: str, inside: bytes) -> bytes:
    """
    Any bytes, as PEM with this label.
    """
    begin, end = f"-----BEGIN {label}-----\n", f"-----END {label}-----\n"
    return begin.encode() + base64.encodebytes(inside) + end.encode()
