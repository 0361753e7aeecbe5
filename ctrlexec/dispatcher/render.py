# SPDX-License-Identifier: AGPL-3.0-only
"""
Results as text for people and as JSON for programs: PROTOCOL.md sections 7 and
10, NEWER-LINE.md section 12.2.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from ctrlexec.dispatcher.records import AgentRecord, QueuedRequest, record_fields
from ctrlexec.dispatcher.results import PingRow, RunRow
from ctrlexec.dispatcher.tables import Cell, Colour, Row, Table, harmless
from ctrlexec.errors import InvalidValue, one_line
from ctrlexec.values import from_openssl_time, openssl_time

if TYPE_CHECKING:
    from ctrlexec.certificates import CertificateInfo

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


def results_json(results: Iterable[Mapping[str, Any]]) -> str:
    """
    What became of a run or a ping on all hosts: PROTOCOL.md section 7.
    """
    return to_json({"ok": True, "results": [*results]})


def failure_json(error: str, hint: str = "", **more: object) -> str:
    """
    What is printed where results were asked for and there are none.
    """
    hints = {"hint": hint} if hint else {}
    return to_json({"ok": False, "error": error, **hints, **more})


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


def run_fields(row: RunRow) -> dict[str, Any]:
    """
    The same, as JSON spells it.
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


def ping_fields(row: PingRow) -> dict[str, Any]:
    """
    The same, as JSON spells it; with the reason.
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
    return to_json([record_fields(agent) for agent in agents])


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
    fields = {"serial": serial, "delivered": delivered, "agent": record_fields(agent)}
    return to_json({"ok": True, **fields})


def created_text(what: str, key: Path, cert: Path, info: CertificateInfo) -> str:
    """
    A key and a certificate that were made.

    @param what: the name that people have for them.
    """
    facts = {
        "key": f"{key}  (keep it secret, and a copy safe)",
        "certificate": str(cert),
        "serial": info.serial,
        "until": openssl_time(info.not_after),
    }
    return _facts(f"{what} is made", facts)


def created_json(info: CertificateInfo) -> str:
    """
    The same, for programs.
    """
    expiry = openssl_time(info.not_after)
    return to_json({"ok": True, "serial": info.serial, "expiry": expiry})


def _facts(title: str, facts: Mapping[str, str]) -> str:
    width = max(map(len, facts))
    lines = [f"    {name:<{width}}  {one_line(fact)}" for name, fact in facts.items()]
    return "\n".join([one_line(title), *lines, ""])
