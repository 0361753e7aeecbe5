# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.runs}.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from ctrlexec.dispatcher.runs import (
    RECORD_BYTES,
    FileRunStore,
    RunRecord,
    decode_run,
)
from ctrlexec.errors import NotFound, StoreError
from ctrlexec.interfaces import IRunStore
from ctrlexec.values import Submitter
from tests.contracts import AT, OTHER, RunStoreContract
from tests.dispatching import REQID

PATH = Path(f"/runs/{REQID}.json")

# As the newer line writes it: NEWER-LINE.md section 6.2.
ASYNC: dict[str, Any] = {
    "reqid": REQID,
    "script": "backup",
    "mode": "async",
    "hosts": {
        "web-1": {"status": "done", "exit": 0, "stdout": "", "stderr": ""},
        "web-2": {"status": "running"},
    },
    "created": int(AT),
    "pending": ["web-2"],
    "complete": 0,
}


def run_from(**fields: Any) -> RunRecord:
    """
    The newer line's record, with some of its fields changed.
    """
    return decode_run(PATH, json.dumps({**ASYNC, **fields}).encode())


@implementer(IRunStore)
@attrs.frozen
class PutAt:
    """
    A store in which everything is put at one time.
    """

    runs: FileRunStore
    now: float

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
        return self.runs.get(reqid, now)

    def sweep(self, now: float) -> int:
        """
        See L{IRunStore.sweep}.
        """
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
        return PutAt(FileRunStore(self.directory), AT)

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
        left = f".{REQID}.json.0123456789ab.tmp"
        foreign = ["README", "a b.json", f"{REQID}.json.bak", ".hidden.json"]
        for name in (left, *foreign):
            (self.directory / name).write_bytes(b"")
            os.utime(self.directory / name, (AT, AT))
        self.assertEqual(runs.sweep(AT + 86_400), 1)
        names = sorted(path.name for path in self.directory.iterdir())
        self.assertEqual(names, sorted(foreign))

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


class RunRecordTests(SynchronousTestCase):
    """
    Records of runs.
    """

    def test_async(self) -> None:
        """
        A record of the newer line keeps all that it says; its hosts are those
        that it has results of.
        """
        record = run_from()
        self.assertEqual(record.hosts, ("web-1", "web-2"))
        self.assertEqual(record.script, "backup")
        self.assertIsNone(record.submitter)
        self.assertEqual(record.fields, ASYNC)

    def test_submitter(self) -> None:
        """
        Who gave the order is known, and not told.
        """
        alice = {"username": "alice", "source_ip": "192.0.2.1"}
        record = run_from(submitter=alice)
        self.assertEqual(record.submitter, Submitter("alice", "192.0.2.1"))
        self.assertEqual(record.answer(), ASYNC)

    def test_oddSubmitter(self) -> None:
        """
        A submitter that is none is nobody.
        """
        self.assertIsNone(run_from(submitter="alice").submitter)
        self.assertEqual(
            run_from(submitter={"username": 1}).submitter, Submitter("", "")
        )

    def test_nobody(self) -> None:
        """
        Where nobody is known to have asked, nothing is written about it.
        """
        record = RunRecord.sync(
            reqid=REQID,
            script="echo",
            hosts=(),
            results=[],
            completed=0,
            submitter=None,
        )
        self.assertNotIn("submitter", record.fields)

    def test_another(self) -> None:
        """
        A record under another's name, or of nothing, is refused.
        """
        for wrong in (
            {"reqid": OTHER},
            {"reqid": None},
            {"script": 1},
            {"hosts": "web-1"},
            {"hosts": None},
        ):
            self.assertRaises(StoreError, run_from, **wrong)

    @given(st.binary(max_size=40))
    def test_anything(self, data: bytes) -> None:
        """
        Whatever a file holds is a record or an error.
        """
        with self.assertRaises(StoreError):
            decode_run(PATH, data)

    def test_deep(self) -> None:
        """
        A file can not make us think for ever.
        """
        with self.assertRaises(StoreError):
            decode_run(PATH, b"[" * 100_000)


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
