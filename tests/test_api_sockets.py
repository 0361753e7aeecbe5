# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of the API's unix socket, which is a real one here.
"""

from __future__ import annotations

import os
import socket
import stat
from typing import Any

from twisted.internet.interfaces import (
    IListeningPort,
    IStreamServerEndpoint,
)
from twisted.internet.unix import Server
from zope.interface.verify import verifyObject

from ctrlexec.api.callers import user_name
from ctrlexec.api.http import ApiSite
from ctrlexec.api.operator import OperatorResource
from ctrlexec.api.sockets import MODE
from ctrlexec.api.work import Share
from tests.apis import ApiCase, asking, replies
from tests.dispatching import at_once
from tests.unix_sockets import SocketCase


class UnixTests(SocketCase):
    """
    L{UnixEndpoint}
    """

    def test_interface(self) -> None:
        """
        It is an endpoint, and gives ports.
        """
        verifyObject(IStreamServerEndpoint, self.endpoint())
        verifyObject(IListeningPort, self.listening())

    def test_mode(self) -> None:
        """
        Owner and group may use it, whatever the umask is, which stays.
        """
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        for mask in (0o000, 0o077):
            os.umask(mask)
            port = self.listening()
            about = self.path.stat()
            self.assertEqual(stat.S_IMODE(about.st_mode), MODE)
            self.assertEqual(about.st_gid, os.getegid())
            self.assertEqual(os.umask(mask), mask)
            self.close(port)

    def test_neverWider(self) -> None:
        """
        Before it is the group's it is for nobody but its owner.
        """
        modes: list[int] = []
        bind = self.sockets.listenUNIX

        def listen(address: str, *rest: object, **how: object) -> IListeningPort:
            port = bind(address, *rest, **how)  # type: ignore[arg-type]
            modes.append(stat.S_IMODE(os.stat(address).st_mode))
            return port

        self.sockets.listenUNIX = listen  # type: ignore[method-assign]
        self.listening()
        self.assertEqual(modes, [0o600])

    def test_removed(self) -> None:
        """
        Its file is gone when it is closed, even if somebody was faster.
        """
        port = self.listening()
        self.close(port)
        self.assertFalse(self.path.exists())
        port = self.listening()
        self.path.unlink()
        stopped = port.stopListening()
        self.sockets.advance(0)
        assert stopped is not None
        self.successResultOf(stopped)

    def test_stale(self) -> None:
        """
        The socket of somebody who has died is replaced.
        """
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(self.path))
        self.assertTrue(stat.S_ISSOCK(self.path.stat().st_mode))
        self.listening()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.path))

    def test_alive(self) -> None:
        """
        That of somebody who lives is not, even if they have no time.
        """
        with socket.socket(socket.AF_UNIX) as alive:
            alive.bind(str(self.path))
            alive.listen(0)
            busy = [socket.socket(socket.AF_UNIX) for _ in range(3)]
            for each in busy:
                self.addCleanup(each.close)
                each.setblocking(False)
                self.assertEqual(self.refused(), "somebody listens there")
                each.connect_ex(str(self.path))
        self.assertTrue(self.path.exists())

    def test_noSocket(self) -> None:
        """
        What is no socket is not replaced, either.
        """
        self.path.write_text("mine")
        self.assertEqual(self.refused(), "there is something that is no socket")
        self.assertEqual(self.path.read_text(), "mine")

    def test_group(self) -> None:
        """
        Without its group there is no socket.
        """
        self.assertEqual(
            self.refused("no-such-group"),
            "there is no group 'no-such-group', see api_group",
        )
        self.assertFalse(self.path.exists())

    def test_directory(self) -> None:
        """
        A directory that is missing is for whoever has chosen the place.
        """
        self.path = self.path.parent / "missing" / "api.sock"
        self.assertEqual(self.refused(), "No such file or directory")


class KnownTests(SocketCase, ApiCase):
    """
    An API behind a real unix socket.
    """

    def setUp(self) -> None:
        ApiCase.setUp(self)
        SocketCase.setUp(self)
        site = ApiSite(
            self.api.app.resource(),
            self.reactor,
            self.dispatcher.events,
            at_once,
            OperatorResource(self.api, Share(self.work, self.streams)),
        )
        self.listening(site)
        self.client = socket.socket(socket.AF_UNIX)
        self.client.settimeout(5)
        self.addCleanup(self.client.close)
        self.client.connect(str(self.path))
        self.addCleanup(site.abort_all)

    def told(self, request: bytes) -> bytes:
        """
        What is answered to a request.
        """
        self.client.sendall(request)
        for _ in range(3):
            self.sockets.turn()
        return self.client.recv(1_000_000)

    def test_user(self) -> None:
        """
        The system tells who has connected; it is in the log, and without a
        claim it is whose order it was.
        """
        order = {"hosts": ["web-1"], "script": "backup"}
        (reply,) = replies(self.told(asking("POST", "/run", order)))
        self.assertEqual(reply.status, 200)
        name = user_name(os.getuid())
        (line,) = self.logged("api-request")
        self.assertTrue(line.endswith(f"PEER=127.0.0.1 STATUS=200 USER={name}"), line)
        stored = self.dispatcher.stores.runs.get(reply.json()["reqid"], 0)
        assert stored.submitter is not None
        self.assertEqual(stored.submitter.username, name)

    def test_operators(self) -> None:
        """
        The command lines of this host have their own way in; only here.
        """
        request = asking(
            "POST", "/operator/select", {"selection": {"words": ["web-*"]}}
        )
        (reply,) = replies(self.told(request))
        self.assertEqual(reply.fields["content-type"], "application/x-ndjson")
        self.assertIn(b"web-2", reply.body)
        self.assertEqual(self.ask("POST", "/operator/select", {}).status, 404)

    def test_unknown(self) -> None:
        """
        Whom the system does not tell of gets nothing.
        """
        for reader in self.sockets.getReaders():
            reader.doRead()
        (server,) = (r for r in self.sockets.getReaders() if isinstance(r, Server))

        real: Any = server.socket

        class Mute:
            def getsockopt(self, *which: int) -> bytes:
                raise OSError(92, "Protocol not available")

            def __getattr__(self, name: str) -> object:
                return getattr(real, name)

        server.socket = Mute()  # type: ignore[assignment]
        server.protocol.dataReceived(asking("GET", "/health"))
        server.doWrite()
        (reply,) = replies(self.client.recv(65_536))
        self.assertEqual(
            (reply.status, reply.body),
            (
                403,
                b'{"ok":false,"error":"the system does not say who is there","code":1}',
            ),
        )
