# SPDX-License-Identifier: AGPL-3.0-only
"""
The private CA: it makes keys, requests, certificates and codes.

Bytes in, bytes out. Nothing here reads a file, a clock or a socket; PEM text
and C{now} come from the caller.

The signer decides what a certificate says. From a request it takes the public
key and nothing else (DESIGN.md, "Trust").
"""

from __future__ import annotations

import enum
import hashlib
import re
import secrets
from datetime import datetime, timedelta

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ctrlexec.certificates import (
    MALFORMED,
    AgentRole,
    CertificateInfo,
    DispatcherRole,
    PrivateKey,
    Role,
    ca_fingerprint,
    certificate_info,
    check_identity,
    check_issued,
    common_name,
    key_digest,
    parse_authority,
    parse_certificate,
    parse_private_key,
    read_certificate,
)
from ctrlexec.errors import PkiError, RequestRejected
from ctrlexec.protocol.limits import CSR_BYTES
from ctrlexec.values import iso_time, serial_from_int

__all__ = [
    "AgentRole",
    "CertificateInfo",
    "Csr",
    "DispatcherRole",
    "KeyType",
    "Role",
    "ca_fingerprint",
    "certificate_info",
    "check_identity",
    "check_issued",
    "confirmation_code",
    "generate_key",
    "is_unmistakable",
    "issue",
    "make_ca",
    "make_csr",
    "parse_authority",
    "parse_certificate",
    "parse_private_key",
    "random_serial",
    "read_certificate",
    "read_csr",
]

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

_REQUEST_HASHES = ("sha256", "sha384", "sha512")
_REQUEST = re.compile(
    rb"-----BEGIN ((?:NEW )?)CERTIFICATE REQUEST-----\r?\n"
    rb"[A-Za-z0-9+/=\r\n]+"
    rb"-----END \1CERTIFICATE REQUEST-----\s*"
)

_RSA_BITS = 4096
_WEAKEST_RSA_BITS = 2048
_CURVES = ("secp256r1", "secp384r1", "secp521r1")

_COMMON_NAME_CHARACTERS = 64
_HOST_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# The last label is never all digits: that would be an address.
_DNS_NAME = re.compile(rf"(?:{_HOST_LABEL}\.)*(?![0-9]+\Z){_HOST_LABEL}")

# A host whose clock is a little behind can use its certificate at once.
_BACKDATED = timedelta(hours=1)


class KeyType(enum.Enum):
    """
    The kinds of key that we make.
    """

    EC = "ec"
    RSA = "rsa"


@attrs.frozen
class Csr:
    """
    A certificate signing request that passed L{read_csr}.

    @ivar pem: the text exactly as it came; the confirmation code covers it.
    @ivar common_name: what the requester calls itself: a claim, no more.
    """

    pem: bytes
    common_name: str
    public_key: PublicKey


def generate_key(key_type: KeyType) -> bytes:
    """
    @return: a new private key, PKCS #8 PEM without a passphrase: P-256, or RSA
        of 4096 bits, which can take seconds to find.
    """
    key: PrivateKey
    match key_type:
        case KeyType.EC:
            key = ec.generate_private_key(ec.SECP256R1())
        case KeyType.RSA:
            key = rsa.generate_private_key(65537, _RSA_BITS)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def make_ca(key_pem: bytes, *, common_name: str, days: int, now: datetime) -> bytes:
    """
    A self-signed CA that certifies hosts, and no further CA.

    @param days: how long it lasts, at least 1.
    @return: the certificate, PEM.
    """
    key = parse_private_key(key_pem)
    public_key = key.public_key()
    name = _subject(common_name)
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    subject_key = x509.SubjectKeyIdentifier.from_public_key(public_key)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public_key)
        .serial_number(random_serial())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(constraints, critical=True)
        .add_extension(_key_usage(certifies=True), critical=True)
        .add_extension(subject_key, critical=False)
        .sign(key, _hash_for(key))
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def make_csr(key_pem: bytes, common_name: str) -> bytes:
    """
    @param common_name: the name asked for; the request carries its first 64
        characters, the limit of X.509.
    @return: the request, PEM.
    """
    key = parse_private_key(key_pem)
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(_subject(common_name))
        .sign(key, _hash_for(key))
    )
    return request.public_bytes(serialization.Encoding.PEM)


def read_csr(pem: bytes) -> Csr:
    """
    Read a request from a peer that nobody trusts yet: PROTOCOL.md section 3.

    @raise RequestRejected: it is too long, not exactly one PEM request, weak,
        not signed by its own key, or without exactly one common name. The
        sentence says which.
    """
    if len(pem) > CSR_BYTES:
        raise RequestRejected(
            f"the request has {len(pem)} bytes, more than {CSR_BYTES}"
        )
    if not _REQUEST.fullmatch(pem):
        raise RequestRejected("the request is not one PEM certificate request")
    try:
        request = x509.load_pem_x509_csr(pem)
        _check_hash(request)
        public_key = _strong_key(request)
        if not request.is_signature_valid:
            raise RequestRejected("the request is not signed by its own key")
        return Csr(pem, _requested_name(request), public_key)
    except MALFORMED:
        raise RequestRejected("the request is not well formed") from None


def random_serial() -> int:
    """
    A serial of 128 random bits that no reader of the original can misread:
    PROTOCOL.md section 1.
    """
    while True:
        serial = secrets.randbits(128)
        if is_unmistakable(serial):
            return serial


