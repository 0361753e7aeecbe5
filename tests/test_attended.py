# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.attended}.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.attended import Attended
from ctrlexec.dispatcher.interruption import ANSWER_SECONDS
from ctrlexec.dispatcher.orders import Caller
from ctrlexec.dispatcher.results import CancelRow, Report, RunRow
from ctrlexec.errors import NotAuthorised
from ctrlexec.protocol.run_messages import Output
from tests.scripted_apis import RAN, Seen

UP = Output(0, "stdout", "up\n", 3)
DONE = CancelRow(host="web-1", reqid="r1", state="cancelled")


class Reactor(MemoryReactorClock):
    """
    One that signals can wake.
    """

    def callFromThread(self, work: Callable[..., Any], *args: Any) -> None:
        """
        See C{IReactorFromThreads}.
        """
        self.callLater(0, work, *args)


@attrs.define
class Ours:
    """
    A dispatcher, as far as it can end a run.
    """

    reactor: Reactor
    ending: Deferred[Report[CancelRow]] = attrs.field(factory=Deferred)
    ended: list[tuple[str, str]] = attrs.field(factory=list)

    @property
    def process(self) -> Ours:
        """
        What has the reactor.
        """
        return self

    async def cancel(
        self, caller: Caller, reqid: str, hosts: tuple[str, ...], watcher: Any
    ) -> Report[CancelRow]:
        """
        See L{ctrlexec.dispatcher.operations.Dispatcher.cancel}.
        """
        self.ended.append((caller.username, reqid))
        report = await self.ending
        for row in report.rows:
            watcher.arrived(row)
        return report


class Gone(Seen[RunRow]):
    """
    Somebody who reads no more.
    """

    def heard(self, host: str, event: object) -> None:
        """
        See L{Seen}.
        """
        raise BrokenPipeError


