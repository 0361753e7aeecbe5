# SPDX-License-Identifier: AGPL-3.0-only
"""
Where the API listens: with a certificate that can be renewed, and on a unix
socket, a file that its group may use, and nobody else at no moment of its life.
"""

from __future__ import annotations

import grp
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
from OpenSSL import SSL
from twisted.internet.defer import Deferred, execute, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from ctrlexec.errors import ListenError
from ctrlexec.protocol.listening import BACKLOG
from ctrlexec.tls import ServerConnections

#: Who may use the socket: its owner, and its group.
MODE = 0o660
_DIRECTORY_MODE = 0o750
#: Where directories are gone after each start of the machine.
_VOLATILE = (Path("/run"), Path("/var/run"))


@implementer(IOpenSSLServerConnectionCreator)
@attrs.define
class Renewable:
    """
    What HTTPS shows of itself from the next connection on.
    """

    current: ServerConnections

    def serverConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        """
        See L{IOpenSSLServerConnectionCreator}.
        """
        return self.current.serverConnectionForTLS(tlsProtocol)


@implementer(IStreamServerEndpoint)
@attrs.frozen
class UnixEndpoint:
    """
    A socket that C{ctrl-exec} connects to.

    @ivar reactor: with C{IReactorUNIX}.
    @ivar group: the name of the group that may connect.
    """

    reactor: Any
    path: Path
    group: str

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        @return: fails with a L{ListenError} where it can not be opened.
        """
        return execute(self._listen, factory)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        with _in_words():
            gid = _group_id(self.group)
            _make_directory(self.path.parent, gid)
            _clear(self.path)
            port = self._bind(factory)
        try:
            with _in_words():
                _give(self.path, gid)
                self.path.chmod(MODE)
        except ListenError:
            port.stopListening()
            raise
        return _UnixPort(port)

    def _bind(self, factory: IProtocolFactory) -> IListeningPort:
        """
        Nobody else can connect before it is the group's.
        """
        before = os.umask(0o177)
        try:
            port: IListeningPort = self.reactor.listenUNIX(
                str(self.path), factory, backlog=BACKLOG, mode=0o600
            )
        finally:
            os.umask(before)
        return port


@implementer(IListeningPort)
@attrs.frozen
class _UnixPort:
    """
    A socket whose file somebody may have removed.
    """

    port: IListeningPort

    def startListening(self) -> None:
        self.port.startListening()

    def stopListening(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        with suppress(FileNotFoundError):
            await maybeDeferred(self.port.stopListening)

    def getHost(self) -> IAddress:
        return self.port.getHost()


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except CannotListenError as error:
        raise ListenError(str(error.socketError.strerror)) from error
    except OSError as error:
        raise ListenError(error.strerror or str(error)) from error


def _group_id(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ListenError(f"there is no group {name!r}, see api_group") from None


def _make_directory(directory: Path, gid: int) -> None:
    """
    Elsewhere it is for whoever has chosen the place.
    """
    if directory.parent in _VOLATILE and not directory.exists():
        directory.mkdir(_DIRECTORY_MODE)
        _give(directory, gid)


def _clear(path: Path) -> None:
    """
    Remove the socket of an API that has died.

    @raise ListenError: somebody listens there, or it is something else.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListenError("there is something that is no socket")
    if _is_alive(path):
        raise ListenError("somebody listens there")
    with suppress(FileNotFoundError):
        path.unlink()


def _is_alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            # It listens, and has no time for us.
            return True
        except FileNotFoundError:
            return False
    return True


def _give(path: Path, gid: int) -> None:
    if path.stat().st_gid == gid:
        return
    try:
        os.chown(path, -1, gid)
    except PermissionError:
        name = grp.getgrgid(gid).gr_name
        raise ListenError(
            f"it can not be given to the group {name!r}, of which we are no member"
        ) from None
