# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.live}.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.live import LiveRuns, Pending


class LiveRunsTests(SynchronousTestCase):
    """
    L{LiveRuns}
    """

    def test_lasting(self) -> None:
        """
        A run lives as long as its block, and goes however that ends.
        """
        runs = LiveRuns()

        def fail() -> None:
            with runs.lasting("b"):
                self.assertEqual(runs.reqids, ("a", "b"))
                raise KeyError

        with runs.lasting("a"):
            self.assertRaises(KeyError, fail)
            self.assertEqual((runs.reqids, len(runs)), (("a",), 1))
        self.assertEqual(len(runs), 0)

    def test_sameId(self) -> None:
        """
        Runs of the same id are two.
        """
        runs = LiveRuns()
        with runs.lasting("a"), runs.lasting("a"):
            self.assertEqual(runs.reqids, ("a", "a"))


class PendingTests(SynchronousTestCase):
    """
    L{Pending}
    """

    def test_nothing(self) -> None:
        """
        Nothing is over at once.
        """
        self.successResultOf(Pending().over())

    def test_all(self) -> None:
        """
        It is over with the last piece of work.
        """
        pending, work = Pending(), [Deferred[None](), Deferred[None]()]
        for each in work:
            pending.add(each)
        over = pending.over()
        pending.discard(work[0])
        self.assertNoResult(over)
        pending.discard(work[1])
        self.successResultOf(over)

    def test_cancelled(self) -> None:
        """
        Whoever does not wait any longer is not called back.
        """
        pending, work = Pending(), Deferred[None]()
        pending.add(work)
        over = pending.over()
        over.cancel()
        self.failureResultOf(over, CancelledError)
        pending.discard(work)
        self.assertEqual(len(pending), 0)
