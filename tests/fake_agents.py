# SPDX-License-Identifier: AGPL-3.0-only
"""
Agents that answer what a test has told them to, without any network.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from twisted.internet.defer import Deferred

from ctrlexec.errors import CtrlExecError
from ctrlexec.protocol.messages import (
    PingAnswer,
    PingRequest,
    RunAnswer,
    RunFinished,
    RunRefused,
    RunRequest,
)
from ctrlexec.values import Target


@attrs.define
class FakeAgents:
    """
    An L{Agents<ctrlexec.dispatcher.dispatch.Agents>}.

    @ivar answers: what each agent answers, by its name; for one that is not
        among them, a script ends with 0.
    @ivar asked: who was asked for what.
    """

    answers: Mapping[str, RunAnswer | CtrlExecError | Deferred[RunAnswer]] = (
        attrs.field(factory=dict)
    )
    asked: list[tuple[Target, RunRequest | PingRequest]] = attrs.field(factory=list)

    async def run(self, target: Target, run: RunRequest) -> RunAnswer:
        """
        Answer as a test wants it.
        """
        self.asked.append((target, run))
        done = RunFinished(run.script, 0, f"{target.name}\n", "", run.reqid)
        match self.answers.get(target.name, done):
            case CtrlExecError() as error:
                raise error
            case RunFinished() | RunRefused() as answer:
                return answer
            case deferred:
                return await deferred

    async def ping(self, target: Target, ping: PingRequest) -> PingAnswer:
        """
        Answer, unless a test has an error for it.
        """
        self.asked.append((target, ping))
        answer = self.answers.get(target.name)
        if isinstance(answer, CtrlExecError):
            raise answer
        expiry = "Feb 22 22:32:05 2029 GMT"
        return PingAnswer(target.name, "0.1.0", expiry, ping.reqid)

    @property
    def names(self) -> list[str]:
        """
        Who was asked.
        """
        return [target.name for target, _ in self.asked]
