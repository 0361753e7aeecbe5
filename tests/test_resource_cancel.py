# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for C{POST /cancel}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from ctrlexec.agent.run_table import BURIED_SECONDS, MOST_BURIED
from ctrlexec.hooks import Allowed, Verdict
from tests.agents import PEER
from tests.run_lives import LAB, RUN, LivesTestCase

UNKNOWN = (404, {"status": "unknown", "reqid": "r-1"})
BURIED = {
    "script": "hello",
    "exit": -1,
    "error": "cancelled before it was started",
    "reqid": "r-1",
    "state": "cancelled",
}
TERM = [{"pid": 4242, "command": "sleep", "signal": "TERM"}]


def done(state: str = "cancelled", signalled: Any = ()) -> tuple[int, Any]:
    """
    The answer that says that nothing is left.
    """
    fields = {"status": "ok", "reqid": "r-1", "state": state}
    return 200, {**fields, "signalled": [*signalled]}


class CancelTests(LivesTestCase):
    """
    C{POST /cancel}
    """

    def test_lives(self) -> None:
        """
        A run is ended, and the answer comes when nothing of it is left; who has
        waited for it hears that.
        """
        _, waiting = self.wants()
        [run] = self.runner.started
        run.ignores = True
        self.log.taken()
        answers = self.cancels()
        self.assertEqual((run.cancels, answers.given), (1, []))
        run.exits(126, state="cancelled", reason="cancelled")
        self.assertEqual(answers.given, [done(signalled=TERM)])
        [(_, answer)] = waiting.given
        self.assertEqual((answer["exit"], answer["state"]), (126, "cancelled"))
        self.assertEqual(answer["stderr"], "[cancelled]\n")
        line = f"DISPATCHER=hq PEER={PEER} REQID=r-1 SCRIPT=hello SIGNALLED=1"
        self.assertEqual(self.logged("run-cancel"), [line])

    def test_twice(self) -> None:
        """
        Both wait for the end, and hear the same; it is told to end once.
        """
        self.detached().ignores = True
        first, second = self.cancels(), self.cancels()
        [run] = self.runner.started
        self.assertEqual((first.given, second.given, run.cancels), ([], [], 1))
        run.exits(126, state="cancelled", reason="cancelled")
        self.assertEqual(first.given, [done(signalled=TERM)])
        self.assertEqual(second.given, first.given)

    def test_ended(self) -> None:
        """
        One that has ended stays as it is.
        """
        self.detached().exits(3)
        self.assertEqual(self.cancels().given, [done("done")])
        self.assertEqual(self.runner.started[0].cancels, 0)
        self.assertEqual(self.result()[1]["exit"], 3)

    def test_endsMeanwhile(self) -> None:
        """
        One that ends by itself before it hears of it has ended so.
        """
        self.detached().ignores = True
        answers = self.cancels()
        self.runner.started[0].exits(0)
        self.assertEqual(answers.given, [done("done", TERM)])

    def test_anothers(self) -> None:
        """
        A run of another dispatcher is not there, and goes on.
        """
        self.detached()
        self.log.taken()
        self.assertEqual(self.cancels(certificate=LAB).given, [UNKNOWN])
        self.assertEqual(self.runner.started[0].cancels, 0)
        self.assertEqual(len(self.logged("result-deny")), 1)

    def test_bad(self) -> None:
        """
        What is no request is said to be none.
        """
        for body in (b"", {}, {"reqid": 7}, {"reqid": "../x"}):
            self.assertEqual(self.answer("POST", "/cancel", body)[0], 400)

    def test_callerGone(self) -> None:
        """
        Who goes has cancelled it all the same, and the log has it.
        """
        self.detached().ignores = True
        exchange, _ = self.ask("POST", "/cancel", {"reqid": "r-1"})
        exchange.lost()
        self.runner.started[0].exits(126, state="cancelled", reason="cancelled")
        self.assertEqual(len(self.logged("run-cancel")), 1)

    def test_fails(self) -> None:
        """
        Should it not be possible, the caller hears that something is wrong, and
        may try again.
        """
        run = self.detached()
        run.faulty = True
        self.assertEqual(self.cancels().given[0][0], 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        run.faulty = False
        self.assertEqual(self.cancels().given, [done(signalled=TERM)])


class EarlyTests(LivesTestCase):
    """
    A cancel that comes before the start
    """

    def test_unknown(self) -> None:
        """
        A run that comes after its cancel is not started: for a while, and for
        this dispatcher.
        """
        self.assertEqual(self.cancels().given, [UNKNOWN])
        for _ in "ab":
            self.assertEqual(self.wants()[1].given, [(200, BURIED)])
        self.assertEqual(self.runner.started, [])
        self.wants(certificate=LAB)
        self.assertEqual(len(self.runner.started), 1)
        self.clock.advance(BURIED_SECONDS - 1)
        self.assertEqual(self.wants()[1].given, [(200, BURIED)])
        self.clock.advance(1)
        self.wants()
        self.assertEqual(len(self.runner.started), 2)

    def test_bounded(self) -> None:
        """
        A dispatcher can not make the agent remember without end, nor forget what
        others have cancelled.
        """
        self.cancels()
        self.cancels("x", LAB)
        for number in range(MOST_BURIED):
            self.cancels(f"n-{number}", LAB)
        self.assertEqual(self.wants()[1].given, [(200, BURIED)])
        self.wants("x", LAB)
        self.assertEqual(len(self.runner.started), 1)

    def test_asked(self) -> None:
        """
        While the hook is asked the answer does not wait for it, and its yes comes
        too late.
        """
        thinking: Deferred[Verdict] = Deferred()
        self.authoriser.verdict = thinking
        _, waiting = self.wants()
        self.assertEqual(self.cancels().given, [done()])
        self.assertEqual(waiting.given, [(200, BURIED)])
        # It comes again.
        self.assertEqual(self.wants()[1].given, [(200, BURIED)])
        thinking.callback(Allowed())
        self.assertEqual((self.runner.started, len(self.agent.runs.table)), ([], 0))
        self.assertEqual(self.wants()[1].given, [(200, BURIED)])
        self.assertEqual(self.cancels().given, [UNKNOWN])

    def test_starting(self) -> None:
        """
        What is just being started is cancelled when it was.
        """
        starting: Deferred[None] = Deferred()
        self.runner.starting = starting
        _, waiting = self.wants(waits=False)
        answers = self.cancels()
        self.assertEqual((waiting.given, answers.given), ([], []))
        starting.callback(None)
        self.assertEqual(self.runner.started[0].cancels, 1)
        self.assertEqual(answers.given, [done(signalled=TERM)])
        self.assertEqual(waiting.given[0][0], 202)

    def test_claiming(self) -> None:
        """
        While the claim is written there is still time not to start anything.
        """
        writing: list[tuple[Any, Any]] = []

        def in_thread(work: Any, *args: Any) -> Any:
            result: Deferred[Any] = Deferred()
            writing.append((result, work(*args)))
            return result

        at_once, self.in_force.in_thread = self.in_force.in_thread, in_thread
        _, waiting = self.wants()
        answers = self.cancels()
        self.in_force.in_thread = at_once
        [(result, claimed)] = writing
        result.callback(claimed)
        self.assertEqual(waiting.given, [(200, BURIED)])
        self.assertEqual(answers.given, [done()])
        self.assertEqual((self.runner.started, self.kept()), ([], []))
        self.assertIn(
            f"ACTION=run-cancel {RUN} SCRIPT=hello SIGNALLED=0", self.log.lines
        )
        # It comes again.
        self.assertEqual(self.wants()[1].given, [(200, BURIED)])
