# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.rates}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.rates import (
    EVICTED_ADDRESSES,
    PROBE,
    TRACKED_ADDRESSES,
    VOLUME,
    Counted,
    Rate,
    RateLimiter,
    RateLimits,
    source_of,
)
from tests.agents import Recorded

RATE = Rate(3, 60, 300)
A, B = "192.0.2.1", "2001:db8::1"
ROOM = TRACKED_ADDRESSES - EVICTED_ADDRESSES


class RateLimiterTests(SynchronousTestCase):
    """
    L{RateLimiter}
    """

    def setUp(self) -> None:
        self.limiter = RateLimiter()

    def count(self, *times: float, address: str = A, what: str = "x") -> list[bool]:
        """
        Count at these times, and tell which of them blocked.
        """
        return [self.limiter.count(address, what, RATE, now).blocks for now in times]

    def test_tooOften(self) -> None:
        """
        Once more than the rate allows blocks, said once, for as long as it
        says.
        """
        self.assertEqual(self.count(0, 0, 59), [False] * 3)
        self.assertFalse(self.limiter.blocked(A, 59))
        self.assertEqual(self.count(59.5, 59.6), [True, False])
        self.assertTrue(self.limiter.blocked(A, 59.5))
        self.assertTrue(self.limiter.blocked(A, 359.4))
        self.assertFalse(self.limiter.blocked(A, 359.5))

    def test_slowly(self) -> None:
        """
        What has left the window counts no more.
        """
        self.assertEqual(self.count(0, 1, 2, 60, 61, 62), [False] * 6)
        self.assertEqual(self.count(62), [True])

    def test_fromTheStart(self) -> None:
        """
        After a block an address has its whole allowance again, and what it did
        meanwhile did not make it longer.
        """
        self.count(0, 0, 0, 0, 100, 100, 100, 100, 299)
        self.assertFalse(self.limiter.blocked(A, 300))
        self.assertEqual(self.count(300, 300, 300, 300), [False] * 3 + [True])

    def test_apart(self) -> None:
        """
        Each address, and each thing that it does, has a count of its own.
        """
        self.count(0, 0, 0)
        self.assertEqual(self.count(0, what="y"), [False])
        self.assertEqual(self.count(0, address=B), [False])
        self.assertEqual(self.count(0), [True])
        self.assertFalse(self.limiter.blocked(B, 0))

    def test_evicted(self) -> None:
        """
        With one address more than are kept, those go that were quiet longest.
        """
        for number in range(TRACKED_ADDRESSES):
            self.count(0, address=str(number))
        self.count(0, 0, address="0")
        found = self.limiter.count("new", "x", RATE, 0)
        self.assertEqual(found, Counted(False, EVICTED_ADDRESSES))
        self.assertEqual(self.limiter.tracked, ROOM + 1)
        self.assertEqual(self.count(0, address="0"), [True])
        self.assertEqual(self.count(0, 0, 0, address="1"), [False] * 3)

    def test_evictedUnblocked(self) -> None:
        """
        Those that are blocked stay for as long as there are others, however
        long ago that was: whoever comes from many addresses ends no block.
        """
        self.count(0, 0, 0, 0)
        for number in range(5 * TRACKED_ADDRESSES):
            self.count(1, address=str(number))
        self.assertTrue(self.limiter.blocked(A, 299.9))
        self.assertFalse(self.limiter.blocked(A, 300))

    def test_evictedOver(self) -> None:
        """
        A block that is over keeps nobody in mind: the first to go is the one
        that had it.
        """
        self.count(0, 0, 0, 0)
        for number in range(TRACKED_ADDRESSES):
            self.count(300, address=str(number))
        last = EVICTED_ADDRESSES - 2
        gone = self.count(300, 300, 300, address=str(last))
        kept = self.count(300, 300, 300, address=str(last + 1))
        self.assertEqual((gone, kept), ([False] * 3, [False, False, True]))

    def test_evictedBlocked(self) -> None:
        """
        Where nearly all are blocked, the oldest blocks end: there is always
        somewhere to count.
        """
        for number in range(TRACKED_ADDRESSES):
            self.count(0, 0, 0, 0, address=str(number))
        found = self.limiter.count("new", "x", RATE, 1)
        self.assertEqual(found, Counted(False, EVICTED_ADDRESSES))
        blocked = [
            self.limiter.blocked(str(number), 1) for number in range(TRACKED_ADDRESSES)
        ]
        self.assertEqual(blocked, [False] * EVICTED_ADDRESSES + [True] * ROOM)
        for number in range(EVICTED_ADDRESSES - 1):
            self.assertEqual(self.limiter.count(f"n{number}", "x", RATE, 1), Counted())

    def test_known(self) -> None:
        """
        An address that is kept already costs nobody's place.
        """
        for number in range(TRACKED_ADDRESSES):
            self.count(0, address=str(number))
        self.assertEqual(self.limiter.count("7", "x", RATE, 0), Counted())
        self.assertEqual(self.limiter.tracked, TRACKED_ADDRESSES)

    def test_clear(self) -> None:
        """
        Everything can be forgotten.
        """
        self.count(0, 0, 0, 0)
        self.limiter.clear()
        self.assertFalse(self.limiter.blocked(A, 0))
        self.assertEqual(self.limiter.tracked, 0)

    @given(
        st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40)), max_size=60),
        st.integers(1, 5),
    )
    def test_model(self, steps: list[tuple[str, int]], most: int) -> None:
        """
        It agrees with a list of all that ever happened.
        """
        rate, limiter, now = Rate(most, 50, 90), RateLimiter(), 0
        happened: dict[str, list[int]] = {}
        until: dict[str, int] = {}
        for address, later in steps:
            now += later
            blocked = now < until.get(address, 0)
            self.assertEqual(limiter.blocked(address, now), blocked)
            expected = False
            if not blocked:
                times = happened.setdefault(address, [])
                times.append(now)
                expected = sum(time > now - 50 for time in times) > most
            if expected:
                until[address] = now + 90
                happened[address] = []
            self.assertEqual(limiter.count(address, "x", rate, now), Counted(expected))

    @given(
        st.lists(st.integers(0, 3 * TRACKED_ADDRESSES), max_size=50),
        st.integers(0, TRACKED_ADDRESSES),
    )
    def test_bounded(self, addresses: list[int], before: int) -> None:
        """
        Whoever comes, no more addresses are kept than may be, and the one that
        came last is.
        """
        limiter = RateLimiter()
        for address in [*range(before), *addresses]:
            limiter.count(str(address), "x", Rate(1, 60, 60), 0)
            self.assertLessEqual(limiter.tracked, TRACKED_ADDRESSES)
        if addresses:
            limiter.count(str(addresses[-1]), "x", Rate(1, 60, 60), 0)
            self.assertTrue(limiter.blocked(str(addresses[-1]), 0))


