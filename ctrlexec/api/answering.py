# SPDX-License-Identifier: AGPL-3.0-only
"""
What is around each operation of the API: who asks may use it at all, what they
say makes sense, so much is worked on at once, and whatever goes wrong is an
answer (L{ctrlexec.api.problems}).
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ctrlexec.api import definitions
from ctrlexec.api.callers import caller_of, credentials, is_of_a_page
from ctrlexec.api.calls import Call
from ctrlexec.api.following import EventStream
from ctrlexec.api.http import ApiRequest
from ctrlexec.api.problems import Answer, problem_of
from ctrlexec.api.watching import Presence
from ctrlexec.api.work import Work
from ctrlexec.dispatcher.authorisation import Question
from ctrlexec.dispatcher.operations import Dispatcher
from ctrlexec.dispatcher.orders import Caller, Door
from ctrlexec.errors import CtrlExecError, NotAuthorised, Overload, ProtocolError
from ctrlexec.events import ApiOverloaded
from ctrlexec.protocol.codec import from_json, to_json

Fields = dict[str, Any]
#: What comes of a request: what JSON spells, an answer, or what makes one by
#: and by.
Outcome = Fields | Answer | EventStream


class Ours(Protocol):
    """
    What has operations: L{ctrlexec.api.app.Api}.
    """

    dispatcher: Dispatcher
    work: Work


A = TypeVar("A", bound=Ours)

Route = Callable[[A, Call], Awaitable[Outcome]]
Rendered = Callable[..., Deferred[bytes | EventStream] | bytes]
CarryOut = Callable[[Call], Awaitable[Outcome]]


def operation(name: str) -> Callable[[Route[A]], Rendered]:
    """
    Make a route of what carries an operation out: who asks is authorised, the
    body is held against the definition, so many are worked on at once, and each
    to its end.

    @param name: the operation's id in L{ctrlexec.api.definitions}.
    """

    def decorate(carry_out: Route[A]) -> Rendered:
        @functools.wraps(carry_out)
        def route(self: A, request: ApiRequest, **path: str) -> Any:
            return answered(self, name, request, partial(carry_out, self), path)

        return route

    return decorate


def answered(
    ours: Ours,
    name: str,
    request: ApiRequest,
    carry_out: CarryOut,
    path: Mapping[str, str],
) -> Deferred[bytes | EventStream] | bytes:
    """
    Do what a request asks for, even if its client leaves.

    @return: the body of the answer, when all else of it is given; or what gives
        all of it.
    """
    try:
        working = ours.work.begin(
            lambda: _answer(ours.dispatcher, name, request, carry_out, path)
        )
    except Overload as overload:
        overloaded(ours.dispatcher, request, overload)
        return request.begin(problem_of(overload).answer(request.accept))

    def given(answer: Answer | EventStream) -> bytes | EventStream:
        return request.begin(answer) if isinstance(answer, Answer) else answer

    return working.addCallback(given)


async def _answer(
    ours: Dispatcher,
    name: str,
    request: ApiRequest,
    carry_out: CarryOut,
    path: Mapping[str, str],
) -> Answer | EventStream:
    generic = ours.settings.auth_deny_generic
    # Of the request itself nothing is left once its client has left.
    accept, client = request.accept, Presence.at(request)
    try:
        caller = await _admitted(ours, request)
        fields = definitions.validate(name, request.body)
        headers = definitions.headers(name, partial(_single, request))
        outcome = await carry_out(Call(caller, fields, headers, path, client))
    except CtrlExecError as error:
        problem = problem_of(error, generic=generic)
        if problem.status == 500:
            request.site.failed(request, Failure())
        return problem.answer(accept)
    except Exception as error:
        request.site.failed(request, Failure())
        return problem_of(error).answer(accept)
    return Answer(200, to_json(outcome)) if isinstance(outcome, dict) else outcome


async def _admitted(ours: Dispatcher, request: ApiRequest) -> Caller:
    """
    @raise NotAuthorised: they may not use the API at all.
    """
    if is_of_a_page(request.requestHeaders):
        raise NotAuthorised("not for web pages", 1)
    claimed, token = credentials(request.requestHeaders, _unchecked(request.body))
    caller = caller_of(request.peer, Door.API, claimed=claimed, token=token)
    await ours.authorisation().require(caller, Question(action="api"))
    return caller


def overloaded(ours: Dispatcher, request: ApiRequest, overload: Overload) -> None:
    """
    Write down that somebody is turned away.
    """
    ours.events.emit(ApiOverloaded(request.peer.address, overload.live))


def _single(request: ApiRequest, name: str) -> str | None:
    """
    @raise BadRequest: the header says several things under a name.
    """
    if name.lower() in request.repeated:
        raise definitions.BadRequest(f"{name}: is given more than once")
    return request.field(name)


def _unchecked(body: bytes) -> Mapping[str, Any]:
    """
    What somebody says about themselves counts before it is known whether all
    that they say makes sense.
    """
    try:
        return from_json(body)
    except ProtocolError:
        return {}
