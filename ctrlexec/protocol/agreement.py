# SPDX-License-Identifier: AGPL-3.0-only
"""
What the two sides of a pairing must agree on, from where the agent stands:
C{docs/pairing.md}.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

import attrs

from ctrlexec.certificates import (
    ca_fingerprint,
    check_dispatcher,
    key_der,
    parse_authority,
    parse_certificate,
)
from ctrlexec.codes import Parties
from ctrlexec.errors import PkiError
from ctrlexec.joining import Joining, JoinSecret
from ctrlexec.pki import confirmation_code, read_csr
from ctrlexec.protocol.messages import (
    JoinProof,
    PairApproved,
    PairOpened,
    PairRequest,
)


@attrs.frozen
class Terms:
    """
    On what an agent lets itself be paired.

    @ivar legacy: whether the exchange of the original will do.
    @ivar authority: the fingerprint of the only CA that will do; empty for
        whichever the person at the agent recognises by its code.
    @ivar token: what the dispatcher is to accept in place of a person's
        decision; C{None} where a person decides. It pins the CA.
    """

    legacy: bool = False
    authority: str = ""
    token: JoinSecret | None = None

    @classmethod
    def joining(cls, token: JoinSecret) -> Terms:
        """
        Those of an agent that was given a join token.
        """
        return cls(authority=token.authority, token=token)


@attrs.frozen
class Opening:
    """
    What an agent begins with.

    @ivar nonce_a: what the request commits to, 64 hex characters.
    """

    request: PairRequest
    nonce_a: str = attrs.field(repr=False)
    terms: Terms = attrs.field(factory=Terms)


@attrs.frozen
class Met:
    """
    Whom the agent has met on a connection.

    @ivar cert: the certificate that was shown on it, PEM.
    @ivar now: the time, aware.
    """

    cert: bytes
    now: datetime


@attrs.frozen
class Awaited:
    """
    What a person is to compare, and what an approval must then carry.

    @ivar code: as both screens show it.
    @ivar legacy: whether it is the original's, which covers less.
    @ivar authority: the fingerprint of the CA; empty where any will do.
    """

    reqid: str
    code: str
    legacy: bool
    authority: str


def check_pinned(chain: Sequence[bytes], fingerprint: str, now: datetime) -> None:
    """
    Whether a server is a dispatcher of the one CA that will do. It has proved
    that it holds the key of the first certificate by then.

    @param chain: the certificates that it has shown, PEM.
    @raise PkiError: it is not, or does not show that CA.
    """
    for each in chain[1:]:
        with suppress(PkiError):
            check_authority(each, fingerprint)
            break
    else:
        raise PkiError(f"the dispatcher shows no CA with the fingerprint {fingerprint}")
    check_dispatcher(cert=chain[0], ca=each, now=now)


def proved(request: PairRequest, token: JoinSecret, shown: bytes) -> PairRequest:
    """
    A request with the proof that the agent has a join token.

    @param shown: the certificate that the dispatcher shows on this connection,
        PEM. The proof is of no use to anybody who shows another key.
    """
    joining = Joining(
        agent_key=key_der(read_csr(request.csr.encode()).public_key),
        name=request.hostname,
        dispatcher_key=key_der(parse_certificate(shown).public_key()),
        commitment=request.commitment,
    )
    return attrs.evolve(request, join=JoinProof(token.id, joining.proof(token.key)))


def old_style(opening: Opening, reqid: str) -> Awaited:
    """
    What is left where the dispatcher speaks the exchange of the original.
    """
    code = confirmation_code(opening.request.csr.encode())
    return Awaited(reqid, code, True, opening.terms.authority)


def agreed(opening: Opening, opened: PairOpened, met: Met) -> Awaited:
    """
    Check what a dispatcher says about itself, and compute the code.

    @raise PkiError: it is not the one at the other end of the connection, or
        no dispatcher of the CA that it names, or that is not the CA that was
        asked for.
    """
    cert, ca = opened.cert.encode(), opened.ca.encode()
    shown = parse_certificate(met.cert)
    if parse_certificate(cert) != shown:
        raise PkiError("the dispatcher names another certificate than it shows")
    # The code covers the key, so that the name is not all there is; a pin is.
    original = not opening.terms.authority
    check_dispatcher(cert=cert, ca=ca, now=met.now, original=original)
    check_authority(ca, opening.terms.authority)
    parties = Parties(
        agent_key=key_der(read_csr(opening.request.csr.encode()).public_key),
        name=opening.request.hostname,
        ca_key=key_der(parse_authority(ca).public_key()),
        dispatcher_key=key_der(shown.public_key()),
        nonce_a=opening.nonce_a,
        nonce_d=opened.nonce_d,
    )
    return Awaited(opened.reqid, parties.code, False, ca_fingerprint(ca))


def check_approval(approval: PairApproved, awaited: Awaited) -> None:
    """
    @raise PkiError: the approval carries another CA than was agreed on.
    """
    check_authority(approval.ca.encode(), awaited.authority)


def check_authority(ca: bytes, fingerprint: str) -> None:
    """
    @param ca: PEM.
    @param fingerprint: the one that it must have; empty for any.
    @raise PkiError: it has another, or is no CA.
    """
    found = ca_fingerprint(ca)
    if fingerprint and found != fingerprint:
        raise PkiError(f"the CA is {found}, not {fingerprint}")
