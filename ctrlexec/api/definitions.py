# SPDX-License-Identifier: AGPL-3.0-only
"""
The operations of the API: where each is, what it takes, what it answers.

Requests are held against these definitions, and the OpenAPI document is made of
them, so neither can say what the other does not. Sources: PROTOCOL.md section 8,
NEWER-LINE.md section 13.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from jsonschema import Draft202012Validator

from ctrlexec.api import schemas
from ctrlexec.errors import CtrlExecError, ProtocolError, abbreviated
from ctrlexec.protocol.codec import from_json, is_sound

#: Says that an answer is the one that was given before.
REPLAYED = "Idempotency-Replayed"
#: How long any list in a request may be.
MOST_MEMBERS = 20_000


class BadRequest(CtrlExecError):
    """
    A request is none that this API takes.
    """


@attrs.frozen
class Answer:
    """
    An answer that an operation can give.

    @ivar schema: the name of its schema in L{schemas.COMPONENTS}, or of that of
        each of its events; C{None} for some text.
    @ivar media: its type; empty where there is no body.
    @ivar headers: the schemas of what its header may say beside what every one
        says, by name.
    """

    description: str
    schema: str | None
    media: str = "application/json"
    headers: Mapping[str, schemas.Schema] = attrs.field(factory=dict)


#: What any operation can answer: refusals that come before it.
_ALWAYS: Mapping[int, Answer] = {
    403: Answer("The caller may not do this.", "Denied"),
    413: Answer("The body is larger than 1,048,576 bytes.", "Refused"),
    431: Answer("There are more than 32 header lines.", "Refused"),
    500: Answer("It could not be done; the log says why.", "Refused"),
    503: Answer("Too many requests are under way; try again later.", "Refused"),
}
_BAD = {400: Answer("The request makes no sense.", "Refused")}
_REPLAYED = {REPLAYED: schemas.REPLAYED}
_STRANGERS = {404: Answer("A host is no registered agent.", "Refused")}


@attrs.frozen(kw_only=True)
class Operation:
    """
    Something that the API can be asked for.

    @ivar id: its name, also in the document.
    @ivar path: with the parameters in braces.
    @ivar body: the name of the schema of its body in L{schemas.COMPONENTS};
        C{None} where it takes none.
    @ivar headers: the schemas of what its header may say, by name; others do not
        matter.
    @ivar answers: what it answers, by status, beside what every one can.
    @ivar gated: whether the auth hook is asked, and requests are counted.
    """

    id: str
    method: str
    path: str
    summary: str
    body: str | None = None
    headers: Mapping[str, schemas.Schema] = attrs.field(factory=dict)
    answers: Mapping[int, Answer]
    gated: bool = True

    def every_answer(self) -> Mapping[int, Answer]:
        """
        @return: all that it can answer, by status.
        """
        gates = _ALWAYS if self.gated else {431: _ALWAYS[431], 413: _ALWAYS[413]}
        bad = _BAD if self.body or "{" in self.path else {}
        return dict(sorted({**gates, **bad, **self.answers}.items()))


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        id="index",
        method="GET",
        path="/",
        summary="What there is.",
        answers={200: Answer("The operations of this API.", "Index")},
    ),
    Operation(
        id="health",
        method="GET",
        path="/health",
        summary="Whether the API answers, to those who may ask it something.",
        answers={200: Answer("It does.", "Health")},
    ),
    Operation(
        id="run",
        method="POST",
        path="/run",
        summary="Run a script on hosts.",
        body="RunRequest",
        headers={"Idempotency-Key": schemas.KEY},
        answers={
            200: Answer(
                "What became of it on each host.", "RunResponse", headers=_REPLAYED
            ),
            202: Answer(
                "Which hosts have taken it.", "AsyncSubmitResponse", headers=_REPLAYED
            ),
            409: Answer("It runs already on some of the hosts.", "Locked"),
            422: Answer("Another run was ordered with this key.", "Refused"),
            **_STRANGERS,
        },
    ),
    Operation(
        id="ping",
        method="POST",
        path="/ping",
        summary="Ask hosts whether their agents are there.",
        body="PingRequest",
        answers={
            200: Answer("What each host answered.", "PingResponse"),
            **_STRANGERS,
        },
    ),
    Operation(
        id="discoverAll",
        method="GET",
        path="/discovery",
        summary="Ask all hosts what they offer.",
        answers={200: Answer("What each host offers.", "DiscoveryResponse")},
    ),
    Operation(
        id="discover",
        method="POST",
        path="/discovery",
        summary="Ask hosts what they offer; where none are named, all of them.",
        body="DiscoveryRequest",
        answers={
            200: Answer("What each host offers.", "DiscoveryResponse"),
            **_STRANGERS,
        },
    ),
    Operation(
        id="status",
        method="GET",
        path="/status/{reqid}",
        summary="What became of a run of the last 24 hours.",
        answers={
            200: Answer("The run, and its results.", "StatusResponse"),
            404: Answer("There is none, or none that you may see.", "Refused"),
        },
    ),
    Operation(
        id="cancel",
        method="POST",
        path="/runs/{reqid}/cancel",
        summary="End a run, and everything that it has started.",
        body="CancelRequest",
        answers={
            200: Answer("What was ended on each host.", "CancelResponse"),
            404: Answer("There is none, or none that you may end.", "Refused"),
        },
    ),
    Operation(
        id="events",
        method="GET",
        path="/runs/{reqid}/events",
        summary="What a run writes, as it comes: server-sent events.",
        headers={"Last-Event-ID": schemas.EVENT_ID},
        answers={
            200: Answer(
                "Its events; the last is done.", "RunEvent", "text/event-stream"
            ),
            204: Answer("There was done already.", None, ""),
            404: Answer("There is none, or none that you may see.", "Refused"),
            429: Answer("So many runs are followed for you already.", "Refused"),
        },
    ),
    Operation(
        id="openapi",
        method="GET",
        path="/openapi.json",
        summary="This document.",
        answers={200: Answer("An OpenAPI 3.1 document.", "Document")},
    ),
    Operation(
        id="openapiLive",
        method="GET",
        path="/openapi-live.json",
        summary="This document, with the hosts and scripts that there are now.",
        answers={200: Answer("An OpenAPI 3.1 document.", "Document")},
    ),
    Operation(
        id="healthz",
        method="GET",
        path="/healthz",
        summary="Whether the process lives; for probes, no hook is asked.",
        answers={200: Answer("It does.", "Probe")},
        gated=False,
    ),
    Operation(
        id="readyz",
        method="GET",
        path="/readyz",
        summary="Whether it can work; for probes, no hook is asked.",
        answers={
            200: Answer("It can.", "Probe"),
            503: Answer("It cannot; the log says why.", "Probe"),
        },
        gated=False,
    ),
    Operation(
        id="metrics",
        method="GET",
        path="/metrics",
        summary="Counters for Prometheus.",
        answers={200: Answer("Prometheus' text format.", None, "text/plain")},
    ),
)

BY_ID: Mapping[str, Operation] = {each.id: each for each in OPERATIONS}


def validate(operation: str, body: bytes) -> dict[str, Any]:
    """
    @param operation: its id.
    @param body: as it came. An operation that takes none reads at most who asks.
    @return: what is in it; without those members that are C{null}, which are
        as good as missing.
    @raise BadRequest: it is not what the operation takes; says what and where.
    """
    try:
        return _valid(operation, body)
    except RecursionError:
        # What can just be read can still be too deep to be looked through.
        raise BadRequest("the body is nested too deeply") from None


def headers(operation: str, field: Callable[[str], str | None]) -> dict[str, str]:
    """
    @param operation: its id.
    @param field: what a header says under a name; C{None} for nothing.
    @return: what it says that the operation listens to.
    @raise BadRequest: some of that is not what it must be.
    """
    found = {}
    for name, schema in BY_ID[operation].headers.items():
        value = field(name)
        if value is None:
            continue
        wrong = next(Draft202012Validator(schema).iter_errors(value), None)
        if wrong is not None:
            raise BadRequest(f"{name}: {_in_words(wrong.validator, wrong, name)}")
        found[name] = value
    return found


def _valid(operation: str, body: bytes) -> dict[str, Any]:
    fields = _object(body)
    schema = BY_ID[operation].body
    if schema is not None:
        _bounded(fields)
        wrong = next(_validator(schema).iter_errors(fields), None)
        if wrong is not None:
            where = "".join(f"{part}: " for part in wrong.absolute_path)
            name = str(next(iter(wrong.absolute_path), ""))
            raise BadRequest(f"{where}{_in_words(wrong.validator, wrong, name)}")
    if not _sound(fields):
        raise BadRequest("a text in it is not valid Unicode")
    return {name: value for name, value in fields.items() if value is not None}


def _bounded(fields: Mapping[str, Any]) -> None:
    """
    A list is held against its schema member by member, which takes its time.
    """
    for name, value in fields.items():
        if isinstance(value, list) and len(value) > MOST_MEMBERS:
            raise BadRequest(f"{name}: must be no longer than {MOST_MEMBERS}")


def _object(body: bytes) -> dict[str, Any]:
    if not body:
        return {}
    try:
        return from_json(body)
    except ProtocolError:
        raise BadRequest("the body is not a JSON object") from None


@functools.cache
def _validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator(
        {
            "$ref": f"#/components/schemas/{schema}",
            "components": {"schemas": schemas.COMPONENTS},
        }
    )


def _in_words(rule: object, wrong: Any, name: str) -> str:
    """
    What is wrong, without repeating at length what somebody sent.
    """
    match rule:
        case "type":
            expected = wrong.validator_value
            kinds = [expected] if isinstance(expected, str) else expected
            return f"must be {' or '.join(k for k in kinds if k != 'null')}"
        case "minimum" | "exclusiveMinimum" | "maximum":
            least = "more than" if rule == "exclusiveMinimum" else "at least"
            words = "at most" if rule == "maximum" else least
            return f"must be {words} {wrong.validator_value:,}"
        case "required":
            missing = [n for n in wrong.validator_value if n not in wrong.instance]
            return f"{', '.join(missing)} must be given"
        case "minItems" | "minLength":
            return "must not be empty"
        case "maxLength" | "maxItems":
            return f"must be no longer than {wrong.validator_value}"
        case "enum":
            allowed = (repr(each) for each in wrong.validator_value if each is not None)
            return f"must be {' or '.join(allowed)}"
        case "pattern" if name in schemas.FORMS:
            return f"must be {schemas.FORMS[name]}"
    said = wrong.schema.get("description", "")
    shown = abbreviated(str(wrong.instance))
    return f"{shown} is not what it must be{': ' if said else ''}{said}"


def _sound(value: object) -> bool:
    match value:
        case str():
            return is_sound(value)
        case list():
            return all(map(_sound, value))
        case dict():
            return all(_sound(k) and _sound(v) for k, v in value.items())
    return True
