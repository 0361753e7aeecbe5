# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.run_archive}: what is forgotten of runs, and when.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from ctrlexec import uptime
from ctrlexec.agent import run_archive, run_store, run_sweep
from ctrlexec.agent.ordering import GONE
from ctrlexec.agent.run_ages import AGES, KEPT_SECONDS
from ctrlexec.agent.run_archive import BRIEF_REST, BRIEF_SECONDS, NOTED_SECONDS, REST
from ctrlexec.agent.run_store import RunStore
from ctrlexec.agent.run_sweep import Sweep, plan
from ctrlexec.agent.run_table import FRESH_SECONDS
from tests.authority import NOW
from tests.run_lives import LivesTestCase


class SweepTests(LivesTestCase):
    """
    When the store is swept
    """

    def test_inTime(self) -> None:
        """
        Every ten minutes, and what has been there for a day is forgotten then.
        """
        path = self.ended("old")
        self.timers.advance(600)
        self.clock.advance(KEPT_SECONDS + 1)
        self.timers.advance(599)
        self.assertTrue(path.exists())
        self.timers.advance(1)
        self.assertFalse(path.exists())

    def dated(self, reqid: str) -> Path:
        """
        A run that has ended, whose record is a day old, as somebody says.
        """
        self.wants(reqid)
        self.runner.started[-1].exits(0)
        path = self.root / "hq" / f"{reqid}.json"
        os.utime(path, (0, NOW.timestamp() - KEPT_SECONDS - 1))
        return path

    def takes(self, seconds: float) -> None:
        """
        From now on it takes so long to look through the store.
        """

        def slowly(*which: Any) -> Sweep:
            self.clock.advance(seconds)
            return plan(*which)

        self.patch(run_archive, "plan", slowly)

    def test_submitted(self) -> None:
        """
        And when something is begun that nobody waits for, but not where it takes
        long.
        """
        self.takes(2)
        path = self.dated("old")
        self.detached("new", args=["x"])
        self.assertFalse(path.exists())
        path = self.dated("older")
        self.clock.advance(2 * REST - 1)
        self.detached("newer", args=["x"])
        self.assertTrue(path.exists())
        self.clock.advance(1)
        self.detached("newest", args=["x"])
        self.assertFalse(path.exists())

    def test_brief(self) -> None:
        """
        What takes little time is done nearly each time.
        """
        self.takes(BRIEF_SECONDS)
        for reqid in ("new", "newer"):
            path = self.dated(f"before-{reqid}")
            self.detached(reqid, args=["x"])
            self.assertFalse(path.exists())
            self.clock.advance(BRIEF_SECONDS * BRIEF_REST)

    def test_noted(self) -> None:
        """
        What there is is written down now and then, and whenever something goes.
        """
        self.detached("a").exits(0)
        self.assertFalse((self.root / AGES).exists())
        self.clock.advance(NOTED_SECONDS)
        self.detached("b").exits(0)
        (self.root / AGES).unlink()
        self.dated("old")
        self.detached("c")
        self.assertTrue((self.root / AGES).exists())

    def test_started(self) -> None:
        """
        And when an agent starts: its host may not be up for long.
        """
        path = self.ended("old")
        self.agent = self.another_agent()
        self.assertTrue(path.exists())
        self.clock.advance(KEPT_SECONDS + 1)
        self.agent = self.another_agent()
        self.assertFalse(path.exists())

    def test_anotherHost(self) -> None:
        """
        For how long a host was up before it had the store says nothing of what is in
        there.
        """
        path = self.ended("old")
        self.agent.runs.sweep()
        self.patch(uptime, "BOOT_ID", self.directory / "nowhere")
        self.clock.advance(KEPT_SECONDS + 1)
        self.agent = self.another_agent()
        self.assertTrue(path.exists())

    def test_lives(self) -> None:
        """
        However old it is, what lives stays.
        """
        self.detached()
        self.agent.runs.sweep()
        self.clock.advance(KEPT_SECONDS + 1)
        self.agent.runs.sweep()
        self.assertEqual(self.result()[1]["status"], "running")

    def test_clockSet(self) -> None:
        """
        A clock that is set by years makes nothing forgotten, and nothing new.
        """
        self.patch(run_store, "DATED_SECONDS", float("inf"))
        self.time = NOW - timedelta(days=20_000)
        path = self.ended("old")
        os.utime(path, (0, self.time.timestamp()))
        for moment in (NOW, NOW - timedelta(days=9), NOW):
            self.time = moment
            self.agent.runs.sweep()
            self.assertEqual(self.result("old")[0], 200)
        self.wants("old")
        self.assertEqual(len(self.runner.started), 1)

    def test_full(self) -> None:
        """
        What there is no room for is forgotten before, by the time that the next one
        ends; that is logged, and it is not started again, not by another agent
        either.
        """
        self.settle(run_store_size=2 * 4096)
        self.agent.runs.sweep()
        self.log.taken()
        for _ in range(3):
            # What leaves nothing takes nothing.
            self.wants("")
            self.runner.started.pop().exits(0)
        self.assertFalse(self.agent.runs.archive.is_full)
        for number in range(3):
            self.clock.advance(FRESH_SECONDS)
            self.wants(f"r-{number}")
            self.runner.started[-1].exits(0)
        self.assertEqual(self.kept(), ["hq/r-1.json", "hq/r-2.json"])
        self.assertEqual(self.logged("run-store-full"), ["DISPATCHER=hq RUNS=1"])
        for _ in "ab":
            _, answers = self.wants("r-0")
            [(code, answer)] = answers.given
            self.assertEqual((code, answer["exit"], answer["error"]), (200, -1, GONE))
            self.assertEqual(self.result("r-0")[0], 404)
            self.agent = self.another_agent()
        self.assertEqual(len(self.runner.started), 3)
        self.clock.advance(KEPT_SECONDS + 1)
        self.agent.runs.sweep()
        self.wants("r-0")
        self.assertEqual(len(self.runner.started), 4)

    def test_knownBefore(self) -> None:
        """
        That it must not be started again is known before anything of it goes.
        """
        self.settle(run_store_size=1)
        path = self.ended("a")
        self.clock.advance(FRESH_SECONDS)
        answers: list[Any] = []

        def carry_out(store: RunStore, sweep: Sweep, *, noting: bool) -> int:
            path.unlink()
            answers.extend(self.wants("a")[1].given)
            return run_sweep.carry_out(store, sweep, noting=noting)

        self.patch(run_archive, "carry_out", carry_out)
        self.agent.runs.sweep()
        self.assertEqual([answer["error"] for _, answer in answers], [GONE])

    def test_fresh(self) -> None:
        """
        What has just ended stays, however little room there is.
        """
        self.settle(run_store_size=1)
        self.ended("a")
        self.clock.advance(FRESH_SECONDS - 1)
        self.ended("b")
        self.agent.runs.sweep()
        self.assertEqual(self.kept(), ["hq/a.json", "hq/b.json"])
        self.clock.advance(1)
        self.agent.runs.sweep()
        self.assertEqual(self.kept(), ["hq/b.json"])

    def test_unknown(self) -> None:
        """
        Where nobody can read how old all is, it is as if it were new, and that is
        logged; nor does it matter more where that can not be written.
        """
        path = self.ended("old")
        self.agent.runs.sweep()
        (self.root / AGES).write_text("?")
        self.clock.advance(KEPT_SECONDS + 1)
        self.log.taken()
        self.agent = self.another_agent()
        self.assertEqual(len(self.logged("run-ages-fail")), 1)
        self.assertTrue(path.exists())
        (self.root / AGES).unlink()
        (self.root / AGES).mkdir()
        self.clock.advance(NOTED_SECONDS)
        self.agent.runs.sweep()
        self.assertEqual(len(self.logged("run-ages-fail")), 1)
        self.clock.advance(KEPT_SECONDS + 1)
        self.agent.runs.sweep()
        self.assertFalse(path.exists())

    def ended(self, reqid: str) -> Path:
        """
        The record of a run that has ended.
        """
        self.detached(reqid).exits(0)
        return self.root / "hq" / f"{reqid}.json"

    def test_fails(self) -> None:
        """
        A fault in it ends nothing.
        """

        def fails(*_: Any) -> None:
            raise ZeroDivisionError

        self.patch(run_archive, "plan", fails)
        self.timers.advance(600)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.timers.advance(600)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
