# SPDX-License-Identifier: AGPL-3.0-only
"""
The first moment of a script: how it comes to be executed.

posix_spawn(3) is several times faster than fork(2), above all for a program that
has touched as much of its memory as a Python has. What it can not do are limits:
only a script that has some is forked.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
from contextlib import suppress

from ctrlexec.agent.keeper import kernel
from ctrlexec.agent.keeper.orders import LIMITS, Order

#: Exit statuses of a script that was not executed: it is not there, or is no
#: program; or the system did not start it.
NOT_EXECUTABLE, NOT_STARTED = 127, 126

_SHELL = b"/bin/sh"
_EVERY_SIGNAL = signal.valid_signals()
#: Nobody can lay anything in the way of these.
_FIRM = {signal.SIGKILL, signal.SIGSTOP}


class NotExecuted(Exception):
    """
    A script could not be executed.

    @ivar status: the exit status that says so.
    """

    def __init__(self, code: int) -> None:
        super().__init__(os.strerror(code))
        self.status = NOT_EXECUTABLE if code == errno.ENOENT else NOT_STARTED


class Started:
    """
    A script that was started, and our ends of its pipes.

    @ivar pid: its process id.
    """

    __slots__ = ("pid", "stderr", "stdin", "stdout")

    def __init__(self, pid: int, stdin: int, stdout: int, stderr: int) -> None:
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr


def start(order: Order) -> Started:
    """
    Start a script, in a session of its own and in the current directory.

    @raise NotExecuted: it was not.
    @raise OSError: the system lacks something.
    """
    read_in, write_in = os.pipe()
    read_out, write_out = os.pipe()
    read_err, write_err = os.pipe()
    streams = (read_in, write_out, write_err)
    try:
        pid = _executed(order, streams)
    except NotExecuted:
        for descriptor in (write_in, read_out, read_err):
            os.close(descriptor)
        raise
    finally:
        for descriptor in streams:
            os.close(descriptor)
    return Started(pid, write_in, read_out, read_err)


def _executed(order: Order, streams: tuple[int, int, int]) -> int:
    path, argv = order.argv[0], order.argv
    try:
        return _run(path, argv, order, streams)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise NotExecuted(error.errno or errno.EIO) from None
    # As execvp(3) does it: what is no program, and no script that names its
    # interpreter, is one of the shell's.
    try:
        return _run(_SHELL, [_SHELL, *argv], order, streams)
    except OSError as error:
        raise NotExecuted(error.errno or errno.EIO) from None


def _run(
    path: bytes, argv: list[bytes], order: Order, streams: tuple[int, int, int]
) -> int:
    """
    @raise OSError: as exec says it.
    """
    try:
        if not order.limits:
            return _spawned(path, argv, order.env, streams)
    except NotImplementedError:
        # Not every system can have it make a session.
        pass
    except ValueError:
        raise OSError(errno.EINVAL, "") from None
    return _forked(path, argv, order, streams)


def _spawned(
    path: bytes,
    argv: list[bytes],
    env: dict[bytes, bytes],
    streams: tuple[int, int, int],
) -> int:
    return os.posix_spawn(
        path,
        argv,
        env,
        setsid=True,
        setsigmask=(),
        setsigdef=_EVERY_SIGNAL - _FIRM,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, stream, number)
            for number, stream in enumerate(streams)
        ],
    )


def _forked(
    path: bytes, argv: list[bytes], order: Order, streams: tuple[int, int, int]
) -> int:
    read_why, write_why = os.pipe()
    # A signal must find the child neither deaf nor with our handlers.
    before = signal.pthread_sigmask(signal.SIG_SETMASK, _EVERY_SIGNAL)
    try:
        keeper = os.getpid()
        pid = os.fork()
        if pid == 0:
            _become(path, argv, order, streams, keeper, write_why)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(write_why)
    with open(read_why, "rb") as why:
        code = why.read()
    if code:
        os.waitpid(pid, 0)
        raise OSError(int(code), "")
    return pid


def _become(
    path: bytes,
    argv: list[bytes],
    order: Order,
    streams: tuple[int, int, int],
    keeper: int,
    why: int,
) -> None:
    """
    In the child: become the script. It never returns.
    """
    try:
        os.setsid()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        kernel.die_with_parent()
        if os.getppid() == keeper:
            _leave_nothing_of_ours()
            _limit(order.limits)
            os.execve(path, argv, order.env)
    except BaseException as error:
        os.write(why, b"%d" % _code(error))
    finally:
        os._exit(NOT_STARTED)


def _code(error: BaseException) -> int:
    match error:
        case OSError():
            return error.errno or errno.EIO
        case MemoryError():
            return errno.ENOMEM
        case ValueError():
            return errno.EINVAL
    return errno.EIO


def _leave_nothing_of_ours() -> None:
    """
    What a signal does is the script's business, and none is held back.
    """
    for number in _EVERY_SIGNAL:
        if signal.getsignal(number) is not signal.SIG_DFL:
            with suppress(OSError):
                signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _limit(limits: dict[str, int]) -> None:
    """
    @raise OSError: the system does not grant it.
    """
    for name in LIMITS:
        if name not in limits:
            continue
        which = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(which)[1]
        granted = limits[name]
        if hard != resource.RLIM_INFINITY:
            granted = min(granted, hard)
        most = granted
        if name == "CPU" and hard != granted:
            # Where both are the same the signal is KILL, and does not say why.
            most += 1
        try:
            resource.setrlimit(which, (granted, most))
        except ValueError:
            raise OSError(errno.EPERM, name) from None
