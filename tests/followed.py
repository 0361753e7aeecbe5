# SPDX-License-Identifier: AGPL-3.0-only
"""
What tests of runs that are followed share: one agent, and somebody who asks it.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.following import (
    Following,
)
from ctrlexec.dispatcher.results import (
    Outcome,
    RunRow,
)
from ctrlexec.errors import (
    CtrlExecError,
    Unanswered,
)
from ctrlexec.protocol.messages import (
    RunAccepted,
    RunFinished,
    RunRefused,
    RunRequest,
)
from ctrlexec.protocol.run_messages import (
    Output,
    RunResult,
    StateChanged,
    StreamEnded,
)
from ctrlexec.values import Target
from tests.fake_agents import FakeAgents

WEB_1 = Target("web-1", "10.0.0.1", 7443)
RUN = RunRequest("backup", ("full",), "0123456789abcdef")
LOST = Unanswered("read timeout after 60s", hint="look for it")
ROW = RunRow(host="web-1", script="backup", reqid=RUN.reqid, outcome=Outcome.UNKNOWN)
PATIENCE = 10.0


def finished(status: int, **others: Any) -> RunFinished:
    """
    A script that has ended.
    """
    return RunFinished("backup", status, "out", "err", RUN.reqid, **others)


def recorded(state: str, status: int = -1, **others: Any) -> RunResult:
    """
    What an agent has on record.
    """
    return RunResult(RUN.reqid, "backup", state, exit=status, **others)


def stream_end(status: int = 0, **others: Any) -> StreamEnded:
    """
    The end of a stream.
    """
    return StreamEnded(2.0, "backup", RUN.reqid, status, **others)


class FollowingCase(SynchronousTestCase):
    """
    Asks one agent.
    """

    def setUp(self) -> None:
        self.agents = FakeAgents()
        self.clock = Clock()
        self.repeatable: list[str] = []
        self.heard: list[Output | StateChanged] = []
        self.most = 100

    async def may_repeat(self, target: Target, script: str) -> bool:
        """
        What the registry says.
        """
        return script in self.repeatable

    def following(self) -> Following:
        """
        What is tested.
        """
        return Following(self.agents, self.clock, PATIENCE, self.most, self.may_repeat)

    def hear(self, event: Output | StateChanged) -> None:
        """
        Somebody listens.
        """
        self.heard.append(event)

    def begin(
        self, answer: object = None, *, live: bool = False, request: RunRequest = RUN
    ) -> Deferred[RunRow]:
        """
        Ask an agent that answers like this.
        """
        if answer is not None:
            assert isinstance(
                answer,
                RunFinished | RunRefused | RunAccepted | CtrlExecError | Deferred,
            )
            self.agents.answers = {"web-1": answer}
        following = self.following()
        return Deferred.fromCoroutine(
            following.run(WEB_1, request, self.hear if live else None)
        )

    def row(self, answer: object = None, **how: Any) -> RunRow:
        """
        What becomes of it at once.
        """
        return self.successResultOf(self.begin(answer, **how))
