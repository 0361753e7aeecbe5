# SPDX-License-Identifier: AGPL-3.0-only
"""
Starting scripts, each with a keeper that outlives us, and finding them again.

A keeper gets its order over a connection that we have made, and answers over
the same. Whoever comes later finds it by its socket, in the directory of the
run.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import TimeoutError
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from zope.interface import implementer

from ctrlexec.agent.forking import Zygote
from ctrlexec.agent.keeper import orders
from ctrlexec.agent.keeper.frames import frame
from ctrlexec.agent.kept import KeptScript, Line, NeverKept, written_ending
from ctrlexec.agent.runs import Ending, StartOrder
from ctrlexec.errors import NotStarted
from ctrlexec.files import why_not_executable
from ctrlexec.interfaces import IEventSink, ILiveScript, IScriptRunner
from ctrlexec.process import encoded

#: How long we wait for a keeper that has no time to talk.
_GREETING_SECONDS = 10.0
#: Who has too much to do is asked again after this time, so many times.
_RETRY_SECONDS = 0.01
_RETRIES = 1000
#: It is we who lack something: that says nothing of a keeper, and passes.
_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
#: How often a start is tried, where it is certain that nothing was started.
_ATTEMPTS = 3


@implementer(IScriptRunner)
@attrs.define(eq=False)
class KeptScripts:
    """
    Starts scripts as the agent's own user.

    @ivar reactor: a real one, or all that a test needs of one.
    @ivar events: are told when that which makes keepers ends.
    @ivar python: what runs the program that keepers are made of.
    """

    reactor: Any
    events: IEventSink
    python: str = sys.executable
    _zygote: Zygote | None = attrs.field(default=None, init=False)
    _lines: dict[Line, KeptScript] = attrs.field(factory=dict, init=False)

    def warm_up(self) -> None:
        """
        Have all in place that the first start would have to wait for.

        @raise NotStarted: it can not be.
        """
        self._living()

    async def start(self, order: StartOrder) -> ILiveScript:
        """
        See L{IScriptRunner}.
        """
        request = _order(order).fields()
        if sum(map(len, request)) > orders.ORDER_BYTES // 2:
            raise NotStarted("the arguments and the context are too long")
        for _ in range(_ATTEMPTS):
            with suppress(NeverKept):
                return await self._start(order.directory, request)
        raise NotStarted("no keeper could be started")

    async def adopt(self, directory: Path) -> ILiveScript | Ending | None:
        """
        See L{IScriptRunner}.
        """
        ending = written_ending(directory)
        if ending is not None:
            return ending
        connection = await self._connected(directory)
        if connection is None:
            # It may have ended in the meantime.
            return written_ending(directory)
        script = KeptScript(directory)
        begun = script.begun()
        self._converse(connection, script)
        # One that says nothing lives all the same.
        with suppress(TimeoutError):
            await begun.addTimeout(_GREETING_SECONDS, self.reactor)
        return script.ending if script.over else script

    async def close(self) -> None:
        """
        Start nothing any more, and hear of nothing. All that was started goes
        on.
        """
        lines = dict(self._lines)
        for line, script in lines.items():
            script.leave()
            await line.lost
        zygote, self._zygote = self._zygote, None
        if zygote is not None:
            zygote.end()
            await zygote.over

    async def _start(self, directory: Path, request: list[bytes]) -> ILiveScript:
        script = KeptScript(directory)
        begun = script.begun()
        ours, theirs = socket.socketpair()
        with theirs:
            self._converse(ours, script, frame(*request))
            try:
                await self._hand_over(theirs)
            except BaseException:
                script.leave()
                raise
        await begun
        return script

    async def _hand_over(self, connection: socket.socket) -> None:
        for _ in range(_RETRIES):
            zygote = self._living()
            if zygote.hand_over(connection):
                return
            if not zygote.alive:
                raise NeverKept("what makes keepers is gone")
            await deferLater(self.reactor, _RETRY_SECONDS)
        raise NotStarted("there is too much to do")

    def _living(self) -> Zygote:
        if self._zygote is None or not self._zygote.alive:
            self._zygote = Zygote.started(self.reactor, self.python, self.events)
        return self._zygote

    def _converse(
        self, connection: socket.socket, script: KeptScript, order: bytes = b""
    ) -> Line:
        connection.setblocking(False)
        line = Line(script)
        # All of it has room, unless it is very long: nobody need wait for the
        # reactor to send it.
        rest = order[_sent(connection, order) :]
        script.speak_over(line)
        factory = Factory.forProtocol(lambda: line)
        with connection:
            self.reactor.adoptStreamConnection(
                connection.fileno(), socket.AF_UNIX, factory
            )
        if rest:
            line.transport.write(rest)
        self._lines[line] = script
        line.lost.addCallback(lambda _: self._lines.pop(line))
        return line

    async def _connected(self, directory: Path) -> socket.socket | None:
        """
        @return: a connection with the keeper of a run; C{None} if there is none.
        @raise OSError: we have no descriptor left, for a long time already, and
            can not tell.
        """
        for attempt in range(_RETRIES):
            try:
                return _connection_of(directory)
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno not in _SHORT or attempt == _RETRIES - 1:
                    raise
            await deferLater(self.reactor, _RETRY_SECONDS)
        return None


def _sent(connection: socket.socket, data: bytes) -> int:
    """
    @return: how much of it there is room for now. Whatever else is wrong, who sends
        the rest will find out.
    """
    try:
        return connection.send(data) if data else 0
    except OSError:
        return 0


def _connection_of(directory: Path) -> socket.socket | None:
    """
    @raise OSError: it can not be said whether there is a keeper.
    """
    try:
        place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _SHORT:
            raise
        return None
    try:
        return _connection(place)
    finally:
        os.close(place)


def _connection(place: int) -> socket.socket | None:
    """
    @param place: a descriptor of the directory. So long a path as that of a run
        may be, a socket's may not.
    @raise BlockingIOError: there is a keeper that is busy.
    @raise OSError: we have no descriptor left.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.setblocking(False)
    address = f"/proc/self/fd/{place}/{orders.SOCKET}"
    for _ in range(2):
        try:
            connection.connect(address)
        except FileNotFoundError:
            if not _claimed(place):
                # A keeper was faster, this very moment.
                continue
        except BlockingIOError:
            connection.close()
            raise
        except OSError:
            pass
        else:
            return connection
        break
    connection.close()
    return None


