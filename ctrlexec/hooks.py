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
from ctrlexec.events import AuthHookTimedOut, Authorised, Event, NotAuthorised, brief
from ctrlexec.files import why_not_executable
from ctrlexec.interfaces import IAuthoriser, IEventSink
from ctrlexec.placement import why_exposed
from ctrlexec.process import ProgramResult, start_program
from ctrlexec.protocol.codec import to_json
from ctrlexec.values import Submitter

VARIABLE_BYTES = 131_072
"""
How long a variable may be, its name and the NUL at its end included: Linux's
C{MAX_ARG_STRLEN}, where pages have 4 KiB.
"""

_REASONS = {1: "denied", 2: "bad credentials", 3: "insufficient privilege"}
_LISTS = ("ENVEXEC_HOSTS", "ENVEXEC_ARGS", "ENVEXEC_ARGS_JSON")


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
        C{"ping"}, C{"api"}, C{"status"} and the like on a dispatcher.
    @ivar hosts: where it is to be done; C{None} on an agent.
    @ivar username: who asks, as the caller claims.
    @ivar token: what the caller proves it with; for the hook's eyes only.
    @ivar source_ip: where the request comes from.
    @ivar timestamp: ISO 8601, UTC.
    @ivar dispatcher: on an agent, the id of the caller; else empty.
    @ivar dispatcher_serial: likewise, of the certificate that it proved.
    @ivar submitter: where somebody asks what became of a run, whose it is.
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
    submitter: Submitter | None = None

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
                "submitter": self.submitter and attrs.asdict(self.submitter),
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
            "SUBMITTER": self.submitter.username if self.submitter else "",
            "SUBMITTER_IP": self.submitter.source_ip if self.submitter else "",
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


def why_too_long(variables: Mapping[str, str]) -> str | None:
    """
    Which variable is longer than the system takes.

    One can not be left out or cut: a hook that looks there for the hosts that
    it forbids would find none of them, and allow.
    """
    for name, value in variables.items():
        count = len(f"{name}={value}".encode("utf-8", "surrogatepass")) + 1
        if count > VARIABLE_BYTES:
            return (
                f"too much for the environment of the hook: {name} has "
                f"{count} bytes of at most {VARIABLE_BYTES}"
            )
    return None


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
class DenyAll:
    """
    There is no hook, and nothing is done without one: C{api_auth_default =
    deny} (PROTOCOL.md section 6).

    @ivar events: where that is logged.
    """

    events: IEventSink

    async def ask(self, context: HookContext) -> Verdict:
        """
        Whatever it is, no.
        """
        answer = Denied("no auth hook configured")
        self.events.emit(_event(context, answer))
        return answer


@implementer(IAuthoriser)
@attrs.frozen
class AuthHook:
    """
    Asks a hook; as many as there are questions run at the same time.

    @ivar reactor: starts the hook, and tells the time.
    @ivar timeout: how long a hook may take, in seconds.
    @ivar env: what every program of ours finds in its environment.
    @ivar lists_on_stdin: hosts and arguments are only there, so there may be
        any number of them.
    """

    reactor: IReactorProcess
    path: Path
    timeout: float
    env: Mapping[str, str]
    events: IEventSink
    lists_on_stdin: bool = False

    async def ask(self, context: HookContext) -> Verdict:
        """
        Ask, and log the answer.
        """
        try:
            answer = await self._answer(context)
        except NotStarted as refusal:
            answer = Denied(f"hook not started: {refusal}")
        except TimeoutError:
            self.events.emit(AuthHookTimedOut(f"{self.timeout:g}"))
            answer = Denied()
        self.events.emit(_event(context, answer))
        return answer

    async def _answer(self, context: HookContext) -> Verdict:
        obstacle = why_not_executable(self.path)
        # Whoever asks is not told which place it is that anybody may write.
        obstacle = obstacle or (why_exposed(self.path) and "Anybody may change it")
        if obstacle is not None:
            raise NotStarted(obstacle)
        variables = context.environment()
        if self.lists_on_stdin:
            variables = {n: v for n, v in variables.items() if n not in _LISTS}
        too_long = why_too_long(variables)
        if too_long is not None:
            return Denied(too_long)
        return verdict(await self._call(context.stdin(), variables))

    async def _call(self, stdin: bytes, variables: Mapping[str, str]) -> ProgramResult:
        program = start_program(
            self.reactor,
            [str(self.path)],
            # It may leave the question unread, and is killed before it matters.
            stdin=stdin,
            env={**self.env, **variables},
        )
        try:
            clock = IReactorTime(self.reactor)
            return await program.result.addTimeout(self.timeout, clock)
        finally:
            # Late, or no longer waited for. One that has exited is left alone.
            program.kill()


def _event(context: HookContext, answer: Verdict) -> Event:
    who = (context.action, brief(context.username), context.source_ip)
    dispatcher = context.dispatcher or None
    match answer:
        case Allowed():
            return Authorised(*who, dispatcher)
        case Denied(reason):
            return NotAuthorised(*who, reason, dispatcher)


def _signal_name(number: int | None) -> str:
    try:
        return signal.Signals(number or 0).name
    except ValueError:
        return f"signal {number}"
