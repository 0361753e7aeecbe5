# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.recorded}.
"""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.recorded import recorded_rows, run_note
from ctrlexec.dispatcher.results import run_fields
from ctrlexec.dispatcher.runs import RunRecord
from ctrlexec.values import Submitter
from tests.test_render import RAN, REFUSED

RECORD = RunRecord.sync(
    reqid="9f21f7eabc06ba23",
    script="backup",
    hosts=("web-1", "agent-one"),
    results=[run_fields(RAN), run_fields(attrs.evolve(REFUSED, script="backup"))],
    completed=1_795_213_924,
    submitter=Submitter("alice", "127.0.0.1"),
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


def record(**fields: Any) -> RunRecord:
    """
    A record of somebody else's.
    """
    return RunRecord("r1", "backup", ("web-1",), None, fields)


class RowsTests(SynchronousTestCase):
    """
    The results in a record.
    """

    def test_ours(self) -> None:
        """
        What was written down comes back as it was.
        """
        self.assertEqual(
            recorded_rows(RECORD), [RAN, attrs.evolve(REFUSED, script="backup")]
        )

    def test_original(self) -> None:
        """
        The original's numbers may be texts; what is missing is not there.
        """
        (row,) = recorded_rows(
            record(results=[{"host": "web-1", "exit": "3", "stdout": "x"}])
        )
        self.assertEqual((row.exit, row.stdout, row.stderr), (3, "x", ""))
        self.assertEqual((row.error, row.rtt_ms, row.reqid), (None, 0, "r1"))

    def test_notWaitedFor(self) -> None:
        """
        A run that nobody waited for has a state for each host: what has ended
        there is a result, the rest says how far it is.
        """
        rows = recorded_rows(
            record(
                hosts={
                    "web-2": {"status": "running"},
                    "web-1": {"status": "done", "exit": 0, "stdout": "up\n"},
                    "web-3": {"status": "busy", "error": "script already running"},
                }
            )
        )
        self.assertEqual(
            [(row.host, row.ok, row.error) for row in rows],
            [
                ("web-1", True, None),
                ("web-2", False, "running"),
                ("web-3", False, "script already running"),
            ],
        )

    @given(
        st.dictionaries(st.sampled_from(["results", "hosts", "completed"]), ANYTHING)
    )
    def test_anything(self, fields: dict[str, Any]) -> None:
        """
        Rubbish in a record is no reason to fall over it.
        """
        for row in recorded_rows(record(**fields)):
            self.assertIsInstance(row.host, str)
        self.assertIsInstance(run_note(record(**fields)), str)

    @given(st.dictionaries(st.sampled_from([*run_fields(RAN), "error"]), ANYTHING))
    def test_anyResult(self, result: dict[str, Any]) -> None:
        """
        Nor is it in a result.
        """
        (row,) = recorded_rows(record(results=[result, "not a result"]))
        self.assertIsInstance(row.exit, int)


class NoteTests(SynchronousTestCase):
    """
    What it was.
    """

    def test_note(self) -> None:
        """
        Script, person, number of hosts, and end, as far as they are known.
        """
        self.assertEqual(
            run_note(RECORD), "backup for alice on 2 hosts ended 2026-11-20T22:32:04Z"
        )
        self.assertEqual(run_note(record()), "backup on 1 host")
