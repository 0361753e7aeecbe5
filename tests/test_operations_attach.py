# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.attaching}.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred

from ctrlexec.dispatcher.dispatch import NOTHING_KNOWN
from ctrlexec.dispatcher.order_progress import LOOK_SECONDS
from ctrlexec.dispatcher.orders import Rolling
from ctrlexec.dispatcher.orders import Seen as HasSeen
from ctrlexec.dispatcher.overtime import OVERTIME_SECONDS
from ctrlexec.dispatcher.results import Outcome, Report, RunRow
from ctrlexec.dispatcher.run_record import NOT_ASKED
from ctrlexec.errors import (
    NotAuthorised,
    NotFound,
    Unanswered,
    Unreachable,
    Untrusted,
)
from ctrlexec.events import AttachBegun, RunSettled
from ctrlexec.protocol.messages import RunAnswer
from ctrlexec.protocol.run_messages import (
    FollowRequest,
    NoSuchRun,
    Output,
    StreamEnded,
)
from ctrlexec.values import Portion
from tests.authority import NOW
from tests.lives import DONE, FAILED, LifeCase, denied_actions, recorded
from tests.operating import ALICE, CLIENT, Seen


class AttachTests(LifeCase):
    """
    Somebody hears a run that has begun.
    """

    def attach(
        self, *hosts: str, seen: Mapping[str, HasSeen] | None = None
    ) -> Report[RunRow]:
        """
        Hear it.
        """
        self.seen = Seen()
        return self.done(
            self.dispatcher.attach(ALICE, "r1", hosts, seen or {}, self.seen)
        )

    def test_all(self) -> None:
        """
        Where no host is named it is all of them, each from where it was left.
        """
        a, b = Output(0.1, "stdout", "a", 1), Output(0.2, "stdout", "b", 8)
        end = StreamEnded(1.0, "backup", "r1", 0)
        self.agents.follows = {"web-1": [[a, end]], "web-2": [[b, end]]}
        report = self.attach(seen={"web-2": HasSeen(7, 2)})
        self.assertEqual(self.seen.events, [("web-1", a), ("web-2", b)])
        self.assertEqual(
            self.agents.followed,
            [("web-1", FollowRequest("r1")), ("web-2", FollowRequest("r1", 7, 2))],
        )
        self.assertEqual([row.outcome for row in report.rows], [Outcome.OK] * 2)
        self.assertEqual([row.stdout for row in self.seen.rows], ["a", "b"])
        self.assertEqual((self.seen.total, self.seen.reqid), (2, "r1"))
        event = AttachBegun("backup", "web-1,web-2", "r1", "alice")
        self.assertEqual(self.written.events, [event])

    def test_settled(self) -> None:
        """
        That a run has ended is kept, with all of its output, and told; once.
        """
        event = Output(0.2, "stdout", "b", 8)
        end = StreamEnded(1.0, "backup", "r1", 3)
        self.agents.follows = {"web-1": [[event, end], [event, end]]}
        self.agents.results = {"web-1": [recorded("done", 3, stdout="whole b")]}
        for _ in range(2):
            self.attach("web-1", seen={"web-1": HasSeen(7, 0)})
        found = [each for each in self.written.events if isinstance(each, RunSettled)]
        self.assertEqual(found, [RunSettled("backup", "web-1", "failed", "r1")])
        record = self.dispatcher.stores.runs.get("r1", NOW.timestamp())
        self.assertEqual(record.entry("web-1")["stdout"], "whole b")
        self.assertEqual(record.pending, ("web-2",))

    def test_notSettled(self) -> None:
        """
        An agent that does not know of it any more, or does not answer, keeps
        nobody waiting, and takes nothing back.
        """
        end = StreamEnded(1.0, "backup", "r1", 3)
        for result in (NoSuchRun("r1"), Unreachable("refused"), recorded("running")):
            self.agents.follows = {"web-1": [[end]]}
            self.agents.results = {"web-1": [result]}
            (row,) = self.attach("web-1").rows
            self.assertEqual(row.exit, 3)
            record = self.dispatcher.stores.runs.get("r1", NOW.timestamp())
            self.assertEqual(record.pending, ("web-1", "web-2"))

    def test_bare(self) -> None:
        """
        Who has heard it all and wants no more of it has nothing kept, be it of a
        run that has ended or not.
        """
        self.put(
            hosts={
                "web-1": {"status": "done", "exit": 0, "stdout": "up\n"},
                "web-2": {"status": "accepted"},
            }
        )
        event = Output(0.2, "stdout", "b", 1)
        self.agents.follows = {"web-2": [[event, StreamEnded(1.0, "backup", "r1", 0)]]}
        seen: Seen[RunRow] = Seen()
        report = self.done(self.dispatcher.attach(ALICE, "r1", (), {}, seen, bare=True))
        self.assertEqual(len(seen.events), 2)
        self.assertEqual([row.stdout for row in (*report.rows, *seen.rows)], [""] * 4)
        self.assertEqual([row.outcome for row in report.rows], [Outcome.OK] * 2)

    def test_overtime(self) -> None:
        """
        Of a run whose time was limited the end is not waited for for ever, who
        ever has begun it.
        """
        self.put(hosts={"web-1": {"status": "accepted"}}, timeout=30)
        self.agents.follows = {"web-1": [[Deferred()]]}
        seen: Seen[RunRow] = Seen()
        attaching = self.dispatcher.attach(ALICE, "r1", (), {}, seen)
        working = Deferred.fromCoroutine(attaching)
        patience = self.dispatcher.settings.read_timeout
        self.clock.advance(30 + patience + OVERTIME_SECONDS)
        (row,) = self.successResultOf(working).rows
        self.assertEqual(row.outcome, Outcome.UNKNOWN)

    def test_one(self) -> None:
        """
        Hosts that are named, and no others.
        """
        self.agents.follows = {"web-2": [[StreamEnded(1.0, "backup", "r1", 3)]]}
        (row,) = self.attach("web-2").rows
        self.assertEqual((row.host, row.exit), ("web-2", 3))

    def test_ended(self) -> None:
        """
        What has ended is heard at once, from the record.
        """
        entry = {"status": "done", "exit": 0, "stdout": "up\n", "stderr": ""}
        busy = {"status": "busy", "error": "script already running"}
        self.put(hosts={"web-1": entry, "web-2": busy})
        one, two = self.attach().rows
        self.assertEqual((one.outcome, two.outcome), (Outcome.OK, Outcome.BUSY))
        self.assertEqual(
            self.seen.events, [("web-1", Output(0.0, "stdout", "up\n", 3))]
        )
        self.assertEqual(self.agents.followed, [])

    def test_endedLater(self) -> None:
        """
        Of what somebody has seen a part of, the agent knows to the byte which;
        where it does not answer, the record is good enough.
        """
        entry = {"status": "done", "exit": 0, "stdout": "up\n", "stderr": ""}
        self.put(hosts={"web-1": entry})
        rest, end = Output(0.1, "stdout", "p\n", 3), StreamEnded(1.0, "backup", "r1", 0)
        seen = {"web-1": HasSeen(1, 0)}
        self.agents.follows = {"web-1": [[rest, end]]}
        self.attach(seen=seen)
        self.assertEqual(self.seen.events, [("web-1", rest)])
        self.agents.follows = {"web-1": [[Unreachable("refused")]]}
        (row,) = self.attach(seen=seen).rows
        self.assertEqual(self.seen.events, [("web-1", Output(0.0, "stdout", "p\n", 3))])
        self.assertTrue(row.ok)

    def test_partlyHeard(self) -> None:
        """
        What the agent had told before it was lost is not told again from the
        record.
        """
        self.put(hosts={"web-1": {"status": "done", "exit": 0, "stdout": "abc"}})
        event = Output(0.1, "stdout", "b", 2)
        self.agents.follows = {"web-1": [[event, Unanswered("lost")]]}
        self.agents.results = {"web-1": [NoSuchRun("r1")]}
        self.attach(seen={"web-1": HasSeen(1, 0)})
        told = [e.text for _, e in self.seen.events if isinstance(e, Output)]
        self.assertEqual(told, ["b", "c"])

    def test_foreign(self) -> None:
        """
        A host that it does not go to.
        """
        error = self.failed(
            self.dispatcher.attach(ALICE, "r1", ("web-3",), {}, Seen()), NotFound
        )
        self.assertIn("web-3", str(error))

    def test_denied(self) -> None:
        """
        Who may not know hears nothing.
        """
        working = self.dispatcher.attach(CLIENT, "r1", (), {}, Seen())
        self.failed(working, NotAuthorised)
        self.assertEqual(denied_actions(self.written), ["status"])
        self.assertEqual(self.agents.followed, [])


