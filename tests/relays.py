# SPDX-License-Identifier: AGPL-3.0-only
"""
Somebody who sits between an agent and a dispatcher, with TLS of their own to
both of them, and changes what they like.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    wrapClientTLS,
    wrapServerTLS,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.test.iosim import ConnectionCompleter, IOPump

from ctrlexec import pki
from ctrlexec.agent.enrolment import Application, Enrolment, Result
from ctrlexec.certificates import DispatcherRole
from ctrlexec.protocol import codec
from ctrlexec.protocol.agreement import Awaited, Terms
from ctrlexec.protocol.http import (
    Body,
    End,
    Head,
    Parser,
    RequestLine,
    StatusLine,
    request,
    response_head,
)
from ctrlexec.tls import Credentials, pairing_client, pairing_server
from ctrlexec.values import HostPort
from tests.agents import Recorded, agent_settings, tree
from tests.authority import OTHER_KEY
from tests.enrolling import Reactor
from tests.test_dispatcher_service import PortTestCase
from tests.wired import OTHER_CA, TODAY, credentials

#: The dispatcher that somebody else has made, down to its name.
ROGUE = credentials(DispatcherRole("hq"), ca=OTHER_CA, ca_key=OTHER_KEY)

Said = dict[str, Any]


class Side(Protocol):
    """
    One of the two connections of a relay.

    @ivar heard: called with the path of a request, or nothing, and the JSON.
    """

    def __init__(self, first: Any, heard: Callable[[str, Said], None]) -> None:
        self._parser: Parser[Any] = Parser(first, body_bytes=1_000_000)
        self._heard = heard
        self._path = ""
        self._body = b""

    def dataReceived(self, data: bytes) -> None:
        """
        Hear what is said, whole.
        """
        self._parser.feed(data)
        while (event := self._parser.next_event()) is not None:
            match event:
                case Head(RequestLine(path=path)):
                    self._path = path
                case Head(StatusLine()):
                    pass
                case Body(part):
                    self._body += part
                case End.END:
                    body, self._body = self._body, b""
                    self._heard(self._path, json.loads(body))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        So be it.
        """

    def ask(self, path: str, said: Said) -> None:
        """
        Say something as an agent.
        """
        self._write(request("POST", path, codec.to_json(said), host="x", minor=0))

    def answer(self, said: Said) -> None:
        """
        Say something as a dispatcher.
        """
        body = codec.to_json(said)
        head = response_head(200, len(body), minor=0, keep_alive=False)
        self._write(head + body)

    def _write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


@attrs.define(eq=False)
class Relay:
    """
    Passes on what both say, changed.

    @ivar asks: what becomes of a request, given its path.
    @ivar answers: what becomes of an answer.
    """

    asks: Callable[[str, Said], Said] = lambda path, said: said
    answers: Callable[[Said], Said] = lambda said: said
    agent: Side = attrs.field(init=False)
    dispatcher: Side = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.agent = Side(RequestLine.parse, self._asked)
        self.dispatcher = Side(StatusLine.parse, self._answered)

    def _asked(self, path: str, said: Said) -> None:
        self.dispatcher.ask(path, self.asks(path, said))

    def _answered(self, _: str, said: Said) -> None:
        self.agent.answer(self.answers(said))


@attrs.frozen
class Comparing:
    """
    A person at the agent who looks at the dispatcher's screen.

    @ivar screen: the codes that it shows.
    @ivar compared: what they have compared so far, and with what.
    """

    screen: Callable[[], list[str]]
    compared: list[tuple[Awaited, list[str]]] = attrs.field(factory=list)

    def compares(self, awaited: Awaited) -> Deferred[bool]:
        """
        Say truly whether it shows the same.
        """
        codes = self.screen()
        self.compared.append((awaited, codes))
        return succeed(awaited.code in codes)


class BetweenTestCase(PortTestCase):
    """
    An agent of ours and a dispatcher of ours, and who stands between them.
    """

    def setUp(self) -> None:
        """
        The dispatcher's port is open.
        """
        super().setUp()
        self.agent_settings = agent_settings(Path(self.mktemp()).absolute())
        self.before = tree(self.agent_settings.directory)
        self.agent_reactor, self.agent_log = Reactor(), Recorded()
        self.person = Comparing(lambda: [r.code for r in self.trust.requests()])

    def apply(self, terms: Terms) -> Application:
        """
        What the agent brings.
        """
        return Application.new(self.agent_settings, "", pki.KeyType.EC, terms)

    def pairs(
        self,
        between: Relay,
        terms: Terms | None = None,
        *,
        shows: Credentials = ROGUE,
        application: Application | None = None,
    ) -> Deferred[Result]:
        """
        The agent asks whoever is between it and the dispatcher.

        @param shows: what the agent meets.
        """
        server = TCP4ServerEndpoint(self.agent_reactor, 7444)
        client = TCP4ClientEndpoint(self.agent_reactor, "192.0.2.9", 7444)
        front = Factory.forProtocol(lambda: between.agent)
        clock = self.agent_reactor
        wrapServerTLS(pairing_server(shows), server, clock=clock).listen(front)
        self._reach(between.dispatcher)
        enrolment = Enrolment(
            self.agent_reactor,
            wrapClientTLS(pairing_client(), client, clock=self.agent_reactor),
            HostPort("hq.example.net", 7444),
            self.agent_settings,
            self.agent_log,
            600,
            lambda: TODAY,
        )
        asked = application or self.apply(terms or Terms())
        result = Deferred.fromCoroutine(enrolment.pair(asked, self.person))
        self.pumps.append(_pumped(self.agent_reactor))
        self.settle()
        return result

    def settle(self) -> None:
        """
        Let everybody speak until all are silent.
        """
        for _ in range(9):
            self.flush()

    def approves(self, *, legacy: bool = False) -> None:
        """
        The operator approves whoever waits, without a look at the code.
        """
        for waiting in self.trust.requests():
            self.trust.approve(waiting.id, legacy=legacy)
        self.pass_time(0.5)
        self.settle()

    def assertNothingStored(self) -> None:
        """
        The agent is as it was.
        """
        self.assertEqual(tree(self.agent_settings.directory), self.before)

    def _reach(self, side: Side) -> None:
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", 7444)
        wrapClientTLS(pairing_client(), endpoint, clock=self.reactor).connect(
            Factory.forProtocol(lambda: side)
        )
        self.pumps.append(_pumped(self.reactor))
        self.flush()


def _pumped(reactor: Any) -> IOPump:
    pump = ConnectionCompleter(reactor).succeedOnce()
    assert pump is not None
    return pump
