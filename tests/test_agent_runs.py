# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.service}: the runs that it takes over, and what starts
new ones.
"""

from __future__ import annotations

import json
from pathlib import Path

from ctrlexec.agent.keeping import KeptScripts
from ctrlexec.agent.run_records import RunRecord
from ctrlexec.agent.run_store import RunKey, RunStore
from ctrlexec.errors import NotStarted
from tests.serving import ServiceTestCase


class RunsTests(ServiceTestCase):
    """
    The runs of before
    """

    def runs(self) -> None:
        """
        The reactor begins to run.
        """
        for work, args, how in self.reactor.whenRunningHooks:
            work(*args, **how)

    def left(self) -> Path:
        """
        The record of a run that an agent before this one has begun.
        """
        store = RunStore(self.directory / "state" / "runs")
        record = RunRecord(
            reqid="r-1",
            owner="hq",
            script="hello",
            started="2026-03-05T18:38:09Z",
            digest="d",
        )
        key = RunKey("hq", "r-1")
        store.claim(key, record, durable=False)
        return store.record_path(key)

    def test_found(self) -> None:
        """
        They are looked for before anybody is answered; one that nobody can tell
        of is lost.
        """
        path = self.left()
        self.started()
        lost, ended, start = self.logged()
        self.assertIn("ACTION=run-lost", lost)
        self.assertIn("EXIT=-1", ended)
        self.assertIn("ACTION=start", start)
        self.assertEqual(json.loads(path.read_bytes())["state"], "lost")

    def test_place(self) -> None:
        """
        Where they are kept stays, as long as the agent runs.
        """
        service = self.started()
        self.logged()
        with self.file.open("a") as conf:
            conf.write("async_runs_dir = /elsewhere\n")
        service.reload()
        warned, _ = self.logged()
        self.assertIn("async_runs_dir has changed; that needs a restart", warned)

    def test_scripts(self) -> None:
        """
        Scripts are started with what outlives the agent, which is made ready
        when the reactor runs.
        """
        service = self.started()
        self.assertIsInstance(service.resource.runs.runner, KeptScripts)
        made: list[str] = []
        self.patch(KeptScripts, "warm_up", lambda _: made.append("ready"))
        self.runs()
        self.assertEqual(made, ["ready"])

        def refused(_: KeptScripts) -> None:
            raise NotStarted("no")

        # The first start will say so.
        self.patch(KeptScripts, "warm_up", refused)
        self.runs()
