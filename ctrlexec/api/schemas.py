# SPDX-License-Identifier: AGPL-3.0-only
"""
The schemas of what the API takes and answers, by name: JSON Schema 2020-12.

What is C{null} is as good as missing; members that we do not know are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
        **{
            "async": {
                "enum": [False, None],
                "description": "asynchronous runs come in a later release",
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
            ),
            _object(
                "host script exit error rtt reqid",
                **_RESULT,
                script=_text(),
                exit={"const": -1},
                error=_text("why there is no result"),
            ),
        ]
    },
    "RunResponse": _object(
        "ok reqid results",
        ok=_YES,
        reqid=_text("one id for all of it"),
        results=_array(_ref("RunResult"), "in the order in which they came"),
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
    "StatusResponse": _object(
        "ok reqid script hosts",
        ok=_YES,
        reqid=_text(),
        script=_text(),
        hosts={"type": ["array", "object"]},
        results=_array(_ref("RunResult")),
        completed={**_INTEGER, "description": "unix time, in seconds"},
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
