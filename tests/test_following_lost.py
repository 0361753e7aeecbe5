# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.following}: answers that can not be had by asking again.
"""

from __future__ import annotations

from ctrlexec.dispatcher.results import Outcome
from ctrlexec.errors import Unreachable
from ctrlexec.protocol.codec_trust import NoSuchRequest
from ctrlexec.protocol.connection import TooLarge
from ctrlexec.protocol.run_messages import Output
from tests.fake_agents import Recorded, Told
from tests.followed import LOST, FollowingCase, stream_end


class InVainTests(FollowingCase):
    """
    To ask again as before is of no use.
    """

    def test_turnedAway(self) -> None:
        """
        An agent that is there and closes each time turns us away: to ask it for
        long makes it worse. One that is not there does not count.
        """
        cases: tuple[tuple[list[Recorded], int], ...] = (
            ([], 3),
            ([Unreachable("refused")], 4),
        )
        for first, count in cases:
            self.agents.traced.clear()
            self.agents.results = {"web-1": [*first, LOST, LOST, LOST, LOST]}
            working = self.begin(LOST)
            self.clock.pump([1.0, 2.0, 4.0])
            row = self.successResultOf(working)
            self.assertEqual((row.outcome, row.error), (Outcome.UNKNOWN, str(LOST)))
            self.assertEqual(len(self.agents.traced), count)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_tooLarge(self) -> None:
        """
        What is too large for an answer, be it that to the order or the record, is
        had as a stream: how it ended, and what is kept of what it wrote.
        """
        large = TooLarge("the answer is too large", hint="max_answer")
        events: list[Told] = [Output(0.1, "stdout", "ab", 2), stream_end(3)]
        for first, results in ((large, []), (LOST, [large])):
            self.agents.results = {"web-1": [*results]}
            self.agents.follows = {"web-1": [[*events]]}
            row = self.row(first)
            self.assertEqual(
                (row.outcome, row.exit, row.stdout), (Outcome.FAILED, 3, "ab")
            )
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_tooLargeForGood(self) -> None:
        """
        An agent that knows no streams is not asked again: it would be too large
        each time. What there is to do about it is said.
        """
        large = TooLarge("the answer is too large", hint="max_answer")
        self.agents.results = {"web-1": [large]}
        unable = [NoSuchRequest("the agent answered 404")]
        self.agents.follows = {"web-1": [unable, unable]}
        for error in (large, LOST):
            row = self.row(error)
            self.assertEqual(
                (row.outcome, row.error, row.hint),
                (Outcome.UNKNOWN, str(large), large.hint),
            )
