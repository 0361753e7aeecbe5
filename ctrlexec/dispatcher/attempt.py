# SPDX-License-Identifier: AGPL-3.0-only
"""
One agent at the pairing port, from its request to the last answer.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import attrs
from twisted.internet.interfaces import IDelayedCall

from ctrlexec.dispatcher import requests
from ctrlexec.dispatcher.records import QueuedRequest, Revealed
from ctrlexec.dispatcher.reverse_dns import ReverseName
from ctrlexec.dispatcher.surroundings import Ending
from ctrlexec.errors import RequestRejected, StoreError
from ctrlexec.events import PairEnded, PairRequested
from ctrlexec.pki import confirmation_code, read_csr
from ctrlexec.protocol import codec_pairing, limits
from ctrlexec.protocol.exchange import Exchange, Request
from ctrlexec.protocol.messages import (
    TIMED_OUT,
    JoinProof,
    PairApproved,
    PairDecision,
    PairDenied,
    PairFailed,
    PairOpened,
    PairPending,
    PairRequest,
    PairReveal,
)
from ctrlexec.protocol.pairing import REVEAL_PATH
from ctrlexec.protocol.pairing_dispatcher import (
    NEVER_REVEALED,
    DispatcherInputs,
    dispatcher_side,
)
from ctrlexec.values import iso_time, new_request_id

if TYPE_CHECKING:
    from ctrlexec.dispatcher.pairing import PairingListener

INVALID = PairFailed("invalid request")
QUEUE_FULL = PairFailed("pairing queue full")
TOO_MANY = PairFailed("too many requests were never revealed")
BROKEN = PairFailed("internal error")


@attrs.define(eq=False)
class Attempt:
    """
    One agent that asks, from its request to the end: what carries out the
    L{dispatcher's side<ctrlexec.protocol.pairing_dispatcher.dispatcher_side>}.
    """

    listener: PairingListener
    exchange: Exchange
    _machine: DispatcherInputs = attrs.field(init=False)
    _opened: PairOpened | None = attrs.field(default=None, init=False)
    _request: QueuedRequest | None = attrs.field(default=None, init=False)
    _deadline: IDelayedCall | None = attrs.field(default=None, init=False)
    _gone: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._machine = dispatcher_side(self)
        self.exchange.when_lost(self.agent_gone)

    # What happens.

    async def run(self) -> None:
        """
        Read the request; answer its commitment, queue it, or refuse it.
        """
        try:
            match codec_pairing.decode_pair_request(self.exchange.request.body):
                case PairFailed() as failed:
                    self._refuse(failed, failed.reason)
                case PairRequest(commitment="") as pair:
                    await self._enter(pair)
                case PairRequest() as pair:
                    await self._open(pair)
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
        self._abandon()
        self._machine.agent_gone()

    def _out_of_time(self) -> None:
        self.listener.hold(self._expire())

    # What the machine makes of it.

    def say(self, answer: PairOpened | PairPending | PairFailed | PairDecision) -> None:
        """
        See L{ctrlexec.protocol.pairing_dispatcher.Listener.say}.
        """
        match answer:
            case PairPending() | PairOpened():
                self.exchange.answer(
                    200, codec_pairing.encode_pair_first(answer), more=True
                )
            case PairFailed():
                self.exchange.answer(200, codec_pairing.encode_pair_first(answer))
            case _:
                self.exchange.answer(200, codec_pairing.encode_pair_decision(answer))

    def settled(self, decision: PairDecision | None) -> None:
        """
        See L{ctrlexec.protocol.pairing_dispatcher.Listener.settled}.
        """
        self._calm()
        if self._request is not None:
            self.listener.unwatch(self)
            if decision is None and not self._request.legacy:
                # Else who reveals and leaves at once could guess without end.
                now = self.listener.world.clock.seconds()
                self.listener.unrevealed.leave(self._request.id, now)
            self.listener.hold(self._leave(decision))

    # Commit, then reveal.

    async def _open(self, pair: PairRequest) -> None:
        """
        Answer with our nonce. Nobody sees the request yet, but it is counted.
        """
        listener = self.listener
        try:
            await listener.world.in_thread(read_csr, pair.csr.encode())
        except RequestRejected as error:
            self._refuse(INVALID, str(error))
            return
        if self._gone or listener.stopping:
            self._machine.agent_gone()
            return
        ours, clock = listener.credentials, listener.world.clock
        opened = requests.opened(ours.ca, ours.cert)
        # What brings a token never gets before a person: it guesses at no code.
        guesses = pair.join is None
        if guesses and not listener.unrevealed.begin(opened.reqid, clock.seconds()):
            self._refuse(TOO_MANY, TOO_MANY.reason)
            return
        self._opened = opened
        self._deadline = clock.callLater(
            limits.PAIRING_REVEAL_SECONDS, self._never_revealed
        )
        self._machine.opened(opened)
        self.exchange.when_asked(partial(self._asked, pair, opened))

    def _asked(self, pair: PairRequest, opened: PairOpened, request: Request) -> None:
        self._calm()
        self.listener.hold(self._revealed(pair, opened, request))

    async def _revealed(
        self, pair: PairRequest, opened: PairOpened, request: Request
    ) -> None:
        """
        Whoever does not keep their word has used up one of the guesses that
        there are.
        """
        reveal: PairReveal | PairFailed = INVALID
        if (request.method, request.path) == ("POST", REVEAL_PATH):
            reveal = codec_pairing.decode_pair_reveal(request.body)
        if isinstance(reveal, PairFailed):
            self._abandon()
            self._refuse(INVALID, "nothing was revealed")
        elif not requests.is_kept(pair, opened, reveal):
            self._abandon()
            self._refuse(INVALID, "what was revealed is not what was committed to")
        else:
            # Not uncounted before it waits: the queue may be full, on purpose.
            self._opened = None
            try:
                await self._enter(pair, requests.revealed(opened, reveal), opened.reqid)
            except Exception:
                self._machine.refused(BROKEN)
                raise

    def _never_revealed(self) -> None:
        self._abandon()
        self._machine.out_of_time()

    def _abandon(self) -> None:
        """
        Tell of somebody who knew the code and did not let a person see it.
        """
        if self._opened is not None:
            self._opened = None
            self._calm()
            if self.listener.stopping:
                return
            peer = self.exchange.peer
            self.listener.rejected(peer, NEVER_REVEALED.reason)
            self.listener.watcher.abandoned(peer.address)

    def _calm(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()

    # Into the queue, and out of it.

    async def _enter(
        self, pair: PairRequest, seen: Revealed | None = None, reqid: str = ""
    ) -> None:
        """
        @param seen: what both sides have revealed, and under which id; C{None}
            in the exchange of the original.
        """
        world, queue = self.listener.world, self.listener.queue
        source = self.exchange.peer.address
        try:
            await world.in_thread(read_csr, pair.csr.encode())
            name = await world.names(source)
            request = _queued(pair, source, name, world.now())
            if seen is not None:
                request = requests.with_revealed(request, reqid, seen)
            if pair.join is not None:
                await self._join(request, pair.join)
                return
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

    async def _join(self, request: QueuedRequest, proof: JoinProof) -> None:
        """
        No person decides; who refuses writes down why.
        """
        listener = self.listener
        if self._gone or listener.stopping:
            # A use of the token would be lost for nothing.
            self._machine.agent_gone()
            return
        match await listener.world.in_thread(listener.world.joins, request, proof):
            case PairFailed() as failed:
                self._machine.refused(failed)
            case PairApproved() as decision:
                ending = Ending.UNDELIVERED if self._gone else Ending.DELIVERED
                self._machine.queued(PairPending(request.id))
                self._machine.decided(decision)
                ended = PairEnded(request.hostname, request.id, ending.value)
                listener.events.emit(ended)

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
        listener.unrevealed.reveal(request.id)
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
