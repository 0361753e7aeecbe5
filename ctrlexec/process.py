# SPDX-License-Identifier: AGPL-3.0-only
"""
Starting a program, and hearing what becomes of it.

A program gets an argv (never a shell), a session of its own, a small fixed
environment, and its stdin without ever making us wait; nobody reads what it
writes. Scripts are no such programs: L{ctrlexec.agent.keeping}.

Starting it is most of what a run costs. Twisted uses C{posix_spawn}, several
times faster than C{fork}, as long as C{spawnProcess} is given no C{path},
C{uid} or C{gid}; so it never is. Nothing of ours can run in the child then,
and the new session is the work of the C{setsid} program, which calls
setsid(2) and becomes the program under the same process id.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol, cast

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectionAborted,
    ProcessDone,
    ProcessExitedAlready,
    ProcessTerminated,
)
from twisted.internet.interfaces import (
    IProcessTransport,
    IReactorProcess,
)
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from ctrlexec.errors import NotStarted

FIXED_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""The only C{PATH} that a program sees: NEWER-LINE.md section 10.4."""

INHERITED = ("HOME", "LANG", "LC_ALL", "TZ", "TERM", "USER", "LOGNAME")
"""What a program may see of our own environment: NEWER-LINE.md section 10.4."""

KILLED = 126
"""The exit status of a program that a signal ended: PROTOCOL.md section 2."""

STDIN, STDOUT, STDERR = 0, 1, 2

# What the setsid program does, for systems without one. Python ignores two
# signals and may set LC_CTYPE; neither must reach the program.
_PYTHON_SETSID = """\
import os, signal, sys
os.setsid()
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
os.environ.pop("LC_CTYPE", None)
try:
    os.execv(sys.argv[1], sys.argv[1:])
except OSError as error:
    sys.stderr.write(f"cannot execute {sys.argv[1]}: {error.strerror}\\n")
    sys.exit(127)
"""


def small_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """
    The environment of every program that we start.

    @param environ: our own environment.
    @return: L{FIXED_PATH}, and those of the L{INHERITED} variables that are set.
    """
    inherited = {name: environ[name] for name in INHERITED if name in environ}
    return {"PATH": FIXED_PATH, **inherited}


@functools.cache
def own_session(path: str = FIXED_PATH) -> tuple[str, ...]:
    """
    The words to put before an argv so that it runs in a session of its own.

    @param path: where to look for the C{setsid} program.
    """
    setsid = shutil.which("setsid", path=path)
    if setsid is not None:
        return (setsid,)
    return (sys.executable, "-I", "-S", "-c", _PYTHON_SETSID)


@attrs.frozen
class ProgramResult:
    """
    What became of a program.

    @ivar exit: its exit status, 0 to 255, or L{KILLED}.
    @ivar signal: the number of the signal that ended it, if one did.
    """

    exit: int
    signal: int | None = None


class _Pipe(Protocol):
    def connectionLost(self, reason: Failure) -> None: ...


class _UnixTransport(Protocol):
    """
    What L{twisted.internet.process.Process} has beyond L{IProcessTransport}.
    """

    pipes: dict[int, _Pipe]
    reapProcess: Callable[[], None]


