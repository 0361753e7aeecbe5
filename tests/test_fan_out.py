# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.dispatch.fan_out}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.dispatch import (
    fan_out,
)


class FanOutTests(SynchronousTestCase):
    """
    Many are asked, a few at a time, and each answer comes when it comes.
    """

    def setUp(self) -> None:
        self.asked: dict[int, Deferred[str]] = {}
        self.arrived: list[str] = []
        self.gone: list[int] = []
        self.told: list[int] = []
        self.wanted = True

    async def ask(self, item: int) -> str:
        """
        Wait for the test to answer.
        """
        self.asked[item] = Deferred()
        try:
            return await self.asked[item]
        except CancelledError:
            self.gone.append(item)
            raise

    def begin(self, count: int, limit: int) -> Deferred[list[str]]:
        """
        Ask about so many items.
        """
        return Deferred.fromCoroutine(
            fan_out(
                range(count),
                self.ask,
                limit=limit,
                wanted=lambda: self.wanted,
                asked=self.told.append,
                arrived=self.arrived.append,
            )
        )

    def test_bounded(self) -> None:
        """
        There are never more under way than the limit; an answer makes room for
        one more.
        """
        done = self.begin(5, limit=2)
        self.assertEqual([*self.asked], [0, 1])
        self.asked[1].callback("one")
        self.assertEqual([*self.asked], [0, 1, 2])
        self.assertNoResult(done)

    def test_completionOrder(self) -> None:
        """
        Answers arrive in the order in which they come; all of them make the
        end.
        """
        done = self.begin(3, limit=3)
        for item, answer in [(2, "two"), (0, "zero"), (1, "one")]:
            self.assertNoResult(done)
            self.asked[item].callback(answer)
        self.assertEqual(self.successResultOf(done), ["two", "zero", "one"])
        self.assertEqual(self.arrived, ["two", "zero", "one"])

    def test_nobody(self) -> None:
        """
        Nobody to ask is an end at once.
        """
        self.successResultOf(self.begin(0, limit=8))

    def test_toldFirst(self) -> None:
        """
        It is told who is asked before there is an answer, and not earlier.
        """
        done = self.begin(3, limit=2)
        self.assertEqual((self.told, self.arrived), ([0, 1], []))
        done.cancel()
        self.failureResultOf(done, CancelledError)

    def test_notWanted(self) -> None:
        """
        When nobody wants more, nobody else is asked; what is under way is
        waited for.
        """
        done = self.begin(5, limit=2)
        self.wanted = False
        self.asked[0].callback("zero")
        self.assertNoResult(done)
        self.asked[1].callback("one")
        self.assertEqual(self.successResultOf(done), ["zero", "one"])
        self.assertEqual([*self.asked], [0, 1])

    def test_cancel(self) -> None:
        """
        Cancelling ends what is under way, and starts nothing more.
        """
        done = self.begin(5, limit=2)
        self.asked[0].callback("zero")
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertEqual(sorted(self.gone), [1, 2])
        self.assertEqual([*self.asked], [0, 1, 2])
        self.assertEqual(self.arrived, ["zero"])

    def test_readerFails(self) -> None:
        """
        When there is nobody to read the answers any more, the rest is given
        up.
        """

        def closed(answer: str) -> None:
            raise BrokenPipeError

        done = Deferred.fromCoroutine(
            fan_out(
                range(4),
                self.ask,
                limit=2,
                wanted=lambda: True,
                asked=self.told.append,
                arrived=closed,
            )
        )
        self.asked[0].callback("zero")
        self.failureResultOf(done, BrokenPipeError)
        self.assertEqual(self.gone, [1])

    def test_atOnce(self) -> None:
        """
        Thousands of answers that are there at once need no deep stack.
        """

        async def known(item: int) -> str:
            return str(item)

        done = Deferred.fromCoroutine(
            fan_out(
                range(20_000),
                known,
                limit=3,
                wanted=lambda: True,
                asked=self.told.append,
                arrived=self.arrived.append,
            )
        )
        self.successResultOf(done)
        self.assertEqual(len(self.arrived), 20_000)

    @given(st.integers(1, 6), st.permutations(range(8)))
    def test_anyOrder(self, limit: int, order: list[int]) -> None:
        """
        Each item is asked about once, whatever is answered first.
        """
        self.setUp()
        done = self.begin(8, limit)
        while waiting := [item for item in order if not self._answered(item)]:
            self.assertLessEqual(len(waiting), limit)
            self.asked[waiting[0]].callback(str(waiting[0]))
        self.successResultOf(done)
        self.assertEqual(sorted(self.arrived), sorted(map(str, order)))

    def _answered(self, item: int) -> bool:
        return item not in self.asked or self.asked[item].called
