# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.runs}. They are over 400 lines, since the store goes
by the time of files, and one that a test sets is needed for all of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from ctrlexec.dispatcher import runs as runs_store
from ctrlexec.dispatcher.jumps import Uptime
from ctrlexec.dispatcher.runs import (
    RECORD_BYTES,
    FileRunStore,
    KeyClaim,
    RunRecord,
)
from ctrlexec.errors import NotFound, StoreError
from ctrlexec.files import write_atomic
from ctrlexec.interfaces import IRunStore
from tests.contracts import AT, OTHER
from tests.dispatching import REQID
from tests.run_contract import KEY_HASH, RunStoreContract


@implementer(IRunStore)
@attrs.frozen
class PutAt:
    """
    A store in which everything is put at one time.

    @ivar up: for how long the host is up: as long as the clock says.
    """

    runs: FileRunStore
    now: float
    up: list[float] = attrs.field(factory=list)

    @classmethod
    def on(cls, directory: Path, now: float) -> PutAt:
        """
        One of files.
        """
        up = [now]
        runs = FileRunStore(directory, up=lambda: Uptime("boot", up[0]))
        return cls(runs, now, up)

    def put(self, record: RunRecord) -> None:
        """
        See L{IRunStore.put}.
        """
        self.runs.put(record)
        path = self.runs.directory / f"{record.reqid}.json"
        os.utime(path, (self.now, self.now))

    def get(self, reqid: str, now: float) -> RunRecord:
        """
        See L{IRunStore.get}.
        """
        self.up[:] = [now]
        return self.runs.get(reqid, now)

    def change(
        self, reqid: str, change: Callable[[RunRecord], RunRecord], now: float
    ) -> RunRecord:
        """
        See L{IRunStore.change}.
        """
        self.up[:] = [now]
        return self.runs.change(reqid, change, now)

    def version(self, reqid: str) -> str:
        """
        See L{IRunStore.version}.
        """
        return self.runs.version(reqid)

    def claimed(self, key: str, now: float) -> KeyClaim | None:
        """
        See L{IRunStore.claimed}.
        """
        self.up[:] = [now]
        return self.runs.claimed(key, now)

    def claim(self, key: str, digest: str, record: RunRecord, now: float) -> KeyClaim:
        """
        See L{IRunStore.claim}.
        """
        self.up[:] = [now]
        claim = self.runs.claim(key, digest, record, now)
        if claim == KeyClaim(record.reqid, digest):
            for name in (f"{key}.key", f"{record.reqid}.json"):
                os.utime(self.runs.directory / name, (self.now, self.now))
        return claim

    def sweep(self, now: float) -> int:
        """
        See L{IRunStore.sweep}.
        """
        self.up[:] = [now]
        return self.runs.sweep(now)


