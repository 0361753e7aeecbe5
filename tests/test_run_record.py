# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.run_record}: what is known of a run while it goes
on. How records are read is tested in L{tests.test_run_record_reading}.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.results import Outcome, RunRow, async_fields, run_fields
from ctrlexec.dispatcher.run_record import RunRecord, entry_of, is_open
from ctrlexec.values import Submitter

ALICE = Submitter("alice", "192.0.2.1")
ENDED = {"status": "done", "exit": 0, "stdout": "up\n", "stderr": "", "state": "ok"}


def row(outcome: Outcome, **others: Any) -> RunRow:
    """
    What became of a run on C{web-1}.
    """
    return RunRow(host="web-1", script="backup", reqid="r1", outcome=outcome, **others)


def begun(*hosts: str) -> RunRecord:
    """
    The record of a run that was accepted on these hosts.
    """
    return RunRecord.begun(
        reqid="r1",
        script="backup",
        mode="async",
        hosts={host: {"status": "accepted"} for host in hosts},
        ports={},
        created=1_795_213_924,
        submitter=ALICE,
    )


def ended(*rows: RunRow, pending: tuple[str, ...] = ()) -> RunRecord:
    """
    The record of a run that was waited for.
    """
    return RunRecord.sync(
        reqid="r1",
        script="backup",
        hosts=("web-1",),
        results=[run_fields(each) for each in rows],
        completed=1_795_213_924,
        submitter=ALICE,
        pending=pending,
    )


class TimeoutTests(SynchronousTestCase):
    """
    The time of a run may be limited.
    """

    def test_kept(self) -> None:
        """
        Whoever follows it later knows that, for as long as it is followed.
        """
        how: dict[str, Any] = {"reqid": "r1", "script": "backup", "timeout": 30.0}
        record = RunRecord.begun(
            mode="sync", hosts={}, ports={}, created=1, submitter=ALICE, **how
        )
        self.assertEqual(record.timeout, 30.0)
        for pending, timeout in (((), None), (("web-1",), 30.0)):
            record = RunRecord.sync(
                hosts=("web-1",),
                results=[],
                completed=1,
                submitter=ALICE,
                pending=pending,
                **how,
            )
            self.assertEqual(record.timeout, timeout)

    def test_read(self) -> None:
        """
        What is no time that an agent would take is none.
        """
        for value, timeout in (
            (30, 30),
            (0.5, 0.5),
            (0, None),
            (-1, None),
            (True, None),
            ("30", None),
            (10**400, None),
            (float("nan"), None),
        ):
            record = RunRecord("r1", "backup", (), None, {"timeout": value})
            self.assertEqual(record.timeout, timeout)


