# SPDX-License-Identifier: AGPL-3.0-only
"""
What is not run, and why: for whoever asked, and for the log.
"""

from __future__ import annotations

import attrs

from ctrlexec.agent.allowlist import NotPermitted, Permitted, Script
from ctrlexec.agent.in_force import Caller, InForce
from ctrlexec.events import LockBusy, RunDenied, brief
from ctrlexec.protocol.messages import RunRefused, RunRequest
from ctrlexec.protocol.run_messages import BUSY, CANCELLED, DENIED

_NOT_PERMITTED = "script not permitted"
#: What somebody is told whose order was taken back.
BURIED = "cancelled before it was started"
_RUNS_ALREADY = "script already running"


@attrs.frozen
class Refusing:
    """
    Says no, and logs it.
    """

    in_force: InForce

    def permitted(self, request: RunRequest, caller: Caller) -> Script | RunRefused:
        """
        The script that may run now.
        """
        policy = self.in_force.policy
        match policy.decide(request.script):
            case NotPermitted(reason):
                return self.denied(request, caller, reason, _NOT_PERMITTED)
            case Permitted(script):
                unfit = policy.why_unfit(request.script, request.args)
                return self.denied(request, caller, unfit) if unfit else script
        raise AssertionError(request.script)

    def denied(
        self,
        request: RunRequest,
        caller: Caller,
        reason: str,
        error: str | None = None,
        state: str = DENIED,
        told: str = "",
    ) -> RunRefused:
        """
        @param error: what the caller is told, where that is not the reason.
        @param state: see L{RunRefused}.
        @param told: what the caller is told beside it.
        """
        self._log(reason, request, caller)
        said = (error or reason, request.script, request.reqid)
        return RunRefused(*said, state, told)

    def cancelled(self, request: RunRequest, caller: Caller) -> RunRefused:
        """
        Somebody has taken the order back.
        """
        return self.denied(request, caller, BURIED, state=CANCELLED)

    def busy(
        self, script: Script, request: RunRequest, caller: Caller, holder: str
    ) -> RunRefused:
        """
        Another run has the lock that this one takes.

        @param holder: its reqid, if it is one of the caller's; empty for one of
            which the caller is to hear nothing, or which is not known.
        """
        lock = script.lock_of(asynchronous=request.asynchronous)
        told = f"{f'run {holder}' if holder else 'another run'} has the lock {lock}"
        if not request.asynchronous:
            busy = f"busy: {lock} is held by another run"
            told = told if holder else ""
            return self.denied(request, caller, busy, state=BUSY, told=told)
        who = (caller.peer.address, brief(request.reqid), caller.dispatcher)
        self.in_force.events.emit(LockBusy(script.name, *who, lock))
        return RunRefused(_RUNS_ALREADY, request.script, request.reqid, BUSY, told)

    def unread(self, refused: RunRefused, caller: Caller) -> None:
        """
        A request was none; it has its answer.
        """
        self._log(refused.error, refused, caller)

    def _log(
        self, reason: str, request: RunRequest | RunRefused, caller: Caller
    ) -> None:
        # What could not be read names neither, and an empty field would say that
        # it named an empty one.
        script, reqid = (
            text if text is None else brief(text)
            for text in (request.script, request.reqid)
        )
        self.in_force.events.emit(
            RunDenied(caller.peer.address, reason, caller.dispatcher, script, reqid)
        )
