# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.jumps}.
"""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.jumps import (
    LEAST_SECONDS,
    NAME,
    Jumps,
    Uptime,
    read_jumps,
    uptime,
    write_jumps,
)

KEPT = 86_400.0
YEAR = 365 * 86_400.0
NOW = 1_795_213_924.0
UP = Uptime("b", 1000.0)
KNOWN = Jumps().at(NOW, UP, KEPT)


class JumpTests(SynchronousTestCase):
    """
    A clock is set while files get older.
    """

    def later(self, seconds: float) -> Uptime:
        """
        The host has been up for longer.
        """
        return Uptime("b", UP.seconds + seconds)

    def test_none(self) -> None:
        """
        As long as nobody sets the clock nothing is new; a little is no jump.
        """
        self.assertEqual(KNOWN.forward, ())
        for off in (0.0, LEAST_SECONDS - 1, 1 - LEAST_SECONDS):
            self.assertIs(KNOWN.at(NOW + 9e6 + off, self.later(9e6), KEPT), KNOWN)
        self.assertEqual(KNOWN.age(NOW - 5, NOW), 5)

    def test_forward(self) -> None:
        """
        What was there before is not older for it, and what comes after that is
        as old as it is.
        """
        now = NOW + 60 + YEAR
        jumps = KNOWN.at(now, self.later(60), KEPT)
        self.assertEqual(jumps.forward, ((now, YEAR),))
        self.assertEqual(jumps.age(NOW, now), 60)
        self.assertEqual(jumps.age(NOW - 100, now + 7), 167)
        self.assertEqual(jumps.age(now + 1, now + 7), 6)

    def test_back(self) -> None:
        """
        One that is set back makes nothing older; nor is what it had jumped
        before then a jump any more.
        """
        there = KNOWN.at(NOW + YEAR, UP, KEPT)
        back = there.at(NOW + 60, self.later(60), KEPT)
        self.assertEqual(back.forward, ())
        self.assertEqual(back.age(NOW, NOW + 60), 60)

    def test_toAndFro(self) -> None:
        """
        One that is set to and fro makes nothing younger each time.
        """
        known, now, passed = KNOWN, NOW, 0.0
        for _ in range(5):
            for by in (2 * LEAST_SECONDS, -LEAST_SECONDS, -LEAST_SECONDS):
                now, passed = now + by + 1, passed + 1
                known = known.at(now, self.later(passed), KEPT)
        self.assertEqual(known.forward, ())
        self.assertEqual(known.age(NOW, now), passed)

    def test_started(self) -> None:
        """
        How long a host was off nobody knows: its clock does. One that comes up
        with a wrong clock has that set right, which makes only what it has written
        before that younger.
        """
        on = KNOWN.at(1000.0, Uptime("c", 10.0), KEPT)
        self.assertEqual(on.forward, ())
        right = on.at(NOW + 500, Uptime("c", 20.0), KEPT)
        self.assertEqual(right.age(NOW, NOW + 500), 500)
        self.assertEqual(right.age(1005.0, NOW + 500), 5)

    def test_unknownStart(self) -> None:
        """
        Where the system does not tell one start from another there are no jumps.
        """
        known = Jumps().at(NOW, Uptime("", 5.0), KEPT)
        self.assertEqual(known.at(NOW + YEAR, Uptime("", 6.0), KEPT).forward, ())

    def test_forgotten(self) -> None:
        """
        A jump is known for as long as there may be files of before it, however
        the clock jumps after it.
        """
        first = KNOWN.at(NOW + YEAR, UP, KEPT)
        second = first.at(NOW + 2 * YEAR + 60, self.later(60), KEPT)
        self.assertEqual(len(second.forward), 2)
        now = NOW + 2 * YEAR + 60
        self.assertEqual(second.age(NOW, now), 60)
        third = second.at(now + YEAR + KEPT, self.later(60 + KEPT), KEPT)
        self.assertEqual(len(third.forward), 1)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["wait", "write", "forward", "look"]),
                st.floats(2 * LEAST_SECONDS, 1e9),
            ),
            max_size=20,
        )
    )
    def test_never(self, steps: list[tuple[str, float]]) -> None:
        """
        However often a clock is set forward, and whenever somebody looks, nothing
        is taken for older than it is.
        """
        true = shift = 0.0
        jumps, written = KNOWN, [(0.0, NOW)]
        for what, seconds in steps:
            match what:
                case "wait":
                    true += seconds % KEPT
                case "forward":
                    shift += seconds
            now = NOW + true + shift
            up = self.later(true)
            if what == "write":
                written.append((true, now))
            if what in ("write", "look"):
                # Whoever writes looks before that.
                jumps = jumps.at(now, up, KEPT)
            seen = jumps.at(now, up, KEPT)
            for born, mtime in written:
                if true - born < KEPT:
                    self.assertLessEqual(seen.age(mtime, now), true - born + 1)


class FileTests(SynchronousTestCase):
    """
    What is known is in a file.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def test_kept(self) -> None:
        """
        What was written is read.
        """
        jumps = KNOWN.at(NOW + YEAR, UP, KEPT)
        write_jumps(self.directory, jumps)
        self.assertEqual(read_jumps(self.directory), jumps)

    def test_spoilt(self) -> None:
        """
        What makes no sense is nothing.
        """
        self.assertEqual(read_jumps(self.directory), Jumps())
        for text in (
            "",
            "[]",
            "{}",
            '{"boot":"b","started":true,"forward":[]}',
            '{"boot":"b","started":1,"forward":[[1]]}',
            '{"boot":"b","started":1,"forward":[["1",2]]}',
            '{"boot":"b","started":1,"forward":3}',
            '{"boot":"b","started":1e400,"forward":[]}',
            '{"boot":"b","started":1' + 400 * "0" + ',"forward":[]}',
        ):
            (self.directory / NAME).write_text(text)
            self.assertEqual(read_jumps(self.directory), Jumps(), text)

    def test_host(self) -> None:
        """
        This host has been up for longer the second time, since the same start.
        """
        first, second = uptime(), uptime()
        self.assertEqual(first.boot, second.boot)
        self.assertGreaterEqual(second.seconds, first.seconds)
