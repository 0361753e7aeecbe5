# SPDX-License-Identifier: AGPL-3.0-only
"""
The auth hook: a program of the operator's that is asked before something is
done (PROTOCOL.md section 6, NEWER-LINE.md section 15).

It is called without arguments, reads what it is asked as JSON or finds it in
its environment, and answers with its exit status. There is one answer that
allows; whatever else may happen to a hook denies.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from pathlib import Path

import attrs
from twisted.internet.defer import TimeoutError
from twisted.internet.interfaces import IReactorProcess, IReactorTime
from zope.interface import implementer

from ctrlexec.errors import NotStarted
from ctrlexec.events import AuthHookTimedOut, Authorised, NotAuthorised, brief
from ctrlexec.files import why_not_executable
from ctrlexec.interfaces import IAuthoriser, IEventSink
from ctrlexec.process import ProgramResult, start_program
from ctrlexec.protocol.codec import to_json

_REASONS = {1: "denied", 2: "bad credentials", 3: "insufficient privilege"}


@attrs.frozen
class Allowed:
    """
    It may be done.
    """


@attrs.frozen
class Denied:
    """
    It may not be done.

    @ivar reason: for whoever asked, and for the log.
    @ivar code: the exit status of the hook; 1 where it had none to speak of.
    """

    reason: str = _REASONS[1]
    code: int = 1


Verdict = Allowed | Denied


@attrs.frozen(kw_only=True)
class HookContext:
    """
    What a hook is asked.

    @ivar action: C{"run"}, C{"discovery"} or C{"rotate"} on an agent; C{"run"},
        C{"ping"}, C{"api"} or C{"status"} on a dispatcher.
    @ivar hosts: where it is to be done; C{None} on an agent.
    @ivar username: who asks, as the caller claims.
    @ivar token: what the caller proves it with; for the hook's eyes only.
    @ivar source_ip: where the request comes from.
    @ivar timestamp: ISO 8601, UTC.
    @ivar dispatcher: on an agent, the id of the caller; else empty.
    @ivar dispatcher_serial: likewise, of the certificate that it proved.
    """

    action: str
    source_ip: str
    timestamp: str
    script: str = ""
    hosts: tuple[str, ...] | None = None
    args: tuple[str, ...] = ()
    username: str = ""
    token: str = attrs.field(default="", repr=False)
    dispatcher: str = ""
    dispatcher_serial: str = ""
    reqid: str = ""

    def stdin(self) -> bytes:
        """
        The JSON object that a hook reads.
        """
        hosts = {} if self.hosts is None else {"hosts": self.hosts}
        return to_json(
            {
                "action": self.action,
                "script": self.script,
                **hosts,
                "args": self.args,
                "username": self.username,
                "token": self.token,
                "source_ip": self.source_ip,
                "timestamp": self.timestamp,
                "dispatcher": self.dispatcher,
                "dispatcher_serial": self.dispatcher_serial,
                "reqid": self.reqid,
                "submitter": None,
            }
        )

    def environment(self) -> dict[str, str]:
        """
        The same, as variables. All of them are always there, so that a shell
        script with C{set -u} can rely on them.
        """
        variables = {
            "ACTION": self.action,
            "SCRIPT": self.script,
            "HOSTS": ",".join(self.hosts or ()),
            "ARGS": " ".join(self.args),
            "ARGS_JSON": json.dumps(self.args, separators=(",", ":")),
            "USERNAME": self.username,
            "TOKEN": self.token,
            "SOURCE_IP": self.source_ip,
            "TIMESTAMP": self.timestamp,
            "DISPATCHER": self.dispatcher,
            "DISPATCHER_SERIAL": self.dispatcher_serial,
            "REQID": self.reqid,
            "SUBMITTER": "",
            "SUBMITTER_IP": "",
        }
        return {f"ENVEXEC_{name}": value for name, value in variables.items()}


def verdict(result: ProgramResult) -> Verdict:
    """
    What a hook that has come to its end has said by it.
    """
    match result:
        case ProgramResult(signal=None, exit=0):
            return Allowed()
        case ProgramResult(signal=None, exit=code):
            return Denied(_REASONS.get(code, f"hook exited {code}"), code)
        case ProgramResult(signal=number):
            return Denied(f"hook killed by {_signal_name(number)}")


@implementer(IAuthoriser)
@attrs.frozen
class NoHook:
    """
    There is no hook: whoever is trusted may do what the host allows.
    """

    async def ask(self, context: HookContext) -> Verdict:
        """
        Nobody was asked, so there is nothing to log.
        """
        return Allowed()


@implementer(IAuthoriser)
@attrs.frozen
class AuthHook:
    """
    Asks a hook; as many as there are questions run at the same time.

    @ivar reactor: starts the hook, and tells the time.
    @ivar timeout: how long a hook may take, in seconds.
    @ivar env: what every program of ours finds in its environment.
    """

    reactor: IReactorProcess
    path: Path
    timeout: float
    env: Mapping[str, str]
    events: IEventSink

    async def ask(self, context: HookContext) -> Verdict:
        """
        Ask, and log the answer.
        """
        try:
            answer = verdict(await self._call(context))
        except NotStarted as refusal:
            answer = Denied(f"hook not started: {refusal}")
        except TimeoutError:
            self.events.emit(AuthHookTimedOut(f"{self.timeout:g}"))
            answer = Denied()
        self._log(context, answer)
        return answer

    async def _call(self, context: HookContext) -> ProgramResult:
        obstacle = why_not_executable(self.path)
        if obstacle is not None:
            raise NotStarted(obstacle)
        program = start_program(
            self.reactor,
            [str(self.path)],
            stdin=context.stdin(),
            # It may leave the question unread, and is killed before it matters.
            stdin_timeout=self.timeout,
            max_output=0,
            env={**self.env, **context.environment()},
        )
        try:
            clock = IReactorTime(self.reactor)
            return await program.result.addTimeout(self.timeout, clock)
        finally:
            # Late, or no longer waited for. One that has exited is left alone.
            program.kill()

    def _log(self, context: HookContext, answer: Verdict) -> None:
        who = (context.action, brief(context.username), context.source_ip)
        dispatcher = context.dispatcher or None
        match answer:
            case Allowed():
                self.events.emit(Authorised(*who, dispatcher))
            case Denied(reason):
                self.events.emit(NotAuthorised(*who, dispatcher, reason))


def _signal_name(number: int | None) -> str:
    try:
        return signal.Signals(number or 0).name
    except ValueError:
        return f"signal {number}"
