# SPDX-License-Identifier: AGPL-3.0-only
"""
Command lines in the hands of a test, which come to an API through its unix
socket.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

import attrs
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred

from ctrlexec.api.http import ApiSite
from ctrlexec.api.operator import OperatorResource
from ctrlexec.api.work import Share
from ctrlexec.dispatcher.operator import Wish, encode_request
from ctrlexec.dispatcher.operator_lines import Failed, read_line
from ctrlexec.dispatcher.orders import Caller, RunOrder, Selection
from ctrlexec.protocol.messages import RunAnswer, RunFinished
from tests.apis import ApiCase, PlainTransport, Wire, asking

#: One that no system has a name for.
SOMEBODY = 3_999_999_999
KNOWN_AS = f"uid:{SOMEBODY}"
BOTH = Selection(("web-1", "web-2"))
BACKUP = RunOrder(selection=BOTH, script="backup")


@attrs.frozen
class Credentials:
    """
    A socket, as far as it tells who is at its other end.
    """

    uid: int

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        """
        See C{unix(7)}.
        """
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_PEERCRED)
        return struct.pack("iII", 1, self.uid, self.uid)


class UnixTransport(PlainTransport):
    """
    The end of a connection through a unix socket.
    """

    def __init__(self, uid: int) -> None:
        here = UNIXAddress(b"/run/ctrl-exec/api.sock")
        super().__init__(hostAddress=here, peerAddress=UNIXAddress(None))
        self.socket = Credentials(uid)


class OperatorCase(ApiCase):
    """
    Has an API with a unix socket, of a dispatcher that has no hook, and would
    deny the API everything.
    """

    settings = ""

    def setUp(self) -> None:
        super().setUp()
        self.site = ApiSite(
            self.api.app.resource(),
            self.reactor,
            self.dispatcher.events,
            self.dispatcher.process.in_thread,
            OperatorResource(self.api, Share(self.work, self.streams)),
        )

    def through_socket(self, uid: int = SOMEBODY) -> Wire:
        """
        A connection of this user's.
        """
        channel = self.site.buildProtocol(UNIXAddress(None))
        assert channel is not None
        transport = UnixTransport(uid)
        channel.makeConnection(transport)
        return Wire(self.site, transport, channel)

    def order(
        self,
        operation: str,
        wish: Wish,
        uid: int = SOMEBODY,
        *,
        room: int = 10**9,
        minor: int = 0,
    ) -> Wire:
        """
        A command line that has asked for something.

        @param room: how much of the answer it reads at once.
        """
        body = encode_request(Caller(username="ann", token="t0ken"), wish)
        wire = self.through_socket(uid)
        wire.transport.room = room
        return wire.send(asking("POST", f"/operator/{operation}", body, minor=minor))

    def told(self, wire: Wire) -> list[Any]:
        """
        What the lines since the last time say; the head of the answer is none.
        """
        data = wire.transport.value()
        wire.transport.clear()
        if data.startswith(b"HTTP/1.0 "):
            head, _, data = data.partition(b"\r\n\r\n")
            self.assertTrue(head.startswith(b"HTTP/1.0 200 OK\r\n"), head)
            self.assertIn(b"application/x-ndjson", head)
        self.assertTrue(data.endswith(b"\n") or not data, data)
        return [read_line(line) for line in data.splitlines()]

    def answer(self, operation: str, wish: Wish, uid: int = SOMEBODY) -> list[Any]:
        """
        All that is said of an order that is carried out at once.
        """
        wire = self.order(operation, wish, uid)
        told = self.told(wire)
        self.assertTrue(wire.transport.half_closed)
        wire.leave()
        return told

    def late(self, *names: str) -> list[Deferred[RunAnswer]]:
        """
        The answers of agents that take their time.
        """
        answers: list[Deferred[RunAnswer]] = [Deferred() for _ in names]
        self.agents.answers = dict(zip(names, answers, strict=True))
        return answers

    def finished(self, name: str) -> RunFinished:
        """
        What an agent answers in the end.
        """
        (asked,) = [run for target, run in self.agents.asked if target.name == name]
        assert asked is not None
        return RunFinished("backup", 0, f"{name}\n", "", asked.reqid)

    def assertFailed(self, told: list[Any], kind: type[Exception], words: str) -> None:
        """
        The last that is said is that it failed, and why.
        """
        match told:
            case [*_, Failed(error)]:
                self.assertIs(type(error), kind)
                self.assertEqual(str(error), words)
            case _:
                self.fail(f"{told}")
