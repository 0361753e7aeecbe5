# SPDX-License-Identifier: AGPL-3.0-only
"""
The orders that a process carries out now, for whoever wants to end one of them.

What is asked of an agent already is ended there; what is not is not asked any
more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import attrs

from ctrlexec.dispatcher.run_record import RunRecord


@attrs.define(eq=False)
class LiveOrder:
    """
    An order that is being carried out.

    @ivar key: what stands for the key that was given with it, if one was.
    @ivar ended: whether nobody is to be asked any more.
    @ivar asked: the hosts that have been.
    @ivar looked: when somebody has looked last whether another process has ended
        it, in the clock's seconds.
    @ivar version: which version of its record they have seen then.
    @ivar hurries: what says, by host, that somebody has asked its agent to end it.
    @ivar record: what is on record of it from its beginning on.
    """

    reqid: str
    key: str = ""
    ended: bool = False
    asked: set[str] = attrs.field(factory=set)
    looked: float = 0.0
    version: str = ""
    hurries: dict[str, Callable[[], None]] = attrs.field(factory=dict)
    record: RunRecord | None = None
    _left_out: set[str] = attrs.field(factory=set)

    def wants(self, host: str) -> bool:
        """
        Whether a host may be asked.
        """
        return not self.ended and host not in self._left_out

    def end(self, hosts: Collection[str]) -> None:
        """
        Ask these hosts no more; nobody, if none is named.
        """
        self._left_out.update(hosts)
        self.ended = self.ended or not hosts


@attrs.define(eq=False)
class LiveOrders:
    """
    All of them.
    """

    _orders: dict[str, LiveOrder] = attrs.field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._orders)

    def get(self, reqid: str) -> LiveOrder | None:
        """
        @return: C{None} where this process carries out no such order.
        """
        return self._orders.get(reqid)

    def has_key(self, key: str) -> bool:
        """
        Whether an order that is carried out was given with a key.
        """
        return any(order.key == key for order in self._orders.values())

    @contextmanager
    def carrying_out(self, reqid: str, key: str = "") -> Iterator[LiveOrder]:
        """
        An order, for as long as it is carried out.
        """
        order = self._orders[reqid] = LiveOrder(reqid, key)
        try:
            yield order
        finally:
            del self._orders[reqid]
