# SPDX-License-Identifier: AGPL-3.0-only
"""
A script that runs, as the agent sees it: what it takes to start one, and how it
ends. What looks after it is a small parent of its own, which outlives the agent:
L{ctrlexec.agent.keeping}.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs

from ctrlexec.protocol.run_messages import DONE

#: In the directory of a run: what the script has written so far, each at most
#: C{max_output} bytes. What it has not written to is not there.
STDOUT, STDERR = "stdout", "stderr"


@attrs.frozen(kw_only=True)
class RunLimits:
    """
    What the system grants a script: setrlimit(2). C{None} for what it grants the
    agent.

    @ivar nproc: how many processes its user may have.
    @ivar memory_bytes: of address space, for each process (C{as=}).
    @ivar nofile: how many files each process may have open.
    @ivar cpu_seconds: of processor time, for each process.
    """

    nproc: int | None = None
    memory_bytes: int | None = None
    nofile: int | None = None
    cpu_seconds: int | None = None


@attrs.frozen(kw_only=True)
class StartOrder:
    """
    A script that is to be started.

    @ivar directory: the run's own, which is there and empty. What the script
        writes goes there, and how it ends.
    @ivar argv: the absolute path of the script, and its arguments.
    @ivar stdin: what it can read, before the end of the file; never on disk,
        since there is a token in it.
    @ivar stdin_timeout: for how many seconds it may leave that unread.
    @ivar max_output: how many bytes are kept of each of stdout and stderr.
    @ivar timeout: after how many seconds it is ended, or C{None}.
    @ivar grace: between TERM and KILL, in seconds.
    @ivar lock: a file that is made if it is missing, and whose exclusive flock
        is held until the run has ended; C{None} for none.
    """

    directory: Path
    argv: tuple[str, ...]
    env: Mapping[str, str]
    stdin: bytes = attrs.field(repr=False)
    stdin_timeout: float
    max_output: int
    timeout: float | None = None
    grace: float = 10.0
    limits: RunLimits = RunLimits()
    lock: Path | None = None


@attrs.frozen(kw_only=True)
class Ending:
    """
    How a script has ended, as its small parent has written it down.

    @ivar exit: the script's own exit status, 0 to 255; 126 when a signal ended
        it or it could not be started; 127 when it could not be executed.
    @ivar state: see L{ctrlexec.protocol.run_messages}: never C{RUNNING} or
        C{LOST}.
    @ivar reason: why it did not end by itself, or which signal ended it; else
        empty.
    @ivar stdout_bytes: how much it wrote, kept or not.
    @ivar stderr_bytes: likewise.
    @ivar stdin_timed_out: it left its context unread for too long.
    @ivar finished: unix seconds, as the clock had it then.
    """

    exit: int
    state: str = DONE
    reason: str = ""
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    stdin_timed_out: bool = False
    finished: float = 0.0
