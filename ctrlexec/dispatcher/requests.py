# SPDX-License-Identifier: AGPL-3.0-only
"""
What a pairing request that waits comes from, and what its code is: the
dispatcher's half of C{docs/pairing.md}.
"""

from __future__ import annotations

import attrs

from ctrlexec.certificates import key_der, parse_authority, parse_certificate
from ctrlexec.codes import Parties, commitment, is_committed, new_pairing_nonce
from ctrlexec.dispatcher.records import QueuedRequest, Revealed
from ctrlexec.errors import PkiError
from ctrlexec.joining import Joining
from ctrlexec.pki import confirmation_code, read_csr
from ctrlexec.protocol.messages import PairOpened, PairRequest, PairReveal
from ctrlexec.values import new_request_id


def opened(ca: bytes, cert: bytes) -> PairOpened:
    """
    The answer to a commitment, with a fresh nonce.

    @param ca: PEM.
    @param cert: what the connection was made with, PEM.
    """
    return PairOpened(
        reqid=new_request_id(),
        nonce_d=new_pairing_nonce(),
        ca=ca.decode("ascii"),
        cert=cert.decode("ascii"),
    )


def is_kept(pair: PairRequest, shown: PairOpened, reveal: PairReveal) -> bool:
    """
    Whether an agent reveals, on this request, what it had committed to.
    """
    return reveal.reqid == shown.reqid and is_committed(reveal.nonce_a, pair.commitment)


def revealed(shown: PairOpened, reveal: PairReveal) -> Revealed:
    """
    What both sides have shown.
    """
    return Revealed(reveal.nonce_a, shown.nonce_d, shown.ca, shown.cert)


def with_revealed(request: QueuedRequest, reqid: str, seen: Revealed) -> QueuedRequest:
    """
    A request of the original's exchange, as what it is in ours.
    """
    ours = attrs.evolve(request, id=reqid, revealed=seen)
    return attrs.evolve(ours, code=code_of(ours))


def code_of(request: QueuedRequest) -> str:
    """
    The code of a request, always computed from what would be signed.

    @raise PkiError: it holds no certificates, or no request, or no nonces.
    """
    seen = request.revealed
    if seen is None:
        return confirmation_code(request.csr.encode())
    try:
        return Parties(
            agent_key=key_der(read_csr(request.csr.encode()).public_key),
            name=request.hostname,
            ca_key=key_der(parse_authority(seen.ca.encode()).public_key()),
            dispatcher_key=key_der(parse_certificate(seen.cert.encode()).public_key()),
            nonce_a=seen.nonce_a,
            nonce_d=seen.nonce_d,
        ).code
    except ValueError:
        raise PkiError("a nonce is not hex") from None


def joining(request: QueuedRequest, seen: Revealed) -> Joining:
    """
    What an agent that brings a join token has to prove.

    @raise PkiError: the request holds no key, or no certificate was shown.
    """
    return Joining(
        agent_key=key_der(read_csr(request.csr.encode()).public_key),
        name=request.hostname,
        dispatcher_key=key_der(parse_certificate(seen.cert.encode()).public_key()),
        commitment=commitment(seen.nonce_a),
    )
