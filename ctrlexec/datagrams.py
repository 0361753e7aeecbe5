# SPDX-License-Identifier: AGPL-3.0-only
"""
Messages to the daemons of this machine: one datagram each, over a unix socket.
"""

from __future__ import annotations

import socket

#: How long a daemon may take to make room for a message.
PATIENCE_SECONDS = 0.05

#: What L{send_datagram} raises where there was no room in time.
NO_ROOM = (BlockingIOError, TimeoutError)


def send_datagram(
    address: str, message: bytes, patience_seconds: float = PATIENCE_SECONDS
) -> None:
    """
    Send a message. There is no connection to keep: a daemon that was started
    anew finds its next message where it listens now.

    @param address: the path of a socket; with C{@} in front, a name in the
        abstract namespace.
    @param patience_seconds: how long we wait for room; 0 for not at all.
    @raise OSError: nobody took it; one of L{NO_ROOM} where somebody may later.
    """
    if address.startswith("@"):
        address = f"\0{address[1:]}"
    # Python's sockets are never inherited by the scripts that we start.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
        wire.settimeout(patience_seconds)
        # Connected, since only then the system can say when there is room.
        wire.connect(address)
        wire.send(message)
