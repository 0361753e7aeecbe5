# SPDX-License-Identifier: AGPL-3.0-only
"""
Asking one agent what became of a run, as it stands in a record.
"""

from __future__ import annotations

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError

from ctrlexec.dispatcher.asking import Asking, Planned
from ctrlexec.dispatcher.heard import Kept
from ctrlexec.dispatcher.outcomes import outcome_of
from ctrlexec.dispatcher.registry import Unknown
from ctrlexec.dispatcher.results import Outcome
from ctrlexec.dispatcher.run_record import DONE, EXPIRED, RUNNING, Entry
from ctrlexec.errors import ProtocolError
from ctrlexec.protocol.codec_trust import NoSuchRequest
from ctrlexec.protocol.connection import TooLarge
from ctrlexec.protocol.run_messages import RUNNING as LIVES
from ctrlexec.protocol.run_messages import (
    FollowRequest,
    NoSuchRun,
    RunResult,
    StreamEnded,
)
from ctrlexec.values import Target

#: What stands in a record where an agent knows nothing of it any more.
GONE: Entry = {"status": EXPIRED, "state": Outcome.UNKNOWN.value}


@attrs.frozen
class Told:
    """
    What an agent says.

    @ivar ours: whether it has answered as an agent of ours does.
    """

    entry: Entry
    ours: bool = False


async def inquire(asking: Asking, planned: Planned, reqid: str) -> Told:
    """
    @raise CtrlExecError: it says nothing.
    """
    if isinstance(planned, Unknown):
        return Told({"fetch_error": planned.error})
    try:
        answer = await asking.agents.result(planned, reqid)
    except NoSuchRequest:
        # An agent of the older line knows nothing of runs that were.
        return Told(GONE)
    except TooLarge as large:
        return Told(await _heard_out(asking, planned, reqid, large), ours=True)
    match answer:
        case NoSuchRun():
            return Told(GONE)
        case RunResult(state=state, original=original) if state == LIVES:
            return Told({"status": RUNNING}, not original)
        case RunResult(original=original) as result:
            return Told(_done(result), not original)


async def _heard_out(
    asking: Asking, target: Target, reqid: str, large: TooLarge
) -> Entry:
    """
    What is too large as one answer is not as a stream; not all of it is kept.
    """
    settings = asking.ours.settings
    kept = Kept(settings.max_answer)
    following = Deferred.fromCoroutine(
        asking.agents.follow(target, FollowRequest(reqid), kept.take)
    )
    # It has ended: whoever goes on for longer does not tell what it has written.
    following.addTimeout(settings.read_timeout, asking.ours.process.reactor)
    try:
        answer = await following
    except (ProtocolError, DeferredTimeoutError):
        raise large from None
    match answer:
        case NoSuchRun():
            return GONE
        case StreamEnded() as end:
            result = RunResult(
                reqid,
                end.script,
                end.state,
                exit=end.exit,
                stdout=kept.text("stdout", end.stdout_bytes),
                stderr=kept.text("stderr", end.stderr_bytes),
                reason=end.reason,
            )
            return _done(result)


def _done(result: RunResult) -> Entry:
    entry = {
        "status": DONE,
        "exit": result.exit,
        "stdout": result.stdout,
        "stderr": result.stderr,
        "state": outcome_of(result.state, result.exit).value,
        "reason": result.reason,
        "started": result.started,
        "finished": result.finished,
    }
    optional = ("reason", "started", "finished")
    return {k: v for k, v in entry.items() if v or k not in optional}
