# SPDX-License-Identifier: AGPL-3.0-only
"""
One command line while it is carried out: what was given, and what is shown.
"""

from __future__ import annotations

import os
import pwd
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime, timezone
from functools import cached_property
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from ctrlexec.dispatcher import render
from ctrlexec.dispatcher.operations import Caller, Dispatcher, RunOrder, Seat
from ctrlexec.dispatcher.results import PingRow, RunRow
from ctrlexec.dispatcher.settings import DEFAULT_FILE, DispatcherSettings
from ctrlexec.dispatcher.terminal import Terminal
from ctrlexec.errors import CtrlExecError, SettingsError
from ctrlexec.settings import load_settings
from ctrlexec.sinks import open_sink
from ctrlexec.values import HostPort

if TYPE_CHECKING:
    from twisted.internet.task import LoopingCall

IDENT = "ctrl-exec-dispatcher"
_PROGRESS_SECONDS = 1.0
_POLL_SECONDS = 0.1

R = TypeVar("R")
#: What a reactor is needed for, and is given to.
Work = Callable[[Any], Coroutine[Any, Any, R]]


class Interrupted(CtrlExecError):
    """
    The operator did not want to wait for all hosts.

    @ivar results: what had come by then, as JSON spells it.
    """

    def __init__(self, results: Sequence[Mapping[str, Any]], total: int) -> None:
        super().__init__(
            f"interrupted: {len(results)} of {total} hosts have answered; what was "
            "started on the others runs on"
        )
        self.results = results


@attrs.frozen
class World:
    """
    What a command line needs that a test gives it otherwise.

    @ivar now: the time, aware of its zone.
    @ivar sleep: waits for so many seconds.
    @ivar wait: gives a reactor to a piece of work, and returns what comes of
        it; raises C{KeyboardInterrupt} if a signal comes first.
    @ivar serve: the same for work that ends by itself when a signal comes.
    """

    terminal: Terminal
    environ: Mapping[str, str]
    now: Callable[[], datetime]
    sleep: Callable[[float], None]
    wait: Callable[[Work[Any]], Any]
    serve: Callable[[Work[Any]], Any]
    dispatcher: Callable[..., Dispatcher] = Dispatcher.on_files

    @classmethod
    def real(
        cls, *, wait: Callable[[Work[Any]], Any], serve: Callable[[Work[Any]], Any]
    ) -> World:
        """
        The world of this process.
        """
        for stream in (sys.stdout, sys.stderr):
            # A locale without the right letters must not hide a result.
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        return cls(
            terminal=Terminal(sys.stdin, sys.stdout, sys.stderr, os.environ),
            # A service has no USER; what it does still has somebody's name.
            environ={"USER": _login_name(), **os.environ},
            now=lambda: datetime.now(timezone.utc),
            sleep=time.sleep,
            wait=wait,
            serve=serve,
        )


def _login_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


