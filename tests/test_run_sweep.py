# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.run_sweep}.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from ctrlexec.agent import run_store, run_sweep
from ctrlexec.agent.run_ages import AGES, KEPT_SECONDS, Ages, read_ages, write_ages
from ctrlexec.agent.run_store import RunKey
from ctrlexec.agent.run_sweep import carry_out, plan
from ctrlexec.errors import StoreError
from ctrlexec.values import from_iso_time
from tests.test_run_store import RECORD, SPACE, StoreTestCase

#: How much a run has written that takes several blocks.
LARGE = 10_000


class SweepTestCase(StoreTestCase):
    """
    A store that is swept.
    """

    def setUp(self) -> None:
        super().setUp()
        self.ages = Ages(boot="b", uptime=100.0)
        self.held: set[RunKey] = set()
        self.now = time.time()

    def run_of(self, name: str, size: int = 0, owner: str = "hq") -> RunKey:
        """
        A run that has ended, later than those before.
        """
        key = RunKey(owner, name)
        self.ended(key, b"x" * size)
        return key

    def path(self, name: str) -> Path:
        """
        A record.
        """
        return self.store.record_path(RunKey("hq", name))

    def passes(self, seconds: float) -> None:
        """
        The host is up for so long.
        """
        self.ages = self.ages.at(self.ages.uptime + seconds)

    def swept(self, most: int = SPACE) -> list[str]:
        """
        Which records are left.
        """
        before = len(self.records())
        sweep = plan(self.store, self.ages, self.now, most, self.held.__contains__)
        self.ages = sweep.ages
        gone = carry_out(self.store, sweep)
        left = self.records()
        self.assertEqual(gone, before - len(left))
        return left

    def large(self) -> int:
        """
        What a run takes that is L{LARGE}.
        """
        [first, *_] = self.root.rglob("*.json")
        return first.stat().st_blocks * 512

    def records(self) -> list[str]:
        """
        All there are.
        """
        return sorted(path.stem for path in self.root.rglob("*.json"))


