# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.rolling}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.orders import Rolling
from ctrlexec.dispatcher.rolling import Tally, lots
from ctrlexec.values import Portion

portions = st.builds(Portion, st.integers(0, 99_999)) | st.builds(
    Portion, st.integers(0, 100), st.just(True)
)
rollings = st.builds(
    Rolling,
    canary=st.integers(0, 30),
    batch=st.none() | portions,
    max_failures=st.none() | portions,
)


class LotsTests(SynchronousTestCase):
    """
    How many hosts are asked at a time.
    """

    def test_all(self) -> None:
        """
        Where nobody wants it otherwise it is one lot; of no host there is none.
        """
        for rolling in (None, Rolling()):
            self.assertEqual(lots(7, rolling), (7,))
            self.assertEqual(lots(0, rolling), ())

    def test_batch(self) -> None:
        """
        So many at a time, and what is left at the end.
        """
        self.assertEqual(lots(7, Rolling(batch=Portion(3))), (3, 3, 1))

    def test_percent(self) -> None:
        """
        A percentage is one of all hosts, the canary included.
        """
        rolling = Rolling(canary=1, batch=Portion.parse("25%"))
        self.assertEqual(lots(8, rolling), (1, 2, 2, 2, 1))

    def test_few(self) -> None:
        """
        A percentage of few hosts, and a batch of none, is one host.
        """
        self.assertEqual(lots(3, Rolling(batch=Portion.parse("1%"))), (1, 1, 1))
        self.assertEqual(lots(2, Rolling(batch=Portion(0))), (1, 1))

    def test_canary(self) -> None:
        """
        The canary goes first, alone.
        """
        self.assertEqual(lots(5, Rolling(canary=2)), (2, 3))
        self.assertEqual(lots(2, Rolling(canary=9)), (2,))

    @given(st.integers(0, 200), rollings)
    def test_everybody(self, total: int, rolling: Rolling) -> None:
        """
        Each host is in one lot, whatever is wanted, and no lot is empty.
        """
        found = lots(total, rolling)
        self.assertEqual(sum(found), total)
        self.assertTrue(all(found))
        if rolling.batch is not None:
            most = max(rolling.canary, rolling.batch.of(total), 1)
            self.assertTrue(all(size <= most for size in found))


class TallyTests(SynchronousTestCase):
    """
    Whether anybody else is asked.
    """

    def after(self, total: int, rolling: Rolling, *ended: bool) -> str:
        """
        @return: why nobody else is, once so many hosts have ended.
        """
        tally = Tally(total, rolling)
        for ok in ended:
            tally.count(ok)
        return tally.why_stopped()

    def test_anyNumber(self) -> None:
        """
        Where nobody wants it otherwise any number may fail.
        """
        self.assertEqual(self.after(3, Rolling(), False, False), "")

    def test_zero(self) -> None:
        """
        C{--max-failures 0} stops after the first.
        """
        none = Rolling(max_failures=Portion(0))
        self.assertEqual(self.after(9, none, True, True), "")
        self.assertEqual(self.after(9, none, True, False), "one has failed")

    def test_more(self) -> None:
        """
        As many as are allowed do not stop it, one more does.
        """
        two = Rolling(max_failures=Portion(2))
        self.assertEqual(self.after(9, two, False, False), "")
        self.assertEqual(
            self.after(9, two, False, True, False, False), "more than 2 have failed"
        )

    def test_percent(self) -> None:
        """
        A percentage is one of all hosts, not of those that have ended.
        """
        tenth = Rolling(max_failures=Portion.parse("10%"))
        self.assertEqual(self.after(20, tenth, False, False), "")
        self.assertIn("10%", self.after(20, tenth, False, False, False))

    def test_canary(self) -> None:
        """
        Any failure of the canary stops it, however many may fail.
        """
        rolling = Rolling(canary=2, max_failures=Portion(5))
        self.assertEqual(self.after(9, rolling, True, True, False), "")
        self.assertIn("canary", self.after(9, rolling, True, False))
        self.assertIn("canary", self.after(9, rolling, False))

    @given(st.integers(1, 50), rollings, st.lists(st.booleans(), max_size=50))
    def test_stays(self, total: int, rolling: Rolling, ended: list[bool]) -> None:
        """
        What has stopped stays so, as long as no other lot is asked.
        """
        tally, stopped = Tally(total, rolling), False
        canary = min(rolling.canary, total)
        for number, ok in enumerate(ended[:total]):
            if stopped and number == canary:
                break
            tally.count(ok)
            self.assertTrue(bool(tally.why_stopped()) >= stopped)
            stopped = bool(tally.why_stopped())
