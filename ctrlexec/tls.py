# SPDX-License-Identifier: AGPL-3.0-only
"""
From PEM files to the TLS that our connections speak.

One policy for all of them (PROTOCOL.md section 2): TLS 1.2 and 1.3, suites
with forward secrecy and authenticated encryption, nothing else. On it stand
four kinds of connection: mutual, where each side must prove that the private
CA certified it, and pairing, which begins before there is a CA to go by; each
as a server and as a client. A fifth is the API's, whose clients go by whatever
certificate its operator has given it.

A context is made once and serves every connection, so that a handshake costs
no parsing of keys. Credentials that are renewed get a new one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import attrs
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    ISSLTransport,
)
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from ctrlexec.certificates import key_digest, parse_chain
from ctrlexec.errors import PkiError
from ctrlexec.pki import (
    CertificateInfo,
    certificate_info,
    check_identity,
    parse_authority,
    parse_certificate,
    parse_private_key,
)

# Security level 2 keeps RSA under 2048 bits and SHA-1 out of the handshake,
# whatever the distribution's default is. The suites of TLS 1.3 are all ones
# that we want, and are set apart from these.
_SUITES = b"ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"

# A peer that resumes a session is not verified again, so a session must not
# live much longer than the certificate it was begun with.
_SESSION_SECONDS = 300

# OpenSSL resumes no session with a client certificate without a name for the
# place where the session belongs.
_SESSION_CONTEXT = b"ctrl-exec"

_OTHERS = 0o007
#: C{X509_V_ERR_CERT_HAS_EXPIRED}.
_HAS_EXPIRED = 10


@attrs.frozen
class Credentials:
    """
    A key, its certificate and the CA that signed it, all PEM: proven to belong
    together, not to be in date.
    """

    key: bytes = attrs.field(repr=False)
    cert: bytes
    ca: bytes
    info: CertificateInfo

    @classmethod
    def from_pem(cls, *, key: bytes, cert: bytes, ca: bytes) -> Credentials:
        """
        @raise PkiError: they can not be read, or do not belong together.
        """
        return cls(key, cert, ca, check_identity(cert=cert, ca=ca, key=key))


@attrs.frozen
class Identity:
    """
    Where a host keeps its credentials: three PEM files.
    """

    key: Path
    cert: Path
    ca: Path

    def load(self) -> Credentials:
        """
        @raise PkiError: a file is missing, can not be read, is not what it
            should be or does not belong to the others, or everybody may read
            the key. The sentence names the file.
        """
        key, cert, ca = _read_secret(self.key), _read(self.cert), _read(self.ca)
        with _about(self.key):
            parse_private_key(key, check_primes=False)
        with _about(self.ca):
            parse_authority(ca)
        with _about(self.cert):
            return Credentials.from_pem(key=key, cert=cert, ca=ca)


@implementer(IOpenSSLServerConnectionCreator)
@attrs.frozen
class ServerConnections:
    """
    The server's side of connections, all of one context.
    """

    context: SSL.Context

    def serverConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        """
        See L{IOpenSSLServerConnectionCreator}.
        """
        return SSL.Connection(self.context, None)


@implementer(IOpenSSLClientConnectionCreator)
@attrs.frozen
class ClientConnections:
    """
    The client's side of connections, all of one context.

    No host name is sent or compared: whom we reached is in the certificate.
    """

    context: SSL.Context

    def clientConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        """
        See L{IOpenSSLClientConnectionCreator}.
        """
        return SSL.Connection(self.context, None)


@implementer(IOpenSSLClientConnectionCreator)
@attrs.frozen
class EvenExpired:
    """
    The client's side of connections to peers whose certificate may have expired;
    all else is asked of it as ever. How long ago, and whose it is, is for the
    caller to judge.
    """

    connections: ClientConnections

    def clientConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        """
        See L{IOpenSSLClientConnectionCreator}.
        """
        connection = self.connections.clientConnectionForTLS(tlsProtocol)
        connection.set_verify(
            SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _unless_expired
        )
        return connection


def _unless_expired(
    connection: SSL.Connection, certificate: X509, fault: int, depth: int, good: int
) -> bool:
    """
    What OpenSSL says of a certificate, but for one thing about the peer's own.
    """
    return bool(good) or (depth == 0 and fault == _HAS_EXPIRED)


def mutual_server(credentials: Credentials) -> ServerConnections:
    """
    A server that lets in holders of a certificate of its CA, and nobody else.

    It hands out session tickets. A session lives for five minutes and dies
    with the context; its peer is the one that was verified when it began.
    """
    context = _policy()
    _present(context, credentials)
    _demand(context, credentials)
    context.set_session_id(_SESSION_CONTEXT)
    context.set_timeout(_SESSION_SECONDS)
    return ServerConnections(context)


def mutual_client(credentials: Credentials) -> ClientConnections:
    """
    A client that talks to holders of a certificate of its CA, and nobody else.
    """
    context = _policy()
    _present(context, credentials)
    _demand(context, credentials)
    return ClientConnections(context)


def pairing_server(credentials: Credentials) -> ServerConnections:
    """
    A server that shows who it is and who says so, for agents that know the CA
    by its fingerprint, and asks no client for a certificate, since those who
    come to pair have none.
    """
    context = _policy()
    _present(context, credentials)
    context.add_extra_chain_cert(
        X509.from_cryptography(parse_authority(credentials.ca))
    )
    return ServerConnections(context)


def api_server(key: Path, cert: Path) -> ServerConnections:
    """
    A server for clients that know it by a certificate of whichever authority,
    and show none of their own.

    @param cert: its certificate, and behind it in the same file those between
        it and the authority, if there are any.
    @raise PkiError: as L{Identity.load}.
    """
    key_pem, chain_pem = _read_secret(key), _read(cert)
    with _about(key):
        private_key = parse_private_key(key_pem, check_primes=False)
    context = _policy()
    with _about(cert):
        first, *others = parse_chain(chain_pem)
        if key_digest(first.public_key()) != key_digest(private_key.public_key()):
            raise PkiError("the certificate is for another key")
        try:
            context.use_certificate(first)
            context.use_privatekey(private_key)
        except SSL.Error:
            # What OpenSSL finds too weak, we do not take for good enough.
            raise PkiError("the certificate or its key is too weak") from None
    for other in others:
        context.add_extra_chain_cert(other)
    return ServerConnections(context)


def pairing_client() -> ClientConnections:
    """
    A client that believes whatever certificate it is shown.

    For pairing alone, where people compare a code because nothing else can be
    verified yet: PROTOCOL.md section 3.
    """
    return ClientConnections(_policy())


def shown_certificates(transport: ISSLTransport) -> list[bytes]:
    """
    What the server at the other end has shown, its own certificate first: PEM,
    and none of it verified.
    """
    handle = cast("TLSMemoryBIOProtocol", transport).getHandle()
    chain = cast("SSL.Connection", handle).get_peer_cert_chain()
    return [
        each.to_cryptography().public_bytes(serialization.Encoding.PEM)
        for each in chain or ()
    ]


def peer_certificate(transport: ISSLTransport) -> CertificateInfo | None:
    """
    Who is at the other end of a connection, once its handshake is done.

    On a mutual connection the CA vouches for it; on a pairing connection
    nobody does.

    @return: C{None} where the peer showed no certificate.
    @raise PkiError: the certificate is malformed, or ambiguous about its role:
        the connection deserves to be closed.
    """
    peer = cast("X509 | None", transport.getPeerCertificate())
    return None if peer is None else certificate_info(peer.to_cryptography())


def _policy() -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(_SUITES)
    context.set_options(
        SSL.OP_NO_COMPRESSION
        | SSL.OP_NO_RENEGOTIATION
        | SSL.OP_CIPHER_SERVER_PREFERENCE
    )
    # An idle connection, of which there may be thousands, holds no buffers.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    # Tickets carry the sessions; a cache besides would only cost memory.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_verify(SSL.VERIFY_NONE)
    return context


def _present(context: SSL.Context, credentials: Credentials) -> None:
    context.use_certificate(parse_certificate(credentials.cert))
    context.use_privatekey(parse_private_key(credentials.key, check_primes=False))
    context.check_privatekey()


def _demand(context: SSL.Context, credentials: Credentials) -> None:
    """
    Require that the peer proves itself with a certificate that our CA signed
    with its own hand: with no CA in between, no agent can play one.
    """
    store = context.get_cert_store()
    assert store is not None, "a new context has an empty store"
    store.add_cert(X509.from_cryptography(parse_authority(credentials.ca)))
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    context.set_verify_depth(0)


@contextmanager
def _about(path: Path) -> Iterator[None]:
    try:
        yield
    except PkiError as why:
        raise PkiError(f"{path}: {why}", hint=why.hint) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as why:
        raise PkiError(f"{path}: {why.strerror}") from why


def _read_secret(path: Path) -> bytes:
    """
    Read a key, unless it is none any more because everybody can read it.
    """
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & _OTHERS:
                raise PkiError(
                    f"{path}: every user of this host has access to this key",
                    hint=f"chmod o= {path}, and pair again if others log in here",
                )
            return file.read()
    except OSError as why:
        raise PkiError(f"{path}: {why.strerror}") from why
