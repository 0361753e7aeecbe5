# SPDX-License-Identifier: AGPL-3.0-only
"""
What the API answers where it does not do what it was asked: one table from
errors to answers (PROTOCOL.md section 8, NEWER-LINE.md section 13).

The fields are the original's, in its order. A client that asks for
C{application/problem+json} (RFC 9457) gets the members of that type besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ctrlexec.api.definitions import BadRequest
from ctrlexec.errors import (
    Conflict,
    CtrlExecError,
    InvalidValue,
    Locked,
    NotAuthorised,
    NotFound,
    Overload,
    PkiError,
    ShareUsed,
    StoreError,
    Unconfirmed,
    UnknownAgents,
)
from ctrlexec.protocol import limits
from ctrlexec.protocol.codec import to_json
from ctrlexec.protocol.http import REASONS, BadMessage

JSON = "application/json"
PROBLEM_JSON = "application/problem+json"
#: When whoever was one too many may try again, in seconds.
RETRY_SECONDS = 1

_TITLES = {
    **REASONS,
    204: "No Content",
    405: "Method Not Allowed",
    422: "Unprocessable Content",
    429: "Too Many Requests",
}
_TOO_MANY = str(Overload(0))
_SEE_LOG = "the dispatcher could not do it; its log says why"


class Unreadable(CtrlExecError):
    """
    What became of a run can not be read; says why.
    """


@attrs.frozen
class Answer:
    """
    An answer, spelled out.

    @ivar headers: beside those that every answer has.
    """

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def reason(self) -> str:
        """
        The status in words.
        """
        return _TITLES.get(self.status, "Unknown")


@attrs.frozen
class Problem:
    """
    Why something was not done.

    @ivar fields: as the original has them; C{ok} comes before them.
    @ivar detail: a sentence for people, where none of the fields is one.
    """

    status: int
    fields: Mapping[str, Any]
    detail: str = ""
    headers: Mapping[str, str] = attrs.field(factory=dict)

    def answer(self, accept: str) -> Answer:
        """
        @param accept: the C{Accept} field of the request.
        """
        fields = {"ok": False, **self.fields}
        if not asks_for_problem(accept):
            return Answer(self.status, to_json(fields), JSON, self.headers)
        members = {
            "type": "about:blank",
            "title": _TITLES.get(self.status, "Unknown"),
            "status": self.status,
            "detail": self.detail or self.fields.get("error", ""),
        }
        # What has a name already keeps its place.
        body = to_json({**fields, **members, **self.fields})
        return Answer(self.status, body, PROBLEM_JSON, self.headers)


def problem_of(error: BaseException, *, generic: bool = False) -> Problem:
    """
    The table.

    @param generic: whether a denial keeps its reason to itself.
    """
    match error:
        case NotAuthorised():
            return _denied(error, generic)
        case Locked(conflicts=conflicts):
            fields = {"error": "locked", "code": 4, "conflicts": conflicts}
            return Problem(409, fields, str(error))
        case Conflict():
            # Nothing here can conflict but two orders under one key.
            detail = str(error)
            fields = {"error": "unprocessable content", "detail": detail}
            return Problem(422, fields, detail)
        case UnknownAgents(names=names):
            detail = f"not a registered agent: {', '.join(names)}"
            return Problem(404, {"error": "unknown agent", "detail": detail})
        case NotFound():
            return not_found(str(error))
        case InvalidValue() | BadRequest() | Unconfirmed():
            return bad_request(str(error))
        case Overload():
            return _too_much(error)
    return _unable(error)


def _unable(error: BaseException) -> Problem:
    match error:
        case Unreadable():
            fields = {"error": "cannot read result", "detail": _SEE_LOG}
            return Problem(500, fields, _SEE_LOG)
        case StoreError():
            return internal_error("a record can not be read or written")
        case PkiError():
            return internal_error("the dispatcher's certificate can not be used")
    return internal_error()


def _denied(error: NotAuthorised, generic: bool) -> Problem:
    if generic:
        return Problem(403, {"error": "forbidden"})
    return Problem(403, {"error": error.reason, "code": error.code})


def _too_much(error: Overload) -> Problem:
    if not isinstance(error, ShareUsed):
        return _overload(_TOO_MANY)
    detail, again = str(error), {"Retry-After": str(RETRY_SECONDS)}
    return Problem(429, {"error": "too many requests", "detail": detail}, detail, again)


def bad_request(detail: str) -> Problem:
    """
    Whoever asks has to ask otherwise.
    """
    return Problem(400, {"error": "bad request", "detail": detail}, detail)


def not_found(detail: str) -> Problem:
    """
    There is no such thing; or it is not for whoever asks.
    """
    return Problem(404, {"error": "not found", "detail": detail}, detail)


def no_such_path(path: bytes) -> Problem:
    """
    @param path: as it came; ASCII, as all that gets through our parser.
    """
    return not_found(f"there is no {path.decode('ascii', 'replace')}")


def wrong_method(allowed: str) -> Problem:
    """
    @param allowed: the methods that there are, as C{Allow} lists them.
    """
    detail = f"this takes {allowed}"
    fields = {"error": "method not allowed", "detail": detail}
    return Problem(405, fields, detail, {"Allow": allowed})


def internal_error(detail: str = _SEE_LOG) -> Problem:
    """
    It is not the fault of whoever asks.
    """
    return Problem(500, {"error": "internal error", "detail": detail}, detail)


def _overload(detail: str) -> Problem:
    fields = {"error": "service unavailable", "detail": detail}
    return Problem(503, fields, detail, {"Retry-After": str(RETRY_SECONDS)})


def bad_message(bad: BadMessage) -> Problem:
    """
    What arrived was no request, or too much of one.
    """
    match bad.code:
        case 431:
            error = "request header fields too large"
            detail = f"more than {limits.HEADER_LINES} header lines"
            if "too many" not in str(bad):
                detail = f"more than {limits.HEADER_BYTES} bytes of header"
        case 413:
            error = "payload too large"
            detail = f"body exceeds {limits.REQUEST_BODY_BYTES} bytes"
        case 408:
            error, detail = "request timeout", str(bad)
        case 503:
            return _overload(_TOO_MANY)
        case _:
            return bad_request(str(bad))
    return Problem(bad.code, {"error": error, "detail": detail}, detail)


def asks_for_problem(accept: str) -> bool:
    """
    Whether a client names C{application/problem+json}: not whether it would
    put up with it, as with anything.
    """
    for offer in accept.lower().split(","):
        name, *parameters = (part.strip() for part in offer.split(";"))
        if name == PROBLEM_JSON:
            return not any(_is_nothing(each) for each in parameters)
    return False


def _is_nothing(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name.strip() == "q" and value.strip(" 0.") == ""
