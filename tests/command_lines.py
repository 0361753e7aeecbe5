# SPDX-License-Identifier: AGPL-3.0-only
"""
What tests of C{ctrl-exec} share: a command line goes in; stdout, stderr and an
exit status come out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.background import Child
from ctrlexec.dispatcher.cli import main
from ctrlexec.dispatcher.operations import Dispatcher
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.registry import FileRegistry
from ctrlexec.dispatcher.terminal import Terminal
from ctrlexec.dispatcher.world import Loop, Places, Time, Work, World
from tests.authority import NOW
from tests.fake_agents import FakeAgents


class Screen(StringIO):
    """
    A stream that can be a terminal.
    """

    terminal = False
    descriptor: int | None = None

    def isatty(self) -> bool:
        """
        See L{StringIO}.
        """
        return self.terminal

    def fileno(self) -> int:
        """
        See L{StringIO}.
        """
        return super().fileno() if self.descriptor is None else self.descriptor


@attrs.frozen
class Done:
    """
    What became of a command.
    """

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """
        The one line of JSON on stdout.
        """
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)


class CommandLineCase(SynchronousTestCase):
    """
    Has settings, two registered agents, and a world in which no time passes
    but what a test lets pass.
    """

    typed = ""
    #: Where keys are pressed while something is carried out.
    keyboard: int | None = None
    terminal = False
    #: How often an interrupt was told to end the process from then on.
    impatience = 0

    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.home.mkdir()
        self.log = self.home / "log"
        self.settings = self.home / "ctrl-exec.conf"
        self.configure()
        self.registry = FileRegistry(self.home / "state/agents")
        self.agents = FakeAgents()
        self.clock = Clock()
        self.sleep: Callable[[float], None] = self.fail
        self.environ = {"CTRL_EXEC_CONFIG": str(self.settings), "USER": "alice"}
        self.meanwhile: Callable[[], object] = self.clock.seconds

    def configure(self, text: str = "") -> None:
        """
        Write the settings.
        """
        self.settings.write_text(
            "ca_dir = .\nstate_dir = state\ndispatcher_id = ops\n"
            f"log = {self.log}\n{text}"
        )

    def command(self, *words: str) -> Done:
        """
        Carry out C{ctrl-exec WORDS}.
        """
        streams = Screen(self.typed), Screen(), Screen()
        for stream in streams:
            stream.terminal = self.terminal
        stdin, stdout, stderr = streams
        stdin.descriptor = self.keyboard
        world = self.world(Terminal(stdin, stdout, stderr, {"NO_COLOR": "1"}))
        with redirect_stdout(stdout):
            status = main(words, world)
        return Done(status, stdout.getvalue(), stderr.getvalue())

    def world(self, terminal: Terminal) -> World:
        """
        What is round a command line.
        """
        return World(
            terminal=terminal,
            environ=self.environ,
            time=Time(
                lambda: NOW, self.clock.seconds, lambda seconds: self.sleep(seconds)
            ),
            loop=Loop(self.wait, self.wait, self.be_impatient),
            places=Places(self.home / "usual.conf", self.home / "usual.sock"),
            dispatcher=self.dispatcher,
            launch=self.launch,
        )

    def launch(self, words: Sequence[str], environ: Mapping[str, str]) -> Child:
        """
        See L{Launch<ctrlexec.dispatcher.background.Launch>}.
        """
        raise AssertionError(f"{words} is launched")

    def be_impatient(self) -> None:
        """
        See L{Loop}.
        """
        self.impatience += 1

    def dispatcher(self, *what: Any) -> Dispatcher:
        """
        A dispatcher on the files that the settings name, with fake agents.
        """
        return attrs.evolve(
            Dispatcher.on_files(*what), agents=lambda reactor: self.agents
        )

    def wait(self, work: Work[Any]) -> Any:
        """
        Do what needs a reactor, with whatever happens meanwhile.
        """
        working = Deferred.fromCoroutine(work(self.clock))
        outcome: list[Any] = []
        working.addBoth(outcome.append)
        try:
            self.meanwhile()
        except KeyboardInterrupt:
            working.cancel()
            raise
        self.assertEqual(self.clock.getDelayedCalls(), [])
        (result,) = outcome
        return result.raiseException() if isinstance(result, Failure) else result

    def register(self, *names: str, **fields: Any) -> None:
        """
        Add agents.
        """
        for name in names:
            self.registry.put(AgentRecord(hostname=name, **fields))
