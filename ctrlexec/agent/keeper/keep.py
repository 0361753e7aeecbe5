# SPDX-License-Identifier: AGPL-3.0-only
"""
A keeper: the life of one script, from its order to its ending.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from contextlib import suppress

from ctrlexec.agent.keeper.clearing import Clearing
from ctrlexec.agent.keeper.ending import (
    RESERVED,
    ending,
    killed_by,
    reserve,
    settle,
)
from ctrlexec.agent.keeper.frames import Frames, frame
from ctrlexec.agent.keeper.groups import Group
from ctrlexec.agent.keeper.loop import Loop
from ctrlexec.agent.keeper.orders import (
    BUSY,
    ENDED,
    ENDING,
    LOCKED,
    REFUSED,
    RUNNING,
    SOCKET,
    STDERR,
    STDOUT,
    Order,
)
from ctrlexec.agent.keeper.rights import share
from ctrlexec.agent.keeper.script import (
    NOT_EXECUTABLE,
    NotExecuted,
    Started,
    start,
)
from ctrlexec.agent.keeper.streams import Fed, Kept
from ctrlexec.agent.keeper.visitors import Visitors

#: The exit status of a script that a signal ended: PROTOCOL.md section 2.
KILLED = 126
#: How long we listen on after the exit of a script whose pipes stay open.
DRAIN_SECONDS = 1.0
#: The same, where nothing of it is left that could write.
_SHORT_DRAIN_SECONDS = 0.1
#: From one attempt to write the ending to the next.
_RETRY_SECONDS = 1.0
#: How long we wait for those who should hear of the end.
_FAREWELL_SECONDS = 2.0
#: There will never be a place for the ending again.
_HOPELESS = (errno.ENOENT, errno.ESTALE, errno.EBADF)

DONE, CANCELLED, TIMED_OUT, FAILED = "done", "cancelled", "timed_out", "failed"


class Refused(Exception):
    """
    Nothing was started.

    @ivar kind: L{REFUSED} or L{BUSY}.
    """

    def __init__(self, kind: bytes, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class Place:
    """
    What a keeper process is to all of its runs.

    @ivar link: to the program that we are made of.
    @ivar home: a descriptor of the directory that scripts start in.
    @ivar group: what we are in, so that a script is too.
    @ivar adopting: whether we become the parent of all orphans below us.
    """

    __slots__ = ("adopting", "group", "home", "link")

    def __init__(
        self, link: socket.socket, home: int, group: Group, adopting: bool
    ) -> None:
        self.link = link
        self.home = home
        self.group = group
        self.adopting = adopting


class Keeper:
    """
    Starts a script and sees it to its end.
    """

    def __init__(self, order: Order, place: Place) -> None:
        self._order = order
        self._place = place
        self._loop = Loop(self._children)
        self._visitors = Visitors(self._loop, self._greeting, self._cancel)
        self._state, self._reason = DONE, ""
        self._exit: int | None = None
        self._ended = b""
        self._over = False
        self._staying = True
        self._clearing: Clearing | None = None
        self._clear = True
        self._lock = -1
        self._started: Started | None = None
        self._stdout = Kept(self._loop, self._visitors.note_output)
        self._stderr = Kept(self._loop, self._visitors.note_output)
        self._fed: Fed | None = None

    # Before anything is started.

    def start(self) -> None:
        """
        Start the script.

        @raise Refused: it was not started, and all is as it was.
        """
        try:
            self._directory = os.open(
                self._order.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
            )
            os.fchdir(self._directory)
            self._visitors.listen()
        except OSError as error:
            raise Refused(REFUSED, _words(error)) from None
        made = [SOCKET]
        try:
            if self._order.lock:
                self._take_lock()
            _none_of(STDOUT, STDERR, ENDING)
            self._reserved = reserve()
            made.append(RESERVED)
            self._execute()
        except (OSError, Refused) as error:
            self._unlock()
            for name in made:
                with suppress(OSError):
                    os.unlink(name)
            if isinstance(error, Refused):
                raise
            raise Refused(REFUSED, _words(error)) from None

    def _take_lock(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._lock = os.open(self._order.lock, flags, 0o640)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(BUSY, "another run holds the lock") from None
        # Should we be killed it is held until what we leave is ended.
        with suppress(OSError):
            share(self._place.link, LOCKED, self._lock)

    def _execute(self) -> None:
        for name, kept in ((STDOUT, self._stdout), (STDERR, self._stderr)):
            kept.to(self._directory, name, self._order.max_output)
        if self._order.obstacle:
            self._not_executed(NOT_EXECUTABLE, self._order.obstacle.decode())
            return
        os.fchdir(self._place.home)
        try:
            self._started = start(self._order)
        except NotExecuted as why:
            self._not_executed(why.status, str(why))
        finally:
            os.fchdir(self._directory)

    # While it runs.

    def run(self, connection: socket.socket, frames: Frames) -> None:
        """
        See the script to its end.

        @param connection: whom we have the order of.
        @param frames: what else has come over it.
        """
        if self._started is not None:
            self._begin(self._started)
        self._visitors.add(connection, frames)
        self._unless_ended()
        while not self._over or (self._staying and self._visitors.unheard()):
            self._loop.turn()
            self._unless_ended()

    def _begin(self, started: Started) -> None:
        order = self._order
        self._stdout.reads(started.stdout)
        self._stderr.reads(started.stderr)
        self._fed = Fed(self._loop, started.stdin, order.stdin, order.stdin_timeout)
        order.stdin = b""
        if order.timeout is not None:
            self._loop.after(order.timeout, "timeout", self._time_out)

    def close(self) -> None:
        """
        Be done with it.
        """
        self._visitors.close()
        self._loop.close()

    def _greeting(self) -> bytes:
        return self._ended or frame(RUNNING, b"%d" % self._pid)

    @property
    def _pid(self) -> int:
        return 0 if self._started is None else self._started.pid

    def _not_executed(self, status: int, why: str) -> None:
        self._exit, self._state, self._reason = status, FAILED, why
        path = self._order.argv[0]
        self._stderr.add(b"cannot execute %b: %b\n" % (path, why.encode()))

    def _children(self) -> None:
        self._reap()
        if self._clearing is not None and not self._clear:
            self._clearing.somebody_died()

    def _reap(self) -> bool:
        """
        Reap the dead.

        @return: whether a child is left.
        """
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._pid:
                self._exited(os.waitstatus_to_exitcode(status))

    def _exited(self, status: int) -> None:
        if self._exit is None:
            self._exit = KILLED if status < 0 else status
            if status < 0 and self._state == DONE:
                self._reason = killed_by(-status, self._order.limits)
        self._loop.drop("timeout")
        if self._fed is not None:
            self._fed.close()
        self._loop.after(DRAIN_SECONDS, "drain", self._drained)

    def _drained(self) -> None:
        self._stdout.drain()
        self._stderr.drain()

    # Ending it before it ends by itself.

    def _time_out(self) -> None:
        seconds = self._order.timeout
        self._end(TIMED_OUT, f"timed out after {seconds:g}s")

    def _cancel(self) -> None:
        self._end(CANCELLED, "cancelled")

    def _end(self, state: str, reason: str) -> None:
        if self._clearing is not None or self._ended:
            return
        if self._state == DONE:
            self._state, self._reason = state, reason
        self._clear = False
        place = self._place
        self._clearing = Clearing(self._loop, self._pid, place.group, self._reap)
        if not place.adopting:
            self._clearing.sessions.add(self._pid)
        self._clearing.start(self._order.grace, self._cleared)

    def _cleared(self) -> None:
        self._clear = True
        self._loop.after(_SHORT_DRAIN_SECONDS, "drain", self._drained)

    # Its end.

    def _unless_ended(self) -> None:
        if self._ended or self._exit is None or not self._clear:
            return
        if not self._stdout.open and not self._stderr.open:
            self._finish()

    def _finish(self) -> None:
        self._loop.drop("drain")
        self._loop.drop("timeout")
        self._text = ending(
            exit=self._exit or 0,
            state=self._state,
            reason=self._reason,
            stdout_bytes=self._stdout.total_bytes,
            stderr_bytes=self._stderr.total_bytes,
            stdin_timed_out=self._fed is not None and self._fed.timed_out,
        )
        told = self._clearing.signalled.items() if self._clearing else ()
        signalled = [(b"%d" % pid, *how) for pid, how in told]
        self._ended = frame(ENDED, self._text, *(x for each in signalled for x in each))
        self._settle()
        self._unlock()
        self._visitors.tell(self._ended)

    def _settle(self) -> None:
        try:
            settle(self._reserved, self._text)
            os.unlink(SOCKET)
        except OSError as error:
            if error.errno not in _HOPELESS:
                self._loop.after(_RETRY_SECONDS, "settle", self._settle)
                return
        self._over = True
        self._loop.after(_FAREWELL_SECONDS, "farewell", self._leave)

    def _unlock(self) -> None:
        # Whoever hears of it may want the lock for the next run.
        if self._lock >= 0:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _leave(self) -> None:
        self._staying = False


def _none_of(*names: str) -> None:
    """
    @raise FileExistsError: a file that is to come later is there already, as in the
        directory of another run.
    """
    if any(map(os.path.lexists, names)):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def _words(error: OSError) -> str:
    return error.strerror or str(error)
