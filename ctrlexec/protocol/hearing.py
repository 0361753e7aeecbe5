# SPDX-License-Identifier: AGPL-3.0-only
"""
Hearing what a run writes, no faster than it is taken.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ctrlexec.errors import ProtocolError
from ctrlexec.protocol import limits
from ctrlexec.protocol.codec_runs import decode_event
from ctrlexec.protocol.run_messages import Output, StateChanged, StreamEnded

#: Is told what a run says. Until what it returns has fired, no more is read from
#: that agent.
Heard = Callable[[Output | StateChanged], Deferred[None] | None]


def _nobody(*_: object) -> None:
    pass


@attrs.define(eq=False)
class Hearing:
    """
    The events of a stream, one after the other, from the bytes of it.

    @ivar heard: is told each of them; but for the last one.
    @ivar ended: the last one, once it has come.
    @ivar waiting: whether somebody has not taken yet what they were told.
    @ivar resumed: called when they have.
    @ivar failed: called with the reason when they can not.
    """

    heard: Heard
    ended: StreamEnded | None = attrs.field(default=None, init=False)
    waiting: bool = attrs.field(default=False, init=False)
    resumed: Callable[[], None] = attrs.field(default=_nobody, init=False)
    failed: Callable[[Failure], None] = attrs.field(default=_nobody, init=False)
    _bytes: bytearray = attrs.field(factory=bytearray, init=False)
    _searched: int = attrs.field(default=0, init=False)

    @property
    def held_bytes(self) -> int:
        """
        How much was fed, and is not told yet.
        """
        return len(self._bytes)

    @property
    def complete(self) -> bool:
        """
        Whether the last event has come, and nothing after it.
        """
        return self.ended is not None and not self._bytes

    def feed(self, data: bytes) -> None:
        """
        Take bytes as they come, once all that was fed before is told.
        """
        self._bytes += data

    def tell(self) -> bool:
        """
        Tell the next event, if nobody is L{waiting}.

        @return: whether there was one.
        @raise ProtocolError: what came is no event.
        """
        line = self._line()
        if line is None:
            return False
        event = decode_event(line)
        if self.ended is not None:
            raise ProtocolError("the stream goes on after its end")
        match event:
            case StreamEnded():
                self.ended = event
            case Output() | StateChanged():
                self._wait_for(self.heard(event))
        return True

    def stop(self) -> None:
        """
        Whoever still takes what they were told is not waited for any more.
        """
        self.resumed, self.failed = _nobody, _nobody
        self._bytes.clear()

    def _line(self) -> bytes | None:
        end = self._bytes.find(b"\n", self._searched)
        length = end if end >= 0 else len(self._bytes)
        if length > limits.EVENT_LINE_BYTES:
            raise ProtocolError("an event of the stream is too long")
        if end < 0:
            self._searched = length
            return None
        line = bytes(self._bytes[:end])
        del self._bytes[: end + 1]
        self._searched = 0
        return line

    def _wait_for(self, taken: Deferred[None] | None) -> None:
        if taken is None:
            return
        outcomes: list[Failure | None] = []
        paused = False

        def over(outcome: Failure | None) -> None:
            outcomes.append(outcome)
            self.waiting = False
            if paused and outcome is None:
                self.resumed()
            elif paused and outcome is not None:
                self.failed(outcome)

        self.waiting = True
        taken.addCallbacks(lambda _: over(None), over)
        paused = not outcomes
        if outcomes and outcomes[0] is not None:
            outcomes[0].raiseException()
