# SPDX-License-Identifier: AGPL-3.0-only
"""
What one follower of a run is told: its output from some place on, as it comes,
and how it has ended (C{docs/runs.md}).

A follower is a place in two files. Nothing is read before it is asked for, so
one that is slow costs as much as one that is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from ctrlexec.agent.run_output import STREAMS, OutputReader
from ctrlexec.agent.run_records import OutputText, RunRecord
from ctrlexec.protocol.codec_runs import encode_event, encode_heartbeat
from ctrlexec.protocol.limits import EVENT_BYTES
from ctrlexec.protocol.run_messages import (
    RUNNING,
    Output,
    RunEvent,
    StateChanged,
    StreamEnded,
)


@attrs.define
class Tail:
    """
    An output stream, as one follower hears of it.

    @ivar text: what was told.
    """

    reader: OutputReader
    text: OutputText

    def next(self) -> tuple[str, int] | None:
        """
        @return: what there is more of it, which is nothing while a character has
            only begun, and how many bytes the follower has with it; C{None} where
            there is no more yet.
        """
        data = self.reader.read(EVENT_BYTES)
        if not data:
            return None
        return self.text.more(data), self.text.end

    def rest(self, total: int) -> tuple[str, int]:
        """
        What is left to say when all of it was read.

        @param total: how much was written.
        """
        # The one before the other: what waits is told, and counts.
        rest = self.text.rest(total)
        return rest + self.text.cut(total), self.text.end


@attrs.define(eq=False)
class RunStream:
    """
    The events of a run, one after the other.

    @ivar seconds: for how long the run has lived.
    @ivar lives: whether it did when the follower came.
    """

    tails: Sequence[Tail]
    seconds: Callable[[], float]
    lives: bool
    _record: RunRecord | None = attrs.field(default=None, init=False)
    _reqid: str = attrs.field(default="", init=False)
    _events: list[RunEvent] = attrs.field(factory=list, init=False)
    _beats: bool = attrs.field(default=False, init=False)
    _told: bool = attrs.field(default=False, init=False)
    _over: bool = attrs.field(default=False, init=False)

    @classmethod
    def of(
        cls,
        readers: Sequence[OutputReader],
        at: tuple[int, int],
        seconds: Callable[[], float],
        lives: bool = True,
    ) -> RunStream:
        """
        @param readers: of stdout and of stderr.
        @param at: how many bytes of each the follower has.
        """
        tails = [
            Tail(reader, OutputText(name, end))
            for reader, name, end in zip(readers, STREAMS, at, strict=True)
        ]
        return cls(tails, seconds, lives)

    def ended(self, record: RunRecord, reqid: str) -> None:
        """
        The run has ended; all that it wrote is there to be read.

        @param reqid: as the follower knows it.
        """
        self._record, self._reqid = record, reqid

    def look(self) -> None:
        """
        There is more output, or no more will come.

        @raise OSError: it can not be read.
        """
        for tail in self.tails:
            tail.reader.look()

    def beat(self) -> None:
        """
        Nothing was told for a while; say something, then.
        """
        self._beats = not self._told
        self._told = False

    def pull(self) -> bytes | None:
        """
        See L{ctrlexec.protocol.exchange.Pull}.

        @raise OSError: the rest can not be read.
        """
        if self._over:
            return None
        if self.lives:
            self.lives = False
            return self._tell(StateChanged(self.seconds(), RUNNING))
        if self._events:
            return self._tell(self._events.pop(0))
        # Whether it has ended is looked at first: what it wrote before was there
        # by then.
        ended = self._record
        for tail in self.tails:
            while (more := tail.next()) is not None:
                if more[0]:
                    return self._tell(self._output(tail, *more))
        if ended is not None:
            self._events = self._last(ended)
            return self._tell(self._events.pop(0))
        if self._beats:
            self._beats = False
            return encode_heartbeat(self.seconds())
        return b""

    def close(self) -> None:
        """
        Nobody follows any more.
        """
        self._over = True
        for tail in self.tails:
            tail.reader.close()

    def _last(self, record: RunRecord) -> list[RunEvent]:
        rests = [
            (tail, *tail.rest(record.total(tail.text.stream))) for tail in self.tails
        ]
        events: list[RunEvent] = [
            self._output(tail, text, end) for tail, text, end in rests if text
        ]
        end = StreamEnded(
            seconds=self.seconds(),
            script=record.script,
            reqid=self._reqid,
            exit=record.exit,
            state=record.state,
            reason=record.reason,
            stdout_bytes=record.stdout_bytes,
            stderr_bytes=record.stderr_bytes,
        )
        return [*events, end]

    def _output(self, tail: Tail, text: str, end: int) -> Output:
        return Output(self.seconds(), tail.text.stream, text, end)

    def _tell(self, event: RunEvent) -> bytes:
        self._told, self._beats = True, False
        if isinstance(event, StreamEnded):
            self.close()
        return encode_event(event)
