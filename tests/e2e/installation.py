# SPDX-License-Identifier: AGPL-3.0-only
"""
A dispatcher and agents in a temporary directory, driven from outside.

It is over 400 lines, since all end-to-end tests stand on it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.certificates import Role, ca_fingerprint
from tests.authority import KEY, issued
from tests.e2e.clients import Client

BIN = Path(os.environ.get("CTRL_EXEC_BIN") or Path(sys.executable).parent)
#: How long anything may take that a test waits for, where much else goes on.
PATIENCE_SECONDS = 60.0


@attrs.frozen
class Done:
    """
    A program that has ended.
    """

    status: int
    out: str
    err: str


def free_port() -> int:
    """
    A port of the loopback interface that nobody listens on.
    """
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


class EndToEndCase(SynchronousTestCase):
    """
    Has a directory, a dispatcher's settings and as many agents as a test
    makes; no process of it outlives the test.
    """

    def setUp(self) -> None:
        # A shell ignores it for what it runs in the background.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.addCleanup(signal.signal, signal.SIGINT, before)
        self.root = Path(tempfile.mkdtemp(prefix="ctrl-exec-e2e-"))
        self.addCleanup(shutil.rmtree, self.root)
        self.home = self.root / "dispatcher"
        self.home.mkdir()
        self.log = self.home / "log"
        self.pairing_port = free_port()
        self.settings = self.home / "ctrl-exec.conf"
        self.configure()

    def configure(self, **more: object) -> None:
        """
        Write the dispatcher's settings.
        """
        values = {
            "ca_dir": ".",
            "state_dir": "state",
            "log": self.log,
            "pairing_bind": "127.0.0.1",
            "pairing_port": self.pairing_port,
            "dispatcher_id": "ops",
            **more,
        }
        self.settings.write_text(
            "".join(f"{key} = {value}\n" for key, value in values.items())
        )

    # Programs.

    def start(self, program: str, *words: object, **how: Any) -> subprocess.Popen[str]:
        """
        Start a program that goes on; it is killed when the test ends.
        """
        process = subprocess.Popen(
            [str(BIN / program), *map(str, words)],
            stdin=how.pop("stdin", subprocess.DEVNULL),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.root,
            **how,
        )
        self.addCleanup(self._reap, process)
        return process

    def end(self, process: subprocess.Popen[str]) -> Done:
        """
        Wait for the end of a program.
        """
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        return Done(process.returncode, out, err)

    def dispatcher(self, *words: object) -> Done:
        """
        One command of the operator's.
        """
        return self.end(self.start("ctrl-exec", "--config", self.settings, *words))

    def dispatched(self, *words: object) -> str:
        """
        One command of the operator's that succeeds.
        """
        done = self.dispatcher(*words)
        self.assertEqual(done.status, 0, done)
        return done.out

    def json(self, *words: object) -> Any:
        """
        What a command answers with C{--json}.
        """
        return json.loads(self.dispatcher("--json", *words).out)

    def _reap(self, process: subprocess.Popen[str]) -> None:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=PATIENCE_SECONDS)

    # Steps that nearly every test begins with.

    def set_up_dispatcher(self) -> None:
        """
        A CA and an identity.
        """
        self.dispatched("setup-ca")
        self.dispatched("setup-ctrl-exec")

    def start_pairing(self) -> subprocess.Popen[str]:
        """
        The pairing listener, under C{twistd}.
        """
        opened = "ACTION=pairing-mode-start "
        before = self.log.read_text().count(opened) if self.log.exists() else 0
        words = ["-n", "--pidfile=", "ctrl-exec-pairing", "--config", self.settings]
        listener = self.start("twistd", *words)
        self.await_line(self.log, opened, listener, before + 1)
        return listener

    def paired(self, *names: str) -> list[AgentHome]:
        """
        Agents that are paired, and do not run yet.
        """
        self.set_up_dispatcher()
        listener = self.start_pairing()
        agents = [AgentHome.made(self, name) for name in names]
        for agent in agents:
            done = self.end(agent.request_pairing("--background"))
            self.assertEqual(done.status, 0, done)
            self.dispatched("approve", done.out.strip())
            self.await_line(agent.log, "ACTION=pair-complete")
        listener.terminate()
        self.end(listener)
        return agents

    def credentials(self, role: Role, *, age_days: int = 0) -> tuple[Path, Path]:
        """
        A certificate of the dispatcher's own CA that is valid for a day, and its
        key.

        @param age_days: how long ago it was issued.
        """
        cert, key = self.root / "issued.crt", self.root / "issued.key"
        cert.write_bytes(
            issued(
                role,
                days=1,
                now=datetime.now(timezone.utc) - timedelta(days=age_days),
                ca=(self.home / "ca.crt").read_bytes(),
                ca_key=(self.home / "ca.key").read_bytes(),
            )
        )
        key.write_bytes(KEY)
        return cert, key

    def await_line(
        self,
        log: Path,
        part: str,
        process: subprocess.Popen[str] | None = None,
        count: int = 1,
    ) -> str:
        """
        Wait until a log holds so many lines with a text in them.

        @return: the last of them.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            text = log.read_text() if log.exists() else ""
            lines = [line for line in text.splitlines() if part in line]
            if len(lines) >= count:
                return lines[-1]
            if process is not None and process.poll() is not None:
                self.fail(f"it has ended: {self.end(process)}")
            if time.monotonic() > deadline:
                self.fail(f"no {part!r} in {log}:\n{text}")
            time.sleep(0.01)


