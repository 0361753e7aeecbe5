# SPDX-License-Identifier: AGPL-3.0-only
"""
What a command line tells the API of its host, through the API's unix socket.

An order is C{POST /operator/OPERATION} with one JSON object as its body. What
comes back is in L{ctrlexec.dispatcher.operator_lines}. Members that are not
known are passed over: command line and API are replaced one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ctrlexec.dispatcher.members import (
    flag_of,
    number_of,
    object_of,
    text_of,
    texts_of,
)
from ctrlexec.dispatcher.orders import Caller, RunOrder, Selection
from ctrlexec.errors import ProtocolError, abbreviated
from ctrlexec.protocol.fields import from_json, to_json

#: Where the API answers command lines.
PREFIX = "/operator/"
#: What it can be asked for there.
OPERATIONS = ("run", "ping", "discover", "select", "list-agents", "status")

#: What an operation is told: an order, hosts, tags, or a request id.
Wish = RunOrder | Selection | Mapping[str, str] | str


@attrs.frozen(kw_only=True)
class Request:
    """
    What somebody wants of the API.

    @ivar operation: one of L{OPERATIONS}.
    @ivar username: as they claim it.
    @ivar token: what they can prove it with; never logged.
    """

    operation: str
    username: str
    token: str = attrs.field(repr=False)
    wish: Wish


def encode_request(caller: Caller, wish: Wish) -> bytes:
    """
    The body of a request.

    @param wish: what its operation is told.
    """
    match wish:
        case RunOrder():
            said = attrs.asdict(wish)
        case Selection():
            said = {"selection": attrs.asdict(wish)}
        case str():
            said = {"reqid": wish}
        case _:
            said = {"tags": dict(wish)}
    return to_json({"username": caller.username, "token": caller.token, **said})


def decode_request(operation: str, body: bytes) -> Request:
    """
    @param operation: the end of the request's path.
    @raise ProtocolError: no command line of ours has sent this.
    """
    fields = from_json(body)
    return Request(
        operation=operation,
        username=text_of(fields, "username"),
        token=text_of(fields, "token"),
        wish=_wish(operation, fields),
    )


def _wish(operation: str, fields: Mapping[str, Any]) -> Wish:
    match operation:
        case "run":
            return _order(fields)
        case "ping" | "discover" | "select":
            return _selection(fields)
        case "list-agents":
            tags = object_of(fields.get("tags", {}))
            return {name: text_of(tags, name) for name in tags}
        case "status":
            return text_of(fields, "reqid")
    raise ProtocolError(f"there is no operation {abbreviated(operation)}")


def _order(fields: Mapping[str, Any]) -> RunOrder:
    seconds = fields.get("wait_lock_seconds", 0)
    if type(seconds) not in (int, float) or seconds < 0:
        raise ProtocolError("wait_lock_seconds must be a number")
    return RunOrder(
        selection=_selection(fields),
        script=text_of(fields, "script"),
        args=texts_of(fields, "args"),
        wait_lock_seconds=seconds,
        confirmed=flag_of(fields, "confirmed"),
    )


def _selection(fields: Mapping[str, Any]) -> Selection:
    said = object_of(fields.get("selection"))
    port = said.get("port")
    return Selection(
        words=texts_of(said, "words"),
        exclude=texts_of(said, "exclude"),
        port=None if port is None else number_of(said, "port"),
    )
