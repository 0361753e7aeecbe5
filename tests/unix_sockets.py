# SPDX-License-Identifier: AGPL-3.0-only
"""
Real unix sockets, on a reactor in memory.
"""

from __future__ import annotations

import grp
import os
import shutil
import tempfile
from pathlib import Path

from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.internet.unix import Port
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.api.sockets import UnixEndpoint
from ctrlexec.errors import ListenError

GROUP = grp.getgrgid(os.getegid()).gr_name


class UnixReactor(MemoryReactorClock):
    """
    A reactor in memory whose unix sockets are real ones. It reads of them what
    a test tells it to.
    """

    def listenUNIX(
        self,
        address: str,
        factory: Factory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> IListeningPort:
        """
        Bind.
        """
        port = Port(address.encode(), factory, backlog, mode, self)
        port.startListening()
        return port

    def turn(self) -> None:
        """
        Whoever has something to read reads it.
        """
        for reader in self.getReaders():
            reader.doRead()
        for writer in self.getWriters():
            writer.doWrite()


class SocketCase(SynchronousTestCase):
    """
    Has a directory whose name is short enough for a socket's path.
    """

    def setUp(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix="ctrl-exec-"))
        self.addCleanup(shutil.rmtree, directory)
        self.path = directory / "api.sock"
        self.sockets = UnixReactor()

    def endpoint(self, group: str = GROUP) -> UnixEndpoint:
        """
        Where nobody listens yet.
        """
        return UnixEndpoint(self.sockets, self.path, group)

    def listening(self, factory: IProtocolFactory | None = None) -> IListeningPort:
        """
        A socket that is open.
        """
        factory = factory or Factory.forProtocol(Protocol)
        port = self.successResultOf(self.endpoint().listen(factory))
        self.addCleanup(self.close, port)
        return port

    def close(self, port: IListeningPort) -> None:
        """
        Close it, if it is open.
        """
        port.stopListening()
        self.sockets.advance(0)

    def refused(self, group: str = GROUP) -> str:
        """
        Why a socket can not be opened.
        """
        failed = self.endpoint(group).listen(Factory.forProtocol(Protocol))
        return str(self.failureResultOf(failed, ListenError).value)
