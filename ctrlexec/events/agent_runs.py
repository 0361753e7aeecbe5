# SPDX-License-Identifier: AGPL-3.0-only
"""
What happens to the runs of an agent.
"""

from __future__ import annotations

import attrs

from ctrlexec.events.event import ErrorEvent, Event, WarningEvent


@attrs.frozen
class RunStarted(Event):
    """A script was started."""

    action = "run-start"
    script: str
    peer: str
    reqid: str
    dispatcher: str


@attrs.frozen
class RunEnded(Event):
    """A script has ended; the state says how, where it was not by itself."""

    action = "run"
    script: str
    exit: int
    peer: str
    reqid: str
    dispatcher: str
    state: str | None = None


@attrs.frozen
class RunDetached(Event):
    """A script was started, and its dispatcher does not wait for it."""

    action = "run-async"
    script: str
    peer: str
    dispatcher: str
    reqid: str


@attrs.frozen
class LockBusy(WarningEvent):
    """A script was not started, since another run has the lock that it takes."""

    action = "run-async-busy"
    script: str
    peer: str
    reqid: str
    dispatcher: str
    lock: str


@attrs.frozen
class RunRepeated(Event):
    """A run was asked for once more, and is answered with what there is of it."""

    action = "run-repeat"
    script: str
    peer: str
    dispatcher: str
    reqid: str


@attrs.frozen
class RunCancelled(Event):
    """A run was to be ended, and nothing is left of it; so many of its processes
    were told."""

    action = "run-cancel"
    script: str
    peer: str
    dispatcher: str
    reqid: str
    signalled: int
    reason: str | None = None


@attrs.frozen
class RunAdopted(Event):
    """The agent has found a run that was started before it was."""

    action = "run-adopted"
    script: str
    peer: str
    dispatcher: str
    reqid: str


@attrs.frozen
class RunLost(WarningEvent):
    """Nobody has seen the end of a run."""

    action = "run-lost"
    script: str
    peer: str
    dispatcher: str
    reqid: str


@attrs.frozen
class KeeperProgramEnded(WarningEvent):
    """The program that keepers are made of has ended, and nobody has told it to. The
    next run has it started again; those that go on have keepers already."""

    action = "keeper-program-end"
    status: str


@attrs.frozen
class RecordNotWritten(ErrorEvent):
    """What there is to keep of a run could not be written."""

    action = "async-store-fail"
    reqid: str
    error: str


@attrs.frozen
class RunsCrowded(WarningEvent):
    """Runs of a dispatcher were forgotten before their day was over, since the store
    has no room for more."""

    action = "run-store-full"
    dispatcher: str
    runs: int


@attrs.frozen
class AgesFailed(ErrorEvent):
    """For how long runs are kept already, and which had to go early, could not be
    read or written down."""

    action = "run-ages-fail"
    error: str


@attrs.frozen
class ResultTold(Event):
    """A dispatcher asked what becomes of a run, and was told."""

    action = "result"
    peer: str
    dispatcher: str
    reqid: str
    status: str


@attrs.frozen
class ResultMissed(Event):
    """A dispatcher asked for a run that is not there, or not any more."""

    action = "result-miss"
    peer: str
    dispatcher: str
    reqid: str


@attrs.frozen
class ResultDenied(WarningEvent):
    """A dispatcher asked for another one's run, and was told that there is none."""

    action = "result-deny"
    peer: str
    dispatcher: str
    reqid: str
    reason: str = "not-owner"


@attrs.frozen
class RunDenied(WarningEvent):
    """A script was not started."""

    action = "deny"
    peer: str
    reason: str
    dispatcher: str
    script: str | None = None
    reqid: str | None = None


@attrs.frozen
class StdinTimedOut(WarningEvent):
    """A script did not read its context in time."""

    action = "stdin-timeout"
    script: str
    reqid: str
