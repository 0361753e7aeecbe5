# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.tracing}: how a run has ended is told once.
"""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import Deferred

from ctrlexec.errors import StoreError
from ctrlexec.events import RunSettled
from ctrlexec.protocol.run_messages import NoSuchRun
from tests.lives import LifeCase, recorded
from tests.operating import ALICE


class SettledTests(LifeCase):
    """
    It becomes known how a run has ended.
    """

    def settled(self) -> list[str]:
        """
        How runs have ended of which that was not known before.
        """
        found = [each for each in self.written.events if isinstance(each, RunSettled)]
        self.written.events.clear()
        return [f"{each.target} {each.state}" for each in found]

    def test_settled(self) -> None:
        """
        How a run has ended is told once, whoever asks, and when that is known.
        """
        self.agents.results = {
            "web-1": [recorded("running"), recorded("done", 3)],
            "web-2": [NoSuchRun("r1")],
        }
        self.status()
        self.assertEqual(self.settled(), ["web-2 unknown"])
        self.status()
        self.assertEqual(self.settled(), ["web-1 failed"])
        self.put(hosts=dict(self.hosts))
        asked = [
            Deferred.fromCoroutine(self.dispatcher.status(ALICE, "r1"))
            for _ in range(2)
        ]
        for each in asked:
            self.successResultOf(each)
        self.assertEqual(self.settled(), ["web-1 failed", "web-2 unknown"])

    def test_settledLate(self) -> None:
        """
        So it is with a run that somebody has waited for, to whom nobody could say
        it.
        """
        result = {"host": "web-1", "exit": -1, "error": "lost", "state": "unknown"}
        self.put(hosts=["web-1"], results=[result], pending=["web-1"], mode="sync")
        self.agents.results = {"web-1": [recorded("cancelled", 126)]}
        self.status()
        self.assertEqual(self.settled(), ["web-1 cancelled"])

    def test_settledElsewhere(self) -> None:
        """
        Of a run that somebody waits for whoever waits tells it.
        """
        for mode, told in (("sync", []), ("async", ["web-1 ok"])):
            self.put(mode=mode, hosts={"web-1": {"status": "accepted"}})
            self.agents.results = {"web-1": [recorded("done", 0)]}
            with self.dispatcher.process.live.carrying_out("r1") as live:
                live.asked.add("web-1")
                self.status()
            self.assertEqual(self.settled(), told)

    def test_notSettled(self) -> None:
        """
        What can not be noted is not told: it would be each time.
        """
        self.agents.results = {"web-1": [recorded("done", 0)]}
        runs = self.dispatcher.stores.runs
        self.patch(type(runs), "change", _fails)
        self.assertEqual(self.status().entry("web-1")["status"], "done")
        self.assertEqual(self.settled(), [])


def _fails(*what: object) -> None:
    raise StoreError(Path("r1.json"), "is not ours to write")