class Program(ProcessProtocol):
    """
    A program that runs. Nobody wants its output, and it is done when it has
    exited: what it leaves behind in its process group is killed.

    @ivar pid: its process id, which is also the id of its session and of its
        process group; still known after its exit.
    @ivar result: fires with a L{ProgramResult} when it is done, and never
        fails. Whoever cancels it stops waiting; the program goes on.
    """

    transport: IProcessTransport
    pid: int

    def __init__(self, stdin: bytes) -> None:
        self.result: Deferred[ProgramResult] = Deferred()
        self._stdin = stdin
        self._exited = False
        self._group_ended = False

    def connectionMade(self) -> None:
        """
        The program was started: hand it its stdin, then the end of it.
        """
        pid = self.transport.pid
        assert pid is not None
        self.pid = pid
        self._end_group_before_reaping()
        self.transport.writeToChild(STDIN, self._stdin)
        self.transport.closeChildFD(STDIN)

    def processExited(self, reason: Failure) -> None:
        """
        The program is gone; a child of it may still hold its stdin.
        """
        self._exited = True
        if not self._group_ended:
            # Twisted has reaped it in the act of starting it. Its id was given
            # out a moment ago, and ids are given out in turn: it will not be
            # another's for long.
            self._end_group()
        self._cut()

    def processEnded(self, reason: Failure) -> None:
        """
        The program is gone and its stdin is closed.
        """
        status = reason.value
        assert isinstance(status, (ProcessDone, ProcessTerminated))
        exit = KILLED if status.signal else status.exitCode
        self.result.callback(ProgramResult(exit, status.signal))

    def kill(self) -> None:
        """
        End the program at once, with all of its process group. Nothing happens
        when it has exited: from then on the id can be somebody else's.
        """
        if self._exited:
            return
        self._end_group()
        # A program that was started this moment may not lead its group yet.
        with suppress(OSError, ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    def _end_group_before_reaping(self) -> None:
        """
        See to it that the process group is killed while its leader is dead and
        not yet reaped: until then its id can not be another's. Twisted says
        only when it has reaped, so we stand in front of what reaps.
        """
        transport = cast(_UnixTransport, self.transport)
        reap = transport.reapProcess

        def end_group_and_reap() -> None:
            with suppress(OSError):
                if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                    self._end_group()
            reap()

        transport.reapProcess = end_group_and_reap

    def _end_group(self) -> None:
        self._group_ended = True
        with suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)

    def _cut(self) -> None:
        """
        Close our end of stdin at once.

        L{IProcessTransport} closes it only after it was read, so the pipe
        itself is told. The transport then sees it as closed, and ends the
        process.
        """
        pipes = cast(_UnixTransport, self.transport).pipes
        if STDIN in pipes:
            pipes[STDIN].connectionLost(Failure(ConnectionAborted()))


def start_program(
    reactor: IReactorProcess,
    argv: Sequence[str],
    *,
    stdin: bytes,
    env: Mapping[str, str],
) -> Program:
    """
    Start a program.

    That it was started does not mean that it can be executed: as in a shell,
    the exit status is then 127 (it or its interpreter is missing) or 126.

    @param argv: the absolute path of the program, and its arguments.
    @param stdin: what it can read, before the end of the file.
    @param env: its whole environment, see L{small_environment}.
    @raise NotStarted: the arguments or the environment are none that a program
        can have, or the system refused.
    """
    program = Program(stdin)
    words = encoded([*own_session(), *argv], "an argument")
    names, values = (encoded(each, "a variable") for each in (env, env.values()))
    try:
        with _descriptors() as descriptors:
            reactor.spawnProcess(
                program,
                words[0],
                words,
                env=dict(zip(names, values, strict=True)),
                childFDs=descriptors,
            )
    except OSError as error:
        raise NotStarted(error.strerror or str(error)) from error
    return program


@contextmanager
def _descriptors() -> Iterator[dict[int, int | str]]:
    """
    What the standard streams of a program are, for C{spawnProcess}.
    """
    nothing = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        yield {STDIN: "w", STDOUT: nothing, STDERR: nothing}
    finally:
        os.close(nothing)


def encoded(texts: Iterable[str], what: str) -> list[bytes]:
    """
    Texts as the system takes them: UTF-8, whatever our locale is.

    @param what: what one of them is called. What it says may be secret.
    @raise NotStarted: no program can have one of them.
    """
    try:
        words = [text.encode("utf-8") for text in texts]
    except UnicodeEncodeError:
        raise NotStarted(f"{what} is not valid Unicode") from None
    if any(b"\0" in word for word in words):
        raise NotStarted(f"{what} holds a NUL character")
    return words
