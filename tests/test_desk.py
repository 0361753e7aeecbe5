# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.desk}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.desk import (
    Approve,
    ApproveLegacy,
    Command,
    Deny,
    Desk,
    Listing,
    Nothing,
    Quit,
    Skip,
    Unclear,
    parse_command,
)
from ctrlexec.errors import Conflict, NotFound
from tests.dispatching import request


class ParseCommandTests(SynchronousTestCase):
    """
    What an operator types.
    """

    def test_commands(self) -> None:
        """
        The keys of PROTOCOL.md section 7, alone or with a number, and words.
        """
        expected: dict[str, Command] = {
            "a": Approve(None),
            "a1": Approve(1),
            " A 12 ": Approve(12),
            "approve 3": Approve(3),
            "legacy": ApproveLegacy(None),
            "legacy2": ApproveLegacy(2),
            "d": Deny(None),
            "d2": Deny(2),
            "s": Skip(None),
            "skip 2": Skip(2),
            "list": Listing(),
            "quit": Quit(),
            "q": Quit(),
            "": Nothing(),
            "  ": Nothing(),
        }
        for line, command in expected.items():
            self.assertEqual(parse_command(line), command)

    def test_unclear(self) -> None:
        """
        What is nearly a command is none.
        """
        for line in (
            "le",
            "leg1",
            "a0",
            "a1 2",
            "a-1",
            "ap",
            "yes",
            "a1x",
            "a" + "1" * 20,
            "1",
        ):
            self.assertIsInstance(parse_command(line), Unclear, line)

    @given(st.text())
    def test_anything(self, line: str) -> None:
        """
        Whatever is typed or pasted is read, and shown without doing anything
        to a terminal.
        """
        match parse_command(line):
            case Unclear(text):
                self.assertTrue(text.isprintable())


class DeskTests(SynchronousTestCase):
    """
    Which request a key means.
    """

    def setUp(self) -> None:
        """
        Nobody waits.
        """
        self.desk = Desk()

    def arrives(self, reqid: str) -> int:
        """
        One more waits.
        """
        return self.desk.arrive(request(reqid))

    def assertMeans(self, number: int | None, reqid: str) -> None:
        """
        The key, with this number or without one, is about this request.
        """
        self.assertEqual(self.desk.meant(number)[1].id, reqid)

    def assertAsks(self) -> None:
        """
        The key without a number means nothing now.
        """
        self.assertRaises(Conflict, self.desk.meant, None)

    def test_nobody(self) -> None:
        """
        Where nobody waits, no key means anything.
        """
        self.assertRaises(NotFound, self.desk.meant, None)
        self.assertRaises(NotFound, self.desk.meant, 1)

    def test_one(self) -> None:
        """
        The one that waits is meant.
        """
        self.arrives("one")
        self.assertMeans(None, "one")
        self.assertMeans(1, "one")

    def test_two(self) -> None:
        """
        With two, it takes a number.
        """
        self.arrives("one")
        self.arrives("two")
        self.assertAsks()
        self.assertMeans(1, "one")
        self.assertMeans(2, "two")

    def test_numbersAreNotUsedAgain(self) -> None:
        """
        A number that was typed for one request never reaches another.
        """
        self.arrives("one")
        self.desk.depart("one")
        self.assertEqual(self.arrives("two"), 2)
        self.assertRaises(NotFound, self.desk.meant, 1)

    def test_slippedIn(self) -> None:
        """
        An agent that takes another's place is not what the operator's hand was
        about to approve.
        """
        self.arrives("one")
        self.desk.depart("one")
        self.arrives("two")
        self.assertAsks()

    def test_leftBehind(self) -> None:
        """
        Nor is the one that stays when the other has left.
        """
        self.arrives("one")
        self.arrives("two")
        self.desk.depart("one")
        self.assertAsks()

    def test_looked(self) -> None:
        """
        Once the operator has looked, a key means what was there to be seen.
        """
        self.test_slippedIn()
        self.assertEqual([n for n, _ in self.desk.listed()], [2])
        self.assertMeans(None, "two")
        self.arrives("three")
        self.assertAsks()

    def test_oneAfterTheOther(self) -> None:
        """
        Who decides on each as it comes never needs a number.
        """
        for reqid in ("one", "two", "three"):
            number = self.arrives(reqid)
            self.assertMeans(None, reqid)
            self.desk.deciding(number)
            self.desk.depart(reqid)

    def test_skipped(self) -> None:
        """
        What is left for later is not meant until it is looked at again.
        """
        self.arrives("one")
        self.desk.skip(1)
        self.assertAsks()
        self.desk.listed()
        self.assertMeans(None, "one")

    @given(st.lists(st.tuples(st.sampled_from("adls"), st.integers(0, 4))))
    def test_seen(self, steps: list[tuple[str, int]]) -> None:
        """
        A bare key never means a request that is gone, nor one beside another.
        """
        desk, waiting = Desk(), set[str]()
        for step, which in steps:
            reqid = f"r{which}"
            if step == "a" and reqid not in waiting:
                desk.arrive(request(reqid))
                waiting.add(reqid)
            elif step == "d" and reqid in waiting:
                desk.depart(reqid)
                waiting.discard(reqid)
            elif step == "l":
                desk.listed()
            try:
                _, meant = desk.meant(None)
            except (Conflict, NotFound):
                continue
            self.assertEqual({meant.id}, waiting)
