# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for what who has waited for a run is told, and for what runs now: C{POST /run},
C{GET /runs}.
"""

from __future__ import annotations

import json

from ctrlexec.errors import NotStarted
from tests.agents import PEER, SIBLING
from tests.run_lives import LAB, WHO, LivesTestCase


class NowTests(LivesTestCase):
    """
    C{GET /runs}
    """

    def test_listed(self) -> None:
        """
        What runs, of whatever kind; others' are only counted.
        """
        self.detached(username="ann")
        self.clock.advance(5)
        self.wants("")
        self.wants("r-1", LAB)
        code, answer = self.answer("GET", "/runs")
        self.assertEqual((code, answer["status"], answer["others"]), (200, "ok", 1))
        first, second = answer["runs"]
        self.assertEqual(
            first,
            {
                "reqid": "r-1",
                "script": "hello",
                "state": "running",
                "started": "2026-03-05T18:38:09Z",
                "seconds": 5,
                "username": "ann",
                "async": True,
                "pid": 4242,
            },
        )
        self.assertEqual((second["reqid"], second["async"]), ("", False))
        for run in self.runner.started:
            run.exits(0)
        nothing = {"status": "ok", "others": 0, "runs": []}
        self.assertEqual(self.answer("GET", "/runs"), (200, nothing))

    def test_clockSet(self) -> None:
        """
        For how long it has run does not follow the clock on the wall.
        """
        self.detached()
        self.time = self.time.replace(year=1970)
        self.clock.advance(2)
        [run] = self.answer("GET", "/runs")[1]["runs"]
        self.assertEqual(run["seconds"], 2)
        self.runner.started[0].exits(0)
        self.assertEqual(self.result()[1]["finished"], "1970-03-05T18:38:09Z")

    def test_notTrusted(self) -> None:
        """
        A stranger learns nothing.
        """
        self.detached()
        answer = self.answer("GET", "/runs", b"", certificate=SIBLING)
        self.assertEqual(answer[0], 403)
        self.assertNotIn("runs", answer[1])


class FinishedTests(LivesTestCase):
    """
    The answer to who has waited
    """

    def test_shape(self) -> None:
        """
        It has the fields that the original knows, and no other, where the run
        ended by itself.
        """
        _, answers = self.wants()
        run = self.runner.started[0]
        run.writes("ü\n".encode(), b"\xff")
        run.exits(0)
        fields = {"script": "hello", "exit": 0, "reqid": "r-1"}
        fields |= {"stdout": "ü\n", "stderr": "\ufffd"}
        self.assertEqual(answers.given, [(200, fields)])

    def test_state(self) -> None:
        """
        Where it did not, it says how, and peers that do not look at that read it
        at the end of stderr.
        """
        _, answers = self.wants()
        reason = "timed out after 30s"
        self.runner.started[0].exits(126, state="timed_out", reason=reason)
        [(_, answer)] = answers.given
        self.assertEqual((answer["state"], answer["reason"]), ("timed_out", reason))
        self.assertEqual(answer["stderr"], f"[{reason}]\n")
        line = f"EXIT=126 PEER={PEER} REQID=r-1 SCRIPT=hello STATE=timed_out"
        self.assertEqual(self.logged("run"), [f"DISPATCHER=hq {line}"])

    def test_large(self) -> None:
        """
        A large answer is made while it is read.
        """
        _, answers = self.wants("no file name", args=[])
        run = self.runner.started[0]
        run.writes(b"\0" * 100_000, b"x" * 100_000)
        run.exits(0)
        [told] = answers.long
        pieces = told.pieces()
        self.assertEqual(sum(map(len, pieces)), told.answer.length)
        answer = json.loads(b"".join(pieces))
        self.assertEqual(answer["stdout"], "\0" * 100_000)
        self.assertEqual(answer["stderr"], "x" * 100_000)
        self.assertEqual(answer["reqid"], "no file name")
        self.assertEqual(self.kept(), [])

    def test_lost(self) -> None:
        """
        Nobody has seen its end.
        """
        _, answers = self.wants()
        self.runner.started[0].ends(None)
        [(_, answer)] = answers.given
        self.assertEqual((answer["exit"], answer["state"]), (-1, "lost"))
        self.assertTrue(answer["stderr"].startswith("lost: "))
        self.assertEqual(self.result()[1]["status"], "done")
        self.assertEqual(len(self.agent.runs.table), 0)

    def test_notStarted(self) -> None:
        """
        What could not be started at all is a failure in the script's place: the
        original says so on stderr.
        """
        self.runner.refusal = NotStarted("no room")
        _, answers = self.wants()
        [(code, answer)] = answers.given
        self.assertEqual((code, answer["exit"], answer["state"]), (200, -1, "failed"))
        self.assertEqual(answer["stderr"], "no room\n")
        self.assertNotIn("error", answer)

    def test_noDescriptors(self) -> None:
        """
        So is what the system has no room for; nothing is left that seems to run.
        """
        self.runner.refusal = OSError(24, "Too many open files")
        _, answers = self.wants()
        self.assertEqual(answers.given[0][1]["stderr"], "Too many open files\n")
        self.assertEqual(self.result()[1]["state"], "failed")
        _, answers = self.wants("r-2", waits=False)
        self.assertEqual(answers.given[0][1]["error"], "could not start async job")
        self.assertEqual(self.kept(), ["hq/r-1.json"])

    def test_anonymous(self) -> None:
        """
        A run without a good id leaves nothing behind.
        """
        _, answers = self.wants("a b")
        self.runner.started[0].exits(0)
        self.assertEqual(answers.given[0][1]["reqid"], "a b")
        self.assertEqual(self.kept(), [])
        self.assertIn(f'{WHO} REQID="a b"', self.logged("run-start")[0])
