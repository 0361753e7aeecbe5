# SPDX-License-Identifier: AGPL-3.0-only
"""
Hosts whose scripts have said the same, told once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ctrlexec.dispatcher.render import Look
from ctrlexec.dispatcher.render_runs import not_started_text, outcome_text
from ctrlexec.dispatcher.results import Outcome, RunRow
from ctrlexec.dispatcher.selection import natural
from ctrlexec.errors import InvalidValue
from ctrlexec.values import agent_name

# A comma that stands in no brackets.
_BETWEEN = re.compile(r",(?![^\[]*\])")


def folded(rows: Iterable[RunRow]) -> list[list[RunRow]]:
    """
    @return: the rows, those together that say the same; the largest group
        first, and in each the hosts as people sort them.
    """
    groups: dict[tuple[object, ...], list[RunRow]] = {}
    for row in sorted(rows, key=lambda row: natural(row.host)):
        alike = (
            row.outcome,
            row.exit,
            row.error,
            row.reason,
            row.stdout,
            row.stderr,
        )
        groups.setdefault(alike, []).append(row)
    return sorted(groups.values(), key=len, reverse=True)


def folded_text(rows: Iterable[RunRow], look: Look) -> str:
    """
    What became of a run, a block for each group.
    """
    told = [*rows]
    asked = [row for row in told if row.outcome is not Outcome.NOT_STARTED]
    blocks = [
        outcome_text(
            group[0], node_set([row.host for row in group]), _size(group), look
        )
        for group in folded(asked)
    ]
    return "".join([*blocks, not_started_text(told)])


def _size(group: Sequence[RunRow]) -> str:
    return f"{len(group)} host{'s' if len(group) > 1 else ''}"


def node_set(hosts: Sequence[str]) -> str:
    """
    Hosts in few words, C{web-[1-3] db}, as they can be typed. What is no name,
    such as an address, is left as it is.
    """
    names = [host for host in hosts if _is_name(host)]
    others = [host for host in hosts if not _is_name(host)]
    return " ".join([*_ranges(names), *others])


def _is_name(host: str) -> bool:
    try:
        agent_name(host)
    except InvalidValue:
        return False
    return True


def _ranges(names: Sequence[str]) -> Sequence[str]:
    if len(names) < 2:
        return names
    from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet, NodeSetException

    try:
        nodes = NodeSet.fromlist(names, resolver=RESOLVER_NOGROUP)
        if {*nodes} == {*names}:
            return _BETWEEN.split(str(nodes))
    except NodeSetException:
        pass
    return names