@attrs.define(eq=False)
class AgentHome:
    """
    The directory of one agent.
    """

    case: EndToEndCase
    name: str
    port: int

    @classmethod
    def made(cls, case: EndToEndCase, name: str, **more: object) -> AgentHome:
        """
        An agent with settings and one script, C{show}.
        """
        agent = cls(case, name, free_port())
        agent.home.mkdir()
        agent.configure(**more)
        agent.allow("show", SHOW)
        return agent

    @property
    def home(self) -> Path:
        return self.case.root / self.name

    @property
    def log(self) -> Path:
        return self.home / "log"

    def configure(self, **more: object) -> None:
        values = {
            "name": self.name,
            "bind": "127.0.0.1",
            "port": self.port,
            "state_dir": "state",
            "pairing_port": self.case.pairing_port,
            "log": self.log,
            **more,
        }
        (self.home / "agent.conf").write_text(
            "".join(f"{key} = {value}\n" for key, value in values.items())
        )

    def allow(self, name: str, text: str) -> Path:
        """
        Add a script to the allowlist.
        """
        script = self.home / name
        script.write_text(text)
        script.chmod(0o755)
        with (self.home / "scripts.conf").open("a") as allowlist:
            allowlist.write(f"{name} = {script}\n")
        return script

    def command(self, *words: object, **how: Any) -> subprocess.Popen[str]:
        """
        One command on the agent's host.
        """
        settings = self.home / "agent.conf"
        return self.case.start("ctrl-exec-agent", *words, "--config", settings, **how)

    def request_pairing(self, *words: object) -> subprocess.Popen[str]:
        """
        Ask the dispatcher whose CA is known.
        """
        ca = (self.case.home / "ca.crt").read_bytes()
        return self.ask("--ca-fingerprint", ca_fingerprint(ca), *words)

    def ask(self, *words: object, **how: Any) -> subprocess.Popen[str]:
        """
        Ask whichever dispatcher is there.
        """
        asking = ("request-pairing", "--dispatcher", "127.0.0.1", "--lookup-by", "ip")
        return self.command(*asking, *words, **how)

    def serve(self, *through: str) -> subprocess.Popen[str]:
        """
        The agent, under C{twistd}, once it listens.

        @param through: a command that executes what follows it.
        """
        before = self.log.read_text().count("ACTION=start ")
        program, *words = *through, str(BIN / "twistd")
        words += ["-n", "--pidfile=", "ctrl-exec-agent"]
        settings = self.home / "agent.conf"
        process = self.case.start(program, *words, "--config", settings)
        self.case.await_line(self.log, "ACTION=start ", process, before + 1)
        return process

    def reload(self, process: subprocess.Popen[str]) -> str:
        """
        Have the agent read its settings again.

        @return: the line of the log that says how it went.
        """
        before = len(self.lines("ACTION=reload "))
        hang_up(process)
        return self.case.await_line(self.log, "ACTION=reload ", process, before + 1)

    def context(self, *identity: Path | None) -> ssl.SSLContext:
        """
        What a client needs.

        @param identity: its certificate and key; by default the dispatcher's,
            with C{None} there is none.
        """
        home = self.case.home
        context = ssl.create_default_context(cafile=str(home / "ca.crt"))
        context.check_hostname = False
        if identity != (None,):
            cert, key = identity or (home / "ctrl-exec.crt", home / "ctrl-exec.key")
            assert cert is not None
            context.load_cert_chain(cert, key)
        return context

    def connect(self, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """
        A TLS connection to the agent, as the dispatcher makes one.
        """
        plain = socket.create_connection(("127.0.0.1", self.port), PATIENCE_SECONDS)
        secure = (context or self.context()).wrap_socket(plain)
        self.case.addCleanup(secure.close)
        return secure

    def client(self, *identity: Path) -> Client:
        """
        Somebody who keeps a connection to the agent.

        @param identity: as for L{context}.
        """
        connection = HTTPSConnection(
            "127.0.0.1",
            self.port,
            timeout=PATIENCE_SECONDS,
            context=self.context(*identity),
        )
        self.case.addCleanup(connection.close)
        return Client(connection)

    def lines(self, part: str) -> Sequence[str]:
        """
        What the log says so far, where a text is in it.
        """
        return [line for line in self.log.read_text().splitlines() if part in line]

    def files(self) -> Sequence[str]:
        """
        All that is in the directory.
        """
        return sorted(
            str(path.relative_to(self.home))
            for path in self.home.rglob("*")
            if path.is_file()
        )


def running_with(text: str) -> Sequence[str]:
    """
    The command lines of all processes of the machine that hold a text.
    """
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if text in words:
                found.append(words)
    return found


def hang_up(process: subprocess.Popen[str]) -> None:
    """
    Tell a program to read its settings again.
    """
    process.send_signal(signal.SIGHUP)


SHOW = """\
#!/bin/sh
cat
printf '\\n'
for argument in "$@"; do printf '<%s>\\n' "$argument"; done
echo complaint >&2
exit 3
"""
