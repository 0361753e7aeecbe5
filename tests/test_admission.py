# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.admission}.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.admission import (
    LEAVING_AT_ONCE,
    QUIET_SECONDS,
    Announcements,
    Full,
    Occupancy,
    Room,
)
from ctrlexec.rates import TRACKED_ADDRESSES

A, B = "192.0.2.1", "2001:db8::1"


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
        self.places: Occupancy[int] = Occupancy()
        self.next = 0

    def come(self, source: str, most: int = 8) -> Room[int] | Full:
        """
        A connection comes, and enters if there is room; the first one is 1.
        """
        found = self.places.room(source, most)
        if isinstance(found, Room):
            self.next += 1
            self.places.enter(self.next, source)
        return found

    def crowd(self, count: int) -> None:
        """
        So many come, each from somewhere else.
        """
        for number in range(count):
            self.come(f"crowd {number}")

    def proves(self, source: str, count: int = 1) -> None:
        """
        So many come and prove that they are a trusted dispatcher's.
        """
        for _ in range(count):
            self.come(source)
            self.places.prove(self.next)

    def test_crowding(self) -> None:
        """
        An address that has proved nothing gets a quarter of the places, and the
        log hears of it once until it has left.
        """
        self.assertEqual([self.come(A) for _ in "12"], [Room()] * 2)
        self.assertEqual([self.come(A) for _ in "12"], [Full(True), Full(False)])
        self.assertEqual(self.come(B), Room())
        self.places.leave(1)
        self.assertEqual([self.come(A) for _ in "12"], [Room(), Full(False)])
        for connection in (2, 4):
            self.places.leave(connection)
        found = [self.come(A) for _ in "123"]
        self.assertEqual(found, [Room(), Room(), Full(True)])

    def test_proven(self) -> None:
        """
        A trusted dispatcher may have all the places that there are, and keeps
        them: nobody else gets in.
        """
        self.proves(A, 8)
        self.assertEqual([self.come(A), self.come(B)], [Full(True), Full(False)])
        self.assertTrue(all(map(self.places.proven, range(1, 9))))

    def test_givesWay(self) -> None:
        """
        When all places are taken, the one that came first of those that have
        proved nothing gives way to the one that comes.
        """
        self.crowd(8)
        self.places.prove(2)
        self.places.leave(3)
        self.assertEqual(self.come(A), Room())
        found = [self.come(f"more {number}") for number in range(3)]
        self.assertEqual(found, [Room(1, True), Room(4), Room(5)])
        self.assertEqual(self.places.live, 8)
        self.assertTrue(self.places.proven(2))

    def test_gaveWay(self) -> None:
        """
        Who gave way has no place any more, to keep or to leave.
        """
        self.crowd(9)
        self.places.prove(1)
        self.assertFalse(self.places.proven(1))
        self.assertFalse(self.places.leave(1))
        self.assertEqual([self.places.leave(each) for each in (9, 9)], [True, False])
        self.assertEqual(self.places.live, 7)

    def test_sharedOut(self) -> None:
        """
        An address that has its share gets no more of them at the cost of
        others.
        """
        self.come(A)
        self.come(A)
        self.crowd(6)
        self.assertEqual([self.come(A) for _ in "123"].count(Full(False)), 2)
        self.assertEqual(self.places.live, 8)

    def test_known(self) -> None:
        """
        Where somebody has proved it before, none gives way to a stranger, from
        when it comes on; nor did the one that came before it was proved.
        """
        self.come(A)
        self.proves(A)
        self.crowd(6)
        found = [self.come(f"more {number}") for number in range(7)]
        leavers = [each.leaver for each in found if isinstance(each, Room)]
        self.assertEqual(leavers, [3, 4, 5, 6, 7, 8, 9])
        self.assertTrue(self.places.leave(1))

    def test_knownOnly(self) -> None:
        """
        Where there are no strangers, nobody gives way.
        """
        self.proves(A, 6)
        self.come(A)
        self.come(A)
        self.assertEqual([self.come(B), self.come(B)], [Full(True), Full(False)])

    def test_leaving(self) -> None:
        """
        Only so many may have given way and not be gone, whoever comes
        meanwhile, but from where somebody has proved it before.
        """
        self.proves(A)
        self.crowd(7)
        found = [self.come(f"more {number}") for number in range(40)]
        leavers = [each.leaver for each in found if isinstance(each, Room)]
        self.assertEqual(leavers, list(range(2, 2 + LEAVING_AT_ONCE)))
        self.assertEqual(found[LEAVING_AT_ONCE:], [Full(False)] * 8)
        self.assertEqual(self.come(A), Room(2 + LEAVING_AT_ONCE))
        for gone in (2, 3):
            self.assertFalse(self.places.leave(gone))
        self.assertEqual(self.come(B), Room(3 + LEAVING_AT_ONCE))
        self.assertEqual(self.come(B), Full(False))

    def test_forget(self) -> None:
        """
        What was proved of an address can be forgotten; what was proved of a
        connection can not.
        """
        self.proves(A)
        self.places.forget()
        self.come(A)
        self.crowd(6)
        self.assertEqual([self.come(B), self.come(B)], [Room(2, True), Room(3)])
        self.assertTrue(self.places.proven(1))

    def test_knownBounded(self) -> None:
        """
        So many addresses are known at the most, those that proved it last.
        """
        for number in range(TRACKED_ADDRESSES + 1):
            self.proves(str(number))
            self.places.leave(self.next)
        first = self.next + 1
        for source in ("0", "1"):
            self.come(source)
        self.crowd(6)
        self.assertEqual(self.come(A), Room(first, True))
        self.assertEqual(self.come(A), Room(first + 2))

    def test_full(self) -> None:
        """
        That all places are taken is said once until half of them are free
        again, whether somebody gives way or not.
        """
        self.crowd(8)
        found = [self.come(f"a {number}") for number in range(3)]
        self.assertEqual([each.news for each in found], [True, False, False])
        self.places.leave(4)
        self.assertEqual(self.come(A), Room())
        self.assertEqual(self.come(B), Room(5))
        for connection in range(6, 11):
            self.places.leave(connection)
        self.assertEqual(self.places.live, 3)
        self.proves(A, 5)
        self.assertEqual(self.places.live, 8)
        self.assertTrue(self.come(B).news)

    def test_fewer(self) -> None:
        """
        When a reload leaves fewer places than are taken, one still gives way
        for each that comes.
        """
        self.crowd(8)
        self.assertEqual(self.come(A, most=4), Room(1, True))
        self.assertEqual(self.places.live, 8)

    def test_few(self) -> None:
        """
        Where there are fewer than four places, each address may have one.
        """
        self.assertEqual([self.come(A, 2), self.come(A, 2)], [Room(), Full(True)])
        self.assertEqual(self.come(B, 2), Room())

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
        self.places: Occupancy[int] = Occupancy()
        self.unproven: dict[int, str] = {}
        self.proven: set[int] = set()
        self.known: set[str] = set()
        self.leaving: set[int] = set()
        self.next = 0

    @rule(source=st.sampled_from("abcdef"))
    def comes(self, source: str) -> None:
        """
        It gets a place exactly if there is one for it, and the oldest stranger
        loses his only if there is none.
        """
        strangers = [c for c, whose in self.unproven.items() if whose not in self.known]
        full = len(self.unproven) + len(self.proven) >= 12
        crowding = list(self.unproven.values()).count(source) >= 3
        waits = len(self.leaving) >= LEAVING_AT_ONCE and source not in self.known
        match self.places.room(source, 12):
            case Room(None):
                assert not full
                assert not crowding
            case Room(leaver):
                assert full
                assert not crowding
                assert not waits
                assert leaver == strangers[0]
                del self.unproven[leaver]
                self.leaving.add(leaver)
            case Full():
                assert crowding or (full and (waits or not strangers))
                return
        self.next += 1
        self.places.enter(self.next, source)
        self.unproven[self.next] = source

    @rule(draw=st.data())
    def proves(self, draw: st.DataObject) -> None:
        """
        It is a trusted dispatcher.
        """
        if self.unproven:
            connection = draw.draw(st.sampled_from(list(self.unproven)))
            self.places.prove(connection)
            self.known.add(self.unproven.pop(connection))
            self.proven.add(connection)

    @rule(draw=st.data())
    def goes(self, draw: st.DataObject) -> None:
        """
        It is over, and may have given way before.
        """
        if self.next:
            connection = draw.draw(st.integers(1, self.next))
            had = connection in self.unproven or connection in self.proven
            assert self.places.leave(connection) == had
            self.unproven.pop(connection, None)
            self.proven.discard(connection)
            self.leaving.discard(connection)

    @invariant()
    def nothing_leaks(self) -> None:
        """
        Nothing is kept of connections that are over.
        """
        assert self.places.live == len(self.unproven) + len(self.proven)
        assert self.places._proven == self.proven
        assert self.places._unproven == self.unproven
        assert self.places._leaving == self.leaving
        assert set(self.places._arrivals) <= set(self.unproven)
        held = Counter(self.unproven.values())
        assert self.places._held == held
        assert set(self.places._held) == set(held)
        assert self.places._crowding <= set(held)
