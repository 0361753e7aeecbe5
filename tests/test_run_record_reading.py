# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.run_record}: records that are read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.runs import (
    RunRecord,
    decode_run,
)
from ctrlexec.errors import StoreError
from ctrlexec.values import Submitter
from tests.contracts import AT, OTHER
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


class ReadingTests(SynchronousTestCase):
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
