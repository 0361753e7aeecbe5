# SPDX-License-Identifier: AGPL-3.0-only
"""
The program that keepers are made of: one for each agent. It is as small as a
Python can be, has all loaded that a keeper needs, and forks.

Its standard input is a socket. With each message comes a connection, over which
a keeper gets its order (L{ctrlexec.agent.keeper.orders}). It reads none of them
itself: whatever is wrong with an order is the trouble of one keeper. It ends
with the socket; the keepers stay.

A keeper looks after one script at a time. To fork is most of what a run costs,
so one that has nothing left of its script takes the next, and there is always
one that has been forked already.

What a keeper leaves that is killed comes to us, and is ended:
L{ctrlexec.agent.keeper.orphans}.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import time
from collections.abc import Iterable
from contextlib import suppress

from ctrlexec.agent.keeper import groups, kernel
from ctrlexec.agent.keeper.frames import frame
from ctrlexec.agent.keeper.orders import IDLE, LEAVING, LOCKED, REFUSED
from ctrlexec.agent.keeper.orphans import end_orphans
from ctrlexec.agent.keeper.rights import close_from, hand_over, handed_over, heard
from ctrlexec.agent.keeper.serving import serve

#: How many keepers may have nothing to do; and for how long, all but one.
MOST_IDLE = 8
IDLE_SECONDS = 10.0
#: How often we look whether a keeper has died whose link is closed, and how long we
#: wait in between. One that does not die must not hold up the others.
_DEATHS, _DEATH_SECONDS = 50, 0.001

_DEAF_TO = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def main() -> None:
    """
    Hand each connection that comes to a keeper, until no more can come.
    """
    _alone()
    place = groups.place()
    gc.collect()
    gc.disable()
    gc.freeze()
    Zygote(socket.socket(fileno=0), place).run()
    groups.sweep(place)


def _alone() -> None:
    """
    Have nothing to do with who has started us, but for the socket.
    """
    close_from(3)
    for number in _DEAF_TO:
        signal.signal(number, signal.SIG_IGN)
    # The kernel reaps what we have forked.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    with suppress(OSError):
        # Unless we lead one already.
        os.setsid()
    with suppress(OSError), open("/proc/self/comm", "wb") as name:
        name.write(b"cea-keeper")


class Zygote:
    """
    Knows of each keeper whether it has something to do.
    """

    def __init__(self, orders: socket.socket, place: bytes | None) -> None:
        """
        @param orders: where connections come.
        @param place: where keepers may make control groups.
        """
        self._orders = orders
        self._place = place
        self._poll = select.poll()
        self._poll.register(orders, select.POLLIN)
        self._links: dict[int, socket.socket] = {}
        self._pids: dict[int, int] = {}
        self._idle: list[int] = []
        self._locks: dict[int, list[int]] = {}
        self._unfreed: list[int] = []
        self._leaving: set[int] = set()
        self._dying: list[int] = []
        self._adopting = kernel.adopt_orphans()
        self._untidy = True

    def run(self) -> None:
        """
        Work until the other end of the socket is closed.
        """
        self._have_a_spare()
        while True:
            waiting = self._untidy or len(self._idle) > 1
            ready = self._poll.poll(IDLE_SECONDS * 1000 if waiting else None)
            if not ready:
                self._tidy()
            for descriptor, _ in ready:
                if descriptor != self._orders.fileno():
                    self._hear(descriptor)
                elif not self._take():
                    return

    def _take(self) -> bool:
        """
        @return: whether more can come.
        """
        connections = handed_over(self._orders)
        if connections is None:
            return False
        for connection in connections:
            with connection:
                why = self._give(connection)
                if why is not None:
                    _refuse(connection, why)
        self._have_a_spare()
        return True

    def _give(self, connection: socket.socket) -> OSError | None:
        """
        Give a connection to a keeper that has nothing to do.

        @return: why there is none.
        """
        while True:
            try:
                self._have_a_keeper()
            except OSError as error:
                return error
            descriptor = self._idle.pop()
            try:
                hand_over(self._links[descriptor], connection)
            except OSError:
                # Somebody has killed it.
                self._forget(descriptor)
            else:
                return None

    def _hear(self, descriptor: int) -> None:
        """
        A keeper has nothing to do any more, or is gone.
        """
        link = self._links.get(descriptor)
        if link is None:
            return
        try:
            word, descriptors = heard(link, socket.MSG_DONTWAIT)
        except BlockingIOError:
            # It was another's descriptor when it was ready.
            return
        except OSError:
            word, descriptors = b"", []
        if word == IDLE:
            _close(self._locks.pop(descriptor, ()))
            self._idle.append(descriptor)
            self._dismiss(MOST_IDLE)
        elif word == LOCKED:
            self._locks.setdefault(descriptor, []).extend(descriptors)
        elif word == LEAVING:
            self._let_go(descriptor)
        else:
            self._bury(descriptor)

    def _let_go(self, descriptor: int) -> None:
        """
        A keeper ends as it should. What it has left goes on, and must not come to
        us: as long as that takes we adopt nothing.
        """
        self._leaving.add(self._pids[descriptor])
        if descriptor in self._idle:
            self._idle.remove(descriptor)
        kernel.adopt_orphans(False)
        with suppress(OSError):
            self._links[descriptor].send(
                b"+", socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT
            )

    def _bury(self, descriptor: int) -> None:
        """
        A keeper is gone, or about to be: its link is closed.
        """
        pid = self._pids[descriptor]
        self._dying.append(pid)
        for _ in range(_DEATHS):
            # What it has left is ours only then.
            if _is_dead(pid):
                break
            time.sleep(_DEATH_SECONDS)
        self._unfreed += self._locks.pop(descriptor, ())
        self._forget(descriptor)
        groups.end_orphans(self._place, pid)
        self._end_orphans()
        self._untidy = True

    def _end_orphans(self) -> bool:
        """
        @return: whether nothing is left that a keeper has which was killed.
        """
        self._dying = [pid for pid in self._dying if not _is_dead(pid)]
        keepers = {*self._pids.values(), *self._dying}
        self._leaving &= keepers
        if not self._leaving:
            self._adopting = kernel.adopt_orphans()
        over = not self._adopting or end_orphans(keepers)
        if over and not (self._dying or self._leaving):
            _close(self._unfreed)
            self._unfreed = []
        return over and not (self._dying or self._unfreed)

    def _tidy(self) -> None:
        self._untidy = not self._end_orphans()
        groups.sweep(self._place)
        self._dismiss(1)

    def _dismiss(self, but: int) -> None:
        while len(self._idle) > but:
            self._forget(self._idle[0])

    def _forget(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        self._links.pop(descriptor).close()
        del self._pids[descriptor]
        if descriptor in self._idle:
            self._idle.remove(descriptor)

    def _have_a_spare(self) -> None:
        # If not now, then when it is needed.
        with suppress(OSError):
            self._have_a_keeper()

    def _have_a_keeper(self) -> None:
        """
        @raise OSError: one can not be made.
        """
        if self._idle:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                pid = os.fork()
            except OSError:
                ours.close()
                raise
            if pid == 0:
                _be_a_keeper(theirs, self._place)
        self._links[ours.fileno()] = ours
        self._pids[ours.fileno()] = pid
        self._idle.append(ours.fileno())
        self._poll.register(ours, select.POLLIN)


def _is_dead(pid: int) -> bool:
    """
    Whether a child is. The kernel reaps it, so it is none then.
    """
    with suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return True


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _refuse(connection: socket.socket, error: OSError) -> None:
    reason = (error.strerror or str(error)).encode()
    with suppress(OSError):
        connection.send(frame(REFUSED, reason), socket.MSG_DONTWAIT)


def _be_a_keeper(link: socket.socket, place: bytes | None) -> None:
    """
    In the child: it never returns.
    """
    try:
        os.dup2(link.fileno(), 0, inheritable=False)
        close_from(3)
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        serve(0, place)
    finally:
        os._exit(0)
