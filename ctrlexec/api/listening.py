# SPDX-License-Identifier: AGPL-3.0-only
"""
All the places where the API can be reached.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IStreamServerEndpoint

from ctrlexec.api.app import Api
from ctrlexec.api.http import ApiSite
from ctrlexec.api.operator import OperatorResource
from ctrlexec.api.sockets import Renewable, UnixEndpoint
from ctrlexec.api.work import Share
from ctrlexec.dispatcher.settings import DispatcherSettings
from ctrlexec.events import ApiStarted
from ctrlexec.interfaces import IEventSink
from ctrlexec.protocol.listening import ListeningService, tcp_endpoint, tls_endpoint
from ctrlexec.tls import api_server


@attrs.frozen
class Sockets:
    """
    Where the API can be reached.

    @ivar tls: what HTTPS shows; C{None} for HTTP.
    """

    listening: tuple[ListeningService, ...]
    sites: tuple[ApiSite, ...]
    tls: Renewable | None

    def open(self) -> None:
        """
        @raise ListenError: one of them can not be opened; none is.
        """
        opened: list[ListeningService] = []
        try:
            for each in self.listening:
                each.privilegedStartService()
                opened.append(each)
        except BaseException:
            for each in opened:
                each.stopService()
            raise

    def start(self) -> None:
        """
        Say that they are open.
        """
        for each in self.listening:
            each.startService()

    def close(self) -> Deferred[Any]:
        """
        Take no more connections; those that are open get the answer that they
        are owed.

        @return: fires when none is open any more.
        """
        waiting: list[Deferred[Any]] = [each.stopService() for each in self.listening]
        waiting += [site.finish() for site in self.sites]
        return DeferredList(waiting, consumeErrors=True)

    def abort(self) -> None:
        """
        Close what is open.
        """
        for site in self.sites:
            site.abort_all()


def sockets_of(reactor: Any, api: Api, operators: Share) -> Sockets:
    """
    @param operators: what is done for the command lines of this host.
    @return: all that the settings name; none is open yet.
    @raise PkiError: the certificate for HTTPS can not be used.
    """
    settings = api.dispatcher.settings
    tls = tls_of(settings)
    resource = api.app.resource()
    listening, sites = [], []
    for bind in settings.api_bind:
        is_unix = isinstance(bind, Path)
        site = ApiSite(
            resource,
            reactor,
            api.dispatcher.events,
            api.dispatcher.process.in_thread,
            # Who they are is known there only.
            OperatorResource(api, operators) if is_unix else None,
        )
        sites.append(site)
        listening.append(
            ListeningService(
                _endpoint(reactor, settings, bind, tls),
                site,
                spelled(settings, bind),
                partial(
                    _started,
                    api.dispatcher.events,
                    f"unix:{bind}" if is_unix else str(bind),
                    "on" if tls is not None and not is_unix else "off",
                ),
            )
        )
    return Sockets(tuple(listening), tuple(sites), tls)


def _endpoint(
    reactor: Any,
    settings: DispatcherSettings,
    bind: str | Path,
    tls: Renewable | None,
) -> IStreamServerEndpoint:
    if isinstance(bind, Path):
        return UnixEndpoint(reactor, bind, settings.api_group)
    if tls is None:
        return tcp_endpoint(reactor, bind, settings.api_port)
    return tls_endpoint(reactor, bind, settings.api_port, tls)


def spelled(settings: DispatcherSettings, bind: str | Path) -> str:
    """
    A place to listen at, for people.
    """
    if isinstance(bind, Path):
        return f"unix:{bind}"
    return f"port {settings.api_port}" + (f" of {bind}" if bind else "")


def _started(events: IEventSink, bind: str, tls: str, port: int) -> None:
    events.emit(ApiStarted(port, bind, tls))


def tls_of(settings: DispatcherSettings) -> Renewable | None:
    """
    @return: what HTTPS shows of itself; C{None} for HTTP.
    @raise PkiError: it can not be used.
    """
    if settings.api_key is None or settings.api_cert is None:
        return None
    return Renewable(api_server(settings.api_key, settings.api_cert))
