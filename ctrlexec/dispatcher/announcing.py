# SPDX-License-Identifier: AGPL-3.0-only
"""
Telling agents of the dispatcher's serials, and writing down what they say to
that: NEWER-LINE.md section 3.7.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

from ctrlexec.dispatcher.authority import Authority
from ctrlexec.dispatcher.dispatch import Agents, fan_out
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.rotation_state import waiting
from ctrlexec.errors import CtrlExecError, NotFound, TransportError
from ctrlexec.events import (
    SerialAnnounced,
    SerialConfirmed,
    SerialNotConfirmed,
    SerialNotRetired,
)
from ctrlexec.protocol.codec_trust import NoSuchRequest
from ctrlexec.protocol.messages import (
    RotateFailed,
    RotateRequest,
    RunFinished,
    RunRefused,
    RunRequest,
)
from ctrlexec.values import Target, iso_time, new_request_id

if TYPE_CHECKING:
    from ctrlexec.dispatcher.operations import Dispatcher

#: What an agent of the older line runs instead of answering.
SCRIPT = "update-ctrl-exec-serial"


@attrs.frozen
class Announcing:
    """
    Tells agents of serials.

    @ivar user: who does it, for the agents' hooks.
    """

    ours: Dispatcher
    user: str

    def waiting(
        self, serial: str, but: Sequence[AgentRecord] = ()
    ) -> list[AgentRecord]:
        """
        @param but: those that do not count.
        @return: the agents that have not said that they trust a serial.
        """
        names = {record.hostname for record in but}
        records, _ = self.ours.stores.registry.records()
        return [each for each in waiting(records, serial) if each.hostname not in names]

    async def announce(self, serial: str, agents: Agents) -> list[AgentRecord]:
        """
        Tell all agents of a serial that have not said that they trust it.

        @return: those that can not be told so, since they are of the older line.
        """
        records, older = self.waiting(serial), list[AgentRecord]()
        if not records:
            return []
        dispatcher = Authority(self.ours.settings).dispatcher_id()
        self.ours.events.emit(SerialAnnounced(len(records), serial, dispatcher))

        async def tell(record: AgentRecord) -> None:
            order = RotateRequest(serial, "add")
            error = None
            try:
                answer = await agents.rotate_serial(target_of(record), order)
                if isinstance(answer, RotateFailed):
                    error = answer.error
            except NoSuchRequest:
                older.append(record)
                return
            except CtrlExecError as why:
                error = str(why)
            self._note(record.hostname, serial, error)

        await self.each(records, tell)
        return older

    async def announce_older(
        self, records: Sequence[AgentRecord], serial: str, agents: Agents
    ) -> None:
        """
        Tell agents of the older line, by the script that is on their allowlist
        for that.
        """

        async def tell(record: AgentRecord) -> None:
            run = RunRequest(SCRIPT, (serial,), new_request_id(), self.user)
            error = None
            try:
                match await agents.run(target_of(record), run):
                    case RunRefused(refused):
                        error = f"{SCRIPT}: {refused}"
                    case RunFinished(exit=status, stderr=words) if status:
                        error = f"{SCRIPT}: exit {status}: {words[:200].strip()}"
            except CtrlExecError as why:
                error = str(why)
            self._note(record.hostname, serial, error)

        await self.each(records, tell)

    def _note(self, name: str, serial: str, error: str | None) -> None:
        """
        Write down what an agent has said.
        """
        now = iso_time(self.ours.process.now())

        def told(record: AgentRecord) -> AgentRecord:
            record = attrs.evolve(record, serial_broadcast=now)
            if error is not None:
                return attrs.evolve(record, serial_status="pending")
            return attrs.evolve(
                record,
                dispatcher_serial=serial,
                serial_status="current",
                serial_confirmed=now,
            )

        # Whoever is unpaired meanwhile need not know.
        with suppress(NotFound):
            self.ours.stores.registry.change(name, told)
        self.ours.events.emit(
            SerialConfirmed(name, serial)
            if error is None
            else SerialNotConfirmed(name, serial, error)
        )

    async def is_forgotten(
        self, record: AgentRecord, serial: str, agents: Agents
    ) -> bool:
        """
        Tell an agent not to trust a serial any more.

        @return: whether there is nothing more to be asked of an agent: it may be
            off and come back, but a refusal is one for good.
        """
        order = RotateRequest(serial, "remove")
        try:
            answer = await agents.rotate_serial(target_of(record), order)
        except NoSuchRequest:
            # Its one serial is the new one already.
            return True
        except CtrlExecError as error:
            self.ours.events.emit(SerialNotRetired(record.hostname, serial, str(error)))
            return not isinstance(error, TransportError)
        if isinstance(answer, RotateFailed):
            self.ours.events.emit(
                SerialNotRetired(record.hostname, serial, answer.error)
            )
        return True

    async def each(
        self,
        records: Sequence[AgentRecord],
        tell: Callable[[AgentRecord], Awaitable[None]],
    ) -> None:
        """
        Do something with many agents, so many at a time.
        """
        await fan_out(
            records,
            tell,
            limit=self.ours.settings.max_parallel,
            wanted=lambda: True,
            asked=lambda _: None,
            arrived=lambda _: None,
        )


def target_of(record: AgentRecord) -> Target:
    """
    At its stored address and port: the original goes by the name alone.
    """
    return Target(
        record.hostname, record.address(), record.port, identity=record.identity
    )
