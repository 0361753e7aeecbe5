# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.tracing}.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from ctrlexec.dispatcher.orders import Rolling
from ctrlexec.dispatcher.recorded import recorded_rows
from ctrlexec.dispatcher.results import Outcome
from ctrlexec.dispatcher.run_record import NEVER_ASKED, NOT_ASKED
from ctrlexec.dispatcher.runs import RunRecord
from ctrlexec.errors import (
    NotAuthorised,
    Unreachable,
)
from ctrlexec.events import (
    ResultFetched,
    ResultNotFetched,
    RunNotStored,
    RunSettled,
)
from ctrlexec.protocol.codec_trust import NoSuchRequest
from ctrlexec.protocol.messages import (
    RunAnswer,
)
from ctrlexec.protocol.run_messages import (
    NoSuchRun,
    RunResult,
)
from ctrlexec.values import Portion, Target
from tests.authority import NOW
from tests.fake_agents import Recorded
from tests.lives import DONE, LifeCase, recorded
from tests.operating import ALICE, CLIENT


class StatusTests(LifeCase):
    """
    Agents are asked what became of a run.
    """

    def test_asked(self) -> None:
        """
        What they say is what is known from now on, and stays on record.
        """
        self.agents.results = {
            "web-1": [recorded("done", 3, stdout="out", stderr="err")],
            "web-2": [recorded("running")],
        }
        record = self.status()
        entry = {
            "status": "done",
            "exit": 3,
            "stdout": "out",
            "stderr": "err",
            "state": "failed",
        }
        self.assertEqual(record.entry("web-1"), entry)
        self.assertEqual((record.pending, record.complete), (("web-2",), False))
        self.assertEqual(
            [name for name, _ in self.agents.traced],
            [Target("web-1", "10.0.0.1", 7443), Target("web-2", "web-2", 8443)],
        )
        self.agents.results = {"web-2": [recorded("timed_out", 126, reason="late")]}
        record = self.status()
        self.assertTrue(record.complete)
        self.assertEqual(record.entry("web-1"), entry)
        self.assertEqual(record.entry("web-2")["state"], "timed out")
        self.assertEqual(record.entry("web-2")["reason"], "late")
        self.assertEqual(len(self.agents.traced), 3)
        self.status()
        self.assertEqual(len(self.agents.traced), 3)
        self.assertTrue(json.loads(self.path.read_bytes())["complete"])

    def test_unchanged(self) -> None:
        """
        Where nothing is new nothing is written, nor is it in the log twice; but as
        long as somebody asks for what is not known its record lives on.
        """
        hosts = {"web-2": {"status": "running"}}
        self.put(hosts=hosts, pending=["web-2"], complete=False)
        self.agents.results = {"web-2": [recorded("running")]}
        before = self.path.stat().st_ino
        early = NOW.timestamp() - 3600
        os.utime(self.path, (early, early))
        self.status()
        self.assertEqual(self.path.stat().st_ino, before)
        self.assertEqual(self.path.stat().st_mtime, NOW.timestamp())
        self.assertEqual(self.written.events, [])

    def test_notFetched(self) -> None:
        """
        An agent that does not answer keeps its state, and the others theirs.
        """
        self.agents.results = {
            "web-1": [recorded("done", 0)],
            "web-2": [Unreachable("refused")],
        }
        record = self.status()
        self.assertEqual(
            record.entry("web-2"), {"status": "running", "fetch_error": "refused"}
        )
        self.assertEqual(record.entry("web-1")["status"], "done")
        self.assertEqual(
            self.written.events,
            [
                ResultFetched("web-1", "done", "0ms", "r1"),
                ResultNotFetched("web-2", "refused", "0ms", "r1"),
                RunSettled("backup", "web-1", "ok", "r1"),
            ],
        )

    def test_expired(self) -> None:
        """
        What an agent knows nothing of any more has expired there; so has what
        one of the older line never knew.
        """
        self.agents.results = {
            "web-1": [NoSuchRun("r1")],
            "web-2": [NoSuchRequest("the agent answered 404")],
        }
        record = self.status()
        self.assertTrue(record.complete)
        for host in ("web-1", "web-2"):
            self.assertEqual(
                record.entry(host), {"status": "expired", "state": "unknown"}
            )
        row = recorded_rows(record)[0]
        self.assertEqual(row.outcome, Outcome.UNKNOWN)
        self.assertIn("its agent knows nothing of it", str(row.error))

    def test_unregistered(self) -> None:
        """
        An agent that is gone from the registry is nobody to ask.
        """
        self.dispatcher.stores.registry.remove("web-2")
        self.agents.results = {"web-1": [recorded("running")]}
        self.assertEqual(
            self.status().entry("web-2"),
            {"status": "running", "fetch_error": "unknown agent"},
        )

    def test_port(self) -> None:
        """
        Agents are reached where they were reached for the order.
        """
        self.put(hosts={"web-2": {"status": "running"}}, ports={"web-2": 9000})
        self.status()
        self.assertEqual(self.agents.traced[0][0], Target("web-2", "web-2", 9000))

    def test_underWay(self) -> None:
        """
        Whom an order has not come to yet has forgotten nothing, whichever
        process carries it out.
        """
        held = self.held("web-1")
        self.put(hosts=dict(self.hosts), reqid="r1")
        # Another process has this lock, for this run.
        locks = self.dispatcher.stores.locks
        (state,) = locks.listed()
        self.assertEqual(state.reqid, "other")
        other = self.home / "state/runs/other.json"
        record = {**json.loads(self.path.read_bytes()), "reqid": "other"}
        other.write_text(json.dumps(record))
        os.utime(other, (NOW.timestamp(), NOW.timestamp()))
        found = self.done(self.dispatcher.status(ALICE, "other"))
        self.assertEqual(found.pending, ("web-1", "web-2"))
        held.release("web-1")
        found = self.done(self.dispatcher.status(ALICE, "other"))
        self.assertTrue(found.complete)

    def test_ownOrder(self) -> None:
        """
        An order of this very process: what it has not come to stays, what has
        ended is known.
        """
        slow: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-1": slow}
        working = self.begin("web-1", "web-2", rolling=Rolling(batch=Portion(1)))
        reqid = self.seen.reqid
        record = self.done(self.dispatcher.status(ALICE, reqid))
        self.assertEqual(record.pending, ("web-1", "web-2"))
        slow.callback(DONE)
        self.successResultOf(working)
        record = self.done(self.dispatcher.status(ALICE, reqid))
        self.assertTrue(record.complete)
        self.assertEqual(len(record.fields["results"]), 2)

    def test_notAsked(self) -> None:
        """
        A host that was not asked yet is not asked about: as long as somebody
        carries the order out it may be; then it is not started, and stays that.
        """
        self.put(hosts={"web-1": {"status": "done", "exit": 0}, "web-2": {**NOT_ASKED}})
        with self.dispatcher.process.live.carrying_out("r1"):
            record = self.status()
        self.assertEqual(record.pending, ("web-2",))
        self.assertEqual(recorded_rows(record)[1].outcome, Outcome.NOT_STARTED)
        record = self.status()
        self.assertTrue(record.complete)
        self.assertEqual(record.entry("web-2"), NEVER_ASKED)
        self.assertEqual(recorded_rows(record)[1].error, "not started")
        self.assertEqual(self.agents.traced, [])
        self.assertTrue(json.loads(self.path.read_bytes())["complete"])

    def test_askedMeanwhile(self) -> None:
        """
        One that was asked before the order was given up may run.
        """
        slow: Deferred[RunResult] = Deferred()
        self.put(hosts={"web-1": {"status": "running"}, "web-2": {**NOT_ASKED}})
        self.agents.results = {"web-1": [slow]}
        working = Deferred.fromCoroutine(self.dispatcher.status(ALICE, "r1"))
        self.put(
            hosts={"web-1": {"status": "running"}, "web-2": {"status": "accepted"}}
        )
        slow.callback(recorded("running"))
        self.assertIn("web-2", self.successResultOf(working).pending)

    def test_unkept(self) -> None:
        """
        What can not be written down is told all the same.
        """
        self.agents.results = {"web-1": [recorded("done", 0)]}
        slow: Deferred[RunResult] = Deferred()
        self.agents.results["web-2"] = [slow]
        working = Deferred.fromCoroutine(self.dispatcher.status(ALICE, "r1"))
        self.path.unlink()
        slow.callback(recorded("done", 0))
        self.assertTrue(self.successResultOf(working).complete)
        self.assertIsInstance(self.written.events[-1], RunNotStored)

    def test_atOnce(self) -> None:
        """
        Of two who ask at the same time none undoes what the other has found.
        """
        one: Deferred[RunResult] = Deferred()
        two: Deferred[RunResult] = Deferred()
        self.agents.results = {"web-1": [one], "web-2": [recorded("running")]}
        first = Deferred.fromCoroutine(self.dispatcher.status(ALICE, "r1"))
        self.agents.results = {"web-1": [two], "web-2": [recorded("done", 0)]}
        second = Deferred.fromCoroutine(self.dispatcher.status(ALICE, "r1"))
        two.callback(recorded("running"))
        self.assertEqual(self.successResultOf(second).pending, ("web-1",))
        one.callback(recorded("done", 0))
        self.assertTrue(self.successResultOf(first).complete)
        self.assertTrue(self.status().complete)

    def test_waitedFor(self) -> None:
        """
        The record of a run that was waited for learns what was not known.
        """
        result = {"host": "web-1", "exit": -1, "error": "lost", "state": "unknown"}
        self.put(hosts=["web-1"], results=[result], pending=["web-1"], mode="sync")
        self.agents.results = {"web-1": [recorded("done", 0, stdout="up\n")]}
        record = self.status()
        self.assertTrue(record.complete)
        (found,) = record.fields["results"]
        self.assertEqual(
            (found["exit"], found["stdout"], found["state"]), (0, "up\n", "ok")
        )
        self.assertNotIn("error", found)

    def test_noReactor(self) -> None:
        """
        Where nothing can be waited for it is what is on record.
        """
        process = attrs.evolve(self.dispatcher.process, reactor=None)
        dispatcher = attrs.evolve(self.dispatcher, process=process)
        record = self.done(dispatcher.status(ALICE, "r1"))
        self.assertEqual((record.pending, self.agents.traced), (("web-1", "web-2"), []))

    def test_denied(self) -> None:
        """
        Who may not know asks no agent either.
        """
        self.failed(self.dispatcher.status(CLIENT, "r1"), NotAuthorised)
        self.failed(self.dispatcher.wait(CLIENT, "r1", 1), NotAuthorised)
        self.assertEqual(self.agents.traced, [])


