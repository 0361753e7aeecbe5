# SPDX-License-Identifier: AGPL-3.0-only
"""
Messages about runs that have begun, to JSON and back, like
L{ctrlexec.protocol.codec}; and the events of a stream, which are JSON objects
too, one a line.

Sources: NEWER-LINE.md sections 3.6 and 6.1, C{docs/runs.md}.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ctrlexec.errors import InvalidValue, ProtocolError
from ctrlexec.protocol import limits
from ctrlexec.protocol.codec import end_state
from ctrlexec.protocol.fields import (
    ERROR_CHARACTERS,
    answer_fields,
    count_field,
    flag_field,
    from_json,
    integer_field,
    ok_fields,
    parts,
    seconds_field,
    short_text,
    text_field,
    to_json,
)
from ctrlexec.protocol.messages import Refused
from ctrlexec.protocol.run_messages import (
    RUNNING,
    STATES,
    CancelDone,
    FollowRequest,
    LiveRun,
    LiveRunsAnswer,
    NoSuchRun,
    Output,
    RunEvent,
    RunResult,
    Signalled,
    StateChanged,
    StreamEnded,
)
from ctrlexec.values import request_id

#: What a stream is said to be.
EVENTS_TYPE = "application/x-ndjson"
# How much is said of one cancelled run, or read of one agent's runs. A run of
# thousands of processes is no less cancelled if some of them are not named.
_MOST_SIGNALLED = 1000
_MOST_RUNS = 10_000
_MOST_RUNS_PARTS = 4 * 2**20
# Beside text there is little in an event; what else is in it is ignored, and
# need not be much.
_MOST_EVENT_PARTS = 4096


# --- what an agent is asked ----------------------------------------------


def encode_follow_request(request: FollowRequest) -> bytes:
    """
    The body of C{POST /follow}.
    """
    return to_json(
        {
            "reqid": request.reqid,
            "stdout": request.stdout,
            "stderr": request.stderr,
        }
    )


def decode_follow_request(body: bytes) -> FollowRequest | Refused:
    """
    @return: the request, whose id can be a file name; or the answer to one that
        is none.
    """
    try:
        fields = from_json(body)
        return FollowRequest(
            _request_id(fields),
            count_field(fields, "stdout"),
            count_field(fields, "stderr"),
        )
    except ProtocolError as error:
        return Refused(400, str(error))


def encode_cancel_request(reqid: str) -> bytes:
    """
    The body of C{POST /cancel}.
    """
    return to_json({"reqid": reqid})


def decode_cancel_request(body: bytes) -> str | Refused:
    """
    @return: the id of the run, which can be a file name; or the answer to a
        request that is none.
    """
    try:
        return _request_id(from_json(body))
    except ProtocolError as error:
        return Refused(400, str(error))


def _request_id(fields: Mapping[str, Any]) -> str:
    try:
        return request_id(text_field(fields, "reqid"))
    except InvalidValue as error:
        raise ProtocolError(str(error)) from None


# --- what an agent answers -----------------------------------------------


def encode_no_such_run(answer: NoSuchRun) -> bytes:
    """
    The body of a 404 where a run was asked for.
    """
    return to_json({"status": "unknown", "reqid": answer.reqid})


def decode_no_such_run(body: bytes) -> NoSuchRun | None:
    """
    @return: C{None} for a 404 that says something else: the agent does not know
        what it was asked.
    """
    try:
        fields = answer_fields(body)
        if text_field(fields, "status") != "unknown":
            return None
        return NoSuchRun(text_field(fields, "reqid"))
    except ProtocolError:
        return None


def decode_result(body: bytes) -> RunResult:
    """
    What an agent has on record, one of the original too: that knows no state but
    its C{status}.

    @raise ProtocolError: it is no record of a run.
    """
    fields = answer_fields(body)
    status = text_field(fields, "status")
    if status not in ("running", "done"):
        raise ProtocolError("the answer is no record of a run")
    over = status == "done"
    if not over and text_field(fields, "state") not in ("", RUNNING):
        raise ProtocolError("the record of a run contradicts itself")
    return RunResult(
        reqid=text_field(fields, "reqid"),
        script=text_field(fields, "script"),
        state=end_state(fields) if over else RUNNING,
        started=short_text(fields.get("started"), "started"),
        finished=short_text(fields.get("finished"), "finished"),
        exit=integer_field(fields, "exit") if over else -1,
        stdout=text_field(fields, "stdout"),
        stderr=text_field(fields, "stderr"),
        reason=text_field(fields, "reason")[:ERROR_CHARACTERS],
        original="state" not in fields,
    )


def encode_cancel_done(answer: CancelDone) -> bytes:
    """
    The body of the answer to C{POST /cancel}.
    """
    return to_json(
        {
            "status": "ok",
            "reqid": answer.reqid,
            "state": answer.state,
            "signalled": [
                {"pid": each.pid, "command": each.command, "signal": each.signal}
                for each in answer.signalled[:_MOST_SIGNALLED]
            ],
        }
    )


def decode_cancel_done(body: bytes) -> CancelDone:
    """
    @raise ProtocolError: the agent does not say that nothing is left.
    """
    fields = ok_fields(
        body, "the agent does not say that the run has ended", _MOST_RUNS_PARTS
    )
    return CancelDone(
        text_field(fields, "reqid"),
        end_state(fields),
        tuple(
            Signalled(
                count_field(each, "pid"),
                short_text(each.get("command"), "command"),
                short_text(each.get("signal"), "signal"),
            )
            for each in _objects(fields, "signalled", _MOST_SIGNALLED)
        ),
    )


def encode_live_runs(answer: LiveRunsAnswer) -> bytes:
    """
    The body of the answer to C{GET /runs}.
    """
    return to_json(
        {
            "status": "ok",
            "others": answer.others,
            "runs": [_live_run(run) for run in answer.runs[:_MOST_RUNS]],
        }
    )


def _live_run(run: LiveRun) -> dict[str, Any]:
    return {
        "reqid": run.reqid,
        "script": run.script,
        "state": run.state,
        "started": run.started,
        "seconds": round(run.seconds, 3),
        "username": run.username,
        "async": run.asynchronous,
        "pid": run.pid,
    }


def decode_live_runs(body: bytes) -> LiveRunsAnswer:
    """
    @raise ProtocolError: the agent does not say what runs.
    """
    fields = ok_fields(
        body, "the answer does not say what runs there", _MOST_RUNS_PARTS
    )
    runs = _objects(fields, "runs", _MOST_RUNS)
    return LiveRunsAnswer(tuple(map(_run, runs)), count_field(fields, "others"))


def _run(fields: Mapping[str, Any]) -> LiveRun:
    return LiveRun(
        reqid=short_text(fields.get("reqid"), "reqid"),
        script=short_text(fields.get("script"), "script"),
        state=_state(fields),
        started=short_text(fields.get("started"), "started"),
        seconds=seconds_field(fields, "seconds"),
        username=short_text(fields.get("username"), "username"),
        asynchronous=flag_field(fields, "async"),
        pid=count_field(fields, "pid"),
    )


# --- the events of a stream ----------------------------------------------


def encode_event(event: RunEvent) -> bytes:
    """
    The line of an event, whose text is not longer than
    L{limits.EVENT_BYTES} made it.
    """
    match event:
        case Output(seconds, stream, text, end):
            return _line(seconds, {stream: text, "end": end})
        case StateChanged(seconds, state):
            return _line(seconds, {"state": state})
    result: dict[str, Any] = {
        "script": event.script,
        "reqid": event.reqid,
        "exit": event.exit,
        "state": event.state,
    }
    if event.reason:
        result["reason"] = event.reason
    result["stdout_bytes"] = event.stdout_bytes
    result["stderr_bytes"] = event.stderr_bytes
    return _line(event.seconds, {"result": result})


def encode_heartbeat(seconds: float) -> bytes:
    """
    The line that says that there is nothing to say, but somebody.
    """
    return _line(seconds, {})


def _line(seconds: float, fields: Mapping[str, Any]) -> bytes:
    return to_json({"t": round(seconds, 3), **fields}) + b"\n"


def decode_event(line: bytes) -> RunEvent | None:
    """
    @param line: without its end.
    @return: C{None} for one that tells nothing, or nothing that we know.
    @raise ProtocolError: it is no event.
    """
    if len(line) > limits.EVENT_LINE_BYTES or parts(line) > _MOST_EVENT_PARTS:
        raise ProtocolError("an event of the stream is too long")
    try:
        fields = from_json(line)
    except ProtocolError:
        raise ProtocolError("an event of the stream is not a JSON object") from None
    if "t" not in fields:
        raise ProtocolError("an event of the stream has no time")
    seconds = seconds_field(fields, "t")
    match sorted({"state", "stdout", "stderr", "result"} & fields.keys()):
        case []:
            return None
        case ["state"]:
            return StateChanged(seconds, _state(fields))
        case ["result"]:
            return _ended(seconds, fields["result"])
        case [("stdout" | "stderr") as stream]:
            text, end = _text(fields, stream), count_field(fields, "end")
            return Output(seconds, stream, text, end)
    raise ProtocolError("an event of the stream tells several things")


def _ended(seconds: float, fields: object) -> StreamEnded:
    if not isinstance(fields, dict):
        raise ProtocolError("the result must be an object")
    return StreamEnded(
        seconds=seconds,
        script=text_field(fields, "script"),
        reqid=text_field(fields, "reqid"),
        exit=integer_field(fields, "exit"),
        state=end_state(fields),
        reason=text_field(fields, "reason")[:ERROR_CHARACTERS],
        stdout_bytes=count_field(fields, "stdout_bytes"),
        stderr_bytes=count_field(fields, "stderr_bytes"),
    )


# --- fields --------------------------------------------------------------


def _text(fields: Mapping[str, Any], name: str) -> str:
    if fields[name] is None:
        raise ProtocolError(f"{name} must be a string")
    return text_field(fields, name)


def _state(fields: Mapping[str, Any]) -> str:
    state = text_field(fields, "state")
    if state not in STATES:
        raise ProtocolError("state must be one that a run can be in")
    return state


def _objects(fields: Mapping[str, Any], name: str, most: int) -> list[dict[str, Any]]:
    given = fields.get(name)
    # An empty table of others' can be an empty object.
    if given is None or given == {}:
        return []
    if not isinstance(given, list) or len(given) > most:
        raise ProtocolError(f"{name} must be an array of at most {most}")
    if not all(isinstance(each, dict) for each in given):
        raise ProtocolError(f"{name} must be objects")
    return given
