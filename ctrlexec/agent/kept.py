# SPDX-License-Identifier: AGPL-3.0-only
"""
A script that has a keeper: what the keeper says of it, and what we ask.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ctrlexec.agent.keeper import orders
from ctrlexec.agent.keeper.frames import Frames, NotAFrame, frame
from ctrlexec.agent.runs import Ending
from ctrlexec.errors import LockHeld, NotStarted
from ctrlexec.interfaces import ILiveScript
from ctrlexec.protocol.run_messages import CANCELLED, DONE, FAILED, TIMED_OUT, Signalled

_ENDED_STATES = (DONE, CANCELLED, TIMED_OUT, FAILED)


class NeverKept(NotStarted):
    """
    There was no keeper: whoever should have made it is gone.
    """


def ending_from(text: bytes) -> Ending | None:
    """
    @param text: as a keeper has written it.
    @return: the ending, unless it is none.
    """
    try:
        fields = json.loads(text)
        ending = Ending(
            exit=int(fields["exit"]),
            state=str(fields["state"]),
            reason=str(fields["reason"]),
            stdout_bytes=int(fields["stdout_bytes"]),
            stderr_bytes=int(fields["stderr_bytes"]),
            stdin_timed_out=bool(fields["stdin_timed_out"]),
            finished=float(fields["finished"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    sound = 0 <= ending.exit <= 255 and isfinite(ending.finished)
    return ending if sound and ending.state in _ENDED_STATES else None


def written_ending(directory: Path) -> Ending | None:
    """
    @param directory: of a run.
    @return: how it has ended, if that is written down.
    """
    try:
        return ending_from((directory / orders.ENDING).read_bytes())
    except OSError:
        return None


class Line(Protocol):
    """
    A connection with a keeper.

    @ivar lost: fires when there is none any more.
    """

    transport: ITransport

    def __init__(self, script: KeptScript) -> None:
        self.lost: Deferred[None] = Deferred()
        self._script = script
        self._frames = Frames()

    def ask(self, *request: bytes) -> None:
        """
        Send something.
        """
        self.transport.write(frame(*request))

    def dataReceived(self, data: bytes) -> None:
        """
        The keeper says something.
        """
        self._frames.feed(data)
        try:
            while (fields := self._frames.next()) is not None:
                self._script.heard(fields)
        except NotAFrame:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The keeper is gone, or we are going.
        """
        self._script.cut()
        self.lost.callback(None)


@implementer(ILiveScript)
@attrs.define(eq=False)
class KeptScript:
    """
    A script and its keeper.

    @ivar directory: the one of the run.
    @ivar pid: the process id of the script; 0 until it is known, and for one
        that was never executed.
    @ivar over: whether it has ended.
    @ivar ending: how, if that is known.
    """

    directory: Path
    pid: int = 0
    over: bool = False
    ending: Ending | None = None
    _line: Line | None = None
    _left: bool = False
    _begun: bool = False
    _beginning: list[Deferred[None]] = attrs.field(factory=list, init=False)
    _waiting: list[Deferred[Ending | None]] = attrs.field(factory=list, init=False)
    _watchers: dict[object, Callable[[], None]] = attrs.field(factory=dict, init=False)
    _signalled: tuple[Signalled, ...] = ()

    # For whoever has started or found it.

    def speak_over(self, line: Line) -> None:
        """
        Be told of the script over a connection, which is new.
        """
        self._line = line

    def begun(self) -> Deferred[None]:
        """
        @return: fires when there is a keeper who has said so. Fails with
            L{NotStarted}.
        """
        beginning: Deferred[None] = Deferred(self._beginning.remove)
        self._beginning.append(beginning)
        return beginning

    def leave(self) -> None:
        """
        Hear no more of it. It goes on, and nobody who waits will know.
        """
        self._left = True
        if self._line is not None:
            self._line.transport.loseConnection()

    # What everybody may ask.

    def ended(self) -> Deferred[Ending | None]:
        """
        See L{ILiveScript}.
        """
        waiting: Deferred[Ending | None] = Deferred(self._forget)
        if self.over:
            waiting.callback(self.ending)
        else:
            self._waiting.append(waiting)
        return waiting

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """
        See L{ILiveScript}.
        """
        watcher = object()
        self._watchers[watcher] = callback
        if len(self._watchers) == 1:
            self._ask(orders.WATCH)

        def unwatch() -> None:
            if self._watchers.pop(watcher, None) and not self._watchers:
                self._ask(orders.UNWATCH)

        return unwatch

    async def cancel(self) -> Sequence[Signalled]:
        """
        See L{ILiveScript}.
        """
        if self.over:
            return ()
        self._ask(orders.CANCEL)
        await self.ended()
        return self._signalled

    # What the keeper says.

    def heard(self, fields: Sequence[bytes]) -> None:
        """
        The keeper has said something.
        """
        match fields:
            case [orders.RUNNING, pid]:
                self.pid = int(pid)
                self._has_begun()
            case [orders.OUTPUT]:
                self._notify()
            case [orders.ENDED, text, *signalled]:
                self._signalled = tuple(_signalled(signalled))
                self._end(ending_from(text))
            case [orders.BUSY, reason]:
                self._refuse(LockHeld(reason.decode("utf-8", "replace")))
            case [orders.REFUSED, reason]:
                self._refuse(NotStarted(reason.decode("utf-8", "replace")))

    def cut(self) -> None:
        """
        There is no connection any more.
        """
        self._line = None
        if self._left or self.over:
            return
        if not self._begun and not self._was_kept():
            self._refuse(NeverKept("the keeper did not start"))
            return
        self._end(written_ending(self.directory))

    def _was_kept(self) -> bool:
        names = (orders.SOCKET, orders.ENDING)
        return any((self.directory / name).exists() for name in names)

    def _has_begun(self) -> None:
        self._begun = True
        self._fire_beginning(None)

    def _refuse(self, why: NotStarted) -> None:
        self.over = True
        self._fire_beginning(Failure(why))

    def _fire_beginning(self, result: Failure | None) -> None:
        beginning, self._beginning = self._beginning, []
        for each in beginning:
            each.callback(result)

    def _notify(self) -> None:
        for callback in tuple(self._watchers.values()):
            callback()

    def _end(self, ending: Ending | None) -> None:
        if self.over:
            return
        self.over, self.ending = True, ending
        self._has_begun()
        self._notify()
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(ending)
        if self._line is not None:
            self._line.transport.loseConnection()

    def _ask(self, request: bytes) -> None:
        if self._line is not None and not self.over:
            self._line.ask(request)

    def _forget(self, waiting: Deferred[Ending | None]) -> None:
        self._waiting.remove(waiting)


def _signalled(fields: Sequence[bytes]) -> list[Signalled]:
    """
    @param fields: a process id, a command and a signal, again and again.
    """
    threes = zip(fields[::3], fields[1::3], fields[2::3], strict=False)
    return [
        Signalled(int(pid), command.decode("utf-8", "replace"), signal.decode("ascii"))
        for pid, command, signal in threes
    ]