class RateLimitsTests(SynchronousTestCase):
    """
    L{RateLimits}
    """

    def setUp(self) -> None:
        self.log, self.clock = Recorded(), Clock()
        self.limits = RateLimits(self.log, self.clock.seconds)

    def come(self, *addresses: str, what: str = VOLUME) -> list[bool]:
        """
        Come from these addresses, and tell which of them were too often.
        """
        return [self.limits.too_often(each, what, RATE) for each in addresses]

    def test_said(self) -> None:
        """
        An address that is blocked is said once, and the block ends in time.
        """
        self.assertEqual(self.come(*[A] * 5), [False] * 3 + [True, False])
        self.assertEqual(
            self.log.taken(), [f"ACTION=rate-block PEER={A} REASON=volume"]
        )
        self.assertTrue(self.limits.blocked(A))
        self.clock.advance(300)
        self.assertFalse(self.limits.blocked(A))

    def test_source(self) -> None:
        """
        The addresses of one /64 are one host's; the one that was too many is
        the one that is said.
        """
        addresses = [f"2001:db8::{number}" for number in range(1, 5)]
        self.assertEqual(self.come(*addresses, what=PROBE), [False] * 3 + [True])
        self.assertEqual(
            self.log.taken(), ["ACTION=rate-block PEER=2001:db8::4 REASON=probe"]
        )
        self.assertTrue(self.limits.blocked("2001:db8::ffff"))
        self.assertFalse(self.limits.blocked("2001:db8:0:1::1"))

    def test_evicted(self) -> None:
        """
        That some are forgotten is one line for all of them.
        """
        self.come(*map(str, range(TRACKED_ADDRESSES + EVICTED_ADDRESSES)))
        self.assertEqual(
            self.log.taken(), [f"ACTION=rate-evict COUNT={EVICTED_ADDRESSES}"]
        )

    def test_forget(self) -> None:
        """
        An operator can end all blocks.
        """
        self.come(*[A] * 4)
        self.limits.forget()
        self.assertFalse(self.limits.blocked(A))

    def test_sources(self) -> None:
        """
        Known answers; what is no address stands for itself.
        """
        known = {
            "192.0.2.7": "192.0.2.7",
            "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
            "fe80::1%eth0": "fe80::/64",
            "": "",
            "nowhere": "nowhere",
        }
        self.assertEqual({each: source_of(each) for each in known}, known)
