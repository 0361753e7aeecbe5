# SPDX-License-Identifier: AGPL-3.0-only
"""
One command line while it is carried out: what was given, who carries it out,
and what is shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import attrs

from ctrlexec.dispatcher import render
from ctrlexec.dispatcher.orders import Caller
from ctrlexec.dispatcher.printers import Format, Printer
from ctrlexec.dispatcher.results import (
    CancelRow,
    DiscoveryRow,
    PingRow,
    PsRow,
    Report,
    RunRow,
)
from ctrlexec.dispatcher.terminal import Terminal
from ctrlexec.dispatcher.viewer import Following, Interrupted, Viewer
from ctrlexec.dispatcher.wording import Wording
from ctrlexec.dispatcher.world import World
from ctrlexec.errors import CtrlExecError, InvalidValue, SettingsError

if TYPE_CHECKING:
    from ctrlexec.dispatcher.backend import Backend
    from ctrlexec.dispatcher.local import Ask, LocalBackend
    from ctrlexec.dispatcher.operations import Dispatcher
    from ctrlexec.dispatcher.settings import DispatcherSettings

IDENT = "ctrl-exec-dispatcher"
#: How long a token may be, in bytes.
TOKEN_BYTES = 65_536
_POLL_SECONDS = 0.1
_ANYBODY_MAY_READ = 0o004

R = TypeVar("R")
Row = TypeVar("Row", RunRow, PingRow, DiscoveryRow, CancelRow, PsRow)


@attrs.define(slots=False)
class CommandLine:
    """
    @ivar script_args: what stands behind C{--}; C{None} where there is none.
    @ivar given: the options that were given, by their names; the last one of
        each counts.
    @ivar told: what a program is told beside a failure.
    @ivar detailed: whether the exit status tells more than the original's: see
        L{ctrlexec.dispatcher.exit_codes}.
    """

    world: World
    script_args: tuple[str, ...] | None
    given: dict[str, Any] = attrs.field(factory=dict, init=False)
    told: Mapping[str, Any] = attrs.field(factory=dict, init=False)
    detailed: bool = attrs.field(default=False, init=False)

    # --- what was given --------------------------------------------------

    @property
    def terminal(self) -> Terminal:
        """
        Where it was typed.
        """
        return self.world.terminal

    @property
    def how(self) -> Format:
        """
        For whom the answer is.
        """
        return Format(self.given.get("output", "text"))

    @property
    def is_read(self) -> bool:
        """
        Whether a person reads the answer.
        """
        return self.how is Format.TEXT

    @property
    def port(self) -> int | None:
        """
        The port that goes before any other.
        """
        return self.given.get("port")

    @cached_property
    def caller(self) -> Caller:
        """
        Who gives the command, as they claim.

        @raise CtrlExecError: the token's file can not be read, or holds none.
        """
        username = self.given.get("username", self.world.environ.get("USER", ""))
        return Caller(username=username, token=self._token())

    def _token(self) -> str:
        given: str | None = self.given.get("token")
        if given is not None:
            return given
        file: str | None = self.given.get("token_file")
        if file is not None:
            return self._token_in(Path(file))
        return self.world.environ.get("ENVEXEC_TOKEN", "")

    def _token_in(self, path: Path) -> str:
        try:
            with path.open("rb") as file:
                data = file.read(TOKEN_BYTES + 1)
                mode = os.fstat(file.fileno()).st_mode
        except OSError as error:
            problem = f"the token can not be read: {error.strerror}"
            raise CtrlExecError(f"{path}: {problem}") from None
        token = data.removesuffix(b"\n").decode("utf-8", "replace")
        if len(data) > TOKEN_BYTES or not token.isprintable() or "\ufffd" in token:
            raise InvalidValue("token file", str(path), "one line of text")
        if mode & _ANYBODY_MAY_READ:
            self.terminal.warning(
                f"{path}: anybody on this host can read the token", f"chmod 600 {path}"
            )
        return token

    def again(self) -> tuple[str, ...]:
        """
        @return: the words that give another command line the same settings and
            the same name.
        """
        named = self._named_settings()
        words = () if named is None else (f"--config={named.absolute()}",)
        return (*words, f"--username={self.caller.username}")

    def environ_again(self) -> Mapping[str, str]:
        """
        @return: its environment. A token is for no command line, which others
            can read.
        """
        return {**self.world.environ, "ENVEXEC_TOKEN": self.caller.token}

    # --- who carries it out ----------------------------------------------

    @cached_property
    def settings(self) -> DispatcherSettings:
        """
        @raise SettingsError: the settings can not be used.
        """
        from ctrlexec.dispatcher.settings import DEFAULT_FILE, DispatcherSettings
        from ctrlexec.settings import load_settings

        path = self._named_settings() or self.world.places.settings or DEFAULT_FILE
        try:
            settings, warnings = load_settings(DispatcherSettings, path)
        except SettingsError as error:
            if not error.line:
                error.hint = error.hint or "--config names another file"
            raise
        for warning in warnings:
            self.terminal.warning(str(warning))
        return settings

    def _named_settings(self) -> Path | None:
        named = self.given.get("config") or self.world.environ.get("CTRL_EXEC_CONFIG")
        return Path(named) if named else None

    @cached_property
    def dispatcher(self) -> Dispatcher:
        """
        The dispatcher, in this process.

        @raise SettingsError: the settings can not be used.
        """
        from ctrlexec.dispatcher.operations import Process
        from ctrlexec.sinks import open_sink

        log, stderr = str(self.settings.log), self.terminal.stderr
        if log == "auto" and stderr.isatty():
            # On a machine without a system log, the log of what somebody sees
            # happen would only stand between them and the results.
            stderr = StringIO()
        now = self.world.time.now
        events = open_sink(log, IDENT, now, stderr)
        process = Process(now=now, environ=self.world.environ, signs=True)
        dispatcher: Dispatcher = self.world.dispatcher(self.settings, events, process)
        return dispatcher

    @cached_property
    def backend(self) -> Backend:
        """
        Who carries orders out: the API of this host where it listens for
        command lines and we may speak to it, or this process.

        @raise SettingsError: the settings can not be used, and nothing says
            that there is an API.
        """
        if self.socket is None:
            return self.local
        from ctrlexec.dispatcher.remote import RemoteBackend

        return RemoteBackend(self.socket, self.caller)

    @cached_property
    def socket(self) -> Path | None:
        """
        Where the API listens that carries orders out; C{None} if this process
        does.
        """
        if self.given.get("direct"):
            return None
        named: str | None = self.given.get("socket")
        if named is not None:
            # Whoever names one is told if it is not there.
            return Path(named)
        from ctrlexec.dispatcher.remote import is_usable

        return next(filter(is_usable, self._sockets()), None)

    def _sockets(self) -> Iterable[Path]:
        """
        Where the API may listen. An operator need not be able to read the
        settings, as long as they are the usual ones.
        """
        from ctrlexec.dispatcher.remote import is_usable
        from ctrlexec.dispatcher.settings import DEFAULT_SOCKET

        try:
            return [each for each in self.settings.api_bind if isinstance(each, Path)]
        except SettingsError as error:
            usual = self.world.places.socket or DEFAULT_SOCKET
            if self._named_settings() or error.line or not is_usable(usual):
                raise
            return [usual]

    @cached_property
    def local(self) -> LocalBackend:
        """
        This process, as what carries orders out.
        """
        from ctrlexec.dispatcher.local import LocalBackend

        return LocalBackend(self.dispatcher, self.caller, self.world.loop.wait)

    def carry_out(self, ask: Ask[R]) -> R:
        """
        Ask the dispatcher in this process for something.
        """
        return self.local.carry_out(ask)

    def watch(
        self,
        printer: Printer[Row],
        wording: Wording,
        order: Callable[[Viewer[Row]], Report[Row]],
        following: Following | None = None,
    ) -> tuple[Viewer[Row], Report[Row]]:
        """
        Give an order, and show what becomes of it.

        @param order: gives it, while somebody looks on.
        @param following: how what scripts write is told as it comes; C{None}
            where it is not.
        @raise Interrupted: the operator did not want to wait.
        """
        seconds = self.world.time.seconds
        viewer = Viewer(self.terminal, self.how, printer, wording, seconds, following)
        try:
            report = order(viewer)
            if viewer.was_cancelled:
                self._was_ended(viewer, report)
            viewer.ended(report)
        except KeyboardInterrupt:
            self.world.loop.be_impatient()
            viewer.interrupted()
            self.told = viewer.broken_off()
            said, hint = viewer.reckoning("interrupted"), self._trace(viewer)
            raise Interrupted(said, hint=hint) from None
        except BrokenPipeError:
            said = viewer.reckoning("nobody reads the results")
            raise CtrlExecError(said) from None
        except CtrlExecError:
            # The API may end in the middle.
            if viewer.rows and not self.told:
                self.told = viewer.broken_off()
            raise
        finally:
            viewer.note()
            self.terminal.erase()
        return viewer, report

    def _was_ended(self, viewer: Viewer[Row], report: Report[Row]) -> NoReturn:
        """
        The operator has ended the run, and has seen how.
        """
        if self.how is Format.JSON:
            # A program gets one document.
            self.told = viewer.broken_off()
        else:
            viewer.ended(report)
            self.told = {"reqid": viewer.reqid}
        raise Interrupted("interrupted: the run was cancelled")

    def _trace(self, viewer: Viewer[Row]) -> str:
        """
        How to find out what became of a run that is not waited for.
        """
        if not viewer.reqid or not viewer.hosts:
            return ""
        if viewer.ending:
            return (
                f"ctrl-exec cancel {viewer.reqid} may be repeated; it waits for its end"
            )
        if not viewer.wording.ends or not viewer.wording.stays:
            return f"ctrl-exec status {viewer.reqid} knows what became of it"
        return (
            f"ctrl-exec attach {viewer.reqid} goes on listening, "
            f"ctrl-exec cancel {viewer.reqid} ends it"
        )

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
            self.world.time.sleep(_POLL_SECONDS)
        return done()

    # --- what is shown ---------------------------------------------------

    def show(self, text: str, json: str) -> None:
        """
        Print a result.

        @param text: for people.
        @param json: for programs, without a newline.
        """
        self.terminal.show(text if self.is_read else f"{json}\n")

    def show_all(self, text: str, items: Iterable[Mapping[str, Any]]) -> None:
        """
        Print a list.

        @param text: for people.
        @param items: for programs.
        """
        match self.how:
            case Format.TEXT:
                self.terminal.show(text)
            case Format.JSON:
                self.terminal.show(render.to_json([*items]) + "\n")
            case Format.JSONL:
                self.terminal.show(
                    "".join(f"{render.to_json(each)}\n" for each in items)
                )

    def note(self, text: str) -> None:
        """
        Tell a person what a program knows how to find out.
        """
        if self.is_read:
            self.terminal.note(text)

    def fail(self, error: str, hint: str = "") -> None:
        """
        Say that the command has failed; to a program, on stdout too.
        """
        self.report(CtrlExecError(error, hint=hint))

    def report(self, error: CtrlExecError) -> None:
        """
        The same, with an error of ours.
        """
        kind, fields = render.failure(error)
        self.terminal.error(str(error), error.hint, kind)
        if not self.is_read:
            # Whoever does not read results does not read this either.
            with suppress(BrokenPipeError):
                self.terminal.show(render.to_json({**fields, **self.told}) + "\n")
