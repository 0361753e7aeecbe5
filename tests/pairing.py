# SPDX-License-Identifier: AGPL-3.0-only
"""
A pairing listener without a port: agents hand it their requests, and a test owns
its clock and its threads.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.codes import commitment
from ctrlexec.dispatcher.pairing import PairingListener
from ctrlexec.dispatcher.queue import FilePairingQueue
from ctrlexec.dispatcher.records import QueuedRequest
from ctrlexec.dispatcher.reverse_dns import ReverseName
from ctrlexec.dispatcher.surroundings import Ending, World
from ctrlexec.protocol import codec, codec_pairing
from ctrlexec.protocol.messages import REJECTED, PairApproved, PairRequest
from ctrlexec.protocol.server import Exchange, Peer, Request
from tests.authority import NOW
from tests.dispatching import CSR, NONCE, Recorder, at_once
from tests.wired import DISPATCHER

PEER = Peer("192.0.2.1", None)
NONCE_A = "a1" * 32
#: The request of an agent of the original, and of one of ours.
ASKED = PairRequest("agent-one", CSR, NONCE)
COMMITTED = attrs.evolve(ASKED, commitment=commitment(NONCE_A))
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

    def reveals(self, nonce_a: str = NONCE_A, **changes: str) -> None:
        """
        Show the nonce that was committed to, or something else.
        """
        reveal = {"reqid": self.answers[0][1]["reqid"], "nonce_a": nonce_a}
        self.says(Request("POST", "/pair-reveal", codec.to_json({**reveal, **changes})))

    def says(self, request: Request) -> None:
        """
        Send another request on the same connection.
        """
        self.exchange.asked(request)

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

    def abandoned(self, address: str) -> None:
        """
        Remember it.
        """
        self.seen.append((address, "abandoned"))


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
            DISPATCHER,
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
            body = codec_pairing.encode_pair_request(body)
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
