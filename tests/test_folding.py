# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.folding}.
"""

from __future__ import annotations

from pathlib import Path

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.folding import folded, folded_text, node_set
from ctrlexec.dispatcher.orders import Selection
from ctrlexec.dispatcher.registry import FileRegistry
from ctrlexec.dispatcher.render import Look
from ctrlexec.dispatcher.results import Outcome, RunRow
from ctrlexec.dispatcher.selection import select


def row(host: str, **fields: object) -> RunRow:
    """
    A script that was content.
    """
    made = RunRow(
        host=host,
        script="x",
        reqid="r1",
        outcome=Outcome.OK,
        exit=0,
        stdout="up\n",
    )
    return attrs.evolve(made, **fields)  # type: ignore[arg-type]


class FoldedTests(SynchronousTestCase):
    """
    Hosts that say the same stand together.
    """

    def test_groups(self) -> None:
        """
        The largest group is first; among equals the one with the first host.
        """
        rows = [
            row("web-10"),
            row("db", stdout="down\n"),
            row("web-2", rtt_ms=7),
            row("app", exit=1),
        ]
        hosts = [[each.host for each in group] for group in folded(rows)]
        self.assertEqual(hosts, [["web-2", "web-10"], ["app"], ["db"]])

    def test_everythingCounts(self) -> None:
        """
        Whatever a person would read makes a difference.
        """
        for fields in (
            {"exit": 1},
            {"stdout": "up"},
            {"stderr": "!"},
            {"error": "gone", "stdout": ""},
            {"outcome": Outcome.CANCELLED},
            {"reason": "cancelled"},
        ):
            self.assertEqual(len(folded([row("a"), row("b", **fields)])), 2, fields)

    def test_text(self) -> None:
        """
        A block is what each of its hosts would have, once.
        """
        lost = row("db", error="gone", outcome=Outcome.UNKNOWN)
        left = row("app", outcome=Outcome.NOT_STARTED)
        rows = [row("web-1"), row("web-2"), row("web-3"), left, lost]
        self.assertEqual(
            folded_text(rows, Look()),
            "==> web-[1-3]  [OK  exit:0  3 hosts  req:r1]\n"
            "up\n"
            "==> db  [FAIL  exit:0  1 host  req:r1]\n"
            "    ERROR: gone\n"
            "up\n"
            "not started: app\n",
        )
        self.assertEqual(folded_text([], Look()), "")


class NodeSetTests(SynchronousTestCase):
    """
    Many hosts in few words.
    """

    def test_words(self) -> None:
        """
        What has the same form becomes a range, zeros included.
        """
        for hosts, words in (
            (["db"], "db"),
            (["web-1", "web-2", "db"], "db web-[1-2]"),
            (["web-01", "web-02", "web-10"], "web-[01-02,10]"),
            (["a1-1", "a1-2", "a2-1", "a2-2"], "a[1-2]-[1-2]"),
            (["10.0.0.1", "10.0.0.2"], "10.0.0.[1-2]"),
            (["fe80::1%eth0", "fe80::2%eth0"], "fe80::1%eth0 fe80::2%eth0"),
            ([], ""),
        ):
            self.assertEqual(sorted(node_set(hosts).split()), sorted(words.split()))

    @given(
        st.sets(st.from_regex(r"[a-z0-9][a-z0-9.-]{0,6}", fullmatch=True), max_size=8)
    )
    def test_sameHosts(self, hosts: set[str]) -> None:
        """
        Typed again, the words mean exactly these hosts.
        """
        words = tuple(node_set(sorted(hosts)).split())
        if words:
            registry = FileRegistry(Path(self.mktemp()))
            found = select(Selection(words), registry)
            self.assertEqual({each.host for each in found.hosts}, hosts)
