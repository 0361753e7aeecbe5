# SPDX-License-Identifier: AGPL-3.0-only
"""
Messages to JSON and back: this module, L{ctrlexec.protocol.codec_pairing} for
those of pairing, L{ctrlexec.protocol.codec_trust} for those by which trust goes
on, and L{ctrlexec.protocol.codec_runs} for those about a run that has begun, are
the ones that know the names of fields.

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
from collections.abc import Mapping
from typing import Any

from ctrlexec.errors import InvalidValue, ProtocolError
from ctrlexec.protocol.fields import (
    ERROR_CHARACTERS,
    answer_fields,
    flag_field,
    integer_field,
    ok_fields,
    short_text,
    text_field,
    truth_field,
)
from ctrlexec.protocol.fields import from_json as from_json
from ctrlexec.protocol.fields import is_sound as is_sound
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
    RunAccepted,
    RunAnswer,
    RunContext,
    RunFinished,
    RunRefused,
    RunRequest,
    ScriptInfo,
)
from ctrlexec.protocol.run_messages import BUSY, CANCELLED, DENIED, DONE, ENDS
from ctrlexec.values import ON_DISCONNECT, script_name

#: Statuses of answers to C{POST /run} beside 200: it runs, and nobody waits for
#: it; it is not started, since it runs already.
ACCEPTED, CONFLICT = 202, 409
#: After how long a run may be ended at the latest, where that is asked for.
MOST_TIMEOUT_SECONDS = 30 * 86_400
KEEP = ON_DISCONNECT[0]
_MOST_CAPABILITIES_PARTS = 4 * 2**20
# What an agent may say of itself at the most: a dispatcher keeps some of it.
_MOST_SCRIPTS = 10_000
_MOST_TAGS = 1000
_MOST_LEVELS = 100


# --- what an agent is asked ----------------------------------------------


def encode_run_request(request: RunRequest) -> bytes:
    """
    The body of C{POST /run}.
    """
    fields: dict[str, Any] = {
        "script": request.script,
        "args": request.args,
        "reqid": request.reqid,
        "username": request.username,
        "token": request.token,
    }
    # An ordinary run looks the same to everybody, as most know no other.
    if request.asynchronous:
        fields["async"] = True
    if request.stream:
        fields["stream"] = True
    if request.timeout is not None:
        fields["timeout"] = request.timeout
    if request.on_disconnect != KEEP:
        fields["on_disconnect"] = request.on_disconnect
    return to_json(fields)


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
            asynchronous=truth_field(fields, "async"),
            stream=flag_field(fields, "stream"),
            timeout=_timeout(fields.get("timeout")),
            on_disconnect=_on_disconnect(fields.get("on_disconnect")),
        )
    except ProtocolError as error:
        return RunRefused(str(error), reqid=reqid)


def _timeout(given: object) -> float | None:
    if given is None:
        return None
    # True is a number to Python, and what is too long for one is infinite.
    if type(given) not in (int, float) or not given > 0:  # type: ignore[operator]
        raise ProtocolError("timeout must be a number of seconds above 0")
    if given > MOST_TIMEOUT_SECONDS:  # type: ignore[operator]
        raise ProtocolError(f"timeout must be at most {MOST_TIMEOUT_SECONDS} seconds")
    return given  # type: ignore[return-value]


def _on_disconnect(given: object) -> str:
    if given is None:
        return KEEP
    if not isinstance(given, str) or given not in ON_DISCONNECT:
        raise ProtocolError("on_disconnect must be 'keep' or 'cancel'")
    return given


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


def encode_run_answer(answer: RunAnswer, asynchronous: bool = False) -> bytes:
    """
    The body of the answer to C{POST /run}.

    @param asynchronous: whether that was what was asked for.
    """
    match answer:
        case RunFinished():
            return to_json(_finished(answer))
        case RunAccepted(script, reqid):
            return to_json({"script": script, "status": "accepted", "reqid": reqid})
    fields: dict[str, Any] = {"exit": NEVER_RAN, "error": answer.error}
    if run_answer_code(answer, asynchronous) == CONFLICT:
        fields = {"status": "busy", "error": answer.error}
    elif answer.state != DENIED:
        fields["state"] = answer.state
    if answer.reason:
        fields["reason"] = answer.reason
    if answer.script is not None:
        fields["script"] = answer.script
    if answer.reqid is not None:
        fields["reqid"] = answer.reqid
    return to_json(fields)


def run_answer_code(answer: RunAnswer, asynchronous: bool) -> int:
    """
    @param asynchronous: whether that was what was asked for.
    @return: the HTTP status of an answer to C{POST /run}: NEWER-LINE.md section
        3.3.
    """
    match answer:
        case RunAccepted():
            return ACCEPTED
        case RunRefused(state="busy") if asynchronous:
            return CONFLICT
    return 200


def _finished(answer: RunFinished) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "script": answer.script,
        "exit": answer.exit,
        "stdout": answer.stdout,
        "stderr": answer.stderr,
        "reqid": answer.reqid,
    }
    if answer.state != DONE:
        fields["state"] = answer.state
    if answer.reason:
        fields["reason"] = answer.reason
    return fields


def decode_run_answer(body: bytes, code: int = 200) -> RunAnswer:
    """
    @param code: the HTTP status: 200, L{ACCEPTED} or L{CONFLICT}.
    @raise ProtocolError: it is neither a result nor a refusal, nor that it was
        accepted.
    """
    fields = answer_fields(body)
    script, reqid = text_field(fields, "script"), text_field(fields, "reqid")
    if code == ACCEPTED:
        if text_field(fields, "status") != "accepted":
            raise ProtocolError("the answer does not say that the run was accepted")
        return RunAccepted(script, reqid)
    error = text_field(fields, "error")[:ERROR_CHARACTERS]
    if error or code == CONFLICT:
        return RunRefused(
            error or "busy",
            script if "script" in fields else None,
            reqid if "reqid" in fields else None,
            BUSY if code == CONFLICT else _refusal_state(fields),
            text_field(fields, "reason")[:ERROR_CHARACTERS],
        )
    return RunFinished(
        script=script,
        exit=integer_field(fields, "exit"),
        stdout=text_field(fields, "stdout"),
        stderr=text_field(fields, "stderr"),
        reqid=reqid,
        state=end_state(fields),
        reason=text_field(fields, "reason")[:ERROR_CHARACTERS],
    )


def _refusal_state(fields: Mapping[str, Any]) -> str:
    state = text_field(fields, "state") or DENIED
    if state not in (DENIED, BUSY, CANCELLED):
        raise ProtocolError("state must be that of a run which was not started")
    return state


def end_state(fields: Mapping[str, Any]) -> str:
    """
    How a run has ended; by itself where nothing else is said.
    """
    state = text_field(fields, "state") or DONE
    if state not in ENDS:
        raise ProtocolError("state must be that of a run which has ended")
    return state


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
        host=short_text(fields.get("host"), "host"),
        version=short_text(fields.get("version"), "version"),
        expiry=short_text(fields.get("expiry"), "expiry"),
        reqid=short_text(fields.get("reqid"), "reqid"),
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
        host=short_text(fields.get("host"), "host"),
        version=short_text(fields.get("version"), "version"),
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
        name = script_name(short_text(fields.get("name"), "name"))
    except InvalidValue as error:
        raise ProtocolError(str(error)) from None
    return ScriptInfo(
        name=name,
        path=short_text(fields.get("path"), "path"),
        executable=flag_field(fields, "executable"),
        profile=short_text(fields.get("profile"), "profile"),
        schema=schema,
        schema_version=short_text(fields.get("schema_version"), "schema_version"),
    )


def _tags(given: object) -> dict[str, str]:
    # An empty table of the original's can be an empty array.
    if given is None or given == []:
        return {}
    if not isinstance(given, dict) or len(given) > _MOST_TAGS:
        raise ProtocolError(f"tags must be an object of at most {_MOST_TAGS}")
    return {
        short_text(name, "a tag"): short_text(given[name], "a tag") for name in given
    }


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
