# SPDX-License-Identifier: AGPL-3.0-only
"""
What became of an order on each host: rows, whatever happened there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import attrs

from ctrlexec.values import NEVER_RAN

if TYPE_CHECKING:
    from ctrlexec.protocol.messages import Capabilities

UNKNOWN_AGENT = "unknown agent"
REVOKED_AGENT = "certificate revoked"


@attrs.frozen(kw_only=True)
class RunRow:
    """
    What became of a run on one host.

    @ivar host: the agent's name in the registry, or what the operator typed.
    @ivar rtt_ms: from the first byte out to the last byte in, in whole
        milliseconds.
    @ivar exit: 0 to 255, the script's own; -1 where it never ran, or where no
        answer tells.
    @ivar error: why there is no result; C{None} where there is one.
    @ivar hint: what the operator can do about the error, or empty.
    """

    host: str
    script: str
    reqid: str
    rtt_ms: int = 0
    exit: int = NEVER_RAN
    stdout: str = ""
    stderr: str = ""
    error: str | None = None
    hint: str = ""

    @property
    def ok(self) -> bool:
        """
        Whether the script ran and was content.
        """
        return self.error is None and self.exit == 0


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


AnyRow = TypeVar("AnyRow", RunRow, PingRow, DiscoveryRow)
Row_contra = TypeVar("Row_contra", contravariant=True)


@attrs.frozen
class Report(Generic[AnyRow]):
    """
    What became of an order.

    @ivar rows: one for each host, in the order in which they came.
    @ivar warnings: what whoever gave the order should know besides.
    @ivar reqid: of a run, the one id that stands for all of it.
    """

    rows: Sequence[AnyRow]
    warnings: tuple[str, ...] = ()
    reqid: str = ""


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
    return {
        "host": row.host,
        "script": row.script,
        "exit": row.exit,
        **result,
        "rtt": f"{row.rtt_ms}ms",
        "reqid": row.reqid,
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
