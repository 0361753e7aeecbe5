# SPDX-License-Identifier: AGPL-3.0-only
"""
A process reactor without processes, for tests that own the world.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import AnyStr, NoReturn

import attrs
from twisted.internet.error import (
    ProcessDone,
    ProcessExitedAlready,
    ProcessTerminated,
)
from twisted.internet.interfaces import (
    IProcessProtocol,
    IProcessTransport,
    IReactorProcess,
)
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

STDIN, STDOUT, STDERR = 0, 1, 2
PIPES = ("r", "w")
#: Above what any Linux gives out: a signal to such a group reaches nobody.
FIRST_PID = 2**30


@attrs.frozen
class FakePipe:
    """
    Our end of a pipe to a L{FakeProcess}.
    """

    process: FakeProcess
    descriptor: int

    def connectionLost(self, reason: Failure) -> None:
        """
        Close this end at once, as L{twisted.internet.process} does it.
        """
        self.process.pipe_closed(self.descriptor)


@implementer(IProcessTransport)
class FakeProcess:
    """
    A process that does what a test tells it to, and tells its protocol so in
    the order in which L{twisted.internet.process} would.

    @ivar stdin: what the process has read so far.
    @ivar nowhere: those of its standard streams that lead to C{/dev/null}.
    @ivar signals: the signals that it got.
    @ivar pipes: the pipes that are still open on our side.
    """

    def __init__(
        self,
        protocol: IProcessProtocol,
        pid: int,
        argv: list[bytes],
        env: object,
        streams: Mapping[int, int | str],
    ) -> None:
        self.protocol = protocol
        self.pid: int | None = pid
        self.argv = argv
        self.env = env
        self.stdin = b""
        self.signals: list[str | int] = []
        self.pipes = {fd: FakePipe(self, fd) for fd in streams if streams[fd] in PIPES}
        self.nowhere = {fd for fd in streams if _is_nowhere(streams[fd])}
        self._unread = b""
        self._closing: set[int] = set()
        self._reason: Failure | None = None

    # What the process does.

    def reads_stdin(self) -> None:
        """
        Read all that is there to be read.
        """
        self.stdin, self._unread = self.stdin + self._unread, b""
        if STDIN in self._closing:
            self.pipe_closed(STDIN)

    def writes(self, descriptor: int, data: bytes) -> None:
        """
        Write to stdout or stderr.
        """
        if descriptor in self.pipes:
            self.protocol.childDataReceived(descriptor, data)

    def closes(self, *descriptors: int) -> None:
        """
        Close some of its ends.
        """
        for descriptor in descriptors:
            self.pipe_closed(descriptor)

    def exits(
        self, code: int = 0, *, signal: int | None = None, held: Iterable[int] = ()
    ) -> None:
        """
        Come to an end.

        @param held: the pipes that a child of the process keeps open.
        """
        self.reapProcess()
        self.pid = None
        self._reason = Failure(
            ProcessTerminated(None if signal else code, signal, signal or code << 8)
            if code or signal
            else ProcessDone(0)
        )
        self.protocol.processExited(self._reason)
        self._end_when_closed()
        self.closes(*(set(self.pipes) - set(held)))

    def pipe_closed(self, descriptor: int) -> None:
        """
        One end of a pipe is gone.
        """
        if self.pipes.pop(descriptor, None) is not None:
            self.protocol.childConnectionLost(descriptor)
            self._end_when_closed()

    def reapProcess(self) -> None:
        """
        What the reactor calls when it hears that children have ended. Here the
        end is known already.
        """

    def _end_when_closed(self) -> None:
        reason = self._reason
        if reason is not None and not self.pipes:
            self._reason = None
            self.protocol.processEnded(reason)

    # IProcessTransport

    def writeToChild(self, childFD: int, data: bytes) -> None:
        self._unread += data

    def closeChildFD(self, descriptor: int) -> None:
        self._closing.add(descriptor)
        if descriptor != STDIN or not self._unread:
            self.pipe_closed(descriptor)

    def closeStdin(self) -> None:
        self.closeChildFD(STDIN)

    def closeStdout(self) -> None:
        self.closeChildFD(STDOUT)

    def closeStderr(self) -> None:
        self.closeChildFD(STDERR)

    def loseConnection(self) -> None:
        for descriptor in list(self.pipes):
            self.closeChildFD(descriptor)

    def signalProcess(self, signalID: str | int) -> None:
        if self.pid is None:
            raise ProcessExitedAlready()
        self.signals.append(signalID)

    def write(self, data: bytes) -> None:
        self.writeToChild(STDIN, data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def getHost(self) -> NoReturn:
        raise NotImplementedError()

    def getPeer(self) -> NoReturn:
        raise NotImplementedError()


@implementer(IReactorProcess)
class FakeProcessReactor(Clock):
    """
    A clock, and an L{IReactorProcess} that starts L{FakeProcess}es.

    @ivar processes: every process that was started.
    @ivar refusal: what stops the next start, if anything.
    """

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[FakeProcess] = []
        self.refusal: OSError | None = None

    def refuse(self, errno: int) -> None:
        """
        Refuse further starts, as the system does.
        """
        self.refusal = OSError(errno, os.strerror(errno))

    def spawnProcess(
        self,
        processProtocol: IProcessProtocol,
        executable: bytes | str,
        args: Sequence[bytes | str] = (),
        env: Mapping[AnyStr, AnyStr] | None = None,
        path: bytes | str | None = None,
        uid: int | None = None,
        gid: int | None = None,
        usePTY: bool = False,
        childFDs: Mapping[int, int | str] | None = None,
    ) -> IProcessTransport:
        """
        Start a process.

        The arguments that make Twisted fork are refused: none of our programs
        may be started that way.
        """
        if path is not None or uid is not None or gid is not None or usePTY:
            raise AssertionError("this start would not use posix_spawn")
        if args[0] != executable:
            raise AssertionError("a program is told a name that is not its own")
        if self.refusal is not None:
            raise self.refusal
        argv = [os.fsencode(word) for word in args]
        variables = {
            os.fsdecode(name): os.fsdecode(value) for name, value in (env or {}).items()
        }
        pid = FIRST_PID + len(self.processes)
        streams = childFDs or {STDIN: "w", STDOUT: "r", STDERR: "r"}
        process = FakeProcess(processProtocol, pid, argv, variables, streams)
        self.processes.append(process)
        processProtocol.makeConnection(process)
        return process


def _is_nowhere(stream: int | str) -> bool:
    return isinstance(stream, int) and os.path.samestat(
        os.fstat(stream), os.stat(os.devnull)
    )
