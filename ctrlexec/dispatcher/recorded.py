# SPDX-License-Identifier: AGPL-3.0-only
"""
What a record of a run says, as the rows that it was made of: NEWER-LINE.md
section 6.2.

The record may be an original dispatcher's. What does not look like a result is
shown as far as it does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

from ctrlexec.dispatcher.results import Outcome, RunRow
from ctrlexec.dispatcher.run_record import EXPIRED, PENDING, RunRecord
from ctrlexec.errors import InvalidValue
from ctrlexec.values import NEVER_RAN, from_iso_time, iso_time

_OUTCOMES = {outcome.value: outcome for outcome in Outcome}
# As PROTOCOL.md section 2 words them.
_DENIALS = ("script not permitted", "not authorised")
_EXPIRED = "expired: its agent knows nothing of it any more"
_TIMES = ("started", "finished")
_LAST_SECOND = 253_402_300_799
_RTT = re.compile(r"([0-9]{1,9})ms")


def recorded_rows(record: RunRecord) -> Sequence[RunRow]:
    """
    What became of a run on each host.
    """
    results = record.fields.get("results")
    if isinstance(results, list):
        found = [each for each in results if isinstance(each, dict)]
        return [_row(record, str(each.get("host", "?")), each) for each in found]
    # A run that nobody waited for has an entry a host instead.
    hosts = record.fields.get("hosts")
    if isinstance(hosts, dict):
        return [
            _row(record, host, each)
            for host, each in sorted(hosts.items())
            if isinstance(each, dict)
        ]
    return []


def _row(record: RunRecord, host: str, result: Mapping[str, Any]) -> RunRow:
    status = _number(result.get("exit"))
    error = result.get("error")
    if error is None and status is None and result.get("status") not in PENDING:
        status_word = result.get("status", "no result")
        error = _EXPIRED if status_word == EXPIRED else status_word
    return RunRow(
        host=host,
        script=record.script,
        reqid=record.reqid,
        outcome=_outcome(result, status, error),
        rtt_ms=_taken_ms(result),
        exit=NEVER_RAN if status is None else status,
        stdout=_text(result.get("stdout")),
        stderr=_text(result.get("stderr")),
        error=None if error is None else str(error),
        reason=_text(result.get("reason")),
        hint=_text(result.get("fetch_error")),
    )


def _taken_ms(result: Mapping[str, Any]) -> int:
    """
    How long it ran, where its agent has said so later on; else how long whoever
    waited for it did.
    """
    with suppress(InvalidValue):
        started, ended = (from_iso_time(str(result.get(k))) for k in _TIMES)
        return max(0, round((ended - started).total_seconds() * 1000))
    rtt = _RTT.fullmatch(str(result.get("rtt")))
    return int(rtt[1]) if rtt else 0


def _outcome(result: Mapping[str, Any], status: int | None, error: object) -> Outcome:
    """
    An original's record does not say it in one word.
    """
    state = result.get("state")
    if isinstance(state, str) and state in _OUTCOMES:
        return _OUTCOMES[state]
    match result.get("status"):
        case "accepted":
            return Outcome.ACCEPTED
        case "running":
            return Outcome.RUNNING
        case "busy":
            return Outcome.BUSY
    if error is not None:
        refused = str(error).startswith(_DENIALS)
        return Outcome.DENIED if refused else Outcome.UNKNOWN
    return Outcome.FAILED if status else Outcome.OK


def _number(value: object) -> int | None:
    match value:
        case bool():
            return None
        case int():
            return value
        case str() if re.fullmatch("-?[0-9]{1,9}", value):
            return int(value)
    return None


def _text(value: object) -> str:
    return "" if value is None else str(value)


def run_note(record: RunRecord) -> str:
    """
    Who had what run, and when that had ended.
    """
    parts = [record.script]
    if record.submitter is not None and record.submitter.username:
        parts.append(f"for {record.submitter.username}")
    parts.append(f"on {len(record.hosts)} host{'s'[: len(record.hosts) != 1]}")
    ended = _number(record.fields.get("completed"))
    if ended is not None and 0 <= ended <= _LAST_SECOND:
        parts.append(f"ended {iso_time(datetime.fromtimestamp(ended, timezone.utc))}")
    return " ".join(parts)
