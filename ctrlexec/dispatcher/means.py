# SPDX-License-Identifier: AGPL-3.0-only
"""
What a dispatcher has to work with: its stores, and the process that it is in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Protocol, TypeVar

import attrs

from ctrlexec.dispatcher.live_orders import LiveOrders
from ctrlexec.dispatcher.registry import FileRegistry
from ctrlexec.dispatcher.runs import FileRunStore
from ctrlexec.dispatcher.settings import DispatcherSettings
from ctrlexec.interfaces import ILocks, IPairingQueue, IRegistry, IRunStore

T = TypeVar("T")


class InThread(Protocol):
    """
    Where work is done that may block.
    """

    def __call__(self, work: Callable[..., T], *args: Any) -> Awaitable[T]:
        """
        @return: what the work returns; raises what it raises.
        """


async def directly(work: Callable[..., T], *args: Any) -> T:
    """
    An L{InThread} for where nobody else has to wait: here and now.
    """
    return work(*args)


@attrs.frozen(kw_only=True)
class Stores:
    """
    What a dispatcher knows.
    """

    registry: IRegistry
    queue: IPairingQueue
    locks: ILocks
    runs: IRunStore

    @classmethod
    def on_files(cls, settings: DispatcherSettings) -> Stores:
        """
        @return: the stores in the files that the settings name.
        """
        from ctrlexec.dispatcher.locks import FileLocks
        from ctrlexec.dispatcher.queue import FilePairingQueue

        return cls(
            registry=FileRegistry(settings.registry_dir),
            queue=FilePairingQueue.of(settings),
            locks=FileLocks(settings.locks_dir),
            runs=FileRunStore(settings.runs_dir),
        )


@attrs.frozen(kw_only=True)
class Process:
    """
    What a dispatcher needs of the process that it runs in.

    @ivar now: the time, aware of its zone.
    @ivar reactor: C{None} where nothing is asked that needs one.
    @ivar in_thread: does work that may block.
    @ivar environ: this process's environment, of which a hook sees a little.
    @ivar signs: whether agents that are pinged are renewed by the way. The API
        never does that: it has no business with the key of the CA.
    @ivar live: the orders that it carries out now. A process that reads its
        settings again goes on with the same.
    """

    now: Callable[[], datetime]
    reactor: Any = None
    in_thread: InThread = directly
    environ: Mapping[str, str] = attrs.field(factory=dict)
    signs: bool = False
    live: LiveOrders = attrs.field(factory=LiveOrders)
