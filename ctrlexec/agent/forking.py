# SPDX-License-Identifier: AGPL-3.0-only
"""
The agent's end of the program that keepers are forked from:
L{ctrlexec.agent.keeper.zygote}.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.interfaces import IReactorProcess
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

import ctrlexec
from ctrlexec.agent.keeper.rights import hand_over
from ctrlexec.errors import NotStarted
from ctrlexec.events import KeeperProgramEnded
from ctrlexec.interfaces import IEventSink

#: What the program is told to do. Isolated and without its site, it starts in a
#: few milliseconds and finds the standard library before anything else.
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from ctrlexec.agent.keeper.zygote import main; main()"
)
#: Where it finds itself.
_PLACE = Path(ctrlexec.__file__).resolve().parent.parent
#: Without these some interpreters do not start.
_INHERITED = ("LD_LIBRARY_PATH",)


class _Ending(ProcessProtocol):
    def __init__(self, over: Deferred[str]) -> None:
        self._over = over

    def processEnded(self, reason: Failure) -> None:
        status = reason.value
        assert isinstance(status, (ProcessDone, ProcessTerminated))
        if status.signal:
            self._over.callback(f"signal {status.signal}")
        else:
            self._over.callback(f"exit {status.exitCode}")


@attrs.define(eq=False)
class Zygote:
    """
    The program, once it was started.

    @ivar alive: whether it can be asked, as far as we know.
    @ivar over: fires when it has ended.
    """

    _socket: socket.socket
    _events: IEventSink
    over: Deferred[None]
    alive: bool = True
    _wanted: bool = True

    @classmethod
    def started(
        cls, reactor: IReactorProcess, python: str, events: IEventSink
    ) -> Zygote:
        """
        Start it.

        @param events: are told where it ends without having been told to.
        @raise NotStarted: the system refused.
        """
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise NotStarted(error.strerror or str(error)) from error
        ours.setblocking(False)
        over: Deferred[str] = Deferred()
        zygote = cls(ours, events, Deferred())
        over.addCallback(zygote._ended)
        with theirs, open(os.devnull, "r+b", buffering=0) as nothing:
            try:
                reactor.spawnProcess(
                    _Ending(over),
                    python,
                    [python, "-I", "-S", "-c", _PROGRAM, str(_PLACE)],
                    env={
                        name: os.environ[name]
                        for name in _INHERITED
                        if name in os.environ
                    },
                    childFDs={
                        0: theirs.fileno(),
                        1: nothing.fileno(),
                        2: nothing.fileno(),
                    },
                )
            except OSError as error:
                ours.close()
                raise NotStarted(error.strerror or str(error)) from error
        return zygote

    def hand_over(self, connection: socket.socket) -> bool:
        """
        Have a keeper made, which finds its order in a connection.

        @return: whether that was so; if not, it has too much to do, or is not
            L{alive} any more.
        """
        try:
            hand_over(self._socket, connection)
        except BlockingIOError:
            return False
        except OSError as error:
            # So many descriptors on their way: that one passes.
            self.alive = error.errno == errno.ETOOMANYREFS
            return False
        return True

    def end(self) -> None:
        """
        Let it end; the keepers stay.
        """
        self._wanted = self.alive = False
        self._socket.close()

    def _ended(self, status: str) -> None:
        if self._wanted:
            self._events.emit(KeeperProgramEnded(status))
        self.end()
        self.over.callback(None)
