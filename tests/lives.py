# SPDX-License-Identifier: AGPL-3.0-only
"""
What tests of runs that go on share: a dispatcher with four agents, or with a run
that somebody has begun who is gone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.runs import RunRecord
from ctrlexec.events import NotAuthorised
from ctrlexec.protocol.messages import (
    RunFinished,
    RunRefused,
)
from ctrlexec.protocol.run_messages import (
    RunResult,
)
from tests.authority import NOW
from tests.dispatching import Recorder
from tests.operating import ALICE, DispatcherCase

DONE = RunFinished("backup", 0, "", "", "")
FAILED = RunFinished("backup", 3, "", "", "")
BUSY = RunRefused("script already running", state="busy")


def recorded(state: str, status: int = -1, **others: Any) -> RunResult:
    """
    What an agent has on record.
    """
    return RunResult("r1", "backup", state, exit=status, **others)


def denied_actions(written: Recorder) -> list[str]:
    """
    What somebody was denied, by the word that a hook is asked about.
    """
    found = [each for each in written.events if isinstance(each, NotAuthorised)]
    return [each.authaction for each in found]


class LifeCase(DispatcherCase):
    """
    Has a run on record that was begun and whose dispatcher is gone.
    """

    hosts: Mapping[str, Any] = {
        "web-1": {"status": "accepted"},
        "web-2": {"status": "running"},
    }

    def setUp(self) -> None:
        super().setUp()
        self.path = self.home / "state/runs/r1.json"
        self.path.parent.mkdir(parents=True)
        self.put(hosts=dict(self.hosts))

    def put(self, **fields: Any) -> None:
        """
        Put it there as it is.
        """
        whole = {
            "reqid": "r1",
            "script": "backup",
            "mode": "async",
            "created": 1,
            "submitter": {"username": "alice", "source_ip": "127.0.0.1"},
            **fields,
        }
        self.path.write_text(json.dumps(whole))
        os.utime(self.path, (NOW.timestamp(), NOW.timestamp()))

    def status(self) -> RunRecord:
        """
        What is known now.
        """
        return self.done(self.dispatcher.status(ALICE, "r1"))


class RunsCase(DispatcherCase):
    """
    Has four agents.
    """

    def setUp(self) -> None:
        super().setUp()
        self.register(AgentRecord(hostname="web-3"))
        self.register(AgentRecord(hostname="web-4"))

    @property
    def files(self) -> list[Path]:
        """
        The records of runs.
        """
        return sorted((self.home / "state/runs").glob("*.json"))

    def on_record(self) -> dict[str, Any]:
        """
        What the only record says.
        """
        (path,) = self.files
        found = json.loads(path.read_bytes())
        assert isinstance(found, dict)
        return found

    def outcomes(self) -> dict[str, str]:
        """
        What became of each host, as it was told.
        """
        return {row.host: row.outcome.value for row in self.seen.rows}
