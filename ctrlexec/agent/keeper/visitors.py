# SPDX-License-Identifier: AGPL-3.0-only
"""
Who is connected to a keeper. None of them can make it wait.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

from ctrlexec.agent.keeper.frames import Frames, NotAFrame, frame
from ctrlexec.agent.keeper.loop import READ, WRITE, Loop
from ctrlexec.agent.keeper.orders import (
    CANCEL,
    OUTPUT,
    SOCKET,
    UNWATCH,
    WATCH,
)

#: How many there may be at once.
MOST_VISITORS = 16
_REQUEST_BYTES = 64
_BACKLOG = 16
#: The least time between two words that there is more output.
_OUTPUT_SECONDS = 0.005
_NEW = "keeper.new"
_OUTPUT = frame(OUTPUT)


class Visitor:
    """
    One who is connected.

    @ivar watching: whether it wants to know of output.
    """

    def __init__(
        self,
        loop: Loop,
        connection: socket.socket,
        frames: Frames,
        on_request: Callable[[Visitor, list[bytes]], None],
        on_gone: Callable[[Visitor], None],
    ) -> None:
        """
        @param frames: what has come already.
        """
        self.watching = False
        self._loop = loop
        self._connection = connection
        self._frames = frames
        self._on_request = on_request
        self._on_gone = on_gone
        self._unsent = b""
        self._here = True
        connection.setblocking(False)
        loop.watch(connection.fileno(), READ, self._ready)

    def begin(self) -> None:
        """
        Hear what has come already.
        """
        self._hear()

    def tell(self, message: bytes) -> None:
        """
        Say something, as soon as the visitor reads it.
        """
        self._unsent += message
        self._send()

    def note_output(self) -> None:
        """
        Say that there is more output: not to one who has not even read what was
        said before, for that one looks later than now anyway.
        """
        if self.watching and not self._unsent:
            self._attempt(_OUTPUT)

    @property
    def busy(self) -> bool:
        """
        Whether there is something that it has not read.
        """
        return bool(self._unsent)

    def close(self) -> None:
        """
        Be done with it.
        """
        if self._here:
            self._here = False
            self._loop.forget(self._connection.fileno())
            self._connection.close()
            self._on_gone(self)

    def _send(self) -> None:
        self._unsent = self._unsent[self._attempt(self._unsent) :]
        if self._here:
            events = READ | WRITE if self._unsent else READ
            self._loop.watch(self._connection.fileno(), events, self._ready)

    def _attempt(self, message: bytes) -> int:
        if not self._here:
            return len(message)
        try:
            return self._connection.send(message, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        except OSError:
            self.close()
            return len(message)

    def _ready(self) -> None:
        if self._unsent:
            self._send()
        try:
            data = self._connection.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._frames.feed(data)
        self._hear()

    def _hear(self) -> None:
        self._frames.most = _REQUEST_BYTES
        try:
            while self._here and (fields := self._frames.next()) is not None:
                self._on_request(self, fields)
        except NotAFrame:
            self.close()


class Visitors:
    """
    All who are connected, and the socket that they find us by.
    """

    def __init__(
        self, loop: Loop, greeting: Callable[[], bytes], cancel: Callable[[], None]
    ) -> None:
        """
        @param greeting: what whoever comes is told first.
        @param cancel: called when one of them wants that.
        """
        self._loop = loop
        self._greeting = greeting
        self._cancel = cancel
        self._here: list[Visitor] = []
        self._listening: socket.socket | None = None
        self._noted = 0.0

    def listen(self) -> None:
        """
        Listen in the current directory. Under its name the socket is there only
        when it listens: who finds it dead finds a dead keeper.

        @raise OSError: there is one already, or it can not be made.
        """
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(_NEW)
        try:
            os.chmod(_NEW, 0o600)
            listening.listen(_BACKLOG)
            os.link(_NEW, SOCKET)
        finally:
            os.unlink(_NEW)
        listening.setblocking(False)
        self._listening = listening
        self._loop.watch(listening.fileno(), READ, self._arrived)

    def add(self, connection: socket.socket, frames: Frames) -> None:
        """
        @param frames: what has come already.
        """
        visitor = Visitor(
            self._loop, connection, frames, self._requested, self._here.remove
        )
        self._here.append(visitor)
        visitor.tell(self._greeting())
        visitor.begin()

    def tell(self, message: bytes) -> None:
        """
        Say something to all.
        """
        for visitor in tuple(self._here):
            visitor.tell(message)

    def note_output(self) -> None:
        """
        Say to all that there is more output; not more often than anybody can
        make something of it.
        """
        now = time.monotonic()
        wait = self._noted + _OUTPUT_SECONDS - now
        if wait > 0:
            self._loop.after(wait, "output", self._note_output)
        else:
            self._note_output()

    def close(self) -> None:
        """
        Be done with all of them.
        """
        for visitor in tuple(self._here):
            visitor.close()
        if self._listening is not None:
            self._listening.close()

    def unheard(self) -> bool:
        """
        Whether somebody has not read all yet.
        """
        return any(visitor.busy for visitor in self._here)

    def _note_output(self) -> None:
        self._noted = time.monotonic()
        for visitor in tuple(self._here):
            visitor.note_output()

    def _arrived(self) -> None:
        assert self._listening is not None
        try:
            connection, _ = self._listening.accept()
        except OSError:
            return
        if len(self._here) >= MOST_VISITORS:
            connection.close()
        else:
            self.add(connection, Frames())

    def _requested(self, visitor: Visitor, request: list[bytes]) -> None:
        if request == [CANCEL]:
            self._cancel()
        elif request == [WATCH]:
            visitor.watching = True
            # What was written before it asked is new to it.
            visitor.note_output()
        elif request == [UNWATCH]:
            visitor.watching = False