class BegunTests(SynchronousTestCase):
    """
    Hosts are waited for.
    """

    def test_begun(self) -> None:
        """
        The newer line's record, as NEWER-LINE.md section 6.2 has it.
        """
        record = begun("web-2", "web-1")
        self.assertEqual(
            record.fields,
            {
                "reqid": "r1",
                "script": "backup",
                "mode": "async",
                "hosts": {
                    "web-2": {"status": "accepted"},
                    "web-1": {"status": "accepted"},
                },
                "created": 1_795_213_924,
                "pending": ["web-1", "web-2"],
                "complete": False,
                "submitter": {"username": "alice", "source_ip": "192.0.2.1"},
            },
        )
        self.assertEqual(record.pending, ("web-1", "web-2"))
        self.assertFalse(record.complete)

    def test_ends(self) -> None:
        """
        When the last host has ended it is complete.
        """
        one = begun("web-1", "web-2").with_entries({"web-1": ENDED})
        self.assertEqual((one.pending, one.complete), (("web-2",), False))
        self.assertEqual(one.fields["pending"], ["web-2"])
        two = one.with_entries({"web-2": {"status": "expired"}})
        self.assertEqual((two.pending, two.complete), ((), True))
        self.assertEqual((two.fields["pending"], two.fields["complete"]), ([], True))
        self.assertEqual(two.entry("web-1"), ENDED)

    def test_neverBack(self) -> None:
        """
        What has ended stays as it was; what runs was accepted before; strangers
        are no hosts of it.
        """
        record = begun("web-1", "web-2").with_entries(
            {"web-1": ENDED, "web-2": {"status": "running"}}
        )
        later = record.with_entries(
            {
                "web-1": {"status": "expired"},
                "web-2": {"status": "accepted"},
                "web-3": ENDED,
            }
        )
        self.assertIs(later, record)

    def test_notFetched(self) -> None:
        """
        Why nothing new is known is noted beside what is, until something is.
        """
        record = begun("web-1").with_entries({"web-1": {"status": "running"}})
        silent = record.with_entries({"web-1": {"fetch_error": "nobody is there"}})
        self.assertEqual(
            silent.entry("web-1"),
            {"status": "running", "fetch_error": "nobody is there"},
        )
        self.assertEqual(silent.pending, ("web-1",))
        again = silent.with_entries({"web-1": {"status": "running"}})
        self.assertEqual(again, record)

    def test_nothingNew(self) -> None:
        """
        Where nothing is new it is the very same record.
        """
        record = begun("web-1")
        self.assertIs(record.with_entries({}), record)
        self.assertIs(record.with_entries({"web-1": {"status": "accepted"}}), record)

    @given(
        st.lists(
            st.dictionaries(
                st.sampled_from(["web-1", "web-2", "web-3"]),
                st.sampled_from(
                    [
                        {"status": "running"},
                        {"status": "accepted"},
                        {"status": "expired"},
                        {"fetch_error": "no"},
                        ENDED,
                    ]
                ),
            )
        )
    )
    def test_shrinks(self, rounds: list[dict[str, dict[str, Any]]]) -> None:
        """
        Whatever is told, and in which order, no host is waited for again.
        """
        record = begun("web-1", "web-2")
        for news in rounds:
            before, record = record, record.with_entries(news)
            self.assertLessEqual({*record.pending}, {*before.pending})
            self.assertEqual([*record.pending], record.fields["pending"])
            self.assertEqual(record.complete, record.fields["complete"])

    def test_cancelled(self) -> None:
        """
        Where somebody has ended it is noted, each host once.
        """
        record = begun("web-1", "web-2").with_cancelled(["web-2"])
        self.assertEqual(record.cancelled, {"web-2"})
        self.assertIs(record.with_cancelled(["web-2"]), record)
        self.assertEqual(begun("web-1").cancelled, frozenset())

    def test_ports(self) -> None:
        """
        A port that somebody has typed is found again; rubbish is none.
        """
        record = RunRecord.begun(
            reqid="r1",
            script="backup",
            mode="sync",
            hosts={"web-1": {"status": "accepted"}},
            ports={"web-1": 9000},
            created=0,
            submitter=ALICE,
        )
        self.assertEqual((record.port("web-1"), record.port("web-2")), (9000, None))
        for odd in ("9000", True, 0, 65_536, None):
            fields = {"hosts": [], "ports": {"web-1": odd}}
            record = RunRecord("r1", "backup", (), None, fields)
            self.assertIsNone(record.port("web-1"))