class UnderWayTests(LifeCase):
    """
    Somebody hears a run whose order still goes over its hosts.
    """

    ends = (StreamEnded(1.0, "backup", "r1", 0),)

    def attach(self, reqid: str = "r1") -> Deferred[Report[RunRow]]:
        """
        Begin to.
        """
        self.heard: Seen[RunRow] = Seen()
        attaching = self.dispatcher.attach(ALICE, reqid, (), {}, self.heard)
        return Deferred.fromCoroutine(attaching)

    def roll(self, **how: Any) -> Deferred[Report[RunRow]]:
        """
        Begin an order that asks one host after the other.
        """
        self.slow: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-1": self.slow}
        self.agents.follows = {"web-1": [self.ends], "web-2": [self.ends]}
        rolling = Rolling(batch=Portion(1), **how)
        return self.begin("web-1", "web-2", rolling=rolling)

    def test_waits(self) -> None:
        """
        A host that was not asked yet is waited for, and followed once it is;
        whichever process carries the order out.
        """
        for elsewhere in (False, True):
            ordered = self.roll()
            ours = self.dispatcher
            if elsewhere:
                self.dispatcher = self.configured()
            attached = self.attach(self.seen.reqid)
            self.dispatcher = ours
            self.clock.pump([LOOK_SECONDS] * 9)
            self.assertEqual([row.host for row in self.heard.rows], ["web-1"])
            self.agents.answers = {"web-2": (two := Deferred[RunAnswer]())}
            self.slow.callback(DONE)
            self.clock.pump([LOOK_SECONDS] * 2)
            self.assertTrue(self.successResultOf(attached).rows[1].ok)
            followed = [host for host, _ in self.agents.followed]
            self.assertEqual(followed[-2:], ["web-1", "web-2"])
            two.callback(DONE)
            self.successResultOf(ordered)

    def test_leftOut(self) -> None:
        """
        One that is not asked any more since others have failed is told as that;
        and that they have.
        """
        ordered = self.roll(max_failures=Portion(0))
        attached = self.attach(self.seen.reqid)
        self.slow.callback(FAILED)
        self.assertTrue(self.successResultOf(ordered).stopped)
        self.clock.pump([LOOK_SECONDS] * 2)
        report = self.successResultOf(attached)
        outcomes = {row.host: row.outcome for row in report.rows}
        self.assertEqual(outcomes["web-2"], Outcome.NOT_STARTED)
        self.assertTrue(report.stopped)

    def test_onItsWay(self) -> None:
        """
        An agent that knows nothing of it yet will, as long as the order goes on.
        """
        self.agents.follows = {"web-1": [[NoSuchRun("r1")], self.ends]}
        self.put(hosts={"web-1": {"status": "accepted"}})
        with self.dispatcher.process.live.carrying_out("r1") as live:
            live.asked.add("web-1")
            attached = self.attach()
            self.assertNoResult(attached)
            self.clock.advance(LOOK_SECONDS)
            self.assertTrue(self.successResultOf(attached).rows[0].ok)

    def test_onRecordMeanwhile(self) -> None:
        """
        Where an agent can tell nothing whoever has asked it can.
        """
        self.agents.follows = {"web-1": [[NoSuchRun("r1")], [NoSuchRun("r1")]]}
        self.put(hosts={"web-1": {"status": "accepted"}})
        with self.dispatcher.process.live.carrying_out("r1") as live:
            live.asked.add("web-1")
            attached = self.attach()
            self.put(hosts={"web-1": {"status": "done", "exit": 3}})
        self.clock.advance(LOOK_SECONDS)
        (row,) = self.successResultOf(attached).rows
        self.assertEqual(row.exit, 3)

    def test_givenUp(self) -> None:
        """
        Where nobody carries the order out any more, who was not asked is not
        started, and nobody asks for it.
        """
        self.put(hosts={"web-1": {"status": "accepted"}, "web-2": {**NOT_ASKED}})
        self.agents.follows = {"web-1": [self.ends]}
        rows = self.successResultOf(self.attach()).rows
        self.assertEqual(
            [row.outcome for row in rows], [Outcome.OK, Outcome.NOT_STARTED]
        )
        self.assertEqual([host for host, _ in self.agents.followed], ["web-1"])

    def test_nothingOnRecord(self) -> None:
        """
        Where neither record nor agent says anything nobody goes on asking.
        """
        self.put(hosts=["web-1"], results=[], mode="sync")
        self.agents.follows = {"web-1": [[NoSuchRun("r1")]]}
        (row,) = self.successResultOf(self.attach()).rows
        self.assertEqual((row.outcome, row.error), (Outcome.UNKNOWN, NOTHING_KNOWN))

    def test_notReached(self) -> None:
        """
        That an agent is not reached now does not say that it never was.
        """
        for error in (Unreachable("refused"), Untrusted("who?")):
            self.put(hosts={"web-1": {"status": "running"}})
            self.agents.follows = {"web-1": [[error]]}
            (row,) = self.successResultOf(self.attach()).rows
            self.assertEqual((row.outcome, row.error), (Outcome.UNKNOWN, str(error)))
