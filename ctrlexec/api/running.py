# SPDX-License-Identifier: AGPL-3.0-only
"""
The API while it runs: what it is made of, how it is reloaded, and how it ends.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from ctrlexec.api.agents import KeptAgents
from ctrlexec.api.app import Api
from ctrlexec.api.http import in_words
from ctrlexec.api.listening import Sockets, sockets_of, spelled, tls_of
from ctrlexec.api.metrics import Counting, Metrics
from ctrlexec.api.service import PROGRAM
from ctrlexec.api.source import Overrides, Source
from ctrlexec.api.sweeping import swept
from ctrlexec.api.work import Share
from ctrlexec.dispatcher.live_orders import LiveOrders
from ctrlexec.dispatcher.operations import Dispatcher, Process
from ctrlexec.dispatcher.settings import DispatcherSettings
from ctrlexec.errors import CtrlExecError
from ctrlexec.events import (
    ApiFailed,
    ApiReloaded,
    ApiStopped,
    ReloadFailed,
    SettingsWarned,
)
from ctrlexec.interfaces import IEventSink
from ctrlexec.settings import SettingsWarning
from ctrlexec.sinks import open_sink
from ctrlexec.systemd import Supervision

#: How often results that are over a day old are removed.
SWEEP_SECONDS = 600.0
#: What a stop may take beyond what agents may take to answer.
STOPPING_SECONDS = 10.0
#: How long clients may take to read their answers when all work is done.
READ_SECONDS = 5.0
_KEPT = "failed, the old settings stay"


def api_service(reactor: Any, file: Path, overrides: Overrides) -> ApiService:
    """
    @param reactor: a real one, or all that a test needs of one.
    @param file: C{ctrl-exec.conf}.
    @raise CtrlExecError: the settings can not be used, or there is no identity.
    """
    source = Source(file, overrides)
    settings, warnings = source.read()
    metrics = Metrics()
    sink = open_sink(str(settings.log), PROGRAM, _now, sys.stderr)
    events = Counting(sink, metrics)
    _warn(events, warnings)

    def failed(fault: Failure) -> None:
        events.emit(ApiFailed("-", "-", in_words(fault)))

    most = settings.api_max_children
    operators = Share.of(reactor, most, failed)
    strangers = Share.of(reactor, most, failed)
    api = Api(
        _dispatcher(reactor, settings, events, LiveOrders()),
        strangers.work,
        strangers.streams,
        metrics,
        source.is_ready,
    )
    return ApiService(
        reactor,
        api,
        operators,
        sockets_of(reactor, api, operators),
        source,
        Supervision.from_environment(reactor, os.environ),
    )


def _dispatcher(
    reactor: Any, settings: DispatcherSettings, events: IEventSink, live: LiveOrders
) -> Dispatcher:
    """
    @param live: the orders that this process carries out, before it reads its
        settings again and after.
    @raise PkiError: it has no identity that an agent would accept.
    """
    in_thread = partial(deferToThreadPool, reactor, reactor.getThreadPool())
    process = Process(
        now=_now,
        reactor=reactor,
        in_thread=in_thread,
        environ=os.environ,
        live=live,
    )
    agents = KeptAgents(settings, _now)
    agents(reactor)
    ours = Dispatcher.on_files(settings, events, process)
    return attrs.evolve(ours, agents=agents)


def _close_agents(dispatcher: Dispatcher) -> None:
    if isinstance(dispatcher.agents, KeptAgents):
        dispatcher.agents.close()


def _warn(events: IEventSink, warnings: Sequence[SettingsWarning | str]) -> None:
    for warning in warnings:
        events.emit(SettingsWarned(str(warning)))


def _now() -> datetime:
    return datetime.now(timezone.utc)


@attrs.define(eq=False)
class ApiService(Service):
    """
    An API that listens, reads its settings again on C{SIGHUP}, and carries out
    what it has begun before it ends.

    @ivar operators: what it does for the command lines of its host. That many
        strangers ask for something keeps no operator out.
    """

    reactor: Any
    api: Api
    operators: Share
    sockets: Sockets
    source: Source
    supervision: Supervision
    _sweeping: LoopingCall | None = attrs.field(default=None, init=False)
    _previous: dict[int, Any] = attrs.field(factory=dict, init=False)
    _started: DispatcherSettings = attrs.field(init=False)

    @_started.default
    def _of_the_start(self) -> DispatcherSettings:
        return self.api.dispatcher.settings

    def privilegedStartService(self) -> None:
        """
        @raise ListenError: a socket can not be opened.
        """
        self.sockets.open()

    def startService(self) -> None:
        super().startService()
        self._on_signal(self.reload, signal.SIGHUP)
        self.sockets.start()
        self._sweeping = LoopingCall(lambda: Deferred.fromCoroutine(self._sweep()))
        self._sweeping.clock = self.reactor
        self._sweeping.start(SWEEP_SECONDS)
        self.supervision.start(self._in_force())

    # --- the end ---------------------------------------------------------

    def stopService(self) -> Deferred[None]:
        """
        Take no more requests, and carry out those that there are: for as long
        as an agent may take to answer, or until another C{SIGTERM} or
        C{SIGINT}. Scripts that take longer go on, and nobody hears of them.
        """
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        settings, shares = self.api.dispatcher.settings, self._shares()
        works = [share.work for share in shares]
        seconds = settings.connect_timeout + settings.read_timeout
        under_way = sum(map(len, works))
        self.supervision.notifier.stopping(
            f"Waits for {under_way} requests", seconds + STOPPING_SECONDS
        )
        ending = [work.finish(seconds) for work in works]
        # Whoever only looks on comes again, to whoever comes after us.
        for share in shares:
            share.streams.end()
        closing = self.sockets.close()

        def end() -> None:
            for each in (*ending, closing):
                each.cancel()

        self._on_signal(end, signal.SIGTERM, signal.SIGINT)
        left = 0
        for each in ending:
            left += await each
        # What is done is to be read, too; but nobody is waited for long.
        closing.addTimeout(READ_SECONDS, self.reactor)
        with suppress(CancelledError, DeferredTimeoutError):
            await closing
        self.api.dispatcher.events.emit(ApiStopped(left))
        self._put_away()

    def _put_away(self) -> None:
        self.sockets.abort()
        _close_agents(self.api.dispatcher)
        if self._sweeping is not None and self._sweeping.running:
            self._sweeping.stop()
        self.supervision.stop()
        while self._previous:
            signal.signal(*self._previous.popitem())

    def _on_signal(self, act: Callable[[], None], *numbers: int) -> None:
        for number in numbers:
            previous = signal.signal(
                number, lambda *_: self.reactor.callFromThread(act)
            )
            self._previous.setdefault(number, previous or signal.SIG_DFL)

    # --- meanwhile -------------------------------------------------------

    def reload(self) -> None:
        """
        Read the settings again: all of them are good, or the old stay in force.
        What is under way goes on as it was begun.
        """
        if not self.running:
            return
        self.supervision.notifier.reloading()
        events = self.api.dispatcher.events
        try:
            self._reload(events)
            events.emit(ApiReloaded("ok"))
        except CtrlExecError as error:
            events.emit(ReloadFailed(_KEPT, str(error)))
        except Exception as error:
            # A fault of ours; what was in force stays here, too, and says so.
            events.emit(ReloadFailed(_KEPT, f"internal error: {error!r}"))
        finally:
            self.supervision.notifier.ready(self._in_force())

    def _reload(self, events: IEventSink) -> None:
        settings, warnings = self.source.read()
        live = self.api.dispatcher.process.live
        dispatcher = _dispatcher(self.reactor, settings, events, live)
        tls = tls_of(settings)
        _warn(events, (*warnings, *_frozen(self._started, settings)))
        if self.sockets.tls is not None and tls is not None:
            self.sockets.tls.current = tls.current
        _close_agents(self.api.dispatcher)
        self.api.dispatcher = dispatcher
        for share in self._shares():
            share.allow(settings.api_max_children)

    def _shares(self) -> tuple[Share, Share]:
        return Share(self.api.work, self.api.streams), self.operators

    async def _sweep(self) -> None:
        await swept(self.api.dispatcher)

    def _in_force(self) -> str:
        binds = self._started.api_bind
        where = (spelled(self._started, bind) for bind in binds)
        return f"Listens on {', '.join(where)}"


def _frozen(started: DispatcherSettings, new: DispatcherSettings) -> tuple[str, ...]:
    """
    What has changed since the API was started, and takes a restart.
    """
    changed = [
        key
        for key in ("api_port", "api_bind", "api_group", "log")
        if getattr(started, key) != getattr(new, key)
    ]
    if (started.api_cert is None) != (new.api_cert is None):
        changed.append("api_cert")
    return tuple(f"{key} has changed; that needs a restart" for key in changed)
