# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.system_log} and L{ctrlexec.datagrams}.
"""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import ClassVar

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ctrlexec.datagrams import send_datagram
from ctrlexec.events import AgentStarted, Event, RunDenied
from ctrlexec.interfaces import IEventSink
from ctrlexec.system_log import (
    SystemLog,
    is_journal,
    journal_entry,
    journal_message,
    syslog_line,
)
from tests.authority import NOW
from tests.daemons import DaemonTestCase

PROGRAM = "ctrl-exec-agent"


def read_entry(data: bytes) -> dict[str, str]:
    """
    What the journal makes of an entry.
    """
    fields = {}
    while data:
        name, _, rest = data.partition(b"\n")
        if b"=" in name:
            key, _, value = name.partition(b"=")
            fields[key.decode()] = value.decode()
            data = rest
            continue
        (length,) = struct.unpack("<Q", rest[:8])
        fields[name.decode()] = rest[8 : 8 + length].decode()
        assert rest[8 + length : 9 + length] == b"\n"
        data = rest[9 + length :]
    return fields


@attrs.frozen
class Said(Event):
    """
    An event of the tests.
    """

    action: ClassVar[str] = "said"
    reason: str


class LogTestCase(DaemonTestCase):
    """
    A log, and what it did not take.
    """

    def setUp(self) -> None:
        super().setUp()
        self.lost: list[tuple[Event, OSError]] = []

    def otherwise(self, event: Event, error: OSError) -> None:
        """
        Take what the log does not.
        """
        self.lost.append((event, error))

    def syslog(self) -> SystemLog:
        """
        A sink whose syslog is ours.
        """
        return SystemLog(
            lambda event: syslog_line(event, PROGRAM, NOW), self.address, self.otherwise
        )

    def journal(self) -> SystemLog:
        """
        A sink whose journal is ours.
        """
        return SystemLog(
            lambda event: journal_message(event, PROGRAM), self.address, self.otherwise
        )


class SyslogTests(LogTestCase):
    """
    L{syslog_line}
    """

    def setUp(self) -> None:
        super().setUp()
        zone = os.environ.get("TZ")
        self.addCleanup(self.zone, zone)
        self.zone("EST5")

    def zone(self, name: str | None) -> None:
        """
        Move the machine.
        """
        if name is None:
            os.environ.pop("TZ", None)
        else:
            os.environ["TZ"] = name
        time.tzset()

    def test_line(self) -> None:
        """
        A line has its facility and level, the machine's own time, ident and
        process id.
        """
        verifyObject(IEventSink, self.syslog())
        self.syslog().emit(AgentStarted(7443))
        self.syslog().emit(RunDenied("a", "b", "c", "d", "e"))
        pid = os.getpid()
        started, denied = self.taken()
        self.assertEqual(
            started,
            f"<30>Mar  5 13:38:09 {PROGRAM}[{pid}]: ACTION=start PORT=7443".encode(),
        )
        self.assertTrue(denied.startswith(b"<28>Mar  5 "))

    def test_forging(self) -> None:
        """
        No value makes a second line of one.
        """
        self.syslog().emit(Said("a\n<30>Mar  5 13:38:09 sshd[1]: hello\0\udc80"))
        (line,) = self.taken()
        self.assertNotIn(b"\n", line)
        self.assertNotIn(b"\0", line)

    def test_startedAnew(self) -> None:
        """
        A daemon that was started anew gets the next line.
        """
        sink = self.syslog()
        sink.emit(Said("one"))
        self.daemon.close()
        sink.emit(Said("two"))
        Path(self.address).unlink()
        self.daemon = self.listen(self.address)
        sink.emit(Said("three"))
        (line,) = self.taken()
        self.assertTrue(line.endswith(b"REASON=three"))
        self.assertEqual([event for event, _ in self.lost], [Said("two")])


class JournalTests(LogTestCase):
    """
    L{journal_message}
    """

    def test_entry(self) -> None:
        """
        An entry holds the line, and each field by its name.
        """
        verifyObject(IEventSink, self.journal())
        event = RunDenied("192.0.2.1", "no", "hq", "a b", "9f21")
        self.journal().emit(event)
        (entry,) = self.taken()
        self.assertEqual(
            read_entry(entry),
            {
                "MESSAGE": event.line(),
                "PRIORITY": "4",
                "SYSLOG_FACILITY": "3",
                "SYSLOG_IDENTIFIER": PROGRAM,
                "SYSLOG_PID": str(os.getpid()),
                "CTRL_EXEC_ACTION": "deny",
                "CTRL_EXEC_SCRIPT": "a b",
                "CTRL_EXEC_PEER": "192.0.2.1",
                "CTRL_EXEC_REQID": "9f21",
                "CTRL_EXEC_REASON": "no",
                "CTRL_EXEC_DISPATCHER": "hq",
            },
        )

    def test_forging(self) -> None:
        """
        A value with newlines is that value, and no further field.
        """
        value = "a\nPRIORITY=0\n_UID=0\nMESSAGE\n"
        self.journal().emit(Said(value))
        fields = read_entry(self.taken()[0])
        self.assertEqual(fields["CTRL_EXEC_REASON"], value)
        self.assertEqual(fields["PRIORITY"], "6")
        self.assertNotIn("_UID", fields)

    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def test_anyValue(self, value: str) -> None:
        """
        Any text comes out as it went in.
        """
        entry = journal_entry({"A": value, "B": "b"})
        self.assertEqual(read_entry(entry), {"A": value, "B": "b"})

    def test_gone(self) -> None:
        """
        What the journal does not take goes elsewhere: it is gone, or the entry
        is longer than a datagram may be.
        """
        huge = Said("x" * 1_000_000)
        self.journal().emit(huge)
        Path(self.address).unlink()
        self.journal().emit(Said("one"))
        self.assertEqual([event for event, _ in self.lost], [huge, Said("one")])


class DatagramTests(DaemonTestCase):
    """
    L{send_datagram}
    """

    def test_path(self) -> None:
        """
        A path leads to a socket.
        """
        send_datagram(self.address, b"one")
        self.assertEqual(self.taken(), [b"one"])

    def test_abstract(self) -> None:
        """
        So does a name in the abstract namespace.
        """
        name = f"ctrl-exec-test-{os.getpid()}"
        self.daemon = self.listen(f"\0{name}")
        send_datagram(f"@{name}", b"one")
        self.assertEqual(self.taken(), [b"one"])


class IsJournalTests(SynchronousTestCase):
    """
    L{is_journal}
    """

    def test_same(self) -> None:
        """
        It is the journal only if device and inode are the stream's own.
        """
        with open(os.devnull, "rb") as stream:
            found = os.fstat(stream.fileno())
            own = f"{found.st_dev}:{found.st_ino}"
            self.assertTrue(is_journal(own, stream.fileno()))
            for other in ("", "1", f"{own}0", f"{found.st_ino}:{found.st_dev}"):
                self.assertFalse(is_journal(other, stream.fileno()), other)
        self.assertFalse(is_journal(own, -1))
