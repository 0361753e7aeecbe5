# SPDX-License-Identifier: AGPL-3.0-only
"""
Pairing mode in the background: NEWER-LINE.md section 12.2.

Whoever starts it goes away, and whoever ends it comes later; they find it by
the file that every pairing mode leaves while it is open.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import attrs

from ctrlexec.errors import Conflict, CtrlExecError
from ctrlexec.events import PairingClosed, PairingOpened
from ctrlexec.files import remove
from ctrlexec.interfaces import IEventSink

PID_FILE = "pairing-mode.pid"
MODE = "pairing-mode"
#: How long a pairing mode may take to open its port, or to close it.
PATIENCE_SECONDS = 5.0

_ERROR, _HINT = "error: ", "hint: "


class Child(Protocol):
    """
    A process that goes on when we have ended.
    """

    @property
    def pid(self) -> int:
        """
        Its process id.
        """

    def has_ended(self) -> bool:
        """
        Whether it is there no more.
        """

    def complaint(self) -> str:
        """
        What it has written to stderr.
        """

    def end(self) -> None:
        """
        Tell it to end.
        """


#: Starts C{ctrl-exec} with some words and an environment.
Launch = Callable[[Sequence[str], Mapping[str, str]], Child]


@attrs.frozen
class PairingProcess:
    """
    The process whose pairing mode is open, if one is.

    @ivar directory: where it leaves its process id.
    @ivar events: where it is told that somebody starts or stops it.
    @ivar processes: where the system tells of all processes.
    @ivar kill: sends a signal to a process.
    """

    directory: Path
    events: IEventSink
    processes: Path = Path("/proc")
    kill: Callable[[int, int], object] = os.kill

    @property
    def pid(self) -> int | None:
        """
        Its process id. A file that was left behind may name a process that has
        nothing to do with us.
        """
        try:
            pid = int((self.directory / PID_FILE).read_bytes()[:20])
            words = (self.processes / str(pid) / "cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if MODE.encode() in words else None

    def require_closed(self) -> None:
        """
        @raise Conflict: it is open.
        """
        pid = self.pid
        if pid is not None:
            raise Conflict(
                f"pairing mode is open already, in process {pid}",
                hint="ctrl-exec pairing-mode stop ends it",
            )

    def started(self, port: int, seconds: int) -> None:
        """
        It is open in the background.
        """
        self.events.emit(PairingOpened(port, self.pid, seconds))

    def stop(self) -> int:
        """
        Tell it to end. A file that was left behind is removed.

        @return: its process id.
        @raise Conflict: it is not open.
        """
        pid = self.pid
        if pid is not None:
            with suppress(ProcessLookupError):
                self.kill(pid, signal.SIGTERM)
                self.events.emit(PairingClosed(pid))
                return pid
        remove(self.directory / PID_FILE)
        raise Conflict("pairing mode is not open")


def why_not(child: Child) -> CtrlExecError:
    """
    Why a pairing mode has not opened its port.
    """
    error, hint = "pairing mode has not opened its port", ""
    for line in child.complaint().splitlines():
        if line.startswith(_ERROR):
            error, hint = line.removeprefix(_ERROR), ""
        elif line.startswith(_HINT):
            hint = line.removeprefix(_HINT)
    return CtrlExecError(error, hint=hint)
