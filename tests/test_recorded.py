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
from ctrlexec.dispatcher.results import Outcome, RunRow, run_fields
from ctrlexec.dispatcher.runs import RunRecord
from ctrlexec.values import Submitter

RAN = RunRow(
    host="web-1",
    script="backup",
    reqid="9f21f7eabc06ba23",
    outcome=Outcome.FAILED,
    rtt_ms=84,
    exit=3,
    stdout="a\nb\n",
    stderr="oh\n",
)
REFUSED = RunRow(
    host="agent-one",
    script="backup",
    reqid="9f21f7eabc06ba23",
    outcome=Outcome.DENIED,
    rtt_ms=41,
    error="script not permitted",
)
RECORD = RunRecord.sync(
    reqid="9f21f7eabc06ba23",
    script="backup",
    hosts=("web-1", "agent-one"),
    results=[run_fields(RAN), run_fields(REFUSED)],
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
        self.assertEqual(recorded_rows(RECORD), [RAN, REFUSED])

    def test_reason(self) -> None:
        """
        So does why a script did not end by itself.
        """
        late = attrs.evolve(
            RAN, reqid="r1", outcome=Outcome.TIMED_OUT, reason="timed out after 30s"
        )
        self.assertEqual(recorded_rows(record(results=[run_fields(late)])), [late])

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
                ("web-2", False, None),
                ("web-3", False, "script already running"),
            ],
        )

    def test_outcomes(self) -> None:
        """
        What became of each is known in one word, also where an original has
        written it down; where it does not say so, nobody knows.
        """
        hosts = {
            "a": ({"status": "done", "exit": 0}, Outcome.OK),
            "b": ({"status": "done", "exit": 3}, Outcome.FAILED),
            "c": ({"status": "busy", "error": "x"}, Outcome.BUSY),
            "d": ({"status": "expired"}, Outcome.UNKNOWN),
            "e": ({"status": "accepted"}, Outcome.ACCEPTED),
            "f": ({"status": "running"}, Outcome.RUNNING),
            "g": ({"status": "error", "error": "script not permitted"}, Outcome.DENIED),
            "h": ({"status": "error", "error": "oh"}, Outcome.UNKNOWN),
            "i": ({"status": "done", "exit": 1, "state": "lost"}, Outcome.FAILED),
            "j": (
                {"status": "done", "exit": -1, "state": "timed out"},
                Outcome.TIMED_OUT,
            ),
        }
        entries = {host: entry for host, (entry, _) in hosts.items()}
        self.assertEqual(
            {row.host: row.outcome for row in recorded_rows(record(hosts=entries))},
            {host: outcome for host, (_, outcome) in hosts.items()},
        )

    def test_fetchError(self) -> None:
        """
        Why nothing new is known of a run is its hint.
        """
        entry = {"status": "running", "fetch_error": "nobody is there"}
        (row,) = recorded_rows(record(hosts={"web-1": entry}))
        self.assertEqual((row.outcome, row.hint), (Outcome.RUNNING, "nobody is there"))

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
        nameless = attrs.evolve(record(), submitter=Submitter("", "10.0.0.1"))
        self.assertEqual(run_note(nameless), "backup on 1 host")
