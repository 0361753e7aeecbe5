# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.inquiry}: what cannot be had in one piece. The rest is
tested with L{ctrlexec.dispatcher.tracing}.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred

from ctrlexec.dispatcher.recorded import recorded_rows
from ctrlexec.dispatcher.results import Outcome
from ctrlexec.protocol.codec_trust import NoSuchRequest
from ctrlexec.protocol.connection import TooLarge
from ctrlexec.protocol.run_messages import NoSuchRun, Output, StreamEnded
from tests.fake_agents import Told
from tests.lives import LifeCase, recorded
from tests.operating import ALICE

LARGE = TooLarge("the answer is too large", hint="max_answer says how much")


class LargeTests(LifeCase):
    """
    A record does not fit into an answer.
    """

    hosts: Mapping[str, Any] = {"web-1": {"status": "running"}}

    def told(self, *events: Told) -> None:
        """
        What its agent tells as a stream.
        """
        self.agents.results = {"web-1": [LARGE]}
        self.agents.follows = {"web-1": [[*events]]}

    def test_asStream(self) -> None:
        """
        It is had as a stream; of more than an answer may have the rest is cut.
        """
        self.dispatcher = self.configured("max_answer = 1k")
        self.told(
            Output(0.1, "stdout", "a" * 2000, 2000),
            Output(0.2, "stderr", "b", 1),
            StreamEnded(2.0, "backup", "r1", 3, stdout_bytes=2000, stderr_bytes=1),
        )
        (row,) = recorded_rows(self.status())
        self.assertEqual((row.outcome, row.exit), (Outcome.FAILED, 3))
        self.assertIn("[stdout cut: 1024 of 2000 bytes kept]", row.stdout)
        self.assertTrue(row.stdout.startswith("a" * 1024))

    def test_original(self) -> None:
        """
        Where that can not be told it is said what to do about it.
        """
        self.told(NoSuchRequest("the agent answered 404"))
        entry = self.status().entry("web-1")
        self.assertEqual(entry["status"], "running")
        self.assertEqual(entry["fetch_error"], f"{LARGE}: {LARGE.hint}")

    def test_endless(self) -> None:
        """
        An agent that goes on for ever holds nobody.
        """
        self.told(Output(0.1, "stdout", "a", 1), Deferred())
        asking = Deferred.fromCoroutine(self.dispatcher.status(ALICE, "r1"))
        self.assertNoResult(asking)
        self.clock.advance(self.dispatcher.settings.read_timeout)
        entry = self.successResultOf(asking).entry("web-1")
        self.assertEqual(entry["fetch_error"], f"{LARGE}: {LARGE.hint}")

    def test_forgotten(self) -> None:
        """
        It may be gone by then.
        """
        self.told(NoSuchRun("r1"))
        self.assertEqual(self.status().entry("web-1")["status"], "expired")

    def test_times(self) -> None:
        """
        How long it ran is what its agent says.
        """
        started, finished = "2026-03-05T18:38:09Z", "2026-03-05T18:39:11Z"
        result = recorded("done", 0, started=started, finished=finished)
        self.agents.results = {"web-1": [result]}
        record = self.status()
        self.assertEqual(record.entry("web-1")["finished"], finished)
        (row,) = recorded_rows(record)
        self.assertEqual(row.rtt_ms, 62_000)
