# SPDX-License-Identifier: AGPL-3.0-only
"""
The schemas of what the API takes and answers, by name: JSON Schema 2020-12.

What is C{null} is as good as missing; members that we do not know are ignored.
There are over 400 lines, since there is one or more for each member.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ctrlexec.dispatcher.results import NEVER_BEGAN, Outcome
from ctrlexec.protocol.run_messages import STATES

Schema = Mapping[str, Any]

# What a pattern must not find: the end of a text, in a pattern, can be before
# a last newline.
_NO_CONTROL: Schema = {"type": "string", "pattern": r"[\u0000-\u001f\u007f]"}
_NO_NUL: Schema = {"type": "string", "pattern": r"\u0000"}


def _object(required: str = "", **members: Schema) -> Schema:
    needed = {"required": required.split()} if required else {}
    return {"type": "object", **needed, "properties": members}


def _text(description: str = "", **more: Any) -> Schema:
    return {"type": "string", **_said(description), **more}


def _optional(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _array(items: Schema, description: str = "", **more: Any) -> Schema:
    return {"type": "array", "items": items, **_said(description), **more}


def _said(description: str) -> Schema:
    return {"description": description} if description else {}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_YES: Schema = {"const": True}
_NO: Schema = {"const": False}
_BOOLEAN: Schema = {"type": "boolean"}
_INTEGER: Schema = {"type": "integer"}
_RTT = _text("from the first byte out to the last byte in", pattern="^[0-9]+ms$")

HOST = _text(
    "a registered agent, with or without :PORT; or a pattern: web-*, web[01-40], "
    "@tag=value",
    minLength=1,
    maxLength=1024,
    **{"not": _NO_CONTROL},
)
SCRIPT = _text(
    "letters, digits, '_' and '-', 128 characters at most",
    minLength=1,
    maxLength=128,
    **{"not": {"pattern": "[^A-Za-z0-9_-]"}},
)

_CALLER: Mapping[str, Schema] = {
    "username": _optional(
        _text("who asks, as they claim it; for hooks and logs", **{"not": _NO_CONTROL})
    ),
    "token": _optional(
        _text("what hooks know the caller by, beside the header", **{"not": _NO_NUL})
    ),
}
_EXCLUDE = _optional(_array(_ref("Host"), "hosts that are not meant"))

#: How long a script may run at the most, in seconds.
MOST_SECONDS = 30 * 86_400
_SECONDS: Schema = {"type": ["number", "null"], "maximum": MOST_SECONDS}
_PORTION: Schema = {
    "type": ["integer", "string", "null"],
    "minimum": 1,
    "maximum": 99_999,
    "pattern": "^([1-9][0-9]?|100)%$",
    "maxLength": 4,
}
#: What the text of a member must be that has a pattern, in words.
FORMS: Mapping[str, str] = {
    "Idempotency-Key": "1 to 255 printable ASCII characters",
    "Last-Event-ID": "the id of an event",
    "batch": "a number from 1, or a portion such as '25%'",
    "max_failures": "a number, or a portion such as '25%'",
}
#: What a client calls an order of its own: C{Idempotency-Key}.
KEY: Schema = _text(
    "the same key from the same caller is the same run, which is not started again",
    minLength=1,
    maxLength=255,
    pattern="^[!-~]([ -~]*[!-~])?$",
)
#: What the header says of an answer that was given before: C{Idempotency-Replayed}.
REPLAYED: Schema = {
    "const": "true",
    "description": "it was ordered before with this key, and this is what became of it",
}
#: With what a client goes on that was cut off: C{Last-Event-ID}.
EVENT_ID: Schema = _text(
    "the id of the last event that the client has", pattern="^[A-Za-z0-9_-]*$"
)

#: What became of a run on a host, in one word.
_STATE = _text("what became of it, in one word", enum=[each.value for each in Outcome])
_REASON = _text(
    "why it did not end by itself, which signal ended it, or what is behind the error"
)
_TIMES: Mapping[str, Schema] = {
    "started": _text("when it was started there, as its agent's clock had it"),
    "finished": _text("when it had ended"),
}

_RESULT: Mapping[str, Schema] = {
    "host": _text(),
    "rtt": _RTT,
    "reqid": _text(),
}
_WARNINGS = _array(_text(), "what else the caller should know")

COMPONENTS: Mapping[str, Schema] = {
    # --- what it takes ---------------------------------------------------
    "Host": HOST,
    "Script": SCRIPT,
    "RunRequest": _object(
        "hosts script",
        hosts=_array(_ref("Host"), minItems=1),
        exclude=_EXCLUDE,
        script=_ref("Script"),
        args=_optional(
            _array(
                _text("text without NUL characters", **{"not": _NO_NUL}),
                "what follows the script's name in its argv",
            )
        ),
        timeout={
            **_SECONDS,
            "exclusiveMinimum": 0,
            "description": "after how many seconds it is ended",
        },
        on_disconnect={
            "enum": ["keep", "cancel", None],
            "description": "what happens to it if the client leaves before the answer",
        },
        batch={
            **_PORTION,
            "description": "how many hosts are asked at a time: 3, or 25%",
        },
        batch_wait={
            **_SECONDS,
            "minimum": 0,
            "description": "how many seconds to wait between two lots",
        },
        canary={
            "type": ["integer", "null"],
            "minimum": 0,
            "maximum": 99_999,
            "description": "how many are asked first, alone",
        },
        max_failures={
            **_PORTION,
            "minimum": 0,
            "pattern": "^([1-9]?[0-9]|100)%$",
            "description": "how many may fail before no more are asked: 3, or 25%",
        },
        **{
            "async": {
                "description": (
                    "anything but false, 0, '0', '' or null: the answer comes when "
                    "the hosts have taken it"
                ),
            }
        },
        **_CALLER,
    ),
    "PingRequest": _object(
        "hosts",
        hosts=_array(_ref("Host"), minItems=1),
        exclude=_EXCLUDE,
        **_CALLER,
    ),
    "DiscoveryRequest": _object(
        "",
        hosts=_optional(_array(_ref("Host"), "none, or left out: all of them")),
        exclude=_EXCLUDE,
        **_CALLER,
    ),
    "CancelRequest": _object(
        "",
        hosts=_optional(
            _array(
                _text(
                    "a host of the run, as /status has it",
                    minLength=1,
                    maxLength=1024,
                    **{"not": _NO_CONTROL},
                ),
                "none, or left out: all of them",
            )
        ),
        **_CALLER,
    ),
    # --- what it answers -------------------------------------------------
    "Index": _object(
        "ok version operations",
        ok=_YES,
        version=_text(),
        operations=_array(
            _object(
                "method path summary", method=_text(), path=_text(), summary=_text()
            )
        ),
    ),
    "Health": _object("ok version", ok=_YES, version=_text()),
    "Probe": _object("ok", ok=_BOOLEAN),
    "Document": _object(
        "openapi info paths", openapi=_text(), info=_object(), paths=_object()
    ),
    "RunResult": {
        "oneOf": [
            _object(
                "host script exit stdout stderr rtt reqid",
                **_RESULT,
                script=_text(),
                exit={"type": "integer", "minimum": -1, "maximum": 255},
                stdout=_text(),
                stderr=_text(),
                state=_STATE,
                reason=_REASON,
                **_TIMES,
            ),
            _object(
                "host script exit error rtt reqid",
                **_RESULT,
                script=_text(),
                exit={"const": -1},
                error=_text("why there is no result"),
                state=_STATE,
                reason=_REASON,
            ),
        ]
    },
    "RunResponse": _object(
        "ok reqid results",
        ok=_YES,
        reqid=_text("one id for all of it"),
        results=_array(_ref("RunResult"), "in the order in which they came"),
        stopped={"const": True, "description": "too many failed to ask the others"},
        warnings=_WARNINGS,
    ),
    "AsyncSubmitResult": _object(
        "host script status reqid rtt",
        **_RESULT,
        script=_text(),
        status={"enum": ["accepted", "busy", "error"]},
        error=_text("why it does not run there"),
        state=_STATE,
        reason=_REASON,
    ),
    "AsyncSubmitResponse": _object(
        "ok reqid async results",
        ok=_YES,
        reqid=_text("one id for all of it"),
        results=_array(_ref("AsyncSubmitResult")),
        warnings=_WARNINGS,
        **{"async": _YES},
    ),
    "CancelResult": _object(
        "host rtt",
        host=_text(),
        state=_text(
            "how the run has ended there, or why it never began",
            enum=[*STATES, *(each.value for each in NEVER_BEGAN)],
        ),
        signalled=_array(
            _object(
                "pid command signal",
                pid=_INTEGER,
                command=_text("the name of the program"),
                signal={"enum": ["TERM", "KILL"]},
            ),
            "what was told to end",
        ),
        error=_text("why it is not known whether it has"),
        rtt=_RTT,
    ),
    "CancelResponse": _object(
        "ok reqid results",
        ok=_YES,
        reqid=_text(),
        results=_array(_ref("CancelResult"), "in the order in which they came"),
        warnings=_WARNINGS,
    ),
    "PingResult": {
        "oneOf": [
            _object(
                "host status version expiry staged rtt reqid",
                **_RESULT,
                status={"const": "ok"},
                version=_text(),
                expiry=_text("when the agent's certificate ends"),
                staged=_BOOLEAN,
                reported_hostname=_text("what it calls itself, if that differs"),
            ),
            _object(
                "host status error rtt",
                host=_text(),
                status={"const": "error"},
                error=_text("why there is no answer"),
                rtt=_RTT,
            ),
        ]
    },
    "PingResponse": _object(
        "ok results", ok=_YES, results=_array(_ref("PingResult")), warnings=_WARNINGS
    ),
    "ScriptInfo": _object(
        "name path executable",
        name=_text(),
        path=_text(),
        executable=_BOOLEAN,
        profile=_text(),
        schema={"type": "object", "description": "its sidecar, as it stands"},
        schema_version=_text(),
    ),
    "Capabilities": {
        "oneOf": [
            _object(
                "status host version scripts tags rtt",
                status={"const": "ok"},
                host=_text("the agent's own name for itself"),
                version=_text(),
                scripts=_array(_ref("ScriptInfo"), "by name"),
                tags={"type": "object", "additionalProperties": {"type": "string"}},
                rtt=_RTT,
                reported_hostname=_text("what it calls itself, if that differs"),
            ),
            _object(
                "status error rtt",
                status={"const": "error"},
                error=_text("why there is no answer"),
                rtt=_RTT,
            ),
        ]
    },
    "DiscoveryResponse": _object(
        "ok hosts",
        ok=_YES,
        hosts={
            "type": "object",
            "description": "by the names in the registry",
            "additionalProperties": _ref("Capabilities"),
        },
        warnings=_WARNINGS,
    ),
    "RunEvent": _object(
        "event id data",
        event={"enum": ["stdout", "stderr", "state", "result", "done"]},
        id=_text(
            "what a client that is cut off goes on with", pattern="^[A-Za-z0-9_-]+$"
        ),
        data=_text("JSON", contentMediaType="application/json"),
    ),
    "HostStatus": _object(
        "status",
        status={"enum": ["accepted", "running", "done", "busy", "error", "expired"]},
        exit={"type": "integer", "minimum": -1, "maximum": 255},
        stdout=_text(),
        stderr=_text(),
        error=_text("why it does not run there"),
        fetch_error=_text("why it is not known what became of it since"),
        state=_STATE,
        reason=_REASON,
        **_TIMES,
    ),
    "StatusResponse": _object(
        "ok reqid script hosts",
        ok=_YES,
        reqid=_text(),
        script=_text(),
        mode={"enum": ["sync", "async"]},
        hosts={
            "oneOf": [
                _array(_text(), "of a run that was waited for"),
                {
                    "type": "object",
                    "description": "of one that was not, or that still runs",
                    "additionalProperties": _ref("HostStatus"),
                },
            ]
        },
        results=_array(_ref("RunResult"), "of a run that was waited for"),
        created={**_INTEGER, "description": "unix time, in seconds"},
        pending=_array(_text(), "the hosts that are waited for"),
        timeout={"type": "number", "description": "after how many seconds it is ended"},
        stopped={"const": True, "description": "too many failed to ask the others"},
        cancelled=_array(
            _text(), "where somebody wanted it to end; how it did says its state"
        ),
        completed={**_INTEGER, "description": "unix time, in seconds"},
        complete=_BOOLEAN,
    ),
    # --- what it refuses -------------------------------------------------
    "Refused": _object("ok error", ok=_NO, error=_text(), detail=_text()),
    "Denied": _object(
        "ok error", ok=_NO, error=_text("the reason"), code={**_INTEGER, "minimum": 1}
    ),
    "Locked": _object(
        "ok error code conflicts",
        ok=_NO,
        error={"const": "locked"},
        code={"const": 4},
        conflicts=_array(_text(), "HOST:SCRIPT"),
    ),
}
