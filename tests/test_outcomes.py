# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.dispatcher.outcomes}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.outcomes import answered
from ctrlexec.dispatcher.results import Outcome, RunRow
from ctrlexec.protocol.messages import RunFinished, RunRefused


class AnsweredTests(SynchronousTestCase):
    """
    L{answered}
    """

    row = RunRow(host="web-1", script="x", reqid="r1", outcome=Outcome.UNKNOWN)

    def test_refused(self) -> None:
        """
        What is behind a refusal is told with it.
        """
        refused = RunRefused("script already running", state="busy", reason="why")
        row = answered(self.row, refused)
        self.assertEqual(
            (row.outcome, row.error, row.reason),
            (Outcome.BUSY, "script already running", "why"),
        )

    def test_killed(self) -> None:
        """
        A script that a signal ended has failed, and it is told which.
        """
        reason = "killed by signal 9 (KILL)"
        killed = RunFinished("x", 126, "", "", "r1", "done", reason)
        row = answered(self.row, killed)
        self.assertEqual((row.outcome, row.reason), (Outcome.FAILED, reason))
        self.assertIsNone(row.error)
