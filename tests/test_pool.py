# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.protocol.pool}: questions that share a connection, over real
TLS in memory.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.test.iosim import ConnectionCompleter

from ctrlexec.errors import TransportError
from ctrlexec.protocol import limits
from ctrlexec.protocol.client import AgentClient
from ctrlexec.protocol.messages import RunRequest
from ctrlexec.protocol.pool import MOST_SECONDS, WAIT_SECONDS, Pool
from tests.edges import Host
from tests.wires import PING, PONG, TARGET, ClientTestCase, http

RAN = b'{"script":"backup","exit":0,"stdout":"","stderr":""}'


class PoolTests(ClientTestCase):
    """
    A connection that has answered once is asked again.
    """

    def setUp(self) -> None:
        super().setUp()
        self.pool = Pool(self.reactor)
        self.host = Host(answers=[(200, PONG)] * 9)
        self.network.hosted(self.host)
        self.pooled = self.network.client(pool=self.pool)

    def connect(self, asking: Any) -> Deferred[Any]:
        """
        Ask where a connection has to be made first.
        """
        return self.network.ask(asking)

    def ask(self, asking: Any) -> Deferred[Any]:
        """
        Ask where there is one already: a second attempt to connect would find
        nobody to complete it.
        """
        asked: Deferred[Any] = Deferred.fromCoroutine(asking)
        self.network.flush()
        return asked

    def done(self) -> None:
        """
        Nothing waits any more.
        """
        self.pool.close()
        self.network.flush()

    def test_shared(self) -> None:
        """
        One handshake serves two questions, of whatever kind.
        """
        self.successResultOf(self.connect(self.pooled.ping(TARGET, PING)))
        self.host.answers = [(200, RAN)]
        self.successResultOf(self.ask(self.pooled.run(TARGET, RunRequest("backup"))))
        self.assertEqual(len(self.host.visits), 1)
        self.assertEqual([path for _, path, _ in self.host.asked], ["/ping", "/run"])
        self.done()

    def test_aged(self) -> None:
        """
        However often it is used, it is given up in time: the agent's certificate
        may have ended meanwhile.
        """
        self.successResultOf(self.connect(self.pooled.ping(TARGET, PING)))
        passed, step = 0.0, WAIT_SECONDS / 2
        self.host.answers = [(200, PONG)] * 99
        while passed < MOST_SECONDS:
            self.assertEqual(len(self.host.gone), 0)
            self.reactor.advance(step)
            passed += step
            self.successResultOf(self.ask(self.pooled.ping(TARGET, PING)))
        self.assertEqual((len(self.host.visits), len(self.host.gone)), (1, 1))
        self.assertIsNone(self.pool.take(TARGET))

    def test_busy(self) -> None:
        """
        A connection that is in use is nobody else's: the next question gets one
        of its own.
        """
        self.successResultOf(self.connect(self.pooled.ping(TARGET, PING)))
        self.host.answers = []
        first = self.ask(self.pooled.ping(TARGET, PING))
        self.assertNoResult(first)
        second = Deferred.fromCoroutine(self.pooled.ping(TARGET, PING))
        self.assertEqual(len(self.reactor.tcpClients), 1)
        for each in (first, second):
            each.cancel()
            self.failureResultOf(each)
        self.network.flush()

    def test_notForEver(self) -> None:
        """
        A connection is closed before the agent would close it.
        """
        self.assertLess(WAIT_SECONDS, limits.IDLE_SECONDS)
        self.successResultOf(self.connect(self.pooled.ping(TARGET, PING)))
        self.reactor.advance(WAIT_SECONDS)
        self.network.flush()
        self.assertEqual(len(self.host.gone), 1)
        self.assertIsNone(self.pool.take(TARGET))

    def test_bounded(self) -> None:
        """
        The oldest makes room for one more than the limit.
        """
        self.pool.most = 0
        self.successResultOf(self.connect(self.pooled.ping(TARGET, PING)))
        self.network.flush()
        self.assertEqual(len(self.host.gone), 1)

    def test_closed(self) -> None:
        """
        A pool that is closed keeps nothing.
        """
        self.pool.close()
        self.successResultOf(self.connect(self.pooled.ping(TARGET, PING)))
        self.network.flush()
        self.assertEqual(len(self.host.gone), 1)

    def test_gone(self) -> None:
        """
        A connection that the agent has closed meanwhile is not used.
        """
        self.successResultOf(self.connect(self.pooled.ping(TARGET, PING)))
        self.reactor.advance(0)
        kept = self.pool.take(TARGET)
        assert kept is not None
        self.pool.put(TARGET, kept)
        assert self.network.pump is not None
        self.network.pump.serverIO.abortConnection()
        self.network.flush()
        self.assertFalse(kept.free)
        self.assertIsNone(self.pool.take(TARGET))


