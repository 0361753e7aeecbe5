# SPDX-License-Identifier: AGPL-3.0-only
"""
Runs as text for people: what became of them, what lives, and what was told to
end. PROTOCOL.md section 7, NEWER-LINE.md section 12.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ctrlexec.dispatcher.render import Look
from ctrlexec.dispatcher.results import CancelRow, Outcome, PsRow, RunRow, submission
from ctrlexec.dispatcher.tables import Cell, Colour, Row, Table, harmless
from ctrlexec.errors import one_line

_MISSING = "?"
_CANCELS = Table.of({"HOST": 30, "STATE": 11, "SIGNALLED": 0})
_PROCESSES = Table.of(
    {
        "HOST": 30,
        "REQID": 16,
        "SCRIPT": 20,
        "STATE": 8,
        "AGE": 8,
        "USER": 12,
        "PID": 0,
    }
)
#: What has not ended.
STILL = {
    Outcome.ACCEPTED: "ACCEPTED",
    Outcome.RUNNING: "RUNNING",
    Outcome.NOT_STARTED: "NOT STARTED",
}
_UNNAMED = (Outcome.OK, Outcome.ACCEPTED, Outcome.NOT_STARTED)
#: How many hosts of each outcome are named where they are counted.
_NAMED = 5
_UNITS = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


# --- what became of it ---------------------------------------------------


def run_text(row: RunRow, look: Look) -> str:
    """
    What became of a run on one host.
    """
    return outcome_text(row, row.host, f"{row.rtt_ms}ms", look)


def outcome_text(row: RunRow, where: str, measure: str, look: Look) -> str:
    """
    What became of a run.

    @param where: on which host, or hosts.
    @param measure: how long it took, or on how many.
    """
    text = f"==> {one_line(where)}  [{_status(row, measure, look)}]\n"
    problem = ": ".join(filter(None, (row.error, row.reason)))
    if problem:
        text += f"    ERROR: {one_line(problem)}\n"
    text += "".join(_lines(row.stdout, look))
    stderr = _lines(_without(row.stderr, row.reason), look)
    # Each line says what it is, so that none can pass for standard output.
    return text + "".join(f"    STDERR: {line}" for line in stderr)


def _without(stderr: str, reason: str) -> str:
    """
    @return: without the last line, if that is what the agent puts there for an
        original, and has been said already.
    """
    if not reason:
        return stderr
    before, newline, last = stderr.removesuffix("\n").rpartition("\n")
    return before + newline if last in (reason, f"[{reason}]") else stderr


def _status(row: RunRow, measure: str, look: Look) -> str:
    reqid = f"req:{one_line(row.reqid)}"
    if row.outcome in STILL:
        return f"{STILL[row.outcome]}  {reqid}"
    word = look.cell("OK", Colour.GOOD) if row.ok else look.cell("FAIL", Colour.BAD)
    return f"{word}  exit:{row.exit}  {measure}  {reqid}"


def _lines(output: str, look: Look) -> list[str]:
    shown = harmless(output) if look.terminal else output
    lines = [f"{line}\n" for line in shown.split("\n")]
    return lines[:-1] if lines[-1] == "\n" else lines


def not_started_text(rows: Iterable[RunRow]) -> str:
    """
    The hosts that were left out, if there are any.
    """
    hosts = [one_line(row.host) for row in rows if row.outcome is Outcome.NOT_STARTED]
    return f"not started: {' '.join(hosts)}\n" if hosts else ""


def run_tally(rows: Sequence[RunRow]) -> str:
    """
    How many hosts there are of each outcome, and which have one that is not
    good; of those that were not started there is a list already.
    """
    hosts: dict[Outcome, list[str]] = {each: [] for each in Outcome}
    for row in rows:
        hosts[row.outcome].append(one_line(row.host))
    return ", ".join(_counted(*each) for each in hosts.items() if each[1])


def _counted(outcome: Outcome, hosts: Sequence[str]) -> str:
    count = f"{len(hosts)} {outcome.value}"
    if outcome in _UNNAMED:
        return count
    more = f" and {len(hosts) - _NAMED} more" if len(hosts) > _NAMED else ""
    return f"{count} ({' '.join(hosts[:_NAMED])}{more})"


def run_count(rows: Sequence[RunRow]) -> str:
    """
    @return: the same where it says more than the results do: of several hosts,
        and of one with which it went otherwise than well or badly; else empty.
    """
    told = (Outcome.OK, Outcome.FAILED, *STILL)
    said = len(rows) == 1 and rows[0].outcome in told
    return "" if said else run_tally(rows)


# --- runs that nobody waits for ------------------------------------------


def submitted_text(row: RunRow, look: Look) -> str:
    """
    Whether a host has taken a run that nobody waits for.
    """
    match submission(row):
        case "accepted":
            word = look.cell("accepted", Colour.GOOD)
        case other:
            word = look.cell(other.upper(), Colour.BAD)
    line = f"{Cell(row.host).padded(30)}  {word}"
    problem = ": ".join(filter(None, (row.error, row.reason)))
    return f"{line}  {one_line(problem)}\n" if row.error else f"{line}\n"


# --- runs that live ------------------------------------------------------


def cancel_table(hosts: Iterable[str]) -> Table:
    """
    The table that the end of a run on these hosts fits into.
    """
    return _CANCELS.fitted([host] for host in hosts)


def cancel_row(row: CancelRow, look: Look) -> Row:
    """
    A row of that table. It has no place for why it is not known, nor for what
    was told to end.
    """
    if row.error is not None:
        return row.host, look.cell("error", Colour.BAD), _MISSING
    state = row.state.replace("_", " ")
    return row.host, state or _MISSING, str(len(row.signalled))


def signalled_text(row: CancelRow) -> str:
    """
    The processes that were told to end, a line each.
    """
    return "".join(
        f"    {each.pid}  {one_line(each.command)}  {one_line(each.signal)}\n"
        for each in row.signalled
    )


def ps_table(hosts: Iterable[str], columns: int | None) -> Table:
    """
    The table that what runs on these hosts fits into.

    @param columns: how wide it may be; C{None} for as wide as it is.
    """
    if columns is None:
        return _PROCESSES.fitted([host] for host in hosts)
    first = max((len(one_line(host)) for host in hosts), default=0)
    return _PROCESSES.narrowed(columns, first, ("HOST", "SCRIPT", "USER"))


def ps_rows(row: PsRow) -> Sequence[Row]:
    """
    The rows of that table: as many as there are runs.
    """
    return [
        (
            row.host,
            run.reqid or _MISSING,
            run.script,
            run.state.replace("_", " "),
            elapsed(run.seconds),
            run.username or _MISSING,
            str(run.pid) if run.pid else _MISSING,
        )
        for run in row.runs
    ]


def others_text(row: PsRow) -> str:
    """
    What other dispatchers run there, if anything.
    """
    if not row.others:
        return ""
    return f"{row.host}: {row.others} run{'s'[: row.others != 1]} of other dispatchers"


def elapsed(seconds: float) -> str:
    """
    A span of time in its two largest units, C{3m 12s}.
    """
    left = int(seconds)
    parts: list[str] = []
    for name, unit in _UNITS:
        if left >= unit or (unit == 1 and not parts):
            parts.append(f"{left // unit}{name}")
            left %= unit
    return " ".join(parts[:2])
