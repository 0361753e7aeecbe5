# SPDX-License-Identifier: AGPL-3.0-only
"""
What an agent says of a run, or why it says nothing, as what became of it.

A row says nothing that nobody knows: where it is not certain whether a script
has run, it is L{Outcome.UNKNOWN}.
"""

from __future__ import annotations

import attrs

from ctrlexec.dispatcher.registry import Unknown
from ctrlexec.dispatcher.results import (
    REVOKED_AGENT,
    UNKNOWN_AGENT,
    Outcome,
    RunRow,
)
from ctrlexec.errors import CtrlExecError, Forbidden, Unreachable, Untrusted
from ctrlexec.protocol.messages import (
    NEVER_RAN,
    RunAccepted,
    RunAnswer,
    RunFinished,
    RunRefused,
)
from ctrlexec.protocol.run_messages import (
    CANCELLED,
    DONE,
    FAILED,
    LOST,
    RUNNING,
    TIMED_OUT,
    RunResult,
)

HOW_TO_LIST = "ctrl-exec list-agents shows the agents that are paired"
HOW_TO_GO_ON = "it still runs there: ctrl-exec attach {reqid} waits for it"
HOW_TO_END = (
    "its agent says at most that it runs: ctrl-exec cancel {reqid} ends it, "
    "ctrl-exec status {reqid} asks again"
)

HOW_TO_FIND_OUT = (
    "ctrl-exec status {reqid} asks again, ctrl-exec attach {reqid} goes on listening"
)

NOBODY_WAITED = "nobody has waited for the answer"

_BY_ITSELF = (DONE, FAILED)
_STATES = {
    RUNNING: Outcome.RUNNING,
    CANCELLED: Outcome.CANCELLED,
    TIMED_OUT: Outcome.TIMED_OUT,
    LOST: Outcome.UNKNOWN,
}
_REFUSALS = {"busy": Outcome.BUSY, "cancelled": Outcome.CANCELLED}


def outcome_of(state: str, status: int) -> Outcome:
    """
    @param state: see L{ctrlexec.protocol.run_messages}.
    @param status: the exit status.
    """
    if state not in _BY_ITSELF:
        return _STATES.get(state, Outcome.UNKNOWN)
    return Outcome.FAILED if status or state == FAILED else Outcome.OK


def answered(row: RunRow, answer: RunAnswer) -> RunRow:
    """
    An agent has answered.
    """
    match answer:
        case RunRefused(error=error, state=state, reason=reason):
            outcome = _REFUSALS.get(state, Outcome.DENIED)
            return attrs.evolve(row, outcome=outcome, error=error, reason=reason)
        case RunAccepted():
            return attrs.evolve(row, outcome=Outcome.ACCEPTED)
        case RunFinished():
            return ended(row, answer)


def ended(row: RunRow, end: RunFinished | RunResult) -> RunRow:
    """
    A run has ended, and this is how.
    """
    return attrs.evolve(
        row,
        outcome=outcome_of(end.state, end.exit),
        exit=end.exit,
        stdout=end.stdout,
        stderr=end.stderr,
        reason=end.reason,
    )


def failed(row: RunRow, error: Exception) -> RunRow:
    """
    There is no answer.
    """
    match error:
        case Unreachable():
            outcome = Outcome.UNREACHABLE
        case Untrusted() | Forbidden():
            outcome = Outcome.REFUSED
        case _:
            outcome = Outcome.UNKNOWN
    known = isinstance(error, CtrlExecError)
    return attrs.evolve(
        row,
        outcome=outcome,
        exit=NEVER_RAN,
        error=str(error) if known else f"internal error: {error!r}",
        hint=error.hint if isinstance(error, CtrlExecError) else "",
    )


def lost(row: RunRow) -> RunRow:
    """
    Nobody has waited for the answer.
    """
    return attrs.evolve(row, outcome=Outcome.UNKNOWN, error=NOBODY_WAITED)


def forgotten(row: RunRow) -> RunRow:
    """
    The answer is lost, and the agent says that it knows nothing of a run that it
    would know of if it had taken it.
    """
    return attrs.evolve(row, is_final=True)


def lost_sight(row: RunRow) -> RunRow:
    """
    @param row: there is no answer, and it was asked for again and again; or the
        run has not ended yet, which is something.
    """
    if row.outcome is Outcome.RUNNING:
        return row
    return attrs.evolve(row, hint=HOW_TO_FIND_OUT.format(reqid=row.reqid))


def unfinished(row: RunRow, error: CtrlExecError) -> RunRow:
    """
    There is no answer, since the run has not ended yet.
    """
    hint = HOW_TO_GO_ON.format(reqid=row.reqid)
    return attrs.evolve(row, outcome=Outcome.RUNNING, error=str(error), hint=hint)


def overdue(row: RunRow, why: str) -> RunRow:
    """
    It should have ended long ago, and there is no word that it has.

    @param why: it should have.
    """
    return attrs.evolve(
        row,
        outcome=Outcome.UNKNOWN,
        error=f"{why}, and nobody says that it has ended",
        hint=HOW_TO_END.format(reqid=row.reqid),
    )


def nowhere(row: RunRow, unknown: Unknown) -> RunRow:
    """
    Nobody could be asked.
    """
    revoked = unknown.error == REVOKED_AGENT
    return attrs.evolve(
        row,
        outcome=Outcome.REFUSED if revoked else Outcome.UNREACHABLE,
        error=unknown.error,
        hint=HOW_TO_LIST if unknown.error == UNKNOWN_AGENT else "",
    )


def not_started(row: RunRow) -> RunRow:
    """
    Nobody was asked.
    """
    outcome = Outcome.NOT_STARTED
    return attrs.evolve(row, outcome=outcome, error=outcome.value)
