# SPDX-License-Identifier: AGPL-3.0-only
"""
A command line that has its orders carried out in its own process.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import attrs

from ctrlexec.dispatcher.backend import Interruptible, Onlooker
from ctrlexec.dispatcher.operations import Dispatcher
from ctrlexec.dispatcher.orders import Caller, RunOrder, Seen, Selection
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.results import (
    CancelRow,
    DiscoveryRow,
    PingRow,
    PsRow,
    Report,
    RunRow,
    Watcher,
)
from ctrlexec.dispatcher.run_record import RunRecord
from ctrlexec.dispatcher.selection import Selected
from ctrlexec.dispatcher.world import Work
from ctrlexec.errors import StoreError, Unconfirmed

TICK_SECONDS = 1.0

T = TypeVar("T")
#: Something that a dispatcher is asked for.
Ask = Callable[[Dispatcher], Coroutine[Any, Any, T]]


@attrs.frozen
class LocalBackend:
    """
    A L{Backend<ctrlexec.dispatcher.backend.Backend>}.

    @ivar dispatcher: one without a reactor.
    @ivar wait: see L{ctrlexec.dispatcher.world.Loop}.
    """

    dispatcher: Dispatcher
    caller: Caller
    wait: Callable[[Work[Any]], Any]

    def run(self, order: RunOrder, onlooker: Interruptible[RunRow]) -> Report[RunRow]:
        """
        See L{ctrlexec.dispatcher.backend.Backend.run}.
        """
        confirmed = attrs.evolve(order, confirmed=True)

        # Both in one go: a reactor can not be started twice.
        async def agreed(ours: Dispatcher, watcher: Watcher[RunRow]) -> Report[RunRow]:
            try:
                return await ours.run(self.caller, order, watcher)
            except Unconfirmed as unconfirmed:
                if not onlooker.agrees(unconfirmed):
                    raise
            return await ours.run(self.caller, confirmed, watcher)

        return self._attended(agreed, onlooker)

    def attach(
        self,
        reqid: str,
        hosts: tuple[str, ...],
        seen: Mapping[str, Seen],
        onlooker: Interruptible[RunRow],
    ) -> Report[RunRow]:
        """
        See L{ctrlexec.dispatcher.backend.Backend.attach}.
        """
        return self._attended(
            lambda ours, watcher: ours.attach(self.caller, reqid, hosts, seen, watcher),
            onlooker,
        )

    def cancel(
        self, reqid: str, hosts: tuple[str, ...], onlooker: Onlooker[CancelRow]
    ) -> Report[CancelRow]:
        """
        See L{ctrlexec.dispatcher.backend.Backend.cancel}.
        """
        return self._watched(
            lambda ours: ours.cancel(self.caller, reqid, hosts, onlooker),
            onlooker.ticked,
        )

    def ps(self, selection: Selection, onlooker: Onlooker[PsRow]) -> Report[PsRow]:
        """
        See L{ctrlexec.dispatcher.backend.Backend.ps}.
        """
        return self._watched(
            lambda ours: ours.ps(self.caller, selection, onlooker), onlooker.ticked
        )

    def ping(
        self, selection: Selection, onlooker: Onlooker[PingRow]
    ) -> Report[PingRow]:
        """
        See L{ctrlexec.dispatcher.backend.Backend.ping}.
        """
        return self._watched(
            lambda ours: ours.ping(self.caller, selection, onlooker), onlooker.ticked
        )

    def discover(
        self, selection: Selection, onlooker: Onlooker[DiscoveryRow]
    ) -> Report[DiscoveryRow]:
        """
        See L{ctrlexec.dispatcher.backend.Backend.discover}.
        """
        return self._watched(
            lambda ours: ours.discover(self.caller, selection, onlooker),
            onlooker.ticked,
        )

    def select(self, selection: Selection) -> Selected:
        """
        See L{ctrlexec.dispatcher.backend.Backend.select}.
        """
        return self.carry_out(lambda ours: ours.select(self.caller, selection))

    def list_agents(
        self, tags: Mapping[str, str]
    ) -> tuple[Sequence[AgentRecord], Sequence[StoreError]]:
        """
        See L{ctrlexec.dispatcher.backend.Backend.list_agents}.
        """
        return self.carry_out(lambda ours: ours.list_agents(self.caller, tags))

    def status(self, reqid: str) -> RunRecord:
        """
        See L{ctrlexec.dispatcher.backend.Backend.status}.
        """
        # With a reactor hosts are asked of which it is not known.
        return self.ask_agents(lambda ours: ours.status(self.caller, reqid))

    def await_end(
        self, reqid: str, seconds: float, ticked: Callable[[], None]
    ) -> RunRecord:
        """
        See L{ctrlexec.dispatcher.backend.Backend.await_end}.
        """
        return self._watched(
            lambda ours: ours.wait(self.caller, reqid, seconds), ticked
        )

    def carry_out(self, ask: Ask[T]) -> T:
        """
        Ask for something that goes to no agent. A reactor is only loaded if
        something has to be waited for.
        """
        if self.dispatcher.needs_reactor:
            done: T = self.wait(lambda reactor: ask(self.dispatcher.on(reactor)))
            return done
        return at_once(ask(self.dispatcher))

    def ask_agents(self, ask: Ask[T]) -> T:
        """
        Ask for something that goes to agents, where nobody looks on.
        """
        done: T = self.wait(lambda reactor: ask(self.dispatcher.on(reactor)))
        return done

    def _attended(
        self,
        ask: Callable[[Dispatcher, Watcher[RunRow]], Coroutine[Any, Any, T]],
        onlooker: Interruptible[RunRow],
    ) -> T:
        """
        Ask for something that somebody may interrupt.
        """

        async def attended(ours: Dispatcher) -> T:
            # It needs Twisted, which is loaded by now.
            from ctrlexec.dispatcher.attended import Attended

            watcher = Attended(ours, self.caller, onlooker)
            return await watcher.see(ask(ours, watcher))

        return self._watched(attended, onlooker.ticked)

    def _watched(self, ask: Ask[T], ticked: Callable[[], None]) -> T:
        async def watched(reactor: Any) -> T:
            from twisted.internet.task import LoopingCall

            ticking = LoopingCall(ticked)
            ticking.clock = reactor
            # A progress line that can not be shown is no reason to stop.
            ticking.start(TICK_SECONDS, now=False).addErrback(lambda why: None)
            try:
                return await ask(self.dispatcher.on(reactor))
            finally:
                if ticking.running:
                    ticking.stop()

        done: T = self.wait(watched)
        return done


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """
    What comes of some work that waits for nothing.
    """
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise AssertionError(f"{work!r} waits, and nothing runs that it could wait for")
