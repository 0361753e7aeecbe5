# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.operations} and of L{ctrlexec.dispatcher.asking}:
locks, and what is kept of runs.
"""

from __future__ import annotations

from pathlib import Path

import attrs
from twisted.internet.defer import Deferred
from zope.interface import implementer

from ctrlexec.dispatcher.running import POLL_SECONDS
from ctrlexec.dispatcher.runs import FileRunStore, RunRecord
from ctrlexec.errors import (
    InvalidValue,
    Locked,
    NotFound,
    StoreError,
)
from ctrlexec.events import (
    LockConflict,
    RunNotStored,
)
from ctrlexec.interfaces import IRunStore
from ctrlexec.protocol.messages import (
    RunAnswer,
    RunFinished,
)
from ctrlexec.values import Submitter
from tests.authority import NOW
from tests.operating import ALICE, DispatcherCase


class LockTests(DispatcherCase):
    """
    A script runs once at a time on a host.
    """

    def test_held(self) -> None:
        """
        While a run is under way nobody else runs the same there; when it has
        ended somewhere, it may run there.
        """
        slow: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-1": slow}
        first = self.begin("web-1", "web-2")
        error = self.failureResultOf(self.begin("web-1"), Locked).value
        self.assertEqual(error.conflicts, ("web-1:backup",))
        self.assertEqual(self.agents.names, ["web-1", "web-2"])
        self.assertEqual(len(self.run_on("web-2")), 1)
        slow.callback(RunFinished("backup", 0, "", "", ""))
        self.successResultOf(first)
        self.agents.answers = {}
        self.assertTrue(self.run_on("web-1")["web-1"].ok)

    def test_allOrNothing(self) -> None:
        """
        Where one host is locked nobody is asked, and nothing stays locked.
        """
        held = self.held("web-2")
        working = self.begin("web-1", "web-2")
        self.failureResultOf(working, Locked)
        self.assertEqual(self.agents.asked, [])
        self.assertTrue(self.run_on("web-1")["web-1"].ok)
        held.release("web-2")

    def test_conflictLogged(self) -> None:
        """
        Who was turned away is written down.
        """
        held = self.held("web-1")
        self.failureResultOf(self.begin("web-1"), Locked)
        (event,) = self.written.events
        assert isinstance(event, LockConflict)
        self.assertEqual((event.conflicts, event.user), ("web-1:backup", "alice"))
        held.release("web-1")

    def test_otherScript(self) -> None:
        """
        Another script is another lock.
        """
        held = self.held("web-1", script="restart")
        self.assertTrue(self.run_on("web-1")["web-1"].ok)
        held.release("web-1")

    def test_waits(self) -> None:
        """
        Who wants to wait runs as soon as the lock is free.
        """
        held = self.held("web-1")
        working = self.begin("web-1", wait_lock_seconds=10)
        self.clock.pump([POLL_SECONDS] * 5)
        self.assertEqual(self.agents.asked, [])
        held.release("web-1")
        self.clock.advance(POLL_SECONDS)
        self.assertTrue(self.successResultOf(working).rows[0].ok)

    def test_waitsNotForEver(self) -> None:
        """
        If it does not become free in time, that is the end.
        """
        held = self.held("web-1")
        working = self.begin("web-1", wait_lock_seconds=1)
        self.clock.pump([POLL_SECONDS] * 7)
        self.failureResultOf(working, Locked)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        held.release("web-1")

    def test_cancelled(self) -> None:
        """
        A run that is given up leaves nothing locked.
        """
        self.agents.answers = {"web-1": Deferred()}
        working = self.begin("web-1")
        working.cancel()
        self.failureResultOf(working)
        self.agents.answers = {}
        self.assertTrue(self.run_on("web-1")["web-1"].ok)

    def test_listed(self) -> None:
        """
        Who holds what can be seen.
        """
        held = self.held("web-1")
        (state,) = self.done(self.dispatcher.list_locks(ALICE))
        self.assertEqual(
            (state.host, state.script, state.user), ("web-1", "backup", "bob")
        )
        held.release("web-1")
        self.assertEqual([*self.done(self.dispatcher.list_locks(ALICE))], [])


class StatusTests(DispatcherCase):
    """
    What became of a run can be asked later.
    """

    def test_kept(self) -> None:
        """
        The hosts, their results and who asked are kept.
        """
        report = self.successResultOf(self.begin("web-1"))
        record = self.done(self.dispatcher.status(ALICE, report.reqid))
        self.assertEqual((record.script, record.hosts), ("backup", ("web-1",)))
        self.assertEqual(record.submitter, Submitter("alice", "127.0.0.1"))
        (result,) = record.fields["results"]
        self.assertEqual((result["host"], result["exit"]), ("web-1", 0))
        self.assertEqual(record.fields["completed"], int(NOW.timestamp()))

    def test_unknown(self) -> None:
        """
        Nobody's run is not found; what is no id is said to be none.
        """
        self.failed(self.dispatcher.status(ALICE, "0123456789abcdef"), NotFound)
        self.failed(self.dispatcher.status(ALICE, "../../etc/passwd"), InvalidValue)

    def test_notKept(self) -> None:
        """
        Where results can not be kept, they are given all the same, with a
        warning.
        """

        @implementer(IRunStore)
        class Full(FileRunStore):
            def put(self, record: RunRecord) -> None:
                raise StoreError(Path("/runs/x.json"), "No space left on device")

        stores = attrs.evolve(self.dispatcher.stores, runs=Full(self.home))
        self.dispatcher = attrs.evolve(self.dispatcher, stores=stores)
        report = self.successResultOf(self.begin("web-1"))
        self.assertTrue(report.rows[0].ok)
        self.assertIn("No space left", report.warnings[0])
        event = self.written.events[-1]
        assert isinstance(event, RunNotStored)
        self.assertEqual(event.reqid, report.reqid)
