# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.run_sweep}.
"""

from __future__ import annotations

import os

from ctrlexec.agent.run_store import RunKey
from ctrlexec.agent.run_sweep import FRESH_SECONDS, KEPT_SECONDS, sweep
from tests.test_run_store import SPACE, StoreTestCase


class SweepTests(StoreTestCase):
    """
    L{sweep}
    """

    def aged(self, name: str, seconds: float, size: int = 0) -> RunKey:
        """
        A run that has ended so long ago.
        """
        key = RunKey("hq", name)
        path = self.ended(key, b"x" * size)
        self.now = path.stat().st_mtime
        os.utime(path, (0, self.now - seconds))
        return key

    def swept(self, most: int = SPACE, living: tuple[RunKey, ...] = ()) -> list[str]:
        """
        Which runs are left.
        """
        before = len(set(self.store.names("hq", ".json")))
        gone = sweep(self.store, self.now, most, living)
        left = sorted(self.store.names("hq", ".json"))
        self.assertEqual(gone, before - len(left))
        return left

    def test_day(self) -> None:
        """
        A run is kept for a day after its end, and forgotten then with all that
        was kept of it; one that lives is not.
        """
        self.aged("old", KEPT_SECONDS + 1)
        self.aged("older", KEPT_SECONDS + 9)
        self.store.directory(RunKey("hq", "older")).mkdir()
        lives = self.aged("lives", KEPT_SECONDS + 1)
        self.aged("young", KEPT_SECONDS - 1)
        self.assertEqual(self.swept(living=(lives,)), ["lives", "young"])
        self.assertEqual(self.tree(), ["hq", "hq/lives.json", "hq/young.json"])

    def test_space(self) -> None:
        """
        Where all takes too much room the oldest go, but what has just ended, or
        lives, stays.
        """
        for name, age in (("c", 100), ("a", 300), ("b", 200)):
            self.aged(name, age, 10_000)
        self.aged("fresh", FRESH_SECONDS - 1, 10_000)
        lives = self.aged("lives", 900, 10_000)
        self.assertEqual(
            self.swept(50_000, living=(lives,)), ["b", "c", "fresh", "lives"]
        )
        self.assertEqual(self.swept(0, living=(lives,)), ["fresh", "lives"])

    def test_small(self) -> None:
        """
        What counts is what the disk gives out, which for a small file is a block.
        """
        for number in range(20):
            self.aged(f"r-{number:02}", 500 - number)
        status = self.store.record_path(RunKey("hq", "r-00")).stat()
        room = max(status.st_size, status.st_blocks * 512)
        self.assertEqual(len(self.swept(10 * room)), 10)

    def test_foreign(self) -> None:
        """
        A run of the original that lives is not ours to forget before its day is
        over.
        """
        key = self.aged("theirs", 500)
        path = self.store.record_path(key)
        times = path.stat()
        path.write_text('{"status":"running","reqid":"theirs"}')
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        self.assertEqual(self.swept(0), ["theirs"])
        self.now += KEPT_SECONDS
        self.assertEqual(self.swept(0), [])

    def test_remains(self) -> None:
        """
        What crashes have left goes after a day, and no other file does.
        """
        self.aged("a", 0)
        names = (".a.json.0123456789ab.tmp", "b.run", "note.txt")
        for name in names:
            path = self.root / "hq" / name
            path.mkdir() if name == "b.run" else path.write_text("")
        sweep(self.store, self.now, SPACE, ())
        self.assertEqual(len(self.tree()), 5)
        self.assertEqual(sweep(self.store, self.now + KEPT_SECONDS + 9, SPACE, ()), 2)
        self.assertEqual(self.tree(), ["hq", "hq/note.txt"])

    def test_changed(self) -> None:
        """
        A run of which something has become since it was looked at stays.
        """
        key = self.aged("a", 0)
        changed = self.store.changed(key)
        self.assertFalse(self.store.forget(key, changed - 1))
        self.assertTrue(self.store.forget(key, changed))
        self.assertFalse(self.store.forget(key, changed))

    def test_clockSetBack(self) -> None:
        """
        What was written in a future stays until the clock gets there, or the
        room is needed.
        """
        self.aged("a", -10_000_000, 10_000)
        self.aged("b", 100, 10_000)
        self.aged("c", 200, 10_000)
        self.assertEqual(self.swept(), ["a", "b", "c"])
        # Of all it is the oldest.
        self.assertEqual(self.swept(25_000), ["b", "c"])
