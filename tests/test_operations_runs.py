# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.running}: what is on record of an order while it
goes on.
"""

from __future__ import annotations

from pathlib import Path

import attrs
from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer

from ctrlexec.dispatcher.results import Outcome
from ctrlexec.dispatcher.runs import FileRunStore, RunRecord
from ctrlexec.errors import Locked, StoreError, Unanswered, Unreachable
from ctrlexec.events import (
    Dispatched,
    RunBusy,
    RunNotStored,
    RunNotSubmitted,
    RunSubmitted,
)
from ctrlexec.interfaces import IRunStore
from ctrlexec.protocol.messages import (
    RunAccepted,
    RunAnswer,
    RunRequest,
)
from tests.authority import NOW
from tests.lives import BUSY, DONE, RunsCase
from tests.operating import ALICE


class RecordTests(RunsCase):
    """
    An order is on record from before it begins until it has ended.
    """

    def test_before(self) -> None:
        """
        When the first agent is asked the order is on record, with hosts that
        nobody knows told as what they are.
        """
        slow: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-1": slow}
        working = self.begin("web-1:9000", "web-2", "nobody")
        record = self.on_record()
        self.assertEqual(record["reqid"], self.seen.reqid)
        self.assertEqual(
            record,
            {
                "reqid": self.seen.reqid,
                "script": "backup",
                "mode": "sync",
                "hosts": {
                    "web-1": {"status": "accepted"},
                    "web-2": {"status": "accepted"},
                    "nobody": {
                        "status": "error",
                        "error": "unknown agent",
                        "state": "unreachable",
                    },
                },
                "created": int(NOW.timestamp()),
                "pending": ["web-1", "web-2"],
                "complete": False,
                "submitter": {"username": "alice", "source_ip": "127.0.0.1"},
                "ports": {"web-1": 9000},
            },
        )
        slow.callback(DONE)
        self.successResultOf(working)
        record = self.on_record()
        self.assertEqual(
            sorted(record),
            sorted(
                "reqid script mode hosts results completed complete submitter".split()
            ),
        )
        self.assertEqual(record["hosts"], ["web-1", "web-2", "nobody"])
        self.assertTrue(record["complete"])

    def test_noPlace(self) -> None:
        """
        A run that nobody waits for is not begun where it could not be found
        again.
        """

        @implementer(IRunStore)
        class Full(FileRunStore):
            def put(self, record: RunRecord) -> None:
                raise StoreError(Path("/runs/x.json"), "No space left on device")

        stores = attrs.evolve(self.dispatcher.stores, runs=Full(self.home))
        self.dispatcher = attrs.evolve(self.dispatcher, stores=stores)
        working = self.begin("web-1", asynchronous=True)
        self.failureResultOf(working, StoreError)
        self.assertEqual(self.agents.asked, [])
        self.assertIsInstance(self.written.events[-2], RunNotStored)
        self.agents.answers = {}
        self.assertTrue(self.run_on("web-1")["web-1"].ok)

    def test_pending(self) -> None:
        """
        Where it is not known what became of a host it stands in the record as
        one that may still be asked.
        """
        self.agents.answers = {"web-1": Unanswered("read timeout after 60s")}
        rows = self.run_on("web-1", "web-2")
        self.assertEqual(rows["web-1"].outcome, Outcome.UNKNOWN)
        record = self.on_record()
        self.assertEqual((record["pending"], record["complete"]), (["web-1"], False))

    def test_left(self) -> None:
        """
        When whoever has given the order leaves, nobody else is asked, and the
        record says of each host what is known.
        """
        slow: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-2": slow}
        self.dispatcher = self.configured("max_parallel = 1")
        working = self.begin("web-1", "web-2", "web-3")
        working.cancel()
        self.failureResultOf(working, CancelledError)
        record = self.on_record()
        self.assertEqual(
            {each["host"]: each["state"] for each in record["results"]},
            {"web-1": "ok", "web-2": "unknown", "web-3": "not started"},
        )
        self.assertEqual(record["pending"], ["web-2"])

    def test_hadEnough(self) -> None:
        """
        So it does when they want no more, and wait for what is under way.
        """
        slow: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-1": slow}
        self.dispatcher = self.configured("max_parallel = 1")
        working = self.begin("web-1", "web-2")
        self.seen.wants = False
        slow.callback(DONE)
        self.assertEqual(len(self.successResultOf(working).rows), 1)
        states = {each["host"]: each["state"] for each in self.on_record()["results"]}
        self.assertEqual(states, {"web-1": "ok", "web-2": "not started"})


class AsyncTests(RunsCase):
    """
    Nobody waits for the end of a run.
    """

    def test_submitted(self) -> None:
        """
        Agents are asked not to wait; what they answer is on record, and in the
        log.
        """
        self.agents.answers = {
            "web-1": RunAccepted("backup", ""),
            "web-2": BUSY,
            "web-3": Unreachable("refused"),
        }
        rows = self.run_on("web-1", "web-2", "web-3", asynchronous=True)
        request = self.agents.asked[0][1]
        assert isinstance(request, RunRequest)
        self.assertTrue(request.asynchronous)
        self.assertEqual(
            [row.outcome for row in rows.values()],
            [Outcome.ACCEPTED, Outcome.BUSY, Outcome.UNREACHABLE],
        )
        record = self.on_record()
        self.assertEqual((record["mode"], record["pending"]), ("async", ["web-1"]))
        self.assertEqual(
            record["hosts"],
            {
                "web-1": {"status": "accepted"},
                "web-2": {
                    "status": "busy",
                    "error": "script already running",
                    "state": "busy",
                },
                "web-3": {
                    "status": "error",
                    "error": "refused",
                    "state": "unreachable",
                },
            },
        )
        dispatched = self.written.events[1]
        assert isinstance(dispatched, Dispatched)
        self.assertEqual(dispatched.mode, "async")
        told = {type(event) for event in self.written.events}
        self.assertLess({RunSubmitted, RunBusy, RunNotSubmitted}, told)

    def test_unlocked(self) -> None:
        """
        A script is locked while it is asked for, and no longer.
        """
        self.agents.answers = {"web-1": RunAccepted("backup", "")}
        self.run_on("web-1", asynchronous=True)
        self.assertEqual([*self.done(self.dispatcher.list_locks(ALICE))], [])
        slow: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-1": slow}
        working = self.begin("web-1", asynchronous=True)
        self.failureResultOf(self.begin("web-1", asynchronous=True), Locked)
        slow.callback(DONE)
        self.successResultOf(working)

    def test_runsAtOnce(self) -> None:
        """
        An agent of the older line knows no such thing: it has run it.
        """
        self.agents.answers = {"web-1": DONE}
        rows = self.run_on("web-1", asynchronous=True)
        self.assertEqual(rows["web-1"].outcome, Outcome.OK)
        self.assertEqual(self.on_record()["hosts"]["web-1"]["status"], "done")

    def test_lost(self) -> None:
        """
        Of one whose answer is lost it may still turn out what it has done; but not
        of one that says that it knows of no such run.
        """
        self.agents.answers = {"web-1": Unanswered("lost")}
        self.agents.results = {"web-1": [Unanswered("lost")]}
        working = self.begin("web-1", asynchronous=True)
        self.clock.pump([1.0, 2.0])
        self.assertFalse(self.successResultOf(working).rows[0].ok)
        record = self.on_record()
        self.assertEqual(
            record["hosts"]["web-1"], {"status": "accepted", "fetch_error": "lost"}
        )
        self.assertFalse(record["complete"])
        (path,) = self.files
        path.unlink()
        self.agents.results = {}
        rows = self.run_on("web-1", asynchronous=True)
        self.assertEqual(rows["web-1"].outcome, Outcome.UNKNOWN)
        record = self.on_record()
        self.assertEqual(
            record["hosts"]["web-1"],
            {"status": "error", "error": "lost", "state": "unknown"},
        )
        self.assertTrue(record["complete"])