class WaitTests(LifeCase):
    """
    Somebody waits until a run has ended everywhere.
    """

    hosts: Mapping[str, Any] = {"web-1": {"status": "accepted"}}

    def begin_waiting(self, seconds: float) -> Deferred[RunRecord]:
        """
        Wait so long.
        """
        return Deferred.fromCoroutine(self.dispatcher.wait(ALICE, "r1", seconds))

    def test_waits(self) -> None:
        """
        Agents are asked again and again, less and less often.
        """
        answers: list[Recorded] = [recorded("running") for _ in range(5)]
        self.agents.results = {"web-1": [*answers, recorded("done", 0)]}
        working = self.begin_waiting(300)
        for pause in (0.25, 0.5, 1.0, 2.0, 2.0):
            self.assertNoResult(working)
            asked = len(self.agents.traced)
            self.clock.advance(pause - 0.01)
            self.assertEqual(len(self.agents.traced), asked)
            self.clock.advance(0.01)
        self.assertTrue(self.successResultOf(working).complete)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_original(self) -> None:
        """
        One of the original line is asked less often: it would turn us away.
        """
        answers: list[Recorded] = [recorded("running", original=True) for _ in "123"]
        self.agents.results = {"web-1": [*answers, recorded("done", 0, original=True)]}
        working = self.begin_waiting(300)
        for pause in (2.0, 4.0, 8.0):
            self.assertNoResult(working)
            asked = len(self.agents.traced)
            self.clock.advance(pause - 0.01)
            self.assertEqual(len(self.agents.traced), asked)
            self.clock.advance(0.01)
        self.assertTrue(self.successResultOf(working).complete)

    def test_notForEver(self) -> None:
        """
        When the time is over it is what is known then.
        """
        self.agents.results = {"web-1": [recorded("running")]}
        working = self.begin_waiting(3)
        self.clock.pump([0.25] * 12)
        record = self.successResultOf(working)
        self.assertEqual((record.complete, record.pending), (False, ("web-1",)))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_slowAgent(self) -> None:
        """
        An agent that takes its time keeps nobody longer than they want, and
        what others have said by then is kept.
        """
        self.put(hosts={**self.hosts, "web-2": {"status": "running"}})
        self.agents.results = {"web-1": [Deferred()], "web-2": [recorded("done", 0)]}
        working = self.begin_waiting(2)
        self.clock.advance(2)
        self.assertEqual(self.successResultOf(working).pending, ("web-1",))
        self.assertEqual(json.loads(self.path.read_bytes())["pending"], ["web-1"])

    def test_complete(self) -> None:
        """
        What has ended is told at once, and nobody is asked.
        """
        self.put(hosts={"web-1": {"status": "expired"}})
        self.assertTrue(self.successResultOf(self.begin_waiting(300)).complete)
        self.assertEqual(self.agents.traced, [])

    def test_killed(self) -> None:
        """
        What a dispatcher has begun that was killed is waited for by another.
        """
        self.put(mode="sync", hosts={"web-1": {"status": "accepted"}})
        self.agents.results = {"web-1": [recorded("running"), recorded("done", 0)]}
        working = self.begin_waiting(300)
        self.clock.advance(0.25)
        self.assertTrue(self.successResultOf(working).complete)
