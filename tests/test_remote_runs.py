# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.dispatcher.remote}: runs that are followed, interrupted and
ended through an API.
"""

from __future__ import annotations

import socket
from threading import Event, Thread

from ctrlexec.dispatcher.operator_lines import (
    Planned,
    asked_line,
    ended_line,
    failed_line,
    heard_line,
    planned_line,
    record_line,
    row_line,
)
from ctrlexec.dispatcher.orders import Seen as Had
from ctrlexec.dispatcher.orders import Selection
from ctrlexec.dispatcher.results import CancelRow, PsRow, Report, RunRow
from ctrlexec.dispatcher.run_record import RunRecord
from ctrlexec.dispatcher.signals import Terminated
from ctrlexec.errors import NotFound
from ctrlexec.protocol.run_messages import LiveRun, Output
from tests.scripted_apis import (
    OK,
    ORDER,
    PATIENCE_SECONDS,
    RAN,
    RemoteTestCase,
    ScriptedApi,
    Seen,
    send,
)

UP = Output(0.5, "stdout", "up\n", 3)
ENDED = CancelRow(host="web-1", reqid="a1", state="cancelled")
BEGUN = (OK, planned_line(1, "a1"), asked_line("web-1"))


class OperationTests(RemoteTestCase):
    """
    What can be asked for.
    """

    def test_follow(self) -> None:
        """
        What a run writes is heard as it comes, before what becomes of it.
        """
        self.api(*BEGUN, heard_line("web-1", UP), row_line(RAN), ended_line())
        seen: Seen[RunRow] = Seen()
        report = self.backend().run(ORDER, seen)
        self.assertEqual(seen.events, [("web-1", UP)])
        self.assertEqual(report.rows, [RAN])

    def test_stopped(self) -> None:
        """
        That hosts were left out arrives.
        """
        self.api(OK, ended_line((), "a1", True))
        seen: Seen[RunRow] = Seen()
        self.assertTrue(self.backend().run(ORDER, seen).stopped)

    def test_attach(self) -> None:
        """
        The API is told how much somebody has had.
        """
        api = self.api(*BEGUN, heard_line("web-1", UP), row_line(RAN), ended_line())
        seen: Seen[RunRow] = Seen()
        report = self.backend().attach("a1", ("web-1",), {"web-1": Had(7, 1)}, seen)
        self.assertEqual((seen.events, report.rows), ([("web-1", UP)], [RAN]))
        api.thread.join(PATIENCE_SECONDS)
        head, fields = api.asked
        self.assertEqual(head, "POST /operator/attach HTTP/1.0")
        self.assertEqual((fields["reqid"], fields["hosts"]), ("a1", ["web-1"]))
        self.assertEqual(fields["seen"], {"web-1": {"stdout": 7, "stderr": 1}})

    def test_cancel(self) -> None:
        """
        A run is ended by its id.
        """
        api = self.api(*BEGUN, row_line(ENDED), ended_line())
        seen: Seen[CancelRow] = Seen()
        self.assertEqual(self.backend().cancel("a1", (), seen), Report([ENDED]))
        api.thread.join(PATIENCE_SECONDS)
        self.assertEqual(api.asked[0], "POST /operator/cancel HTTP/1.0")

    def test_ps(self) -> None:
        """
        What runs is a row a host.
        """
        row = PsRow(host="web-1", runs=(LiveRun("a1", "x", "running", "", 2.5),))
        self.api(OK, row_line(row), ended_line())
        seen: Seen[PsRow] = Seen()
        self.assertEqual(self.backend().ps(Selection(()), seen), Report([row]))

    def test_wait(self) -> None:
        """
        A record comes when it is complete, and time goes by until then.
        """
        go = Event()
        record = RunRecord.sync(
            reqid="a1",
            script="backup",
            hosts=("web-1",),
            results=[],
            completed=1,
            submitter=None,
        )

        def slowly(connection: socket.socket) -> None:
            send(connection, [OK])
            go.wait(PATIENCE_SECONDS)
            send(connection, [record_line(record)])

        api = self.does(slowly)
        found = self.backend(tick_seconds=0.01).await_end("a1", 30.0, go.set)
        self.assertEqual(found, record)
        api.thread.join(PATIENCE_SECONDS)
        self.assertEqual(api.asked[0], "POST /operator/wait HTTP/1.0")
        self.assertEqual((api.asked[1]["reqid"], api.asked[1]["seconds"]), ("a1", 30.0))


class InterruptionTests(RemoteTestCase):
    """
    Somebody interrupts it.
    """

    def setUp(self) -> None:
        super().setUp()
        self.go = Event()
        self.seen: Seen[RunRow] = Seen()

    def slow(self) -> ScriptedApi:
        """
        An API that carries something out until a test lets it end.
        """

        def slowly(connection: socket.socket) -> None:
            send(connection, BEGUN)
            self.go.wait(PATIENCE_SECONDS)
            send(connection, [heard_line("web-1", UP), row_line(RAN), ended_line()])

        api = self.does(slowly)
        # Before it is waited for.
        self.addCleanup(self.go.set)
        return api

    def interrupt(self) -> None:
        """
        As a signal does, while we wait or do something else.
        """
        interrupt, self.seen.on_tick = self.seen.interrupt, lambda: None
        assert interrupt is not None
        interrupt()

    def run_it_slowly(self) -> Report[RunRow]:
        """
        Give an order, and interrupt it as soon as it has been waited for.
        """
        self.slow()
        self.seen.on_tick = self.interrupt
        return self.backend(tick_seconds=0.01).run(ORDER, self.seen)

    def test_goesOn(self) -> None:
        """
        Whoever wants to wait on loses nothing.
        """

        def hears(seconds: float) -> str | None:
            self.go.set()
            return "\n"

        self.seen.typed, self.seen.hearing = ["offered"], hears
        self.assertEqual(self.run_it_slowly().rows, [RAN])
        self.assertEqual(self.seen.events, [("web-1", UP)])

    def test_leaves(self) -> None:
        """
        Whoever does not leaves; so does whoever interrupts again, or can not be
        asked.
        """
        for typed in (["d\n"], ["^C"], []):
            self.seen = Seen(typed=[*typed])
            self.assertRaises(KeyboardInterrupt, self.run_it_slowly)
            self.path.unlink()

    def test_leavesAtOnce(self) -> None:
        """
        So does whoever interrupts again before there is anything to read.
        """
        self.seen.on_offer = self.interrupt
        self.seen.typed, self.seen.hearing = ["offered"] * 3, lambda seconds: None
        self.assertRaises(KeyboardInterrupt, self.run_it_slowly)
        self.assertEqual(len(self.seen.typed), 3)

    def test_terminated(self) -> None:
        """
        What ends programs asks for nothing: they leave at once.
        """

        def terminated() -> None:
            raise Terminated

        self.slow()
        self.seen.on_tick, self.seen.typed = terminated, ["offered"]
        backend = self.backend(tick_seconds=0.01)
        self.assertRaises(Terminated, backend.run, ORDER, self.seen)
        self.assertEqual(self.seen.typed, ["offered"])

    def test_cancels(self) -> None:
        """
        Whoever wants it to end sees how it does, and what the run says then.
        """
        self.ending(OK, row_line(ENDED), ended_line())
        self.assertEqual(self.run_it_slowly().rows, [RAN])
        self.assertEqual(self.seen.ended, [ENDED])

    def test_canNotCancel(self) -> None:
        """
        Where it can not be ended that is said, and it goes on.
        """
        self.ending(OK, failed_line(NotFound("no result for reqid a1")))
        self.assertEqual(self.run_it_slowly().rows, [RAN])
        (error,) = self.seen.ended
        self.assertEqual(str(error), "no result for reqid a1")

    def ending(self, *lines: bytes) -> None:
        """
        Type c, and have the API say this to that.
        """

        def hears(seconds: float) -> str | None:
            self.path.unlink()
            self.api(*lines)
            Thread(target=self.go.set).start()
            return "c\n"

        self.seen.typed, self.seen.hearing = ["offered"], hears

    def test_whileBusy(self) -> None:
        """
        An interrupt that comes while we do not wait counts when we do.
        """
        self.slow()
        backend = self.backend(tick_seconds=PATIENCE_SECONDS)
        self.seen.on_plan = self.interrupt
        self.seen.typed = ["d\n"]
        self.assertRaises(KeyboardInterrupt, backend.run, ORDER, self.seen)
        self.assertEqual(self.seen.total, Planned(1).hosts)
