# SPDX-License-Identifier: AGPL-3.0-only
"""
Messages by which trust goes on: a renewed certificate for an agent, and a new
serial of a dispatcher's. To JSON and back, like L{ctrlexec.protocol.codec}.

Sources: PROTOCOL.md section 2, NEWER-LINE.md sections 3.7 and 8.
"""

from __future__ import annotations

from ctrlexec.errors import ProtocolError
from ctrlexec.protocol.fields import (
    ERROR_CHARACTERS,
    answer_fields,
    flag_field,
    from_json,
    ok_fields,
    text_field,
    to_json,
)
from ctrlexec.protocol.messages import (
    RenewCsr,
    RenewDone,
    RenewFailed,
    RenewOrder,
    RenewRequest,
    RotateAnswer,
    RotateDone,
    RotateFailed,
    RotateRequest,
)


class NoSuchRequest(ProtocolError):
    """
    An agent does not know what it was asked: it is of an older line.
    """


# --- what an agent is asked ----------------------------------------------


def encode_renew_request(request: RenewRequest) -> bytes:
    """
    The body of C{POST /renew}.
    """
    fields = {"new_key": True} if request.new_key else {}
    return to_json({"reqid": request.reqid, **fields})


def decode_renew_request(body: bytes) -> RenewRequest:
    """
    A body that is no request counts as an empty one, as it does in a ping.
    """
    try:
        fields = from_json(body)
        return RenewRequest(text_field(fields, "reqid"), flag_field(fields, "new_key"))
    except ProtocolError:
        return RenewRequest()


def encode_renew_order(order: RenewOrder) -> bytes:
    """
    The body of C{POST /renew-complete}.
    """
    return to_json({"cert": order.cert, "ca": order.ca, "reqid": order.reqid})


def decode_renew_order(body: bytes) -> RenewOrder | RenewFailed:
    """
    @return: the order, or the answer to one that is none.
    """
    try:
        fields = from_json(body)
        reqid = text_field(fields, "reqid")
    except ProtocolError:
        return RenewFailed("cert required")
    try:
        cert = text_field(fields, "cert")
    except ProtocolError:
        cert = ""
    # What the original does not look at need not be anything.
    ca = fields.get("ca")
    if not cert:
        return RenewFailed("cert required", reqid)
    return RenewOrder(cert, ca if isinstance(ca, str) else "", reqid)


def encode_rotate_request(request: RotateRequest) -> bytes:
    """
    The body of C{POST /rotate-serial}.
    """
    fields = {"token": request.token} if request.token else {}
    return to_json({"serial": request.serial, "action": request.action, **fields})


# --- what an agent answers -----------------------------------------------


def encode_renew_answer(answer: RenewCsr | RenewDone | RenewFailed) -> bytes:
    """
    The body of the answer to C{POST /renew} and C{POST /renew-complete}.
    """
    match answer:
        case RenewCsr(csr, reqid):
            return to_json({"status": "ok", "csr": csr, "reqid": reqid})
        case RenewDone(reqid, staged):
            return to_json({"status": "ok", "reqid": reqid, "staged": staged})
        case RenewFailed(error, reqid):
            return to_json({"status": "error", "error": error, "reqid": reqid})


def decode_renew_csr(body: bytes) -> RenewCsr:
    """
    @raise ProtocolError: there is no request; in the agent's words, where it
        has any.
    """
    fields = answer_fields(body)
    csr = text_field(fields, "csr")
    # PROTOCOL.md section 2: not every agent says "ok" beside it.
    if text_field(fields, "status") not in ("", "ok") or not csr:
        error = text_field(fields, "error")[:ERROR_CHARACTERS]
        raise ProtocolError(error or "the answer holds no certificate request")
    return RenewCsr(csr, text_field(fields, "reqid"))


def decode_renew_done(body: bytes) -> RenewDone:
    """
    @raise ProtocolError: the agent does not say that it has taken the
        certificate. That comes with HTTP status 200 too.
    """
    fields = ok_fields(body, "the agent does not say that it has the certificate")
    return RenewDone(text_field(fields, "reqid"), flag_field(fields, "staged"))


def decode_rotate_answer(body: bytes) -> RotateAnswer:
    """
    @raise ProtocolError: it is none.
    """
    fields = answer_fields(body)
    if text_field(fields, "status") == "ok":
        return RotateDone(
            text_field(fields, "action"),
            text_field(fields, "serial"),
            text_field(fields, "dispatcher"),
        )
    error = text_field(fields, "error")[:ERROR_CHARACTERS]
    if not error:
        raise ProtocolError("the agent does not say what it did with the serial")
    return RotateFailed(error)
