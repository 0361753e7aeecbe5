# SPDX-License-Identifier: AGPL-3.0-only
"""
Answers that are files, or go on for as long as a run does: nothing of them is held
but what the peer has room for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from ctrlexec.agent.in_force import Caller, InForce
from ctrlexec.agent.run_output import (
    FileOutput,
    OutputReader,
    open_files,
    open_record,
)
from ctrlexec.agent.run_records import (
    HEAD_BYTES,
    PIECE_BYTES,
    STDOUT_MARK,
    RunRecord,
    around,
)
from ctrlexec.agent.run_store import Finished
from ctrlexec.agent.run_table import Run
from ctrlexec.agent.run_writing import open_path
from ctrlexec.agent.streams import RunStream
from ctrlexec.errors import InvalidValue, StoreError
from ctrlexec.protocol.codec_runs import EVENTS_TYPE
from ctrlexec.protocol.exchange import Exchange, Streaming
from ctrlexec.protocol.limits import HEARTBEAT_SECONDS
from ctrlexec.protocol.sending import WRITE_BYTES
from ctrlexec.values import from_iso_time

T = TypeVar("T")


async def while_there(exchange: Exchange, waiting: Deferred[T]) -> T:
    """
    Wait for something, for as long as the peer does.

    @raise CancelledError: it does not any more.
    """
    exchange.when_lost(waiting.cancel)
    return await waiting


def answer_record(exchange: Exchange, code: int, path: Path) -> None:
    """
    Answer with a record as it stands.

    @raise StoreError: it can not be read.
    """
    file = _opened(path)
    file.most = os.fstat(file.descriptor).st_size
    _answer(exchange, code, b"", file, b"")


def answer_output(
    exchange: Exchange, code: int, hollow: bytes, finished: Finished
) -> None:
    """
    Answer with a message about a run that has ended.

    @param hollow: the message, whose stdout and stderr are empty.
    @raise StoreError: the record of the run can not be read.
    """
    file = _opened(finished.path)
    beginning = os.pread(file.descriptor, HEAD_BYTES, 0)
    place = beginning.find(STDOUT_MARK)
    if place < 0:
        file.close()
        raise StoreError(finished.path, "is no record of ours")
    # Behind the comma, and before what ends the record.
    file.at, file.most = place + 1, os.fstat(file.descriptor).st_size - 1
    before, after = around(hollow)
    _answer(exchange, code, before, file, after)


def _opened(path: Path) -> FileOutput:
    try:
        # Where it is in memory, its path is a link.
        return FileOutput(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise StoreError(path, f"cannot read it: {error.strerror}") from error


def _answer(
    exchange: Exchange, code: int, before: bytes, file: FileOutput, after: bytes
) -> None:
    assert file.most is not None
    length = len(before) + file.most - file.at + len(after)
    pieces = _pieces(before, file, after)
    if length <= WRITE_BYTES:
        exchange.answer(code, b"".join(pieces))
    else:
        exchange.when_lost(file.close)
        exchange.answer_from(code, length, lambda: next(pieces, None))


def _pieces(before: bytes, file: FileOutput, after: bytes) -> Iterator[bytes]:
    try:
        if before:
            yield before
        while piece := file.read(PIECE_BYTES):
            yield piece
        if after:
            yield after
    finally:
        file.close()


def _readers(finished: Finished, at: tuple[int, int]) -> Sequence[OutputReader]:
    if finished.directory is not None:
        with suppress(StoreError):
            return open_files(finished.directory, at, finished.record)
    return open_record(finished.path, finished.record, at)


def _lasted(record: RunRecord) -> float:
    """
    How long a run took, as the wall clock had it.
    """
    try:
        took = from_iso_time(record.finished) - from_iso_time(record.started)
    except InvalidValue:
        return 0.0
    return max(0.0, took.total_seconds())


@attrs.frozen
class Following:
    """
    Lets dispatchers follow runs.

    @ivar clock: for the heartbeats.
    @ivar seconds: tells the time, of a clock that nobody sets.
    """

    in_force: InForce
    clock: IReactorTime
    seconds: Callable[[], float]

    async def follow(
        self,
        exchange: Exchange,
        caller: Caller,
        run: Run,
        at: tuple[int, int],
        reqid: str,
    ) -> None:
        """
        Answer with the events of a run that was started.

        @param at: how many bytes of stdout and of stderr the caller has.
        @raise StoreError: its output can not be read.
        """
        readers = None
        if run.script is not None and run.directory is not None:
            with suppress(StoreError):
                readers = open_files(run.directory, at)
        if run.script is None or readers is None:
            finished = await while_there(exchange, run.finished.wait())
            await self.follow_ended(exchange, caller, finished, at, reqid)
            return
        stream = RunStream.of(readers, at, lambda: run.seconds(self.seconds()))
        streaming = self._begin(exchange, caller, stream)

        def over(finished: Finished) -> None:
            unwatch()
            stream.ended(finished.record, reqid)
            streaming.ready()

        def grown() -> None:
            # Now: by the time at which the peer has room for it its run may have
            # ended, and only what is open be left.
            try:
                stream.look()
            except OSError:
                streaming.abort()
            else:
                streaming.ready()

        unwatch = run.script.watch(grown)
        waiting = run.finished.wait()
        # Where nobody can say what became of it the stream has no end.
        waiting.addCallbacks(over, lambda _: streaming.abort())
        exchange.when_lost(unwatch)
        exchange.when_lost(waiting.cancel)

    async def follow_ended(
        self,
        exchange: Exchange,
        caller: Caller,
        finished: Finished,
        at: tuple[int, int],
        reqid: str,
    ) -> None:
        """
        Answer with the events of a run that has ended.
        """
        # What is in memory may be forgotten before the thread comes to it, and its
        # path would be that of another's record.
        held = _opened(finished.path)
        try:
            here = attrs.evolve(finished, path=open_path(held.descriptor))
            readers = await self.in_force.in_thread(_readers, here, at)
        finally:
            held.close()
        lasted = _lasted(finished.record)
        stream = RunStream.of(readers, at, lambda: lasted, lives=False)
        stream.ended(finished.record, reqid)
        self._begin(exchange, caller, stream)

    def _begin(
        self, exchange: Exchange, caller: Caller, stream: RunStream
    ) -> Streaming:
        """
        Tell what there is to tell, for as long as the caller is trusted.
        """

        def pull() -> bytes | None:
            if not self.in_force.trusts(caller):
                streaming.abort()
                return b""
            piece = stream.pull()
            if piece is None:
                over()
            return piece

        def beat() -> None:
            stream.beat()
            streaming.ready()

        def over() -> None:
            stream.close()
            if beating.running:
                beating.stop()

        beating = LoopingCall(beat)
        beating.clock = self.clock
        streaming = exchange.stream(200, EVENTS_TYPE, pull)
        beating.start(HEARTBEAT_SECONDS, now=False)
        exchange.when_lost(over)
        return streaming