class CrossingTests(ClientTestCase):
    """
    An agent may close a connection just when it is used again.
    """

    def setUp(self) -> None:
        super().setUp()
        self.pool = Pool(self.reactor)
        self.pooled: AgentClient = self.network.client(pool=self.pool)
        self.host = Host(answers=[(200, PONG)])
        self.network.hosted(self.host)
        self.successResultOf(self.network.ask(self.pooled.ping(TARGET, PING)))

    def cross(self, asking: Any) -> Deferred[Any]:
        """
        Ask, and lose the connection before the agent says anything.
        """
        asked: Deferred[Any] = Deferred.fromCoroutine(asking)
        assert self.network.pump is not None
        self.network.pump.serverIO.abortConnection()
        self.network.flush()
        return asked

    def test_repeatable(self) -> None:
        """
        What may be asked twice is, on a new connection.
        """
        asked = self.cross(self.pooled.ping(TARGET, PING))
        self.assertNoResult(asked)
        self.host.answers = [(200, PONG)]
        pump = ConnectionCompleter(self.reactor).succeedOnce()
        assert pump is not None
        pump.flush()
        self.assertEqual(self.successResultOf(asked).host, "agent-one")
        self.pool.close()
        pump.flush()

    def test_atMostOnce(self) -> None:
        """
        A run is not: it may have been started, and whoever asked is told.
        """
        asked = self.cross(self.pooled.run(TARGET, RunRequest("backup", (), "9f")))
        why = self.failureResultOf(asked, TransportError).value
        self.assertIn("may still be running", why.hint)
        self.assertEqual([*self.reactor.tcpClients], [])


class UnwillingTests(ClientTestCase):
    """
    Agents that close, as those of the original do, are asked anew each time.
    """

    def setUp(self) -> None:
        super().setUp()
        self.pool = Pool(self.reactor)
        self.pooled = self.network.client(pool=self.pool)

    def test_closes(self) -> None:
        """
        An answer that says that the connection will be closed is its last.
        """
        for minor in (0, 1):
            agent = self.network.scripted(http(PONG, minor=minor))
            self.successResultOf(self.network.ask(self.pooled.ping(TARGET, PING)))
            self.assertIn(b"\r\nConnection: keep-alive\r\n", agent.received)
            self.assertIsNone(self.pool.take(TARGET))
            self.network.flush()
            self.reactor.tcpClients.clear()
            self.reactor.tcpServers.clear()

    def test_talkative(self) -> None:
        """
        What comes behind an answer is an answer to nothing, and nothing more is
        asked there.
        """
        answer = http(PONG).replace(b"close", b"keep-alive")
        agent = self.network.scripted(answer + b"HTTP/1.1 200 OK\r\n", closes=False)
        self.successResultOf(self.network.ask(self.pooled.ping(TARGET, PING)))
        self.assertIsNone(self.pool.take(TARGET))
        self.network.flush()
        self.assertIsNotNone(agent.lost)

    def test_talksLater(self) -> None:
        """
        Even if it comes only when the connection waits already.
        """
        answer = http(PONG).replace(b"close", b"keep-alive")
        agent = self.network.scripted(answer, closes=False)
        self.successResultOf(self.network.ask(self.pooled.ping(TARGET, PING)))
        assert agent.transport is not None
        agent.transport.write(b"HTTP/1.1 200 OK\r\n")
        self.network.flush()
        self.assertIsNone(self.pool.take(TARGET))
        self.assertIsNotNone(agent.lost)
