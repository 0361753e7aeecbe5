# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.pairing}.

It is over 400 lines: a hostile agent has many ways.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.pairing import PairingListener
from ctrlexec.dispatcher.queue import FilePairingQueue
from ctrlexec.dispatcher.records import QueuedRequest
from ctrlexec.dispatcher.reverse_dns import ReverseName
from ctrlexec.dispatcher.surroundings import Ending, World
from ctrlexec.errors import StoreError
from ctrlexec.events import PairRejected
from ctrlexec.pki import confirmation_code
from ctrlexec.protocol import codec
from ctrlexec.protocol.messages import REJECTED, PairApproved, PairRequest, Refused
from ctrlexec.protocol.server import Exchange, Peer, Request
from tests.authority import NOW, data
from tests.dispatching import CSR, NONCE, Recorder, at_once

PEER = Peer("192.0.2.1", None)
ASKED = PairRequest("agent-one", CSR, NONCE)
APPROVED = PairApproved("cert", "ca", NONCE, "4f0a", "hq")
REJECTED_JSON = {"status": "denied", "reason": "rejected by operator"}


@attrs.define
class Agent:
    """
    Somebody at the pairing port.

    @ivar answers: what it was told: an HTTP status, JSON, and whether there
        is more to come.
    """

    exchange: Exchange = attrs.field(init=False)
    answers: list[tuple[int, Any, bool]] = attrs.field(factory=list)

    def asks(self, listener: PairingListener, request: Request) -> None:
        """
        Send a request.
        """
        self.exchange = Exchange(request, PEER, self._told)
        listener.handle(self.exchange)

    def _told(self, code: int, body: bytes, more: bool) -> None:
        self.answers.append((code, json.loads(body), more))

    def leaves(self) -> None:
        """
        Close the connection.
        """
        self.exchange.lost()


@attrs.define
class Watcher:
    """
    Somebody who looks on.
    """

    seen: list[tuple[str, object]] = attrs.field(factory=list)

    def arrived(self, request: QueuedRequest) -> None:
        """
        Remember it.
        """
        self.seen.append((request.hostname, "arrived"))

    def departed(self, request: QueuedRequest, ending: Ending) -> None:
        """
        Remember it.
        """
        self.seen.append((request.hostname, ending))


