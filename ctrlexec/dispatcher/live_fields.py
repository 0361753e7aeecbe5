# SPDX-License-Identifier: AGPL-3.0-only
"""
Runs that live, as JSON spells them: C{docs/dispatcher.md}.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from ctrlexec.dispatcher.results import PsRow

if TYPE_CHECKING:
    from ctrlexec.protocol.run_messages import LiveRun


def ps_fields(row: PsRow) -> dict[str, Any]:
    """
    What runs on one host.
    """
    result = (
        {"runs": [live_run_fields(run) for run in row.runs], "others": row.others}
        if row.error is None
        else {"error": row.error}
    )
    return {"host": row.host, **result, "rtt": f"{row.rtt_ms}ms"}


def live_run_fields(run: LiveRun) -> dict[str, Any]:
    """
    A run that lives, as its agent spells it.
    """
    fields = attrs.asdict(run)
    fields["async"] = fields.pop("asynchronous")
    return fields
