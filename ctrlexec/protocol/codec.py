# SPDX-License-Identifier: AGPL-3.0-only
"""
Messages to JSON and back: this module, L{ctrlexec.protocol.codec_pairing} for
those of pairing, and L{ctrlexec.protocol.codec_trust} for those by which trust
goes on, are the ones that know the names of fields.

Fields that we do not know are ignored, fields that are missing or C{null} have
their default. What a peer must not send becomes a refusal in the protocol's
own words where the protocol has words for it, and a L{ProtocolError} where it
has none. Sources: PROTOCOL.md section 2, NEWER-LINE.md section 3.

It is over 400 lines, since a name that is spelled in two modules is soon
spelled in two ways; no name of pairing is spelled here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from ctrlexec.errors import InvalidValue, ProtocolError
from ctrlexec.protocol.fields import from_json as from_json
from ctrlexec.protocol.fields import is_sound as is_sound
from ctrlexec.protocol.fields import parts
from ctrlexec.protocol.fields import to_json as to_json
from ctrlexec.protocol.messages import (
    NEVER_RAN,
    Capabilities,
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
from ctrlexec.values import script_name

#: How much of an error in a peer's words is worth showing.
ERROR_CHARACTERS = 1000
# How much an answer may hold beside text. That of a script can be long; but one
# agent that answers with millions of empty lists must not take all of a
# dispatcher's memory, or stop it for as long as it takes to read them.
_MOST_PARTS = 65_536
_MOST_CAPABILITIES_PARTS = 4 * 2**20
# What an agent may say of itself at the most: a dispatcher keeps some of it.
_MOST_SCRIPTS = 10_000
_MOST_TAGS = 1000
_MOST_LEVELS = 100
_CHARACTERS = 4096


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
        reqid = text_field(fields, "reqid")
    except ProtocolError as error:
        return RunRefused(str(error))
    try:
        return RunRequest(
            script=text_field(fields, "script"),
            args=_args(fields),
            reqid=reqid,
            username=text_field(fields, "username"),
            token=text_field(fields, "token"),
        )
    except ProtocolError as error:
        return RunRefused(str(error), reqid=reqid)


def _args(fields: Mapping[str, Any]) -> tuple[str, ...]:
    args = fields.get("args")
    if args is None:
        return ()
    if not isinstance(args, list):
        raise ProtocolError("args must be an array")
    if not all(isinstance(arg, str) and is_sound(arg) for arg in args):
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
        return PingRequest(text_field(from_json(body), "reqid"))
    except ProtocolError:
        return PingRequest()


def decode_rotate_request(body: bytes) -> RotateRequest | RotateFailed:
    """
    @return: the request, or the answer to one that is none.
    """
    try:
        fields = from_json(body)
        serial, token = text_field(fields, "serial"), text_field(fields, "token")
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
    fields = answer_fields(body)
    script, reqid = text_field(fields, "script"), text_field(fields, "reqid")
    error = text_field(fields, "error")[:ERROR_CHARACTERS]
    if error:
        return RunRefused(
            error,
            script if "script" in fields else None,
            reqid if "reqid" in fields else None,
        )
    return RunFinished(
        script=script,
        exit=_integer(fields, "exit"),
        stdout=text_field(fields, "stdout"),
        stderr=text_field(fields, "stderr"),
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
            "staged": answer.staged,
            **_renewal_due(answer),
            "reqid": answer.reqid,
        }
    )


def _renewal_due(answer: PingAnswer | Capabilities) -> dict[str, bool]:
    """
    No peer of the original has a place for it, so it is said only where it is
    so.
    """
    return {"renewal_due": True} if answer.renewal_due else {}


def decode_ping_answer(body: bytes) -> PingAnswer:
    """
    @raise ProtocolError: it is no answer to a ping.
    """
    fields = ok_fields(body, "the answer is not a ping's")
    return PingAnswer(
        host=_word(fields.get("host"), "host"),
        version=_word(fields.get("version"), "version"),
        expiry=_word(fields.get("expiry"), "expiry"),
        reqid=_word(fields.get("reqid"), "reqid"),
        staged=flag_field(fields, "staged"),
        renewal_due=flag_field(fields, "renewal_due"),
    )


def encode_capabilities(answer: Capabilities) -> bytes:
    """
    The body of the answer to C{GET /capabilities}.
    """
    return to_json(capabilities_fields(answer))


def capabilities_fields(answer: Capabilities) -> dict[str, Any]:
    """
    The same, before it is spelled out.
    """
    return {
        "status": "ok",
        "host": answer.host,
        "version": answer.version,
        "scripts": [_script_info(script) for script in answer.scripts],
        "tags": dict(answer.tags),
        **_renewal_due(answer),
    }


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


def decode_capabilities(body: bytes) -> Capabilities:
    """
    @raise ProtocolError: an agent's capabilities are something else, or less
        than this.
    """
    fields = ok_fields(
        body,
        "the answer does not say what an agent offers",
        _MOST_CAPABILITIES_PARTS,
    )
    return Capabilities(
        host=_word(fields.get("host"), "host"),
        version=_word(fields.get("version"), "version"),
        scripts=_scripts(fields.get("scripts")),
        tags=_tags(fields.get("tags")),
        renewal_due=flag_field(fields, "renewal_due"),
    )


def _scripts(given: object) -> tuple[ScriptInfo, ...]:
    if given is None:
        return ()
    if not isinstance(given, list) or len(given) > _MOST_SCRIPTS:
        raise ProtocolError(f"scripts must be an array of at most {_MOST_SCRIPTS}")
    scripts = {each.name: each for each in map(_script, given)}
    if len(scripts) != len(given):
        raise ProtocolError("two scripts have the same name")
    return tuple(scripts[name] for name in sorted(scripts))


def _script(fields: Any) -> ScriptInfo:
    if not isinstance(fields, dict):
        raise ProtocolError("a script must be an object")
    schema = fields.get("schema")
    if schema is not None and not _is_plain(schema):
        raise ProtocolError("schema must be an object that can be written again")
    try:
        name = script_name(_word(fields.get("name"), "name"))
    except InvalidValue as error:
        raise ProtocolError(str(error)) from None
    return ScriptInfo(
        name=name,
        path=_word(fields.get("path"), "path"),
        executable=flag_field(fields, "executable"),
        profile=_word(fields.get("profile"), "profile"),
        schema=schema,
        schema_version=_word(fields.get("schema_version"), "schema_version"),
    )


def _tags(given: object) -> dict[str, str]:
    # An empty table of the original's can be an empty array.
    if given is None or given == []:
        return {}
    if not isinstance(given, dict) or len(given) > _MOST_TAGS:
        raise ProtocolError(f"tags must be an object of at most {_MOST_TAGS}")
    return {_word(name, "a tag"): _word(given[name], "a tag") for name in given}


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
        fields = answer_fields(body)
        error = text_field(fields, "error")[:ERROR_CHARACTERS]
        return Refused(code, error, text_field(fields, "status"))
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
        script=text_field(fields, "script"),
        args=_args(fields),
        reqid=text_field(fields, "reqid"),
        peer_ip=text_field(fields, "peer_ip"),
        username=text_field(fields, "username"),
        token=text_field(fields, "token"),
        timestamp=text_field(fields, "timestamp"),
        dispatcher=text_field(fields, "dispatcher"),
    )


# --- fields --------------------------------------------------------------


def answer_fields(body: bytes, most_parts: int = _MOST_PARTS) -> dict[str, Any]:
    """
    The fields of a peer's answer.

    @param most_parts: how much it may hold beside text.
    """
    if parts(body) > most_parts:
        raise ProtocolError("the answer is too large")
    try:
        return from_json(body)
    except ProtocolError:
        raise ProtocolError("the answer is not a JSON object") from None


def ok_fields(
    body: bytes, otherwise: str, most_parts: int = _MOST_PARTS
) -> dict[str, Any]:
    """
    The fields of an answer that says that all went well.

    @param otherwise: the error of one that says neither that nor why not.
    @param most_parts: how many values may be in it.
    """
    fields = answer_fields(body, most_parts)
    if text_field(fields, "status") != "ok":
        error = text_field(fields, "error")[:ERROR_CHARACTERS]
        raise ProtocolError(error or otherwise)
    return fields


def text_field(fields: Mapping[str, Any], name: str) -> str:
    """
    A text; an empty one where there is none.
    """
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or not is_sound(value):
        raise ProtocolError(f"{name} must be a string")
    return value


def _integer(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    # The original's numbers can be strings.
    if isinstance(value, str) and re.fullmatch("-?[0-9]{1,9}", value):
        return int(value)
    if type(value) is not int:
        raise ProtocolError(f"the answer has no {name} that is a number")
    return value


def _word(value: object, name: str) -> str:
    """
    A text that is not long. The original's can be numbers.
    """
    if type(value) is int or (isinstance(value, float) and math.isfinite(value)):
        value = str(value)
    if isinstance(value, str) and len(value) > _CHARACTERS:
        raise ProtocolError(f"{name} is too long")
    return text_field({name: value}, name)


def flag_field(fields: Mapping[str, Any], name: str) -> bool:
    """
    The original's booleans can be numbers, and its numbers strings.
    """
    value = fields.get(name)
    if value is not None and value not in (True, False, 1, 0, "1", "0", ""):
        raise ProtocolError(f"{name} must be true or false")
    return value in (True, 1, "1")


def _is_plain(document: object) -> bool:
    """
    Whether this is an object that can be carried on as JSON: of so many levels,
    and without a number that is none or a text that no encoding has.
    """
    level, depth = [document], 0
    while level and depth <= _MOST_LEVELS:
        below: list[object] = []
        for each in level:
            match each:
                case dict():
                    below += [*each, *each.values()]
                case list():
                    below += each
                case float() if not math.isfinite(each):
                    return False
                case str() if not is_sound(each):
                    return False
        level, depth = below, depth + 1
    return isinstance(document, dict) and not level