@attrs.define
class Threads:
    """
    Threads that are slow while a test holds them.
    """

    held: bool = False
    work: list[Callable[[], object]] = attrs.field(factory=list)

    def __call__(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """
        Do it, now or later.
        """
        if not self.held:
            return at_once(work, *args)
        done: Deferred[Any] = Deferred()
        self.work.append(lambda: at_once(work, *args).chainDeferred(done))
        return done

    def turn(self) -> None:
        """
        Finish the oldest work.
        """
        self.work.pop(0)()


class ListenerTestCase(SynchronousTestCase):
    """
    A listener on a queue of two, with a clock of its own.
    """

    def setUp(self) -> None:
        """
        Nobody has asked.
        """
        self.clock, self.log, self.watcher = Clock(), Recorder(), Watcher()
        self.threads = Threads()
        self.name = ReverseName("agent-one.example", True)
        self.directory = Path(self.mktemp())
        self.queue = FilePairingQueue(self.directory, 2)
        self.listener = PairingListener(
            World(self.clock, lambda: NOW, self.threads, lambda _: succeed(self.name)),
            self.queue,
            self.log,
            self.watcher,
        )
        self.addCleanup(self.assertQuiet)

    def assertQuiet(self) -> None:
        """
        When nobody waits, nothing is left to do.
        """
        if not self.pending():
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def asks(
        self,
        body: PairRequest | bytes = ASKED,
        method: str = "POST",
        path: str = "/pair",
    ) -> Agent:
        """
        An agent that has sent this.
        """
        if isinstance(body, PairRequest):
            body = codec.encode_pair_request(body)
        agent = Agent()
        agent.asks(self.listener, Request(method, path, body))
        return agent

    def pending(self) -> list[QueuedRequest]:
        """
        What is in the queue.
        """
        return list(self.queue.pending(NOW.timestamp()))

    def files(self) -> list[str]:
        """
        What is in the directory, without the lock.
        """
        return [p.name for p in self.directory.iterdir() if p.name[0] != "."]

    def decide(self, decision: PairApproved | None = None) -> str:
        """
        Somebody decides on the only request.
        """
        (waiting,) = self.pending()
        self.queue.decide(waiting.id, decision or REJECTED)
        return waiting.id


class AskingTests(ListenerTestCase):
    """
    What becomes of a request.
    """

    def test_pending(self) -> None:
        """
        It is queued with all that helps a person to judge, and the agent hears
        the first half of the answer.
        """
        agent = self.asks(
            attrs.evolve(ASKED, ip="198.51.100.7", port=7000, lookup_by="ip")
        )
        (waiting,) = self.pending()
        self.assertEqual(
            agent.answers, [(200, {"status": "pending", "reqid": waiting.id}, True)]
        )
        self.assertEqual(
            waiting,
            QueuedRequest(
                id=waiting.id,
                hostname="agent-one",
                ip="198.51.100.7",
                csr=CSR,
                nonce=NONCE,
                received="2026-03-05T18:38:09Z",
                code=confirmation_code(CSR.encode()),
                source_ip="192.0.2.1",
                lookup_by="ip",
                port=7000,
                reverse_dns="agent-one.example",
                reverse_confirmed=True,
            ),
        )
        self.assertRegex(waiting.id, r"\A[0-9a-f]{16}\Z")
        self.assertEqual(
            self.log.events[-1].line(),
            "ACTION=pair-request AGENT=agent-one IP=192.0.2.1 "
            f"REPORTED_IP=198.51.100.7 REQID={waiting.id} STATUS=pending",
        )
        self.assertEqual(self.watcher.seen, [("agent-one", "arrived")])

    def test_ownAddress(self) -> None:
        """
        Where the agent does not say its address, it is where it comes from.
        """
        self.asks()
        self.assertEqual([r.ip for r in self.pending()], ["192.0.2.1"])
        self.assertNotIn("REPORTED_IP", self.log.events[-1].line())

    def assertRefused(self, agent: Agent, reason: str, logged: str) -> None:
        """
        The agent hears this, the log says that, and nothing is queued.
        """
        expected = {"status": "error", "reason": reason}
        self.assertEqual(agent.answers, [(200, expected, False)])
        (event,) = self.log.events
        assert isinstance(event, PairRejected)
        self.assertEqual(event.ip, "192.0.2.1")
        self.assertIn(logged, event.reason)
        self.assertEqual(self.pending(), [])
        self.assertEqual(self.watcher.seen, [])

    def test_invalid(self) -> None:
        """
        What is no request is refused.
        """
        self.assertRefused(self.asks(b"{"), "invalid request", "invalid request")

    def test_invalidHostname(self) -> None:
        """
        A name that could be a path is refused in the protocol's own words.
        """
        agent = self.asks(attrs.evolve(ASKED, hostname="../agent"))
        self.assertRefused(agent, "invalid hostname", "invalid hostname")

    def test_weakKey(self) -> None:
        """
        A certificate request that we would not sign is not queued, and the log
        says what is wrong with it.
        """
        for name, why in (
            ("weak-rsa-1024.csr", "1024 bits"),
            ("weak-sha1.csr", "sha1"),
        ):
            agent = self.asks(attrs.evolve(ASKED, csr=data(name).decode()))
            self.assertRefused(agent, "invalid request", why)
            self.log.events.clear()

    def test_queueFull(self) -> None:
        """
        There is an end to how many may wait.
        """
        agents = [self.asks() for _ in range(3)]
        self.assertEqual(
            agents[2].answers,
            [(200, {"status": "error", "reason": "pairing queue full"}, False)],
        )
        self.assertEqual(len(self.pending()), 2)
        self.assertEqual(self.log.actions, ["pair-request"] * 2 + ["pair-reject"])

    def test_diskFull(self) -> None:
        """
        A queue that can not be written is not the agent's fault, and the log
        says whose it is.
        """
        self.directory.write_bytes(b"")
        agent = self.asks()
        self.assertEqual(agent.answers[0][1]["reason"], "internal error")
        self.assertIn(str(self.directory), self.log.events[0].line())

    def test_otherPaths(self) -> None:
        """
        The port has one use.
        """
        for method, path in (("GET", "/pair"), ("POST", "/"), ("POST", "/pair?x")):
            agent = self.asks(method=method, path=path)
            self.assertEqual(agent.answers, [(404, {"error": "not found"}, False)])
        self.assertEqual(self.log.actions, ["pair-reject"] * 3)

    def test_refusals(self) -> None:
        """
        What is no HTTP, or too much of it, is answered in the words of the
        pairing port.
        """
        for code, reason in ((413, "request too large"), (400, "invalid request")):
            refusal = self.listener.refusal(PEER, Refused(code, "why"))
            expected = codec.to_json({"status": "error", "reason": reason})
            self.assertEqual(refusal, (200, expected))
        self.assertEqual(self.log.actions, ["pair-reject"] * 2)

    @given(st.binary())
    def test_anything(self, body: bytes) -> None:
        """
        Whatever is sent, there is an answer at once.
        """
        agent = self.asks(body)
        self.assertEqual(len(agent.answers), 1)

    def test_leavesOnTheWay(self) -> None:
        """
        An agent that has gone before its request is in the queue leaves none
        there.
        """
        self.threads.held = True
        agent = self.asks()
        self.threads.turn()
        agent.leaves()
        while self.threads.work:
            self.threads.turn()
        self.assertEqual(agent.answers, [])
        self.assertEqual(self.files(), [])
        self.assertEqual(self.watcher.seen[-1], ("agent-one", Ending.WITHDRAWN))


class DecisionTests(ListenerTestCase):
    """
    How a decision reaches an agent.
    """

    def test_approved(self) -> None:
        """
        Within half a second the agent has its certificate, and nothing of the
        request is left.
        """
        agent = self.asks()
        reqid = self.decide(APPROVED)
        self.clock.advance(0.5)
        code, answer, more = agent.answers[1]
        self.assertEqual((code, answer["status"], more), (200, "approved", False))
        self.assertEqual(answer["nonce"], NONCE)
        self.assertEqual(self.files(), [])
        self.assertEqual(
            self.log.events[-1].line(),
            f"ACTION=pair-end AGENT=agent-one REQID={reqid} STATUS=delivered",
        )
        self.assertEqual(self.watcher.seen[-1], ("agent-one", Ending.DELIVERED))

    def test_denied(self) -> None:
        """
        The agent hears who said no.
        """
        agent = self.asks()
        self.decide()
        self.clock.advance(0.5)
        self.assertEqual(agent.answers[1], (200, REJECTED_JSON, False))
        self.assertEqual(self.files(), [])
        self.assertEqual(self.watcher.seen[-1], ("agent-one", Ending.DENIED))

    def test_deniedByTheOriginal(self) -> None:
        """
        An empty file is enough for that.
        """
        agent = self.asks()
        (waiting,) = self.pending()
        (self.directory / f"{waiting.id}.denied").touch()
        self.clock.advance(0.5)
        self.assertEqual(agent.answers[1], (200, REJECTED_JSON, False))
        self.assertEqual(self.files(), [])

    def test_oneOfTwo(self) -> None:
        """
        Only the agent that the decision is about hears of it.
        """
        first, second = self.asks(), self.asks()
        reqid = first.answers[0][1]["reqid"]
        self.queue.decide(reqid, APPROVED)
        self.clock.advance(0.5)
        self.assertEqual((len(first.answers), len(second.answers)), (2, 1))

    def test_outOfTime(self) -> None:
        """
        After ten minutes nobody decides any more.
        """
        agent = self.asks()
        self.clock.pump([0.5] * 1199)
        self.assertEqual(len(agent.answers), 1)
        self.clock.advance(0.5)
        expected = {"status": "denied", "reason": "approval timeout"}
        self.assertEqual(agent.answers[1], (200, expected, False))
        self.assertEqual(self.files(), [])
        self.assertEqual(self.watcher.seen[-1], ("agent-one", Ending.EXPIRED))

    def test_decidedAtTheLastMoment(self) -> None:
        """
        A decision between the last look and the end is not lost.
        """
        agent = self.asks()
        self.clock.pump([0.5] * 1199)
        self.threads.held = True
        self.clock.advance(0.5)
        self.decide(APPROVED)
        while self.threads.work:
            self.threads.turn()
        self.assertEqual(agent.answers[1][1]["status"], "approved")
        self.assertEqual(self.watcher.seen[-1], ("agent-one", Ending.DELIVERED))

    def test_agentLeaves(self) -> None:
        """
        The request of an agent that has gone is taken back.
        """
        agent = self.asks()
        agent.leaves()
        self.assertEqual(self.files(), [])
        self.assertEqual(self.log.actions[-1], "pair-end")
        self.assertEqual(self.watcher.seen[-1], ("agent-one", Ending.WITHDRAWN))

    def test_agentLeavesDecided(self) -> None:
        """
        Who decided for nothing can see it: the decision stays where it was
        left.
        """
        agent = self.asks()
        reqid = self.decide(APPROVED)
        agent.leaves()
        self.assertEqual(self.queue.decision(reqid), APPROVED)
        self.assertEqual(self.watcher.seen[-1], ("agent-one", Ending.UNDELIVERED))

    def test_unreadableDecision(self) -> None:
        """
        A decision that can not be read yet is waited for.
        """
        agent = self.asks()
        (waiting,) = self.pending()
        path = self.directory / f"{waiting.id}.approved"
        path.mkdir()
        self.assertRaises(StoreError, self.queue.decision, waiting.id)
        self.clock.advance(0.5)
        path.rmdir()
        path.write_bytes(codec.encode_pair_decision(APPROVED))
        self.clock.advance(0.5)
        self.assertEqual(agent.answers[1][1]["status"], "approved")

    def test_neverReadable(self) -> None:
        """
        A decision that can never be read does not hold the agent for ever.
        """
        agent = self.asks()
        (waiting,) = self.pending()
        (self.directory / f"{waiting.id}.approved").mkdir()
        self.clock.advance(600)
        self.assertEqual(agent.answers[1][1]["reason"], "approval timeout")
        self.assertNotEqual(self.flushLoggedErrors(StoreError), [])
        (self.directory / f"{waiting.id}.approved").rmdir()

    def test_stop(self) -> None:
        """
        When the listener stops, what is decided is delivered, and the rest is
        taken back without a word.
        """
        decided, waiting = self.asks(), self.asks()
        self.queue.decide(decided.answers[0][1]["reqid"], APPROVED)
        self.successResultOf(Deferred.fromCoroutine(self.listener.stop()))
        self.assertEqual(decided.answers[1][1]["status"], "approved")
        self.assertEqual(len(waiting.answers), 1)
        self.assertEqual(self.files(), [])
        self.assertEqual(
            [what for _, what in self.watcher.seen[2:]],
            [Ending.DELIVERED, Ending.WITHDRAWN],
        )

    def test_stopOnTheWay(self) -> None:
        """
        A request that is on its way into the queue when the listener stops
        does not stay there.
        """
        self.threads.held = True
        agent = self.asks()
        stopping = Deferred.fromCoroutine(self.listener.stop())
        self.assertNoResult(stopping)
        while self.threads.work:
            self.threads.turn()
        self.successResultOf(stopping)
        self.assertEqual(agent.answers, [])
        self.assertEqual(self.files(), [])
