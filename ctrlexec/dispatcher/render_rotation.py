# SPDX-License-Identifier: AGPL-3.0-only
"""
Where a rotation stands, for people and for programs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ctrlexec.dispatcher.rotation_state import Stage, Standing
from ctrlexec.dispatcher.tables import Table
from ctrlexec.values import openssl_time

_STAGES = {
    Stage.NONE: "none under way",
    Stage.ANNOUNCING: "agents are told of the next certificate",
    Stage.OVERLAP: "the new certificate is used; some agents may not know it yet",
    Stage.RETIRING: "agents are told to forget the former certificate",
}


def text(standing: Standing) -> str:
    """
    For people: facts, and a row for each agent.
    """
    facts = "".join(f"{name:<10}{value}\n" for name, value in _facts(standing))
    table = Table.of({"HOSTNAME": 30, "STATUS": 8, "SERIAL": 34, "CONFIRMED": 0})
    rows = [
        (
            each.hostname,
            standing.status(each),
            each.dispatcher_serial or "-",
            each.serial_confirmed or "-",
        )
        for each in standing.agents
    ]
    return facts + (f"\n{table.text(rows)}" if rows else "")


def fields(standing: Standing) -> dict[str, Any]:
    """
    For programs.
    """
    state = standing.state
    return {
        "ok": True,
        "stage": state.stage.value,
        "current_serial": standing.present.serial,
        "expiry": openssl_time(standing.present.not_after),
        "next_serial": state.next_serial,
        "previous_serial": state.previous_serial,
        "rotated_at": state.rotated_at,
        "switch_by": state.switch_by,
        "overlap_expires": state.overlap_expires,
        "agents": [
            {
                "hostname": each.hostname,
                "serial_status": standing.status(each),
                "dispatcher_serial": each.dispatcher_serial,
                "serial_broadcast": each.serial_broadcast,
                "serial_confirmed": each.serial_confirmed,
            }
            for each in standing.agents
        ],
    }


def _facts(standing: Standing) -> Iterator[tuple[str, str]]:
    state = standing.state
    yield "rotation", _STAGES[state.stage]
    ends = openssl_time(standing.present.not_after)
    yield "serial", f"{standing.present.serial}, ends {ends}"
    for name, value in (
        ("next", state.next_serial),
        ("in use by", state.switch_by),
        ("former", state.previous_serial),
        ("until", state.overlap_expires if state.previous_serial else ""),
    ):
        if value:
            yield name, value
