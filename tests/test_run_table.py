# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.run_table}.
"""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent import run_table
from ctrlexec.agent.run_store import Finished, RunKey
from ctrlexec.agent.run_table import FRESH_SECONDS, Run, RunTable
from tests.test_run_store import ENDED, RECORD

TRUSTED = frozenset({"hq", "lab", "edge"})


class TableTestCase(SynchronousTestCase):
    """
    A table of runs.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.table = RunTable(self.clock.seconds)

    def begun(self, owner: str, reqid: str) -> Run:
        """
        A run that lives.
        """
        run = Run(RunKey(owner, reqid), RECORD, 0.0, called=reqid)
        self.table.add(run)
        return run

    def ended(self, run: Run) -> None:
        """
        A run ends.
        """
        run.finished.come(Finished(ENDED, Path("nowhere")))
        self.table.discard(run)


class PlaceTests(TableTestCase):
    """
    L{RunTable.has_place}
    """

    def placed(self, most: int, trusted: frozenset[str] = TRUSTED) -> list[str]:
        """
        Who gets the places, in this order, where one asks until there is none, and
        then the next.
        """
        before = len(self.table)
        for owner in sorted(trusted):
            while self.table.has_place(owner, trusted, most):
                self.begun(owner, str(len(self.table)))
        return [run.key.owner for run in self.table][before:]

    def test_each(self) -> None:
        """
        Who comes first can have all places but one for each other.
        """
        self.assertEqual(self.placed(8), ["edge"] * 6 + ["hq", "lab"])

    def test_alone(self) -> None:
        """
        Where there are no others those are all.
        """
        self.assertEqual(self.placed(3, frozenset({"hq"})), ["hq"] * 3)

    def test_few(self) -> None:
        """
        Half of all places are for whoever comes, however many others there may be.
        """
        many = frozenset(f"d{number}" for number in range(9))
        self.assertEqual(self.placed(4, many), ["d0", "d0", "d1", "d2"])

    def test_one(self) -> None:
        """
        Where there is one place it is for whoever comes.
        """
        self.assertEqual(self.placed(1), ["edge"])

    def test_full(self) -> None:
        """
        Above the number nobody has a place, as after the settings were changed.
        """
        self.placed(8)
        self.assertEqual(self.placed(2), [])

    @given(
        st.integers(6, 12),
        st.lists(st.tuples(st.sampled_from(sorted(TRUSTED)), st.booleans())),
    )
    def test_neverOut(self, most: int, orders: list[tuple[str, bool]]) -> None:
        """
        Whatever others ask for, and whatever ends when: each dispatcher can have a
        run.
        """
        table = RunTable(self.clock.seconds)
        for number, (owner, ends) in enumerate(orders):
            own = [run for run in table if run.key.owner == owner]
            if ends and own:
                table.discard(own[0])
            elif table.has_place(owner, TRUSTED, most):
                key = RunKey(owner, str(number))
                table.add(Run(key, RECORD, 0.0, called=""))
            having = {run.key.owner for run in table}
            for other in TRUSTED - having:
                self.assertTrue(table.has_place(other, TRUSTED, most))
            self.assertLessEqual(len(table), most)


class HeldTests(TableTestCase):
    """
    L{RunTable.holds}
    """

    def test_held(self) -> None:
        """
        A run must stay in the store while it lives, and for a minute.
        """
        run = self.begun("hq", "r-1")
        self.clock.advance(9 * FRESH_SECONDS)
        self.assertTrue(self.table.holds(run.key))
        self.ended(run)
        self.clock.advance(FRESH_SECONDS - 1)
        self.assertTrue(self.table.holds(run.key))
        self.clock.advance(1)
        self.assertFalse(self.table.holds(run.key))

    def test_unsaved(self) -> None:
        """
        So must one that is not written down.
        """
        run = self.begun("hq", "r-1")
        self.table.unsaved[run.key] = run
        self.ended(run)
        self.clock.advance(FRESH_SECONDS)
        self.assertTrue(self.table.holds(run.key))

    def test_notStarted(self) -> None:
        """
        What was not started has nothing there.
        """
        run = self.begun("hq", "r-1")
        self.table.discard(run)
        self.assertFalse(self.table.holds(run.key))

    def test_notForEver(self) -> None:
        """
        Nothing is known of them after that.
        """
        for number in range(9):
            self.ended(self.begun("hq", f"r-{number}"))
            self.clock.advance(FRESH_SECONDS / 2)
        self.assertEqual(len(self.table._fresh), 2)


class SpentTests(TableTestCase):
    """
    L{RunTable.spend}
    """

    def test_each(self) -> None:
        """
        How many of a dispatcher are known has nothing to do with others.
        """
        self.patch(run_table, "MOST_SPENT", 2)
        for owner, count in (("lab", 1), ("hq", 3)):
            for number in range(count):
                run = self.begun(owner, f"r-{number}")
                self.table.unsaved[run.key] = run
                self.table.spend(run.key)
        known = [
            (owner, number)
            for owner in ("lab", "hq")
            for number in range(3)
            if self.table.is_spent(RunKey(owner, f"r-{number}"))
        ]
        self.assertEqual(known, [("lab", 0), ("hq", 1), ("hq", 2)])
