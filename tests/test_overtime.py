# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.overtime}, and of what comes of it.
"""

from __future__ import annotations

import attrs
from twisted.internet.defer import CancelledError, Deferred

from ctrlexec.dispatcher.following import POLL_SECONDS
from ctrlexec.dispatcher.overtime import OVERTIME_SECONDS, Overtime
from ctrlexec.dispatcher.results import Outcome
from ctrlexec.dispatcher.run_record import is_open
from ctrlexec.errors import Unreachable
from ctrlexec.protocol.run_messages import Output, StateChanged
from tests.followed import (
    LOST,
    PATIENCE,
    RUN,
    WEB_1,
    FollowingCase,
    recorded,
    stream_end,
)


class OvertimeTests(FollowingCase):
    """
    The time of a run is limited, and its agent goes on saying that it lives.
    """

    LIMITED = attrs.evolve(RUN, timeout=30.0)
    LONGEST = 30.0 + PATIENCE + OVERTIME_SECONDS

    def setUp(self) -> None:
        super().setUp()
        self.beats: Deferred[None] = Deferred()
        self.agents.lives = {"web-1": [StateChanged(0.0, "running"), self.beats]}
        self.agents.results = {"web-1": [recorded("running")]}

    def test_forEver(self) -> None:
        """
        It is left a minute after it should have ended, and nobody says more of
        it than that.
        """
        working = self.begin(live=True, request=self.LIMITED)
        self.clock.advance(self.LONGEST - 1)
        self.assertNoResult(working)
        self.clock.advance(1)
        row = self.successResultOf(working)
        self.assertEqual((row.outcome, row.exit), (Outcome.UNKNOWN, -1))
        self.assertIn("its time was over after 30s", str(row.error))
        self.assertIn(RUN.reqid, row.hint)
        self.assertTrue(is_open(row))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cutOff(self) -> None:
        """
        An agent that cuts it off and tells something new each time wins nothing
        by that.
        """
        self.tells_in_pieces(1000)
        working = self.begin(live=True, request=self.LIMITED)
        self.clock.pump([POLL_SECONDS] * int(self.LONGEST))
        self.assertEqual(self.successResultOf(working).outcome, Outcome.UNKNOWN)

    def tells_in_pieces(self, count: int) -> None:
        """
        A little each time that it is asked.
        """
        self.agents.lives = {"web-1": [LOST]}
        self.agents.follows = {
            "web-1": [
                [Output(0.1, "stdout", "a", number + 1), LOST]
                for number in range(count)
            ]
        }

    def test_onRecord(self) -> None:
        """
        What the agent says when it is asked in another way counts, and what is
        new of its output is heard.
        """
        told = Output(0.1, "stdout", "a", 1)
        self.agents.lives = {"web-1": [told, self.beats]}
        ended = recorded("timed_out", 126, stdout="ab", reason="timed out after 30s")
        self.agents.results = {"web-1": [ended]}
        working = self.begin(live=True, request=self.LIMITED)
        self.clock.advance(self.LONGEST)
        row = self.successResultOf(working)
        self.assertEqual((row.outcome, row.stdout), (Outcome.TIMED_OUT, "ab"))
        self.assertEqual(self.heard, [told, Output(0.0, "stdout", "b", 2)])

    def test_gone(self) -> None:
        """
        It need not answer that.
        """
        self.agents.results = {"web-1": [Unreachable("refused")]}
        working = self.begin(live=True, request=self.LIMITED)
        self.clock.advance(self.LONGEST)
        self.assertIn("its time was over", str(self.successResultOf(working).error))

    def test_slowReader(self) -> None:
        """
        The time in which somebody takes what they are told is not the agent's.
        """
        ready: Deferred[None] = Deferred()
        self.agents.lives = {
            "web-1": [Output(0.1, "stdout", "a", 1), self.beats, stream_end()]
        }
        following = self.following().run(WEB_1, self.LIMITED, lambda event: ready)
        working = Deferred.fromCoroutine(following)
        self.clock.pump([self.LONGEST] * 5)
        ready.callback(None)
        self.clock.advance(self.LONGEST - 1)
        self.assertNoResult(working)
        self.beats.callback(None)
        self.assertEqual(self.successResultOf(working).outcome, Outcome.OK)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_slowOnce(self) -> None:
        """
        Such time is given once.
        """
        ready: Deferred[None] = Deferred()
        self.agents.lives = {"web-1": [Output(0.1, "stdout", "a", 1), self.beats]}
        following = self.following().run(WEB_1, self.LIMITED, lambda event: ready)
        working = Deferred.fromCoroutine(following)
        self.clock.advance(50)
        ready.callback(None)
        self.clock.advance(self.LONGEST - 50)
        self.assertNoResult(working)
        self.clock.advance(50)
        self.assertEqual(self.successResultOf(working).outcome, Outcome.UNKNOWN)

    def test_cancelled(self) -> None:
        """
        Once somebody has asked the agent to end it, it has a minute for that,
        however long it was to take.
        """
        for request in (RUN, attrs.evolve(RUN, timeout=1e6)):
            overtime = Overtime(self.clock)
            following = self.following().run(WEB_1, request, self.hear, overtime)
            working = Deferred.fromCoroutine(following)
            self.clock.advance(1000)
            overtime.hurry()
            self.clock.advance(OVERTIME_SECONDS - 1)
            overtime.hurry()
            self.assertNoResult(working)
            self.clock.advance(1)
            row = self.successResultOf(working)
            self.assertEqual(row.outcome, Outcome.UNKNOWN)
            self.assertIn("it was cancelled, and", str(row.error))
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.setUp()

    def test_cancelledLate(self) -> None:
        """
        Which gives it no more time than it had, and what has ended none at all.
        """
        overtime = Overtime(self.clock)
        following = self.following().run(WEB_1, self.LIMITED, self.hear, overtime)
        working = Deferred.fromCoroutine(following)
        self.clock.advance(self.LONGEST - 1)
        overtime.hurry()
        self.clock.advance(1)
        self.successResultOf(working)
        overtime.hurry()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_left(self) -> None:
        """
        Whoever leaves before that has left.
        """
        working = self.begin(live=True, request=self.LIMITED)
        working.cancel()
        self.failureResultOf(working, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_unlimited(self) -> None:
        """
        A run that nobody has limited may take for ever; who wants to leave can.
        """
        working = self.begin(live=True)
        self.clock.advance(1e9)
        self.assertNoResult(working)
        working.cancel()
        self.failureResultOf(working, CancelledError)
