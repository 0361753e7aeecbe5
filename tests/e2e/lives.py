# SPDX-License-Identifier: AGPL-3.0-only
"""
Runs that live long, for tests that end what is round them.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any, ClassVar

import attrs

from tests.e2e.apis import Client as ApiClient
from tests.e2e.clients import Client
from tests.e2e.installation import (
    PATIENCE_SECONDS,
    Done,
    EndToEndCase,
    free_port,
)

#: How long a script may take after TERM, in these tests.
GRACE_SECONDS = 2
#: Begins, and goes on for as long as the test wants; C{MARK} is how long at most,
#: in seconds that no other process of the machine sleeps.
LONG = "#!/bin/sh\necho begun\nsleep MARK\n"
#: The same, and ends in its own time, with a status and an output of its own.
ENDS = """\
#!/bin/sh
echo begun
while [ ! -e GO ]; do [ -e PLACE ] || exit 9; sleep 0.05; done
echo ended
echo complaint >&2
exit 7
"""


@attrs.frozen
class Stream:
    """
    What an agent tells of a run, as it comes.
    """

    response: HTTPResponse

    def event(self) -> dict[str, Any]:
        """
        The next one; an empty one when there are no more.
        """
        line = self.response.readline()
        event: dict[str, Any] = json.loads(line) if line else {}
        return event

    def until(self, name: str) -> list[dict[str, Any]]:
        """
        The events up to one with that in it.
        """
        events = [self.event()]
        while name not in events[-1]:
            assert events[-1], events
            events.append(self.event())
        return events


class RunsCase(EndToEndCase):
    """
    An agent that runs, with scripts that live long; whatever of theirs is left
    is ended with the test.

    @cvar more: settings of the agent.
    """

    more: ClassVar[Mapping[str, object]] = {}

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(self._clear)
        self.mark = f"600.{secrets.randbelow(10**9):09}"
        (self.agent,) = self.paired("agent-one")
        self.agent.configure(run_grace=GRACE_SECONDS, stop_grace=1, **self.more)
        self.go = self.root / "go"
        self.allow("long", LONG)
        self.allow("ends", ENDS)
        self.serving = self.agent.serve()

    def allow(self, name: str, text: str, annotations: str = "") -> None:
        """
        Let the agent run a script.
        """
        for word, value in {
            "MARK": self.mark,
            "GO": self.go,
            "PLACE": self.root,
        }.items():
            text = text.replace(word, str(value))
        script = self.agent.allow(name, text)
        if annotations:
            file = self.agent.home / "scripts.conf"
            line = f"{name} = {script}\n"
            file.write_text(
                file.read_text().replace(line, f"{name} = {script} {annotations}\n")
            )

    # The agent.

    def kill_agent(self) -> None:
        """
        End the agent, and nothing else, without a word.
        """
        self.serving.kill()
        self.end(self.serving)

    def restart(self) -> None:
        """
        Start it again.
        """
        self.serving = self.agent.serve()

    def raw(self, *identity: Path) -> Client:
        """
        Somebody who speaks to it without a dispatcher.
        """
        return self.agent.client(*identity)

    def stream(
        self, path: str, client: Client | None = None, **fields: object
    ) -> Stream:
        """
        Ask for the events of a run.
        """
        client = client or self.raw()
        client.begin(path, **fields)
        response = client.connection.getresponse()
        self.assertEqual(response.status, 200)
        self.assertEqual(response.headers["Content-Type"], "application/x-ndjson")
        return Stream(response)

    def result(self, reqid: str) -> Any:
        """
        What the agent has on record of a run, once it has ended.
        """
        return self.until(
            lambda: self._ended(reqid), f"run {reqid} does not come to its end"
        )

    def _ended(self, reqid: str) -> Any:
        status, record = self.raw().ask(f"/result/{reqid}")
        self.assertEqual(status, 200, record)
        return record if record["status"] == "done" else None

    # The operator.

    def ctrl_exec(self, *words: object, **how: Any) -> subprocess.Popen[str]:
        """
        One command of the operator's, which goes on.
        """
        how.setdefault("env", {**os.environ, "XDG_STATE_HOME": str(self.root / "seen")})
        return self.start("ctrl-exec", "--config", self.settings, *words, **how)

    def reqid_of(self, *words: object) -> str:
        """
        Order a run that nobody waits for.

        @return: its id.
        """
        answer = self.json("run", "agent-one", *words, "--async")
        self.assertIs(answer["ok"], True, answer)
        return str(answer["reqid"])

    def ended(self, done: Done, status: int = 0) -> str:
        """
        A command has ended as it should.

        @return: what it printed.
        """
        self.assertEqual(done.status, status, done)
        self.assertNotIn("Traceback", done.out + done.err)
        return done.out

    # The API.

    def serve_api(self) -> subprocess.Popen[str]:
        """
        The API, once it listens; the same one again after it was ended.
        """
        self.root.chmod(0o755)
        self.home.chmod(0o755)
        self.api_port = getattr(self, "api_port", 0) or free_port()
        self.configure(api_port=self.api_port, api_auth_default="allow")
        before = self.log.read_text().count("ACTION=api-start ")
        words = ["-n", "--pidfile=", "ctrl-exec-api", "--config", self.settings]
        api = self.start("twistd", *words)
        self.await_line(self.log, "ACTION=api-start ", api, before + 1)
        return api

    def api_client(self) -> ApiClient:
        """
        Somebody who asks the API.
        """
        connection = HTTPConnection(
            "127.0.0.1", self.api_port, timeout=PATIENCE_SECONDS
        )
        self.addCleanup(connection.close)
        return ApiClient(connection)

    # What runs.

    def alive(self) -> Sequence[int]:
        """
        The processes that sleep for this test.
        """
        return [pid for pid in processes() if self.mark in command_of(pid)]

    def started(self, count: int = 1) -> None:
        """
        Wait until so many do.
        """
        self.until(lambda: len(self.alive()) >= count, "nothing has begun")

    def until(
        self,
        found: Callable[[], Any],
        complaint: str,
        seconds: float = PATIENCE_SECONDS,
    ) -> Any:
        """
        Wait for something that has no line in a log.

        @return: what was found.
        """
        deadline = time.monotonic() + seconds
        while not (what := found()):
            if time.monotonic() > deadline:
                self.fail(f"{complaint}:\n{self.agent.log.read_text()}")
            time.sleep(0.01)
        return what

    def parents(self) -> Sequence[int]:
        """
        The small parents of runs: whoever has a file of theirs open.
        """
        runs = self.agent.home / "state" / "runs"
        skipped = {os.getpid(), self.serving.pid}
        return [pid for pid in processes() if pid not in skipped and holds(pid, runs)]

    def _clear(self) -> None:
        """
        End what is left: scripts first, so that nobody loses sight of them.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            scripts = [
                pid
                for pid in processes()
                if self.mark in (words := command_of(pid)) or f"{self.root}/" in words
            ]
            for pid in scripts:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not scripts and not self.parents():
                return
            time.sleep(0.05)
        for pid in self.parents():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def processes() -> Sequence[int]:
    """
    All of the machine.
    """
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def command_of(pid: int) -> str:
    """
    Its command line; empty of one that has ended.
    """
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        return words.replace(b"\0", b" ").decode(errors="replace")
    return ""


def holds(pid: int, directory: Path) -> bool:
    """
    Whether a process has something open below a directory of runs. A lock does not
    count: what the small parents are made of has it as well.
    """
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                place = os.readlink(link)
                if place.startswith(f"{directory}/") and "/.locks/" not in place:
                    return True
    return False


def most_memory(pid: int) -> int:
    """
    How much memory a process has had at most, in bytes.
    """
    return _memory(pid, "VmHWM")


def memory(pid: int) -> int:
    """
    How much it has, in bytes.
    """
    return _memory(pid, "VmRSS")


def _memory(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise AssertionError(name)
