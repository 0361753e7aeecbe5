# SPDX-License-Identifier: AGPL-3.0-only
"""
C{POST /rotate-serial}: a dispatcher has a new certificate, or an old one less
(NEWER-LINE.md section 3.7).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from typing import Protocol as Shape

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from ctrlexec.agent.settings import AgentSettings
from ctrlexec.agent.trust import NAMELESS, Change, NotChanged
from ctrlexec.agent.trust_store import SerialChange, change_trust, migrate_trust
from ctrlexec.errors import InvalidValue, StoreError
from ctrlexec.events import (
    SerialChanged,
    SerialChangeFailed,
    SerialNotChanged,
    SettingsWarned,
    TrustMigrated,
)
from ctrlexec.interfaces import IEventSink
from ctrlexec.protocol.messages import (
    Refused,
    RotateDone,
    RotateFailed,
    RotateRequest,
)
from ctrlexec.values import serial_from_hex

T = TypeVar("T")

#: Asks the agent's auth hook.
#: @return: why not, or C{None}.
Authorise = Callable[[RotateRequest], Awaitable[str | None]]


class InThread(Shape):
    """
    Where work is done that would hold up the reactor: it waits for a lock and
    for the disk.
    """

    def __call__(self, work: Callable[..., T], *args: Any) -> Deferred[T]:
        """
        @return: fires with what the work returns, or fails with what it raises.
        """


def in_thread_of(reactor: Any) -> InThread:
    """
    @param reactor: with a pool of threads.
    """

    def in_thread(work: Callable[..., T], *args: Any) -> Deferred[T]:
        return deferToThreadPool(reactor, reactor.getThreadPool(), work, *args)

    return in_thread


def migrate(settings: AgentSettings, events: IEventSink) -> None:
    """
    Take over the older line's single serial, where there is one and no map.
    """
    try:
        serial = migrate_trust(settings)
    except StoreError as error:
        # The older file still counts; no dispatcher can change its serial.
        events.emit(SettingsWarned(f"no trusted map could be made: {error}"))
        return
    if serial is not None:
        events.emit(TrustMigrated(NAMELESS, serial))


@attrs.frozen
class Rotation:
    """
    Changes which serials of a dispatcher an agent trusts.

    @ivar settings: of the moment.
    @ivar peer: the address that the order comes from.
    @ivar dispatcher: the id that the caller's certificate stands for.
    @ivar put_in_force: has the agent trust whom the map names now; may raise
        L{StoreError}.
    """

    settings: AgentSettings
    events: IEventSink
    in_thread: InThread
    peer: str
    dispatcher: str
    put_in_force: Callable[[], None]

    async def answer(
        self, request: RotateRequest | RotateFailed, authorise: Authorise
    ) -> RotateDone | RotateFailed | Refused:
        """
        Every way in which it can fail is an answer, and is logged.
        """
        if isinstance(request, RotateFailed):
            return self._deny(request.error)
        try:
            serial = serial_from_hex(request.serial)
        except InvalidValue:
            return self._deny("invalid serial")
        reason = await authorise(request)
        if reason is not None:
            self._deny(reason)
            return Refused(403, f"not authorised: {reason}")
        return await self._change(request, serial)

    async def _change(
        self, request: RotateRequest, serial: str
    ) -> RotateDone | RotateFailed:
        asked = SerialChange(Change(request.action), serial, self.dispatcher)
        try:
            changed = await self.in_thread(change_trust, self.settings, asked)
            if isinstance(changed, NotChanged):
                return self._deny(changed.reason)
            self.put_in_force()
        except StoreError as error:
            self.events.emit(SerialChangeFailed(self.dispatcher, str(error)))
            return RotateFailed(str(error))
        self.events.emit(
            SerialChanged(self.dispatcher, request.action, serial, self.peer)
        )
        return RotateDone(request.action, request.serial, self.dispatcher)

    def _deny(self, reason: str) -> RotateFailed:
        self.events.emit(SerialNotChanged(self.dispatcher, reason))
        return RotateFailed(reason)