@attrs.define(slots=False)
class CommandLine:
    """
    @ivar script_args: what stands behind C{--}; C{None} where there is none.
    @ivar given: the options that were given, by their names; the last one of
        each counts.
    """

    world: World
    script_args: tuple[str, ...] | None
    given: dict[str, Any] = attrs.field(factory=dict, init=False)

    # --- what was given --------------------------------------------------

    @property
    def terminal(self) -> Terminal:
        """
        Where it was typed.
        """
        return self.world.terminal

    @property
    def json(self) -> bool:
        """
        Whether a program reads the answer.
        """
        return bool(self.given.get("json"))

    @property
    def port(self) -> int | None:
        """
        The port that goes before any other.
        """
        return self.given.get("port")

    @property
    def caller(self) -> Caller:
        """
        Who gives the command, as they claim.
        """
        environ = self.world.environ
        return Caller(
            self.given.get("username", environ.get("USER", "")),
            self.given.get("token", environ.get("ENVEXEC_TOKEN", "")),
        )

    @cached_property
    def settings(self) -> DispatcherSettings:
        """
        @raise SettingsError: the settings can not be used.
        """
        named = self.given.get("config") or self.world.environ.get("CTRL_EXEC_CONFIG")
        path = Path(named or DEFAULT_FILE)
        try:
            settings, warnings = load_settings(DispatcherSettings, path)
        except SettingsError as error:
            if not error.line:
                error.hint = error.hint or "--config names another file"
            raise
        for warning in warnings:
            self.terminal.warning(str(warning))
        return settings

    @cached_property
    def dispatcher(self) -> Dispatcher:
        """
        @raise SettingsError: the settings can not be used.
        """
        log, stderr = str(self.settings.log), self.terminal.stderr
        if log == "auto" and stderr.isatty():
            # On a machine without a system log, the log of what somebody sees
            # happen would only stand between them and the results.
            stderr = StringIO()
        events = open_sink(log, IDENT, self.world.now, stderr)
        return self.world.dispatcher(self.settings, events, self.world.now)

    # --- what is shown ---------------------------------------------------

    def show(self, text: str, json: str) -> None:
        """
        Print a result.

        @param text: for people.
        @param json: for programs, without a newline.
        """
        self.terminal.show(f"{json}\n" if self.json else text)

    def note(self, text: str) -> None:
        """
        Tell a person what a program knows how to find out.
        """
        if not self.json:
            self.terminal.note(text)

    def fail(self, error: str, hint: str = "", **more: object) -> None:
        """
        Say that the command has failed; to a program, on stdout too.

        @param more: what else the program is told.
        """
        self.terminal.error(error, hint)
        if self.json:
            self.terminal.show(render.failure_json(error, hint, **more) + "\n")

    # --- what takes a while ----------------------------------------------

    def run(self, hosts: Sequence[HostPort], script: str) -> Sequence[RunRow]:
        """
        Run a script, and show what becomes of it as it becomes known; to a
        program, all at once.

        @raise Interrupted: the operator did not want to wait.
        """
        dispatcher, look = self.dispatcher, self.terminal.look
        order = RunOrder(hosts, script, self.script_args or ())
        rows = self._ask(
            lambda reactor, show: dispatcher.run(self.caller, order, reactor, show),
            len({*hosts}),
            lambda row: render.run_text(row, look),
            render.run_fields,
        )
        self._hint(rows)
        return rows

    def ping(self, hosts: Sequence[HostPort]) -> Sequence[PingRow]:
        """
        Ask agents whether they are there, and show it like L{run}.
        """
        dispatcher, look = self.dispatcher, self.terminal.look
        table = render.ping_table(host.host for host in hosts)
        heads = iter([table.head()])
        rows = self._ask(
            lambda reactor, show: dispatcher.ping(self.caller, hosts, reactor, show),
            len({*hosts}),
            lambda row: next(heads, "") + table.line(render.ping_row(row, look)),
            render.ping_fields,
        )
        if not self.json:
            for row in rows:
                if row.error is not None:
                    self.terminal.error(f"{row.host}: {row.error}")
        self._hint(rows)
        return rows

    def _ask(
        self,
        ask: Callable[[Any, Callable[[R], None]], Coroutine[Any, Any, Any]],
        total: int,
        text: Callable[[R], str],
        fields: Callable[[R], Mapping[str, Any]],
    ) -> list[R]:
        rows: list[R] = []

        def arrived(row: R) -> None:
            rows.append(row)
            if not self.json:
                self.terminal.show(text(row))

        async def watched(reactor: Any) -> None:
            ticking = self._tick(
                reactor, lambda: f"waiting for {total - len(rows)} of {total} hosts"
            )
            try:
                await ask(reactor, arrived)
            finally:
                ticking.stop()
                self.terminal.erase()

        try:
            self.world.wait(watched)
        except KeyboardInterrupt:
            answered = [fields(row) for row in rows]
            raise Interrupted(answered, total) from None
        if self.json:
            self.terminal.show(render.results_json(map(fields, rows)) + "\n")
        return rows

    def _tick(self, clock: Any, text: Callable[[], str]) -> LoopingCall:
        """
        Show what is waited for, once that has taken a while.
        """
        from twisted.internet.task import LoopingCall

        ticking = LoopingCall(lambda: self.terminal.passing(text()))
        ticking.clock = clock
        ticking.start(_PROGRESS_SECONDS, now=False)
        return ticking

    def _hint(self, rows: Sequence[RunRow] | Sequence[PingRow]) -> None:
        """
        Give each hint once, however many hosts it is for.
        """
        if not self.json:
            for hint in dict.fromkeys(row.hint for row in rows):
                self.terminal.hint(hint)

    def wait_for(self, what: str, done: Callable[[], bool], seconds: float) -> bool:
        """
        @param what: who is waited for.
        @param seconds: how long to wait at most.
        @return: whether it was done in time.
        """
        for _ in range(round(seconds / _POLL_SECONDS)):
            if done():
                return True
            self.terminal.passing(f"waiting for {what}")
            self.world.sleep(_POLL_SECONDS)
        return done()

    def pair(self, timeout: int | None) -> None:
        """
        Open the pairing port and let a person decide.

        @param timeout: for how many seconds; C{None} until the person quits.
        """
        seat = Seat(
            write=self.terminal.show,
            stdin=self.terminal.stdin.fileno(),
            attended=self.terminal.stdin.isatty(),
            timeout_seconds=timeout,
            port=self.port,
        )
        dispatcher, caller = self.dispatcher, self.caller
        self.world.serve(lambda reactor: dispatcher.pairing_mode(caller, reactor, seat))