class DayTests(SweepTestCase):
    """
    What has been there for a day
    """

    def test_day(self) -> None:
        """
        A run is kept for a day after its end, and forgotten then with all that
        was kept of it; one that lives is not.
        """
        self.run_of("old")
        self.run_of("older")
        self.store.directory(RunKey("hq", "older")).mkdir()
        self.held.add(self.run_of("lives"))
        self.swept()
        self.passes(2)
        self.run_of("young")
        self.swept()
        self.passes(KEPT_SECONDS - 1)
        self.assertEqual(self.swept(), ["lives", "young"])
        self.assertEqual(self.tree(), [AGES, "hq", "hq/lives.json", "hq/young.json"])

    def test_clockSet(self) -> None:
        """
        Wherever the clock is set to, that makes nothing older or younger: not what
        an agent has seen, and not what it has not.
        """
        # A test can not set the other time that a file has.
        self.patch(run_store, "DATED_SECONDS", float("inf"))
        years = 30 * 365 * 86_400
        for name in ("back", "now", "forward"):
            self.run_of(name)
        status = self.path("now").stat()
        for name, jump in (("back", -years), ("forward", years)):
            os.utime(self.path(name), (0, status.st_mtime + jump))
        for passed in (0, 60, KEPT_SECONDS - 60):
            self.passes(passed)
            self.assertEqual(self.swept(), ["back", "forward", "now"])
        self.passes(1)
        self.assertEqual(self.swept(), [])

    def test_dated(self) -> None:
        """
        Who sets the date of a record means it, if it has ended just now too; what
        lives stays.
        """
        self.now = from_iso_time(RECORD.started).timestamp() + 60
        for name in ("old", "young", "to-come", "lives"):
            self.held.add(self.run_of(name))
        self.path("lives").write_text('{"status":"running","digest":"0"}')
        for name, age in (
            ("old", KEPT_SECONDS + 1),
            ("lives", KEPT_SECONDS + 1),
            ("young", KEPT_SECONDS - 1),
            ("to-come", -KEPT_SECONDS),
        ):
            os.utime(self.path(name), (0, self.now - age))
        self.assertEqual(self.swept(), ["lives", "to-come", "young"])

    def test_touched(self) -> None:
        """
        Who gives a record to somebody else has not dated it: what the clock said when
        it was written may have been wrong.
        """
        self.run_of("r")
        written = from_iso_time(RECORD.started).timestamp() + 1
        os.utime(self.path("r"), (0, written))
        self.now = written + 30 * 365 * 86_400
        self.assertEqual(self.swept(), ["r"])

    def test_original(self) -> None:
        """
        The original dates its records, and knows of nothing else.
        """
        self.patch(run_store, "DATED_SECONDS", float("inf"))
        for name, digest in (("theirs", ""), ("ours", "0")):
            self.run_of(name)
            text = f'{{"status":"done","reqid":"{name}","digest":"{digest}"}}'
            self.path(name).write_text(text)
        self.now += KEPT_SECONDS - 1
        self.assertEqual(self.swept(), ["ours", "theirs"])
        self.now += 2
        self.assertEqual(self.swept(), ["ours"])

    def test_restarted(self) -> None:
        """
        What another agent has written down counts, and the time since, as long as the
        host is up.
        """
        self.run_of("a")
        self.swept()
        self.passes(KEPT_SECONDS - 1000)
        self.swept()
        self.ages = read_ages(self.root).resumed("b", self.ages.uptime + 999)
        self.assertEqual(self.swept(), ["a"])
        self.passes(2)
        self.assertEqual(self.swept(), [])
        self.assertEqual(self.tree(), ["hq"])

    def test_foreign(self) -> None:
        """
        A run of the original that lives is not ours to forget before its day is
        over. One of ours has ended before it is, whoever knows of it.
        """
        for name, digest in (("theirs", ""), ("ours", "0")):
            self.run_of(name)
            text = f'{{"status":"running","reqid":"{name}","digest":"{digest}"}}'
            self.path(name).write_text(text)
        self.assertEqual(self.swept(0), ["ours", "theirs"])
        self.passes(KEPT_SECONDS + 1)
        self.assertEqual(self.swept(0), ["ours"])

    def test_unreadable(self) -> None:
        """
        What nobody can read goes like all others.
        """
        for name in "ab":
            self.run_of(name)
            self.path(name).write_text("{" * LARGE)
        self.assertEqual(self.swept(self.large()), ["b"])
        self.passes(KEPT_SECONDS + 1)
        self.assertEqual(self.swept(), [])

    def test_remains(self) -> None:
        """
        What a crash has left of a run goes after a day, and no other file does.
        """
        self.run_of("a")
        (self.root / "hq" / "b.run").mkdir()
        (self.root / "hq" / "note.txt").write_text("")
        self.swept()
        names = ["hq", "hq/a.json", "hq/b.run", "hq/note.txt"]
        self.assertEqual(self.tree(), [AGES, *names])
        self.passes(KEPT_SECONDS + 1)
        sweep = plan(self.store, self.ages, self.now, SPACE, self.held.__contains__)
        self.assertEqual(carry_out(self.store, sweep), 2)
        self.assertEqual(self.tree(), ["hq", "hq/note.txt"])

    def test_changed(self) -> None:
        """
        A run of which something has become since it was looked at stays.
        """
        key = self.run_of("a")
        changed = self.store.changed(key)
        self.assertFalse(self.store.forget(key, changed - 1))
        self.assertTrue(self.store.forget(key, changed))
        self.assertFalse(self.store.forget(key, changed))


