# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.run_store} and L{ctrlexec.agent.run_writing}.
"""

from __future__ import annotations

import json
import os
import stat
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent import run_elsewhere, run_writing
from ctrlexec.agent.run_ages import Ages
from ctrlexec.agent.run_elsewhere import Elsewhere
from ctrlexec.agent.run_records import RunRecord, digest_of
from ctrlexec.agent.run_store import RunKey, RunStore
from ctrlexec.agent.run_sweep import carry_out, plan
from ctrlexec.agent.run_writing import (
    forget_in_memory,
    write_in_memory,
)
from ctrlexec.errors import StoreError

KEY = RunKey("hq", "r-1")
RECORD = RunRecord(
    reqid="r-1",
    owner="hq",
    script="hello",
    started="2026-03-05T18:38:09Z",
    digest=digest_of("hello", []),
)
ENDED = attrs.evolve(RECORD, state="done", exit=0, finished="2026-03-05T18:38:10Z")
SPACE = 2**30


def mode(path: Path) -> int:
    """
    The permissions of a file.
    """
    return stat.S_IMODE(path.stat().st_mode)


class StoreTestCase(SynchronousTestCase):
    """
    A store that is not there yet.
    """

    def setUp(self) -> None:
        self.root = Path(self.mktemp()) / "state" / "runs"
        self.store = RunStore(self.root)
        mask = os.umask(0o022)
        self.addCleanup(os.umask, mask)

    def claimed(self, key: RunKey = KEY, record: RunRecord = RECORD) -> Path:
        """
        The directory of a run that has begun.
        """
        directory = self.store.claim(key, record, durable=True)
        assert directory is not None
        return directory

    def ended(
        self, key: RunKey = KEY, stdout: bytes = b"", record: RunRecord = ENDED
    ) -> Path:
        """
        The record of a run that has ended.
        """
        directory = self.claimed(key)
        (directory / "stdout").write_bytes(stdout)
        finished = self.store.finish(key, record, directory, durable=False)
        if finished.directory is None:
            self.store.clear(key)
        return finished.path

    def tree(self) -> list[str]:
        """
        All that is in it.
        """
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*"))


class ClaimTests(StoreTestCase):
    """
    L{RunStore.claim}
    """

    def test_made(self) -> None:
        """
        Record and directory are where the original has them, readable by no
        more.
        """
        directory = self.claimed()
        self.assertEqual(self.tree(), ["hq", "hq/r-1.json", "hq/r-1.run"])
        path = self.root / "hq" / "r-1.json"
        self.assertEqual(json.loads(path.read_bytes())["status"], "running")
        self.assertEqual(mode(path), 0o640)
        self.assertEqual([mode(path.parent), mode(self.root)], [0o750, 0o750])
        self.assertEqual(mode(directory), 0o700)
        self.assertEqual(self.store.read(KEY), RECORD)

    def test_once(self) -> None:
        """
        An id is claimed once, by each owner, and stays so when the run has ended.
        """
        self.claimed()
        self.assertIsNone(self.store.claim(KEY, RECORD, durable=False))
        self.store.clear(KEY)
        self.assertIsNone(self.store.claim(KEY, RECORD, durable=False))
        self.claimed(RunKey("lab", "r-1"))
        self.assertTrue(self.store.is_anothers(RunKey("ops", "r-1")))
        self.assertFalse(self.store.is_anothers(RunKey("ops", "r-2")))

    def test_givenUp(self) -> None:
        """
        A claim that is given up leaves nothing.
        """
        self.claimed()
        self.store.give_up(KEY)
        self.assertEqual(self.tree(), ["hq"])
        self.claimed()

    def test_leftDirectory(self) -> None:
        """
        What a crash has left of a claim is no claim.
        """
        left = self.store.directory(KEY)
        left.mkdir(parents=True)
        (left / "stdout").write_text("old")
        self.assertEqual(os.listdir(self.claimed()), [])

    def test_noRoom(self) -> None:
        """
        A claim that can not be written is none.
        """
        self.root.parent.mkdir(parents=True)
        self.root.write_text("no directory")
        self.assertRaises(StoreError, self.claimed)
        self.root.unlink()

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        self.patch(os, "replace", full)
        error = self.assertRaises(StoreError, self.claimed)
        self.assertIn("No space left on device", str(error))
        self.assertEqual(self.tree(), ["hq"])

    def test_notConfirmed(self) -> None:
        """
        One that the disk does not confirm is none either, though it is there.
        """

        def broken(_: object) -> None:
            raise OSError(5, "Input/output error")

        self.patch(run_writing, "_sync", broken)
        claim = partial(self.store.claim, durable=True)
        self.assertRaises(StoreError, claim, KEY, RECORD)
        self.assertEqual(self.tree(), ["hq"])

    def test_anonymous(self) -> None:
        """
        A run without an id has a name that nobody can ask for, and no other has.
        """
        first, second = RunKey.of("hq", ""), RunKey.of("hq", "")
        self.assertNotEqual(first, second)
        self.assertTrue(first.name.startswith("."))
        self.claimed(first)
        self.assertEqual([key for key, *_ in self.store.running()], [first])

    def test_lockPath(self) -> None:
        """
        Locks are where the original has them.
        """
        path = self.store.lock_path("hello")
        self.assertEqual(path, self.root / ".locks" / "hello.lock")
        self.assertTrue(path.parent.is_dir())
        self.assertEqual(list(self.store.owners()), [])


class EndTests(StoreTestCase):
    """
    L{RunStore.finish} and what is found again
    """

    def test_finished(self) -> None:
        """
        The record of the end takes the place of the other one, and what it says
        is read again.
        """
        path = self.ended(stdout=b"out\n")
        self.assertEqual(json.loads(path.read_bytes())["stdout"], "out\n")
        self.assertEqual(mode(path), 0o640)
        self.assertEqual(self.tree(), ["hq", "hq/r-1.json"])
        record = attrs.evolve(ENDED, stdout_bytes=4, stdout_kept=4)
        self.assertEqual(self.store.read(KEY), record)
        found = self.store.found(KEY, record)
        self.assertEqual((found.path, found.directory), (path, None))

    def test_notText(self) -> None:
        """
        Output that the record can not have as it was is kept beside it.
        """
        self.ended(stdout=b"\xff")
        self.assertIn("hq/r-1.run/stdout", self.tree())
        found = self.store.found(KEY, ENDED)
        self.assertEqual(found.directory, self.store.directory(KEY))

    def test_interrupted(self) -> None:
        """
        A record that can not be written leaves the old one as it was.
        """
        directory = self.claimed()
        before = self.tree()

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        self.patch(os, "replace", full)
        self.assertRaises(
            StoreError, self.store.finish, KEY, ENDED, directory, durable=True
        )
        self.assertEqual(self.tree(), before)
        self.assertEqual(self.store.read(KEY), RECORD)

    def test_unreadable(self) -> None:
        """
        What is no record is said to be none; no record is none.
        """
        self.assertIsNone(self.store.read(KEY))
        path = self.ended()
        for text in ("", "{", '{"status":"done","exit":"x"}'):
            path.write_text(text)
            self.assertRaises(StoreError, self.store.read, KEY)
        path.unlink()
        path.mkdir()
        self.assertRaises(StoreError, self.store.read, KEY)

    def test_running(self) -> None:
        """
        Those that an agent of ours has begun are found, wherever they are;
        neither those of the original nor what is no record.
        """
        self.claimed()
        self.claimed(RunKey("lab", "r-1"))
        self.ended(RunKey("hq", "r-2"))
        (self.root / "hq" / "r-3.json").write_text('{"status":"running"}')
        (self.root / "hq" / "r-4.json").write_text("{")
        (self.root / "hq" / "r 5.json").write_text("{}")
        (self.root / "flat.json").write_text("{}")
        found = {key for key, *_ in self.store.running()}
        self.assertEqual(found, {KEY, RunKey("lab", "r-1")})

    def test_foreign(self) -> None:
        """
        A record of the original says everything in any order.
        """
        path = self.root / "hq" / "r-1.json"
        path.parent.mkdir(parents=True)
        fields: dict[str, Any] = {"stdout": "x" * 99_999, "status": "done", "exit": 7}
        path.write_text(json.dumps(fields))
        record = self.store.read(KEY)
        assert record is not None
        self.assertEqual((record.exit, record.digest), (7, ""))

    def test_empty(self) -> None:
        """
        Without a store there is nothing in it.
        """
        self.assertEqual([*self.store.running(), *self.store.owners()], [])
        sweep = plan(self.store, Ages(), 0.0, SPACE, lambda _: False)
        self.assertEqual(carry_out(self.store, sweep), 0)
        self.store.tidy()

    def test_tidy(self) -> None:
        """
        What crashes have left of files that were being written goes, and no other.
        """
        self.claimed()
        left = (".ages.0123456789ab.tmp", "hq/.r-1.json.0123456789ab.tmp")
        other = ("hq/.r-1.json.tmp", "hq/r-2.json.tmp", "hq/note.txt", ".note")
        for name in (*left, *other):
            (self.root / name).write_text("")
        self.store.tidy()
        self.assertEqual(
            self.tree(), sorted(["hq", "hq/r-1.json", "hq/r-1.run", *other])
        )


class MemoryTests(StoreTestCase):
    """
    Where the disk has no room
    """

    def test_written(self) -> None:
        """
        A record is kept in memory, cut where there is much, and taken in when
        there is room again.
        """
        directory = self.claimed()
        (directory / "stdout").write_bytes(b"abcdef")
        record, path = write_in_memory(ENDED, directory, 4)
        fields = json.loads(path.read_bytes())
        self.assertEqual(fields["stdout"], "abcd\n[stdout cut: 4 of 6 bytes kept]\n")
        self.assertEqual((record.stdout_kept, record.stdout_bytes), (4, 6))
        saved = self.store.save(KEY, path)
        self.assertEqual(json.loads(saved.read_bytes()), fields)
        self.assertEqual(self.store.read(KEY), record)
        forget_in_memory(path)
        self.assertFalse(path.exists())

    def test_noOutput(self) -> None:
        """
        How a run has ended is kept even where nothing of its output can be.
        """
        ended = attrs.evolve(ENDED, stdout_bytes=9)
        _, path = write_in_memory(ended, self.root / "nowhere", 0)
        fields = json.loads(path.read_bytes())
        self.assertEqual(fields["exit"], 0)
        self.assertEqual(fields["stdout"], "\n[stdout cut: 0 of 9 bytes kept]\n")
        forget_in_memory(path)

    def elsewhere(self, *names: str) -> list[Path]:
        """
        Places for runs that the store has no room for, which are not there yet.
        """
        root = Path(self.mktemp()).absolute()
        root.mkdir()
        places = [root / name for name in names]
        self.patch(run_elsewhere, "MEMORY", tuple(map(str, places)))
        return places

    def test_elsewhere(self) -> None:
        """
        A directory is made where there is room, for nobody else to read; who
        comes later finds it, and another agent does not.
        """
        _, place = self.elsewhere("none", "memory")
        elsewhere = Elsewhere(self.root)
        self.assertRaises(StoreError, elsewhere.begin, RECORD)
        place.mkdir()
        directory = elsewhere.begin(RECORD)
        self.assertEqual(directory.parent.parent, place)
        self.assertEqual([mode(directory), mode(directory.parent)], [0o700, 0o700])
        self.assertEqual(os.listdir(directory), [])
        self.assertEqual([*elsewhere.left()], [(KEY, RECORD, directory)])
        self.assertEqual([*Elsewhere(place).left()], [])
        elsewhere.end(directory)
        self.assertEqual(os.listdir(place), [])

    def test_planted(self) -> None:
        """
        What others can have put there is not looked at.
        """
        (place,) = self.elsewhere("memory")
        place.mkdir()
        elsewhere = Elsewhere(self.root)
        planted = elsewhere.begin(RECORD).parent
        planted.chmod(0o755)
        self.assertEqual([*elsewhere.left()], [])
        planted.chmod(0o700)
        self.assertEqual(len([*elsewhere.left()]), 1)
        moved = planted.rename(place / "moved")
        planted.symlink_to(moved)
        self.assertEqual([*elsewhere.left()], [])
        planted.unlink()
        moved.rename(planted)
        for text in ("{", '{"status":"running","owner":"../x"}'):
            (planted / "record.json").write_text(text)
            self.assertEqual([*elsewhere.left()], [])
        if os.geteuid() == 0:
            os.chown(planted, 65534, 65534)
            (planted / "record.json").write_text('{"status":"running","owner":"hq"}')
            self.assertEqual([*elsewhere.left()], [])
