# SPDX-License-Identifier: AGPL-3.0-only
"""
Results as text for people and as JSON for programs: PROTOCOL.md sections 7 and
10, NEWER-LINE.md section 12.2.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from ctrlexec.dispatcher.results import (
    CancelRow,
    DiscoveryRow,
    PingRow,
    PsRow,
    RunRow,
)
from ctrlexec.dispatcher.tables import Cell, Colour, Row, Table
from ctrlexec.errors import (
    CtrlExecError,
    InvalidValue,
    Locked,
    NotAuthorised,
    one_line,
)
from ctrlexec.values import HostPort, from_openssl_time, openssl_time

if TYPE_CHECKING:
    from ctrlexec.certificates import CertificateInfo
    from ctrlexec.dispatcher.locks import LockState
    from ctrlexec.dispatcher.records import AgentRecord, QueuedRequest
    from ctrlexec.protocol.messages import ScriptInfo

AnyOfRows = RunRow | PingRow | DiscoveryRow | CancelRow | PsRow

_SOON = timedelta(days=30)
_MISSING = "?"
_LEGACY, _OURS = "legacy", "ours"

_PINGS = Table.of(
    {"HOST": 30, "STATUS": 8, "RTT": 8, "CERT EXPIRY": 28, "VERSION": 0}, rule=85
)
_DISCOVERIES = Table.of(
    {"HOST": 30, "STATUS": 8, "RTT": 8, "VERSION": 10, "SCRIPTS": 0}
)
_LOCKS = Table.of(
    {"HOST": 30, "SCRIPT": 20, "PID": 8, "USER": 12, "SINCE": 20, "REQID": 0}
)
_REQUESTS = Table.of(
    {
        "ID": 16,
        "HOSTNAME": 30,
        "IP": 16,
        "CODE": 8,
        "RECEIVED": 20,
        "SOURCE IP": 16,
        "KIND": 6,
        "REVERSE DNS": 0,
    }
)
_AGENTS = Table.of(
    {
        "HOSTNAME": 30,
        "IP": 16,
        "PORT": 5,
        "LOOKUP": 8,
        "PAIRED": 20,
        "CERT EXPIRY": 24,
        "DAYS LEFT": 0,
    }
)


@attrs.frozen
class Look:
    """
    For whom text is rendered.

    @ivar colour: whether colours are wanted.
    @ivar terminal: whether a terminal will act on what the text holds; if not,
        the output of scripts is left as it is.
    """

    colour: bool = False
    terminal: bool = False

    def cell(self, text: str, colour: Colour) -> Cell:
        """
        @return: the text, coloured if colours are wanted.
        """
        return Cell(text, colour if self.colour else None)


def to_json(value: object) -> str:
    """
    One line, ASCII only: it survives any terminal, pipe and locale.
    """
    return json.dumps(value, separators=(",", ":"))


def failure(error: CtrlExecError) -> tuple[str, dict[str, Any]]:
    """
    An error that a command ends with: PROTOCOL.md section 7.

    @return: what sort of failure a person is told it is, in a word, and what a
        program is told.
    """
    match error:
        case NotAuthorised(reason=reason, code=code):
            return "Denied", {"ok": False, "error": reason, "code": code}
        case Locked(conflicts=conflicts):
            fields = {"ok": False, "error": "locked", "code": 4}
            return "Locked", {**fields, "conflicts": conflicts}
    hints = {"hint": error.hint} if error.hint else {}
    return "error", {"ok": False, "error": str(error), **hints}


def tally(rows: Sequence[AnyOfRows], lost: str, good: str = "ok") -> str:
    """
    How many hosts there are of each sort.

    @param lost: what those have of which nothing is known.
    @param good: what the others are.
    """
    well = sum(row.ok for row in rows)
    counts = {good: well, lost: len(rows) - well}
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


# --- ping and discovery --------------------------------------------------


def ping_table(hosts: Iterable[str]) -> Table:
    """
    The table that pings of these hosts fit into: its rows are shown as they
    come, so its columns can not wait for them.
    """
    return _PINGS.fitted([host] for host in hosts)


def ping_row(row: PingRow, look: Look) -> Row:
    """
    A row of that table. It has no place for why there was no answer.
    """
    return (*_answered(row, look), row.expiry or _MISSING, row.version or _MISSING)


def discovery_table(hosts: Iterable[str]) -> Table:
    """
    The same for what these hosts offer.
    """
    return _DISCOVERIES.fitted([host] for host in hosts)


def discovery_row(row: DiscoveryRow, look: Look) -> Row:
    """
    A row of that table.
    """
    offered = row.capabilities
    if offered is None:
        return (*_answered(row, look), _MISSING, _MISSING)
    scripts = ", ".join(map(_script, offered.scripts)) or "none"
    return (*_answered(row, look), offered.version or _MISSING, scripts)


def _script(script: ScriptInfo) -> str:
    return script.name if script.executable else f"{script.name} (not executable)"


def _answered(row: PingRow | DiscoveryRow, look: Look) -> Row:
    other = f"{row.host} ({row.reported_hostname})" if row.reported_hostname else ""
    return (
        other or row.host,
        look.cell("ok", Colour.GOOD) if row.ok else look.cell("error", Colour.BAD),
        f"{row.rtt_ms}ms",
    )


# --- hosts and locks -----------------------------------------------------


def host_text(asked: HostPort) -> str:
    """
    A host, as it can be typed.
    """
    if asked.port is None:
        return asked.host
    host = f"[{asked.host}]" if ":" in asked.host else asked.host
    return f"{host}:{asked.port}"


def locks_text(locks: Iterable[LockState]) -> str:
    """
    The scripts that are locked.
    """
    return _LOCKS.text(
        [
            (
                lock.host,
                lock.script,
                _MISSING if lock.pid is None else str(lock.pid),
                lock.user or _MISSING,
                lock.since or _MISSING,
                lock.reqid or _MISSING,
            )
            for lock in locks
        ]
    )


# --- agents --------------------------------------------------------------


def agents_text(agents: Iterable[AgentRecord], now: datetime, look: Look) -> str:
    """
    The agents that are paired.

    @param now: an aware time, which the days are counted from.
    """
    return _AGENTS.text(
        [
            (
                agent.hostname,
                agent.ip or _MISSING,
                str(agent.port),
                agent.lookup_by,
                agent.paired or _MISSING,
                agent.expiry or _MISSING,
                look.cell("revoked", Colour.BAD)
                if agent.revoked
                else _days_left(agent.expiry, now, look),
            )
            for agent in agents
        ]
    )


def _days_left(expiry: str, now: datetime, look: Look) -> str | Cell:
    try:
        left = from_openssl_time(expiry) - now
    except InvalidValue:
        return _MISSING
    if left <= timedelta():
        return look.cell("expired", Colour.BAD)
    if left < _SOON:
        return look.cell(str(left.days), Colour.WORRYING)
    return str(left.days)


def agent_fields(agent: AgentRecord) -> dict[str, Any]:
    """
    An agent, for programs.
    """
    # Who asks agents need not wait for what reads their records.
    from ctrlexec.dispatcher.records import record_fields

    return record_fields(agent)


def reach_text(agent: AgentRecord, what: str) -> str:
    """
    An agent, and where it is reached.

    @param what: what has been done with it.
    """
    where = f"{agent.address()} port {agent.port}"
    return _facts(f"{agent.hostname} {what}", {"reached at": where})


# --- pairing requests ----------------------------------------------------


def requests_text(requests: Iterable[QueuedRequest]) -> str:
    """
    The requests that wait for a decision.
    """
    return _REQUESTS.text(
        [
            (
                request.id,
                request.hostname,
                request.ip,
                request.code,
                request.received,
                request.source_ip or _MISSING,
                _LEGACY if request.legacy else _OURS,
                _reverse_dns(request),
            )
            for request in requests
        ]
    )


def _reverse_dns(request: QueuedRequest) -> str:
    if not request.reverse_dns:
        return _MISSING
    return f"{request.reverse_dns} {'(ok)' if request.reverse_confirmed else '(?)'}"


def request_fields(request: QueuedRequest) -> dict[str, Any]:
    """
    A request as JSON spells it, without what only machines compare.
    """
    machines = attrs.filters.exclude("csr", "nonce", "revealed")
    return {**attrs.asdict(request, filter=machines), "legacy": request.legacy}


# --- changes of trust ----------------------------------------------------


def approval_text(agent: AgentRecord, serial: str) -> str:
    """
    An agent that was let in.

    @param serial: of its certificate.
    """
    where = f"{agent.address()} port {agent.port}"
    return _facts(
        f"{agent.hostname} is approved",
        {"certificate": f"{serial}, until {agent.expiry}", "reached at": where},
    )


def approval_json(agent: AgentRecord, serial: str, *, delivered: bool) -> str:
    """
    The same, for programs.

    @param delivered: whether the listener has taken the decision.
    """
    fields = {"serial": serial, "delivered": delivered, "agent": agent_fields(agent)}
    return to_json({"ok": True, **fields})


def created_text(
    what: str, key: Path, cert: Path, info: CertificateInfo, fingerprint: str = ""
) -> str:
    """
    A key and a certificate that were made.

    @param what: the name that people have for them.
    @param fingerprint: of the CA, where it is the CA.
    """
    facts = {
        "key": f"{key}  (keep it secret, and a copy safe)",
        "certificate": str(cert),
        "serial": info.serial,
        "until": openssl_time(info.not_after),
    }
    if fingerprint:
        facts["fingerprint"] = fingerprint
    return _facts(f"{what} is made", facts)


def created_json(info: CertificateInfo, fingerprint: str = "") -> str:
    """
    The same, for programs.
    """
    fields = {"serial": info.serial, "expiry": openssl_time(info.not_after)}
    if fingerprint:
        fields["fingerprint"] = fingerprint
    return to_json({"ok": True, **fields})


def _facts(title: str, facts: Mapping[str, str]) -> str:
    width = max(map(len, facts))
    lines = [f"    {name:<{width}}  {one_line(fact)}" for name, fact in facts.items()]
    return "\n".join([one_line(title), *lines, ""])
