# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.render_runs}: byte for byte what people read.
"""

from __future__ import annotations

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.render import Look
from ctrlexec.dispatcher.render_runs import (
    cancel_row,
    elapsed,
    not_started_text,
    others_text,
    ps_rows,
    ps_table,
    run_count,
    run_tally,
    run_text,
    signalled_text,
    submitted_text,
)
from ctrlexec.dispatcher.results import CancelRow, Outcome, PsRow, RunRow
from ctrlexec.protocol.run_messages import LiveRun, Signalled
from tests.test_render import COLOURS, PIPE, RAN, REFUSED, TERMINAL

FAILED = attrs.evolve(RAN, outcome=Outcome.FAILED, exit=3, stdout="", stderr="")
SLOW = attrs.evolve(
    FAILED, outcome=Outcome.TIMED_OUT, exit=126, reason="timed out after 30s"
)


class RunTests(SynchronousTestCase):
    """
    What became of a run.
    """

    def test_error(self) -> None:
        """
        What the original printed for an agent that did not answer.
        """
        self.assertEqual(
            run_text(REFUSED, PIPE),
            "==> agent-one  [FAIL  exit:-1  41ms  req:9f21f7eabc06ba23]\n"
            "    ERROR: 500 Can't connect to agent-one:7443 (Connection refused)\n",
        )

    def test_output(self) -> None:
        """
        Standard output as it is; each line of stderr says what it is; the last
        line ends even if the script did not end it.
        """
        self.assertEqual(
            run_text(RAN, PIPE),
            "==> web-1  [OK  exit:0  12ms  req:9f21f7eabc06ba23]\n"
            "one\n"
            "two\n"
            "    STDERR: a warning\n"
            "    STDERR: and another\n",
        )

    def test_failed(self) -> None:
        """
        An exit status is a failure, and no error.
        """
        text = run_text(FAILED, PIPE)
        self.assertEqual(
            text, "==> web-1  [FAIL  exit:3  12ms  req:9f21f7eabc06ba23]\n"
        )

    def test_emptyLines(self) -> None:
        """
        Empty lines of a script are kept.
        """
        text = run_text(attrs.evolve(RAN, stdout="\n\na\n\n", stderr=""), PIPE)
        self.assertEqual(text.partition("\n")[2], "\n\na\n\n")

    def test_terminal(self) -> None:
        """
        A hostile agent does not drive the terminal, nor print a line that
        looks like another host's.
        """
        row = RunRow(
            host="web-1",
            script="x",
            reqid="r\n==> web-2  [OK",
            outcome=Outcome.UNKNOWN,
            stdout="\x1b]0;owned\x07\x1b[2J\n",
            stderr="\r==> web-2",
            error="bad\n==> web-2",
        )
        self.assertEqual(
            run_text(row, TERMINAL),
            "==> web-1  [FAIL  exit:-1  0ms  req:r\\n==> web-2  [OK]\n"
            "    ERROR: bad\\n==> web-2\n"
            "\\x1b]0;owned\\x07\\x1b[2J\n"
            "    STDERR: \n    STDERR: ==> web-2\n",
        )

    def test_pipe(self) -> None:
        """
        A file or a pipe gets the output of a script as it is.
        """
        row = attrs.evolve(RAN, stdout="\x1b[31mred\r\n", stderr="")
        self.assertIn("\n\x1b[31mred\r\n", run_text(row, PIPE))

    def test_colour(self) -> None:
        """
        Good is green and bad is red.
        """
        self.assertIn("[\x1b[32mOK\x1b[0m  exit", run_text(RAN, COLOURS))
        self.assertIn("[\x1b[1;31mFAIL\x1b[0m  exit", run_text(REFUSED, COLOURS))

    def test_reason(self) -> None:
        """
        Why a script did not end by itself stands where an error stands; what it
        has written is there all the same.
        """
        self.assertEqual(
            run_text(attrs.evolve(SLOW, stdout="half\n"), PIPE),
            "==> web-1  [FAIL  exit:126  12ms  req:9f21f7eabc06ba23]\n"
            "    ERROR: timed out after 30s\n"
            "half\n",
        )

    def test_still(self) -> None:
        """
        What has not ended has no exit status.
        """
        for outcome, word in (
            (Outcome.ACCEPTED, "ACCEPTED"),
            (Outcome.RUNNING, "RUNNING"),
            (Outcome.NOT_STARTED, "NOT STARTED"),
        ):
            row = RunRow(host="a", script="x", reqid="r1", outcome=outcome)
            self.assertEqual(run_text(row, PIPE), f"==> a  [{word}  req:r1]\n")

    def test_notStarted(self) -> None:
        """
        Hosts that were left out are named, in one line that is none of theirs.
        """
        left = attrs.evolve(RAN, host="b\n==> c", outcome=Outcome.NOT_STARTED)
        self.assertEqual(
            not_started_text([RAN, left, attrs.evolve(left, host="d")]),
            "not started: b\\n==> c d\n",
        )
        self.assertEqual(not_started_text([RAN]), "")

    def test_tally(self) -> None:
        """
        How many there are of each outcome, only of those that there are.
        """
        for rows, shown in (
            ([RAN], "1 ok"),
            (
                [REFUSED, RAN, SLOW, FAILED, RAN],
                "2 ok, 1 failed (web-1), 1 timed out (web-1), "
                "1 unreachable (agent-one)",
            ),
            ([attrs.evolve(RAN, outcome=Outcome.NOT_STARTED)], "1 not started"),
            ([], ""),
        ):
            self.assertEqual(run_tally(rows), shown)
        many = [attrs.evolve(FAILED, host=f"h{number}") for number in range(8)]
        self.assertEqual(run_tally(many), "8 failed (h0 h1 h2 h3 h4 and 3 more)")

    def test_count(self) -> None:
        """
        One host is counted if it went otherwise than its own line tells.
        """
        self.assertEqual(run_count([RAN, RAN]), "2 ok")
        self.assertEqual(run_count([SLOW]), "1 timed out (web-1)")
        for outcome in (Outcome.OK, Outcome.FAILED, Outcome.RUNNING, Outcome.ACCEPTED):
            self.assertEqual(run_count([attrs.evolve(RAN, outcome=outcome)]), "")

    def test_once(self) -> None:
        """
        Why a script did not end by itself is said once; what looks like that and
        is none of the agent's stays.
        """
        said = attrs.evolve(SLOW, stderr="oh\n[timed out after 30s]\n")
        text = run_text(said, PIPE)
        self.assertIn("    ERROR: timed out after 30s\n", text)
        self.assertTrue(text.endswith("    STDERR: oh\n"), text)
        lost = attrs.evolve(said, reason="lost", stderr="lost\n")
        self.assertNotIn("STDERR", run_text(lost, PIPE))
        odd = attrs.evolve(said, reason="cancelled")
        self.assertIn("    STDERR: [timed out after 30s]\n", run_text(odd, PIPE))

    def test_submitted(self) -> None:
        """
        Whether a host has taken what nobody waits for: NEWER-LINE.md section
        12.2.
        """
        for outcome, error, told in (
            (Outcome.ACCEPTED, None, "accepted"),
            # An agent of the older line has run it already.
            (Outcome.FAILED, None, "accepted"),
            (Outcome.BUSY, "script already running", "BUSY  script already running"),
            (Outcome.UNREACHABLE, "no\nroute", "ERROR  no\\nroute"),
        ):
            row = attrs.evolve(RAN, outcome=outcome, error=error)
            self.assertEqual(submitted_text(row, PIPE), f"{'web-1':<30}  {told}\n")
        row = attrs.evolve(RAN, outcome=Outcome.BUSY, error="busy", reason="r-1 runs")
        told = f"{'web-1':<30}  BUSY  busy: r-1 runs\n"
        self.assertEqual(submitted_text(row, PIPE), told)
        self.assertIn("    ERROR: busy: r-1 runs\n", run_text(row, PIPE))


class LivesTests(SynchronousTestCase):
    """
    Runs that live, and what was told to end.
    """

    live = LiveRun(
        reqid="r1",
        script="backup",
        state="running",
        started="2026-11-20T22:32:04Z",
        seconds=192.7,
        username="ann",
        pid=77,
    )

    def test_processes(self) -> None:
        """
        A line a run; what is not known yet is a question mark.
        """
        early = LiveRun("r2", "x", "running", "", 0.2)
        rows = ps_rows(PsRow(host="web-1", runs=(self.live, early)))
        cells = [
            ["web-1", "r1", "backup", "running", "3m", "12s", "ann", "77"],
            ["web-1", "r2", "x", "running", "0s", "?", "?"],
        ]
        lines = ps_table(["web-1"], None).text(rows).splitlines()
        titles = "HOST REQID SCRIPT STATE AGE USER PID"
        self.assertEqual(lines[0].split(), titles.split())
        self.assertEqual([line.split() for line in lines[2:]], cells)

    def test_others(self) -> None:
        """
        What other dispatchers run is counted, and no more.
        """
        for others, text in (
            (0, ""),
            (1, "a: 1 run of other dispatchers"),
            (2, "a: 2 runs of other dispatchers"),
        ):
            self.assertEqual(others_text(PsRow(host="a", others=others)), text)

    def test_cancelled(self) -> None:
        """
        How it has ended, and what was told so; an agent's words stay in their
        line.
        """
        signalled = (Signalled(7, "sleep", "TERM"), Signalled(8, "x\ny", "KILL"))
        row = CancelRow(host="a", reqid="r", state="timed_out", signalled=signalled)
        self.assertEqual(cancel_row(row, PIPE), ("a", "timed out", "2"))
        self.assertEqual(
            signalled_text(row), "    7  sleep  TERM\n    8  x\\ny  KILL\n"
        )
        lost = CancelRow(host="a", reqid="r", error="gone")
        host, word, count = cancel_row(lost, Look())
        self.assertEqual((host, str(word), count), ("a", "error", "?"))

    @given(st.floats(0, 10**7))
    def test_elapsed(self, seconds: float) -> None:
        """
        Two units at the most, and at least one.
        """
        self.assertIn(len(elapsed(seconds).split()), (1, 2))

    def test_units(self) -> None:
        """
        These are the words.
        """
        for seconds, words in (
            (0, "0s"),
            (59.9, "59s"),
            (60, "1m"),
            (192, "3m 12s"),
            (7260, "2h 1m"),
            (90_061, "1d 1h"),
        ):
            self.assertEqual(elapsed(seconds), words)
