# SPDX-License-Identifier: AGPL-3.0-only
"""
The agent as a service: C{twistd ctrl-exec-agent}.
"""

from __future__ import annotations

import os
import signal
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, ClassVar

import attrs
from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.python.usage import Options as BaseOptions
from twisted.python.usage import UsageError

from ctrlexec.agent import identity
from ctrlexec.agent.enrolment import CONNECT_SECONDS, Enrolment
from ctrlexec.agent.policy import Overrides, Policy, load_policy
from ctrlexec.agent.resource import AgentResource
from ctrlexec.agent.runs import ScriptRunner
from ctrlexec.agent.settings import DEFAULT_FILE, AgentSettings
from ctrlexec.errors import CtrlExecError, InvalidValue, PkiError
from ctrlexec.events import (
    AgentStarted,
    AgentStopped,
    Reloaded,
    ReloadFailed,
    SettingsWarned,
)
from ctrlexec.foreground import end_in_words, leave
from ctrlexec.interfaces import IEventSink
from ctrlexec.process import small_environment
from ctrlexec.protocol.limits import REQUEST_BODY_BYTES
from ctrlexec.protocol.listening import ListeningService, tls_endpoint
from ctrlexec.protocol.server import ServerFactory
from ctrlexec.settings import SettingsWarning
from ctrlexec.sinks import open_sink
from ctrlexec.tls import Credentials, mutual_server, pairing_client
from ctrlexec.values import HostPort, openssl_time, port_number

PROGRAM = "ctrl-exec-agent"
#: The exit status that says: to start again is of no use before somebody has
#: mended the configuration or paired the agent (C{EX_CONFIG}).
CONFIGURATION = 78


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
    events = open_sink(str(settings.log), PROGRAM, _now, sys.stderr)
    credentials = _credentials(settings)
    resource = AgentResource(
        policy,
        _runner(reactor, settings),
        events,
        openssl_time(credentials.info.not_after),
        _now,
    )
    listening = ListeningService(
        tls_endpoint(
            reactor,
            settings.bind,
            settings.port,
            mutual_server(credentials),
            resource.admits,
        ),
        ServerFactory(reactor, resource, REQUEST_BODY_BYTES),
        f"port {settings.port}" + (f" of {settings.bind}" if settings.bind else ""),
        lambda port: events.emit(AgentStarted(port)),
    )
    _warn(events, warnings)
    return AgentService(reactor, listening, resource, events, file, overrides)


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
        open_sink(str(settings.log), PROGRAM, _now, sys.stderr),
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
    An agent that listens, and reads its settings again on C{SIGHUP}.
    """

    reactor: Any
    listening: ListeningService
    resource: AgentResource
    events: IEventSink
    file: Path
    overrides: Overrides
    _previous: Any = attrs.field(default=None, init=False)

    def privilegedStartService(self) -> None:
        """
        @raise ListenError: the port can not be opened.
        """
        self.listening.privilegedStartService()

    def startService(self) -> None:
        super().startService()
        self._previous = signal.signal(
            signal.SIGHUP, lambda *_: self.reactor.callFromThread(self.reload)
        )
        self.listening.startService()

    def stopService(self) -> Deferred[object]:
        super().stopService()
        signal.signal(signal.SIGHUP, self._previous or signal.SIG_DFL)
        self.events.emit(AgentStopped(self.resource.live))
        return self.listening.stopService()

    def reload(self) -> None:
        """
        Read everything again: all of it is good, or the old stays in force.
        Runs and connections go on.
        """
        try:
            policy, warnings = load_policy(self.file, self.overrides)
        except CtrlExecError as error:
            self.events.emit(ReloadFailed("failed, the old settings stay", str(error)))
            return
        _warn(self.events, (*warnings, *_frozen(self.resource.policy, policy)))
        self.resource.policy = policy
        self.resource.runner = _runner(self.reactor, policy.settings)
        self.events.emit(Reloaded("ok", len(policy.allowlist.scripts)))


def _frozen(old: Policy, new: Policy) -> tuple[str, ...]:
    """
    What has changed and takes a restart.
    """
    return tuple(
        f"{key} has changed; that needs a restart"
        for key in ("port", "bind", "cert", "key", "ca", "log")
        if getattr(old.settings, key) != getattr(new.settings, key)
    )


def _credentials(settings: AgentSettings) -> Credentials:
    identity.recover(settings)
    if not identity.is_paired(settings):
        raise PkiError(
            "this agent is not paired",
            hint="ctrl-exec-agent request-pairing --dispatcher HOST",
        )
    return identity.identity(settings).load()


def _runner(reactor: Any, settings: AgentSettings) -> ScriptRunner:
    return ScriptRunner(
        reactor,
        stdin_timeout=settings.stdin_timeout,
        max_output=settings.max_output,
        env=small_environment(os.environ),
    )


def _warn(events: IEventSink, warnings: tuple[SettingsWarning | str, ...]) -> None:
    for warning in warnings:
        events.emit(SettingsWarned(str(warning)))


def _now() -> datetime:
    return datetime.now(timezone.utc)
