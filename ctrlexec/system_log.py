# SPDX-License-Identifier: AGPL-3.0-only
"""
The logs of the system: syslog (RFC 3164, as C{/dev/log} takes it) and the
journal (systemd's native protocol, C{systemd.io/JOURNAL_NATIVE_PROTOCOL}).
"""

from __future__ import annotations

import atexit
import os
import struct
import syslog
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from threading import Lock
from typing import TextIO

import attrs
from zope.interface import implementer

from ctrlexec.datagrams import NO_ROOM, send_datagram
from ctrlexec.events import Event, LinesLost
from ctrlexec.interfaces import IEventSink

SYSLOG_SOCKET = "/dev/log"
JOURNAL_SOCKET = "/run/systemd/journal/socket"
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()

#: Where an event goes that its log did not take: told the event and why.
Otherwise = Callable[[Event, OSError], None]

#: Calls something after so many seconds, as C{callLater} of a reactor does.
Later = Callable[[float, Callable[[], None]], object]

#: How many bytes of messages are kept while a log has no room for them.
WAITING_BYTES = 1_048_576
#: How many are sent at a time, since whoever sends them has other work to do.
AT_ONCE = 100
#: How soon it is tried again.
AGAIN_SECONDS = 0.1
#: How long a program that ends waits for a log to take what is left.
LAST_SECONDS = 1.0


@implementer(IEventSink)
@attrs.define(eq=False)
class SystemLog:
    """
    A log that is a daemon of this machine. Nothing here waits for it: where it
    has no room for a message, that one and all after it are kept, in order, and
    sent when there is. What is too much to keep is counted, and L{LinesLost}
    says so as soon as anything can be said.

    @ivar form: an event as a message.
    @ivar address: where the log listens.
    @ivar otherwise: takes the events that the log does not.
    @ivar later: tries again while nothing else happens; in whatever threads
        there are events. Without it that is done with the next event, and when
        the program ends.
    @ivar seconds: tells the time, of a clock that nobody sets.
    """

    form: Callable[[Event], bytes]
    address: str
    otherwise: Otherwise
    later: Later | None = None
    seconds: Callable[[], float] = time.monotonic
    _waiting: deque[tuple[Event, bytes]] = attrs.field(factory=deque, init=False)
    _bytes: int = attrs.field(default=0, init=False)
    _lost: int = attrs.field(default=0, init=False)
    _due: bool = attrs.field(default=False, init=False)
    _lock: Lock = attrs.field(factory=Lock, init=False)

    def emit(self, event: Event) -> None:
        message = self.form(event)
        with self._lock:
            if self._waiting and self._bytes + len(message) > WAITING_BYTES:
                self._lost += 1
            else:
                self._keep(event, message)
            self._send()

    def finish(self) -> None:
        """
        The program ends. The log has a moment left to take what waits; the rest
        goes elsewhere.
        """
        with self._lock:
            until = self.seconds() + LAST_SECONDS
            while self._waiting and self._deliver(max(0.0, until - self.seconds())):
                pass
            while self._waiting:
                self.otherwise(self._taken(), TimeoutError("it takes no lines"))

    def _send(self) -> None:
        for _ in range(AT_ONCE):
            if not self._waiting or not self._deliver(0.0):
                break
        if self._waiting:
            _unfinished.add(self)
            if self.later is not None and not self._due:
                self._due = True
                self.later(AGAIN_SECONDS, self._retry)

    def _retry(self) -> None:
        with self._lock:
            self._due = False
            self._send()

    def _deliver(self, patience_seconds: float) -> bool:
        """
        @return: whether the first message that waits is sent, or never will be.
        """
        event, message = self._waiting[0]
        try:
            send_datagram(self.address, message, patience_seconds)
        except NO_ROOM:
            return False
        except OSError as error:
            self.otherwise(event, error)
        self._taken()
        return True

    def _taken(self) -> Event:
        event, message = self._waiting.popleft()
        self._bytes -= len(message)
        if self._lost and not self._waiting:
            # All that were kept are out; those that were not come here.
            news, self._lost = LinesLost(self._lost), 0
            self._keep(news, self.form(news))
        return event

    def _keep(self, event: Event, message: bytes) -> None:
        self._waiting.append((event, message))
        self._bytes += len(message)


_unfinished: set[SystemLog] = set()


@atexit.register
def finish_logs() -> None:
    """
    Bring out what still waits for a log. For the end of a program; one that
    C{os._exit} ends has to see to it.
    """
    while _unfinished:
        _unfinished.pop().finish()


def syslog_line(event: Event, program: str, now: datetime) -> bytes:
    """
    An event as a line for syslog, facility daemon.

    @param program: the ident.
    @param now: aware; the line has the time of the machine's zone.
    """
    priority = syslog.LOG_DAEMON | event.level
    head = f"<{priority}>{_stamp(now)} {program}[{os.getpid()}]: "
    return _bytes(head + event.line())


def journal_message(event: Event, program: str) -> bytes:
    """
    An event for the journal: the line as its message, and each field by its
    name, so that C{journalctl CTRL_EXEC_REQID=…} finds what belongs to a run.

    @param program: the ident.
    """
    fields = {f"CTRL_EXEC_{key}": value for key, value in event.fields().items()}
    return journal_entry(
        {
            "MESSAGE": event.line(),
            "PRIORITY": str(event.level),
            "SYSLOG_FACILITY": str(syslog.LOG_DAEMON >> 3),
            "SYSLOG_IDENTIFIER": program,
            "SYSLOG_PID": str(os.getpid()),
            "CTRL_EXEC_ACTION": event.action,
            **fields,
        }
    )


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
