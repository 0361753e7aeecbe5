# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.sinks}.
"""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import ClassVar, TextIO

import attrs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ctrlexec.events import Event
from ctrlexec.interfaces import IEventSink
from ctrlexec.sinks import FileSink, StreamSink, automatic, open_sink
from ctrlexec.system_log import JOURNAL_SOCKET, SYSLOG_SOCKET, SystemLog
from tests.authority import NOW


@attrs.frozen
class Sample(Event):
    """
    An event of the tests.
    """

    action: ClassVar[str] = "sample"
    zone: str = "z"


class SinkTests(SynchronousTestCase):
    """
    Where lines go.
    """

    line = (
        f"2026-03-05T18:38:09Z ctrl-exec-agent[{os.getpid()}]: ACTION=sample ZONE=z\n"
    )

    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def sink(self, choice: str, stderr: TextIO | None = None) -> IEventSink:
        """
        The sink of a choice.
        """
        sink = open_sink(
            choice, "ctrl-exec-agent", lambda: NOW, stderr or io.StringIO()
        )
        verifyObject(IEventSink, sink)
        return sink

    def test_stream(self) -> None:
        """
        A line on a stream says when, who and what.
        """
        stream = io.StringIO()
        self.sink("stderr", stream).emit(Sample())
        self.assertEqual(stream.getvalue(), self.line)

    def test_streamClosed(self) -> None:
        """
        A stream that nobody reads any more does not end our work.
        """
        stream = io.StringIO()
        stream.close()
        self.sink("stderr", stream).emit(Sample())
        with open("/dev/full", "w", encoding="utf-8") as full:
            self.sink("stderr", full).emit(Sample())
            self.assertRaises(OSError, full.close)

    def test_file(self) -> None:
        """
        Lines are added to a file, which others can not read, and which may be
        moved away.
        """
        sink = self.sink(str(self.path))
        sink.emit(Sample())
        sink.emit(Sample())
        self.assertEqual(self.path.read_text(), self.line * 2)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode) & 0o137, 0)
        self.path.rename(self.path.with_suffix(".1"))
        sink.emit(Sample())
        self.assertEqual(self.path.read_text(), self.line)

    def test_fileFull(self) -> None:
        """
        A disk that is full does not end our work, nor does a missing
        directory.
        """
        stderr = io.StringIO()
        self.sink("/dev/full", stderr).emit(Sample())
        self.assertEqual(
            stderr.getvalue(), f"/dev/full: No space left on device\n{self.line}"
        )
        stderr.close()
        self.sink(str(self.path / "missing" / "log"), stderr).emit(Sample())

    def test_choice(self) -> None:
        """
        The words of the setting C{log} each name a kind of sink.
        """
        self.assertIsInstance(self.sink("stderr"), StreamSink)
        for choice, address in (("syslog", SYSLOG_SOCKET), ("journal", JOURNAL_SOCKET)):
            sink = self.sink(choice)
            assert isinstance(sink, SystemLog)
            self.assertEqual(sink.address, address)
            self.assertIn(b"ACTION=sample ZONE=z", sink.form(Sample()))
        self.assertIsInstance(self.sink("/var/log/x"), FileSink)
        self.assertIsInstance(self.sink("auto"), (StreamSink, SystemLog))

    def test_automatic(self) -> None:
        """
        Without a word in the settings it is the journal for a service of
        systemd, the terminal for a person, else syslog where there is one.
        """
        self.path.write_text("")
        none = self.path / "none"
        with self.path.open("w") as stream:
            found = os.fstat(stream.fileno())
            journal = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
            self.assertEqual(automatic(journal, stream, self.path), "journal")
            self.assertEqual(automatic({}, stream, self.path), "syslog")
            self.assertEqual(automatic({}, stream, none), "stderr")
        main, terminal = os.openpty()
        self.addCleanup(os.close, main)
        with os.fdopen(terminal, "w") as stream:
            self.assertEqual(automatic(journal, stream, self.path), "stderr")
        self.assertEqual(automatic(journal, io.StringIO(), self.path), "syslog")

    def test_otherwise(self) -> None:
        """
        What the system's log does not take stands on C{stderr}, which says why.
        """
        stderr = io.StringIO()
        sink = open_sink("syslog", "ctrl-exec-agent", lambda: NOW, stderr)
        assert isinstance(sink, SystemLog)
        sink.address = str(self.path)
        sink.emit(Sample())
        why = "ctrl-exec-agent: the system's log: No such file or directory\n"
        self.assertEqual(stderr.getvalue(), why + self.line)
