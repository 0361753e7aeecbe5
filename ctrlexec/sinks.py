# SPDX-License-Identifier: AGPL-3.0-only
"""
Where events go: a stream, a file, or the log of the system.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TextIO

import attrs
from zope.interface import implementer

from ctrlexec.events import Event
from ctrlexec.interfaces import IEventSink
from ctrlexec.system_log import (
    JOURNAL_SOCKET,
    SYSLOG_SOCKET,
    Later,
    SystemLog,
    is_journal,
    journal_message,
    output_descriptor,
    syslog_line,
)
from ctrlexec.values import iso_time


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
        self._write(_stamped(event, self.program, self.now()))

    def complain(self, line: str) -> None:
        """
        Write a line that is no event.
        """
        self._write(f"{line}\n")

    def _write(self, text: str) -> None:
        # Who reads the stream may have closed it.
        with suppress(OSError, ValueError):
            self.stream.write(text)
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


def _stamped(event: Event, program: str, now: datetime) -> str:
    return f"{iso_time(now)} {program}[{os.getpid()}]: {event.line()}\n"


def open_sink(
    choice: str,
    program: str,
    now: Callable[[], datetime],
    stderr: TextIO,
    later: Later | None = None,
) -> IEventSink:
    """
    The sink that the setting C{log} names.

    @param choice: C{"auto"}, C{"stderr"}, C{"syslog"}, or the path of a file.
    @param program: the ident: C{"ctrl-exec-agent"}, C{"ctrl-exec-dispatcher"}
        or C{"ctrl-exec-api"}.
    @param stderr: also where a line goes that syslog or the journal does not
        take.
    @param later: C{callLater} of the reactor, for a program that goes on for
        long: see L{SystemLog}.
    """
    stream = StreamSink(stderr, program, now)

    def otherwise(event: Event, error: OSError) -> None:
        stream.complain(f"{program}: the system's log: {error.strerror or error}")
        stream.emit(event)

    if choice == "auto":
        choice = automatic(os.environ, stderr)
    match choice:
        case "stderr":
            return stream
        case "syslog":

            def line(event: Event) -> bytes:
                return syslog_line(event, program, now())

            return SystemLog(line, SYSLOG_SOCKET, otherwise, later)
        case "journal":

            def entry(event: Event) -> bytes:
                return journal_message(event, program)

            return SystemLog(entry, JOURNAL_SOCKET, otherwise, later)
        case path:
            return FileSink(Path(path), program, now, stderr)


def automatic(
    environ: Mapping[str, str], stderr: TextIO, syslog: Path = Path(SYSLOG_SOCKET)
) -> str:
    """
    Where the lines of a program go whose settings leave that to us: to the
    journal when systemd runs it, to C{stderr} when a person does, else to
    syslog, or C{stderr} on a machine without one.

    @param environ: our own environment.
    @param syslog: its socket.
    """
    if is_journal(environ.get("JOURNAL_STREAM", ""), output_descriptor(stderr)):
        return "journal"
    if os.isatty(output_descriptor(stderr)):
        return "stderr"
    return "syslog" if syslog.exists() else "stderr"
