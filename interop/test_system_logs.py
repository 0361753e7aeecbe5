# SPDX-License-Identifier: AGPL-3.0-only
"""
What we log, as the daemons of a real system read it: rsyslog and the journal.

Each runs in a directory of the test, as whoever runs the test.
"""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
from collections.abc import Mapping
from datetime import datetime, timezone

from ctrlexec import sinks
from ctrlexec.events import AgentStarted, Event, RunDenied, SerialChangeFailed
from tests.e2e.installation import PATIENCE_SECONDS, EndToEndCase

PROGRAM = "ctrl-exec-agent"
#: What would be a line, or a field, of its own if it could.
FORGERY = (
    'x"\nMESSAGE=forged\nCTRL_EXEC_REQID=forged\n'
    "<13>Nov 21 04:41:00 host sshd[1]: ACTION=run EXIT=0"
)
DENIED = RunDenied(
    peer="192.0.2.1", reason=FORGERY, dispatcher="ünï", script="a=b", reqid="id"
)
EVENTS: tuple[tuple[Event, str], ...] = (
    (AgentStarted(7443), "info"),
    (DENIED, "warning"),
    (SerialChangeFailed("ops", "No space left on device"), "err"),
)
PRIORITIES = {"info": "6", "warning": "4", "err": "3"}
RSYSLOG = """\
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="{directory}/socket")
template(name="parts" type="list") {{
    property(name="syslogfacility-text") constant(value=" ")
    property(name="syslogseverity-text") constant(value=" ")
    property(name="programname") constant(value=" ")
    property(name="procid") constant(value=" ")
    property(name="msg") constant(value="\\n")
}}
action(type="omfile" file="{directory}/lines" template="parts")
"""


class SystemLogCase(EndToEndCase):
    """
    Has a directory for a daemon that logs.
    """

    def setUp(self) -> None:
        super().setUp()
        self.directory = self.root / "daemon"
        self.directory.mkdir()

    def ready(self, *argv: object, **environ: object) -> subprocess.Popen[str]:
        """
        Start a daemon, and wait until it says that it is ready.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.settimeout(PATIENCE_SECONDS)
            told.bind(str(self.root / "notify"))
            more = {"NOTIFY_SOCKET": self.root / "notify", **environ}
            process = subprocess.Popen(
                [*map(str, argv)],
                env={**os.environ, **{key: str(each) for key, each in more.items()}},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            self.addCleanup(self._reap, process)
            while "READY=1" not in told.recv(4096).decode().split("\n"):
                pass
        return process

    def emit(self, choice: str, constant: str) -> None:
        """
        Log each of the events, of which the daemon refuses none.

        @param choice: the setting C{log}.
        @param constant: what names the socket that such a daemon has.
        """
        self.patch(sinks, constant, str(self.directory / "socket"))
        otherwise = io.StringIO()
        sink = sinks.open_sink(choice, PROGRAM, _now, otherwise)
        for event, _ in EVENTS:
            sink.emit(event)
        self.assertEqual(otherwise.getvalue(), "")


class SyslogTests(SystemLogCase):
    """
    rsyslog
    """

    def test_lines(self) -> None:
        """
        Each event is one line, with its facility and level, our name and
        process; no value makes another one.
        """
        settings = self.directory / "rsyslog.conf"
        settings.write_text(RSYSLOG.format(directory=self.directory))
        self.ready("/usr/sbin/rsyslogd", "-n", "-iNONE", "-f", settings)
        self.emit("syslog", "SYSLOG_SOCKET")
        self.await_line(self.directory / "lines", EVENTS[-1][0].line())
        lines = (self.directory / "lines").read_text("utf-8").splitlines()
        head = f"{PROGRAM} {os.getpid()} "
        self.assertEqual(
            lines,
            [f"daemon {level} {head} {event.line()}" for event, level in EVENTS],
        )


class JournalTests(SystemLogCase):
    """
    The journal of systemd
    """

    def test_entries(self) -> None:
        """
        Each event is one entry, with its level and each of its fields; no value
        makes another one.
        """
        (self.directory / "logs").mkdir()
        # It need not wait for a disk.
        (self.directory / "flushed").touch()
        daemon = self.ready(
            *("/usr/lib/systemd/systemd-journald", PROGRAM),
            RUNTIME_DIRECTORY=self.directory,
            LOGS_DIRECTORY=self.directory / "logs",
        )
        self.emit("journal", "JOURNAL_SOCKET")
        # It stores all that it has been sent before it ends.
        daemon.terminate()
        self.end(daemon)
        for (event, level), entry in zip(EVENTS, self.entries(), strict=True):
            fields = {f"CTRL_EXEC_{k}": each for k, each in event.fields().items()}
            expected = {
                **fields,
                "MESSAGE": event.line(),
                "PRIORITY": PRIORITIES[level],
                "SYSLOG_FACILITY": "3",
                "SYSLOG_PID": str(os.getpid()),
                "CTRL_EXEC_ACTION": event.action,
            }
            ours = [key for key in entry if key.startswith("CTRL_EXEC_")]
            self.assertEqual(len(ours), len(fields) + 1)
            self.assertEqual({key: entry[key] for key in expected}, expected)
        self.assertEqual(len(self.entries("CTRL_EXEC_REQID=id")), 1)
        self.assertEqual(self.entries("CTRL_EXEC_REQID=forged"), [])

    def entries(self, *matches: str) -> list[Mapping[str, str]]:
        """
        What the journal holds of ours, oldest first.
        """
        done = subprocess.run(
            [
                *("journalctl", "--quiet", "--output=json", "--all"),
                f"--directory={self.directory / 'logs'}",
                *(f"SYSLOG_IDENTIFIER={PROGRAM}", *matches),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.stderr, "")
        return [json.loads(line) for line in done.stdout.splitlines()]


def _now() -> datetime:
    return datetime.now(timezone.utc)
