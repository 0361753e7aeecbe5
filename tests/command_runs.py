# SPDX-License-Identifier: AGPL-3.0-only
"""
What tests of C{ctrl-exec} share that are about runs: agents that tell what
scripts write, and runs that nobody waits for.
"""

from __future__ import annotations

from pathlib import Path

from ctrlexec.protocol.messages import RunAccepted, RunRefused, RunRequest
from ctrlexec.protocol.run_messages import Output, StreamEnded
from tests.command_lines import CommandLineCase

UP = Output(0.5, "stdout", "up\n", 3)
OH = Output(0.6, "stderr", "oh\n", 3)
BUSY = RunRefused("script already running", state="busy")


def ended(exit: int = 0) -> StreamEnded:
    """
    The end of what a script writes.
    """
    return StreamEnded(1.0, "backup", "", exit)


class RunsCase(CommandLineCase):
    """
    Has two agents.
    """

    def setUp(self) -> None:
        super().setUp()
        self.register("web-1", "web-2")
        self.state = self.home / "seen"
        self.state.mkdir()
        self.environ["XDG_STATE_HOME"] = str(self.state)

    def asked(self) -> RunRequest:
        """
        @return: what the last agent was asked for.
        """
        request = self.agents.asked[-1][1]
        assert isinstance(request, RunRequest)
        return request

    def notes(self) -> list[Path]:
        """
        What somebody has noted of what they have seen.
        """
        return [*self.state.rglob("*.json")]

    def submitted(self) -> str:
        """
        @return: the id of a run that lives on both hosts.
        """
        accepted = RunAccepted("backup", "")
        self.agents.answers = {"web-1": accepted, "web-2": accepted}
        done = self.command("run", "web-*", "backup", "--async", "--json")
        self.assertEqual(done.status, 0)
        reqid: str = done.json["reqid"]
        return reqid
