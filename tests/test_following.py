# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.following} and L{ctrlexec.dispatcher.outcomes}.
"""

from __future__ import annotations

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from ctrlexec.dispatcher.following import (
    POLL_SECONDS,
    RETRY_SECONDS,
)
from ctrlexec.dispatcher.orders import Seen
from ctrlexec.dispatcher.outcomes import HOW_TO_LIST, failed, not_started, outcome_of
from ctrlexec.dispatcher.registry import Unknown
from ctrlexec.dispatcher.results import (
    REVOKED_AGENT,
    UNKNOWN_AGENT,
    Outcome,
)
from ctrlexec.dispatcher.run_record import entry_of, is_open
from ctrlexec.errors import (
    CtrlExecError,
    Forbidden,
    ProtocolError,
    Unreachable,
    Untrusted,
)
from ctrlexec.protocol.codec_trust import NoSuchRequest
from ctrlexec.protocol.messages import (
    RunAccepted,
    RunAnswer,
    RunRefused,
)
from tests.fake_agents import Recorded
from tests.followed import (
    LOST,
    PATIENCE,
    ROW,
    RUN,
    WEB_1,
    FollowingCase,
    finished,
    recorded,
)


class AnswerTests(FollowingCase):
    """
    An agent answers.
    """

    def test_finished(self) -> None:
        """
        A result carries what the script wrote, how it ended, and how long that
        took.
        """
        answer: Deferred[RunAnswer] = Deferred()
        working = self.begin(answer)
        self.clock.advance(0.0414)
        answer.callback(finished(3))
        self.assertEqual(
            self.successResultOf(working),
            attrs.evolve(
                ROW,
                outcome=Outcome.FAILED,
                rtt_ms=41,
                exit=3,
                stdout="out",
                stderr="err",
            ),
        )

    def test_outcomes(self) -> None:
        """
        What an agent says becomes one word, and only exit 0 is a good end.
        """
        for answer, outcome in (
            (finished(0), Outcome.OK),
            (finished(126), Outcome.FAILED),
            (finished(126, state="timed_out"), Outcome.TIMED_OUT),
            (finished(0, state="cancelled"), Outcome.CANCELLED),
            (finished(0, state="failed"), Outcome.FAILED),
            (finished(-1, state="lost"), Outcome.UNKNOWN),
            (finished(0, state="what?"), Outcome.UNKNOWN),
            (RunRefused("script not permitted"), Outcome.DENIED),
            (RunRefused("busy: x", state="busy"), Outcome.BUSY),
            (RunRefused("cancelled", state="cancelled"), Outcome.CANCELLED),
            (RunAccepted("backup", RUN.reqid), Outcome.ACCEPTED),
        ):
            row = self.row(answer)
            self.assertEqual(row.outcome, outcome, answer)
            self.assertEqual(row.ok, outcome in (Outcome.OK, Outcome.ACCEPTED))

    def test_reason(self) -> None:
        """
        A script that did not end by itself has a result all the same.
        """
        row = self.row(finished(126, state="timed_out", reason="timed out after 30s"))
        self.assertEqual(
            (row.exit, row.stdout, row.error, row.reason),
            (126, "out", None, "timed out after 30s"),
        )

    def test_refused(self) -> None:
        """
        A refusal is an error, and the script never ran.
        """
        row = self.row(RunRefused("script not permitted"))
        self.assertEqual((row.exit, row.error), (-1, "script not permitted"))

    def test_errors(self) -> None:
        """
        Why there is no answer makes the difference: whether it may have run.
        """
        for error, outcome in (
            (Unreachable("no", hint="look"), Outcome.UNREACHABLE),
            (Untrusted("no", hint="look"), Outcome.REFUSED),
            (Forbidden("forbidden: no", hint="look"), Outcome.REFUSED),
            (LOST, Outcome.UNKNOWN),
            (ProtocolError("what?", hint="look"), Outcome.UNKNOWN),
            (CtrlExecError("?", hint="look"), Outcome.UNKNOWN),
        ):
            row = self.row(error)
            self.assertEqual(
                (row.outcome, row.exit, row.error, row.hint),
                (outcome, -1, str(error), error.hint),
            )

    def test_fault(self) -> None:
        """
        Even a fault of our own is that host's row, and nobody knows.
        """
        answer: Deferred[RunAnswer] = Deferred()
        working = self.begin(answer)
        answer.errback(KeyError("oops"))
        row = self.successResultOf(working)
        self.assertEqual(row.error, "internal error: KeyError('oops')")
        self.assertEqual(row.outcome, Outcome.UNKNOWN)

    def test_cancelled(self) -> None:
        """
        Who cancels wants no row.
        """
        working = self.begin(Deferred())
        working.cancel()
        self.failureResultOf(working, CancelledError)

    def test_nowhere(self) -> None:
        """
        A stranger, and one that is trusted no more, is not asked.
        """
        for error, outcome, hint in (
            (UNKNOWN_AGENT, Outcome.UNREACHABLE, HOW_TO_LIST),
            (REVOKED_AGENT, Outcome.REFUSED, ""),
            ("web-1.json: is cut off", Outcome.UNREACHABLE, ""),
        ):
            following = self.following()
            working = following.run(Unknown("web-1", error), RUN)
            row = self.successResultOf(Deferred.fromCoroutine(working))
            self.assertEqual((row.error, row.outcome, row.hint), (error, outcome, hint))
            working = following.attach(Unknown("web-1", error), ROW, Seen(), self.hear)
            again = self.successResultOf(Deferred.fromCoroutine(working))
            self.assertEqual(again, row)
        self.assertEqual((self.agents.asked, self.agents.followed), ([], []))

    @given(st.text(), st.integers(-1, 255))
    def test_anyState(self, state: str, status: int) -> None:
        """
        No state but two lets a run look good.
        """
        if outcome_of(state, status) is Outcome.OK:
            self.assertEqual((state, status), ("done", 0))

    def test_notStarted(self) -> None:
        """
        Whom nobody has asked says so.
        """
        row = not_started(ROW)
        self.assertEqual((row.outcome.value, row.error), ("not started",) * 2)
        self.assertFalse(row.ok)


class RepeatTests(FollowingCase):
    """
    Nothing is asked for twice, with one exception.
    """

    def test_never(self) -> None:
        """
        A script that nobody has called idempotent is asked for once.
        """
        self.assertEqual(self.row(Unreachable("no")).outcome, Outcome.UNREACHABLE)
        self.assertEqual(len(self.agents.asked), 1)

    def test_idempotent(self) -> None:
        """
        One that is, and was not sent, is asked for once more after a second.
        """
        self.repeatable = ["backup"]
        working = self.begin(Unreachable("no"))
        self.assertNoResult(working)
        self.agents.answers = {}
        self.clock.advance(RETRY_SECONDS)
        self.assertTrue(self.successResultOf(working).ok)
        self.assertEqual(len(self.agents.asked), 2)

    def test_notForEver(self) -> None:
        """
        Once more, and no more.
        """
        self.repeatable = ["backup"]
        working = self.begin(Unreachable("no"))
        self.clock.advance(RETRY_SECONDS)
        self.assertEqual(self.successResultOf(working).outcome, Outcome.UNREACHABLE)
        self.clock.advance(60)
        self.assertEqual(len(self.agents.asked), 2)

    def test_sent(self) -> None:
        """
        What was sent, or refused, is not sent again however idempotent it is.
        """
        self.repeatable = ["backup"]
        for error in (LOST, Untrusted("no"), ProtocolError("what?")):
            self.agents.asked.clear()
            self.row(error)
            self.assertEqual(len(self.agents.asked), 1)


class LostTests(FollowingCase):
    """
    An answer is lost: the agent is asked what became of it.
    """

    def test_found(self) -> None:
        """
        What it has on record is the answer.
        """
        done = recorded("done", 3, stdout="out", reason="")
        self.agents.results = {"web-1": [done]}
        row = self.row(LOST)
        self.assertEqual(
            (row.outcome, row.exit, row.stdout, row.error),
            (Outcome.FAILED, 3, "out", None),
        )
        self.assertEqual(self.agents.traced, [(WEB_1, RUN.reqid)])

    def test_unknown(self) -> None:
        """
        If it knows nothing of it, nobody knows; and it is asked once.
        """
        row = self.row(LOST)
        self.assertEqual(row, failed(ROW, LOST))
        self.assertEqual(len(self.agents.traced), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_olderLine(self) -> None:
        """
        One of the older line, which can not be asked, is not asked for long.
        """
        self.agents.results = {"web-1": [NoSuchRequest("the agent answered 404")]}
        self.assertEqual(self.row(LOST), failed(ROW, LOST))
        self.assertEqual(len(self.agents.traced), 1)

    def test_waits(self) -> None:
        """
        As long as it runs the agent is asked again and again, less and less often.
        """
        answers: list[Recorded] = [recorded("running") for _ in range(3)]
        self.agents.results = {"web-1": [*answers, recorded("done", 0)]}
        working = self.begin(LOST)
        for pause in (1.0, 2.0, 4.0):
            self.assertNoResult(working)
            asked = len(self.agents.traced)
            self.clock.advance(pause - 0.01)
            self.assertEqual(len(self.agents.traced), asked)
            self.clock.advance(0.01)
        self.assertEqual(self.successResultOf(working).outcome, Outcome.OK)

    def test_stillRuns(self) -> None:
        """
        When the time for an answer is over and it still runs, that is what is
        said, with what to do about it.
        """
        self.agents.results = {"web-1": [recorded("running")]}
        answer: Deferred[RunAnswer] = Deferred()
        working = self.begin(answer)
        self.clock.advance(PATIENCE)
        answer.errback(LOST)
        row = self.successResultOf(working)
        self.assertEqual(
            (row.outcome, row.exit, row.error),
            (Outcome.RUNNING, -1, "read timeout after 60s"),
        )
        self.assertIn(f"attach {RUN.reqid}", row.hint)

    def test_comesBack(self) -> None:
        """
        An agent that is being started again is looked for, within that time.
        """
        gone = Unreachable("refused")
        self.agents.results = {"web-1": [gone, gone, recorded("done", 0)]}
        working = self.begin(LOST)
        self.clock.pump([POLL_SECONDS, 2 * POLL_SECONDS])
        self.assertTrue(self.successResultOf(working).ok)

    def test_goneForGood(self) -> None:
        """
        After that nobody knows.
        """
        self.agents.results = {"web-1": [Unreachable("refused")]}
        working = self.begin(LOST)
        self.clock.pump([POLL_SECONDS] * int(PATIENCE - 1))
        self.assertNoResult(working)
        self.clock.advance(POLL_SECONDS)
        row = self.successResultOf(working)
        self.assertEqual((row.outcome, row.error), (Outcome.UNKNOWN, str(LOST)))
        self.assertEqual(row.rtt_ms, PATIENCE * 1000)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_submitted(self) -> None:
        """
        A run that nobody waits for was accepted if the agent knows of it, ended
        or not; and that is all that is waited for.
        """
        request = attrs.evolve(RUN, asynchronous=True)
        for state in ("running", "done"):
            self.agents.results = {"web-1": [recorded(state, 0)]}
            answer: Deferred[RunAnswer] = Deferred()
            working = self.begin(answer, request=request)
            answer.errback(LOST)
            self.assertEqual(self.successResultOf(working).outcome, Outcome.ACCEPTED)
        self.agents.results = {}
        row = self.row(LOST, request=request)
        self.assertEqual(row.outcome, Outcome.UNKNOWN)
        # It would know of it if it had taken it, so nobody need ask again.
        self.assertEqual(
            entry_of(row), {"status": "error", "error": str(LOST), "state": "unknown"}
        )
        self.assertFalse(is_open(row))
        self.assertTrue(is_open(self.row(LOST)))

    def test_gaveUp(self) -> None:
        """
        Who cancels while it is asked wants no row.
        """
        self.agents.results = {"web-1": [recorded("running")]}
        working = self.begin(LOST)
        working.cancel()
        self.failureResultOf(working, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
