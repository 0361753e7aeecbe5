# SPDX-License-Identifier: AGPL-3.0-only
"""
The messages about a run that has begun: what becomes of it, what it writes, and
its end. How they are spelled is known to L{ctrlexec.protocol.codec_runs} alone.

C{/result} is NEWER-LINE.md section 3.6; the others are spoken between ours:
C{docs/runs.md}.
"""

from __future__ import annotations

import attrs

#: A run that lives.
RUNNING = "running"
#: How a run ends: by itself; because somebody wanted it; because its time was
#: over; because it could not be executed; unseen, with its host or whatever
#: looked after it.
DONE, CANCELLED, TIMED_OUT, FAILED, LOST = (
    "done",
    "cancelled",
    "timed_out",
    "failed",
    "lost",
)
#: The states that are for good.
ENDS = (DONE, CANCELLED, TIMED_OUT, FAILED, LOST)
#: Every state that a run can be in.
STATES = (RUNNING, *ENDS)
#: No state that an agent tells: its answer is lost, and it is asked again.
ASKED_AGAIN = "asked again"
#: Why a run was not started, beside L{CANCELLED}: it may not be, or not now.
DENIED, BUSY = "denied", "busy"


@attrs.frozen
class RunResult:
    """
    What an agent has on record of a run: the answer to C{GET /result/REQID}.

    @ivar state: one of L{STATES}; from an agent of the original L{RUNNING} or
        L{DONE}.
    @ivar started: ISO 8601 in UTC, as the agent's clock had it.
    @ivar finished: likewise; empty while it runs.
    @ivar exit: see L{ctrlexec.protocol.messages.RunFinished}; -1 while it runs,
        and for one that is L{LOST}.
    @ivar reason: why it did not end by itself; else empty.
    @ivar original: whether it is as an agent of the original writes it.
    """

    reqid: str
    script: str
    state: str
    started: str = ""
    finished: str = ""
    exit: int = -1
    stdout: str = ""
    stderr: str = ""
    reason: str = ""
    original: bool = False


@attrs.frozen
class NoSuchRun:
    """
    The agent knows of no run of this id that the caller owns.
    """

    reqid: str


@attrs.frozen
class FollowRequest:
    """
    A dispatcher wants to hear what a run writes: C{POST /follow}.

    @ivar stdout: how many bytes of it the caller has already.
    @ivar stderr: likewise.
    """

    reqid: str
    stdout: int = 0
    stderr: int = 0


@attrs.frozen
class Output:
    """
    A run has written something: an event of a stream.

    @ivar seconds: since the run was started.
    @ivar stream: C{"stdout"} or C{"stderr"}.
    @ivar text: as UTF-8, what is none replaced.
    @ivar end: how many bytes of the stream the caller has with this.
    """

    seconds: float
    stream: str
    text: str
    end: int


@attrs.frozen
class StateChanged:
    """
    A run is in another state: an event of a stream.

    @ivar state: one of L{STATES}.
    """

    seconds: float
    state: str


@attrs.frozen
class StreamEnded:
    """
    The last event of a stream: what a request without C{stream} is answered
    with, but for what the script has written, which has been told.

    @ivar exit: see L{ctrlexec.protocol.messages.RunFinished}.
    @ivar state: see L{STATES}.
    @ivar stdout_bytes: how much it wrote, kept or not.
    @ivar stderr_bytes: likewise.
    """

    seconds: float
    script: str
    reqid: str
    exit: int
    state: str = DONE
    reason: str = ""
    stdout_bytes: int = 0
    stderr_bytes: int = 0


#: What is told of a run while it lives; a L{StreamEnded} is the last.
RunEvent = Output | StateChanged | StreamEnded


@attrs.frozen
class Signalled:
    """
    A process that was told to end.

    @ivar command: its name, as the kernel has it.
    @ivar signal: C{"TERM"}, or C{"KILL"} where that was of no use.
    """

    pid: int
    command: str
    signal: str


@attrs.frozen
class CancelDone:
    """
    Nothing of a run is left: the answer to C{POST /cancel}.

    @ivar state: how it has ended, L{CANCELLED} or, if it was over before, as it
        had.
    @ivar signalled: what was told to end.
    """

    reqid: str
    state: str
    signalled: tuple[Signalled, ...] = ()


@attrs.frozen
class LiveRun:
    """
    A run that lives, as C{GET /runs} tells of it.

    @ivar started: ISO 8601 in UTC, as the agent's clock had it.
    @ivar seconds: for how long it has run.
    @ivar username: who wanted it, as the dispatcher was told.
    @ivar pid: the process id of the script; 0 where it is not started yet.
    """

    reqid: str
    script: str
    state: str
    started: str
    seconds: float
    username: str = ""
    asynchronous: bool = False
    pid: int = 0


@attrs.frozen
class LiveRunsAnswer:
    """
    What runs on an agent: the answer to C{GET /runs}.

    @ivar runs: those of the dispatcher that asks, the oldest first.
    @ivar others: how many of other dispatchers there are.
    """

    runs: tuple[LiveRun, ...] = ()
    others: int = 0
