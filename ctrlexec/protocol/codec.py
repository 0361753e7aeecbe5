# SPDX-License-Identifier: AGPL-3.0-only
"""
Messages to JSON and back: the one module that knows the names of fields.

Fields that we do not know are ignored, fields that are missing or C{null} have
their default. What a peer must not send becomes a refusal in the protocol's
own words where the protocol has words for it, and a L{ProtocolError} where it
has none. Sources: PROTOCOL.md sections 2 and 3, NEWER-LINE.md sections 3 and 5.

It is over 400 lines, since a name that is spelled in two modules is soon
spelled in two ways.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ctrlexec.errors import InvalidValue, ProtocolError
from ctrlexec.protocol.messages import (
    NEVER_RAN,
    Capabilities,
    PairApproved,
    PairDecision,
    PairDenied,
    PairFailed,
    PairPending,
    PairRequest,
    PingAnswer,
    PingRequest,
    Refused,
    RotateAnswer,
    RotateFailed,
    RotateRequest,
    RunAnswer,
    RunContext,
    RunFinished,
    RunRefused,
    RunRequest,
    ScriptInfo,
)
from ctrlexec.values import agent_name, is_ip_address

#: How much of an error in a peer's words is worth showing.
_ERROR_CHARACTERS = 1000
_NONCE = re.compile(r"[0-9A-Fa-f]{32}")


def to_json(fields: Mapping[str, Any]) -> bytes:
    """
    ASCII only, so that it reads the same whatever a peer takes for the text's
    encoding.
    """
    return json.dumps(fields, separators=(",", ":")).encode("ascii")


def from_json(text: bytes) -> dict[str, Any]:
    """
    @raise ProtocolError: the text is not JSON, or not an object.
    """
    try:
        value = json.loads(text.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ProtocolError("invalid JSON") from None
    if not isinstance(value, dict):
        raise ProtocolError("invalid JSON")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(name)


# --- what an agent is asked ----------------------------------------------


def encode_run_request(request: RunRequest) -> bytes:
    """
    The body of C{POST /run}.
    """
    return to_json(
        {
            "script": request.script,
            "args": request.args,
            "reqid": request.reqid,
            "username": request.username,
            "token": request.token,
        }
    )


def decode_run_request(body: bytes) -> RunRequest | RunRefused:
    """
    @return: the request, or the answer to one that is none.
    """
    try:
        fields = from_json(body)
        reqid = _text(fields, "reqid")
    except ProtocolError as error:
        return RunRefused(str(error))
    try:
        return RunRequest(
            script=_text(fields, "script"),
            args=_args(fields),
            reqid=reqid,
            username=_text(fields, "username"),
            token=_text(fields, "token"),
        )
    except ProtocolError as error:
        return RunRefused(str(error), reqid=reqid)


def _args(fields: Mapping[str, Any]) -> tuple[str, ...]:
    args = fields.get("args")
    if args is None:
        return ()
    if not isinstance(args, list):
        raise ProtocolError("args must be an array")
    if not all(isinstance(arg, str) and _is_sound(arg) for arg in args):
        raise ProtocolError("args must be strings")
    if any("\0" in arg for arg in args):
        raise ProtocolError("args must not contain NUL characters")
    return tuple(args)


def encode_ping_request(request: PingRequest) -> bytes:
    """
    The body of C{POST /ping}.
    """
    return to_json({"reqid": request.reqid})


def decode_ping_request(body: bytes) -> PingRequest:
    """
    A body that is no request counts as an empty one: NEWER-LINE.md section 3.4.
    """
    try:
        return PingRequest(_text(from_json(body), "reqid"))
    except ProtocolError:
        return PingRequest()


def decode_rotate_request(body: bytes) -> RotateRequest | RotateFailed:
    """
    @return: the request, or the answer to one that is none.
    """
    try:
        fields = from_json(body)
        serial, token = _text(fields, "serial"), _text(fields, "token")
    except ProtocolError:
        return RotateFailed("serial required")
    if not serial:
        return RotateFailed("serial required")
    action = fields.get("action")
    if action is None:
        action = "add"
    if action not in ("add", "remove"):
        shown = action[:64] if isinstance(action, str) else json.dumps(action)[:64]
        return RotateFailed(f"invalid action '{shown}'")
    return RotateRequest(serial, action, token)


# --- what an agent answers -----------------------------------------------


def encode_run_answer(answer: RunAnswer) -> bytes:
    """
    The body of the answer to C{POST /run}.
    """
    if isinstance(answer, RunFinished):
        return to_json(
            {
                "script": answer.script,
                "exit": answer.exit,
                "stdout": answer.stdout,
                "stderr": answer.stderr,
                "reqid": answer.reqid,
            }
        )
    fields: dict[str, Any] = {"exit": NEVER_RAN, "error": answer.error}
    if answer.script is not None:
        fields["script"] = answer.script
    if answer.reqid is not None:
        fields["reqid"] = answer.reqid
    return to_json(fields)


def decode_run_answer(body: bytes) -> RunAnswer:
    """
    @raise ProtocolError: it is neither a result nor a refusal.
    """
    fields = _answer(body)
    script, reqid = _text(fields, "script"), _text(fields, "reqid")
    error = _text(fields, "error")[:_ERROR_CHARACTERS]
    if error:
        return RunRefused(
            error,
            script if "script" in fields else None,
            reqid if "reqid" in fields else None,
        )
    return RunFinished(
        script=script,
        exit=_integer(fields, "exit"),
        stdout=_text(fields, "stdout"),
        stderr=_text(fields, "stderr"),
        reqid=reqid,
    )


def encode_ping_answer(answer: PingAnswer) -> bytes:
    """
    The body of the answer to C{POST /ping}.
    """
    return to_json(
        {
            "status": "ok",
            "host": answer.host,
            "version": answer.version,
            "expiry": answer.expiry,
            "reqid": answer.reqid,
        }
    )


def decode_ping_answer(body: bytes) -> PingAnswer:
    """
    @raise ProtocolError: it is no answer to a ping.
    """
    fields = _answer(body)
    if _text(fields, "status") != "ok":
        error = _text(fields, "error")[:_ERROR_CHARACTERS]
        raise ProtocolError(error or "the answer is not a ping's")
    return PingAnswer(
        host=_text(fields, "host"),
        version=_text(fields, "version"),
        expiry=_text(fields, "expiry"),
        reqid=_text(fields, "reqid"),
    )


def encode_capabilities(answer: Capabilities) -> bytes:
    """
    The body of the answer to C{GET /capabilities}.
    """
    return to_json(
        {
            "status": "ok",
            "host": answer.host,
            "version": answer.version,
            "scripts": [_script_info(script) for script in answer.scripts],
            "tags": dict(answer.tags),
        }
    )


def _script_info(script: ScriptInfo) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": script.name,
        "path": script.path,
        "executable": script.executable,
    }
    if script.profile:
        fields["profile"] = script.profile
    if script.schema is not None:
        fields["schema"] = script.schema
        fields["schema_version"] = script.schema_version
    return fields


def encode_rotate_answer(answer: RotateAnswer) -> bytes:
    """
    The body of the answer to C{POST /rotate-serial}.
    """
    if isinstance(answer, RotateFailed):
        return to_json({"status": "error", "error": answer.error})
    return to_json(
        {
            "status": "ok",
            "action": answer.action,
            "serial": answer.serial,
            "dispatcher": answer.dispatcher,
        }
    )


def encode_refused(answer: Refused) -> bytes:
    """
    The body of an answer whose status is not 200.
    """
    fields = {"error": answer.error}
    if answer.status:
        fields["status"] = answer.status
    return to_json(fields)


def decode_refused(code: int, body: bytes) -> Refused:
    """
    @param code: the HTTP status, which is not 200.
    @return: with the error that the body names, if it names one.
    """
    try:
        fields = from_json(body)
        error = _text(fields, "error")[:_ERROR_CHARACTERS]
        return Refused(code, error, _text(fields, "status"))
    except ProtocolError:
        return Refused(code, "")


# --- what a script reads -------------------------------------------------


def encode_run_context(context: RunContext) -> bytes:
    """
    What a script reads on its standard input.
    """
    return to_json(
        {
            "script": context.script,
            "args": context.args,
            "reqid": context.reqid,
            "peer_ip": context.peer_ip,
            "username": context.username,
            "token": context.token,
            "timestamp": context.timestamp,
            "dispatcher": context.dispatcher,
        }
    )


def decode_run_context(text: bytes) -> RunContext:
    """
    What a script of our own reads.

    @raise ProtocolError: no agent wrote it.
    """
    fields = from_json(text)
    return RunContext(
        script=_text(fields, "script"),
        args=_args(fields),
        reqid=_text(fields, "reqid"),
        peer_ip=_text(fields, "peer_ip"),
        username=_text(fields, "username"),
        token=_text(fields, "token"),
        timestamp=_text(fields, "timestamp"),
        dispatcher=_text(fields, "dispatcher"),
    )


# --- pairing -------------------------------------------------------------


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
    return to_json(fields)


def decode_pair_request(body: bytes) -> PairRequest | PairFailed:
    """
    @return: the request, or the answer to one that is none. Its CSR is still
        only a text.
    """
    try:
        fields = from_json(body)
        hostname, csr = _text(fields, "hostname"), _text(fields, "csr")
        nonce = _text(fields, "nonce")
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
    )


def _port(value: object) -> int:
    if isinstance(value, str) and re.fullmatch("[0-9]{1,5}", value):
        value = int(value)
    return value if type(value) is int and 1 <= value <= 65535 else 0


def encode_pair_first(answer: PairPending | PairFailed) -> bytes:
    """
    The body of a dispatcher's first answer.
    """
    if isinstance(answer, PairPending):
        return to_json({"status": "pending", "reqid": answer.reqid})
    return to_json({"status": "error", "reason": answer.reason})


def decode_pair_first(body: bytes) -> PairPending | PairFailed:
    """
    @raise ProtocolError: it is no first answer.
    """
    fields = _answer(body)
    match _text(fields, "status"):
        case "pending":
            return PairPending(_text(fields, "reqid"))
        case "error":
            return PairFailed(_reason(fields))
    raise ProtocolError("the answer is not a pairing listener's")


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
    fields = _answer(body)
    match _text(fields, "status"):
        case "denied":
            return PairDenied(_reason(fields))
        case "approved":
            return PairApproved(
                cert=_text(fields, "cert"),
                ca=_text(fields, "ca"),
                nonce=_text(fields, "nonce"),
                dispatcher_serial=_text(fields, "dispatcher_serial"),
                dispatcher_id=_text(fields, "dispatcher_id"),
            )
    raise ProtocolError("the answer is not a pairing decision")


# --- fields --------------------------------------------------------------


def _answer(body: bytes) -> dict[str, Any]:
    try:
        return from_json(body)
    except ProtocolError:
        raise ProtocolError("the answer is not a JSON object") from None


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or not _is_sound(value):
        raise ProtocolError(f"{name} must be a string")
    return value


def _reason(fields: Mapping[str, Any]) -> str:
    return _text(fields, "reason")[:_ERROR_CHARACTERS] or "no reason given"


def _is_sound(text: str) -> bool:
    """
    JSON can spell half of a surrogate pair, which no encoding can carry on.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _integer(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    # The original's numbers can be strings.
    if isinstance(value, str) and re.fullmatch("-?[0-9]{1,9}", value):
        return int(value)
    if type(value) is not int:
        raise ProtocolError(f"the answer has no {name} that is a number")
    return value
