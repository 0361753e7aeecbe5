# SPDX-License-Identifier: AGPL-3.0-only
"""
An API in the hands of a test: connections without sockets, agents without
hosts, a clock that is ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from ctrlexec.api.app import Api
from ctrlexec.api.channel import Channel
from ctrlexec.api.http import ApiRequest, ApiSite
from ctrlexec.api.metrics import Counting, Metrics
from ctrlexec.api.work import Streams, Work
from ctrlexec.dispatcher.operations import Dispatcher, Process, Stores
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.settings import DispatcherSettings
from ctrlexec.protocol.http import Body, End, Head, Parser, StatusLine
from ctrlexec.settings import read_settings
from tests.authority import NOW
from tests.dispatching import Recorder, at_once
from tests.edges import EdgeTransport
from tests.fake_agents import FakeAgents
from tests.fakes import FakeProcessReactor

CLIENT = IPv4Address("TCP", "::ffff:192.0.2.9", 999)
#: What every test's settings say: without a hook, whoever comes may.
ALLOW = "api_auth_default = allow\n"


@attrs.frozen
class Reply:
    """
    @ivar fields: the header, names in lower case.
    """

    status: int
    fields: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """
        What it says.
        """
        return json.loads(self.body)


class PlainTransport(EdgeTransport):
    """
    The end of a connection without TLS.

    @ivar half_closed: whether our side is.
    """

    half_closed = False

    def loseWriteConnection(self) -> None:
        """
        See C{ITCPTransport}.
        """
        self.half_closed = True


@attrs.define
class Wire:
    """
    A client's connection to a site.
    """

    site: ApiSite
    transport: PlainTransport
    channel: Channel

    @classmethod
    def to(cls, site: ApiSite, peer: IAddress = CLIENT) -> Wire:
        """
        A connection that has just been made.
        """
        channel = site.buildProtocol(peer)
        assert channel is not None
        transport = PlainTransport(peerAddress=peer)
        channel.makeConnection(transport)
        return cls(site, transport, channel)

    def send(self, *pieces: bytes) -> Wire:
        """
        The client says something.
        """
        for piece in pieces:
            self.channel.dataReceived(piece)
        return self

    def leave(self) -> None:
        """
        The client goes.
        """
        self.channel.connectionLost(Failure(ConnectionDone()))

    def replies(self) -> list[Reply]:
        """
        The whole answers since the last time.
        """
        data = self.transport.value()
        self.transport.clear()
        return replies(data)

    def reply(self) -> Reply:
        """
        The one of them.
        """
        (found,) = self.replies()
        return found


def replies(data: bytes) -> list[Reply]:
    """
    The answers in some bytes.
    """
    parser = Parser(StatusLine.parse, body_bytes=2**40)
    parser.feed(data)
    found: list[Reply] = []
    head: Head[StatusLine] | None = None
    body = b""
    while True:
        event = parser.next_event()
        match event:
            case None:
                break
            case Head():
                head, body = event, b""
            case Body(piece):
                body += piece
            case End.END:
                assert head is not None
                found.append(Reply(head.start.code, head.fields, body))
    assert parser.between_messages, "an answer is not complete"
    return found


def asking(
    method: str, path: str, body: object = None, *lines: str, minor: int = 1
) -> bytes:
    """
    A request.

    @param body: what becomes JSON, or bytes that stay what they are; C{None}
        for none.
    @param lines: of the header, beside those that have to be.
    """
    whole = [f"{method} {path} HTTP/1.{minor}", "Host: api", *lines]
    data = b""
    if body is not None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        whole.append(f"Content-Length: {len(data)}")
    return "\r\n".join([*whole, "", ""]).encode("latin-1") + data


class ApiCase(SynchronousTestCase):
    """
    Has an API of a dispatcher with two agents, C{web-1} and C{web-2}.
    """

    settings = ALLOW
    most = 4

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.reactor = FakeProcessReactor()
        self.recorder = Recorder()
        self.agents = FakeAgents()
        self.metrics = Metrics()
        self.is_ready = True
        self.faults: list[Failure] = []
        self.work = Work(self.reactor, self.most, self.faults.append)
        self.dispatcher = self.made(self.settings)
        for name in ("web-1", "web-2"):
            expiry = "Feb 22 22:32:05 2029 GMT"
            self.dispatcher.stores.registry.put(AgentRecord(name, expiry=expiry))
        self.streams = Streams(self.most)
        self.api = Api(
            self.dispatcher,
            self.work,
            self.streams,
            self.metrics,
            lambda settings: self.is_ready,
        )
        self.site = ApiSite(
            self.api.app.resource(),
            self.reactor,
            self.dispatcher.events,
            at_once,
        )

    def made(self, text: str) -> Dispatcher:
        """
        A dispatcher with these settings.
        """
        settings, warnings = read_settings(
            DispatcherSettings,
            f"ca_dir = ca\nstate_dir = state\ndispatcher_id = ops\n{text}",
            file="ctrl-exec.conf",
            base=self.directory,
        )
        self.assertEqual(warnings, ())
        return Dispatcher(
            settings=settings,
            stores=Stores.on_files(settings),
            events=Counting(self.recorder, self.metrics),
            process=Process(
                now=lambda: NOW, reactor=self.reactor, in_thread=at_once, environ={}
            ),
            agents=lambda reactor: self.agents,
        )

    def wire(self) -> Wire:
        """
        A new connection.
        """
        return Wire.to(self.site)

    def ask(self, method: str, path: str, body: object = None, *lines: str) -> Reply:
        """
        A client that asks for one thing, on a connection of its own.
        """
        wire = self.wire().send(asking(method, path, body, *lines))
        reply = wire.reply()
        wire.leave()
        return reply

    def logged(self, action: str) -> list[str]:
        """
        The lines of the log with this action.
        """
        found = [each for each in self.recorder.events if each.action == action]
        return [each.line() for each in found]


class Later(Resource):
    """
    Answers when a test wants it to.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[ApiRequest] = []

    def render(self, request: ApiRequest) -> Any:
        """
        Remember it.
        """
        self.requests.append(request)
        return NOT_DONE_YET
