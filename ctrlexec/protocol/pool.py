# SPDX-License-Identifier: AGPL-3.0-only
"""
Connections to agents that wait for the next question, so that it costs no
handshake.
"""

from __future__ import annotations

from collections import OrderedDict

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ctrlexec.protocol import limits
from ctrlexec.protocol.connection import ClientConnection
from ctrlexec.values import Target

#: For how long a connection may wait. Agents close it after
#: L{limits.IDLE_SECONDS}; a question that crosses with that has no answer.
WAIT_SECONDS = limits.IDLE_SECONDS / 2
#: How old one may get, however often it is used: the date of the certificate
#: that it began with is looked at in its handshake only.
MOST_SECONDS = 300.0
#: How many wait at most.
MOST_CONNECTIONS = 1000


@attrs.frozen
class _Kept:
    connection: ClientConnection
    closing: IDelayedCall


@attrs.define(eq=False)
class Pool:
    """
    At most one connection an agent, the one that was used last; the oldest of
    all makes room for a new one.
    """

    clock: IReactorTime
    most: int = MOST_CONNECTIONS
    _kept: OrderedDict[Target, _Kept] = attrs.field(factory=OrderedDict, init=False)
    _closed: bool = attrs.field(default=False, init=False)

    def take(self, target: Target) -> ClientConnection | None:
        """
        @return: a connection to the agent that nobody else uses from now on.
        """
        kept = self._kept.pop(target, None)
        if kept is None:
            return None
        kept.closing.cancel()
        return kept.connection if kept.connection.free else None

    def put(self, target: Target, connection: ClientConnection) -> None:
        """
        Keep a connection that is free, for a while.
        """
        self._drop(target)
        if self._closed:
            connection.close()
            return
        closing = self.clock.callLater(WAIT_SECONDS, self._late, target)
        self._kept[target] = _Kept(connection, closing)
        if len(self._kept) > self.most:
            self._drop(next(iter(self._kept)))

    def close(self) -> None:
        """
        Close all of them, and what is put from now on.
        """
        self._closed = True
        for target in tuple(self._kept):
            self._drop(target)

    def _late(self, target: Target) -> None:
        self._kept.pop(target).connection.close()

    def _drop(self, target: Target) -> None:
        kept = self._kept.pop(target, None)
        if kept is not None:
            kept.closing.cancel()
            kept.connection.close()
