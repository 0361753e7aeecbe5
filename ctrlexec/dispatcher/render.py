# SPDX-License-Identifier: AGPL-3.0-only
"""
Results as text for people and as JSON for programs: PROTOCOL.md sections 7 and
10, NEWER-LINE.md section 12.2.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import attrs

from ctrlexec.dispatcher.records import AgentRecord, QueuedRequest
from ctrlexec.dispatcher.results import PingRow, RunRow
from ctrlexec.dispatcher.tables import Cell, Colour, Row, Table, harmless, one_line
from ctrlexec.errors import InvalidValue
from ctrlexec.values import from_openssl_time

_SOON = timedelta(days=30)
_MISSING = "?"

_PINGS = Table.of(
    {"HOST": 30, "STATUS": 8, "RTT": 8, "CERT EXPIRY": 28, "VERSION": 0}, rule=85
)
_REQUESTS = Table.of(
    {
        "ID": 16,
        "HOSTNAME": 30,
        "IP": 16,
        "CODE": 8,
        "RECEIVED": 20,
        "SOURCE IP": 16,
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


def failure_json(error: str, hint: str = "") -> str:
    """
    What is printed where results were asked for and there are none.
    """
    fields: dict[str, Any] = {"ok": False, "error": error}
    return to_json(fields | {"hint": hint} if hint else fields)


# --- run -----------------------------------------------------------------


def run_text(row: RunRow, look: Look) -> str:
    """
    What became of a run on one host.
    """
    status = look.cell("OK", Colour.GOOD) if row.ok else look.cell("FAIL", Colour.BAD)
    details = f"exit:{row.exit}  {row.rtt_ms}ms  req:{one_line(row.reqid)}"
    text = f"==> {one_line(row.host)}  [{status}  {details}]\n"
    if row.error is not None:
        text += f"    ERROR: {one_line(row.error)}\n"
    text += "".join(_lines(row.stdout, look))
    # Each line says what it is, so that none can pass for standard output.
    return text + "".join(f"    STDERR: {line}" for line in _lines(row.stderr, look))


def _lines(output: str, look: Look) -> list[str]:
    shown = harmless(output) if look.terminal else output
    lines = [f"{line}\n" for line in shown.split("\n")]
    return lines[:-1] if lines[-1] == "\n" else lines


def run_json(rows: Iterable[RunRow]) -> str:
    """
    What became of a run on all hosts: PROTOCOL.md section 7.
    """
    return to_json({"ok": True, "results": [_run_fields(row) for row in rows]})


def _run_fields(row: RunRow) -> dict[str, Any]:
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


# --- ping ----------------------------------------------------------------


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
    name = f"{row.host} ({row.reported_hostname})" if row.reported_hostname else ""
    return (
        name or row.host,
        look.cell("ok", Colour.GOOD) if row.ok else look.cell("error", Colour.BAD),
        f"{row.rtt_ms}ms",
        row.expiry or _MISSING,
        row.version or _MISSING,
    )


def ping_json(rows: Iterable[PingRow]) -> str:
    """
    What became of a ping of all hosts: PROTOCOL.md section 7.
    """
    return to_json({"ok": True, "results": [_ping_fields(row) for row in rows]})


def _ping_fields(row: PingRow) -> dict[str, Any]:
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
                _days_left(agent.expiry, now, look),
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


def agents_json(agents: Iterable[AgentRecord]) -> str:
    """
    The records of the agents, as the registry has them.
    """
    return to_json([_agent_fields(agent) for agent in agents])


def _agent_fields(agent: AgentRecord) -> dict[str, Any]:
    fields = attrs.asdict(agent)
    return {**fields.pop("extra"), **fields}


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
                _reverse_dns(request),
            )
            for request in requests
        ]
    )


def _reverse_dns(request: QueuedRequest) -> str:
    if not request.reverse_dns:
        return _MISSING
    return f"{request.reverse_dns} {'(ok)' if request.reverse_confirmed else '(?)'}"


def requests_json(requests: Iterable[QueuedRequest]) -> str:
    """
    The same requests, without what only machines compare.
    """
    return to_json(
        [
            attrs.asdict(request, filter=attrs.filters.exclude("csr", "nonce"))
            for request in requests
        ]
    )
