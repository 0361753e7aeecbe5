# SPDX-License-Identifier: AGPL-3.0-only
"""
Running an allowlisted script: PROTOCOL.md section 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
from twisted.internet.interfaces import IReactorProcess
from zope.interface import implementer

from ctrlexec.agent.allowlist import Script
from ctrlexec.errors import NotStarted
from ctrlexec.files import why_not_executable
from ctrlexec.interfaces import IScriptRunner
from ctrlexec.process import ProgramResult, start_program

NOT_EXECUTABLE = 127
"""The exit status of a script that is not there or is no program."""

NOT_STARTED = 126
"""The exit status of a script that the system did not start."""


@attrs.frozen
class RunOutcome:
    """
    What became of a run.

    @ivar exit: the script's own exit status, 0 to 255; 126 when a signal ended
        it or it could not be started; 127 when it could not be executed.
    @ivar stdout: what it wrote, decoded, bounded.
    @ivar stderr: likewise; or why it was not executed, in one line.
    @ivar stdin_timed_out: it left its context unread for too long.
    """

    exit: int
    stdout: str = ""
    stderr: str = ""
    stdin_timed_out: bool = False

    @classmethod
    def of(cls, result: ProgramResult) -> RunOutcome:
        """
        The outcome of a script that was started.
        """
        return cls(
            exit=result.exit,
            stdout=result.stdout.text(),
            stderr=result.stderr.text(),
            stdin_timed_out=result.stdin_timed_out,
        )


@implementer(IScriptRunner)
@attrs.frozen
class ScriptRunner:
    """
    Runs scripts as the agent's own user.

    Whether a script may run is decided before; what is checked here is only
    what an operator would otherwise have to guess from an exit status.

    @ivar reactor: starts the scripts, and tells the time.
    @ivar stdin_timeout: for how many seconds a script may leave its context
        unread.
    @ivar max_output: how many bytes are kept of each of stdout and stderr.
    @ivar env: the whole environment of the scripts.
    """

    reactor: IReactorProcess
    stdin_timeout: float = attrs.field(kw_only=True)
    max_output: int = attrs.field(kw_only=True)
    env: Mapping[str, str] = attrs.field(kw_only=True)

    async def run(
        self, script: Script, context: bytes, args: Sequence[str]
    ) -> RunOutcome:
        """
        Run a script to its end.

        Cancelling this stops the waiting, never the script: a run belongs to
        the agent, not to whoever asked for it.

        @param context: the JSON object that the script gets on stdin.
        @param args: the arguments of the script, after its own path.
        """
        obstacle = why_not_executable(script.path)
        if obstacle is not None:
            return _not_run(script, NOT_EXECUTABLE, obstacle)
        try:
            program = start_program(
                self.reactor,
                [str(script.path), *args],
                stdin=context,
                stdin_timeout=self.stdin_timeout,
                max_output=self.max_output,
                env=self.env,
            )
        except NotStarted as refusal:
            return _not_run(script, NOT_STARTED, str(refusal))
        return RunOutcome.of(await program.result)


def _not_run(script: Script, exit: int, reason: str) -> RunOutcome:
    return RunOutcome(exit, stderr=f"cannot execute {script.path}: {reason}\n")
