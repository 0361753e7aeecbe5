# SPDX-License-Identifier: AGPL-3.0-only
"""
The pairing listener: it takes the requests of agents that nobody knows yet,
and carries a person's decision back to them (PROTOCOL.md section 3,
NEWER-LINE.md section 5).

Whoever reaches the port may talk to it. So nothing is believed, every refusal
is an event, and what one peer can cost is limited: by the server under it (in
time and bytes), by the queue (in requests), and by how many connections its
service lets in.
"""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import datetime
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctrlexec.dispatcher.records import QueuedRequest
from ctrlexec.dispatcher.reverse_dns import ReverseName
from ctrlexec.dispatcher.surroundings import (
    UNWATCHED,
    Ending,
    PairingWatcher,
    World,
)
from ctrlexec.errors import RequestRejected, StoreError
from ctrlexec.events import PairEnded, PairRejected, PairRequested
from ctrlexec.interfaces import IEventSink, IPairingQueue
from ctrlexec.pki import confirmation_code, read_csr
from ctrlexec.protocol import codec, limits
from ctrlexec.protocol.messages import (
    NOT_FOUND,
    TIMED_OUT,
    PairApproved,
    PairDecision,
    PairDenied,
    PairFailed,
    PairPending,
    PairRequest,
    Refused,
)
from ctrlexec.protocol.pairing import DispatcherInputs, dispatcher_side
from ctrlexec.protocol.server import Exchange, Peer
from ctrlexec.values import iso_time, new_request_id

#: How often the queue is asked for decisions, in seconds.
POLL_SECONDS = 0.5

INVALID = PairFailed("invalid request")
TOO_LARGE = PairFailed("request too large")
QUEUE_FULL = PairFailed("pairing queue full")
BROKEN = PairFailed("internal error")


@attrs.define(eq=False)
class PairingListener:
    """
    Answers the pairing port: a L{Handler<ctrlexec.protocol.server.Handler>}.

    @ivar lifetime_seconds: how long a request waits for a decision.
    """

    world: World
    queue: IPairingQueue
    events: IEventSink
    watcher: PairingWatcher = UNWATCHED
    lifetime_seconds: float = limits.PAIRING_SECONDS
    _waiting: set[_Attempt] = attrs.field(factory=set, init=False)
    _working: set[Deferred[None]] = attrs.field(factory=set, init=False)
    _polling: LoopingCall = attrs.field(init=False)
    _log: Logger = attrs.field(factory=Logger, init=False)
    stopping: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._polling = LoopingCall(self._poll)
        self._polling.clock = self.world.clock

    # What L{ctrlexec.protocol.server} asks of us.

    def admit(self, peer: Peer) -> Refused | None:
        """
        Everybody may ask.
        """
        return None

    def handle(self, exchange: Exchange) -> None:
        """
        A request has arrived, which may be one to be paired.
        """
        if (exchange.request.method, exchange.request.path) != ("POST", "/pair"):
            self.rejected(exchange.peer, NOT_FOUND.error)
            exchange.answer(NOT_FOUND.code, codec.encode_refused(NOT_FOUND))
            return
        attempt = _Attempt(self, exchange)
        self.hold(attempt.run())

    def handshake_failed(self, address: str, reason: Failure) -> None:
        """
        Somebody connected who does not speak our TLS, or did not speak at all.
        Agents of the newer line do that, to see whether the port is open: so
        it is no event.
        """

    def ended(self, peer: Peer) -> None:
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
        return 200, codec.encode_pair_first(failed)

    def rejected(self, peer: Peer, reason: str) -> None:
        """
        Write down that a peer was refused.
        """
        self.events.emit(PairRejected(peer.address, reason))

    # What waits.

    def watch(self, attempt: _Attempt) -> None:
        """
        From now on a decision on this attempt may come.
        """
        self._waiting.add(attempt)
        if not self._polling.running:
            self._polling.start(POLL_SECONDS, now=False)

    def unwatch(self, attempt: _Attempt) -> None:
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


