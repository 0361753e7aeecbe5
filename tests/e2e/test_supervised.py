# SPDX-License-Identifier: AGPL-3.0-only
"""
The agent under a supervisor: how it stops, and what it and systemd tell each
other.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

from tests.e2e.installation import (
    BIN,
    PATIENCE_SECONDS,
    EndToEndCase,
    hang_up,
)

NAME = "ctrl-exec-agent.socket"
# What systemd does between fork and exec: the socket becomes descriptor 3.
HAND_OVER = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.environ["LISTEN_FDNAMES"] = sys.argv[2]
os.execv(sys.argv[3], sys.argv[3:])
"""
# Runs until a file is there, whatever becomes of its output.
WAIT = """\
#!/bin/sh
while [ -d HOME ] && [ ! -e HOME/go ]; do sleep 0.05; done
echo done
"""


class SupervisedTestCase(EndToEndCase):
    """
    A paired agent with a script that runs for as long as the test wants.
    """

    def setUp(self) -> None:
        super().setUp()
        (self.agent,) = self.paired("agent-one")
        self.agent.allow("wait", WAIT.replace("HOME", str(self.agent.home)))

    def serve(self, *words: str, **environ: str) -> subprocess.Popen[str]:
        """
        The agent as the unit starts it, once it listens.
        """
        settings = str(self.agent.home / "agent.conf")
        argv = [*words, str(BIN / "ctrl-exec-agent"), "serve", "--config", settings]
        process = self.start(
            argv[0],
            *argv[1:],
            env={**os.environ, **environ},
            close_fds=not words,
        )
        self.await_line(self.agent.log, "ACTION=start ", process)
        return process

    def asking(self) -> subprocess.Popen[str]:
        """
        An operator whose run goes on.
        """
        words = ["--config", self.settings, "run", "agent-one", "wait"]
        operator = self.start("ctrl-exec", *words)
        self.await_line(self.agent.log, "ACTION=run-start")
        return operator


class StopTests(SupervisedTestCase):
    """
    C{SIGTERM}
    """

    def test_graceful(self) -> None:
        """
        The port is closed at once; the run that goes on ends, and its answer
        arrives.
        """
        agent = self.serve()
        operator = self.asking()
        agent.terminate()
        self.refused()
        self.assertIsNone(agent.poll())
        (self.agent.home / "go").touch()
        done = self.end(operator)
        self.assertEqual((done.status, "done" in done.out), (0, True), done)
        done = self.end(agent)
        self.assertEqual((done.status, done.err), (0, ""))
        self.await_line(self.agent.log, "ACTION=stop RUNS=0")

    def test_left(self) -> None:
        """
        A run that outlasts C{stop_grace} is named, and goes on; the next agent
        has the answer for whoever waits for it.
        """
        self.agent.configure(stop_grace=0.3)
        agent = self.serve()
        operator = self.asking()
        agent.terminate()
        self.assertEqual(self.end(agent).status, 0)
        line = self.await_line(self.agent.log, "ACTION=stop ")
        started = self.await_line(self.agent.log, "ACTION=run-start")
        (reqid,) = (word for word in started.split() if word.startswith("REQID="))
        self.assertTrue(line.endswith(f"{reqid.replace('REQID', 'REQIDS')} RUNS=1"))
        self.serve()
        (self.agent.home / "go").touch()
        done = self.end(operator)
        self.assertEqual((done.status, "done" in done.out), (0, True), done)

    def test_twice(self) -> None:
        """
        A second C{SIGTERM} is for somebody who does not want to wait.
        """
        agent = self.serve()
        self.asking()
        agent.terminate()
        self.refused()
        agent.terminate()
        done = self.end(agent)
        self.assertEqual((done.status, done.err), (0, ""))
        self.await_line(self.agent.log, "RUNS=1")
        (self.agent.home / "go").touch()

    def refused(self) -> None:
        """
        Wait until nobody can connect any more.
        """
        while True:
            try:
                socket.create_connection(
                    ("127.0.0.1", self.agent.port), PATIENCE_SECONDS
                ).close()
            except ConnectionResetError:
                # It was among those that the system held for the port.
                continue
            except ConnectionRefusedError:
                return


class SystemdTests(SupervisedTestCase):
    """
    Systemd's part is played by the test.
    """

    def setUp(self) -> None:
        super().setUp()
        self.notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.notified.close)
        self.notified.settimeout(PATIENCE_SECONDS)
        self.address = str(self.root / "notify")
        self.notified.bind(self.address)

    def told(self) -> str:
        """
        What the agent has to say next, but for that it lives.
        """
        while True:
            said = self.notified.recv(4096).decode()
            if said != "WATCHDOG=1":
                return said.split("\n")[0]

    def test_notified(self) -> None:
        """
        Systemd hears of each step, and that the reactor turns.
        """
        agent = self.serve(NOTIFY_SOCKET=self.address, WATCHDOG_USEC="200000")
        self.assertEqual(self.told(), "READY=1")
        for _ in range(3):
            self.assertEqual(self.notified.recv(4096), b"WATCHDOG=1")
        hang_up(agent)
        self.assertEqual([self.told(), self.told()], ["RELOADING=1", "READY=1"])
        agent.send_signal(signal.SIGTERM)
        self.assertEqual(self.told(), "STOPPING=1")
        self.assertEqual(self.end(agent).status, 0)

    def test_handedOver(self) -> None:
        """
        The agent answers on the port that systemd has opened, not on that of
        its settings; scripts inherit neither it nor word of it.
        """
        with socket.create_server(("127.0.0.1", 0)) as port:
            port.set_inheritable(True)
            number = port.getsockname()[1]
            program = [sys.executable, "-c", HAND_OVER, str(port.fileno()), NAME]
            agent = self.serve(*program)
        self.await_line(self.agent.log, f"ACTION=start PORT={number}")
        self.agent.allow("look", "#!/bin/sh\nenv\nls -l /proc/self/fd\n")
        hang_up(agent)
        self.await_line(self.agent.log, "ACTION=reload")
        out = self.dispatched("run", f"agent-one:{number}", "look")
        self.assertNotIn("LISTEN", out)
        self.assertEqual(out.count("socket:"), 0, out)


class UnfitTests(SupervisedTestCase):
    """
    A socket unit that the agent can not use.
    """

    def test_unix(self) -> None:
        """
        It does not start: it would answer where nobody looks for it.
        """
        with socket.socket(socket.AF_UNIX) as port:
            port.bind(str(self.root / "port"))
            port.listen()
            port.set_inheritable(True)
            done = self.end(
                self.start(
                    *(sys.executable, "-c", HAND_OVER, port.fileno(), NAME),
                    *(BIN / "ctrl-exec-agent", "serve"),
                    *("--config", self.agent.home / "agent.conf"),
                    close_fds=False,
                )
            )
        self.assertEqual(done.status, 78)
        self.assertIn("error: systemd hands over something other", done.err)
