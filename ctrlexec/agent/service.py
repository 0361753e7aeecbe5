# SPDX-License-Identifier: AGPL-3.0-only
"""
The agent as a service: C{twistd ctrl-exec-agent}.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, ClassVar

import attrs
from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.python.usage import Options as BaseOptions
from twisted.python.usage import UsageError

from ctrlexec.agent import identity, staging
from ctrlexec.agent.enrolment import CONNECT_SECONDS, Enrolment
from ctrlexec.agent.gate import Gate
from ctrlexec.agent.in_force import InForce
from ctrlexec.agent.keeping import KeptScripts
from ctrlexec.agent.policy import Overrides, load_policy
from ctrlexec.agent.renewal import Renewals, ShownIdentity
from ctrlexec.agent.resource import AgentResource
from ctrlexec.agent.rotation import in_thread_of, migrate
from ctrlexec.agent.run_archive import RunArchive
from ctrlexec.agent.run_store import RunStore
from ctrlexec.agent.run_table import RunTable
from ctrlexec.agent.running import Runs
from ctrlexec.agent.settings import DEFAULT_FILE, AgentSettings
from ctrlexec.errors import CtrlExecError, InvalidValue, PkiError
from ctrlexec.events import (
    AgentStarted,
    AgentStopped,
    Event,
    Reloaded,
    ReloadFailed,
    SettingsWarned,
    listed,
)
from ctrlexec.foreground import end_in_words, leave
from ctrlexec.hooks import AuthHook, NoHook
from ctrlexec.interfaces import IAuthoriser, IEventSink
from ctrlexec.process import small_environment
from ctrlexec.protocol.limits import REQUEST_BODY_BYTES
from ctrlexec.protocol.listening import ListeningService, tls_endpoint
from ctrlexec.protocol.server import ServerFactory
from ctrlexec.settings import SettingsWarning
from ctrlexec.sinks import open_sink
from ctrlexec.systemd import Supervision, handed_over
from ctrlexec.tls import Credentials, pairing_client
from ctrlexec.uptime import uptime_seconds
from ctrlexec.values import HostPort, port_number

PROGRAM = "ctrl-exec-agent"
#: The exit status that says: to start again is of no use before somebody has
#: mended the configuration or paired the agent (C{EX_CONFIG}).
CONFIGURATION = 78
#: The name under which systemd hands over a port that it has opened.
SOCKET_UNIT = "ctrl-exec-agent.socket"
_KEPT = "failed, the old settings stay"
#: What a stop may take beyond C{stop_grace}.
STOPPING_SECONDS = 10.0


class Options(BaseOptions):
    """
    What C{twistd ctrl-exec-agent} takes.
    """

    longdesc = "Lets trusted dispatchers run the scripts that this host allows."
    optParameters: ClassVar = [
        ["config", "c", str(DEFAULT_FILE), "The agent's settings."],
        ["allowlist", "a", None, "The scripts that may run, in place of the setting."],
        ["port", "p", None, "The port to listen on, in place of the setting."],
    ]

    def postOptions(self) -> None:
        """
        @raise UsageError: an option is not what it should be.
        """
        try:
            port = port_number(self["port"]) if self["port"] else None
        except InvalidValue as error:
            raise UsageError(str(error)) from None
        allowlist = Path(self["allowlist"]) if self["allowlist"] else None
        self.overrides = Overrides(port, allowlist)


def makeService(options: Options) -> IService:
    """
    For C{twistd}: a service on the global reactor.

    @raise SystemExit: with status 78 and a line that says why.
    """
    reactor = global_reactor()
    end_in_words()
    try:
        return agent_service(reactor, Path(options["config"]), options.overrides)
    except CtrlExecError as error:
        leave(error, CONFIGURATION)


def agent_service(reactor: Any, file: Path, overrides: Overrides) -> IService:
    """
    @param reactor: a real one, or all that a test needs of one.
    @param file: C{agent.conf}.
    @raise CtrlExecError: the settings can not be used, or there is no identity.
    """
    policy, warnings = load_policy(file, overrides)
    settings = policy.settings
    events = _sink(reactor, settings)
    shown = ShownIdentity(_credentials(settings))
    in_force = InForce(
        policy,
        _authoriser(reactor, settings, events),
        events,
        Gate(events, time.monotonic),
        _now,
        in_thread_of(reactor),
    )
    resource = AgentResource(
        in_force,
        _runs(reactor, in_force),
        Renewals(shown, events, in_force.in_thread, _now),
        reactor,
    )
    factory = ServerFactory(reactor, resource, REQUEST_BODY_BYTES)
    listening = ListeningService(
        tls_endpoint(
            reactor,
            settings.bind,
            settings.port,
            shown,
            resource.admits,
            handed_over(reactor, SOCKET_UNIT, os.environ),
        ),
        factory,
        f"port {settings.port}" + (f" of {settings.bind}" if settings.bind else ""),
        lambda port: events.emit(AgentStarted(port)),
    )
    supervision = Supervision.from_environment(reactor, os.environ)
    _warn(events, (*warnings, *policy.remarks()))
    migrate(settings, events)
    return AgentService(
        reactor, listening, factory, resource, events, file, overrides, supervision
    )


def enrolment_for(
    reactor: Any, settings: AgentSettings, dispatcher: HostPort, seconds: float
) -> Enrolment:
    """
    @param dispatcher: with its pairing port.
    @param seconds: how long to wait for a decision.
    """
    assert dispatcher.port is not None
    endpoint = HostnameEndpoint(
        reactor, dispatcher.host, dispatcher.port, timeout=CONNECT_SECONDS
    )
    return Enrolment(
        reactor,
        wrapClientTLS(pairing_client(), endpoint, clock=reactor),
        dispatcher,
        settings,
        _sink(reactor, settings),
        seconds,
        _now,
    )


def global_reactor() -> Any:
    """
    The one reactor of a real process; everything else is handed it.
    """
    from twisted.internet import reactor

    return reactor


@attrs.define(eq=False)
class AgentService(Service):
    """
    An agent that listens, reads its settings again on C{SIGHUP}, and gives the
    answers that it owes when it stops.
    """

    reactor: Any
    listening: ListeningService
    factory: ServerFactory
    resource: AgentResource
    events: IEventSink
    file: Path
    overrides: Overrides
    supervision: Supervision
    _previous: dict[int, Any] = attrs.field(factory=dict, init=False)
    _started: AgentSettings = attrs.field(init=False)

    @_started.default
    def _of_the_start(self) -> AgentSettings:
        return self.resource.policy.settings

    def privilegedStartService(self) -> None:
        """
        @raise ListenError: the port can not be opened.
        """
        self.listening.privilegedStartService()

    def startService(self) -> None:
        super().startService()
        self._on_signal(self.reload, signal.SIGHUP)
        self.resource.runs.start(self.reactor)
        self.reactor.callWhenRunning(self.resource.runs.warm_up)
        self.listening.startService()
        self.supervision.start(self._in_force())

    def stopService(self) -> Deferred[None]:
        """
        Stop accepting, and wait until everybody has an answer: for C{stop_grace},
        or until another C{SIGTERM} or C{SIGINT}. Scripts that take longer than
        that go on, and are found again by the next agent.
        """
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        grace, runs = self.resource.policy.settings.stop_grace, self.resource.runs
        self.supervision.notifier.stopping(
            f"Waits for {self.resource.live} answers", grace + STOPPING_SECONDS
        )
        over: Deferred[None] = Deferred()

        def end() -> None:
            if not over.called:
                over.callback(None)

        # First of all: a second signal must not fall into a gap.
        self._on_signal(end, signal.SIGTERM, signal.SIGINT)
        patience = self.reactor.callLater(grace, end)
        await self.listening.stopService()
        # Whoever follows a run goes on with the next agent, at the same place.
        self.factory.cut_streams()
        ending = DeferredList(
            [self.resource.quiet(), self.factory.finish()], consumeErrors=True
        )
        ending.addCallback(lambda _: end())
        await over
        ending.cancel()
        if patience.active():
            patience.cancel()
        table = runs.table
        self.events.emit(AgentStopped(len(table), listed(table.reqids) or None))
        self.factory.abort_all()
        await runs.leave()
        self.supervision.stop()
        while self._previous:
            signal.signal(*self._previous.popitem())

    def _on_signal(self, act: Callable[[], None], *numbers: int) -> None:
        for number in numbers:
            previous = signal.signal(
                number, lambda *_: self.reactor.callFromThread(act)
            )
            self._previous[number] = previous or signal.SIG_DFL

    def reload(self) -> None:
        """
        Read everything again: all of it is good, or the old stays in force.
        Runs and connections go on.

        What addresses did is forgotten either way: that is how an operator ends
        a block.
        """
        if not self.running:
            # It waits to have answered, and takes no more requests.
            return
        self.supervision.notifier.reloading()
        try:
            self._reload()
        finally:
            self.supervision.notifier.ready(self._in_force())

    def _in_force(self) -> str:
        return f"Lets {len(self.resource.policy.allowlist.scripts)} scripts run"

    def _reload(self) -> None:
        self.resource.in_force.gate.forget()
        try:
            policy, warnings = load_policy(self.file, self.overrides)
        except CtrlExecError as error:
            self.events.emit(ReloadFailed(_KEPT, str(error)))
            return
        except Exception as error:
            # A fault of ours; what was in force stays here, too, and says so.
            self.events.emit(ReloadFailed(_KEPT, f"internal error: {error!r}"))
            return
        changed = (*_frozen(self._started, policy.settings), *self._read_identity())
        _warn(self.events, (*warnings, *changed, *policy.remarks()))
        in_force = self.resource.in_force
        in_force.policy = policy
        in_force.gate.cut(policy)
        in_force.authoriser = _authoriser(self.reactor, policy.settings, self.events)
        self.events.emit(Reloaded("ok", len(policy.allowlist.scripts)))

    def _read_identity(self) -> tuple[str, ...]:
        """
        Show what somebody has put in the place of the identity, as long as it is
        of the same CA: what connections have proved, they have proved to that.

        @return: why not, if there is something to say.
        """
        shown = self.resource.renewals.shown
        try:
            found = staging.held(self._started, _now())
            if found == shown.credentials:
                return ()
            if found.ca != shown.credentials.ca:
                return ("the CA is another one; that needs a restart",)
            shown.show(found)
        except CtrlExecError as error:
            return (f"the identity can not be read again, and stays: {error}",)
        return ()


def _frozen(started: AgentSettings, new: AgentSettings) -> tuple[str, ...]:
    """
    What has changed since the agent was started, and takes a restart.
    """
    return tuple(
        f"{key} has changed; that needs a restart"
        for key in ("port", "bind", "cert", "key", "ca", "log", "async_runs_dir")
        if getattr(started, key) != getattr(new, key)
    )


def _credentials(settings: AgentSettings) -> Credentials:
    identity.recover(settings)
    if not identity.is_paired(settings):
        raise PkiError(
            "this agent is not paired",
            hint="ctrl-exec-agent request-pairing --dispatcher HOST",
        )
    return staging.held(settings, _now())


def _sink(reactor: Any, settings: AgentSettings) -> IEventSink:
    log = str(settings.log)
    return open_sink(log, PROGRAM, _now, sys.stderr, reactor.callLater)


def _runs(reactor: Any, in_force: InForce) -> Runs:
    store = RunStore(in_force.policy.settings.async_runs_dir)
    archive = RunArchive(in_force, store, RunTable(uptime_seconds))
    scripts = KeptScripts(reactor, in_force.events)
    return Runs(in_force, scripts, archive, small_environment(os.environ))


def _authoriser(
    reactor: Any, settings: AgentSettings, events: IEventSink
) -> IAuthoriser:
    if settings.auth_hook is None:
        return NoHook()
    return AuthHook(
        reactor,
        settings.auth_hook,
        settings.auth_hook_timeout,
        small_environment(os.environ),
        events,
        settings.auth_hook_stdin,
    )


def _warn(
    events: IEventSink, warnings: tuple[SettingsWarning | str | Event, ...]
) -> None:
    for warning in warnings:
        if isinstance(warning, Event):
            events.emit(warning)
        else:
            events.emit(SettingsWarned(str(warning)))


def _now() -> datetime:
    return datetime.now(timezone.utc)