@attrs.define(eq=False)
class _Attempt:
    """
    One agent that asks, from its request to the end: what carries out the
    L{dispatcher's side<ctrlexec.protocol.pairing.dispatcher_side>}.
    """

    listener: PairingListener
    exchange: Exchange
    _machine: DispatcherInputs = attrs.field(init=False)
    _request: QueuedRequest | None = attrs.field(default=None, init=False)
    _deadline: IDelayedCall | None = attrs.field(default=None, init=False)
    _gone: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._machine = dispatcher_side(self)
        self.exchange.when_lost(self.agent_gone)

    # What happens.

    async def run(self) -> None:
        """
        Read the request; queue it, or refuse it.
        """
        try:
            match codec.decode_pair_request(self.exchange.request.body):
                case PairFailed() as failed:
                    self._refuse(failed, failed.reason)
                case PairRequest() as pair:
                    await self._enter(pair)
        except Exception:
            self._machine.refused(BROKEN)
            raise

    def look(self) -> None:
        """
        See whether there is a decision.
        """
        try:
            decision = self._decision()
        except StoreError:
            # Whoever decides may be about to mend that; time is limited anyway.
            return
        if decision is not None:
            self._machine.decided(decision)

    def agent_gone(self) -> None:
        """
        The agent has closed the connection, or we are about to.
        """
        self._gone = True
        self._machine.agent_gone()

    def _out_of_time(self) -> None:
        self.listener.hold(self._expire())

    # What the machine makes of it.

    def say(self, answer: PairPending | PairFailed | PairDecision) -> None:
        """
        See L{ctrlexec.protocol.pairing.Listener.say}.
        """
        match answer:
            case PairPending():
                self.exchange.answer(200, codec.encode_pair_first(answer), more=True)
            case PairFailed():
                self.exchange.answer(200, codec.encode_pair_first(answer))
            case _:
                self.exchange.answer(200, codec.encode_pair_decision(answer))

    def settled(self, decision: PairDecision | None) -> None:
        """
        See L{ctrlexec.protocol.pairing.Listener.settled}.
        """
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self.listener.unwatch(self)
        self.listener.hold(self._leave(decision))

    # Into the queue, and out of it.

    async def _enter(self, pair: PairRequest) -> None:
        world, queue = self.listener.world, self.listener.queue
        source = self.exchange.peer.address
        try:
            await world.in_thread(read_csr, pair.csr.encode())
            name = await world.names(source)
            request = _queued(pair, source, name, world.now())
            room = await world.in_thread(queue.add, request)
        except RequestRejected as error:
            self._refuse(INVALID, str(error))
        except StoreError as error:
            self._refuse(BROKEN, str(error))
        else:
            if room:
                self._wait(request, pair.ip)
            else:
                self._refuse(QUEUE_FULL, QUEUE_FULL.reason)

    def _refuse(self, failed: PairFailed, reason: str) -> None:
        self.listener.rejected(self.exchange.peer, reason)
        self._machine.refused(failed)

    def _wait(self, request: QueuedRequest, reported: str) -> None:
        self._request, listener = request, self.listener
        listener.events.emit(
            PairRequested(
                request.hostname,
                request.source_ip,
                request.id,
                "pending",
                reported if reported not in ("", request.source_ip) else None,
            )
        )
        listener.watcher.arrived(request)
        if self._gone or listener.stopping:
            # The agent left while its request was on the way into the queue.
            self.settled(None)
            return
        seconds = listener.lifetime_seconds
        self._deadline = listener.world.clock.callLater(seconds, self._out_of_time)
        listener.watch(self)
        self._machine.queued(PairPending(request.id))

    async def _expire(self) -> None:
        """
        Between the last look and now, a person may still have decided.
        """
        assert self._request is not None
        listener, reqid = self.listener, self._request.id
        try:
            if not await listener.world.in_thread(listener.queue.withdraw, reqid):
                self.look()
        finally:
            self._machine.out_of_time()

    async def _leave(self, decision: PairDecision | None) -> None:
        assert self._request is not None
        listener, request = self.listener, self._request
        queue, in_thread = listener.queue, listener.world.in_thread
        ending = _ending(decision)
        try:
            if decision is not None:
                await in_thread(queue.remove, request.id)
            elif not await in_thread(queue.withdraw, request.id):
                # The decision stays where it is: its maker looks for it there.
                ending = Ending.UNDELIVERED
        finally:
            listener.events.emit(PairEnded(request.hostname, request.id, ending.value))
            listener.watcher.departed(request, ending)

    def _decision(self) -> PairDecision | None:
        assert self._request is not None
        return self.listener.queue.decision(self._request.id)


def _queued(
    pair: PairRequest, source: str, name: ReverseName, now: datetime
) -> QueuedRequest:
    return QueuedRequest(
        id=new_request_id(),
        hostname=pair.hostname,
        ip=pair.ip or source,
        csr=pair.csr,
        nonce=pair.nonce,
        received=iso_time(now),
        code=confirmation_code(pair.csr.encode()),
        source_ip=source,
        lookup_by=pair.lookup_by,
        port=pair.port,
        reverse_dns=name.name,
        reverse_confirmed=name.confirmed,
    )


def _ending(decision: PairDecision | None) -> Ending:
    match decision:
        case None:
            return Ending.WITHDRAWN
        case PairApproved():
            return Ending.DELIVERED
        case PairDenied():
            return Ending.EXPIRED if decision == TIMED_OUT else Ending.DENIED
