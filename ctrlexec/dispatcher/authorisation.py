# SPDX-License-Identifier: AGPL-3.0-only
"""
May this caller do this? Asked before everything that a dispatcher does
(PROTOCOL.md section 6, NEWER-LINE.md sections 13 and 15).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import attrs

from ctrlexec.dispatcher.orders import Caller, Door
from ctrlexec.errors import NotAuthorised
from ctrlexec.hooks import Allowed, Denied, DenyAll, HookContext, NoHook
from ctrlexec.interfaces import IAuthoriser, IEventSink
from ctrlexec.values import Submitter, iso_time


@attrs.frozen(kw_only=True)
class Question:
    """
    What somebody wants to do.

    @ivar action: C{"run"}, C{"ping"} (discovery too), C{"status"}, C{"api"};
        of the rest, the name of the mode.
    @ivar submitter: of a status or a cancel, who gave the order.
    """

    action: str
    hosts: tuple[str, ...] = ()
    script: str = ""
    args: tuple[str, ...] = ()
    reqid: str = ""
    submitter: Submitter | None = None


@attrs.frozen
class Authorisation:
    """
    @ivar hook: who is asked; C{None} where the settings name nobody.
    @ivar api_allows: what the API does then.
    """

    hook: IAuthoriser | None
    api_allows: bool
    now: Callable[[], datetime]
    events: IEventSink

    async def require(self, caller: Caller, question: Question) -> None:
        """
        @raise NotAuthorised: the caller may not do it.
        """
        context = HookContext(
            action=question.action,
            script=question.script,
            hosts=question.hosts,
            args=question.args,
            username=caller.username,
            token=caller.token,
            source_ip=caller.source_ip,
            timestamp=iso_time(self.now()),
            reqid=question.reqid,
            submitter=question.submitter,
        )
        match await self._authoriser(caller).ask(context):
            case Allowed():
                return
            case Denied(reason, code):
                hint = self.hook and f"the auth hook was asked for {question.action!r}"
                raise NotAuthorised(reason, code, hint=hint or "")

    def _authoriser(self, caller: Caller) -> IAuthoriser:
        if self.hook is not None:
            return self.hook
        if caller.door is Door.API and not self.api_allows:
            return DenyAll(self.events)
        return NoHook()
