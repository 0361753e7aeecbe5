# SPDX-License-Identifier: AGPL-3.0-only
"""
The messages of pairing to JSON and back, by the rules of
L{ctrlexec.protocol.codec}. Sources: PROTOCOL.md section 3, NEWER-LINE.md
section 5; what hosts of ours add to them is in C{docs/pairing.md}.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs

from ctrlexec.errors import InvalidValue, ProtocolError
from ctrlexec.protocol.fields import (
    ERROR_CHARACTERS,
    answer_fields,
    from_json,
    text_field,
    to_json,
)
from ctrlexec.protocol.messages import (
    JoinProof,
    PairApproved,
    PairDecision,
    PairDenied,
    PairFailed,
    PairOpened,
    PairPending,
    PairRequest,
    PairReveal,
)
from ctrlexec.values import agent_name, is_ip_address

_NONCE = re.compile(r"[0-9A-Fa-f]{32}")
# The commitment, and the nonces of the exchange that is committed to.
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TOKEN_ID = re.compile(r"[0-9a-f]{16}")
#: Which exchange a peer speaks; a host of the original does not say.
_EXCHANGE = 2


def encode_pair_request(request: PairRequest) -> bytes:
    """
    The body of C{POST /pair}.
    """
    fields: dict[str, Any] = {
        "hostname": request.hostname,
        "csr": request.csr,
        "nonce": request.nonce,
    }
    if request.lookup_by:
        fields["lookup_by"] = request.lookup_by
    if request.port:
        fields["port"] = request.port
    if request.ip:
        fields["ip"] = request.ip
    if request.commitment:
        fields["pair"] = _EXCHANGE
        fields["commitment"] = request.commitment
    if request.join is not None:
        fields["join"] = attrs.asdict(request.join)
    return to_json(fields)


def decode_pair_request(body: bytes) -> PairRequest | PairFailed:
    """
    @return: the request, or the answer to one that is none. Its CSR is still
        only a text.
    """
    try:
        fields = from_json(body)
        hostname, csr = text_field(fields, "hostname"), text_field(fields, "csr")
        nonce = text_field(fields, "nonce")
        commitment = _digest(fields, "commitment") if _is_ours(fields) else ""
        join = _join(fields)
    except ProtocolError:
        return PairFailed("invalid request")
    if not hostname or not csr or not _NONCE.fullmatch(nonce):
        return PairFailed("invalid request")
    try:
        agent_name(hostname)
    except InvalidValue:
        return PairFailed("invalid hostname")
    lookup_by, ip = fields.get("lookup_by"), fields.get("ip")
    return PairRequest(
        hostname,
        csr,
        nonce,
        lookup_by=lookup_by if lookup_by in ("ip", "hostname") else "",
        port=_port(fields.get("port")),
        ip=ip if isinstance(ip, str) and is_ip_address(ip) else "",
        commitment=commitment,
        join=join,
    )


def _join(fields: Mapping[str, Any]) -> JoinProof | None:
    """
    What is not all there must not become a request that a person may approve.
    """
    if "join" not in fields:
        return None
    inside = fields["join"]
    if not isinstance(inside, dict) or not _is_ours(fields):
        raise ProtocolError("join is not what it should be")
    token = text_field(inside, "id")
    if not _TOKEN_ID.fullmatch(token):
        raise ProtocolError("id is not 16 hex characters")
    return JoinProof(token, _digest(inside, "mac"))


def _is_ours(fields: Mapping[str, Any]) -> bool:
    return type(fields.get("pair")) is int and fields["pair"] == _EXCHANGE


def _digest(fields: Mapping[str, Any], name: str) -> str:
    text = text_field(fields, name)
    if not _DIGEST.fullmatch(text):
        raise ProtocolError(f"{name} is not 64 hex characters")
    return text


def _port(value: object) -> int:
    if isinstance(value, str) and re.fullmatch("[0-9]{1,5}", value):
        value = int(value)
    return value if type(value) is int and 1 <= value <= 65535 else 0


def encode_pair_first(answer: PairPending | PairOpened | PairFailed) -> bytes:
    """
    The body of what a dispatcher answers before the decision.
    """
    match answer:
        case PairPending(reqid):
            return to_json({"status": "pending", "reqid": reqid})
        case PairOpened():
            # "pending", for whoever does not know of what follows.
            fields = {"status": "pending", **attrs.asdict(answer)}
            return to_json({**fields, "pair": _EXCHANGE})
        case PairFailed(reason):
            return to_json({"status": "error", "reason": reason})


def decode_pair_first(body: bytes) -> PairPending | PairOpened | PairFailed:
    """
    @raise ProtocolError: it is no such answer.
    """
    fields = answer_fields(body)
    match text_field(fields, "status"):
        case "pending" if _is_ours(fields):
            return PairOpened(
                text_field(fields, "reqid"),
                _digest(fields, "nonce_d"),
                text_field(fields, "ca"),
                text_field(fields, "cert"),
            )
        case "pending":
            return PairPending(text_field(fields, "reqid"))
        case "error":
            return PairFailed(_reason(fields))
    raise ProtocolError("the answer is not a pairing listener's")


def encode_pair_reveal(reveal: PairReveal) -> bytes:
    """
    The body of C{POST /pair-reveal}.
    """
    return to_json(attrs.asdict(reveal))


def decode_pair_reveal(body: bytes) -> PairReveal | PairFailed:
    """
    @return: what is revealed, or the answer to what reveals nothing.
    """
    try:
        fields = from_json(body)
        return PairReveal(text_field(fields, "reqid"), _digest(fields, "nonce_a"))
    except ProtocolError:
        return PairFailed("invalid request")


def encode_pair_decision(decision: PairDecision) -> bytes:
    """
    The body of a dispatcher's second answer.
    """
    if isinstance(decision, PairDenied):
        return to_json({"status": "denied", "reason": decision.reason})
    fields = {
        "status": "approved",
        "cert": decision.cert,
        "ca": decision.ca,
        "nonce": decision.nonce,
        "dispatcher_serial": decision.dispatcher_serial,
    }
    if decision.dispatcher_id:
        # Absent is what a peer takes for none: NEWER-LINE.md section 4.2.
        fields["dispatcher_id"] = decision.dispatcher_id
    return to_json(fields)


def decode_pair_decision(body: bytes) -> PairDecision:
    """
    @raise ProtocolError: it is no decision.
    """
    fields = answer_fields(body)
    match text_field(fields, "status"):
        case "denied":
            return PairDenied(_reason(fields))
        case "approved":
            return PairApproved(
                cert=text_field(fields, "cert"),
                ca=text_field(fields, "ca"),
                nonce=text_field(fields, "nonce"),
                dispatcher_serial=text_field(fields, "dispatcher_serial"),
                dispatcher_id=text_field(fields, "dispatcher_id"),
            )
    raise ProtocolError("the answer is not a pairing decision")


def _reason(fields: Mapping[str, Any]) -> str:
    return text_field(fields, "reason")[:ERROR_CHARACTERS] or "no reason given"
