# SPDX-License-Identifier: AGPL-3.0-only
"""
C{POST /revocations}: a list of revoked certificates for an agent, to JSON and
back, like L{ctrlexec.protocol.codec}.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from typing import Any

from ctrlexec.errors import InvalidValue, ProtocolError
from ctrlexec.protocol.fields import (
    ERROR_CHARACTERS,
    answer_fields,
    from_json,
    text_field,
    to_json,
)
from ctrlexec.protocol.revocation import (
    MOST_NUMBER,
    MOST_SERIALS,
    Acknowledged,
    NotAcknowledged,
    Revocations,
    SignedRevocations,
    canonical_serials,
)
from ctrlexec.values import from_iso_time


def encode_revocations(found: SignedRevocations) -> bytes:
    """
    The body of C{POST /revocations}.
    """
    revoked = found.revocations
    return to_json(
        {
            "number": revoked.number,
            "serials": sorted(revoked.serials),
            "issued": revoked.issued,
            "issuer": revoked.issuer,
            "signature": found.signature.hex(),
            **({"cert": found.cert} if found.cert else {}),
        }
    )


def decode_revocations(body: bytes) -> SignedRevocations:
    """
    @raise ProtocolError: it is no list.
    """
    fields = from_json(body)
    issued = text_field(fields, "issued")
    try:
        from_iso_time(issued)
        revocations = Revocations(
            issuer=text_field(fields, "issuer"),
            number=_number(fields, "number"),
            issued=issued,
            serials=_serials(fields),
        )
        signature = binascii.unhexlify(text_field(fields, "signature").encode())
    except InvalidValue as error:
        raise ProtocolError(str(error)) from None
    except ValueError:
        raise ProtocolError("signature must be hex") from None
    return SignedRevocations(revocations, signature, text_field(fields, "cert"))


def encode_acknowledgement(answer: Acknowledged | NotAcknowledged) -> bytes:
    """
    The body of the answer.
    """
    match answer:
        case Acknowledged(number):
            return to_json({"status": "ok", "number": number})
        case NotAcknowledged(error, held):
            return to_json({"status": "error", "error": error, "held": held})


def decode_acknowledgement(body: bytes) -> Acknowledged | NotAcknowledged:
    """
    @raise ProtocolError: it is none.
    """
    fields = answer_fields(body)
    if text_field(fields, "status") == "ok":
        return Acknowledged(_number(fields, "number"))
    error = text_field(fields, "error")[:ERROR_CHARACTERS]
    if not error:
        raise ProtocolError("the agent does not say what it did with the list")
    held = fields.get("held")
    return NotAcknowledged(error, _number(fields, "held") if held else 0)


def _number(fields: Mapping[str, Any], name: str) -> int:
    number = fields.get(name)
    if type(number) is not int or not 0 < number <= MOST_NUMBER:
        raise ProtocolError(f"{name} must be a number above 0")
    return number


def _serials(fields: Mapping[str, Any]) -> frozenset[str]:
    serials = fields.get("serials")
    if not isinstance(serials, list):
        raise ProtocolError("serials must be an array")
    if len(serials) > MOST_SERIALS:
        raise ProtocolError(f"more than {MOST_SERIALS} serials")
    if not all(isinstance(each, str) for each in serials):
        raise ProtocolError("serials must be texts")
    return canonical_serials(serials)
