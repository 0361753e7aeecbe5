# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.admission}.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.admission import (
    EVICTED_ADDRESSES,
    QUIET_SECONDS,
    TRACKED_ADDRESSES,
    Announcements,
    Counted,
    Full,
    Occupancy,
    Opened,
    Rate,
    RateLimiter,
)

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


class AnnouncementsTests(SynchronousTestCase):
    """
    L{Announcements}
    """

    def setUp(self) -> None:
        self.heard = Announcements()

    def test_once(self) -> None:
        """
        The log hears of an address once in a while.
        """
        times = 0, 1, QUIET_SECONDS - 1, QUIET_SECONDS, QUIET_SECONDS + 1
        due = [self.heard.due(A, now) for now in times]
        self.assertEqual(due, [True, False, False, True, False])
        self.assertTrue(self.heard.due(B, 1))
        self.heard.clear()
        self.assertTrue(self.heard.due(A, QUIET_SECONDS + 2))

    def test_bounded(self) -> None:
        """
        One address too many, and the oldest is forgotten.
        """
        for number in range(TRACKED_ADDRESSES + 1):
            self.assertTrue(self.heard.due(str(number), 0))
        self.assertFalse(self.heard.due("1", 1))
        self.assertTrue(self.heard.due("0", 1))


class OccupancyTests(SynchronousTestCase):
    """
    L{Occupancy}
    """

    def setUp(self) -> None:
        self.places = Occupancy()

    def open(self, address: str, times: int = 1, most: int = 8) -> list[Opened | Full]:
        """
        Open so many connections.
        """
        return [self.places.open(address, most) for _ in range(times)]

    def test_crowding(self) -> None:
        """
        An address that has proved nothing gets a quarter of the places, and the
        log hears of it once until it has left.
        """
        self.assertEqual(self.open(A, 2), [Opened()] * 2)
        self.assertEqual(self.open(A, 2), [Full(2, True), Full(2, False)])
        self.assertEqual(self.open(B), [Opened()])
        self.places.close(A, proven=False)
        self.assertEqual(self.open(A, 2), [Opened(), Full(3, False)])
        for _ in range(2):
            self.places.close(A, proven=False)
        self.assertEqual(self.open(A, 3), [Opened(), Opened(), Full(3, True)])

    def test_proven(self) -> None:
        """
        A trusted dispatcher may have all the places that there are.
        """
        for _ in range(8):
            self.assertEqual(self.open(A), [Opened()])
            self.places.prove(A)
        self.assertEqual(self.open(A), [Full(8, True)])

    def test_full(self) -> None:
        """
        When all places are taken nobody gets in, which the log hears once until
        half of them are free again.
        """
        for number in range(8):
            self.open(str(number))
        self.assertEqual(self.open(A, 2), [Full(8, True), Full(8, False)])
        self.places.close("0", proven=False)
        self.assertEqual(self.open(A, 2), [Opened(), Full(8, False)])
        for number in range(1, 6):
            self.places.close(str(number), proven=False)
        self.assertEqual(self.places.live, 3)
        self.open(A)
        for number in range(4):
            self.open(f"more {number}")
        self.assertEqual(self.open(B), [Full(8, True)])

    def test_few(self) -> None:
        """
        Where there are fewer than four places, each address may have one.
        """
        self.assertEqual(self.open(A, 2, most=2), [Opened(), Full(1, True)])
        self.assertEqual(self.open(B, most=2), [Opened()])

    def test_anyOrder(self) -> None:
        """
        In whatever order connections come, prove what they are, and go.
        """
        run_state_machine_as_test(OccupancyMachine)


class OccupancyMachine(RuleBasedStateMachine):
    """
    Connections that come, prove what they are, and go, in any order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places = Occupancy()
        self.open: list[tuple[str, bool]] = []

    @rule(address=st.sampled_from("abcd"))
    def comes(self, address: str) -> None:
        """
        It gets a place exactly if there is one for it.
        """
        unproven = self.open.count((address, False))
        room = len(self.open) < 12 and unproven < 3
        match self.places.open(address, 12):
            case Opened():
                assert room
                self.open.append((address, False))
            case Full(live):
                assert not room
                assert live == len(self.open)

    @rule(draw=st.data())
    def proves(self, draw: st.DataObject) -> None:
        """
        It is a trusted dispatcher.
        """
        candidates = [at for at, (_, proven) in enumerate(self.open) if not proven]
        if candidates:
            at = draw.draw(st.sampled_from(candidates))
            address, _ = self.open[at]
            self.places.prove(address)
            self.open[at] = (address, True)

    @rule(draw=st.data())
    def goes(self, draw: st.DataObject) -> None:
        """
        It is over.
        """
        if self.open:
            at = draw.draw(st.integers(0, len(self.open) - 1))
            address, proven = self.open.pop(at)
            self.places.close(address, proven=proven)

    @invariant()
    def nothing_leaks(self) -> None:
        """
        Nothing is kept of connections that are over.
        """
        assert self.places.live == len(self.open)
        unproven = Counter(address for address, proven in self.open if not proven)
        assert self.places._unproven == unproven
        assert set(self.places._unproven) == set(unproven)
        assert self.places._crowding <= set(unproven)
