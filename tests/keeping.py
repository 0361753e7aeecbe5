# SPDX-License-Identifier: AGPL-3.0-only
"""
Scripts with keepers, for tests with real processes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from ctrlexec.agent.keeping import KeptScripts
from ctrlexec.agent.runs import Ending, StartOrder
from ctrlexec.interfaces import ILiveScript
from ctrlexec.process import small_environment
from tests.agents import Recorded

MAX_OUTPUT = 8 * 1024 * 1024
STDIN_TIMEOUT = 0.2
CONTEXT = b'{"script": "x"}'


class KeeperTestCase(TestCase):
    """
    A test that starts scripts, all of which have ended when it has.

    @cvar lacking: Python that takes away what a keeper would use.
    """

    timeout = 60
    lacking = ""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.environ = {"HOME": "/nonexistent", "LC_ALL": "C.UTF-8", "SECRET": "x"}
        self.runs = self.made = 0
        self.log = Recorded()
        self.scripts = self.agent()

    def agent(self) -> KeptScripts:
        """
        An agent, as far as scripts are concerned; it ends with the test.
        """
        scripts = KeptScripts(reactor, self.log, python=self.interpreter())
        self.addCleanup(lambda: Deferred.fromCoroutine(scripts.close()))
        return scripts

    def interpreter(self) -> str:
        """
        @return: what runs the program that keepers are made of, on a system that
            is L{lacking} something.
        """
        if not self.lacking:
            return sys.executable
        return str(
            self.python(
                "import os, sys\n"
                f"{self.lacking}\n"
                "program, place = sys.argv[-2:]\n"
                "sys.argv = ['-c', place]\n"
                "exec(program)"
            )
        )

    def script(self, text: str, *, interpreter: str = "/bin/sh") -> Path:
        """
        Make a script.
        """
        self.made += 1
        path = self.directory / f"{self.made}" / "script"
        path.parent.mkdir()
        path.write_text(f"#!{interpreter}\n{text}\n", encoding="utf-8")
        path.chmod(0o755)
        return path

    def python(self, text: str) -> Path:
        """
        Make a script in Python, the one that we run on.
        """
        return self.script(text, interpreter=f"{sys.executable} -IS")

    def order(self, path: Path, args: Sequence[str] = (), **changes: Any) -> StartOrder:
        """
        The order to start a script, in a directory of its own.
        """
        self.runs += 1
        directory = self.directory / f"run-{self.runs}"
        directory.mkdir()
        given: dict[str, Any] = {
            "directory": directory,
            "argv": (str(path), *args),
            "env": small_environment(self.environ),
            "stdin": CONTEXT,
            "stdin_timeout": STDIN_TIMEOUT,
            "max_output": MAX_OUTPUT,
            "grace": 0.3,
        }
        return StartOrder(**given | changes)

    async def start(self, order: StartOrder) -> ILiveScript:
        """
        Start a script, which is ended with the test.
        """
        script = await self.scripts.start(order)
        self.addCleanup(lambda: Deferred.fromCoroutine(script.cancel()))
        return script

    async def run_script(
        self, path: Path, args: Sequence[str] = (), **changes: Any
    ) -> Ran:
        """
        Run a script to its end.
        """
        order = self.order(path, args, **changes)
        script = await self.start(order)
        return Ran(order, await script.ended())

    async def written(self, order: StartOrder, script: ILiveScript, text: str) -> str:
        """
        Wait until a script has written something to its stdout.

        @return: all that it has written.
        """
        file = order.directory / "stdout"
        found: Deferred[None] = Deferred()
        ended = script.ended()

        def look() -> None:
            if found.called:
                return
            if file.exists() and text in file.read_text():
                found.callback(None)
            elif ended.called:
                found.errback(AssertionError(f"it has not written {text!r}"))

        unwatch = script.watch(look)
        ended.addCallback(lambda _: look())
        look()
        await found
        unwatch()
        ended.addErrback(lambda why: why.trap(CancelledError))
        ended.cancel()
        return file.read_text()


class Ran:
    """
    What is left of a script that has ended.
    """

    def __init__(self, order: StartOrder, ending: Ending | None) -> None:
        assert ending is not None
        self.ending = ending
        self.exit, self.state = ending.exit, ending.state
        self.stdout = _written(order.directory / "stdout")
        self.stderr = _written(order.directory / "stderr")
        self.text = self.stdout.decode()


def _written(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


@implementer(IReadDescriptor)
class _Watched:
    """
    A descriptor that a reactor reads.
    """

    def __init__(self, descriptor: int, ready: Deferred[None]) -> None:
        self._descriptor, self._ready = descriptor, ready

    def fileno(self) -> int:
        return self._descriptor

    def doRead(self) -> None:
        reactor.removeReader(self)
        os.close(self._descriptor)
        self._ready.callback(None)

    def connectionLost(self, reason: Failure) -> None: ...

    def logPrefix(self) -> str:
        return "process"


async def dead(pid: int) -> None:
    """
    Wait until a process is.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ready: Deferred[None] = Deferred()
    reactor.addReader(_Watched(descriptor, ready))
    await ready


def lives(pid: int) -> bool:
    """
    Whether a process does; one that only its parent has not noticed the death
    of does not.
    """
    try:
        return _stat(pid)[0] != "Z"
    except OSError:
        return False


def parent_of(pid: int) -> int:
    """
    The process id of a process's parent: of a script, that is its keeper.
    """
    return int(_stat(pid)[1])


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
