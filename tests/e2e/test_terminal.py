# SPDX-License-Identifier: AGPL-3.0-only
"""
What somebody at a terminal sees and presses.
"""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence

import attrs

from tests.e2e.installation import BIN, PATIENCE_SECONDS, EndToEndCase

INTERRUPT = "\x03"


@attrs.define(eq=False)
class Operator:
    """
    Somebody at a terminal of their own, in which one program runs.

    @ivar descriptor: the other end of the terminal.
    @ivar seen: all that they have seen.
    """

    case: EndToEndCase
    pid: int
    descriptor: int
    seen: str = ""

    @classmethod
    def running(
        cls, case: EndToEndCase, words: Sequence[str], stdout: int | None = None
    ) -> Operator:
        """
        @param stdout: where results go that the operator does not see.
        """
        pid, descriptor = pty.fork()
        if pid == 0:
            if stdout is not None:
                os.dup2(stdout, 1)
            os.execve(words[0], [*words], {**os.environ, "TERM": "xterm"})
        operator = cls(case, pid, descriptor)
        case.addCleanup(os.close, descriptor)
        return operator

    def sees(self, text: str, times: int = 1) -> None:
        """
        Wait until it is there, so often.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.seen.count(text) < times:
            self.case.assertTrue(self._looks(deadline), (text, self.seen))

    def types(self, text: str) -> None:
        """
        Press some keys.
        """
        os.write(self.descriptor, text.encode())

    def status(self) -> int:
        """
        Wait for the end of the program.

        @return: its exit status; of one that a signal has ended, the signal's
            number below zero.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._looks(deadline):
            pass
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def _looks(self, deadline: float) -> bool:
        left = max(deadline - time.monotonic(), 0)
        if not select.select([self.descriptor], [], [], left)[0]:
            os.kill(self.pid, signal.SIGKILL)
            return False
        try:
            data = os.read(self.descriptor, 65_536)
        except OSError:
            # There is nobody at the other end any more.
            return False
        self.seen += data.decode()
        return bool(data)


class TerminalTests(EndToEndCase):
    """
    Two agents, and C{ctrl-exec} at a terminal.
    """

    def setUp(self) -> None:
        super().setUp()
        self.agents = self.paired("web-1", "web-2")

    def serve(self, script: str) -> None:
        """
        Let both agents run a script, C{it}.
        """
        for agent in self.agents:
            agent.allow("it", f"#!/bin/sh\n{script}\n")
            agent.serve()

    def operator(self, *words: str, stdout: int | None = None) -> Operator:
        """
        Somebody who types a command.
        """
        program = [str(BIN / "ctrl-exec"), "--config", str(self.settings)]
        return Operator.running(self, [*program, *words], stdout)

    def test_colours(self) -> None:
        """
        Good is green, and the count is the last line.
        """
        self.serve("echo up")
        operator = self.operator("run", "web-*", "it", "--fold")
        self.assertEqual(operator.status(), 0)
        self.assertIn("==> web-[1-2]  [\x1b[32mOK\x1b[0m  exit:0", operator.seen)
        self.assertRegex(operator.seen, r"\n2 ok  in [0-9.]+ s\r\n$")

    def test_question(self) -> None:
        """
        Many hosts need a yes, and the same process goes on with it.
        """
        self.configure(confirm_hosts=1)
        self.serve("echo up")
        operator = self.operator("run", "web-*", "it")
        operator.sees("run it on 2 hosts? [y/N] ")
        operator.types("y\r")
        self.assertEqual(operator.status(), 0)
        self.assertEqual(operator.seen.count("==> "), 2)

    def test_interruptedQuestion(self) -> None:
        """
        An interrupt is an answer.
        """
        self.configure(confirm_hosts=1)
        operator = self.operator("run", "web-*", "it")
        operator.sees("[y/N] ")
        operator.types(INTERRUPT)
        self.assertEqual(operator.status(), 130)
        self.assertIn("interrupted: no host was asked", operator.seen)
        self.assertNotIn("Traceback", operator.seen)

    def test_interrupted(self) -> None:
        """
        Who is waited for is named, and is named again when nobody waits any
        more; the script runs on.
        """
        one, two = self.agents
        self.serve("sleep 3")
        operator = self.operator("run", "web-*", "it")
        operator.sees("waiting for 2 of 2: web-1 web-2")
        operator.types(INTERRUPT)
        operator.sees("c cancels it on 2 hosts, d leaves it running")
        operator.types("d\r")
        self.assertEqual(operator.status(), 130)
        self.assertIn("0 of 2 hosts have answered; it runs on at web-", operator.seen)
        for agent in (one, two):
            self.assertIn("EXIT=0", self.await_line(agent.log, "ACTION=run "))

    def test_impatient(self) -> None:
        """
        Where the first interrupt is held up, the second one leaves at once.
        """
        self.serve("head -c 200000 /dev/zero")
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        operator = self.operator("run", "web-*", "it", "--json", stdout=writing)
        os.close(writing)
        select.select([reading], [], [], PATIENCE_SECONDS)
        operator.types(INTERRUPT)
        operator.sees("interrupted: 2 of 2 hosts have answered")
        operator.types(INTERRUPT)
        self.assertEqual(operator.status(), -signal.SIGINT)

    def test_nobodyReads(self) -> None:
        """
        A reader who has left is said so, in one line.
        """
        self.serve("echo up")
        reading, writing = os.pipe()
        os.close(reading)
        operator = self.operator("run", "web-1", "it", stdout=writing)
        os.close(writing)
        self.assertEqual(operator.status(), 1)
        self.assertIn("nobody reads the results: ", operator.seen)
        self.assertNotIn("Traceback", operator.seen)
        self.assertNotIn("Exception", operator.seen)


class CompletionTests(EndToEndCase):
    """
    C{ctrl-exec completion bash}, in the shell that it is for, where there is
    one.
    """

    def test_bash(self) -> None:
        """
        Modes, hosts and scripts are completed.
        """
        bash = shutil.which("bash")
        if bash is None:
            return
        (agent,) = self.paired("web-1")
        agent.serve()
        self.dispatched("discovery")
        self.assertEqual(self.completed(bash, "ctrl-exec", "unp"), ["unpair"])
        self.assertEqual(self.completed(bash, "ctrl-exec", "run", "w"), ["web-1"])
        self.assertEqual(
            self.completed(bash, "ctrl-exec", "run", "web-1", "s"), ["show"]
        )

    def completed(self, bash: str, *words: str) -> list[str]:
        """
        What bash offers for the last of some words.
        """
        script = (
            'eval "$(ctrl-exec completion bash)"; COMP_WORDS=("$@"); '
            "COMP_CWORD=$(($# - 1)); _ctrl_exec_completion ctrl-exec; "
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            [bash, "--norc", "-c", script, "bash", *words],
            env={
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "CTRL_EXEC_CONFIG": str(self.settings),
            },
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE_SECONDS,
        )
        return done.stdout.split()
