# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.cancelling}, and of what is told of what runs.
"""

from __future__ import annotations

import json

from twisted.internet.defer import Deferred

from ctrlexec.dispatcher.course import POLL_SECONDS
from ctrlexec.dispatcher.dispatch import NOTHING_KNOWN
from ctrlexec.dispatcher.following import RETRY_SECONDS
from ctrlexec.dispatcher.orders import Rolling, Selection
from ctrlexec.dispatcher.overtime import OVERTIME_SECONDS
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.results import CancelRow, Outcome, PsRow, Report
from ctrlexec.dispatcher.run_record import NOT_ASKED
from ctrlexec.dispatcher.runs import FileRunStore, RunRecord
from ctrlexec.errors import (
    CtrlExecError,
    NotAuthorised,
    NotFound,
    Unanswered,
    UnknownAgents,
    Unreachable,
)
from ctrlexec.events import (
    CancelAnswered,
    CancelFailed,
)
from ctrlexec.protocol.messages import (
    RunAnswer,
    RunFinished,
)
from ctrlexec.protocol.run_messages import (
    CancelDone,
    LiveRun,
    LiveRunsAnswer,
    NoSuchRun,
)
from ctrlexec.values import Portion, Submitter
from tests.lives import DONE, LifeCase, denied_actions
from tests.operating import ALICE, CLIENT, DispatcherCase, Seen, overseen


class CancelTests(LifeCase):
    """
    Somebody ends a run.
    """

    def cancel(self, *hosts: str, reqid: str = "r1") -> dict[str, CancelRow]:
        """
        End it.
        """
        seen: Seen[CancelRow] = Seen()
        report = self.done(self.dispatcher.cancel(ALICE, reqid, hosts, seen))
        self.assertEqual([*report.rows], seen.rows)
        return {row.host: row for row in report.rows}

    def test_all(self) -> None:
        """
        Each of its hosts is asked to end it; what they answer is told, and in
        the log.
        """
        self.agents.ends = {
            "web-1": CancelDone("r1", "done"),
            "web-2": Unanswered("lost"),
        }
        rows = self.cancel()
        self.assertEqual(self.agents.ended, [("web-1", "r1"), ("web-2", "r1")])
        self.assertEqual((rows["web-1"].state, rows["web-1"].ok), ("done", True))
        self.assertEqual((rows["web-2"].error, rows["web-2"].ok), ("lost", False))
        self.assertIn("ctrl-exec cancel r1", rows["web-2"].hint)
        self.assertEqual(
            self.written.events,
            [
                CancelAnswered("web-1", "done", "0ms", "r1", "alice"),
                CancelFailed("web-2", "lost", "0ms", "r1", "alice"),
            ],
        )

    def test_some(self) -> None:
        """
        Hosts that are named, and no others.
        """
        self.cancel("web-2")
        self.assertEqual(self.agents.ended, [("web-2", "r1")])
        self.failed(self.dispatcher.cancel(ALICE, "r1", ("x",), Seen()), NotFound)

    def test_twice(self) -> None:
        """
        Whoever ends it again learns how it has ended.
        """
        self.cancel()
        self.agents.ends = dict.fromkeys(
            ("web-1", "web-2"), CancelDone("r1", "cancelled")
        )
        self.assertEqual({row.state for row in self.cancel().values()}, {"cancelled"})

    def test_ownOrder(self) -> None:
        """
        An order that this very process carries out asks nobody else any more:
        who has not been asked need not be told.
        """
        slow: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-1": slow}
        working = self.begin(
            "web-1", "web-2", rolling=Rolling(batch=Portion(1), wait_seconds=3600)
        )
        rows = self.cancel(reqid=self.seen.reqid)
        self.assertEqual(self.agents.ended, [("web-1", self.seen.reqid)])
        self.assertEqual(rows["web-2"].state, "cancelled")
        slow.callback(RunFinished("backup", 126, "", "", "", "cancelled", "cancelled"))
        report = self.successResultOf(working)
        self.assertEqual(
            {row.host: row.outcome for row in report.rows},
            {"web-1": Outcome.CANCELLED, "web-2": Outcome.NOT_STARTED},
        )
        self.assertFalse(report.stopped)
        self.assertEqual(self.agents.names, ["web-1"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        path = self.home / f"state/runs/{self.seen.reqid}.json"
        record = json.loads(path.read_bytes())
        self.assertEqual(record["cancelled"], ["web-1", "web-2"])

    def test_neverEnds(self) -> None:
        """
        An agent that goes on saying that it runs, whatever it answers, keeps
        nobody waiting.
        """
        self.agents.lives = {name: [Deferred()] for name in ("web-1", "web-2")}
        self.agents.ends = {"web-1": CancelDone("r1", "cancelled")}
        working = self.begin("web-1", "web-2", follow=True)
        self.clock.advance(1e6)
        seen = self.seen
        self.cancel("web-1", reqid=seen.reqid)
        self.clock.advance(OVERTIME_SECONDS)
        self.assertEqual([row.host for row in seen.rows], ["web-1"])
        self.agents.ends = {"web-2": Unanswered("lost")}
        self.cancel("web-2", reqid=seen.reqid)
        self.clock.advance(OVERTIME_SECONDS)
        rows = self.successResultOf(working).rows
        self.assertEqual([row.outcome for row in rows], [Outcome.UNKNOWN] * 2)

    def test_beforeRepeated(self) -> None:
        """
        A host that was not reached is not asked once more when that has been
        ended, however idempotent its script is.
        """
        self.register(AgentRecord(hostname="web-2", idempotent=("backup",)))
        self.agents.answers = {"web-2": Unreachable("refused")}
        working = self.begin("web-2")
        self.assertNoResult(working)
        self.cancel(reqid=self.seen.reqid)
        self.clock.advance(RETRY_SECONDS)
        (row,) = self.successResultOf(working).rows
        self.assertEqual((row.outcome, row.error), (Outcome.UNREACHABLE, "refused"))
        self.assertEqual(self.agents.names, ["web-2"])

    def test_partOfOwnOrder(self) -> None:
        """
        Or it asks the hosts no more that were named.
        """
        slow: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-1": slow}
        self.dispatcher = self.configured("max_parallel = 1")
        working = self.begin("web-1", "web-2", "nobody")
        self.cancel("web-2", reqid=self.seen.reqid)
        self.assertEqual(self.agents.ended, [])
        slow.callback(DONE)
        outcomes = {row.host: row.outcome for row in self.successResultOf(working).rows}
        self.assertEqual(outcomes["web-1"], Outcome.OK)
        self.assertEqual(outcomes["web-2"], Outcome.NOT_STARTED)
        self.assertEqual(outcomes["nobody"], Outcome.UNREACHABLE)

    def test_othersOrder(self) -> None:
        """
        An order that another process carries out learns it before its next lot.
        """
        slow: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-1": slow}
        working = self.begin("web-1", "web-2", rolling=Rolling(batch=Portion(1)))
        other = self.configured()
        self.assertIsNone(other.process.live.get(self.seen.reqid))
        self.agents.ends = {"web-2": NoSuchRun("")}
        cancelling = other.cancel(ALICE, self.seen.reqid, (), Seen())
        rows = self.done(cancelling).rows
        self.assertEqual([row.state for row in rows], ["cancelled"] * 2)
        slow.callback(DONE)
        outcomes = [row.outcome for row in self.successResultOf(working).rows]
        self.assertEqual(outcomes, [Outcome.OK, Outcome.NOT_STARTED])

    def test_othersLot(self) -> None:
        """
        Or, if it takes long over a lot, within a second.
        """
        slow: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-1": slow}
        self.dispatcher = self.configured("max_parallel = 1")
        working = self.begin("web-1", "web-2")
        self.agents.ends = {"web-2": NoSuchRun("")}
        other = self.configured()
        self.done(other.cancel(ALICE, self.seen.reqid, ("web-2",), Seen()))
        self.clock.advance(1)
        slow.callback(DONE)
        outcomes = [row.outcome for row in self.successResultOf(working).rows]
        self.assertEqual(outcomes, [Outcome.OK, Outcome.NOT_STARTED])

    def test_othersPause(self) -> None:
        """
        So it is while it waits between two lots: it does not wait any more.
        """
        rolling = Rolling(batch=Portion(1), wait_seconds=3600.0)
        working = self.begin("web-1", "web-2", rolling=rolling)
        self.clock.advance(600)
        self.assertNoResult(working)
        self.agents.ends = {"web-2": NoSuchRun("")}
        other = self.configured()
        self.done(other.cancel(ALICE, self.seen.reqid, (), Seen()))
        self.clock.pump([POLL_SECONDS] * 6)
        outcomes = [row.outcome for row in self.successResultOf(working).rows]
        self.assertEqual(outcomes, [Outcome.OK, Outcome.NOT_STARTED])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lookedOnce(self) -> None:
        """
        Waiting costs nobody much: a record that nobody writes is read once.
        """
        read: list[str] = []
        get = FileRunStore.get

        def counted(runs: FileRunStore, reqid: str, now: float) -> RunRecord:
            read.append(reqid)
            return get(runs, reqid, now)

        self.patch(FileRunStore, "get", counted)
        rolling = Rolling(batch=Portion(1), wait_seconds=600.0)
        self.begin("web-1", "web-2", rolling=rolling)
        self.clock.pump([POLL_SECONDS] * 1000)
        self.assertEqual(len(read), 1)

    def test_nobodysOrder(self) -> None:
        """
        Where nobody carries the order out, an agent that knows nothing of it is
        no success.
        """
        self.agents.ends = {"web-1": NoSuchRun("r1")}
        rows = self.cancel()
        self.assertEqual(rows["web-1"].error, NOTHING_KNOWN)

    def test_neverBegan(self) -> None:
        """
        Where it is on record that it never began nobody is asked to end it.
        """
        gone = {"status": "error", "error": "refused", "state": "unreachable"}
        busy = {"status": "busy", "error": "script already running", "state": "busy"}
        for entry, state in (
            (gone, "unreachable"),
            (busy, "busy"),
            (dict(NOT_ASKED), "not started"),
        ):
            self.put(hosts={"web-1": {"status": "running"}, "web-2": entry})
            rows = self.cancel()
            self.assertEqual((rows["web-2"].state, rows["web-2"].ok), (state, True))
        self.assertEqual({name for name, _ in self.agents.ended}, {"web-1"})

    def test_notAskedYet(self) -> None:
        """
        As long as somebody carries the order out its agent is told all the same:
        it may be asked just now.
        """
        self.put(hosts={"web-1": {"status": "running"}, "web-2": {**NOT_ASKED}})
        self.agents.ends = {"web-2": NoSuchRun("r1")}
        with self.dispatcher.process.live.carrying_out("r1") as live:
            live.asked.update(("web-1", "web-2"))
            self.assertEqual(self.cancel()["web-2"].state, "cancelled")
        self.assertEqual([name for name, _ in self.agents.ended], ["web-1", "web-2"])

    def test_unknown(self) -> None:
        """
        Nobody's run can not be ended.
        """
        self.failed(self.dispatcher.cancel(ALICE, "r2", (), Seen()), NotFound)

    def test_question(self) -> None:
        """
        Who decides learns whose run it is, which script, and on which hosts it
        is to be ended.
        """
        self.dispatcher, asked = overseen(self.dispatcher)
        self.cancel("web-2")
        (context,) = asked
        self.assertEqual(
            (context.action, context.hosts, context.script, context.reqid),
            ("cancel", ("web-2",), "backup", "r1"),
        )
        self.assertEqual(context.submitter, Submitter("alice", "127.0.0.1"))

    def test_denied(self) -> None:
        """
        Who may not end it ends nothing, here or there.
        """
        self.failed(self.dispatcher.cancel(CLIENT, "r1", (), Seen()), NotAuthorised)
        self.assertEqual(denied_actions(self.written), ["cancel"])
        self.assertEqual(self.agents.ended, [])
        self.assertNotIn("cancelled", json.loads(self.path.read_bytes()))


class PsTests(DispatcherCase):
    """
    Somebody asks what runs.
    """

    def ps(self, *hosts: str) -> Report[PsRow]:
        """
        Ask these hosts.
        """
        return self.done(self.dispatcher.ps(ALICE, Selection(hosts), Seen()))

    def test_all(self) -> None:
        """
        Where nobody is named everybody is asked.
        """
        run = LiveRun("r1", "backup", "running", "2026-11-20T22:32:04Z", 3.5)
        self.agents.running = {
            "web-1": LiveRunsAnswer((run,), 2),
            "web-2": CtrlExecError("lost"),
        }
        self.assertEqual(
            [*self.ps().rows],
            [
                PsRow(host="web-1", runs=(run,), others=2),
                PsRow(host="web-2", error="lost"),
            ],
        )

    def test_some(self) -> None:
        """
        A stranger is a row; through the API it is an error.
        """
        rows = self.ps("web-2", "nobody").rows
        self.assertEqual(
            {row.host: row.ok for row in rows}, {"web-2": True, "nobody": False}
        )
        allowing = self.configured("api_auth_default = allow")
        self.failed(allowing.ps(CLIENT, Selection(("nobody",)), Seen()), UnknownAgents)

    def test_denied(self) -> None:
        """
        Who may not know asks nobody.
        """
        self.failed(self.dispatcher.ps(CLIENT, Selection(()), Seen()), NotAuthorised)
        self.assertEqual(denied_actions(self.written), ["ps"])
        self.assertEqual(self.agents.asked, [])
