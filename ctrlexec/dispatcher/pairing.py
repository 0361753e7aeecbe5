# SPDX-License-Identifier: AGPL-3.0-only
"""
The pairing listener: it takes the requests of agents that nobody knows yet,
and carries a person's decision back to them (C{docs/pairing.md}, PROTOCOL.md
section 3, NEWER-LINE.md section 5).

Whoever reaches the port may talk to it. So nothing is believed, every refusal
is an event, and what one peer can cost is limited: by the server under it (in
time and bytes), by the queue (in requests), by how many may leave when it is
their turn to L{reveal<ctrlexec.dispatcher.unrevealed>}, and by how many
connections the L{gate<ctrlexec.dispatcher.pairing_gate>} lets in.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctrlexec.dispatcher.attempt import INVALID, Attempt
from ctrlexec.dispatcher.surroundings import UNWATCHED, PairingWatcher, World
from ctrlexec.dispatcher.unrevealed import Unrevealed
from ctrlexec.events import PairRejected, TlsFailed
from ctrlexec.interfaces import IEventSink, IPairingQueue
from ctrlexec.protocol import codec, codec_pairing, limits
from ctrlexec.protocol.exchange import Exchange, Peer, Visit, handshake_fault
from ctrlexec.protocol.messages import NOT_FOUND, PairFailed, Refused
from ctrlexec.tls import Credentials

#: How often the queue is asked for decisions, in seconds.
POLL_SECONDS = 0.5

TOO_LARGE = PairFailed("request too large")


@attrs.define(eq=False)
class PairingListener:
    """
    Answers the pairing port: a L{Handler<ctrlexec.protocol.server.Handler>}.

    @ivar credentials: what the port shows to those who connect.
    @ivar lifetime_seconds: how long a request waits for a decision.
    @ivar unrevealed: those who have begun, and not got as far as a person.
    """

    world: World
    queue: IPairingQueue
    events: IEventSink
    credentials: Credentials
    watcher: PairingWatcher = UNWATCHED
    lifetime_seconds: float = limits.PAIRING_SECONDS
    unrevealed: Unrevealed = attrs.field(factory=Unrevealed, init=False)
    _waiting: set[Attempt] = attrs.field(factory=set, init=False)
    _working: set[Deferred[None]] = attrs.field(factory=set, init=False)
    _polling: LoopingCall = attrs.field(init=False)
    _log: Logger = attrs.field(factory=Logger, init=False)
    stopping: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._polling = LoopingCall(self._poll)
        self._polling.clock = self.world.clock

    # What L{ctrlexec.protocol.server} asks of us.

    def arrived(self, visit: Visit) -> None:
        """
        A connection that asks for nothing yet.
        """

    def admit(self, peer: Peer, visit: Visit) -> Refused | None:
        """
        Everybody may ask.
        """
        return None

    def may_stay(self, peer: Peer, visit: Visit) -> bool:
        """
        Everybody may take the time to read the answer, which can be a
        certificate; after it the port closes anyhow.
        """
        return True

    def handle(self, exchange: Exchange) -> None:
        """
        A request has arrived, which may be one to be paired.
        """
        if (exchange.request.method, exchange.request.path) != ("POST", "/pair"):
            self.rejected(exchange.peer, NOT_FOUND.error)
            exchange.answer(NOT_FOUND.code, codec.encode_refused(NOT_FOUND))
            return
        attempt = Attempt(self, exchange)
        self.hold(attempt.run())

    def handshake_failed(self, visit: Visit, reason: Failure) -> None:
        """
        Somebody connected who does not speak our TLS, or did not speak at all.
        Agents of the newer line do that once before they ask, to see whether
        the port is open; it looks no different from a stranger who does.
        """
        if not self.stopping:
            self.events.emit(TlsFailed(visit.address, handshake_fault(reason)))

    def ended(self, visit: Visit) -> None:
        """
        A connection costs nothing more when it is over.
        """

    def refusal(self, peer: Peer, refused: Refused) -> tuple[int, bytes]:
        """
        What arrived is no HTTP that we take; the answer is one of the pairing
        port all the same.
        """
        self.rejected(peer, refused.error)
        failed = TOO_LARGE if refused.code == 413 else INVALID
        return 200, codec_pairing.encode_pair_first(failed)

    def rejected(self, peer: Peer, reason: str) -> None:
        """
        Write down that a peer was refused.
        """
        self.events.emit(PairRejected(peer.address, reason))

    # What waits.

    def watch(self, attempt: Attempt) -> None:
        """
        From now on a decision on this attempt may come.
        """
        self._waiting.add(attempt)
        if not self._polling.running:
            self._polling.start(POLL_SECONDS, now=False)

    def unwatch(self, attempt: Attempt) -> None:
        """
        No decision is of any use to this attempt any more.
        """
        self._waiting.discard(attempt)
        if not self._waiting and self._polling.running:
            self._polling.stop()

    def hold(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        """
        Let something go on by itself, and hear of it if it fails.
        """
        working = Deferred.fromCoroutine(work)
        self._working.add(working)
        working.addErrback(lambda why: self._log.failure("pairing failed", why))
        working.addBoth(lambda _: self._working.discard(working))

    async def stop(self) -> None:
        """
        Deliver what is decided, and take back what is not: the agents will see
        their connections close.
        """
        self.stopping = True
        self._poll()
        for attempt in tuple(self._waiting):
            attempt.agent_gone()
        while self._working:
            await DeferredList(tuple(self._working))

    def _poll(self) -> None:
        for attempt in tuple(self._waiting):
            attempt.look()
