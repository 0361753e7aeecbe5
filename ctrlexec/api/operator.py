# SPDX-License-Identifier: AGPL-3.0-only
"""
The command lines of this host, which come in through the unix socket: what
L{ctrlexec.dispatcher.operator} asks is carried out as if it were done in their
own process.

They are known by what the system says of them, and allowed what a command line
is allowed. Whoever leaves in the middle takes nothing along: no further host is
asked, those that were asked are waited for, and what came of it is kept; unless
they wanted a run to end with their leaving. Who only looks on is work for nobody
once they have left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from ctrlexec.api.callers import Peer, caller_of, share_of
from ctrlexec.api.http import ApiRequest
from ctrlexec.api.lines import Lines, Spelled
from ctrlexec.api.problems import bad_request, not_found, problem_of, wrong_method
from ctrlexec.api.watching import Presence, Unwatched
from ctrlexec.api.work import Share
from ctrlexec.dispatcher.operations import Dispatcher
from ctrlexec.dispatcher.operator import (
    OPERATIONS,
    AttachWish,
    CancelWish,
    Request,
    WaitWish,
    decode_request,
)
from ctrlexec.dispatcher.operator_lines import (
    Row,
    agent_line,
    asked_line,
    ended_line,
    failed_line,
    heard_line,
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
from ctrlexec.protocol.run_messages import Output, StateChanged

#: How long somebody may look at a screen full of what a run writes.
READ_SECONDS = 600.0

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

    @param share: bounds how much is under way at once.
    """

    isLeaf = True

    def __init__(self, ours: Ours, share: Share) -> None:
        super().__init__()
        self._ours = ours
        self._share = share

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
        caller = caller_of(request.peer, Door.SOCKET, claimed=claimed, token=token)
        dispatcher, lines = self._ours.dispatcher, Lines(request)
        order = Order(dispatcher, caller, asked, lines, Presence.at(request))
        try:
            working = self._begun(order, request.peer)
        except Overload as overload:
            peer = request.peer.address
            dispatcher.events.emit(ApiOverloaded(peer, overload.live))
            raise
        if order.is_followed:
            assert request.channel is not None
            request.channel.take_time(READ_SECONDS)
        lines.begin()
        working.addErrback(partial(self._failed, request, lines))

    def _begun(self, order: Order, peer: Peer) -> Deferred[None]:
        """
        @raise Overload: there is too much to do already.
        """
        match order.asked.wish:
            case CancelWish():
                # However much there is to do: this is how it becomes less.
                return Deferred.fromCoroutine(order.carry_out())
            case AttachWish() | WaitWish():
                # Nothing comes of it but what is told.
                # Who could be anybody has no share of their own.
                share = share_of(peer, order.caller.token, is_asked=False)
                caller = None if peer.may_claim else share
                looking = self._share.streams.begin(order.carry_out, caller)
                order.client.on_leaving = looking.cancel
                return looking
        return self._share.work.begin(order.carry_out)

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

    def heard(self, host: str, event: Output | StateChanged) -> Deferred[None] | None:
        """
        Tell them, as fast as they read.
        """
        return self.lines.say(partial(heard_line, host, event))


@attrs.frozen
class Order:
    """
    What a command line asks for.

    @ivar client: whether it is still there.
    """

    ours: Dispatcher
    caller: Caller
    asked: Request
    lines: Lines
    client: Presence

    @property
    def is_followed(self) -> bool:
        """
        Whether somebody reads what scripts write.
        """
        wish = self.asked.wish
        return isinstance(wish, AttachWish) or (
            isinstance(wish, RunOrder) and wish.follow
        )

    async def carry_out(self) -> None:
        """
        Do it, and tell what comes of it.
        """
        try:
            last = await self._done()
        except CtrlExecError as error:
            last = partial(failed_line, error)
        except CancelledError:
            if self.client.has_left:
                return
            # The API ends; it has told all that it knows.
            last = bytes
        self.lines.end(last)

    async def _done(self) -> Spelled:
        """
        @return: the last line.
        """
        ours, caller, watcher = self.ours, self.caller, Distant(self.lines)
        report: Report[Any]
        match self.asked.operation, self.asked.wish:
            case "run", RunOrder() as order:
                report = await self._run(order)
            case "ping", Selection() as selection:
                report = await ours.ping(caller, selection, watcher)
            case "discover", Selection() as selection:
                report = await ours.discover(caller, selection, watcher)
            case "ps", Selection() as selection:
                report = await ours.ps(caller, selection, watcher)
            case "attach", AttachWish(reqid, hosts, seen):
                report = await ours.attach(caller, reqid, hosts, seen, watcher)
            case "cancel", CancelWish(reqid, hosts):
                report = await ours.cancel(caller, reqid, hosts, watcher)
            case _:
                return await self._looked_up()
        return partial(ended_line, report.warnings, report.reqid, report.stopped)

    async def _looked_up(self) -> Spelled:
        ours, caller = self.ours, self.caller
        match self.asked.operation, self.asked.wish:
            case "status", str(reqid):
                record = await ours.status(caller, reqid)
                return await _spelled(ours, record_line, record)
            case "wait", WaitWish(reqid, seconds):
                record = await ours.wait(caller, reqid, seconds)
                return await _spelled(ours, record_line, record)
            case "select", Selection() as selection:
                selected = await ours.select(caller, selection)
                return await _spelled(ours, selected_line, selected)
            case "list-agents", dict() as tags:
                return await self._list_agents(tags)
        raise AssertionError(f"{self.asked.operation} is known, and not what to do")

    async def _run(self, order: RunOrder) -> Report[Any]:
        ends_with_them = order.on_disconnect == "cancel"
        watcher = Leaving(self.lines, self) if ends_with_them else Distant(self.lines)
        try:
            return await self.ours.run(self.caller, order, watcher)
        finally:
            # There is nothing left that could be ended.
            self.client.on_leaving = None

    async def _list_agents(self, tags: Mapping[str, str]) -> Spelled:
        records, unreadable = await self.ours.list_agents(self.caller, tags)
        for agent in records:
            self.lines.say(partial(agent_line, agent))
        for error in unreadable:
            self.lines.say(partial(unreadable_line, error))
        return ended_line


@attrs.frozen
class Leaving(Distant):
    """
    Somebody who wants the run to end when they leave.
    """

    order: Order

    def planned(self, hosts: int, reqid: str = "") -> None:
        """
        From here on there is something to be ended.
        """
        super().planned(hosts, reqid)
        self.order.client.on_leaving = partial(self._cancel, reqid)
        if self.order.client.has_left:
            self._cancel(reqid)

    def _cancel(self, reqid: str) -> None:
        order = self.order
        ending = order.ours.cancel(order.caller, reqid, (), Unwatched())
        # The rows of the run say what came of it.
        Deferred.fromCoroutine(ending).addErrback(_known)


def _known(failure: Failure) -> None:
    failure.trap(CtrlExecError)


async def _spelled(
    ours: Dispatcher, spell: Callable[[Any], bytes], whole: object
) -> Spelled:
    """
    A line that can be so long that nobody else should wait for it.
    """
    line: bytes = await ours.process.in_thread(spell, whole)
    return lambda: line
