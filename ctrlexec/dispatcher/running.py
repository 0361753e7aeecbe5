# SPDX-License-Identifier: AGPL-3.0-only
"""
A run of a script on hosts: permitted, locked for as long as it runs there, and
carried out.

A lock is as long-lived as the process that holds it: on a host of which nobody
knows whether a script still runs, it is free when the order has ended.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from twisted.internet.task import deferLater

from ctrlexec.dispatcher.accounts import dispatched
from ctrlexec.dispatcher.asking import Asking, Planned, is_strict
from ctrlexec.dispatcher.authorisation import Question
from ctrlexec.dispatcher.course import Commission, Course
from ctrlexec.dispatcher.live_orders import LiveOrder
from ctrlexec.dispatcher.locks import Busy, Held, Holder
from ctrlexec.dispatcher.orders import Caller, RunOrder
from ctrlexec.dispatcher.results import (
    Report,
    RunRow,
)
from ctrlexec.dispatcher.selection import Selected
from ctrlexec.errors import InvalidValue, Locked, Unconfirmed
from ctrlexec.events import (
    LockAcquired,
    LockConflict,
    LockReleased,
)
from ctrlexec.protocol.codec import is_sound
from ctrlexec.protocol.messages import RunRequest
from ctrlexec.values import (
    Target,
    new_request_id,
    script_name,
)

#: How often a lock that somebody else holds is tried again, in seconds.
POLL_SECONDS = 0.2


async def permitted(given: Commission, request: RunRequest) -> Selected:
    """
    The hosts that are meant.

    @raise NotAuthorised: the caller may not do it.
    @raise Unconfirmed: nobody has said yes to so many hosts.
    """
    question = Question(
        action="run", script=request.script, args=request.args, reqid=request.reqid
    )
    asking, order = given.asking, given.order
    selected = await asking.permitted(given.caller, order.selection, question)
    limit = asking.ours.settings.confirm_hosts
    if len(selected.hosts) > limit and not order.confirmed:
        raise Unconfirmed(len(selected.hosts), limit)
    return selected


async def carry_out(
    given: Commission, request: RunRequest, selected: Selected, live: LiveOrder
) -> Report[RunRow]:
    """
    @param live: how others reach the order.
    @raise CtrlExecError: nobody was asked.
    """
    plan = await given.asking.plan(selected, is_strict(given.caller))
    locked = await _Locked.taken(given, request, plan, live)
    course = Course(given, request, selected, plan, live)
    try:
        await course.begin()
        given.asking.emit(dispatched(request, plan))
        stopped = await course.run(locked.release)
    finally:
        locked.release(*locked.held.hosts)
    unkept = await course.keep(stopped=bool(stopped))
    warnings = (*selected.warnings, *stopped, *unkept)
    return Report(course.rows, warnings, request.reqid, bool(stopped))


@attrs.frozen
class _Locked:
    """
    The locks of an order.
    """

    asking: Asking
    request: RunRequest
    held: Held

    @classmethod
    async def taken(
        cls,
        given: Commission,
        request: RunRequest,
        plan: Sequence[Planned],
        live: LiveOrder,
    ) -> _Locked:
        """
        Lock the script wherever it will run.

        @raise Locked: it runs there already, and did for as long as anybody
            wanted to wait.
        """
        ours, emit = given.asking.ours, given.asking.emit
        hosts = [*dict.fromkeys(each.name for each in plan if isinstance(each, Target))]
        holder = Holder(request.script, request.reqid, request.username)
        clock = ours.process.reactor
        until = clock.seconds() + given.order.wait_lock_seconds
        while True:
            match await ours.process.in_thread(ours.stores.locks.take, hosts, holder):
                case Held() as held:
                    if hosts:
                        where = ",".join(hosts)
                        emit(LockAcquired(where, request.script, request.reqid))
                    return cls(given.asking, request, held)
                case Busy(conflicts):
                    left = until - clock.seconds()
                    wanted = given.watcher.wanted() and not live.ended
                    if left <= 0 or not wanted:
                        where = ",".join(conflicts)
                        emit(LockConflict(where, request.reqid, request.username))
                        raise Locked(conflicts)
                    await deferLater(clock, min(left, POLL_SECONDS))

    def release(self, *hosts: str) -> None:
        """
        Let go of some of them.
        """
        released = self.held.release(*hosts)
        if released:
            where, request = ",".join(released), self.request
            self.asking.emit(LockReleased(where, request.script, request.reqid))


def run_request(caller: Caller, order: RunOrder) -> RunRequest:
    """
    @raise InvalidValue: no agent could be asked for this.
    """
    for arg in order.args:
        if "\0" in arg or not is_sound(arg):
            raise InvalidValue("argument", arg, "UTF-8 text without NUL characters")
    return RunRequest(
        script=script_name(order.script),
        args=order.args,
        reqid=new_request_id(),
        username=caller.username,
        token=caller.token,
        asynchronous=order.asynchronous,
        stream=order.follow and not order.asynchronous,
        timeout=order.timeout_seconds,
        on_disconnect=order.on_disconnect,
    )
