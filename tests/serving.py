# SPDX-License-Identifier: AGPL-3.0-only
"""
The service of an agent for tests, and a dispatcher that asks it.
"""

from __future__ import annotations

from pathlib import Path

from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory, Protocol
from twisted.test.iosim import ConnectionCompleter
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.policy import Overrides
from ctrlexec.agent.service import (
    AgentService,
    agent_service,
)
from ctrlexec.tls import mutual_client
from tests.agents import agent_directory
from tests.enrolling import Reactor
from tests.fake_scripts import FakeScripts
from tests.wired import AGENT, DISPATCHER


class Caller(Protocol):
    """
    A dispatcher that sends one request, and remembers what comes back.
    """

    def __init__(self, path: bytes = b"/ping", body: bytes = b"{}") -> None:
        self.received = b""
        self.head = b"POST %s HTTP/1.1\r\nContent-Length: %d\r\n" % (path, len(body))
        self.body = body

    def connectionMade(self) -> None:
        """
        Ask.
        """
        assert self.transport is not None
        self.transport.write(self.head + b"Host: a\r\n\r\n" + self.body)

    def dataReceived(self, data: bytes) -> None:
        """
        Remember it.
        """
        self.received += data


class ServiceTestCase(SynchronousTestCase):
    """
    A paired agent.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.file = agent_directory(self.directory)
        self.put(AGENT.key, AGENT.cert, AGENT.ca)
        self.reactor = Reactor()

    def put(self, key: bytes, cert: bytes, ca: bytes) -> None:
        """
        Put an identity in its place.
        """
        names = {"agent.key": key, "agent.crt": cert, "ca.crt": ca}
        for name, content in names.items():
            (self.directory / name).write_bytes(content)
        (self.directory / "agent.key").chmod(0o600)
        state = self.directory / "state"
        state.mkdir(exist_ok=True)
        (state / "ctrl-exec-dispatchers").write_text(f"{DISPATCHER.info.serial} hq\n")

    def agent(self) -> AgentService:
        """
        The service.
        """
        service = agent_service(self.reactor, self.file, Overrides())
        assert isinstance(service, AgentService)
        return service

    def started(self) -> AgentService:
        """
        The service, running for as long as the test does.
        """
        service = self.agent()
        service.privilegedStartService()
        service.startService()
        self.addCleanup(lambda: service.running and service.stopService())
        self.service = service
        return service

    def connected(self, caller: Caller) -> Caller:
        """
        A dispatcher that has asked.
        """
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", 7443)
        tls = wrapClientTLS(mutual_client(DISPATCHER), endpoint, clock=self.reactor)
        tls.connect(Factory.forProtocol(lambda: caller))
        pump = ConnectionCompleter(self.reactor).succeedOnce()
        assert pump is not None
        self.pump = pump
        pump.flush()
        return caller

    def running(self, reqid: str = "9f21", more: str = "") -> Caller:
        """
        A dispatcher whose run goes on for as long as the test wants.

        @param more: what it wants beside.
        """
        self.runner = FakeScripts()
        self.service.resource.runs.runner = self.runner
        body = f'{{"script":"hello","args":[],"reqid":"{reqid}"{more}}}'.encode()
        caller = self.connected(Caller(b"/run", body))
        self.assertEqual(len(self.runner.started), 1)
        return caller

    def logged(self) -> list[str]:
        """
        What was logged since the last time, without times.
        """
        log = self.directory / "log"
        lines = log.read_text().splitlines()
        log.write_text("")
        return [line.partition(": ")[2] for line in lines]
