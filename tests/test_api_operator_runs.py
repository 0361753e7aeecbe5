# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.api.operator}: runs that command lines follow, end and ask
for, and what becomes of them when a command line leaves.
"""

from __future__ import annotations

import attrs
from twisted.internet.defer import Deferred

from ctrlexec.dispatcher.operator import AttachWish, CancelWish, WaitWish
from ctrlexec.dispatcher.operator_lines import Asked, Ended, Heard, Planned
from ctrlexec.dispatcher.orders import RunOrder, Seen, Selection
from ctrlexec.dispatcher.results import CancelRow, Outcome, PsRow, RunRow
from ctrlexec.dispatcher.run_record import RunRecord
from ctrlexec.errors import NotFound
from ctrlexec.protocol.messages import RunAccepted
from ctrlexec.protocol.run_messages import (
    RUNNING,
    CancelDone,
    LiveRun,
    LiveRunsAnswer,
    Output,
    RunResult,
    Signalled,
    StreamEnded,
)
from tests.apis import Wire
from tests.operators import OperatorCase

ONE = Selection(("web-1",))
FOLLOWED = RunOrder(selection=ONE, script="backup", follow=True)
LIVE = LiveRun("r1", "backup", RUNNING, "2026-11-20T22:32:04Z", 2.0)


def out(text: str, end: int) -> Output:
    """
    Something that a script writes.
    """
    return Output(0.5, "stdout", text, end)


def ended(reqid: str = "") -> StreamEnded:
    """
    The end of what it writes.
    """
    return StreamEnded(1.0, "backup", reqid, 0)


class RunsTests(OperatorCase):
    """
    What can be asked for about runs.
    """

    def begun(self) -> str:
        """
        @return: the id of a run that nobody waits for, and which lives.
        """
        order = RunOrder(selection=ONE, script="backup", asynchronous=True)
        self.agents.answers = {"web-1": RunAccepted("backup", "")}
        self.answer("run", order)
        _, asked = self.agents.asked[-1]
        assert asked is not None
        return asked.reqid

    def test_follow(self) -> None:
        """
        What a script writes is told before what becomes of it, as it comes.
        """
        more: Deferred[None] = Deferred()
        self.agents.lives = {"web-1": (out("a", 1), more, out("b\n", 3), ended())}
        wire = self.order("run", FOLLOWED)
        match self.told(wire):
            case [Planned(1), Asked("web-1"), Heard("web-1", Output(text="a"))]:
                pass
            case told:
                self.fail(f"{told}")
        more.callback(None)
        match self.told(wire):
            case [Heard("web-1", Output(text="b\n", end=3)), RunRow() as row, Ended()]:
                self.assertEqual(row.outcome, Outcome.OK)
            case told:
                self.fail(f"{told}")

    def test_slowReader(self) -> None:
        """
        Who reads slowly has the script's agent wait: of what it writes, one
        piece is on its way at the most.
        """
        pieces = [out(f"{number}\n" * 100, number) for number in range(50)]
        taken: list[int] = []

        def told() -> object:
            for piece in pieces:
                taken.append(piece.end)
                yield piece
            yield ended()

        self.agents.lives = {"web-1": told()}  # type: ignore[dict-item]
        wire = self.order("run", FOLLOWED, room=10)
        self.assertLessEqual(len(taken), 1)
        self.assertEqual(len(self.work), 1)
        for _ in range(30):
            wire.transport.read_by_peer(10 - wire.transport.room)
            wire.transport.room = 10
        self.assertGreater(len(taken), 1)
        self.assertLess(len(taken), 40)
        wire.transport.room = 10**9
        wire.transport.read_by_peer(0)
        self.assertEqual(len(taken), 50)
        self.assertEqual(len(self.work), 0)

    def test_slowReaderLeaves(self) -> None:
        """
        Once they have left nobody waits for them: the run is heard to its end,
        and kept.
        """
        pieces = [out("x" * 100, 100 * number) for number in range(1, 9)]
        self.agents.lives = {"web-1": (*pieces, ended())}
        wire = self.order("run", FOLLOWED, room=10)
        self.assertEqual(len(self.work), 1)
        wire.leave()
        self.assertEqual(len(self.work), 0)

    def test_attach(self) -> None:
        """
        Who comes back is told the rest.
        """
        reqid = self.begun()
        self.agents.results = {"web-1": [RunResult(reqid, "backup", RUNNING)] * 3}
        self.agents.follows = {"web-1": [(out("more\n", 12), ended(reqid))]}
        wish = AttachWish(reqid, ("web-1",), {"web-1": Seen(7, 0)})
        match self.answer("attach", wish):
            case [Planned(1), *lines, RunRow(host="web-1"), Ended()]:
                self.assertIn(Heard("web-1", out("more\n", 12)), lines)
            case told:
                self.fail(f"{told}")
        ((host, request),) = self.agents.followed
        self.assertEqual((host, request.reqid, request.stdout), ("web-1", reqid, 7))

    def test_attachLeaves(self) -> None:
        """
        Who leaves does not follow any more.
        """
        reqid = self.begun()
        ending: list[object] = []
        endless: Deferred[None] = Deferred(ending.append)
        self.agents.follows = {"web-1": [(endless, ended(reqid))]}
        wire = self.order("attach", AttachWish(reqid))
        self.assertEqual(len(self.api.streams), 1)
        wire.leave()
        self.assertEqual((len(ending), len(self.api.streams)), (1, 0))
        self.assertEqual(len(self.work), 0)
        self.assertFalse(self.logged("api-fail"))

    def test_attachShare(self) -> None:
        """
        Nobody follows so many that there is no room for others; root has all.
        """
        self.streams.most = 3
        reqid = self.begun()
        endless: list[Deferred[None]] = [Deferred() for _ in range(3)]
        self.agents.follows = {"web-1": [(each, ended(reqid)) for each in endless]}
        self.order("attach", AttachWish(reqid))
        reply = self.order("attach", AttachWish(reqid)).transport.value()
        self.assertIn(b" 429 ", reply.partition(b"\r\n")[0])
        for _ in range(2):
            self.order("attach", AttachWish(reqid), 0)
        self.assertEqual(len(self.streams), 3)

    def test_cancel(self) -> None:
        """
        Who ends a run is told what that has come to.
        """
        reqid = self.begun()
        signalled = (Signalled(7, "sleep", "TERM"),)
        self.agents.ends = {"web-1": CancelDone(reqid, "cancelled", signalled)}
        match self.answer("cancel", CancelWish(reqid)):
            case [Planned(1), Asked("web-1"), CancelRow() as row, Ended()]:
                self.assertEqual((row.state, row.signalled), ("cancelled", signalled))
            case told:
                self.fail(f"{told}")
        self.assertEqual(self.agents.ended, [("web-1", reqid)])

    def test_ps(self) -> None:
        """
        What runs is told of each host.
        """
        self.agents.running = {"web-1": LiveRunsAnswer((LIVE,), 2)}
        match self.answer("ps", Selection(())):
            case [Planned(2), *lines, Ended()]:
                rows = [line for line in lines if isinstance(line, PsRow)]
                (found,) = [row for row in rows if row.host == "web-1"]
                self.assertEqual((found.runs, found.others), ((LIVE,), 2))
            case told:
                self.fail(f"{told}")

    def test_wait(self) -> None:
        """
        A run is waited for, and its record told.
        """
        reqid = self.begun()
        running = RunResult(reqid, "backup", RUNNING)
        done = RunResult(reqid, "backup", "done", exit=3)
        self.agents.results = {"web-1": [running, done]}
        wire = self.order("wait", WaitWish(reqid, 60.0))
        self.assertEqual((self.told(wire), len(self.api.streams)), ([], 1))
        for _ in range(20):
            self.reactor.advance(0.25)
        (record,) = self.told(wire)
        assert isinstance(record, RunRecord)
        self.assertTrue(record.complete)

    def test_waitLeaves(self) -> None:
        """
        Who leaves does not wait.
        """
        reqid = self.begun()
        running = RunResult(reqid, "backup", RUNNING)
        self.agents.results = {"web-1": [running] * 9}
        wire = self.order("wait", WaitWish(reqid, 60.0))
        wire.leave()
        self.assertEqual(len(self.api.streams), 0)
        self.reactor.advance(5)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_unknown(self) -> None:
        """
        Of what there is not nothing can be told.
        """
        for operation, wish in (
            ("wait", WaitWish("none", 1.0)),
            ("attach", AttachWish("none")),
            ("cancel", CancelWish("none")),
        ):
            told = self.answer(operation, wish)
            self.assertFailed(told, NotFound, "no result for reqid none")

    def leaving(self, order: RunOrder) -> tuple[Wire, Deferred[object]]:
        """
        Somebody who leaves while a run lives.
        """
        (answer,) = self.late("web-1")
        wire = self.order("run", order)
        wire.leave()
        return wire, answer  # type: ignore[return-value]

    def test_runsOn(self) -> None:
        """
        A run does not end by somebody's leaving.
        """
        _, answer = self.leaving(RunOrder(selection=ONE, script="backup"))
        self.assertEqual(self.agents.ended, [])
        answer.callback(self.finished("web-1"))
        self.assertEqual(len(self.work), 0)

    def test_endsWithThem(self) -> None:
        """
        Unless they wanted that.
        """
        order = RunOrder(selection=ONE, script="backup", on_disconnect="cancel")
        _, answer = self.leaving(order)
        ((host, _),) = self.agents.ended
        self.assertEqual(host, "web-1")
        answer.callback(self.finished("web-1"))
        self.assertEqual(len(self.work), 0)
        self.assertFalse(self.logged("api-fail"))

    def test_staysToTheEnd(self) -> None:
        """
        Who has heard the end of it has not left.
        """
        order = RunOrder(selection=ONE, script="backup", on_disconnect="cancel")
        self.answer("run", attrs.evolve(order, follow=True))
        self.assertEqual(self.agents.ended, [])

    def test_cancelWhenCrowded(self) -> None:
        """
        A run can be ended however much there is to do.
        """
        reqid = self.begun()
        self.agents.ends = {"web-1": CancelDone(reqid, "cancelled")}
        endless: Deferred[None] = Deferred()

        async def wait() -> None:
            await endless

        for _ in range(self.most):
            self.work.begin(wait)
        match self.answer("cancel", CancelWish(reqid)):
            case [Planned(1), Asked("web-1"), CancelRow(state="cancelled"), Ended()]:
                pass
            case told:
                self.fail(f"{told}")
        endless.callback(None)
