# SPDX-License-Identifier: AGPL-3.0-only
"""
The exit statuses of C{ctrl-exec}: what became of an order, in one number.

Those of PROTOCOL.md section 7 are 0 and 1. They stay for whoever asks for
nothing that the original does not know; all else is told in detail.
"""

from __future__ import annotations

from collections.abc import Iterable

from ctrlexec.dispatcher.results import Outcome, RunRow
from ctrlexec.errors import (
    CtrlExecError,
    InvalidValue,
    Locked,
    NotAuthorised,
    PkiError,
    RequestRejected,
    SettingsError,
    TransportError,
    Unconfirmed,
)

OK, FAILED, USAGE, LOST, DENIED, STOPPED, LOCKED, CONFIGURATION = range(8)
TIMED_OUT, INTERRUPTED = 124, 130
#: Of C{wait}, NEWER-LINE.md section 6.2: some host has not ended yet.
PENDING = 2

_OF_OUTCOMES = {
    Outcome.OK: OK,
    Outcome.ACCEPTED: OK,
    Outcome.FAILED: FAILED,
    Outcome.CANCELLED: FAILED,
    Outcome.NOT_STARTED: FAILED,
    Outcome.TIMED_OUT: TIMED_OUT,
    Outcome.DENIED: DENIED,
    Outcome.REFUSED: DENIED,
    Outcome.BUSY: LOCKED,
    Outcome.UNREACHABLE: LOST,
    Outcome.UNKNOWN: LOST,
    Outcome.RUNNING: LOST,
}
# Of several the first one counts.
_BY_WEIGHT = (STOPPED, DENIED, LOST, LOCKED, TIMED_OUT, FAILED)
#: Those of what became of hosts that are told where nobody asks for details.
_PLAIN = (OK, FAILED, TIMED_OUT)


def rows_status(
    rows: Iterable[RunRow], *, stopped: bool = False, detailed: bool = True
) -> int:
    """
    The exit status of a run.

    @param rows: what became of it on each host.
    @param stopped: whether hosts were left out because others had failed.
    @param detailed: whether 3 to 6 are told apart from 1.
    """
    found = {_OF_OUTCOMES[row.outcome] for row in rows}
    if stopped:
        found.add(STOPPED)
    heaviest = next((each for each in _BY_WEIGHT if each in found), OK)
    return heaviest if detailed or heaviest in _PLAIN else FAILED


def waited_status(rows: Iterable[RunRow], *, complete: bool) -> int:
    """
    The exit status of C{wait}.

    @param complete: whether it has ended everywhere.
    """
    if not complete:
        return PENDING
    return OK if all(row.outcome is Outcome.OK for row in rows) else FAILED


def error_status(error: CtrlExecError, *, detailed: bool = False) -> int:
    """
    The exit status of a command that ends with an error.

    @param detailed: see L{rows_status}.
    """
    # Not loaded by whoever does not watch.
    from ctrlexec.dispatcher.viewer import Interrupted

    match error:
        case RequestRejected():
            return FAILED
        case SettingsError() | PkiError():
            return CONFIGURATION
        case InvalidValue() | Unconfirmed():
            return USAGE
        case Interrupted():
            return INTERRUPTED
        case NotAuthorised() if detailed:
            return DENIED
        case Locked() if detailed:
            return LOCKED
        case TransportError() if detailed:
            return LOST
    return FAILED
