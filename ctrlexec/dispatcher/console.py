# SPDX-License-Identifier: AGPL-3.0-only
"""
C{ctrl-exec pairing-mode}: the pairing port, open for as long as somebody sits
at it and decides.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from ctrlexec.codes import LEGACY_WARNING
from ctrlexec.dispatcher.background import PID_FILE
from ctrlexec.dispatcher.desk import (
    Approve,
    ApproveLegacy,
    Command,
    Deny,
    Desk,
    Listing,
    Nothing,
    Quit,
    Skip,
    Unclear,
    parse_command,
)
from ctrlexec.dispatcher.lifecycle import Trust
from ctrlexec.dispatcher.records import QueuedRequest
from ctrlexec.dispatcher.service import PairingService, pairing_service
from ctrlexec.dispatcher.settings import DispatcherSettings
from ctrlexec.dispatcher.surroundings import Ending, InThread
from ctrlexec.errors import Conflict, CtrlExecError, explained
from ctrlexec.events import PairingExpired
from ctrlexec.files import make_directory, remove, write_atomic
from ctrlexec.typed_lines import TypedLines

KEYS = "a approve   d deny   s skip   a1, d2 by number   legacy1   list   quit"

_FAREWELLS = {
    Ending.DELIVERED: "has its certificate",
    Ending.DENIED: "has been told no",
    Ending.EXPIRED: "waited too long; nobody decided",
    Ending.WITHDRAWN: "went away before anybody decided",
    Ending.UNDELIVERED: "went away before it got the decision",
}


@attrs.define(eq=False)
class Console:
    """
    What the operator sees and types: a
    L{PairingWatcher<ctrlexec.dispatcher.pairing.PairingWatcher>}.

    @ivar write: shows a text, which ends with a newline.
    @ivar leave: called when the operator has had enough.
    """

    trust: Trust
    in_thread: InThread
    write: Callable[[str], None]
    leave: Callable[[], None]
    desk: Desk = attrs.field(factory=Desk)

    def arrived(self, request: QueuedRequest) -> None:
        """
        See L{ctrlexec.dispatcher.pairing.PairingWatcher}.
        """
        number = self.desk.arrive(request)
        self.write(_shown(number, request, self.trust.is_registered(request.hostname)))

    def departed(self, request: QueuedRequest, ending: Ending) -> None:
        """
        See L{ctrlexec.dispatcher.pairing.PairingWatcher}.
        """
        number = self.desk.depart(request.id)
        self.write(f"[{number}] {request.hostname} {_FAREWELLS[ending]}\n")

    def abandoned(self, address: str) -> None:
        """
        See L{ctrlexec.dispatcher.pairing.PairingWatcher}.
        """
        self.write(
            f"somebody at {address} began to ask and did not go through with it; "
            "a code can be guessed at like that\n"
        )

    async def obey(self, line: str) -> None:
        """
        Do what was typed. Whatever comes of it is shown.
        """
        try:
            await self._obey(parse_command(line))
        except CtrlExecError as error:
            self.write(explained(error))

    async def _obey(self, command: Command) -> None:
        match command:
            case Approve(number):
                await self._decide(number, self._approve)
            case ApproveLegacy(number):
                await self._decide(number, self._approve_legacy)
            case Deny(number):
                await self._decide(number, self._deny)
            case Skip(number):
                number, _ = self.desk.meant(number)
                self.desk.skip(number)
                self.write(f"[{number}] waits on; list shows it again\n")
            case Listing():
                self._list()
            case Quit():
                self.leave()
            case Unclear(text):
                self.write(f"{text}; {KEYS}\n")
            case Nothing():
                pass

    async def _decide(
        self, number: int | None, decide: Callable[[QueuedRequest], str]
    ) -> None:
        number, request = self.desk.meant(number)
        self.desk.deciding(number)
        try:
            done = await self.in_thread(decide, request)
        except CtrlExecError:
            self.desk.undecided(number)
            raise
        self.write(f"[{number}] {done}\n")

    def _approve_legacy(self, request: QueuedRequest) -> str:
        return self._approve(request, legacy=True)

    def _approve(self, request: QueuedRequest, *, legacy: bool = False) -> str:
        if request.legacy and not legacy:
            raise Conflict(
                f"{request.hostname} asks in the old way: {LEGACY_WARNING}",
                hint="if that will do, type legacy with its number, as in legacy1",
            )
        approval = self.trust.approve(request.id, legacy=legacy)
        expiry = approval.record.expiry
        return f"approved {request.hostname}: {approval.serial}, until {expiry}"

    def _deny(self, request: QueuedRequest) -> str:
        self.trust.deny(request.id)
        return f"denied {request.hostname}"

    def _list(self) -> None:
        waiting = self.desk.listed()
        for number, request in waiting:
            known = self.trust.is_registered(request.hostname)
            self.write(_shown(number, request, known))
        if not waiting:
            self.write("nobody waits\n")


def _shown(number: int, request: QueuedRequest, known: bool) -> str:
    """
    A request as the operator judges it. Only checked values are shown: names,
    addresses, digits.
    """
    name = request.reverse_dns or "no name"
    if request.reverse_dns:
        name += (
            ", which resolves back" if request.reverse_confirmed else ", unconfirmed"
        )
    lines = [
        f"[{number}] {request.hostname} asks to be paired",
        f"    request  {request.id}",
        f"    from     {request.source_ip} ({name})",
    ]
    if request.ip != request.source_ip:
        lines.append(f"    reports  {request.ip}")
    if known:
        lines.append("    NOTE     an agent of this name is registered already")
    lines.append(f"    code     {request.code}  (the agent must show the same)")
    if request.legacy:
        lines.append(f"    LEGACY   {LEGACY_WARNING}")
    return "\n".join([*lines, ""])


@attrs.define(eq=False)
class PairingMode:
    """
    One session at the pairing port.

    @ivar reactor: a real one, or all that a test needs of one.
    @ivar stdin: the descriptor that lines are read from.
    @ivar attended: whether it is a terminal. What is not may end, and the port
        stays open.
    @ivar timeout_seconds: how long the port stays open; C{None} for as long as
        nobody quits.
    """

    reactor: Any
    settings: DispatcherSettings
    trust: Trust
    write: Callable[[str], None]
    stdin: int
    attended: bool
    timeout_seconds: float | None = None
    _over: Deferred[None] = attrs.field(factory=Deferred, init=False)
    _lines: TypedLines | None = attrs.field(default=None, init=False)
    _signalled: bool = attrs.field(default=False, init=False)
    _log: Logger = attrs.field(factory=Logger, init=False)

    async def run(self) -> None:
        """
        Open the port, and close it again when the operator quits, time is up,
        or a signal ends the program. Requests that nobody decided on are taken
        back.

        @raise ListenError: the port can not be opened.
        @raise PkiError: the dispatcher has no identity.
        """
        in_thread = partial(
            deferToThreadPool, self.reactor, self.reactor.getThreadPool()
        )
        console = Console(self.trust, in_thread, self.write, self.leave)
        service = pairing_service(
            self.reactor, self.settings, self.trust.events, self.trust.now, console
        )
        await self.serve(service, console)

    async def serve(self, service: PairingService, console: Console) -> None:
        """
        As L{run}, with what that puts together.
        """
        service.privilegedStartService()
        closed: Deferred[None] = Deferred()
        trigger = self.reactor.addSystemEventTrigger(
            "before", "shutdown", self._interrupted, closed
        )
        lines = self._lines = TypedLines(
            self.stdin, partial(self._typed, console), self._stdin_ended
        )
        pid_file = self.settings.state_dir / PID_FILE
        try:
            _write_pid(pid_file)
            service.startService()
            self.write(f"The pairing port {service.port} is open.\n{KEYS}\n")
            self.reactor.addReader(lines)
            await self._until_over(service)
        finally:
            self.reactor.removeReader(lines)
            await service.stopService()
            remove(pid_file)
            closed.callback(None)
            if not self._signalled:
                self.reactor.removeSystemEventTrigger(trigger)

    async def _until_over(self, service: PairingService) -> None:
        if self.timeout_seconds is None:
            await self._over
            return
        seconds = self.timeout_seconds
        timer = self.reactor.callLater(seconds, self._expired, service)
        try:
            await self._over
        finally:
            if timer.active():
                timer.cancel()

    def leave(self) -> None:
        """
        End the session.
        """
        if not self._over.called:
            self._over.callback(None)

    def _interrupted(self, closed: Deferred[None]) -> Deferred[None]:
        self._signalled = True
        self.leave()
        return closed

    def _typed(self, console: Console, line: str) -> None:
        obeying = Deferred.fromCoroutine(console.obey(line))
        obeying.addErrback(
            lambda why: self._log.failure("a command could not be obeyed", why)
        )

    def _stdin_ended(self) -> None:
        if self._lines is not None:
            self.reactor.removeReader(self._lines)
        if self.attended:
            self.leave()

    def _expired(self, service: PairingService) -> None:
        self.trust.events.emit(PairingExpired(service.port))
        self.write("Time is up.\n")
        self.leave()


def _write_pid(path: Path) -> None:
    make_directory(path.parent)
    write_atomic(path, f"{os.getpid()}\n".encode(), 0o644)