class AttendedTests(SynchronousTestCase):
    """
    A run that is being carried out, and somebody who interrupts it.
    """

    def setUp(self) -> None:
        stdin, self.keys = os.pipe()
        self.addCleanup(os.close, stdin)
        self.addCleanup(os.close, self.keys)
        self.reactor = Reactor()
        self.ours = Ours(self.reactor)
        self.seen: Seen[RunRow] = Seen(typed=["offered"], stdin=stdin)
        self.work: Deferred[str] = Deferred()
        ours: Any = self.ours
        self.attended = Attended(ours, Caller(username="ann"), self.seen)

        async def work() -> str:
            return await self.work

        self.seeing = Deferred.fromCoroutine(self.attended.see(work()))
        self.attended.planned(2, "r1")
        self.attended.asked("web-1")

    def tearDown(self) -> None:
        """
        Nothing is left over.
        """
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.reactor.getReaders(), [])

    def interrupt(self) -> None:
        """
        Ctrl-C.
        """
        assert self.seen.interrupt is not None
        self.seen.interrupt()
        self.reactor.advance(0)

    def types(self, text: str) -> None:
        """
        Press some keys.
        """
        os.write(self.keys, text.encode())
        for reader in self.reactor.getReaders():
            reader.doRead()
        self.reactor.advance(0)

    def test_undisturbed(self) -> None:
        """
        What nobody interrupts is as if nobody sat there.
        """
        self.assertIsNone(self.attended.heard("web-1", UP))
        self.attended.arrived(RAN)
        self.assertTrue(self.attended.wanted())
        self.work.callback("done")
        self.assertEqual(self.successResultOf(self.seeing), "done")
        self.assertEqual((self.seen.total, self.seen.reqid), (2, "r1"))
        self.assertEqual(self.seen.events, [("web-1", UP)])
        self.assertEqual((self.seen.hosts, self.seen.rows), (["web-1"], [RAN]))
        self.assertIsNone(self.seen.interrupt)

    def test_goesOn(self) -> None:
        """
        While they think, it goes on; what is written waits, and is shown when
        they want to go on.
        """
        self.interrupt()
        waiting = self.attended.heard("web-1", UP)
        assert waiting is not None
        self.assertNoResult(waiting)
        self.attended.arrived(RAN)
        self.assertEqual((self.seen.events, self.seen.rows), ([], [RAN]))
        self.types("\n")
        self.successResultOf(waiting)
        self.assertEqual(self.seen.events, [("web-1", UP)])
        self.assertIsNone(self.attended.heard("web-1", UP))
        self.work.callback("done")
        self.assertEqual(self.successResultOf(self.seeing), "done")

    def test_noAnswer(self) -> None:
        """
        Whoever types nothing has said nothing.
        """
        self.interrupt()
        self.reactor.advance(ANSWER_SECONDS)
        self.assertEqual(self.reactor.getReaders(), [])
        self.assertNoResult(self.seeing)
        self.work.callback("done")
        self.successResultOf(self.seeing)

    def test_noKeyboard(self) -> None:
        """
        A terminal that is gone says nothing either.
        """
        null = os.open(os.devnull, os.O_RDONLY)
        self.addCleanup(os.close, null)
        self.seen.stdin = null
        self.interrupt()
        self.types("")
        self.assertEqual(self.reactor.getReaders(), [])
        self.work.callback("done")
        self.successResultOf(self.seeing)

    def test_endsMeanwhile(self) -> None:
        """
        What has ended needs no answer.
        """
        self.interrupt()
        self.work.callback("done")
        self.assertEqual(self.successResultOf(self.seeing), "done")

    def test_leaves(self) -> None:
        """
        Whoever does not want to wait leaves; so does whoever interrupts twice,
        or can not be asked.
        """
        for leave in (
            lambda: self.types("d\n"),
            self.interrupt,
        ):
            self.interrupt()
            leave()
            self.failureResultOf(self.seeing, KeyboardInterrupt)
            self.assertFalse(self.attended.wanted())
            self.setUp()
        self.seen.typed.clear()
        self.interrupt()
        self.failureResultOf(self.seeing, KeyboardInterrupt)

    def test_cancels(self) -> None:
        """
        Whoever wants it to end sees that, and how the run has ended by that.
        """
        self.interrupt()
        self.types("c\n")
        self.assertEqual(self.ours.ended, [("ann", "r1")])
        self.attended.arrived(RAN)
        self.work.callback("done")
        self.assertNoResult(self.seeing)
        self.ours.ending.callback(Report([DONE]))
        self.assertEqual(self.successResultOf(self.seeing), "done")
        self.assertEqual(self.seen.ended, [DONE])

    def test_canNotCancel(self) -> None:
        """
        Whoever may not is told so, and it goes on.
        """
        self.interrupt()
        self.types("c\n")
        denied = NotAuthorised("denied", 1)
        self.ours.ending.errback(denied)
        self.assertEqual(self.seen.ended, [denied])
        self.assertNoResult(self.seeing)
        self.work.callback("done")
        self.successResultOf(self.seeing)

    def test_onceMore(self) -> None:
        """
        Where it could not be ended they can ask for that once more; what they
        do not answer is nothing.
        """
        self.interrupt()
        self.types("c\n")
        self.ours.ending.callback(Report([DONE]))
        self.seen.typed = ["offered"]
        self.interrupt()
        self.assertNoResult(self.seeing)
        self.ours.ending = Deferred()
        self.types("c\n")
        self.assertEqual(self.ours.ended, [("ann", "r1")] * 2)
        self.ours.ending.callback(Report([DONE]))
        self.work.callback("done")
        self.successResultOf(self.seeing)

    def test_impatient(self) -> None:
        """
        Whoever does not want to wait for the end either leaves.
        """
        self.interrupt()
        self.types("c\n")
        self.interrupt()
        self.failureResultOf(self.seeing, KeyboardInterrupt)

    def test_givenUp(self) -> None:
        """
        What is given up from outside is given up.
        """
        self.interrupt()
        self.seeing.cancel()
        self.failureResultOf(self.seeing, CancelledError)

    def test_nobodyReads(self) -> None:
        """
        That nobody reads is no agent's fault: no more is read, and it ends
        with just that.
        """
        self.attended.onlooker = Gone()
        waiting = self.attended.heard("web-1", UP)
        assert waiting is not None
        self.assertNoResult(waiting)
        self.reactor.advance(0)
        self.failureResultOf(self.seeing, BrokenPipeError)