class FileRunStoreTests(RunStoreContract, SynchronousTestCase):
    """
    The store that is a directory.
    """

    def setUp(self) -> None:
        """
        A directory that is not there yet.
        """
        self.directory = Path(self.mktemp()) / "runs"
        self.path = self.directory / f"{REQID}.json"

    def runs(self) -> IRunStore:
        """
        See L{RunStoreContract.runs}.
        """
        return PutAt.on(self.directory, AT)

    def test_file(self) -> None:
        """
        A record is the file of NEWER-LINE.md section 6.2, for its group to
        read, and nothing is beside it.
        """
        self.runs().put(self.record())
        self.assertEqual(
            json.loads(self.path.read_bytes()),
            {
                "reqid": REQID,
                "script": "echo",
                "mode": "sync",
                "hosts": ["web-1", "web-2"],
                "results": [
                    {"host": "web-1", "exit": 0, "stdout": "é\n", "stderr": ""}
                ],
                "completed": int(AT),
                "complete": True,
                "submitter": {"username": "alice", "source_ip": "192.0.2.1"},
            },
        )
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o640)
        self.assertEqual([*self.directory.iterdir()], [self.path])

    def test_replaces(self) -> None:
        """
        There is one record for an id: the last.
        """
        runs = self.runs()
        for script in ("echo", "uptime"):
            fields = {**self.record().fields, "script": script}
            runs.put(attrs.evolve(self.record(), script=script, fields=fields))
        self.assertEqual(runs.get(REQID, AT).script, "uptime")

    def test_broken(self) -> None:
        """
        A record that is cut off is an error, and can be swept all the same.
        """
        runs = self.runs()
        runs.put(self.record())
        self.path.write_bytes(self.path.read_bytes()[:40])
        os.utime(self.path, (AT, AT))
        self.assertRaises(StoreError, runs.get, REQID, AT)
        self.assertEqual(runs.sweep(AT + 86_400), 1)

    def test_endless(self) -> None:
        """
        No more of a file is read than a record can have.
        """
        self.directory.mkdir(parents=True)
        with self.path.open("wb") as file:
            file.truncate(RECORD_BYTES + 1)
        self.assertRaises(StoreError, self.runs().get, REQID, AT)

    def test_tooLarge(self) -> None:
        """
        What nobody could read again is not written.
        """
        self.runs().put(self.record())
        size = self.path.stat().st_size
        self.path.unlink()
        small = FileRunStore(self.directory, most_bytes=size - 1)
        self.assertRaises(StoreError, small.put, self.record())
        self.assertFalse(self.path.exists())
        FileRunStore(self.directory, most_bytes=size).put(self.record())
        self.assertTrue(self.path.exists())

    def test_muchTooLarge(self) -> None:
        """
        Output that has no room is not even spelled as JSON, which it could not
        be here.
        """
        results: list[dict[str, Any]] = [{"stdout": "x" * 9, "exit": {1}}] * 10
        record = attrs.evolve(self.record(), fields={"results": results})
        small = FileRunStore(self.directory, most_bytes=89)
        self.assertRaises(StoreError, small.put, record)

    def test_noPlace(self) -> None:
        """
        Where nothing can be written, that is an error with a name.
        """
        self.directory.parent.mkdir()
        self.directory.write_bytes(b"")
        runs = FileRunStore(self.directory)
        self.assertRaises(StoreError, runs.put, self.record())
        self.assertRaises(StoreError, runs.get, REQID, AT)
        self.assertRaises(StoreError, runs.sweep, AT)

    def test_foreignFiles(self) -> None:
        """
        What is not named like a record stays, however old it is; but not what
        a crash of ours has left half-written.
        """
        runs = self.runs()
        runs.put(self.record())
        left = [f".{name}.0123456789ab.tmp" for name in (f"{REQID}.json", ".clock")]
        foreign = ["README", "a b.json", f"{REQID}.json.bak", ".hidden.json"]
        for name in (*left, *foreign):
            (self.directory / name).write_bytes(b"")
            os.utime(self.directory / name, (AT, AT))
        self.assertEqual(runs.sweep(AT + 86_400), 1)
        names = sorted(path.name for path in self.directory.iterdir())
        self.assertEqual(names, sorted([*foreign, ".clock"]))

    def test_directory(self) -> None:
        """
        A directory that is named like a record is none, and does not keep the
        others from being swept.
        """
        runs = self.runs()
        runs.put(self.record())
        odd = self.directory / f"{OTHER}.json"
        odd.mkdir()
        os.utime(odd, (AT, AT))
        self.assertEqual(runs.sweep(AT + 86_400), 1)
        self.assertRaises(StoreError, runs.get, OTHER, AT)

    def test_sameStays(self) -> None:
        """
        A record that stays the same is not written, so nobody keeps it alive by
        asking for it.
        """
        runs = self.runs()
        runs.put(self.record())
        before = self.path.stat()
        runs.change(REQID, lambda record: attrs.evolve(record), AT)
        after = self.path.stat()
        self.assertEqual(
            (after.st_ino, after.st_mtime), (before.st_ino, before.st_mtime)
        )

    def test_changesOneByOne(self) -> None:
        """
        Of many that change a record at the same time none undoes what another
        has done.
        """
        runs = FileRunStore(self.directory)
        runs.put(self.record())
        path = self.path

        def counted(record: RunRecord) -> RunRecord:
            count = record.fields.get("count", 0) + 1
            return attrs.evolve(record, fields={**record.fields, "count": count})

        def work() -> None:
            for _ in range(10):
                runs.change(REQID, counted, path.stat().st_mtime)

        threads = [Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        now = path.stat().st_mtime
        self.assertEqual(runs.get(REQID, now).fields["count"], 40)

    def test_claimedOnce(self) -> None:
        """
        Of many that give a key at the same time one has it, and is on record.
        """
        runs = FileRunStore(self.directory)
        found: list[KeyClaim] = []

        def work(reqid: str) -> None:
            record = self.record(reqid)
            found.append(runs.claim(KEY_HASH, reqid, record, time.time()))

        threads = [Thread(target=work, args=(f"r{each}",)) for each in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual((len(found), len(set(found))), (8, 1))
        (path,) = self.directory.glob("*.json")
        self.assertEqual(path.stem, found[0].reqid)

    def test_keyFile(self) -> None:
        """
        What a key stands for is swept like a record, and counted as none; who
        has it in a broken file has lost it.
        """
        runs = self.runs()
        runs.claim(KEY_HASH, "a", self.record(), AT)
        (path,) = self.directory.glob("*.key")
        self.assertEqual(json.loads(path.read_bytes()), {"reqid": REQID, "digest": "a"})
        path.write_bytes(b"{")
        os.utime(path, (AT, AT))
        other = runs.claim(KEY_HASH, "b", self.record(OTHER), AT)
        self.assertEqual(other, KeyClaim(OTHER, "b"))
        self.assertEqual(runs.sweep(AT + 86_400), 2)
        self.assertEqual([*self.directory.iterdir()], [self.directory / ".clock"])

    def test_killed(self) -> None:
        """
        Whenever whoever claims a key is killed: the key stands for a run that is
        on record, or for none.
        """
        for writes in range(3):
            left = [None] * writes

            def write(*what: Any, left: list[None] = left, **how: Any) -> None:
                if not left:
                    raise KeyboardInterrupt
                left.pop()
                write_atomic(*what, **how)

            runs = self.runs()
            self.patch(runs_store, "write_atomic", write)
            with contextlib.suppress(KeyboardInterrupt):
                runs.claim(KEY_HASH, "a", self.record(), AT)
            found = runs.claimed(KEY_HASH, AT)
            self.assertEqual(found, KeyClaim(REQID, "a") if writes == 2 else None)
            self.assertEqual(self.path.exists(), writes > 0)
            if found is not None:
                self.assertEqual(runs.get(REQID, AT), self.record())

    def test_keyWithoutRoom(self) -> None:
        """
        A run whose key can not be written is not on record.
        """
        runs = self.runs()
        path = self.directory / f"{KEY_HASH}.key"
        path.mkdir(parents=True)
        (path / "x").touch()
        claim = partial(runs.claim, KEY_HASH, "a", self.record(), AT)
        self.assertRaises(StoreError, claim)
        self.assertRaises(NotFound, runs.get, REQID, AT)

    def test_keyAlone(self) -> None:
        """
        A key whose record somebody has removed is free.
        """
        runs = self.runs()
        runs.claim(KEY_HASH, "a", self.record(), AT)
        self.path.unlink()
        self.assertIsNone(runs.claimed(KEY_HASH, AT))
        other = runs.claim(KEY_HASH, "b", self.record(OTHER), AT)
        self.assertEqual(other, KeyClaim(OTHER, "b"))

    def test_clockSetForward(self) -> None:
        """
        A clock that is set forward takes nobody's key away, nor what became of a
        run: that takes a day, by a clock that nobody sets. What comes after it
        has its own day.
        """
        up, jump = [50.0], 50 * 365 * 86_400.0
        runs = FileRunStore(self.directory, up=lambda: Uptime("b", up[0]))
        store = PutAt(runs, AT, [])
        store.claim(KEY_HASH, "a", self.record(), AT)
        for sweeps in (False, True):
            if sweeps:
                self.assertEqual(runs.sweep(AT + jump), 0)
            self.assertEqual(runs.claimed(KEY_HASH, AT + jump), KeyClaim(REQID, "a"))
            self.assertEqual(runs.get(REQID, AT + jump), self.record())
        late = PutAt(runs, AT + jump, [])
        late.put(self.record(OTHER))
        up[0] += 86_399
        self.assertEqual(runs.get(REQID, AT + jump + 86_399), self.record())
        late.claim("0" * 64, "b", self.record("r9"), AT + jump + 86_399)
        up[0] += 1
        now = AT + jump + 86_400
        self.assertIsNone(runs.claimed(KEY_HASH, now))
        self.assertRaises(NotFound, runs.get, REQID, now)
        self.assertEqual(runs.sweep(now), 3)

    def test_clockUnknown(self) -> None:
        """
        What cannot be noted, or was spoilt, is as if nobody had noted it.
        """
        runs = self.runs()
        runs.claim(KEY_HASH, "a", self.record(), AT)
        clock = self.directory / ".clock"
        clock.unlink()
        clock.mkdir()
        self.assertEqual(runs.sweep(AT), 0)
        self.assertEqual(runs.claimed(KEY_HASH, AT), KeyClaim(REQID, "a"))
        self.assertEqual(runs.sweep(AT + 86_400), 1)

    def test_muchInEntries(self) -> None:
        """
        What stands in a record for each host counts as well.
        """
        hosts = {f"web-{each}": {"stdout": "x" * 9, "exit": {1}} for each in range(10)}
        record = attrs.evolve(self.record(), fields={"hosts": hosts})
        small = FileRunStore(self.directory, most_bytes=89)
        self.assertRaises(StoreError, small.put, record)


class HintTests(SynchronousTestCase):
    """
    What somebody is told who asks too late.
    """

    def test_notFound(self) -> None:
        """
        The same words for what never was and what is no more.
        """
        runs = FileRunStore(Path(self.mktemp()))
        with self.assertRaises(NotFound) as raised:
            runs.get(REQID, AT)
        self.assertEqual(str(raised.exception), f"no result for reqid {REQID}")
