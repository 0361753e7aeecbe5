# SPDX-License-Identifier: AGPL-3.0-only
"""
Keys and certificates as they are read and judged; L{ctrlexec.pki} makes them.

Bytes in, values out. Nothing here reads a file, a clock or a socket. What can
not be read, or can be read in two ways, is a L{PkiError}.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

import attrs
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificatePublicKeyTypes,
)
from cryptography.x509.oid import NameOID

from ctrlexec.errors import InvalidValue, PkiError, abbreviated
from ctrlexec.values import agent_name, dispatcher_id, iso_time, serial_from_int

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_ROLE_PREFIX = "urn:ctrl-exec:"
# The subjects of dispatchers of the original: NEWER-LINE.md section 2.
_ORIGINAL_DISPATCHERS = ("ctrl-exec", "ctrl-exec-dispatcher")

#: What C{cryptography} raises, sooner or later, on X.509 that is not well
#: formed.
MALFORMED = (
    ValueError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


@attrs.frozen
class AgentRole:
    """
    The holder answers as this agent, and never gives orders.
    """

    name: str = attrs.field(converter=agent_name)

    @property
    def uri(self) -> str:
        """
        The role as the certificate carries it.
        """
        return f"{_ROLE_PREFIX}agent:{self.name}"


@attrs.frozen
class DispatcherRole:
    """
    The holder may give orders to the agents that trust this id.
    """

    id: str = attrs.field(converter=dispatcher_id)

    @property
    def uri(self) -> str:
        """
        The role as the certificate carries it.
        """
        return f"{_ROLE_PREFIX}dispatcher:{self.id}"


Role = AgentRole | DispatcherRole


@attrs.frozen
class CertificateInfo:
    """
    What ctrl-exec knows about a certificate.

    @ivar common_name: of the subject; cut to 64 characters where the name in
        C{role} is longer.
    @ivar serial: in canonical form (PROTOCOL.md section 1).
    @ivar not_before: aware, UTC.
    @ivar not_after: aware, UTC.
    @ivar role: C{None} in a certificate of the original.
    @ivar key_digest: SHA-256, in hex, of the public key as a DER
        SubjectPublicKeyInfo.
    """

    common_name: str
    serial: str
    not_before: datetime
    not_after: datetime
    role: Role | None
    key_digest: str

    def is_past_half(self, now: datetime) -> bool:
        """
        Whether less than half of its life is left, so that it is time to renew
        it.
        """
        return now > self.not_before + (self.not_after - self.not_before) / 2


def parse_private_key(pem: bytes, *, check_primes: bool = True) -> PrivateKey:
    """
    @param check_primes: whether to prove that the numbers of an RSA key fit,
        which takes 0.2 s for 4096 bits. Whoever signs certificates wants it. A
        key of TLS can do without: with a damaged one handshakes fail.
    @raise PkiError: it is no private key of a kind that we use, or it is
        protected by a passphrase, which nobody is there to type.
    """
    # "from None" throughout: no traceback may carry a piece of a key.
    try:
        key = serialization.load_pem_private_key(
            pem, password=None, unsafe_skip_rsa_key_validation=not check_primes
        )
    except TypeError:
        raise PkiError("the key is protected by a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise PkiError("not a PEM private key") from None
    if not isinstance(key, PrivateKey):
        raise PkiError("the key is neither RSA, elliptic curve nor Ed25519")
    return key


def parse_certificate(pem: bytes) -> x509.Certificate:
    """
    @raise PkiError: it is not exactly one PEM certificate. With two, what was
        checked and what is used could differ.
    """
    found = parse_chain(pem)
    if len(found) != 1:
        raise PkiError(f"{len(found)} certificates where exactly one is expected")
    return found[0]


def certificate_pem(pem: bytes) -> bytes:
    """
    @return: the certificate, without whatever stands round it.
    @raise PkiError: as L{parse_certificate}.
    """
    return parse_certificate(pem).public_bytes(serialization.Encoding.PEM)


def parse_chain(pem: bytes) -> list[x509.Certificate]:
    """
    @return: one certificate at least, in the order of the text.
    @raise PkiError: it is none.
    """
    try:
        return x509.load_pem_x509_certificates(pem)
    except MALFORMED:
        raise PkiError("not a PEM certificate") from None


def parse_authority(pem: bytes) -> x509.Certificate:
    """
    Read the certificate of a private CA: its own root, of X.509 version 1 (the
    original's, which has no extensions) or version 3.

    @raise PkiError: as L{parse_certificate}; or it is not self-signed, or may
        not sign certificates.
    """
    authority = parse_certificate(pem)
    if not _is_signed_by(authority, authority):
        raise PkiError("the CA certificate is not self-signed")
    try:
        able = _may_certify(authority)
    except MALFORMED:
        raise PkiError("the CA certificate is not well formed") from None
    if not able:
        raise PkiError("the CA certificate is not one of a CA")
    return authority


def read_certificate(pem: bytes) -> CertificateInfo:
    """
    @raise PkiError: as L{parse_certificate} and L{certificate_info}.
    """
    return certificate_info(parse_certificate(pem))


def certificate_info(certificate: x509.Certificate) -> CertificateInfo:
    """
    @raise PkiError: the certificate is not well formed, has not exactly one
        common name, or carries a malformed role or more than one.
    """
    try:
        return CertificateInfo(
            common_name=common_name(certificate.subject),
            serial=serial_from_int(certificate.serial_number),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            role=_role(certificate),
            key_digest=key_digest(certificate.public_key()),
        )
    except (InvalidValue, *MALFORMED) as why:
        raise PkiError(f"the certificate is not well formed: {why}") from None


def common_name(subject: x509.Name) -> str:
    """
    @raise PkiError: there is none, or more than one to choose from.
    """
    match subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        case [x509.NameAttribute(value=str(name))]:
            return name
        case found:
            raise PkiError(f"{len(found)} common names where exactly one is expected")


def key_der(public_key: CertificatePublicKeyTypes) -> bytes:
    """
    @return: the key as a DER SubjectPublicKeyInfo.
    """
    return public_key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def key_digest(public_key: CertificatePublicKeyTypes) -> str:
    """
    @return: SHA-256, in hex, of the key as a DER SubjectPublicKeyInfo.
    """
    return hashlib.sha256(key_der(public_key)).hexdigest()


def ca_fingerprint(cert_pem: bytes) -> str:
    """
    What an agent can pin before it pairs.

    @return: C{sha256:} and the digest of the CA's public key, so that it
        outlives a CA certificate made anew from the same key.
    """
    return f"sha256:{key_digest(parse_authority(cert_pem).public_key())}"


def check_issued(
    *, cert: bytes, ca: bytes, key: bytes, now: datetime
) -> CertificateInfo:
    """
    Whether a certificate can be used at this moment, by the holder of this
    key, among the hosts of this CA.

    @raise PkiError: as L{check_identity}; or the certificate is not valid yet,
        or has expired.
    """
    info = check_identity(cert=cert, ca=ca, key=key)
    if now < info.not_before:
        start = iso_time(info.not_before)
        raise PkiError(f"the certificate is not valid before {start}")
    if now > info.not_after:
        raise PkiError(f"the certificate expired at {iso_time(info.not_after)}")
    return info


def check_identity(*, cert: bytes, ca: bytes, key: bytes) -> CertificateInfo:
    """
    Whether a certificate, a CA and a key belong together, at whatever time.

    @raise PkiError: one of them can not be read; or the CA did not sign the
        certificate; or the certificate is for another key.
    """
    info = check_signed(cert=cert, ca=ca)
    private_key = parse_private_key(key, check_primes=False)
    if info.key_digest != key_digest(private_key.public_key()):
        raise PkiError("the certificate is for another key")
    return info


def check_signed(*, cert: bytes, ca: bytes) -> CertificateInfo:
    """
    Whether a CA signed a certificate, at whatever time.

    @raise PkiError: it did not, or one of them can not be read.
    """
    certificate = parse_certificate(cert)
    if not _is_signed_by(certificate, parse_authority(ca)):
        raise PkiError("the certificate was not signed by this CA")
    return certificate_info(certificate)


def check_dispatcher(
    *, cert: bytes, ca: bytes, now: datetime, original: bool = False
) -> CertificateInfo:
    """
    Whether a certificate is that of a dispatcher of this CA, in date.

    @param original: whether one of the original will do, which has no role but
        its name. An original CA signs whatever name a request has, so an agent
        can have got such a certificate: it proves nothing by itself.
    @raise PkiError: it is not, and the sentence says why.
    """
    certificate = parse_certificate(cert)
    if not _is_signed_by(certificate, parse_authority(ca)):
        raise PkiError("the dispatcher's certificate was not signed by its CA")
    info = certificate_info(certificate)
    match info.role:
        case DispatcherRole():
            pass
        case None if info.common_name in _ORIGINAL_DISPATCHERS:
            if not original:
                raise PkiError(
                    "the dispatcher's certificate is one of the original and "
                    "carries no role, so that anybody can have got it",
                )
        case _:
            raise PkiError("the certificate is not a dispatcher's")
    if not info.not_before <= now <= info.not_after:
        raise PkiError("the dispatcher's certificate is not in date")
    return info


def _is_signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, TypeError, *MALFORMED):
        return False
    return True


def _may_certify(authority: x509.Certificate) -> bool:
    """
    What OpenSSL decides about a root: version 1 may always, version 3 must say
    so.
    """
    if authority.version is x509.Version.v1:
        return True
    constraints = usage = None
    for extension in authority.extensions:
        match extension.value:
            case x509.BasicConstraints():
                constraints = extension.value
            case x509.KeyUsage():
                usage = extension.value
    return (
        constraints is not None
        and constraints.ca
        and (usage is None or usage.key_cert_sign)
    )


def _role(certificate: x509.Certificate) -> Role | None:
    try:
        names = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
    except x509.ExtensionNotFound:
        return None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    # Case is ignored here and nowhere else, so that a role in the wrong case is
    # a malformed role, never an absent one.
    match [uri for uri in uris if uri.lower().startswith(_ROLE_PREFIX)]:
        case []:
            return None
        case [uri]:
            return _parsed_role(uri)
        case _:
            raise PkiError("the certificate carries more than one role")


def _parsed_role(uri: str) -> Role:
    try:
        match uri.removeprefix(_ROLE_PREFIX).split(":"):
            case ["agent", name]:
                return AgentRole(name)
            case ["dispatcher", id]:
                return DispatcherRole(id)
    except InvalidValue:
        pass
    raise PkiError(f"the certificate carries a malformed role, {abbreviated(uri)}")
