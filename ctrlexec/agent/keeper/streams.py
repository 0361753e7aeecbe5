# SPDX-License-Identifier: AGPL-3.0-only
"""
The standard streams of a script, from its keeper's side.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from ctrlexec.agent.keeper.loop import READ, WRITE, Loop

_CHUNK_BYTES = 65536
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
#: As much as a pipe holds that nobody with privileges has made larger.
_PIPE_BYTES = 1024 * 1024


class Kept:
    """
    What a script writes: all of it is read, so that it never waits for us, and
    the beginning is kept in a file. That is made when there is something to keep:
    most scripts write to one of their two, and making a file is slow.

    @ivar total_bytes: how much it has written.
    @ivar open: whether more can come.
    """

    def __init__(self, loop: Loop, grown: Callable[[], None]) -> None:
        """
        @param grown: called when there is more in the file.
        """
        self.total_bytes = 0
        self.open = False
        self._loop = loop
        self._grown = grown
        self._file = self._pipe = self._directory = -1
        self._name = ""
        self._room = 0

    def to(self, directory: int, name: str, most: int) -> None:
        """
        Keep it in a file.

        @param directory: a descriptor.
        @param name: of a file that is not there.
        @param most: how many bytes of it.
        """
        self._directory, self._name, self._room = directory, name, most

    def reads(self, pipe: int) -> None:
        """
        Read a pipe to its end.
        """
        os.set_blocking(pipe, False)
        self._pipe = pipe
        self.open = True
        self._loop.watch(pipe, READ, self._readable)

    def add(self, data: bytes) -> None:
        """
        Keep this, as far as there is room.
        """
        self.total_bytes += len(data)
        if self._room <= 0:
            return
        kept = memoryview(data)[: self._room]
        try:
            if self._file < 0:
                self._file = os.open(self._name, _NEW, 0o600, dir_fd=self._directory)
            while kept:
                written = os.write(self._file, kept)
                self._room -= written
                kept = kept[written:]
        except OSError:
            # The disk is full, or broken. What is kept stays, and what comes
            # later must not stand right behind it.
            self._room = 0
        self._grown()

    def drain(self) -> None:
        """
        Read what is there now, and no more after that. Somebody may still be
        writing, as fast as we read.
        """
        for _ in range(_PIPE_BYTES // _CHUNK_BYTES):
            if not self.open or not self._read():
                break
        self.close()

    def close(self) -> None:
        """
        Read no more.
        """
        if self.open:
            self.open = False
            self._loop.forget(self._pipe)
            os.close(self._pipe)

    def _readable(self) -> None:
        self._read()

    def _read(self) -> bool:
        try:
            data = os.read(self._pipe, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if data:
            self.add(data)
        else:
            self.close()
        return bool(data)


class Fed:
    """
    What a script can read: never on disk, for there is a token in it.

    @ivar timed_out: it was left unread for too long.
    """

    def __init__(self, loop: Loop, pipe: int, data: bytes, seconds: float) -> None:
        """
        @param seconds: how long it may be left unread.
        """
        self.timed_out = False
        self._loop = loop
        self._pipe = pipe
        self._data = memoryview(data)
        os.set_blocking(pipe, False)
        self._write()
        if self._pipe >= 0:
            loop.watch(pipe, WRITE, self._write)
            loop.after(seconds, "stdin", self._give_up)

    def close(self) -> None:
        """
        The script finds the end of the file, sooner or later.
        """
        if self._pipe >= 0:
            self._loop.forget(self._pipe)
            self._loop.drop("stdin")
            os.close(self._pipe)
            self._pipe = -1
            self._data = memoryview(b"")

    def _write(self) -> None:
        try:
            while self._data:
                self._data = self._data[os.write(self._pipe, self._data) :]
        except BlockingIOError:
            return
        except OSError:
            # Nobody will read it any more.
            pass
        self.close()

    def _give_up(self) -> None:
        self.timed_out = True
        self.close()
