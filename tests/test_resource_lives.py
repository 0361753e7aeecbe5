# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.running}: what is left of runs, by the agent that
was.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from ctrlexec.agent.runs import Ending
from ctrlexec.interfaces import ILiveScript
from tests.agents import PEER
from tests.authority import NOW
from tests.fake_scripts import FakeScript
from tests.run_lives import RUN, LivesTestCase

SCRIPT = "SCRIPT=hello"


class RecoveryTests(LivesTestCase):
    """
    An agent that is started again
    """

    def restarted(self, found: FakeScript | Ending | None) -> None:
        """
        The agent ends, with no word to anybody, and another one begins.

        @param found: what there is of the run.
        """
        self.runner = type(self.runner)()
        self.runner.left[self.root / "hq" / "r-1.run"] = found
        self.log.taken()
        self.clock.advance(1000)
        self.agent = self.another_agent()

    def left(self) -> FakeScript:
        """
        A script that goes on.
        """
        run = self.runner.started[-1]
        script = FakeScript(run.directory)
        verifyObject(ILiveScript, script)
        return script

    def test_lives(self) -> None:
        """
        A run that lives is the same as before: it is listed, followed, waited
        for, cancelled, and its end is written down.
        """
        self.detached(username="ann").writes(b"before\n")
        script = self.left()
        self.time = self.time.replace(second=self.time.second + 7)
        self.restarted(script)
        self.assertEqual(self.log.taken(), [f"ACTION=run-adopted {RUN} {SCRIPT}"])
        [listed] = self.answer("GET", "/runs")[1]["runs"]
        self.assertEqual((listed["seconds"], listed["username"]), (7, "ann"))
        _, told = self.follows(stdout=3)
        _, waiting = self.wants()
        script.writes(b"after\n")
        self.assertEqual(
            [event.get("stdout") for event in told.events()][1:], ["ore\nafter\n"]
        )
        script.exits(4, stdout_bytes=13)
        self.assertEqual(waiting.given[0][1]["exit"], 4)
        self.assertEqual(self.runner.started, [])
        record = self.result()[1]
        self.assertEqual((record["exit"], record["stdout"]), (4, "before\nafter\n"))
        line = f"DISPATCHER=hq EXIT=4 PEER={PEER} REQID=r-1 SCRIPT=hello"
        self.assertIn(f"ACTION=run {line}", self.log.lines)
        self.assertEqual(self.kept(), ["hq/r-1.json"])

    def test_clockSet(self) -> None:
        """
        Where the clock was set in the meantime a run is no older than its host is up.
        """
        self.time = NOW - timedelta(days=20_000)
        self.detached()
        script = self.left()
        for moment, seconds in ((NOW, 1000), (NOW - timedelta(days=30_000), 0)):
            self.time = moment
            self.restarted(script)
            runs = self.answer("GET", "/runs")[1]["runs"]
            self.assertEqual([run["seconds"] for run in runs], [seconds])

    def test_ended(self) -> None:
        """
        What has ended without us is written down as it was.
        """
        self.detached().writes(b"out")
        self.restarted(Ending(exit=9, stdout_bytes=3, finished=60))
        record = self.result()[1]
        self.assertEqual((record["exit"], record["stdout"]), (9, "out"))
        self.assertEqual(record["finished"], "1970-01-01T00:01:00Z")
        self.assertEqual(len(self.agent.runs.table), 0)

    def test_lost(self) -> None:
        """
        What nobody has seen the end of is lost, and does not run for ever.
        """
        self.detached().writes(b"out\n")
        self.restarted(None)
        lost, ended = self.log.taken()
        self.assertEqual(lost, f"ACTION=run-lost {RUN} {SCRIPT}")
        self.assertIn("EXIT=-1", ended)
        self.assertIn("STATE=lost", ended)
        record = self.result()[1]
        self.assertEqual((record["status"], record["exit"]), ("done", -1))
        self.assertEqual((record["state"], record["stdout"]), ("lost", "out\n"))
        self.assertTrue(record["stderr"].startswith("lost: "))
        # Once and for all.
        self.restarted(None)
        self.assertEqual(self.log.taken(), [])
        _, answers = self.wants()
        self.assertEqual(answers.given[0][1]["state"], "lost")

    def test_halfWritten(self) -> None:
        """
        A record that was being written when the agent was killed is removed.
        """
        self.detached()
        half = self.root / "hq" / ".r-1.json.0123456789ab.tmp"
        half.touch()
        self.restarted(None)
        self.assertFalse(half.exists())

    def test_nothingLeft(self) -> None:
        """
        Even where nothing is left of it but its record.
        """
        run = self.detached()
        for path in run.directory.iterdir():
            path.unlink()
        run.directory.rmdir()
        self.restarted(None)
        self.assertEqual(self.result()[1]["state"], "lost")

    def test_waited(self) -> None:
        """
        A run that somebody waited for goes on, and can be asked for.
        """
        self.wants()
        script = self.left()
        self.restarted(script)
        self.assertEqual(script.cancels, 0)
        script.exits(0)
        self.assertEqual(self.result()[1]["status"], "done")

    def test_notWanted(self) -> None:
        """
        Not so where it is of no use without its caller.
        """
        self.wants(on_disconnect="cancel")
        script = self.left()
        self.restarted(script)
        self.assertEqual(script.cancels, 1)
        record, why = self.result()[1], "cancelled: the agent was started again"
        self.assertEqual((record["state"], record["reason"]), ("cancelled", why))
        self.assertEqual(record["stderr"], f"[{why}]\n")
        line = f"DISPATCHER=hq PEER={PEER} REASON=restart REQID=r-1 {SCRIPT}"
        self.assertIn(f"ACTION=run-cancel {line} SIGNALLED=1", self.log.lines)

    def test_anonymous(self) -> None:
        """
        A run without an id is found again, and leaves nothing when it has ended.
        """
        self.wants("")
        script = self.left()
        runner = type(self.runner)()
        runner.left[script.directory] = script
        self.runner = runner
        self.agent = self.another_agent()
        [listed] = self.answer("GET", "/runs")[1]["runs"]
        self.assertEqual((listed["reqid"], listed["pid"]), ("", 4242))
        script.exits(0)
        self.assertEqual(self.kept(), [])

    def test_crashedAtTheEnd(self) -> None:
        """
        A record of the end that is there says all, whatever is left beside it.
        """
        run = self.detached()
        run.exits(0)
        run.directory.mkdir()
        self.restarted(None)
        self.assertEqual(self.result()[1]["state"], "done")
        self.assertEqual(self.log.taken()[1:], [])

    def test_waits(self) -> None:
        """
        Who asks before the runs of before are found waits until they are.
        """
        self.detached()
        script = self.left()
        self.restarted(script)
        self.agent = self.another_agent()
        runs = self.agent.runs
        runs.recovered = type(runs.recovered)()
        answers = [
            self.ask("GET", "/result/r-1")[1],
            self.ask("GET", "/runs")[1],
            self.cancels(),
            self.wants()[1],
        ]
        self.assertEqual([each.given for each in answers], [[]] * 4)
        runs.recovered.come(None)
        self.assertEqual([len(each.given) for each in answers], [1] * 4)

    def test_closed(self) -> None:
        """
        An agent that ends tells nobody that a run has.
        """
        self.detached()
        self.successResultOf(self.left_alone())
        self.assertTrue(self.runner.closed)
        self.assertEqual(self.timers.getDelayedCalls(), [])
        self.assertEqual(self.result()[1]["status"], "running")

    def left_alone(self) -> Any:
        """
        The agent ends in good order.
        """
        return Deferred.fromCoroutine(self.agent.runs.leave())
