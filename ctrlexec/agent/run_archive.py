# SPDX-License-Identifier: AGPL-3.0-only
"""
Writing down what becomes of runs, whatever the disk has to say to it, and
forgetting it in time.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import attrs

from ctrlexec.agent.in_force import InForce
from ctrlexec.agent.run_elsewhere import Elsewhere
from ctrlexec.agent.run_records import RunRecord
from ctrlexec.agent.run_store import Finished, RunKey, RunStore
from ctrlexec.agent.run_sweep import KEPT_SECONDS, sweep
from ctrlexec.agent.run_table import Run, RunTable
from ctrlexec.agent.run_writing import forget_in_memory, write_in_memory
from ctrlexec.errors import StoreError
from ctrlexec.events import RecordNotWritten

#: How much of each output stream is kept of a run that the store has no room
#: for, in bytes; and of how many such runs, before it is much less of the next.
UNSAVED_BYTES, UNSAVED_RUNS, CROWDED_BYTES = 2**20, 32, 4096
#: How many such runs there may be. Each takes a descriptor, and room in memory.
MOST_UNSAVED = 64
#: How long the store is left alone after it was looked through, in seconds.
SWEEP_SECONDS = 60.0


@attrs.define(eq=False)
class RunArchive:
    """
    @ivar store: used in threads, but for the quickest of questions.
    @ivar table: the runs that live, and those that the store could not take.
    """

    in_force: InForce
    store: RunStore
    table: RunTable
    elsewhere: Elsewhere = attrs.field(init=False)
    _swept: float | None = attrs.field(default=None, init=False)
    _sweeping: bool = attrs.field(default=False, init=False)

    @elsewhere.default
    def _in_its_place(self) -> Elsewhere:
        return Elsewhere(self.store.root)

    async def left(self) -> list[tuple[RunKey, RunRecord, Path]]:
        """
        @return: the runs that an agent before us has left, and their
            directories.
        """
        return await self.in_force.in_thread(
            lambda: [*self.store.running(), *self.elsewhere.left()]
        )

    async def begin(self, run: Run) -> Path | None:
        """
        Claim the id of a run, and make its directory. Where the store has no
        room, a run that somebody waits for gets one elsewhere.

        @return: C{None} where the id has been used.
        @raise StoreError: there is no room for a run that nobody waits for, or
            nowhere any.
        """
        detached = run.record.asynchronous
        claim = partial(self.store.claim, run.key, run.record, durable=detached)
        try:
            return await self.in_force.in_thread(claim)
        except StoreError as error:
            self._complain(run, error)
            if detached:
                raise
            run.private = True
            return await self.in_force.in_thread(self.elsewhere.begin, run.record)

    async def give_up(self, run: Run, directory: Path) -> None:
        """
        It was not started after all.
        """
        await self.in_force.in_thread(self._give_up, run, directory)

    async def end(self, run: Run, record: RunRecord, directory: Path) -> None:
        """
        Write down how a run has ended. From then on it is answered with that.

        @param directory: where its output is.
        """
        run.ended = self.table.seconds()
        finished = await self._written(run, record, directory)
        run.record = finished.record
        run.finished.come(finished)
        # Whoever has waited has it open by now.
        self.table.discard(run)
        if run.key not in self.table.unsaved:
            # Else it is all that another agent would find of its end.
            await self.in_force.in_thread(self._clear, run, finished, directory)
        elif not self._sweeping:
            await self._make_room()

    def has_room_again(self, run: Run) -> bool:
        """
        Whether a run has been written down, and others still are not.
        """
        return bool(self.table.unsaved) and run.key not in self.table.unsaved

    async def _make_room(self) -> None:
        """
        Forget what the store could not take and nobody can ask for, and the oldest
        of what there is too much of.
        """
        unsaved = self.table.unsaved
        more = len(unsaved) - MOST_UNSAVED
        gone = [
            (run, await run.finished.wait())
            for number, run in enumerate(tuple(unsaved.values()))
            if number < more or not run.record.reqid
        ]
        # All at once: while a directory is removed others may end.
        for run, finished in gone:
            self.table.spend(run.key)
            forget_in_memory(finished.path)
        for run, finished in gone:
            # What is in the store is found by the next agent.
            found = run.record.reqid and not run.private
            if run.directory is not None and not found:
                await self.in_force.in_thread(self._clear, run, finished, run.directory)

    async def _written(self, run: Run, record: RunRecord, directory: Path) -> Finished:
        finish = partial(
            self.store.finish, run.key, record, directory, durable=record.asynchronous
        )
        try:
            return await self.in_force.in_thread(finish)
        except StoreError as error:
            self._complain(run, error)
        crowded = len(self.table.unsaved) >= UNSAVED_RUNS
        most_bytes = CROWDED_BYTES if crowded else UNSAVED_BYTES
        write = partial(self.in_force.in_thread, write_in_memory, record)
        try:
            finished = Finished(*await write(directory, most_bytes))
        except OSError as error:
            # Its output can not be read; how it has ended is known all the same.
            self._complain(run, StoreError(directory, str(error)))
            finished = Finished(*await write(directory / "nowhere", 0))
        self.table.unsaved[run.key] = run
        return finished

    async def sweep(self, now: float) -> None:
        """
        Forget what is old, and write what could not be written before.

        @param now: unix seconds.
        """
        if self._sweeping:
            return
        self._sweeping, self._swept = True, self.table.seconds()
        settings = self.in_force.policy.settings
        try:
            await self.in_force.in_thread(
                sweep, self.store, now, settings.run_store_size, self.table.keys()
            )
            for run in tuple(self.table.unsaved.values()):
                await self._save(run)
        finally:
            self._sweeping = False

    @property
    def due(self) -> bool:
        """
        Whether it is worth while to look through the store again.
        """
        swept = self._swept
        return swept is None or self.table.seconds() - swept >= SWEEP_SECONDS

    async def _save(self, run: Run) -> None:
        finished = await run.finished.wait()
        old = self.table.seconds() - run.ended > KEPT_SECONDS
        if run.record.reqid and not old:
            save = partial(self.store.save, run.key, finished.path)
            try:
                await self.in_force.in_thread(save)
            except StoreError as error:
                self._complain(run, error)
                return
        del self.table.unsaved[run.key]
        forget_in_memory(finished.path)
        if run.directory is not None:
            await self.in_force.in_thread(self._clear, run, finished, run.directory)

    def _give_up(self, run: Run, directory: Path) -> None:
        if run.private:
            self.elsewhere.end(directory)
        else:
            self.store.give_up(run.key)

    def _clear(self, run: Run, finished: Finished, directory: Path) -> None:
        if run.private:
            self.elsewhere.end(directory)
        elif finished.directory is None:
            shutil.rmtree(directory, ignore_errors=True)
        if not run.record.reqid:
            self.store.give_up(run.key)

    def _complain(self, run: Run, error: StoreError) -> None:
        self.in_force.events.emit(RecordNotWritten(run.record.reqid, str(error)))
