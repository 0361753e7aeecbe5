# SPDX-License-Identifier: AGPL-3.0-only
"""
Writing down what becomes of runs, whatever the disk has to say to it, and
forgetting it in time.
"""

from __future__ import annotations

import errno
from functools import partial
from pathlib import Path

import attrs

from ctrlexec.agent.in_force import InForce
from ctrlexec.agent.run_ages import KEPT_SECONDS, Ages, read_ages
from ctrlexec.agent.run_elsewhere import Elsewhere
from ctrlexec.agent.run_records import RunRecord
from ctrlexec.agent.run_store import Finished, RunKey, RunStore, remove_run
from ctrlexec.agent.run_sweep import carry_out, plan
from ctrlexec.agent.run_table import Run, RunTable
from ctrlexec.agent.run_writing import forget_in_memory, shorten, write_in_memory
from ctrlexec.errors import StoreError
from ctrlexec.events import AgesFailed, RecordNotWritten, RunsCrowded
from ctrlexec.uptime import boot_id

#: How much of each output stream is kept of a run that the store has no room
#: for, in bytes; and of how many such runs, before it is much less of the next.
UNSAVED_BYTES, UNSAVED_RUNS, CROWDED_BYTES = 2**20, 32, 4096
#: How many such runs there may be. Each takes a descriptor, and room in memory.
MOST_UNSAVED = 64
_BLOCK = 4096
#: What a disk says that has no room.
_FULL = (errno.ENOSPC, errno.EDQUOT)
#: How long the store is left alone after it was looked through: so many times as
#: long as that took.
REST = 20.0
#: What takes no longer than this, in seconds, needs less: the contract has the store
#: looked through whenever something is begun that nobody waits for.
BRIEF_SECONDS, BRIEF_REST = 0.25, 2.0
#: How often what is there is written down, in seconds, if nothing is forgotten.
NOTED_SECONDS = 600.0