def is_unmistakable(serial: int) -> bool:
    """
    Whether a serial has exactly 32 hex digits, the first not zero, and a
    letter among them, so that it reads as hex and as nothing else.
    """
    text = serial_from_int(serial)
    return len(text) == 32 and not text.isdigit()


def issue(
    csr: Csr,
    *,
    ca_cert: bytes,
    ca_key: bytes,
    role: Role,
    common_name: str,
    days: int,
    now: datetime,
) -> bytes:
    """
    Certify the public key of a request for a role.

    The common name is cut to its first 64 characters, the limit of X.509; the
    role's URI always carries the whole name, and so does a DNS name beside it
    where the name is a legal one. Both roles may be server and client of TLS:
    a dispatcher serves pairing, an agent calls itself to see whether it works.
    The role alone tells who may give orders.

    @param days: how long the certificate lasts, at least 1; it never outlasts
        the CA.
    @return: the certificate, PEM.
    @raise PkiError: the CA can not sign: it is none, its key is another's, or
        it has expired.
    """
    authority, key = _signer(ca_cert, ca_key, now)
    end = min(now + timedelta(days=days), authority.not_valid_after_utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_subject(common_name))
        .issuer_name(authority.subject)
        .public_key(csr.public_key)
        .serial_number(random_serial())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(end)
        .add_extension(_authority_key(authority, key), critical=False)
    )
    certificate = _with_role(builder, csr.public_key, role).sign(key, _hash_for(key))
    return certificate.public_bytes(serialization.Encoding.PEM)


def confirmation_code(csr_pem: bytes) -> str:
    """
    The six digits that both screens show: PROTOCOL.md section 3.

    @param csr_pem: the exact text of the request.
    """
    first = hashlib.sha256(csr_pem).digest()[:4]
    return f"{int.from_bytes(first, 'big') % 1_000_000:06d}"


def _signer(
    ca_cert: bytes, ca_key: bytes, now: datetime
) -> tuple[x509.Certificate, PrivateKey]:
    authority = parse_authority(ca_cert)
    key = parse_private_key(ca_key)
    if key_digest(key.public_key()) != key_digest(authority.public_key()):
        raise PkiError("the CA key does not belong to the CA certificate")
    if now >= authority.not_valid_after_utc:
        raise PkiError(f"the CA expired at {iso_time(authority.not_valid_after_utc)}")
    return authority, key


def _with_role(
    builder: x509.CertificateBuilder, public_key: PublicKey, role: Role
) -> x509.CertificateBuilder:
    usage = _key_usage(enciphers_keys=isinstance(public_key, rsa.RSAPublicKey))
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    subject_key = x509.SubjectKeyIdentifier.from_public_key(public_key)
    no_ca = x509.BasicConstraints(ca=False, path_length=None)
    return (
        builder.add_extension(no_ca, critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(_alternative_names(role), critical=False)
        .add_extension(subject_key, critical=False)
    )


def _alternative_names(role: Role) -> x509.SubjectAlternativeName:
    match role:
        case AgentRole(name=name) | DispatcherRole(id=name):
            names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(role.uri)]
    # The names of hosts may hold what DNS does not allow, an underscore for one.
    if _DNS_NAME.fullmatch(name):
        names.append(x509.DNSName(name))
    return x509.SubjectAlternativeName(names)


def _authority_key(
    authority: x509.Certificate, signer: PrivateKey
) -> x509.AuthorityKeyIdentifier:
    """
    The identifier that the CA gives itself, or the usual one where it gives
    itself none, like the original's CA of X.509 version 1.
    """
    try:
        own = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)


def _key_usage(
    *, certifies: bool = False, enciphers_keys: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certifies,
        content_commitment=False,
        key_encipherment=enciphers_keys,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certifies,
        crl_sign=certifies,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(common_name: str) -> x509.Name:
    cut = common_name[:_COMMON_NAME_CHARACTERS]
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cut)])


def _hash_for(key: PrivateKey) -> hashes.SHA256 | None:
    # Ed25519 brings its own.
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def _check_hash(request: x509.CertificateSigningRequest) -> None:
    used = request.signature_hash_algorithm
    if used is not None and used.name not in _REQUEST_HASHES:
        raise RequestRejected(
            f"the request is signed with {used.name}, "
            f"which is none of {', '.join(_REQUEST_HASHES)}"
        )


def _strong_key(request: x509.CertificateSigningRequest) -> PublicKey:
    match request.public_key():
        case rsa.RSAPublicKey(key_size=bits) as key:
            if bits >= _WEAKEST_RSA_BITS:
                return key
            weakness = f"RSA of {bits} bits, fewer than {_WEAKEST_RSA_BITS}"
        case ec.EllipticCurvePublicKey(curve=curve) as key:
            if curve.name in _CURVES:
                return key
            weakness = f"on the curve {curve.name}, none of {', '.join(_CURVES)}"
        case ed25519.Ed25519PublicKey() as key:
            return key
        case _:
            weakness = "neither RSA, elliptic curve nor Ed25519"
    raise RequestRejected(f"the key of the request is {weakness}")


def _requested_name(request: x509.CertificateSigningRequest) -> str:
    try:
        return common_name(request.subject)
    except PkiError as why:
        raise RequestRejected(f"the request has {why}") from None
