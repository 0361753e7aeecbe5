# SPDX-License-Identifier: AGPL-3.0-only
"""
Descriptors: those that are handed from one process to another, as connections
are (unix(7), C{SCM_RIGHTS}), and those that nobody has any business with.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress

_WORD = b"+"
_LAST_DESCRIPTOR = 1 << 20


def hand_over(link: socket.socket, connection: socket.socket) -> None:
    """
    Hand a connection over; it does not wait.

    @raise BlockingIOError: there are too many on their way.
    @raise OSError: there is nobody at the other end.
    """
    descriptor = connection.fileno().to_bytes(4, sys.byteorder)
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor)
    link.sendmsg([_WORD], [rights], socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)


def handed_over(link: socket.socket) -> list[socket.socket] | None:
    """
    Wait for what comes.

    @return: connections, which may be none; C{None} when no more can come.
    """
    size = socket.CMSG_SPACE(4)
    try:
        word, ancillary, _, _ = link.recvmsg(16, size, socket.MSG_CMSG_CLOEXEC)
    except OSError:
        return None
    if not word:
        return None
    return [
        socket.socket(fileno=int.from_bytes(data[at : at + 4], sys.byteorder))
        for level, kind, data in ancillary
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for at in range(0, len(data) - 3, 4)
    ]


def close_from(first: int) -> None:
    """
    Close every descriptor from one on.

    Only those that are there: where the C library has no close_range(2),
    C{os.closerange} makes a million system calls of it.
    """
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        os.closerange(first, _LAST_DESCRIPTOR)
        return
    for descriptor in map(int, names):
        if descriptor >= first:
            # That of the list itself is closed already.
            with suppress(OSError):
                os.close(descriptor)