class WaitedForTests(SynchronousTestCase):
    """
    Somebody has waited, and not in vain everywhere.
    """

    def test_complete(self) -> None:
        """
        Where all is known there is nothing beside the results.
        """
        record = ended(row(Outcome.OK, exit=0))
        self.assertTrue(record.complete)
        self.assertNotIn("pending", record.fields)
        self.assertIs(record.with_entries({"web-1": ENDED}), record)

    def test_found(self) -> None:
        """
        What turns out later takes the place of the error.
        """
        lost = row(Outcome.UNKNOWN, error="read timeout after 60s", rtt_ms=60_000)
        record = ended(lost, pending=("web-1",))
        self.assertEqual((record.complete, record.pending), (False, ("web-1",)))
        found = record.with_entries({"web-1": ENDED})
        self.assertTrue(found.fields["complete"])
        self.assertNotIn("pending", found.fields)
        good = row(Outcome.OK, exit=0, stdout="up\n", rtt_ms=60_000)
        self.assertEqual(found.fields["results"], [run_fields(good)])

    def test_runs(self) -> None:
        """
        That it still runs is known, and it is waited for.
        """
        lost = row(Outcome.UNKNOWN, error="lost")
        record = ended(lost, pending=("web-1",))
        running = record.with_entries({"web-1": {"status": "running"}})
        self.assertEqual(running.fields["results"][0]["state"], "running")
        self.assertEqual(running.pending, ("web-1",))
        self.assertEqual(running.entry("web-1"), {"status": "running"})
        self.assertEqual((record.entry("web-1"), running.entry("web-2")), ({}, {}))

    def test_neverFound(self) -> None:
        """
        What nobody knows any more is unknown for good.
        """
        record = ended(row(Outcome.RUNNING, error="lost"), pending=("web-1",))
        expired = record.with_entries({"web-1": {"status": "expired"}})
        (result,) = expired.fields["results"]
        self.assertEqual((result["state"], result["error"]), ("unknown", "lost"))
        self.assertTrue(expired.complete)

    def test_rubbish(self) -> None:
        """
        A record of somebody else's is no reason to fall over it.
        """
        for fields in (
            {"hosts": ["web-1"], "pending": ["web-1"], "results": 3},
            {"hosts": ["web-1"], "pending": ["web-1"], "results": ["x", {}]},
        ):
            record = RunRecord("r1", "backup", ("web-1",), None, fields)
            self.assertEqual(record.pending, ("web-1",))
            self.assertTrue(record.with_entries({"web-1": ENDED}).complete)


class EntryTests(SynchronousTestCase):
    """
    What became of asking a host for a run.
    """

    def test_entries(self) -> None:
        """
        Each outcome is one of the newer line's states, with ours beside it;
        what may still turn out is waited for.
        """
        cases: list[tuple[RunRow, dict[str, Any], str]] = [
            (row(Outcome.ACCEPTED), {"status": "accepted"}, "accepted"),
            (row(Outcome.RUNNING, error="x"), {"status": "running"}, "accepted"),
            (
                row(Outcome.BUSY, error="script already running"),
                {
                    "status": "busy",
                    "error": "script already running",
                    "state": "busy",
                },
                "busy",
            ),
            (
                row(Outcome.DENIED, error="no", reason="why"),
                {"status": "error", "error": "no", "state": "denied", "reason": "why"},
                "error",
            ),
            (
                row(Outcome.UNKNOWN, error="lost"),
                {"status": "accepted", "fetch_error": "lost"},
                "error",
            ),
            (
                row(Outcome.DENIED, error="script not permitted"),
                {
                    "status": "error",
                    "error": "script not permitted",
                    "state": "denied",
                },
                "error",
            ),
            (row(Outcome.OK, exit=0, stdout="up\n"), ENDED, "accepted"),
            (
                row(Outcome.TIMED_OUT, exit=126, reason="timed out after 1s"),
                {
                    "status": "done",
                    "exit": 126,
                    "stdout": "",
                    "stderr": "",
                    "state": "timed out",
                    "reason": "timed out after 1s",
                },
                "accepted",
            ),
        ]
        for each, entry, status in cases:
            self.assertEqual(entry_of(each), entry)
            self.assertEqual(is_open(each), entry["status"] in ("accepted", "running"))
            self.assertEqual(async_fields(each)["status"], status)

    def test_asyncFields(self) -> None:
        """
        The API's answer to a run that nobody waits for: NEWER-LINE.md section
        13, with the outcome in one word.
        """
        self.assertEqual(
            async_fields(row(Outcome.BUSY, error="busy: x", reason="y", rtt_ms=3)),
            {
                "host": "web-1",
                "script": "backup",
                "status": "busy",
                "error": "busy: x",
                "reason": "y",
                "reqid": "r1",
                "rtt": "3ms",
                "state": "busy",
            },
        )
        self.assertNotIn("error", async_fields(row(Outcome.RUNNING, error="running")))
