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
    seconds_of,
    text_of,
    text_or_none,
    texts_of,
)
from ctrlexec.dispatcher.orders import Caller, Rolling, RunOrder, Seen, Selection
from ctrlexec.errors import InvalidValue, ProtocolError, abbreviated
from ctrlexec.protocol.fields import from_json, to_json
from ctrlexec.values import ON_DISCONNECT, Portion

#: Where the API answers command lines.
PREFIX = "/operator/"
#: What it can be asked for there.
OPERATIONS = (
    "run",
    "ping",
    "discover",
    "select",
    "list-agents",
    "status",
    "wait",
    "attach",
    "cancel",
    "ps",
)
_OF_HOSTS = ("ping", "discover", "select", "ps")


@attrs.frozen
class WaitWish:
    """
    Somebody waits for the end of a run.

    @ivar seconds: for how long at the most.
    """

    reqid: str
    seconds: float


@attrs.frozen
class AttachWish:
    """
    Somebody wants to hear what a run writes.

    @ivar hosts: where; everywhere, if there is none.
    @ivar seen: how much of each host's output they have.
    """

    reqid: str
    hosts: tuple[str, ...] = ()
    seen: Mapping[str, Seen] = attrs.field(factory=dict)


@attrs.frozen
class CancelWish:
    """
    Somebody wants a run to end.

    @ivar hosts: where; everywhere, if there is none.
    """

    reqid: str
    hosts: tuple[str, ...] = ()


#: What an operation is told: an order, hosts, a run, tags, or a request id.
Wish = (
    RunOrder | Selection | WaitWish | AttachWish | CancelWish | Mapping[str, str] | str
)


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
            said = attrs.asdict(wish, value_serializer=_spelled)
        case WaitWish() | AttachWish() | CancelWish():
            said = attrs.asdict(wish)
        case Selection():
            said = {"selection": attrs.asdict(wish)}
        case str():
            said = {"reqid": wish}
        case _:
            said = {"tags": dict(wish)}
    return to_json({"username": caller.username, "token": caller.token, **said})


def _spelled(order: object, field: object, value: object) -> object:
    return str(value) if isinstance(value, Portion) else value


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
        case "list-agents":
            tags = object_of(fields.get("tags", {}))
            return {name: text_of(tags, name) for name in tags}
        case "status":
            return text_of(fields, "reqid")
        case "wait":
            return WaitWish(text_of(fields, "reqid"), seconds_of(fields, "seconds"))
        case "attach":
            return AttachWish(
                text_of(fields, "reqid"), texts_of(fields, "hosts"), _seen(fields)
            )
        case "cancel":
            return CancelWish(text_of(fields, "reqid"), texts_of(fields, "hosts"))
        case _ if operation in _OF_HOSTS:
            return _selection(fields)
    raise ProtocolError(f"there is no operation {abbreviated(operation)}")


def _order(fields: Mapping[str, Any]) -> RunOrder:
    timeout = fields.get("timeout_seconds")
    if timeout is not None and not seconds_of(fields, "timeout_seconds"):
        raise ProtocolError("timeout_seconds must be more than none")
    rolling = fields.get("rolling")
    return RunOrder(
        selection=_selection(fields),
        script=text_of(fields, "script"),
        args=texts_of(fields, "args"),
        wait_lock_seconds=seconds_of(fields, "wait_lock_seconds"),
        confirmed=flag_of(fields, "confirmed"),
        asynchronous=flag_of(fields, "asynchronous"),
        follow=flag_of(fields, "follow"),
        timeout_seconds=timeout,
        on_disconnect=_on_disconnect(fields),
        rolling=None if rolling is None else _rolling(object_of(rolling)),
        key=text_of(fields, "key"),
    )


def _on_disconnect(fields: Mapping[str, Any]) -> str:
    said = text_of(fields, "on_disconnect") or ON_DISCONNECT[0]
    if said not in ON_DISCONNECT:
        raise ProtocolError(f"on_disconnect must be {' or '.join(ON_DISCONNECT)}")
    return said


def _rolling(fields: Mapping[str, Any]) -> Rolling:
    canary = number_of(fields, "canary")
    if canary < 0:
        raise ProtocolError("canary must not be below zero")
    return Rolling(
        canary=canary,
        batch=_portion(fields, "batch"),
        wait_seconds=seconds_of(fields, "wait_seconds"),
        max_failures=_portion(fields, "max_failures"),
    )


def _portion(fields: Mapping[str, Any], name: str) -> Portion | None:
    said = text_or_none(fields, name)
    try:
        return None if said is None else Portion.parse(said)
    except InvalidValue as error:
        raise ProtocolError(f"{name}: {error}") from None


def _seen(fields: Mapping[str, Any]) -> Mapping[str, Seen]:
    said = object_of(fields.get("seen", {}))
    found = {}
    for host in said:
        had = object_of(said[host])
        seen = Seen(number_of(had, "stdout"), number_of(had, "stderr"))
        if seen.stdout < 0 or seen.stderr < 0:
            raise ProtocolError("what is seen must not be below zero")
        found[host] = seen
    return found


def _selection(fields: Mapping[str, Any]) -> Selection:
    said = object_of(fields.get("selection"))
    port = said.get("port")
    return Selection(
        words=texts_of(said, "words"),
        exclude=texts_of(said, "exclude"),
        port=None if port is None else number_of(said, "port"),
    )