class RoomTests(SweepTestCase):
    """
    What there is no room for
    """

    def test_space(self) -> None:
        """
        Where all takes too much room the oldest go, but what must stay does.
        """
        self.held.add(self.run_of("lives", LARGE))
        for number, name in enumerate("abc"):
            self.run_of(name, LARGE)
            # The clock is set back all the time.
            os.utime(self.path(name), (0, self.now - number))
            self.swept()
            self.passes(1)
        self.assertEqual(self.swept(3 * self.large()), ["b", "c", "lives"])
        self.assertEqual(self.swept(0), ["lives"])

    def test_order(self) -> None:
        """
        Of those that are new all the same the oldest are those that were written
        first.
        """
        for number, name in enumerate("abc"):
            self.run_of(name, LARGE)
            os.utime(self.path(name), (0, self.now - number))
        self.assertEqual(self.swept(2 * self.large()), ["a", "b"])

    def test_small(self) -> None:
        """
        What counts is what the disk gives out, which for a small file is a block.
        """
        for number in range(20):
            self.run_of(f"r-{number:02}")
        status = self.path("r-00").stat()
        room = max(status.st_size, status.st_blocks * 512)
        self.assertGreater(room, status.st_size)
        self.assertEqual(len(self.swept(10 * room)), 10)

    def test_known(self) -> None:
        """
        Of what goes before its time it is known that it was there, and to whoever
        starts runs before it goes; of what goes then it is not.
        """
        keys = [self.run_of(name, LARGE) for name in "ab"]
        sweep = plan(
            self.store, self.ages, self.now, self.large(), self.held.__contains__
        )
        self.assertEqual(self.records(), ["a", "b"])
        self.assertEqual([sweep.ages.is_gone(key) for key in keys], [True, False])
        self.assertEqual((sweep.losers, sweep.over), ({"hq": 1}, []))
        self.assertEqual(sweep.size, self.large())
        self.ages = sweep.ages
        carry_out(self.store, sweep)
        self.assertEqual(read_ages(self.root).gone, sweep.ages.gone)
        self.passes(KEPT_SECONDS + 1)
        self.swept()
        self.assertEqual(self.ages.gone, {})

    def test_fullDisk(self) -> None:
        """
        Where there is no room to write down what goes there is when it has gone.
        """
        key, at_once, tries = self.run_of("a", LARGE), write_ages, []

        def full(root: Path, ages: Ages) -> None:
            tries.append(self.store.has(key))
            if self.store.has(key):
                raise StoreError(root, "no room")
            at_once(root, ages)

        self.patch(run_sweep, "write_ages", full)
        self.swept(0)
        self.assertEqual(tries, [True, False])
        self.assertTrue(read_ages(self.root).is_gone(key))

    def test_share(self) -> None:
        """
        What there is too much of goes from the dispatcher that has most of it, and
        not the older things of another.
        """
        self.run_of("old", LARGE, "lab")
        for name in "abcdef":
            self.run_of(name, LARGE)
        self.assertEqual(self.swept(4 * self.large()), ["d", "e", "f", "old"])
        for name in "uvwxyz":
            self.run_of(name, LARGE, "lab")
        self.assertEqual(self.swept(4 * self.large()), ["e", "f", "y", "z"])

    def test_most(self) -> None:
        """
        Of several that have more than their share it is the one that has most.
        """
        for owner, names in (("lab", "abcd"), ("hq", "efghijk"), ("edge", "z")):
            for name in names:
                self.run_of(name, LARGE, owner)
        self.assertEqual(self.swept(9 * self.large()), [*"abcdhijkz"])

    def test_shareOfWhatLives(self) -> None:
        """
        Nor does anybody make room out of their share for what lives.
        """
        for name in "abcdef":
            self.held.add(self.run_of(name, LARGE))
        for name in ("x", "y", "z"):
            self.run_of(name, LARGE, "lab")
        self.assertEqual(self.swept(2 * self.large()), [*"abcdef", "z"])

    def test_begun(self) -> None:
        """
        What is about to begin, and has no record yet, must stay.
        """
        (self.root / "hq" / "b.run").mkdir(parents=True)
        (self.root / "hq" / "b.run" / "stdout").write_bytes(b"x" * LARGE)
        self.swept(0)
        self.assertEqual(self.tree(), [AGES, "hq", "hq/b.run", "hq/b.run/stdout"])
