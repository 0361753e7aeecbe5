# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for runs that nobody waits for, and for what a start is told: C{POST /run},
C{GET /result/REQID}, C{GET /runs} (NEWER-LINE.md sections 3.3, 3.6 and 6.1).
"""

from __future__ import annotations

import json

from twisted.internet.defer import Deferred

from ctrlexec.agent.runs import RunLimits
from ctrlexec.errors import LockHeld, NotStarted
from ctrlexec.hooks import Denied
from tests.agents import HQ, PEER
from tests.run_lives import LAB, RUN, LivesTestCase

UNKNOWN = (404, {"status": "unknown", "reqid": "r-1"})


class AsyncTests(LivesTestCase):
    """
    C{POST /run} with C{async}
    """

    def test_accepted(self) -> None:
        """
        It is accepted when it has been started, and its record says what becomes
        of it.
        """
        run = self.detached(username="ann")
        self.assertEqual(
            self.log.taken(),
            [
                f"ACTION=run-start {RUN} SCRIPT=hello",
                f"ACTION=run-async {RUN} SCRIPT=hello",
            ],
        )
        code, record = self.result()
        self.assertEqual((code, record["status"]), (200, "running"))
        self.assertEqual(record["owner"], "hq")
        self.assertEqual(json.loads((self.root / "hq/r-1.json").read_bytes()), record)
        run.writes(b"out\n")
        run.exits(3)
        code, record = self.result()
        self.assertEqual((code, record["status"], record["exit"]), (200, "done", 3))
        self.assertEqual((record["stdout"], record["state"]), ("out\n", "done"))
        self.assertEqual(json.loads((self.root / "hq/r-1.json").read_bytes()), record)
        self.assertEqual(self.kept(), ["hq/r-1.json"])
        self.assertEqual(
            self.log.taken(),
            [
                f"ACTION=result {RUN} STATUS=running",
                f"ACTION=run DISPATCHER=hq EXIT=3 PEER={PEER} REQID=r-1 SCRIPT=hello",
                f"ACTION=result {RUN} STATUS=done",
            ],
        )

    def test_callerGone(self) -> None:
        """
        Nobody waits, so nobody can go away.
        """
        exchange, _ = self.wants(waits=False, on_disconnect="cancel")
        exchange.lost()
        self.assertEqual(self.runner.started[0].cancels, 0)

    def test_noId(self) -> None:
        """
        Without an id that is good for a file it is refused.
        """
        for reqid in ("", "a b", "../x", "x" * 65):
            _, answers = self.wants(reqid, waits=False)
            [(code, answer)] = answers.given
            self.assertEqual(code, 200)
            self.assertEqual(answer["error"], "async run requires a valid reqid")
            self.assertEqual(answer["exit"], -1)
        self.assertEqual((self.runner.started, self.root.exists()), ([], False))

    def test_busy(self) -> None:
        """
        While another run has the lock of the script it is not started, and
        leaves no claim.
        """
        self.runner.refusal = LockHeld("held")
        _, answers = self.wants(waits=False)
        busy = {"script": "hello", "status": "busy", "reqid": "r-1"}
        busy["error"] = "script already running"
        busy["reason"] = "another run has the lock hello"
        self.assertEqual(answers.given, [(409, busy)])
        line = f"DISPATCHER=hq LOCK=hello PEER={PEER} REQID=r-1 SCRIPT=hello"
        self.assertEqual(self.logged("run-async-busy"), [line])
        self.assertEqual(self.kept(), [])
        self.runner.refusal = None
        self.detached()

    def test_busyWith(self) -> None:
        """
        Who has a lock is told to whom the run belongs, and to nobody else.
        """
        self.detached("r-1")
        self.runner.refusal = LockHeld("held")
        for certificate, reason in (
            (HQ, "run r-1 has the lock hello"),
            (LAB, "another run has the lock hello"),
        ):
            _, answers = self.wants("r-2", certificate, waits=False)
            self.assertEqual(answers.given[0][1]["reason"], reason)

    def test_notStarted(self) -> None:
        """
        A start that fails leaves no claim either.
        """
        self.runner.refusal = NotStarted("no room")
        _, answers = self.wants(waits=False)
        [(code, answer)] = answers.given
        self.assertEqual((code, answer["error"]), (200, "could not start async job"))
        self.assertEqual(answer["reason"], "no room")
        self.assertIn('REASON="no room"', self.logged("deny")[0])
        self.assertEqual((self.kept(), len(self.agent.runs.table)), ([], 0))

    def test_deniedFirst(self) -> None:
        """
        The hook is asked before anything is said of a reqid: PROTOCOL.md has it in
        that order.
        """
        self.authoriser.verdict = Denied("no", 1)
        _, answers = self.wants("", waits=False)
        self.assertEqual(answers.given[0][1]["error"], "not authorised: no")

    def test_denied(self) -> None:
        """
        What the hook refuses leaves no claim.
        """
        self.authoriser.verdict = Denied("no", 1)
        _, answers = self.wants(waits=False)
        self.assertEqual(answers.given[0][1]["error"], "not authorised: no")
        self.assertFalse(self.root.exists())


class OrderTests(LivesTestCase):
    """
    What a script is started with
    """

    def test_limits(self) -> None:
        """
        The settings say what holds, the line of the script what holds for it,
        and of two timeouts the shorter one counts.
        """
        self.settle(max_output=1000, run_grace=3.0, stdin_timeout=4.0)
        for asked, noted, expected in (
            (None, None, None),
            (5, None, 5),
            (None, 7.0, 7.0),
            (5, 7.0, 5),
            (9, 7.0, 7.0),
        ):
            self.annotate(timeout=noted)
            self.wants("", timeout=asked)
            order = self.runner.started[-1].order
            assert order is not None
            self.assertEqual(order.timeout, expected)
        assert order is not None
        self.assertEqual((order.max_output, order.grace), (1000, 3.0))
        self.assertEqual((order.stdin_timeout, order.lock), (4.0, None))
        limits = RunLimits(nproc=3)
        self.annotate(max_output=70, limits=limits)
        self.wants("")
        order = self.runner.started[-1].order
        assert order is not None
        self.assertEqual((order.max_output, order.limits), (70, limits))

    def test_locks(self) -> None:
        """
        A run that nobody waits for takes the lock of its script; another lock,
        or none, where its line says so, and then the others take it too.
        """
        place = self.root / ".locks"
        for noted, detached, expected in (
            (None, True, "hello"),
            (None, False, None),
            ("disk", True, "disk"),
            ("disk", False, "disk"),
            ("", True, None),
            ("", False, None),
        ):
            self.annotate(lock=noted)
            self.wants(f"r-{len(self.runner.started)}", waits=not detached)
            order = self.runner.started[-1].order
            assert order is not None
            found = place / f"{expected}.lock" if expected else None
            self.assertEqual(order.lock, found)

    def test_locked(self) -> None:
        """
        A run that somebody waits for hears who has the lock.
        """
        self.annotate(lock="disk")
        self.runner.refusal = LockHeld("held")
        error = "busy: disk is held by another run"
        refused = {"script": "hello", "exit": -1, "error": error, "reqid": "r-1"}
        answers = self.wants()[1]
        self.assertEqual(answers.given, [(200, {**refused, "state": "busy"})])
        self.assertEqual(self.kept(), [])
        self.runner.refusal = None
        self.wants()
        self.runner.refusal = LockHeld("held")
        [(_, answer)] = self.wants("r-2")[1].given
        self.assertEqual(answer["error"], error)
        self.assertEqual(answer["reason"], "run r-1 has the lock disk")

    def test_reloaded(self) -> None:
        """
        Settings are those of the moment at which a script starts.
        """
        self.detached("r-1")
        self.settle(max_output=5)
        self.detached("r-2")
        orders = [run.order for run in self.runner.started]
        self.assertEqual([o and o.max_output for o in orders], [8 * 2**20, 5])


class ResultTests(LivesTestCase):
    """
    C{GET /result/REQID}
    """

    def test_unknown(self) -> None:
        """
        A run that is not there.
        """
        self.assertEqual(self.result(), UNKNOWN)
        self.assertEqual(self.log.taken(), [f"ACTION=result-miss {RUN}"])

    def test_anothers(self) -> None:
        """
        A run of another dispatcher looks like one that is not there, while it
        lives and after; the log knows better.
        """
        run = self.detached()
        self.log.taken()
        denied = f"DISPATCHER=lab PEER={PEER} REASON=not-owner REQID=r-1"
        for _ in "ab":
            self.assertEqual(self.result(certificate=LAB), UNKNOWN)
            self.assertEqual(self.logged("result-deny"), [denied])
            if len(self.agent.runs.table):
                run.exits(0)
        # Each may have a run of this id.
        self.detached(certificate=LAB)
        self.assertEqual(self.result(certificate=LAB)[1]["status"], "running")
        self.assertEqual(self.result(certificate=HQ)[1]["status"], "done")

    def test_paths(self) -> None:
        """
        What is no id of a run is no path.
        """
        for path in ("", "a/b", "..", "a%20b", "x" * 65, ".0123456789abcdef"):
            answer = self.answer("GET", f"/result/{path}")
            self.assertEqual(answer, (404, {"error": "not found"}))
        self.assertEqual(self.answer("POST", "/result/r-1", {})[0], 404)

    def test_asked(self) -> None:
        """
        A run that waits for the hook is not unknown: who asks for it must not
        think that it will never be.
        """
        thinking: Deferred[Denied] = Deferred()
        self.authoriser.verdict = thinking  # type: ignore[assignment]
        self.wants(waits=False)
        self.assertEqual(self.result()[1]["status"], "running")
        thinking.callback(Denied("no", 1))
        self.assertEqual(self.result(), UNKNOWN)

    def test_original(self) -> None:
        """
        What an agent of the original has left is told as it stands.
        """
        path = self.root / "hq" / "r-1.json"
        path.parent.mkdir(parents=True)
        record = {"exit": 0, "status": "done", "reqid": "r-1", "stdout": "x"}
        path.write_text(json.dumps(record))
        self.assertEqual(self.result(), (200, record))

    def test_unreadable(self) -> None:
        """
        A record that is none is a fault, and no run that is not there.
        """
        path = self.root / "hq" / "r-1.json"
        path.parent.mkdir(parents=True)
        path.write_text("{")
        code, answer = self.result()
        self.assertEqual(code, 500)
        self.assertEqual(answer, {"error": "the record of the run can not be read"})

    def test_large(self) -> None:
        """
        A large record is sent as the peer reads it.
        """
        run = self.detached()
        run.writes(bytes(300_000))
        run.exits(0)
        _, answers = self.ask("GET", "/result/r-1")
        [told] = answers.long
        pieces = told.pieces()
        self.assertLessEqual(max(map(len, pieces)), 65_536)
        self.assertEqual(sum(map(len, pieces)), told.answer.length)
        self.assertEqual(json.loads(b"".join(pieces))["stdout"], "\0" * 300_000)

    def test_synchronous(self) -> None:
        """
        A run that somebody has waited for is on record too.
        """
        self.wants()
        self.runner.started[0].exits(0)
        self.assertEqual(self.result()[1]["async"], False)
