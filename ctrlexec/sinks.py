# SPDX-License-Identifier: AGPL-3.0-only
"""
Where events go: a stream, a file, or the log of the system.
"""

from __future__ import annotations

import os
import syslog
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TextIO

import attrs
from zope.interface import implementer

from ctrlexec.events import Event
from ctrlexec.interfaces import IEventSink
from ctrlexec.values import iso_time

_SYSLOG_SOCKET = Path("/dev/log")


@implementer(IEventSink)
@attrs.frozen
class StreamSink:
    """
    Lines on a stream, each with its time and program.
    """

    stream: TextIO
    program: str
    now: Callable[[], datetime]

    def emit(self, event: Event) -> None:
        # Who reads the stream may have closed it.
        with suppress(OSError, ValueError):
            self.stream.write(_stamped(event, self.program, self.now()))
            self.stream.flush()


@implementer(IEventSink)
@attrs.frozen
class FileSink:
    """
    Lines at the end of a file, which may be moved away at any time.

    @ivar stderr: where lines go that the file does not take.
    """

    path: Path
    program: str
    now: Callable[[], datetime]
    stderr: TextIO

    def emit(self, event: Event) -> None:
        line = _stamped(event, self.program, self.now()).encode("utf-8", "replace")
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(self.path, flags, 0o640)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError as error:
            # A log that is full must not end the work that it would tell of.
            with suppress(OSError, ValueError):
                self.stderr.write(f"{self.path}: {error.strerror}\n{line.decode()}")


@implementer(IEventSink)
@attrs.frozen
class SyslogSink:
    """
    Lines to the system's log, facility daemon.
    """

    program: str

    def __attrs_post_init__(self) -> None:
        syslog.openlog(self.program, syslog.LOG_PID, syslog.LOG_DAEMON)

    def emit(self, event: Event) -> None:
        syslog.syslog(event.level, event.line())


def _stamped(event: Event, program: str, now: datetime) -> str:
    return f"{iso_time(now)} {program}[{os.getpid()}]: {event.line()}\n"


def open_sink(
    choice: str, program: str, now: Callable[[], datetime], stderr: TextIO
) -> IEventSink:
    """
    The sink that the setting C{log} names.

    @param choice: C{"auto"}, C{"stderr"}, C{"syslog"}, or the path of a file.
        C{"auto"} is the system's log, or C{stderr} on a machine without one.
    @param program: the ident: C{"ctrl-exec-agent"}, C{"ctrl-exec-dispatcher"}
        or C{"ctrl-exec-api"}.
    """
    if choice == "auto":
        choice = "syslog" if _SYSLOG_SOCKET.exists() else "stderr"
    match choice:
        case "stderr":
            return StreamSink(stderr, program, now)
        case "syslog":
            return SyslogSink(program)
        case path:
            return FileSink(Path(path), program, now, stderr)
