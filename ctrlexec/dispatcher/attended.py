# SPDX-License-Identifier: AGPL-3.0-only
"""
A run that this process carries out while somebody sits in front of it, who may
interrupt it. While they think about what they want, it goes on; only what
scripts write is kept from them, and so from being read.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from ctrlexec.dispatcher.backend import Interruptible
from ctrlexec.dispatcher.interruption import ANSWER_SECONDS, Wanted
from ctrlexec.dispatcher.operations import Dispatcher
from ctrlexec.dispatcher.orders import Caller
from ctrlexec.dispatcher.results import RunRow
from ctrlexec.errors import CtrlExecError
from ctrlexec.protocol.run_messages import Output, StateChanged
from ctrlexec.typed_lines import TypedLines

T = TypeVar("T")


@attrs.frozen
class _Question:
    """
    What they are asked, as long as they may answer.
    """

    lines: TypedLines
    timer: IDelayedCall


@attrs.define(eq=False)
class Attended:
    """
    A L{Watcher<ctrlexec.dispatcher.results.Watcher>} between a run and whoever
    looks on.

    @ivar ours: the dispatcher, with a reactor.
    """

    ours: Dispatcher
    caller: Caller
    onlooker: Interruptible[RunRow]
    _reqid: str = attrs.field(default="", init=False)
    _working: Deferred[Any] = attrs.field(factory=Deferred, init=False)
    _ending: Deferred[None] | None = attrs.field(default=None, init=False)
    _question: _Question | None = attrs.field(default=None, init=False)
    _held: list[tuple[str, Output | StateChanged, Deferred[None]]] = attrs.field(
        factory=list, init=False
    )
    _why: BaseException | None = attrs.field(default=None, init=False)

    async def see(self, work: Coroutine[Deferred[Any], Any, T]) -> T:
        """
        See to it until it ends.

        @return: what comes of it.
        @raise KeyboardInterrupt: they do not want to wait.
        """
        reactor = self.ours.process.reactor
        self._working = Deferred.fromCoroutine(work)
        try:
            # A signal comes at any time, and is for when nothing else is done.
            with self.onlooker.catching(
                lambda: reactor.callFromThread(self.interrupted)
            ):
                result: T = await self._working
                if self._ending is not None:
                    await self._ending
                return result
        except CancelledError:
            if self._why is not None:
                raise self._why from None
            raise
        finally:
            self._close_question()
            if self._ending is not None:
                self._ending.cancel()

    # --- what they want --------------------------------------------------

    def interrupted(self) -> None:
        """
        They have interrupted it. The first time they are asked what they mean
        by that; the second time it is clear.
        """
        ending = self._ending is not None and not self._ending.called
        if self._question is not None or ending or not self.onlooker.offers():
            self._leave(KeyboardInterrupt())
            return
        reactor = self.ours.process.reactor
        lines = TypedLines(self.onlooker.stdin, self._typed, lambda: self._typed(None))
        timer = reactor.callLater(ANSWER_SECONDS, self._typed, None)
        self._question = _Question(lines, timer)
        reactor.addReader(lines)

    def _typed(self, text: str | None) -> None:
        if self._question is None:
            return
        self._close_question()
        match self.onlooker.wants(text):
            case Wanted.LEAVE:
                self._leave(KeyboardInterrupt())
                return
            case Wanted.CANCEL:
                self._ending = Deferred.fromCoroutine(self._end())
                self._ending.addErrback(_given_up)
        held, self._held = self._held, []
        for host, event, taken in held:
            self._tell(host, event)
            taken.callback(None)

    def _close_question(self) -> None:
        if self._question is not None:
            question, self._question = self._question, None
            self.ours.process.reactor.removeReader(question.lines)
            if question.timer.active():
                question.timer.cancel()

    def _leave(self, why: BaseException) -> None:
        if self._why is None:
            self._why = why
            # Not in the middle of what an agent is being listened to.
            self.ours.process.reactor.callLater(0, self._give_up)

    def _give_up(self) -> None:
        self._working.cancel()
        if self._ending is not None:
            self._ending.cancel()

    async def _end(self) -> None:
        canceller = self.onlooker.canceller()
        try:
            await self.ours.cancel(self.caller, self._reqid, (), canceller)
        except CtrlExecError as error:
            canceller.failed(error)

    # --- what they see ---------------------------------------------------

    def planned(self, hosts: int, reqid: str = "") -> None:
        """
        See L{Watcher<ctrlexec.dispatcher.results.Watcher>}, as for the others.
        """
        self._reqid = reqid
        self.onlooker.planned(hosts, reqid)

    def wanted(self) -> bool:
        """
        No further host is asked for somebody who is about to leave.
        """
        return self._why is None and self.onlooker.wanted()

    def asked(self, host: str) -> None:
        """
        Tell them.
        """
        self.onlooker.asked(host)

    def arrived(self, row: RunRow) -> None:
        """
        Tell them.
        """
        self.onlooker.arrived(row)

    def heard(self, host: str, event: Output | StateChanged) -> Deferred[None] | None:
        """
        Tell them, unless they are being asked something.
        """
        if self._question is None:
            return self._tell(host, event)
        taken: Deferred[None] = Deferred()
        self._held.append((host, event, taken))
        return taken

    def _tell(self, host: str, event: Output | StateChanged) -> Deferred[None] | None:
        try:
            return self.onlooker.heard(host, event)
        except BrokenPipeError as error:
            # No agent is to blame for that.
            self._leave(error)
            return Deferred()


def _given_up(failure: Failure) -> None:
    failure.trap(CancelledError)
