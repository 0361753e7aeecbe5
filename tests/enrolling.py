# SPDX-License-Identifier: AGPL-3.0-only
"""
An agent that asks to be paired, and a listener that says what a test wants,
over real TLS in memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    wrapClientTLS,
    wrapServerTLS,
)
from twisted.internet.error import (
    ConnectionDone,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.test.iosim import ConnectionCompleter, IOPump
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec import pki
from ctrlexec.agent.enrolment import (
    Application,
    Enrolment,
    Result,
)
from ctrlexec.certificates import AgentRole
from ctrlexec.errors import CtrlExecError
from ctrlexec.protocol import codec_pairing
from ctrlexec.protocol.agreement import Awaited, Terms
from ctrlexec.protocol.http import response_head
from ctrlexec.protocol.messages import (
    PairApproved,
    PairDecision,
    PairOpened,
    PairPending,
)
from ctrlexec.tls import Credentials, pairing_client, pairing_server
from ctrlexec.values import HostPort
from tests.agents import Recorded, agent_settings, tree
from tests.authority import CA_KEY
from tests.wired import CA, DISPATCHER, TODAY

REQID = "a8e5d95be720fcc8"


class Listener(Protocol):
    """
    The other side: it remembers what it gets, and says what it is told to.
    """

    def __init__(self) -> None:
        self.received = b""
        self.gone = False

    def dataReceived(self, data: bytes) -> None:
        """
        Remember it.
        """
        self.received += data

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:
        """
        Remember that too.
        """
        self.gone = True

    @property
    def wire(self) -> Any:
        """
        The transport.
        """
        return self.transport

    @property
    def request(self) -> dict[str, Any]:
        """
        The JSON of what was asked first.
        """
        return self.requests[0]

    @property
    def requests(self) -> list[dict[str, Any]]:
        """
        The JSON of all that was asked.
        """
        bodies = re.findall(rb"\r\n\r\n({.*?})(?=POST |\Z)", self.received, re.DOTALL)
        return [json.loads(body) for body in bodies]


@attrs.define
class Person:
    """
    Somebody at the agent.

    @ivar shown: what they were shown.
    @ivar answers: their answers to come.
    """

    shown: list[Awaited] = attrs.field(factory=list)
    answers: list[Deferred[bool]] = attrs.field(factory=list)
    at_once: bool | None = True

    def compares(self, awaited: Awaited) -> Deferred[bool]:
        """
        See L{ctrlexec.agent.enrolment.Person}.
        """
        self.shown.append(awaited)
        answer: Deferred[bool] = Deferred()
        self.answers.append(answer)
        if self.at_once is not None:
            answer.callback(self.at_once)
        return answer


class InlinePool:
    """
    A thread pool that has no threads.
    """

    def callInThreadWithCallback(
        self,
        done: Callable[[bool, object], None],
        work: Callable[..., object],
        *args: object,
    ) -> None:
        """
        Do it now.
        """
        try:
            result = work(*args)
        except Exception:
            done(False, Failure())
        else:
            done(True, result)


class Reactor(MemoryReactorClock):
    """
    A reactor in memory, with a pool of threads that it has not.
    """

    def getThreadPool(self) -> InlinePool:
        """
        See L{InlinePool}.
        """
        return InlinePool()

    def callFromThread(self, work: Callable[..., object], *args: object) -> None:
        """
        Do it now.
        """
        work(*args)


def http(body: bytes) -> bytes:
    """
    An answer as the listener sends it.
    """
    return response_head(200, len(body), minor=0, keep_alive=False) + body


def pending(reqid: str = REQID) -> bytes:
    """
    The first answer.
    """
    return http(codec_pairing.encode_pair_first(PairPending(reqid)))


def opened(reqid: str = REQID, shown: Credentials = DISPATCHER) -> bytes:
    """
    The first answer of a dispatcher of ours.
    """
    answer = PairOpened(reqid, "d2" * 32, shown.ca.decode(), shown.cert.decode())
    return http(codec_pairing.encode_pair_first(answer))


def decided(decision: PairDecision) -> bytes:
    """
    The second answer.
    """
    return http(codec_pairing.encode_pair_decision(decision))


class EnrolmentTestCase(SynchronousTestCase):
    """
    An agent that asks to be paired.
    """

    tls = True
    shows = DISPATCHER
    terms = Terms(legacy=True)

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.settings = agent_settings(self.directory, conf="port = 7999\n")
        self.before = tree(self.directory)
        key_type = pki.KeyType.EC
        self.application = Application.new(self.settings, "", key_type, self.terms)
        self.log, self.reactor, self.person = Recorded(), Reactor(), Person()
        self.listener = Listener()
        self.pump: IOPump | None = None
        self.addCleanup(lambda: self.assertEqual(self.reactor.getDelayedCalls(), []))

    def ask(self, seconds: float = 600, connect: bool = True) -> Deferred[Result]:
        """
        Begin, and let both sides speak until they are silent.
        """
        client = TCP4ClientEndpoint(self.reactor, "192.0.2.9", 7444)
        server = TCP4ServerEndpoint(self.reactor, 7444)
        factory = Factory.forProtocol(lambda: self.listener)
        shown = pairing_server(self.shows)
        tls = wrapServerTLS(shown, server, clock=self.reactor)
        (tls if self.tls else server).listen(factory)
        enrolment = Enrolment(
            self.reactor,
            wrapClientTLS(pairing_client(), client, clock=self.reactor),
            HostPort("hq.example.net", 7444),
            self.settings,
            self.log,
            seconds,
            lambda: TODAY,
        )
        pairing = enrolment.pair(self.application, self.person)
        result = Deferred.fromCoroutine(pairing)
        if connect:
            self.pump = ConnectionCompleter(self.reactor).succeedOnce()
            self.flush()
        return result

    def flush(self) -> None:
        """
        Let both sides speak until they are silent.
        """
        assert self.pump is not None
        self.pump.flush()

    def says(self, data: bytes) -> None:
        """
        The listener says something.
        """
        self.listener.wire.write(data)
        self.flush()

    def leaves(self) -> None:
        """
        The listener closes the connection.
        """
        self.listener.wire.loseConnection()
        self.flush()

    def approval(self, **changes: Any) -> PairApproved:
        """
        What a dispatcher that approves would send.
        """
        cert = pki.issue(
            pki.read_csr(self.listener.request["csr"].encode()),
            ca_cert=CA,
            ca_key=CA_KEY,
            role=AgentRole("agent-one"),
            common_name="agent-one",
            days=2,
            now=TODAY,
        )
        nonce = self.listener.request["nonce"]
        approval = PairApproved(cert.decode(), CA.decode(), nonce, "d1", "hq")
        return attrs.evolve(approval, **changes)

    def assertNothingStored(self) -> None:
        """
        All files are as before.
        """
        self.assertEqual(tree(self.directory), self.before)

    def assertFailed(
        self, result: Deferred[Result], kind: type[CtrlExecError], *words: str
    ) -> CtrlExecError:
        """
        It failed, the sentence says so, it is in the log, nothing was stored,
        and the connection is closed.
        """
        error: CtrlExecError = self.failureResultOf(result, kind).value
        for word in words:
            self.assertIn(word, str(error))
        [line] = self.log.taken()
        self.assertTrue(line.startswith(("ACTION=pair-fail", "ACTION=pair-denied")))
        self.assertNothingStored()
        if self.pump is not None:
            self.flush()
            self.assertTrue(self.listener.gone)
        return error
