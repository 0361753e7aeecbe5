# SPDX-License-Identifier: AGPL-3.0-only
"""
The rotation of the dispatcher's certificate: the next one is announced with the
present one, then used, and then the former one is taken from the agents.

The original announces the next one with itself, when nobody trusts it yet. Our
own agents trust the dispatcher's role and need none of this; they are told all
the same, since one question costs little.

Each step can be done twice, and is written down when it is done. So whoever
comes after a crash goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import attrs

from ctrlexec.dispatcher.announcing import Announcing
from ctrlexec.dispatcher.authority import Authority
from ctrlexec.dispatcher.dispatch import Agents
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.rotation_state import (
    RotationFile,
    RotationState,
    Stage,
    Standing,
    is_past,
    is_rotation_due,
    knows,
)
from ctrlexec.dispatcher.succession import Succession
from ctrlexec.errors import Conflict, CtrlExecError, NotFound, PkiError
from ctrlexec.events import (
    RotationBegun,
    RotationSwitched,
    SerialRetired,
    SerialStale,
)
from ctrlexec.files import exclusive_lock, make_directory
from ctrlexec.values import iso_time

if TYPE_CHECKING:
    from ctrlexec.dispatcher.operations import Dispatcher


@attrs.frozen
class Rotating:
    """
    Brings a rotation on.

    @ivar user: who does it, for the agents' hooks and for the events.
    """

    ours: Dispatcher
    user: str

    @property
    def file(self) -> RotationFile:
        """
        Where it is written down how far it is.
        """
        return RotationFile(self.ours.settings.rotation_file)

    @property
    def succession(self) -> Succession:
        """
        The identities.
        """
        return Succession(self.ours.settings)

    async def advance(self, *, begin: bool = False) -> RotationState:
        """
        Do what is to be done now, and no more than one stage of it but for the
        last.

        @param begin: begin one, whether or not it is due, and let the next
            certificate come into use whoever could not be told.
        @raise Conflict: one that has begun is not over yet.
        @raise CtrlExecError: what is done is written down; the rest is for the
            next time.
        """
        path = self.file.path
        make_directory(path.parent)
        with exclusive_lock(path.with_name(f".{path.name}.lock")):
            state = self._resumed(self.file.load())
            if begin and state.stage in (Stage.OVERLAP, Stage.RETIRING):
                raise Conflict(
                    "the last rotation is not over yet",
                    hint="ctrl-exec serial-status shows who is waited for; "
                    "ctrl-exec maintain goes on with it",
                )
            if state.stage is Stage.NONE and (begin or self._is_due()):
                state = self._begun(patient=not begin)
            return await self._step(state, begin)

    async def _step(self, state: RotationState, begin: bool) -> RotationState:
        told, serial = self._announcing, state.announced
        match state.stage:
            case Stage.ANNOUNCING:
                try:
                    agents = self._present()
                except PkiError:
                    # It has ended already, or a crash has left its key without
                    # its certificate; it can announce nothing.
                    return self._switched(state)
                older = await told.announce(serial, agents)
                others = told.waiting(serial, but=older)
                if begin or not others or is_past(state.switch_by, self._now()):
                    # Not before: one of them trusts one serial alone, and would
                    # not know us until the next certificate is in use.
                    await told.announce_older(older, serial, agents)
                    return self._switched(state)
            case Stage.OVERLAP:
                agents = self._former()
                older = await told.announce(serial, agents)
                await told.announce_older(older, serial, agents)
                left = told.waiting(serial)
                if not left or is_past(state.overlap_expires, self._now()):
                    self._give_up(left)
                    return await self._retire(self._retiring(state))
            case Stage.RETIRING:
                return await self._retire(state)
        return state

    def standing(self) -> Standing:
        """
        Where it stands. Nothing is changed.

        @raise CtrlExecError: nobody can say.
        """
        state = self.file.load()
        present = Authority(self.ours.settings).dispatcher()
        records, _ = self.ours.stores.registry.records()
        if state.stage is Stage.NONE:
            state = attrs.evolve(state, current_serial=present.serial)
        return Standing(state, present, tuple(records))

    # --- what is written down --------------------------------------------

    def _resumed(self, state: RotationState) -> RotationState:
        """
        What a state says that was left by a crash, or by somebody who made the
        identity anew by hand.
        """
        present = self.succession.info(self.succession.present)
        serial = present.serial if present else ""
        match state.stage:
            case Stage.ANNOUNCING if serial == state.next_serial:
                return self._switched(state)
            case Stage.ANNOUNCING:
                new = self.succession.info(self.succession.next)
                if new is None or new.serial != state.next_serial:
                    # Whom it was told to trusts a key that nobody has any more.
                    return self.file.save(RotationState(current_serial=serial))
            case _ if serial and serial != state.current_serial:
                state = attrs.evolve(state, current_serial=serial)
        if serial and serial == state.previous_serial:
            # An older state was put back: nobody must forget what is in use.
            state = attrs.evolve(state, previous_serial="")
        return state

    def _is_due(self) -> bool:
        now, authority = self._now(), Authority(self.ours.settings)
        return is_rotation_due(
            authority.dispatcher().not_after,
            authority.next_end(now),
            now,
            self.ours.settings.cert_renewal_days,
        )

    def _begun(self, *, patient: bool) -> RotationState:
        """
        The next certificate is made, and then it is written down that it is.
        """
        now = self._now()
        old = Authority(self.ours.settings).dispatcher()
        new = self.succession.prepare(now)
        until = now
        if patient:
            until = min(now + self._overlap, max(now, old.not_after - self._overlap))
        state = self.file.save(
            RotationState(
                stage=Stage.ANNOUNCING,
                current_serial=old.serial,
                next_serial=new.serial,
                switch_by=iso_time(until),
            )
        )
        self.ours.events.emit(RotationBegun(new.serial, old.serial, self.user))
        return state

    def _switched(self, state: RotationState) -> RotationState:
        """
        The next certificate is used, and then it is written down that it is.
        """
        succession, now = self.succession, self._now()
        present = succession.info(succession.present)
        if present is None or present.serial != state.next_serial:
            succession.switch()
        present = Authority(self.ours.settings).dispatcher()
        former = succession.info(succession.former)
        previous = former.serial if former else state.current_serial
        state = self.file.save(
            RotationState(
                stage=Stage.OVERLAP,
                current_serial=present.serial,
                previous_serial=previous,
                rotated_at=iso_time(now),
                overlap_expires=iso_time(now + self._overlap),
                overlap_days=self.ours.settings.cert_overlap_days,
                extra=state.extra,
            )
        )
        self.ours.events.emit(RotationSwitched(present.serial, previous))
        with suppress(CtrlExecError):
            succession.forget(succession.next)
        return state

    def _retiring(self, state: RotationState) -> RotationState:
        # Whoever has not taken the new serial would be left with none of ours,
        # and one of ours with none trusts our role no more.
        records, _ = self.ours.stores.registry.records()
        names = [each.hostname for each in records if knows(each, state.announced)]
        return self.file.save(
            attrs.evolve(state, stage=Stage.RETIRING, retiring=tuple(names))
        )

    def _retired(self, state: RotationState) -> RotationState:
        succession = self.succession
        succession.forget(succession.former)
        done = self.file.save(
            attrs.evolve(
                state,
                stage=Stage.NONE,
                previous_serial="",
                retiring=(),
                previous_retired=iso_time(self._now()),
            )
        )
        with suppress(CtrlExecError):
            succession.forget(succession.next)
        return done

    # --- what agents are told --------------------------------------------

    def _give_up(self, left: Sequence[AgentRecord]) -> None:
        def stale(record: AgentRecord) -> AgentRecord:
            return attrs.evolve(record, serial_status="stale")

        for record in left:
            with suppress(NotFound):
                self.ours.stores.registry.change(record.hostname, stale)
            self.ours.events.emit(SerialStale(record.hostname))

    async def _retire(self, state: RotationState) -> RotationState:
        """
        Have all agents forget the former serial. It goes on for as long as some
        do not answer and the former certificate lasts; its key is kept no longer
        than that.
        """
        known = {each.hostname: each for each in self.ours.stores.registry.records()[0]}
        left_over = (known[name] for name in state.retiring if name in known)
        asked = [record for record in left_over if not record.revoked]
        announcing, agents, left = self._announcing, self._present(), set[str]()

        async def tell(record: AgentRecord) -> None:
            if not await announcing.is_forgotten(record, state.previous_serial, agents):
                left.add(record.hostname)

        if state.previous_serial:
            await announcing.each(asked, tell)
        former = self.succession.info(self.succession.former)
        self.ours.events.emit(
            SerialRetired(len(asked) - len(left), state.previous_serial)
        )
        if left and former is not None and former.not_after > self._now():
            names = tuple(sorted(left))
            return self.file.save(attrs.evolve(state, retiring=names))
        return self._retired(state)

    # --- the parts -------------------------------------------------------

    @property
    def _announcing(self) -> Announcing:
        return Announcing(self.ours, self.user)

    def _present(self) -> Agents:
        return self.ours.agents(self.ours.process.reactor)

    def _former(self) -> Agents:
        """
        What speaks as the dispatcher that agents know. Where that is no more,
        those that go by its role still listen.
        """
        try:
            return self.ours.former_agents(self.ours.process.reactor)
        except (PkiError, FileNotFoundError):
            return self._present()

    @property
    def _overlap(self) -> timedelta:
        return timedelta(days=self.ours.settings.cert_overlap_days)

    def _now(self) -> datetime:
        return self.ours.process.now()
