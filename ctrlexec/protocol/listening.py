# SPDX-License-Identifier: AGPL-3.0-only
"""
Ports that are open for as long as a service runs, or say why they are not.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import (
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    wrapServerTLS,
)
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IReactorTCP,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from ctrlexec.errors import ListenError

#: How many connections the system may hold for us before we accept them.
BACKLOG = 512


#: Whether a connection from an address may go on to its handshake.
Admission = Callable[[str], bool]


def tls_endpoint(
    reactor: IReactorTCP,
    bind: str,
    port: int,
    tls: IOpenSSLServerConnectionCreator,
    admits: Admission | None = None,
    opened: IStreamServerEndpoint | None = None,
) -> IStreamServerEndpoint:
    """
    @param bind: an address; empty for all of IPv4, and of IPv6 where the
        machine has it.
    @param port: 0 for any that is free.
    @param admits: asked about each connection before a handshake is paid for.
    @param opened: a port that is open already, in place of that address and port.
    """
    endpoint = opened or tcp_endpoint(reactor, bind, port)
    return wrapServerTLS(
        tls,
        _Guarded(endpoint, admits) if admits else endpoint,
        clock=IReactorTime(reactor),
    )


def tcp_endpoint(reactor: IReactorTCP, bind: str, port: int) -> IStreamServerEndpoint:
    if not bind:
        bind = "::" if Path("/proc/net/if_inet6").exists() else "0.0.0.0"
    family = TCP6ServerEndpoint if ":" in bind else TCP4ServerEndpoint
    return family(reactor, port, backlog=BACKLOG, interface=bind)


@implementer(IStreamServerEndpoint)
@attrs.frozen
class _Guarded:
    endpoint: IStreamServerEndpoint
    admits: Admission

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        return self.endpoint.listen(GuardedFactory(factory, self.admits))


@attrs.define(eq=False)
class GuardedFactory(Factory):
    """
    Makes a protocol for whoever may go on, and none for the others.
    """

    wrapped: IProtocolFactory
    admits: Admission

    noisy = False

    def buildProtocol(self, addr: Any) -> Any:
        if not self.admits(plain_address(addr)):
            return None
        return self.wrapped.buildProtocol(addr)


def plain_address(addr: IAddress | None) -> str:
    """
    @return: the IP address; that of an IPv4 peer reads the same on a socket
        that takes both families.
    """
    return str(getattr(addr, "host", "")).removeprefix("::ffff:")


@attrs.define(eq=False)
class ListeningService(Service):
    """
    A port, open for as long as the service runs.

    Twisted's own service for this logs a port in use as an error and goes on,
    listening on nothing; this one does not start.

    @param where: the address and port, for the error.
    @param listening: told the port number once it is open.
    """

    endpoint: IStreamServerEndpoint
    factory: IProtocolFactory
    where: str
    listening: Callable[[int], None]
    _port: IListeningPort | None = attrs.field(default=None, init=False)

    def privilegedStartService(self) -> None:
        """
        @raise ListenError: the port can not be opened.
        """
        failures: list[Failure] = []
        opening = self.endpoint.listen(self.factory)
        opening.addCallbacks(self._opened, failures.append)
        if failures:
            raise ListenError(
                f"cannot listen on {self.where}: {_why(failures[0])}",
                hint="is another one running? choose another port in the settings",
            )

    def startService(self) -> None:
        super().startService()
        assert self._port is not None
        self.listening(getattr(self._port.getHost(), "port", 0))

    def stopService(self) -> Deferred[object]:
        super().stopService()
        port, self._port = self._port, None
        return maybeDeferred(lambda: port and port.stopListening())

    def _opened(self, port: IListeningPort) -> None:
        self._port = port


def _why(failure: Failure) -> str:
    cause = getattr(failure.value, "socketError", None) or failure.value
    return getattr(cause, "strerror", None) or str(cause)