@attrs.define(eq=False)
class RunArchive:
    """
    @ivar store: used in threads, but for the quickest of questions.
    @ivar table: the runs that live, and those that the store could not take.
    @ivar ages: for how long the store has had which of all others.
    @ivar _room: how many bytes of what a store may take are left, for all we know.
    """

    in_force: InForce
    store: RunStore
    table: RunTable
    elsewhere: Elsewhere = attrs.field(init=False)
    ages: Ages = attrs.field(factory=Ages, init=False)
    _room: int = attrs.field(default=0, init=False)
    _rested: float = attrs.field(default=0.0, init=False)
    _noted: float | None = attrs.field(default=None, init=False)
    _sweeping: bool = attrs.field(default=False, init=False)

    @elsewhere.default
    def _in_its_place(self) -> Elsewhere:
        return Elsewhere(self.store.root)

    async def left(self) -> list[tuple[RunKey, RunRecord, Path]]:
        """
        Take over what an agent before us has left. Nothing is written before.

        @return: its runs that it has not seen end, and their directories.
        """
        in_thread, ages = self.in_force.in_thread, Ages()
        try:
            ages = await in_thread(read_ages, self.store.root)
        except StoreError as error:
            self.in_force.events.emit(AgesFailed(str(error)))
        self.ages = ages.resumed(await in_thread(boot_id), self.table.seconds())
        await self.in_force.in_thread(self.store.tidy)
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
        self._room -= _size(run.record)
        # Whoever has waited has it open by now.
        self.table.discard(run)
        if run.key in self.table.unsaved:
            # Its directory is all that another agent would find of its end.
            if not self._sweeping:
                await self._make_room()
        elif not run.record.reqid:
            await self.in_force.in_thread(self._clear, run, finished, directory)

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
        try:
            return await self.in_force.in_thread(self._finish, run, record, directory)
        except StoreError as error:
            self._complain(run, error)
            full = getattr(error.__cause__, "errno", 0) in _FULL
        crowded = len(self.table.unsaved) >= UNSAVED_RUNS
        most_bytes = CROWDED_BYTES if crowded else UNSAVED_BYTES
        write = partial(self.in_force.in_thread, write_in_memory, record)
        try:
            sharing = full and not run.private
            finished = Finished(*await write(directory, most_bytes, sharing))
        except OSError as error:
            # Its output can not be read; how it has ended is known all the same.
            self._complain(run, StoreError(directory, str(error)))
            finished = Finished(*await write(directory / "nowhere", 0))
            sharing = False
        if sharing and (
            saved := await self.in_force.in_thread(
                self._saved_instead, run, finished, directory
            )
        ):
            return saved
        self.table.unsaved[run.key] = run
        return finished

    def _saved_instead(
        self, run: Run, finished: Finished, directory: Path
    ) -> Finished | None:
        """
        Where it is what the run has written that fills the disk: cut it to what is
        kept of it, and have the record take its place.
        """
        # Nobody can ask for one that has no id.
        if not shorten(directory, finished.record) or not run.record.reqid:
            return None
        try:
            path = self.store.save(run.key, finished.path)
        except StoreError:
            return None
        forget_in_memory(finished.path)
        remove_run(directory)
        return Finished(finished.record, path)

    def is_gone(self, key: RunKey) -> bool:
        """
        Whether it is a run that there was no room for until its time was over.
        """
        return self.ages.is_gone(key)

    async def sweep(self) -> None:
        """
        Forget what is old, and write what could not be written before.
        """
        if self._sweeping:
            return
        self._sweeping, begun = True, self.table.seconds()
        try:
            await self._forget()
            for run in tuple(self.table.unsaved.values()):
                await self._save(run)
        finally:
            ended = self.table.seconds()
            took = ended - begun
            rest = took * (REST if took > BRIEF_SECONDS else BRIEF_REST)
            self._rested, self._sweeping = ended + rest, False

    async def _forget(self) -> None:
        in_thread, events = self.in_force.in_thread, self.in_force.events
        most = self.in_force.policy.settings.run_store_size
        ages = self.ages.at(self.table.seconds())
        now = self.in_force.now().timestamp()
        sweep = await in_thread(plan, self.store, ages, now, most, self.table.holds)
        # From now on nobody starts those again.
        self.ages, self._room = sweep.ages, most - sweep.size
        for owner, count in sweep.losers.items():
            events.emit(RunsCrowded(owner, count))
        try:
            await in_thread(partial(carry_out, self.store, sweep, noting=self._notes()))
        except StoreError as error:
            events.emit(AgesFailed(str(error)))

    def _notes(self) -> bool:
        """
        Whether it is time to write down again what there is. Until that is done all
        that can happen is that something is kept for longer.
        """
        now, before = self.table.seconds(), self._noted
        if before is not None and now - before < NOTED_SECONDS:
            return False
        self._noted = now
        return True

    @property
    def due(self) -> bool:
        """
        Whether the store may be looked through again.
        """
        return not self._sweeping and self.table.seconds() >= self._rested

    @property
    def is_full(self) -> bool:
        """
        Whether the store has more than it may, for all we know.
        """
        return self._room < 0

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

    def _finish(self, run: Run, record: RunRecord, directory: Path) -> Finished:
        durable = record.asynchronous
        finished = self.store.finish(run.key, record, directory, durable=durable)
        if record.reqid:
            # Who follows it has its files open. The record of one that has no id is
            # read before it is removed with the rest.
            self._clear(run, finished, directory)
        return finished

    def _give_up(self, run: Run, directory: Path) -> None:
        if run.private:
            self.elsewhere.end(directory)
        else:
            self.store.give_up(run.key)

    def _clear(self, run: Run, finished: Finished, directory: Path) -> None:
        if run.private:
            self.elsewhere.end(directory)
        elif finished.directory is None:
            remove_run(directory)
        if not run.record.reqid:
            self.store.give_up(run.key)

    def _complain(self, run: Run, error: StoreError) -> None:
        self.in_force.events.emit(RecordNotWritten(run.record.reqid, str(error)))


def _size(record: RunRecord) -> int:
    """
    About how many bytes of the store a run takes that has ended.
    """
    return _BLOCK + record.stdout_kept + record.stderr_kept if record.reqid else 0
