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
WORD_BYTES = 16
_LAST_DESCRIPTOR = 1 << 20


def hand_over(link: socket.socket, connection: socket.socket) -> None:
    """
    Hand a connection over; it does not wait.

    @raise BlockingIOError: there are too many on their way.
    @raise OSError: there is nobody at the other end.
    """
    share(link, _WORD, connection.fileno())


def share(link: socket.socket, word: bytes, descriptor: int) -> None:
    """
    Have somebody hold a descriptor as well; it does not wait.

    @param word: goes before; at most L{WORD_BYTES} long.
    @raise OSError: see L{hand_over}.
    """
    data = descriptor.to_bytes(4, sys.byteorder)
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, data)
    link.sendmsg([word], [rights], socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)


def handed_over(link: socket.socket) -> list[socket.socket] | None:
    """
    Wait for what comes.

    @return: connections, which may be none; C{None} when no more can come.
    """
    try:
        word, descriptors = heard(link, 0)
    except OSError:
        return None
    if not word:
        return None
    return [socket.socket(fileno=descriptor) for descriptor in descriptors]


def heard(link: socket.socket, flags: int) -> tuple[bytes, list[int]]:
    """
    @param flags: of recvmsg(2).
    @return: the next word, which is empty when no more can come, and what has come
        with it.
    @raise OSError: nothing has come.
    """
    size = socket.CMSG_SPACE(4)
    flags |= socket.MSG_CMSG_CLOEXEC
    word, ancillary, _, _ = link.recvmsg(WORD_BYTES, size, flags)
    return word, [
        int.from_bytes(data[at : at + 4], sys.byteorder)
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
