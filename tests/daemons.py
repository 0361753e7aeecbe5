# SPDX-License-Identifier: AGPL-3.0-only
"""
A daemon of the machine, as far as our messages to it go.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase


class DaemonTestCase(SynchronousTestCase):
    """
    Has a socket that takes datagrams.

    @ivar address: its path; a test's own directory is too deep for one.
    """

    def setUp(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix="ctrl-exec-"))
        self.addCleanup(shutil.rmtree, directory)
        self.address = str(directory / "socket")
        self.daemon = self.listen(self.address)

    def listen(self, address: str) -> socket.socket:
        """
        Open a socket.
        """
        daemon = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(daemon.close)
        daemon.bind(address)
        daemon.setblocking(False)
        return daemon

    def taken(self) -> list[bytes]:
        """
        The datagrams since the last time.
        """
        found = []
        while True:
            try:
                found.append(self.daemon.recv(65_536))
            except BlockingIOError:
                return found

    def told(self) -> list[list[str]]:
        """
        The same as lines of text.
        """
        return [message.decode().split("\n") for message in self.taken()]
