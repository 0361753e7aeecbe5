# SPDX-License-Identifier: AGPL-3.0-only
"""
Scripts that do what a test tells them to, in place of real ones and of what looks
after them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from zope.interface import implementer

from ctrlexec.agent.runs import STDERR, STDOUT, Ending, StartOrder
from ctrlexec.errors import NotStarted
from ctrlexec.interfaces import ILiveScript, IScriptRunner
from ctrlexec.protocol.run_messages import CANCELLED, Signalled

#: What a script is told with that is cancelled.
TERM = Signalled(4242, "sleep", "TERM")


@implementer(ILiveScript)
@attrs.define(eq=False)
class FakeScript:
    """
    A script that was started, and ends when the test says so.

    @ivar order: with which it was started; C{None} for one that was found.
    @ivar ignores: it does not end when it is told to.
    @ivar faulty: it can not be told, which must not be.
    @ivar cancels: how often it was told to.
    """

    directory: Path
    order: StartOrder | None = None
    pid: int = 4242
    ignores: bool = False
    faulty: bool = False
    cancels: int = 0
    watchers: list[Callable[[], None]] = attrs.field(factory=list)
    _written: dict[str, int] = attrs.field(factory=dict)
    _ending: list[Ending | None] = attrs.field(factory=list)
    _waiting: list[Deferred[Ending | None]] = attrs.field(factory=list)
    _cancelling: list[Deferred[Sequence[Signalled]]] = attrs.field(factory=list)

    # What the test has it do.

    @property
    def context(self) -> Any:
        """
        What it reads on its standard input.
        """
        assert self.order is not None
        return json.loads(self.order.stdin)

    @property
    def args(self) -> tuple[str, ...]:
        """
        Its arguments.
        """
        assert self.order is not None
        return self.order.argv[1:]

    def writes(self, stdout: bytes = b"", stderr: bytes = b"") -> None:
        """
        Write something, of which as much is kept as it may be.
        """
        most = 2**23 if self.order is None else self.order.max_output
        for name, data in ((STDOUT, stdout), (STDERR, stderr)):
            before = self._written.get(name, 0)
            self._written[name] = before + len(data)
            if kept := data[: max(most - before, 0)]:
                with (self.directory / name).open("ab") as file:
                    file.write(kept)
        for each in tuple(self.watchers):
            each()

    def exits(self, exit: int = 0, **how: Any) -> None:
        """
        Come to an end.
        """
        counts = {f"{name}_bytes": count for name, count in self._written.items()}
        self.ends(Ending(exit=exit, **{**counts, **how}))

    def ends(self, ending: Ending | None) -> None:
        """
        Come to an end that nobody has seen, or to any other.
        """
        self._ending.append(ending)
        cancelling, self._cancelling = self._cancelling, []
        for done in cancelling:
            done.callback([TERM])
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(ending)

    def fails(self) -> None:
        """
        Do what none must: nobody can say what becomes of it.
        """
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.errback(ZeroDivisionError())

    # L{ILiveScript}

    def ended(self) -> Deferred[Ending | None]:
        waiting: Deferred[Ending | None] = Deferred(lambda w: self._waiting.remove(w))
        if self._ending:
            waiting.callback(self._ending[0])
        else:
            self._waiting.append(waiting)
        return waiting

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        self.watchers.append(callback)

        def ends() -> None:
            if callback in self.watchers:
                self.watchers.remove(callback)

        return ends

    async def cancel(self) -> Sequence[Signalled]:
        self.cancels += 1
        if self.faulty:
            raise ZeroDivisionError
        if self._ending:
            return []
        done: Deferred[Sequence[Signalled]] = Deferred()
        self._cancelling.append(done)
        if not self.ignores:
            self.exits(126, state=CANCELLED, reason="cancelled")
        return await done


@implementer(IScriptRunner)
@attrs.define(eq=False)
class FakeScripts:
    """
    Starts nothing, and remembers it.

    @ivar refusal: what stops the next start, if anything.
    @ivar starting: what a start waits for, if anything.
    @ivar spoils: nobody can read what its scripts write.
    @ivar left: what there is of runs of before, by their directory.
    """

    started: list[FakeScript] = attrs.field(factory=list)
    refusal: NotStarted | OSError | None = None
    starting: Deferred[None] | None = None
    left: dict[Path, FakeScript | Ending | None] = attrs.field(factory=dict)
    spoils: bool = False
    closed: bool = False

    async def start(self, order: StartOrder) -> ILiveScript:
        """
        See L{IScriptRunner}.
        """
        assert os.listdir(order.directory) == []
        if self.starting is not None:
            await self.starting
        if self.refusal is not None:
            raise self.refusal
        script = FakeScript(order.directory, order)
        if self.spoils:
            (order.directory / STDOUT).symlink_to("nowhere")
        self.started.append(script)
        return script

    async def adopt(self, directory: Path) -> ILiveScript | Ending | None:
        """
        See L{IScriptRunner}.
        """
        return self.left.get(directory)

    def warm_up(self) -> None:
        """
        See L{IScriptRunner}.
        """

    async def close(self) -> None:
        """
        See L{IScriptRunner}.
        """
        self.closed = True
