# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.once} and L{ctrlexec.dispatcher.keys}.
"""

from __future__ import annotations

import json
import os
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred

from ctrlexec.dispatcher.keys import key_hash, order_digest
from ctrlexec.dispatcher.live_orders import LiveOrders
from ctrlexec.dispatcher.orders import Rolling, RunOrder, Selection
from ctrlexec.dispatcher.results import Outcome, Report, RunRow
from ctrlexec.dispatcher.running import POLL_SECONDS
from ctrlexec.errors import Conflict, Locked, StoreError
from ctrlexec.protocol.messages import (
    RunAccepted,
    RunAnswer,
)
from ctrlexec.protocol.run_messages import RunResult
from tests.authority import NOW
from tests.lives import DONE, FAILED, RunsCase
from tests.operating import ALICE


class KeyTests(RunsCase):
    """
    The same key is the same run.
    """

    def elsewhere(self, *hosts: str, **how: Any) -> Deferred[Report[RunRow]]:
        """
        Begin a run in another process.
        """
        ours = self.dispatcher
        process = attrs.evolve(ours.process, live=LiveOrders())
        self.dispatcher = attrs.evolve(ours, process=process)
        try:
            return self.begin(*hosts, **how)
        finally:
            self.dispatcher = ours

    def test_again(self) -> None:
        """
        An order that is given again is told what became of it, and not carried
        out.
        """
        self.agents.answers = {"web-1": FAILED}
        first = self.successResultOf(self.begin("web-1", "web-2", key="k"))
        again = self.successResultOf(self.begin("web-1", "web-2", key="k"))
        self.assertEqual(again.reqid, first.reqid)
        self.assertEqual((first.replayed, again.replayed), (False, True))
        self.assertEqual([*again.rows], [*first.rows])
        self.assertEqual(self.seen.rows, [*first.rows])
        self.assertEqual((self.seen.total, self.seen.reqid), (2, first.reqid))
        self.assertEqual(len(self.agents.asked), 2)

    def test_meanwhile(self) -> None:
        """
        Given again while it is carried out, it waits for its end, in spite of
        the locks.
        """
        slow: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-1": slow}
        first = self.begin("web-1", key="k")
        again = self.begin("web-1", key="k")
        self.clock.advance(POLL_SECONDS)
        self.assertNoResult(again)
        slow.callback(DONE)
        self.clock.advance(POLL_SECONDS)
        self.assertEqual(
            self.successResultOf(again).reqid, self.successResultOf(first).reqid
        )
        self.assertEqual(len(self.agents.asked), 1)

    def test_elsewhere(self) -> None:
        """
        The process that had begun it was killed: its agents tell what became of
        it.
        """
        self.successResultOf(self.begin("web-1", key="k"))
        (path,) = self.files
        record = json.loads(path.read_bytes())
        del record["results"]
        record |= {"hosts": {"web-1": {"status": "accepted"}}, "complete": False}
        path.write_text(json.dumps(record))
        os.utime(path, (NOW.timestamp(), NOW.timestamp()))
        done = RunResult(record["reqid"], "backup", "done", exit=4)
        self.agents.results = {"web-1": [done]}
        report = self.successResultOf(self.begin("web-1", key="k"))
        self.assertEqual([row.exit for row in report.rows], [4])
        self.assertEqual(len(self.agents.asked), 1)

    def test_another(self) -> None:
        """
        Another order with the same key is refused; with another key, or of
        somebody else, it is carried out.
        """
        self.successResultOf(self.begin("web-1", key="k"))
        for other in ({"script": "restart"}, {"asynchronous": True}):
            self.failureResultOf(self.begin("web-1", key="k", **other), Conflict)
        self.failureResultOf(self.begin("web-2", key="k"), Conflict)
        self.assertEqual(len(self.agents.asked), 1)
        self.successResultOf(self.begin("web-1", key="l"))
        bob = attrs.evolve(ALICE, username="bob")
        self.successResultOf(self.begin("web-2", key="k", caller=bob))
        self.assertEqual(len(self.agents.asked), 3)

    def test_notBegun(self) -> None:
        """
        An order that nobody was asked for takes no key.
        """
        held = self.held("web-1")
        refused = self.begin("web-1", key="k")
        self.clock.advance(POLL_SECONDS)
        self.failureResultOf(refused, Locked)
        held.release("web-1")
        self.assertTrue(self.run_on("web-1", key="k")["web-1"].ok)

    def test_asynchronous(self) -> None:
        """
        Nobody waits for a run that nobody wanted to wait for.
        """
        self.agents.answers = {"web-1": RunAccepted("backup", "")}
        first = self.successResultOf(self.begin("web-1", key="k", asynchronous=True))
        again = self.successResultOf(self.begin("web-1", key="k", asynchronous=True))
        self.assertEqual(again.reqid, first.reqid)
        self.assertEqual([row.outcome for row in again.rows], [Outcome.ACCEPTED])
        self.assertEqual(self.agents.traced, [])

    def test_neverOnRecord(self) -> None:
        """
        A process that was killed before it had put its order on record leaves
        the key to whoever asks again.
        """
        order = {"wait_lock_seconds": 3600.0, "key": "k"}
        held = self.held("web-1")
        killed = self.elsewhere("web-1", **order)
        self.assertNoResult(killed)
        held.release("web-1")
        report = self.successResultOf(self.begin("web-1", key="k"))
        self.assertTrue(report.rows[0].ok)
        killed.cancel()
        self.failureResultOf(killed, CancelledError)

    def test_lateOnRecord(self) -> None:
        """
        Of two processes that get there at the same time one carries it out, and
        the other hears of that.
        """
        held = self.held("web-1")
        late = self.elsewhere("web-1", key="k", wait_lock_seconds=3600.0)
        held.release("web-1")
        report = self.successResultOf(self.begin("web-1", key="k"))
        self.clock.advance(POLL_SECONDS)
        self.assertEqual(self.successResultOf(late).reqid, report.reqid)
        self.assertEqual(len(self.agents.asked), 1)
        self.assertEqual(len(self.files), 1)

    def test_killedAfter(self) -> None:
        """
        One that was killed right after that has asked nobody, and nobody is asked
        for it again: that is what whoever asks again hears.
        """
        self.successResultOf(self.begin("web-1", key="k"))
        (path,) = self.files
        record = json.loads(path.read_bytes())
        del record["results"]
        record |= {"hosts": {"web-1": {"status": "accepted"}}, "complete": False}
        path.write_text(json.dumps(record))
        os.utime(path, (NOW.timestamp(), NOW.timestamp()))
        report = self.successResultOf(self.begin("web-1", key="k"))
        (row,) = report.rows
        self.assertEqual(row.outcome, Outcome.UNKNOWN)
        self.assertIn("expired", str(row.error))
        self.assertEqual(len(self.agents.asked), 1)

    def test_noRoom(self) -> None:
        """
        An order whose key can not be kept is not carried out, even if somebody
        waits for it.
        """
        directory = self.home / "state/runs"
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.write_bytes(b"")
        self.failureResultOf(self.begin("web-1", key="k"), StoreError)
        self.assertEqual(self.agents.asked, [])
        self.assertTrue(self.run_on("web-1")["web-1"].ok)

    def test_lockedOut(self) -> None:
        """
        Who finds the script locked by the very same order, of another process
        that puts it on record just then, hears what becomes of that.
        """
        held = self.held("web-1")
        again = self.begin("web-1", key="k")
        self.assertNoResult(again)
        held.release("web-1")
        first = self.successResultOf(self.elsewhere("web-1", key="k"))
        self.clock.advance(POLL_SECONDS)
        self.assertEqual(self.successResultOf(again).reqid, first.reqid)
        self.assertEqual(len(self.agents.asked), 1)

    def test_hashes(self) -> None:
        """
        A key is told from that of another caller, and an order from another;
        what does not change the order makes no difference.
        """
        bob = attrs.evolve(ALICE, username="bob")
        other = attrs.evolve(ALICE, token="other")
        hashes = {key_hash(each, "k") for each in (ALICE, bob, other)}
        self.assertEqual(len(hashes), 3)
        self.assertNotIn("s3cret", "".join(hashes))
        order = RunOrder(selection=Selection(("web-1",)), script="backup")
        same = attrs.evolve(order, key="x", confirmed=True, wait_lock_seconds=3)
        self.assertEqual(order_digest(order), order_digest(same))
        for change in (
            {"args": ("x",)},
            {"timeout_seconds": 3.0},
            {"rolling": Rolling(canary=1)},
            {"selection": Selection(("web-1",), port=1)},
        ):
            changed = attrs.evolve(order, **change)
            self.assertNotEqual(order_digest(order), order_digest(changed))
