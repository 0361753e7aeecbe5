# SPDX-License-Identifier: AGPL-3.0-only
"""
The pairing listener as a service: C{twistd ctrl-exec-pairing}.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import attrs
from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.usage import Options as BaseOptions
from twisted.python.usage import UsageError

from ctrlexec.dispatcher.joining import Doorkeeper
from ctrlexec.dispatcher.pairing import PairingListener
from ctrlexec.dispatcher.pairing_gate import PairingGate
from ctrlexec.dispatcher.queue import FilePairingQueue
from ctrlexec.dispatcher.reverse_dns import ReverseNames
from ctrlexec.dispatcher.settings import DEFAULT_FILE, DispatcherSettings
from ctrlexec.dispatcher.surroundings import UNWATCHED, PairingWatcher, World
from ctrlexec.errors import CtrlExecError, InvalidValue
from ctrlexec.events import (
    PairingClosed,
    PairingOpened,
    SettingsWarned,
)
from ctrlexec.foreground import end_in_words, leave
from ctrlexec.interfaces import IEventSink
from ctrlexec.protocol.limits import PAIRING_BODY_BYTES
from ctrlexec.protocol.listening import ListeningService, tls_endpoint
from ctrlexec.protocol.server import ServerFactory
from ctrlexec.rates import RateLimits
from ctrlexec.settings import load_settings
from ctrlexec.sinks import open_sink
from ctrlexec.tls import Credentials, Identity, pairing_server
from ctrlexec.values import is_ip_address, port_number

PROGRAM = "ctrl-exec-dispatcher"
#: The exit status that says: to start again is of no use before somebody has
#: mended the configuration (C{EX_CONFIG}).
CONFIGURATION = 78


class Options(BaseOptions):
    """
    What C{twistd ctrl-exec-pairing} takes.
    """

    longdesc = "Takes the requests of new agents and waits for a person's decision."
    optParameters: ClassVar = [
        ["config", "c", str(DEFAULT_FILE), "The dispatcher's settings."],
        ["port", "p", None, "The port to listen on, in place of the setting."],
        ["bind", "b", None, "The address to listen on, in place of the setting."],
    ]

    def postOptions(self) -> None:
        """
        @raise UsageError: an option is not what it should be.
        """
        try:
            port = port_number(self["port"]) if self["port"] else None
        except InvalidValue as error:
            raise UsageError(str(error)) from None
        if self["bind"] and not is_ip_address(self["bind"]):
            raise UsageError("--bind takes an IPv4 or IPv6 address")
        self.overrides = {"pairing_port": port, "pairing_bind": self["bind"]}


def makeService(options: Options) -> IService:
    """
    For C{twistd}: a service on the global reactor.

    @raise SystemExit: with status 78 and a line that says why.
    """
    from twisted.internet import reactor

    end_in_words()
    try:
        settings, warnings = load_settings(DispatcherSettings, Path(options["config"]))
        given = {k: v for k, v in options.overrides.items() if v is not None}
        settings = attrs.evolve(settings, **given)
        log, later = str(settings.log), reactor.callLater
        events = open_sink(log, PROGRAM, _now, sys.stderr, later)
        for warning in warnings:
            events.emit(SettingsWarned(str(warning)))
        return pairing_service(reactor, settings, events, _now)
    except CtrlExecError as error:
        leave(error, CONFIGURATION)


def pairing_service(
    reactor: Any,
    settings: DispatcherSettings,
    events: IEventSink,
    now: Callable[[], datetime],
    watcher: PairingWatcher = UNWATCHED,
) -> PairingService:
    """
    @param reactor: a real one, or all that a test needs of one.
    @param watcher: told about each request that waits.
    @raise PkiError: the dispatcher has no identity that can be used.
    """
    in_thread = partial(deferToThreadPool, reactor, reactor.getThreadPool())
    credentials = _credentials(settings)
    doorkeeper = Doorkeeper.of(settings, events, now)
    doorkeeper.report()
    names = ReverseNames(reactor, reactor)
    listener = PairingListener(
        World(reactor, now, in_thread, names, doorkeeper.decide),
        FilePairingQueue.of(settings),
        events,
        credentials,
        watcher,
    )
    gate = PairingGate(settings, events, RateLimits(events, time.monotonic))
    return compose(reactor, settings, listener, gate)


def compose(
    reactor: Any,
    settings: DispatcherSettings,
    listener: PairingListener,
    gate: PairingGate,
) -> PairingService:
    """
    Put a listener on its port, behind its gate.
    """
    factory = ServerFactory(
        reactor,
        listener,
        PAIRING_BODY_BYTES,
        old_style=True,
        refusal=listener.refusal,
    )

    def admits(address: str) -> bool:
        return gate.admits(address, factory.connections)

    credentials = listener.credentials
    bind, port = settings.pairing_bind, settings.pairing_port
    service: PairingService
    listening = ListeningService(
        tls_endpoint(reactor, bind, port, pairing_server(credentials), admits),
        factory,
        f"port {port}" + (f" of {bind}" if bind else ""),
        lambda port: service.opened(port),
    )
    service = PairingService(listening, factory, listener)
    return service


@attrs.define(eq=False)
class PairingService(Service):
    """
    An open pairing port.

    @ivar port: its number, once it is open.
    """

    listening: ListeningService
    factory: ServerFactory
    listener: PairingListener
    port: int = attrs.field(default=0, init=False)

    def opened(self, port: int) -> None:
        """
        The port is open.
        """
        self.port = port
        self.listener.events.emit(PairingOpened(port))

    def privilegedStartService(self) -> None:
        """
        @raise ListenError: the port can not be opened.
        """
        self.listening.privilegedStartService()

    def startService(self) -> None:
        super().startService()
        self.listening.startService()

    def stopService(self) -> Deferred[None]:
        """
        @return: fires when no request of this listener waits any more.
        """
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self.listening.stopService()
        await self.listener.stop()
        self.factory.abort_all()
        self.listener.events.emit(PairingClosed())


def _credentials(settings: DispatcherSettings) -> Credentials:
    return Identity(settings.key, settings.cert, settings.ca).load()


def _now() -> datetime:
    return datetime.now(timezone.utc)
