# SPDX-License-Identifier: AGPL-3.0-only
"""
The command lines of this host, which come in through the unix socket: what
L{ctrlexec.dispatcher.operator} asks is carried out as if it were done in their
own process.

They are known by what the system says of them, and allowed what a command line
is allowed. Whoever leaves in the middle takes nothing along: no further host is
asked, those that were asked are waited for, and what came of it is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import attrs
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from ctrlexec.api.callers import caller_of
from ctrlexec.api.http import ApiRequest
from ctrlexec.api.lines import Lines, Spelled
from ctrlexec.api.problems import bad_request, not_found, problem_of, wrong_method
from ctrlexec.api.work import Work
from ctrlexec.dispatcher.operations import Dispatcher
from ctrlexec.dispatcher.operator import OPERATIONS, Request, decode_request
from ctrlexec.dispatcher.operator_lines import (
    Row,
    agent_line,
    asked_line,
    ended_line,
    failed_line,
    planned_line,
    record_line,
    row_line,
    selected_line,
    unreadable_line,
)
from ctrlexec.dispatcher.orders import Caller, Door, RunOrder, Selection
from ctrlexec.dispatcher.results import Report
from ctrlexec.errors import CtrlExecError, InvalidValue, Overload, ProtocolError
from ctrlexec.events import ApiOverloaded

_FAULT = CtrlExecError(
    "internal error of the API", hint="its log says more; --direct does without it"
)


class Ours(Protocol):
    """
    What knows the dispatcher of this moment: L{ctrlexec.api.app.Api}.
    """

    dispatcher: Dispatcher


class OperatorResource(Resource):
    """
    All that is under C{/operator/}.

    @param work: bounds how much is under way at once.
    """

    isLeaf = True

    def __init__(self, ours: Ours, work: Work) -> None:
        super().__init__()
        self._ours = ours
        self._work = work

    def render(self, request: ApiRequest) -> int:
        """
        Begin with what a request asks for, if it makes sense.
        """
        operation = b"/".join(request.postpath or ()).decode("ascii", "replace")
        if operation not in OPERATIONS:
            problem = not_found(f"there is no operation {operation}")
        elif request.method != b"POST":
            problem = wrong_method("POST")
        else:
            try:
                self._begin(request, decode_request(operation, request.body))
                return NOT_DONE_YET
            except ProtocolError as error:
                problem = bad_request(str(error))
            except (InvalidValue, Overload) as error:
                problem = problem_of(error)
        request.reply(problem.answer(request.accept))
        return NOT_DONE_YET

    def _begin(self, request: ApiRequest, asked: Request) -> None:
        """
        @raise InvalidValue: who asks gives a name or a token that is none.
        @raise Overload: there is too much to do already.
        """
        claimed, token = asked.username, asked.token
        caller = caller_of(
            request.peer, Door.COMMAND_LINE, claimed=claimed, token=token
        )
        dispatcher, lines = self._ours.dispatcher, Lines(request)
        try:
            working = self._work.begin(
                lambda: carry_out(dispatcher, caller, asked, lines)
            )
        except Overload as overload:
            peer = request.peer.address
            dispatcher.events.emit(ApiOverloaded(peer, overload.live))
            raise
        lines.begin()
        working.addErrback(partial(self._failed, request, lines))

    def _failed(self, request: ApiRequest, lines: Lines, fault: Failure) -> None:
        request.site.failed(request, fault)
        lines.end(partial(failed_line, _FAULT))


@attrs.frozen
class Distant:
    """
    Somebody in front of a terminal, as far as we can see.
    """

    lines: Lines

    def planned(self, hosts: int, reqid: str = "") -> None:
        """
        See L{Watcher<ctrlexec.dispatcher.results.Watcher>}, as for the others.
        """
        self.lines.say(partial(planned_line, hosts, reqid))

    def wanted(self) -> bool:
        """
        Not if they have left.
        """
        return not self.lines.left

    def asked(self, host: str) -> None:
        """
        Tell them.
        """
        self.lines.say(partial(asked_line, host))

    def arrived(self, row: Row) -> None:
        """
        Tell them.
        """
        self.lines.say(partial(row_line, row))


async def carry_out(
    ours: Dispatcher, caller: Caller, asked: Request, lines: Lines
) -> None:
    """
    Do what a command line asks for, and tell it what comes of it.
    """
    try:
        last = await _done(ours, caller, asked, lines)
    except CtrlExecError as error:
        last = partial(failed_line, error)
    lines.end(last)


async def _done(
    ours: Dispatcher, caller: Caller, asked: Request, lines: Lines
) -> Spelled:
    """
    @return: the last line.
    """
    watcher = Distant(lines)
    match asked.operation, asked.wish:
        case "run", RunOrder() as order:
            return _ended(await ours.run(caller, order, watcher))
        case "ping", Selection() as selection:
            return _ended(await ours.ping(caller, selection, watcher))
        case "discover", Selection() as selection:
            return _ended(await ours.discover(caller, selection, watcher))
        case "select", Selection() as selection:
            selected = await ours.select(caller, selection)
            return await _spelled(ours, selected_line, selected)
        case "list-agents", dict() as tags:
            records, unreadable = await ours.list_agents(caller, tags)
            for agent in records:
                lines.say(partial(agent_line, agent))
            for error in unreadable:
                lines.say(partial(unreadable_line, error))
            return ended_line
        case "status", str(reqid):
            record = await ours.status(caller, reqid)
            return await _spelled(ours, record_line, record)
    raise AssertionError(f"{asked.operation} is known, and not what to do")


async def _spelled(
    ours: Dispatcher, spell: Callable[[Any], bytes], whole: object
) -> Spelled:
    """
    A line that can be so long that nobody else should wait for it.
    """
    line: bytes = await ours.process.in_thread(spell, whole)
    return lambda: line


def _ended(report: Report[Any]) -> Spelled:
    return partial(ended_line, report.warnings, report.reqid)
