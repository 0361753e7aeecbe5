# SPDX-License-Identifier: AGPL-3.0-only
"""
A keeper as a process: it takes an order, carries it out, and then, if nothing
of that is left, the next.
"""

from __future__ import annotations

import gc
import os
import socket
import time
from contextlib import closing, suppress

from ctrlexec.agent.keeper import kernel
from ctrlexec.agent.keeper.frames import Frames, frame
from ctrlexec.agent.keeper.groups import PREFIX, Group
from ctrlexec.agent.keeper.keep import Keeper, Place, Refused
from ctrlexec.agent.keeper.orders import IDLE, LEAVING, ORDER_BYTES, REFUSED, Order
from ctrlexec.agent.keeper.rights import close_from, handed_over

#: After so many runs a keeper makes place for a new one, whatever may have
#: gathered in its memory.
MOST_RUNS = 1000
#: How long an order may take to come.
_ORDER_SECONDS = 30.0
#: How long whoever is refused may take to hear it.
_REFUSAL_SECONDS = 2.0
_CHUNK_BYTES = 65536


def serve(link: int, groups: bytes | None) -> None:
    """
    Carry out one order after another.

    @param link: the descriptor of a socket; a connection comes with each
        message. We say L{IDLE} when we can take the next, and L{LEAVING} when we
        never will.
    @param groups: the directory to make control groups in.
    """
    adopting = kernel.adopt_orphans()
    home = os.open(".", os.O_PATH | os.O_CLOEXEC)
    group = Group(groups, PREFIX + b"%d-%x" % (os.getpid(), time.monotonic_ns()))
    group.enter()
    with socket.socket(fileno=link) as orders:
        try:
            _serve(orders, Place(orders, home, group, adopting))
        finally:
            # Before the link is closed: what is still in it then belongs to
            # nobody, and is ended.
            group.leave()
        _let_go(orders)


def _let_go(orders: socket.socket) -> None:
    """
    Wait until whoever ends what is left of killed keepers knows that we were not.
    """
    with suppress(OSError):
        orders.send(LEAVING, socket.MSG_NOSIGNAL)
        orders.recv(1)


def _serve(orders: socket.socket, place: Place) -> None:
    for _ in range(MOST_RUNS):
        connections = handed_over(orders)
        if not connections:
            return
        with connections[0] as connection:
            keep(connection, place)
        if not _as_new(place):
            return
        orders.send(IDLE, socket.MSG_NOSIGNAL)


def keep(connection: socket.socket, place: Place) -> None:
    """
    Carry out the order that comes over a connection, whatever becomes of it.
    """
    frames = Frames(ORDER_BYTES)
    try:
        order = received(connection, frames)
        with closing(Keeper(order, place)) as keeper:
            keeper.start()
            keeper.run(connection, frames)
    except Refused as refusal:
        connection.settimeout(_REFUSAL_SECONDS)
        with suppress(OSError):
            connection.sendall(frame(refusal.kind, str(refusal).encode()))


def received(connection: socket.socket, frames: Frames) -> Order:
    """
    @raise Refused: what came is no order, or it did not come.
    """
    connection.settimeout(_ORDER_SECONDS)
    try:
        while (fields := frames.next()) is None:
            data = connection.recv(_CHUNK_BYTES)
            if not data:
                raise Refused(REFUSED, "the order is cut")
            frames.feed(data)
        return Order.of(fields)
    except (ValueError, OSError) as error:
        raise Refused(REFUSED, str(error)) from None


def _as_new(place: Place) -> bool:
    """
    Forget the last run.

    @return: whether we are, and nothing is left of it: no child, that is, for
        whatever it may have left behind is ours.
    """
    with suppress(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
        return False
    gc.collect()
    close_from(place.home + 1)
    os.fchdir(place.home)
    return place.group.enter() and place.adopting
