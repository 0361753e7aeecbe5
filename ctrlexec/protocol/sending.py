# SPDX-License-Identifier: AGPL-3.0-only
"""
Answers that are longer than a transport takes at once.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
)
from zope.interface import implementer

from ctrlexec.protocol.exchange import LongAnswer
from ctrlexec.protocol.http import LAST_CHUNK, chunk

#: Answers longer than this are written as fast as the peer reads them.
WRITE_BYTES = 65_536
#: What is pulled of an answer is written in pieces of so many bytes.
PIECE_BYTES = 16_384
#: After so many bytes the others have their turn, whatever the transport takes.
TURN_BYTES = 2 * WRITE_BYTES


class ITlsTransport(ISSLTransport, IConsumer, IPushProducer):
    """
    What a connection stands on.
    """


@implementer(IPushProducer)
@attrs.define
class Sender:
    """
    Writes a long answer piece by piece, as the transport takes it.
    """

    transport: ITlsTransport
    rest: memoryview
    progressed: Callable[[], None]
    done: Callable[[], None]
    _paused: bool = False

    def start(self) -> None:
        self.transport.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        while self.rest and not self._paused:
            piece, self.rest = self.rest[:WRITE_BYTES], self.rest[WRITE_BYTES:]
            self.progressed()
            self.transport.write(bytes(piece))
        if not self.rest and not self._paused:
            self._paused = True
            self.transport.unregisterProducer()
            self.done()

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        self.pauseProducing()


@implementer(IPushProducer)
@attrs.define(eq=False)
class Stream:
    """
    Writes an answer that is made while it is read: see
    L{ctrlexec.protocol.exchange.Streaming}.

    The transport keeps less than 64 KiB that it did not ask a pause for, TLS
    collects as much before it goes there: with a piece that is all that is ever
    held for a peer that does not read.

    @ivar waits: told whether there is something that the peer has to read first.
    @ivar done: told when the end is with the transport.
    """

    clock: IReactorTime
    transport: ITlsTransport
    answer: LongAnswer
    waits: Callable[[bool], None]
    done: Callable[[], None]
    _rest: memoryview = attrs.field(default=memoryview(b""), init=False)
    _owed: int = attrs.field(init=False)
    _paused: bool = attrs.field(default=False, init=False)
    _writing: bool = attrs.field(default=False, init=False)
    _over: bool = attrs.field(default=False, init=False)
    _turn: IDelayedCall | None = attrs.field(default=None, init=False)

    @_owed.default
    def _all_of_it(self) -> int:
        return self.answer.length or 0

    def start(self) -> None:
        """
        The head is written.
        """
        self.transport.registerProducer(self, True)
        self._in_turn()

    def stop(self) -> None:
        """
        No more of it is wanted.
        """
        if not self._over:
            self._over = True
            self._paused = False
            self._rest = memoryview(b"")
            if self._turn is not None:
                self._turn.cancel()
                self._turn = None
            self.transport.unregisterProducer()

    # What whoever makes it says.

    def ready(self) -> None:
        if self._writing:
            # From inside of the pull, which may say all the same that there is
            # nothing.
            self._in_turn()
        elif self._turn is None:
            self._write()

    def abort(self) -> None:
        if not self._over:
            self.stop()
            self.transport.abortConnection()

    # What the transport says.

    def resumeProducing(self) -> None:
        if not self._over:
            self._paused = False
            self.waits(False)
            self._write()

    def pauseProducing(self) -> None:
        if not self._over:
            self._paused = True
            self.waits(True)

    def stopProducing(self) -> None:
        self.pauseProducing()

    # Writing.

    def _in_turn(self) -> None:
        if self._turn is None and not self._over:
            self._turn = self.clock.callLater(0, self._have_turn)

    def _have_turn(self) -> None:
        self._turn = None
        self._write()

    def _write(self) -> None:
        if self._writing or self._over:
            return
        self._writing = True
        try:
            self._write_on()
        except BaseException:
            self.abort()
            raise
        finally:
            self._writing = False

    def _write_on(self) -> None:
        written = 0
        while not self._paused and not self._over:
            if written >= TURN_BYTES:
                self._in_turn()
                return
            piece = self._piece()
            if self._over:
                # The pull itself can have ended it.
                return
            if piece is None:
                self._end()
                return
            if not piece:
                return
            written += len(piece)
            self.transport.write(self._framed(piece))

    def _piece(self) -> bytes | None:
        if not self._rest:
            pulled = self.answer.pull()
            if pulled is None:
                return None
            self._rest = memoryview(pulled)
        piece, self._rest = self._rest[:PIECE_BYTES], self._rest[PIECE_BYTES:]
        return bytes(piece)

    def _framed(self, piece: bytes) -> bytes:
        if self.answer.length is None:
            return chunk(piece)
        self._owed -= len(piece)
        if self._owed < 0:
            raise ValueError("the answer is longer than it was said to be")
        return piece

    def _end(self) -> None:
        if self._owed:
            raise ValueError("the answer is shorter than it was said to be")
        if self.answer.length is None:
            self.transport.write(LAST_CHUNK)
        self.stop()
        self.done()
