# SPDX-License-Identifier: AGPL-3.0-only
"""
How a script has ended, as a keeper tells it and writes it down.

The file is there with the first moment of the run, under another name and large
enough: so a disk that is full by the end is no reason to lose an exit status.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Container

from ctrlexec.agent.keeper.orders import ENDING

#: The name of the file until it holds the ending.
RESERVED = "ending.new"
_RESERVED_BYTES = 512
_MODE = 0o600


def ending(
    *,
    exit: int,
    state: str,
    reason: str,
    stdout_bytes: int,
    stderr_bytes: int,
    stdin_timed_out: bool,
) -> bytes:
    """
    The ending as JSON, with the time of now; see
    L{ctrlexec.agent.runs.Ending}.
    """
    text = (
        f'{{"exit": {exit:d}, "state": "{state}", "reason": "{_plain(reason)}", '
        f'"stdout_bytes": {stdout_bytes:d}, "stderr_bytes": {stderr_bytes:d}, '
        f'"stdin_timed_out": {"true" if stdin_timed_out else "false"}, '
        f'"finished": {time.time():.3f}}}'
    )
    return text.encode("ascii")


def killed_by(number: int, limits: Container[str]) -> str:
    """
    Why a script has ended that a signal ended, and nobody of ours had sent it.

    @param limits: the names of those that it had: L{orders.LIMITS
        <ctrlexec.agent.keeper.orders.LIMITS>}.
    """
    try:
        name = signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        name = "real-time"
    text = f"killed by signal {number} ({name})"
    # Of the others nobody can tell whether it was a limit.
    if number == signal.SIGXCPU and "CPU" in limits:
        text += ": its cpu= was used up"
    return text


def reserve() -> int:
    """
    Take the room for the ending, in the current directory.

    @return: a descriptor for L{settle}.
    @raise OSError: there is none.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(RESERVED, flags, _MODE)
    try:
        if os.write(descriptor, b" " * _RESERVED_BYTES) < _RESERVED_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        os.unlink(RESERVED)
        raise
    return descriptor


def settle(descriptor: int, text: bytes) -> None:
    """
    Write the ending down, whole or not at all.

    @raise OSError: it could not be done now.
    """
    written = os.pwrite(descriptor, text, 0)
    if written != len(text):
        raise OSError("it was cut")
    os.ftruncate(descriptor, len(text))
    os.rename(RESERVED, ENDING)


def _plain(text: str) -> str:
    """
    The system's words are ASCII; whatever is not, or would need quoting, is no
    loss.
    """
    return "".join(
        each if " " <= each <= "~" and each not in '"\\' else "?" for each in text
    )[:200]