def _claimed(place: int) -> bool:
    """
    Take the place of the socket, for good: a keeper that has its order already
    and comes only now must find that it is too late.

    @return: whether it was free.
    @raise OSError: we have no descriptor left.
    """
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        os.close(os.open(orders.SOCKET, flags, 0o600, dir_fd=place))
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno in _SHORT:
            raise
    return True


def _order(order: StartOrder) -> orders.Order:
    """
    @raise NotStarted: no script can be started with these.
    """
    argv = encoded(order.argv, "an argument")
    names, values = (
        encoded(each, "a variable") for each in (order.env, order.env.values())
    )
    limits = {
        "NPROC": order.limits.nproc,
        "AS": order.limits.memory_bytes,
        "NOFILE": order.limits.nofile,
        "CPU": order.limits.cpu_seconds,
    }
    obstacle = why_not_executable(Path(order.argv[0])) or ""
    return orders.Order(
        # The keeper's own directory need not be ours.
        directory=os.fsencode(order.directory.absolute()),
        argv=argv,
        env=dict(zip(names, values, strict=True)),
        stdin=order.stdin,
        stdin_timeout=order.stdin_timeout,
        max_output=order.max_output,
        timeout=order.timeout,
        grace=order.grace,
        limits={name: each for name, each in limits.items() if each is not None},
        lock=os.fsencode(order.lock.absolute()) if order.lock else b"",
        obstacle=obstacle.encode(),
    )
