# SPDX-License-Identifier: AGPL-3.0-only
"""
What became of an order on each host: rows, whatever happened there. There are over
400 lines, since there is a kind of row for each kind of order.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import attrs

from ctrlexec.values import NEVER_RAN

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from ctrlexec.protocol.messages import Capabilities
    from ctrlexec.protocol.run_messages import (
        LiveRun,
        Output,
        Signalled,
        StateChanged,
    )

UNKNOWN_AGENT = "unknown agent"
REVOKED_AGENT = "certificate revoked"


class Outcome(enum.Enum):
    """
    What became of a run on one host, in one word.
    """

    #: It ended with 0.
    OK = "ok"
    #: It ended with something else.
    FAILED = "failed"
    TIMED_OUT = "timed out"
    CANCELLED = "cancelled"
    #: The agent, or its hook, does not let it run.
    DENIED = "denied"
    #: It, or what it excludes, runs there already.
    BUSY = "busy"
    #: There was no connection: it was not asked for.
    UNREACHABLE = "unreachable"
    #: Agent and dispatcher do not trust each other: it was not asked for.
    REFUSED = "refused"
    #: It may have run, and nobody can tell what became of it.
    UNKNOWN = "unknown"
    #: It was not asked for, since others had failed, or nobody waited any more.
    NOT_STARTED = "not started"
    #: It runs, and nobody waits for it.
    ACCEPTED = "accepted"
    #: It still runs.
    RUNNING = "running"


#: What did not run there, for certain.
NEVER_BEGAN = (
    Outcome.DENIED,
    Outcome.BUSY,
    Outcome.UNREACHABLE,
    Outcome.REFUSED,
    Outcome.NOT_STARTED,
)


@attrs.frozen(kw_only=True)
class RunRow:
    """
    What became of a run on one host.

    @ivar host: the agent's name in the registry, or what the operator typed.
    @ivar outcome: what became of it, in one word.
    @ivar rtt_ms: from the first byte out to the last byte in, in whole
        milliseconds.
    @ivar exit: 0 to 255, the script's own; -1 where it never ran, or where no
        answer tells.
    @ivar error: why there is no result; C{None} where there is one.
    @ivar reason: why a script did not end by itself, as C{"timed out after
        30s"}, or which signal ended it; then there is a result all the same. Or
        what is behind the error, where more is told. Else empty.
    @ivar hint: what the operator can do about the error, or empty.
    @ivar is_final: whether nothing more can become known of it, though it is not
        known what became of it.
    """

    host: str
    script: str
    reqid: str
    outcome: Outcome
    rtt_ms: int = 0
    exit: int = NEVER_RAN
    stdout: str = ""
    stderr: str = ""
    error: str | None = None
    reason: str = ""
    hint: str = ""
    is_final: bool = attrs.field(default=False, repr=False)

    @property
    def ok(self) -> bool:
        """
        Whether all went well so far: of an asynchronous run, that it runs.
        """
        return self.outcome in (Outcome.OK, Outcome.ACCEPTED)


@attrs.frozen(kw_only=True)
class CancelRow:
    """
    What became of the order to end a run on one host.

    @ivar state: how the run has ended there: see
        L{ctrlexec.protocol.run_messages}; or one of L{NEVER_BEGAN}, in a word;
        empty where that is not known.
    @ivar signalled: what was told to end.
    @ivar error: why nothing is known; C{None} where it has ended.
    @ivar hint: what the operator can do about the error, or empty.
    """

    host: str
    reqid: str
    rtt_ms: int = 0
    state: str = ""
    signalled: tuple[Signalled, ...] = ()
    error: str | None = None
    hint: str = ""

    @property
    def ok(self) -> bool:
        """
        Whether nothing of the run is left.
        """
        return self.error is None


@attrs.frozen(kw_only=True)
class PsRow:
    """
    What runs on one host.

    @ivar runs: those that this dispatcher has started, the oldest first.
    @ivar others: how many of other dispatchers there are.
    @ivar error: why it is not known; C{None} where it is.
    @ivar hint: what the operator can do about the error, or empty.
    """

    host: str
    rtt_ms: int = 0
    runs: tuple[LiveRun, ...] = ()
    others: int = 0
    error: str | None = None
    hint: str = ""

    @property
    def ok(self) -> bool:
        """
        Whether the agent answered.
        """
        return self.error is None


@attrs.frozen(kw_only=True)
class PingRow:
    """
    What became of a ping of one host.

    @ivar host: the agent's name in the registry, or what the operator typed.
    @ivar rtt_ms: see L{RunRow}.
    @ivar reported_hostname: the agent's own name for itself, where that is
        another one; else empty.
    @ivar expiry: when the agent's certificate ends, as the agent says it.
    @ivar staged: whether the agent has a renewed certificate that waits to be
        put in its place.
    @ivar renewal_due: whether the agent wants its certificate to be renewed.
    @ivar error: why there is no answer; C{None} where there is one.
    @ivar hint: what the operator can do about the error, or empty.
    """

    host: str
    reqid: str
    rtt_ms: int = 0
    reported_hostname: str = ""
    version: str = ""
    expiry: str = ""
    staged: bool = False
    renewal_due: bool = False
    error: str | None = None
    hint: str = ""

    @property
    def ok(self) -> bool:
        """
        Whether the agent answered.
        """
        return self.error is None


@attrs.frozen(kw_only=True)
class DiscoveryRow:
    """
    What one host offers.

    @ivar host: the agent's name in the registry, or what the operator typed.
    @ivar rtt_ms: see L{RunRow}.
    @ivar reported_hostname: see L{PingRow}.
    @ivar capabilities: what the agent says that it offers; C{None} where it
        did not answer.
    @ivar error: why there is no answer; C{None} where there is one.
    @ivar hint: what the operator can do about the error, or empty.
    """

    host: str
    rtt_ms: int = 0
    reported_hostname: str = ""
    capabilities: Capabilities | None = None
    error: str | None = None
    hint: str = ""

    @property
    def ok(self) -> bool:
        """
        Whether the agent answered.
        """
        return self.error is None


AnyRow = TypeVar("AnyRow", RunRow, PingRow, DiscoveryRow, CancelRow, PsRow)
Row_contra = TypeVar("Row_contra", contravariant=True)


@attrs.frozen
class Report(Generic[AnyRow]):
    """
    What became of an order.

    @ivar rows: one for each host, in the order in which they came.
    @ivar warnings: what whoever gave the order should know besides.
    @ivar reqid: of a run, the one id that stands for all of it.
    @ivar stopped: whether hosts were left out because too many others had
        failed.
    @ivar replayed: whether it is what became of an order that was given before,
        with the same key.
    """

    rows: Sequence[AnyRow]
    warnings: tuple[str, ...] = ()
    reqid: str = ""
    stopped: bool = False
    replayed: bool = False


class Watcher(Protocol[Row_contra]):
    """
    Who sees an order being carried out.
    """

    def planned(self, hosts: int, reqid: str = "") -> None:
        """
        It is known to how many hosts it goes, and none of them is asked yet.

        @param reqid: of a run, the one id that stands for all of it.
        """

    def wanted(self) -> bool:
        """
        Whether one more host may be asked: not if whoever gave the order has
        left. What is under way is waited for.
        """

    def asked(self, host: str) -> None:
        """
        A host is being asked.
        """

    def arrived(self, row: Row_contra) -> None:
        """
        It is known what became of a host.
        """

    def heard(self, host: str, event: Output | StateChanged) -> Deferred[None] | None:
        """
        A run that is followed has said something.

        @return: what fires when more can be taken, or C{None} for at once. Until
            then no more is read from this host; nobody else waits for that.
        """


# --- as JSON spells them: PROTOCOL.md sections 7 and 8 -------------------


def run_fields(row: RunRow) -> dict[str, Any]:
    """
    What became of a run on one host.
    """
    result = (
        {"stdout": row.stdout, "stderr": row.stderr}
        if row.error is None
        else {"error": row.error}
    )
    reason = {"reason": row.reason} if row.reason else {}
    return {
        "host": row.host,
        "script": row.script,
        "exit": row.exit,
        **result,
        "rtt": f"{row.rtt_ms}ms",
        "reqid": row.reqid,
        "state": row.outcome.value,
        **reason,
    }


def async_fields(row: RunRow) -> dict[str, Any]:
    """
    What became of asking one host for a run that nobody waits for:
    NEWER-LINE.md section 13.
    """
    status = submission(row)
    error = {} if status == "accepted" else {"error": row.error}
    if error and row.reason:
        error["reason"] = row.reason
    return {
        "host": row.host,
        "script": row.script,
        "status": status,
        **error,
        "reqid": row.reqid,
        "rtt": f"{row.rtt_ms}ms",
        "state": row.outcome.value,
    }


def submission(row: RunRow) -> str:
    """
    @return: C{"accepted"}, C{"busy"} or C{"error"}: whether a host has taken a
        run that nobody waits for. An agent of the older line takes it by
        running it to its end.
    """
    match row.outcome:
        case Outcome.BUSY:
            return "busy"
        case Outcome.ACCEPTED | Outcome.RUNNING:
            return "accepted"
    return "accepted" if row.error is None else "error"


def cancel_fields(row: CancelRow) -> dict[str, Any]:
    """
    What became of the order to end a run on one host.
    """
    result = (
        {"state": row.state, "signalled": [attrs.asdict(s) for s in row.signalled]}
        if row.error is None
        else {"error": row.error}
    )
    return {
        "host": row.host,
        "reqid": row.reqid,
        **result,
        "rtt": f"{row.rtt_ms}ms",
    }


def ping_fields(row: PingRow) -> dict[str, Any]:
    """
    What became of a ping of one host.
    """
    rtt = f"{row.rtt_ms}ms"
    if row.error is not None:
        return {"host": row.host, "status": "error", "error": row.error, "rtt": rtt}
    fields = {
        "host": row.host,
        "status": "ok",
        "version": row.version,
        "expiry": row.expiry,
        "rtt": rtt,
        "reqid": row.reqid,
    }
    if row.reported_hostname:
        fields["reported_hostname"] = row.reported_hostname
    return fields


def discovery_fields(row: DiscoveryRow) -> dict[str, Any]:
    """
    What one host offers; its name is the key to it.
    """
    rtt = f"{row.rtt_ms}ms"
    if row.capabilities is None:
        return {"status": "error", "error": row.error, "rtt": rtt}
    # Nobody else waits until it is loaded.
    from ctrlexec.protocol.codec import capabilities_fields

    fields = {**capabilities_fields(row.capabilities), "rtt": rtt}
    if row.reported_hostname:
        fields["reported_hostname"] = row.reported_hostname
    return fields
