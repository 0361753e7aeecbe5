# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of what the API works on.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.api.work import Streams, Work, of_one_caller, streams_beside
from ctrlexec.errors import NotFound, Overload, ShareUsed


class WorkTests(SynchronousTestCase):
    """
    Work for two at a time.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.faults: list[Failure] = []
        self.work = Work(self.clock, 2, self.faults.append)
        self.done: list[str] = []

    def begin(self) -> tuple[Deferred[str], Deferred[str]]:
        """
        Something that goes on until the second Deferred says so.
        """
        gate: Deferred[str] = Deferred()

        async def make() -> str:
            result = await gate
            self.done.append(result)
            return result

        return self.work.begin(make), gate

    def test_result(self) -> None:
        """
        Whoever waits gets what comes out, or what went wrong.
        """
        waiting, gate = self.begin()
        self.assertNoResult(waiting)
        self.assertEqual(len(self.work), 1)
        gate.callback("a")
        self.assertEqual(self.successResultOf(waiting), "a")
        waiting, gate = self.begin()
        gate.errback(NotFound("gone"))
        self.failureResultOf(waiting, NotFound)
        self.assertEqual(len(self.work), 0)
        self.assertEqual(self.faults, [])

    def test_goesOn(self) -> None:
        """
        Who stops waiting stops nothing else; what goes on still counts.
        """
        waiting, gate = self.begin()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(len(self.work), 1)
        gate.callback("a")
        self.assertEqual(self.done, ["a"])
        self.assertEqual(len(self.work), 0)

    def test_abandonedFault(self) -> None:
        """
        A fault of ours is told even when nobody waits any more; an error that
        was meant for them is not.
        """
        for error in (NotFound("gone"), ZeroDivisionError("ours")):
            waiting, gate = self.begin()
            waiting.cancel()
            self.failureResultOf(waiting)
            gate.errback(error)
        (fault,) = self.faults
        fault.trap(ZeroDivisionError)

    def test_overload(self) -> None:
        """
        The third has to wait for one of the two to end; it is not begun.
        """
        self.begin()
        _, gate = self.begin()
        with self.assertRaises(Overload) as caught:
            self.begin()
        self.assertEqual(caught.exception.live, 2)
        gate.callback("a")
        self.begin()

    def test_finish(self) -> None:
        """
        A stop waits until nothing is under way, and begins nothing more.
        """
        _, one = self.begin()
        _, two = self.begin()
        ending = self.work.finish(30)
        one.callback("a")
        self.assertNoResult(ending)
        self.assertRaises(Overload, self.begin)
        two.callback("b")
        self.assertEqual(self.successResultOf(ending), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_finishAtOnce(self) -> None:
        """
        Where nothing is under way, nothing is waited for.
        """
        self.assertEqual(self.successResultOf(self.work.finish(30)), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_finishLate(self) -> None:
        """
        When the time is over, a stop tells how much is left; that still comes
        to its end.
        """
        _, gate = self.begin()
        ending = self.work.finish(30)
        self.clock.advance(29.9)
        self.assertNoResult(ending)
        self.clock.advance(0.1)
        self.assertEqual(self.successResultOf(ending), 1)
        gate.callback("a")
        self.assertEqual(self.done, ["a"])

    def test_finishCut(self) -> None:
        """
        A stop need not wait for its time to be over.
        """
        self.begin()
        ending = self.work.finish(30)
        ending.cancel()
        self.assertEqual(self.successResultOf(ending), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class StreamsTests(SynchronousTestCase):
    """
    Two streams at a time.
    """

    def setUp(self) -> None:
        self.streams = Streams(2)

    def begin(self, caller: str | None = None) -> tuple[Deferred[str], Deferred[str]]:
        """
        A stream that goes on until the second Deferred says so.
        """
        gate: Deferred[str] = Deferred()

        async def make() -> str:
            return await gate

        return self.streams.begin(make, caller), gate

    def test_shares(self) -> None:
        """
        Nobody has more than half of them, and what is over is theirs to have
        again; who has no share of their own may have all.
        """
        self.streams.most = 5
        _, gate = self.begin("a")
        self.begin("a")
        error = self.assertRaises(ShareUsed, self.begin, "a")
        self.assertEqual((error.live, str(error)), (2, "you follow 2 runs already"))
        self.begin("b")
        gate.callback("")
        self.begin("a")
        for _ in range(2):
            self.begin()
        self.assertRaises(Overload, self.begin)

    def test_leastShare(self) -> None:
        """
        It is one at least.
        """
        self.assertEqual([*map(of_one_caller, (1, 2, 3, 32))], [1, 1, 1, 16])

    def test_end(self) -> None:
        """
        One that is over, however it ends, makes room.
        """
        first, gate = self.begin()
        second, other = self.begin()
        self.assertRaises(Overload, self.begin)
        gate.callback("a")
        other.errback(NotFound("gone"))
        self.assertEqual(self.successResultOf(first), "a")
        self.failureResultOf(second, NotFound)
        self.assertEqual(len(self.streams), 0)
        self.begin()

    def test_atOnce(self) -> None:
        """
        One that is over before anybody looks takes no room.
        """

        async def make() -> str:
            return "a"

        for _ in range(5):
            self.assertEqual(self.successResultOf(self.streams.begin(make, "a")), "a")
        self.assertEqual(len(self.streams), 0)

    def test_cancelled(self) -> None:
        """
        Who leaves ends it.
        """
        following, _ = self.begin()
        following.cancel()
        self.failureResultOf(following, CancelledError)
        self.assertEqual(len(self.streams), 0)

    def test_allEnd(self) -> None:
        """
        All of them can be ended, and none is begun after that.
        """
        found = [self.begin()[0] for _ in range(2)]
        self.streams.end()
        for following in found:
            self.failureResultOf(following, CancelledError)
        self.assertRaises(Overload, self.begin)

    def test_bound(self) -> None:
        """
        There are half as many as requests, and always one.
        """
        self.assertEqual([*map(streams_beside, (1, 2, 64))], [1, 1, 32])
