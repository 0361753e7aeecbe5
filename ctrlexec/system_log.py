# SPDX-License-Identifier: AGPL-3.0-only
"""
The logs of the system: syslog (RFC 3164, as C{/dev/log} takes it) and the
journal (systemd's native protocol, C{systemd.io/JOURNAL_NATIVE_PROTOCOL}).
"""

from __future__ import annotations

import os
import struct
import syslog
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TextIO

import attrs
from zope.interface import implementer

from ctrlexec.datagrams import send_datagram
from ctrlexec.events import Event
from ctrlexec.interfaces import IEventSink

SYSLOG_SOCKET = "/dev/log"
JOURNAL_SOCKET = "/run/systemd/journal/socket"
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()

#: Where an event goes that its log did not take: told the event and why.
Otherwise = Callable[[Event, OSError], None]


@implementer(IEventSink)
@attrs.frozen
class SyslogSink:
    """
    Lines to syslog, facility daemon.

    @ivar program: the ident.
    @ivar now: the time, aware; syslog's lines have that of the machine's zone.
    @ivar otherwise: takes the events that syslog does not.
    @ivar address: where syslog listens.
    """

    program: str
    now: Callable[[], datetime]
    otherwise: Otherwise
    address: str = SYSLOG_SOCKET

    def emit(self, event: Event) -> None:
        priority = syslog.LOG_DAEMON | event.level
        head = f"<{priority}>{_stamp(self.now())} {self.program}[{os.getpid()}]: "
        try:
            send_datagram(self.address, _bytes(head + event.line()))
        except OSError as error:
            self.otherwise(event, error)


@implementer(IEventSink)
@attrs.frozen
class JournalSink:
    """
    Events to the journal: the line as its message, and each field by its name,
    so that C{journalctl CTRL_EXEC_REQID=…} finds what belongs to a run.

    @ivar program: the ident.
    @ivar otherwise: takes the events that the journal does not.
    @ivar address: where the journal listens.
    """

    program: str
    otherwise: Otherwise
    address: str = JOURNAL_SOCKET

    def emit(self, event: Event) -> None:
        fields = {f"CTRL_EXEC_{key}": value for key, value in event.fields().items()}
        entry = journal_entry(
            {
                "MESSAGE": event.line(),
                "PRIORITY": str(event.level),
                "SYSLOG_FACILITY": str(syslog.LOG_DAEMON >> 3),
                "SYSLOG_IDENTIFIER": self.program,
                "SYSLOG_PID": str(os.getpid()),
                "CTRL_EXEC_ACTION": event.action,
                **fields,
            }
        )
        try:
            send_datagram(self.address, entry)
        except OSError as error:
            self.otherwise(event, error)


def journal_entry(fields: Mapping[str, str]) -> bytes:
    """
    An entry as the journal takes it.

    Every value is sent with its length, even where C{KEY=value} would do: then
    there is no character that a value could forge a field with.

    @param fields: by name: capital letters, digits and C{_}.
    """
    return b"".join(
        b"%s\n%s%s\n" % (name.encode("ascii"), struct.pack("<Q", len(data)), data)
        for name, data in ((name, _bytes(value)) for name, value in fields.items())
    )


def is_journal(named: str, descriptor: int) -> bool:
    """
    Whether a stream of ours ends in the journal.

    @param named: what C{JOURNAL_STREAM} holds: C{DEVICE:INODE}. A program that
        a service has started inherits it, though its output goes elsewhere.
    """
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return named == f"{found.st_dev}:{found.st_ino}"


def output_descriptor(stream: TextIO) -> int:
    """
    @return: the descriptor of a stream; -1 of one that has none.
    """
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return -1


def _stamp(now: datetime) -> str:
    local = now.astimezone()
    return f"{_MONTHS[local.month - 1]} {local.day:2} {local:%H:%M:%S}"


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
