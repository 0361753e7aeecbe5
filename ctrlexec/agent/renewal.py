# SPDX-License-Identifier: AGPL-3.0-only
"""
The identity that an agent shows, and how a dispatcher renews it: C{POST /renew}
and C{POST /renew-complete} (NEWER-LINE.md section 8).

Only a trusted dispatcher gets here. What it gives is looked at all the same: a
certificate of another CA, for another key or for another agent would cut the
agent off.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime

import attrs
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from ctrlexec.agent import identity, staging
from ctrlexec.agent.rotation import InThread
from ctrlexec.agent.settings import AgentSettings
from ctrlexec.certificates import (
    CertificateInfo,
    certificate_pem,
    check_issued,
    check_signed,
    key_digest,
    parse_private_key,
)
from ctrlexec.errors import CtrlExecError, PkiError
from ctrlexec.events import (
    CertificateNotTaken,
    CertificateTaken,
    CsrMade,
    CsrNotMade,
    brief,
)
from ctrlexec.interfaces import IEventSink
from ctrlexec.pki import KeyType, generate_key, make_csr
from ctrlexec.protocol import codec_trust
from ctrlexec.protocol.messages import (
    RenewCsr,
    RenewDone,
    RenewFailed,
    RenewOrder,
    RenewRequest,
)
from ctrlexec.tls import Credentials, ServerConnections, mutual_server
from ctrlexec.values import openssl_time

RENEW, COMPLETE = "/renew", "/renew-complete"
#: How many keys wait for their certificate at once; the oldest gives way. More
#: than one, since each dispatcher of the CA can renew.
MOST_KEYS = 4


@implementer(IOpenSSLServerConnectionCreator)
@attrs.define(eq=False)
class ShownIdentity:
    """
    What an agent shows to whoever connects: asked for at each connection, so
    that a renewed certificate needs no new socket, and ends no connection.

    @ivar credentials: of the moment.
    """

    credentials: Credentials
    _connections: ServerConnections = attrs.field(init=False)

    @_connections.default
    def _of_the_start(self) -> ServerConnections:
        return _connections(self.credentials)

    @property
    def expiry(self) -> str:
        """
        When the certificate ends, in openssl's form.
        """
        return openssl_time(self.credentials.info.not_after)

    def show(self, credentials: Credentials) -> None:
        """
        Show these from the next connection on.

        @raise PkiError: OpenSSL does not take them; the old ones stay.
        """
        self._connections = _connections(credentials)
        self.credentials = credentials

    def serverConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        """
        See L{IOpenSSLServerConnectionCreator}.
        """
        return self._connections.serverConnectionForTLS(tlsProtocol)


@attrs.frozen
class Asker:
    """
    Who renews.

    @ivar address: where the order comes from.
    @ivar dispatcher: the id that its certificate stands for.
    """

    address: str
    dispatcher: str


@attrs.define(eq=False)
class Renewals:
    """
    Renews the identity that an agent shows.

    @ivar in_thread: where keys are found and files are written.
    @ivar now: the time, aware.
    """

    shown: ShownIdentity
    events: IEventSink
    in_thread: InThread
    now: Callable[[], datetime]
    # They are in memory until their certificate is here: whoever asks and does
    # not come back leaves nothing on disk.
    _keys: deque[bytes] = attrs.field(
        factory=lambda: deque(maxlen=MOST_KEYS), init=False, repr=False
    )

    @property
    def due(self) -> bool:
        """
        Whether the agent wants a new certificate. One that waits is shown
        already, and can be past its half too before anybody restarts the agent.
        """
        return self.shown.credentials.info.is_past_half(self.now())

    async def answer(
        self, path: str, body: bytes, settings: AgentSettings, asker: Asker
    ) -> bytes:
        """
        Answer a trusted dispatcher. Every way in which it can fail is an answer,
        and is logged.

        @param path: L{RENEW} or L{COMPLETE}.
        """
        if path == RENEW:
            asked = codec_trust.decode_renew_request(body)
            return codec_trust.encode_renew_answer(
                await self.begin(asked, settings, asker)
            )
        order = codec_trust.decode_renew_order(body)
        return codec_trust.encode_renew_answer(
            await self.complete(order, settings, asker)
        )

    async def begin(
        self, asked: RenewRequest, settings: AgentSettings, asker: Asker
    ) -> RenewCsr | RenewFailed:
        """
        Ask for the next certificate: for a new key, or for a dispatcher of the
        original, which takes no other, for the one that there is.
        """
        held = self.shown.credentials
        name = identity.own_name(settings, held.info)
        key_type = KeyType(settings.key_type) if asked.new_key else None
        who = asker.address, brief(asked.reqid), asker.dispatcher
        try:
            key, csr = await self.in_thread(_new_csr, held.key, key_type, name)
        except CtrlExecError as error:
            self.events.emit(CsrNotMade(*who, str(error)))
            return RenewFailed("could not generate CSR", asked.reqid)
        if asked.new_key:
            self._keys.append(key)
        self.events.emit(CsrMade(*who, "csr-generated"))
        return RenewCsr(csr.decode("ascii"), asked.reqid)

    async def complete(
        self, order: RenewOrder | RenewFailed, settings: AgentSettings, asker: Asker
    ) -> RenewDone | RenewFailed:
        """
        Take the next certificate, show it, and put it in its place or where it
        waits for that.
        """
        who = asker.address, brief(order.reqid), asker.dispatcher
        if isinstance(order, RenewFailed):
            self.events.emit(CertificateNotTaken(*who, order.error))
            return order
        try:
            new = self._checked(order.cert.encode(), settings)
            held = self.shown.credentials
            try:
                staged = await self.in_thread(staging.keep, settings, held, new)
            except CtrlExecError as error:
                raise PkiError(f"could not stage cert: {error}") from error
            self.shown.show(new)
        except PkiError as error:
            self.events.emit(CertificateNotTaken(*who, str(error)))
            return RenewFailed(str(error), order.reqid)
        if new.key in self._keys:
            self._keys.remove(new.key)
        status = "cert-staged" if staged else "cert-installed"
        expiry = openssl_time(new.info.not_after)
        self.events.emit(CertificateTaken(*who, status, expiry))
        return RenewDone(order.reqid, staged)

    def _checked(self, cert: bytes, settings: AgentSettings) -> Credentials:
        """
        @raise PkiError: it can not be this agent's next certificate: in the
            words of NEWER-LINE.md section 8, where it has any.
        """
        held = self.shown.credentials
        try:
            info = check_signed(cert=cert, ca=held.ca)
        except PkiError as error:
            raise PkiError(
                f"renewed cert does not verify against the agent CA: {error}"
            ) from None
        key = self._key_of(info)
        check_issued(cert=cert, ca=held.ca, key=key, now=self.now())
        identity.check_meant_for(identity.own_name(settings, held.info), info)
        new = Credentials(key, certificate_pem(cert), held.ca, info)
        # What OpenSSL does not take must not get as far as the disk.
        _connections(new)
        return new

    def _key_of(self, info: CertificateInfo) -> bytes:
        for key in (self.shown.credentials.key, *self._keys):
            private = parse_private_key(key, check_primes=False)
            if key_digest(private.public_key()) == info.key_digest:
                return key
        raise PkiError("renewed cert public key does not match the agent key")


def _connections(credentials: Credentials) -> ServerConnections:
    try:
        return mutual_server(credentials)
    except SSL.Error:
        raise PkiError("the certificate or its key is too weak") from None


def _new_csr(held: bytes, key_type: KeyType | None, name: str) -> tuple[bytes, bytes]:
    """
    @param held: the key that there is.
    @param key_type: of the new key that is wanted, or C{None}.
    @return: the key, and a request for it.
    """
    key = held if key_type is None else generate_key(key_type)
    return key, make_csr(key, name)
