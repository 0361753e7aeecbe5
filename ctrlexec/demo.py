# SPDX-License-Identifier: AGPL-3.0-only
"""
The whole system on one machine, for a newcomer: C{ctrl-exec demo}.

Nothing in it is special to the demo: each step is a command of ours in a
process of its own, as an operator would type it, on files in one temporary
directory and ports of the loopback interface.

It is a few lines over 400: a story is best read in one place.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

import attrs

from ctrlexec.errors import CtrlExecError

AGENTS = ("agent-one", "agent-two")
ARGUMENTS = ("two words", 'it\'s "quoted"', "$HOME; ls")

_WAIT_SECONDS = 15.0
_POLL_SECONDS = 0.02
_TERM_SECONDS = 5.0
_LAST_LINES = 5

_SCRIPT = """\
#!/bin/sh
# The demonstrator: shows what a script is given. Nothing here is expanded by a
# shell on the way: the arguments arrive as they were typed.
context=$(cat)
for argument in "$@"; do printf 'argument: %s\\n' "$argument"; done
printf 'stdin:    %s\\n' "$context"
echo 'a word on stderr' >&2
exit {status}
"""


@attrs.frozen
class Voice:
    """
    How the demo speaks.

    @ivar colour: whether the reader's terminal shows colours.
    """

    colour: bool

    def title(self, text: str) -> None:
        self._say(f"\n{self._paint('1', text)}\n")

    def text(self, text: str = "") -> None:
        self._say(f"  {text}\n" if text else "\n")

    def command(self, words: Sequence[str]) -> None:
        self._say(f"  {self._paint('36', '$ ' + shlex.join(words))}\n")

    def output(self, text: str) -> None:
        for line in text.splitlines():
            self._say(f"  {line}\n")

    def _paint(self, style: str, text: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self.colour else text

    def _say(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


@attrs.frozen
class Place:
    """
    The directory that holds it all.
    """

    root: Path

    @property
    def dispatcher(self) -> Path:
        return self.root / "dispatcher"

    @property
    def settings(self) -> Path:
        return self.dispatcher / "ctrl-exec.conf"

    @property
    def log(self) -> Path:
        return self.dispatcher / "dispatcher.log"

    def agent(self, name: str) -> Path:
        return self.root / name

    def agent_settings(self, name: str) -> Path:
        return self.agent(name) / "agent.conf"

    def agent_log(self, name: str) -> Path:
        return self.agent(name) / "agent.log"


def main(*, keep: bool, colour: bool) -> int:
    """
    Show it.

    @param keep: leave it all running, and say how to go on by hand.
    @return: the exit status.
    @raise CtrlExecError: something did not work; it is cleaned up all the same.
    """
    root = Path(tempfile.mkdtemp(prefix="ctrl-exec-demo-"))
    demo = Demo(Place(root), Voice(colour))
    with _terminated_like_interrupted(), ExitStack() as cleaning:
        cleaning.callback(shutil.rmtree, root, ignore_errors=True)
        cleaning.callback(demo.stop)
        try:
            demo.show()
        except (CtrlExecError, subprocess.SubprocessError, OSError) as error:
            demo.complain()
            raise CtrlExecError(f"the demo does not work here: {error}") from error
        if keep:
            cleaning.pop_all()
            demo.hand_over()
        else:
            demo.voice.title("That was all. Everything is stopped and removed.")
            demo.voice.text("Keep it running next time: ctrl-exec demo --keep")
    return 0


@attrs.define(eq=False)
class Demo:
    """
    The steps, in their order.
    """

    place: Place
    voice: Voice
    _running: list[subprocess.Popen[str]] = attrs.field(factory=list, init=False)

    def show(self) -> None:
        """
        All of it, told as it happens.
        """
        self.voice.title("ctrl-exec: a dispatcher and two agents on this machine")
        self.voice.text(f"Everything lives in {self.place.root}")
        self.write_settings()
        self.make_authority()
        self.pair()
        self.start_agents()
        self.run_script()
        self.refuse_script()
        self.compare_logs()

    def write_settings(self) -> None:
        """
        What an operator would edit: a few lines for each program.
        """
        self.place.dispatcher.mkdir()
        ports = _free_ports(len(AGENTS) + 1)
        self.place.settings.write_text(
            "ca_dir = .\nstate_dir = state\nlog = "
            f"{self.place.log}\npairing_bind = 127.0.0.1\npairing_port = {ports[0]}\n"
            "dispatcher_id = demo-dispatcher\n"
        )
        for status, (name, port) in enumerate(zip(AGENTS, ports[1:], strict=True)):
            home = self.place.agent(name)
            home.mkdir()
            self.place.agent_settings(name).write_text(
                f"name = {name}\nbind = 127.0.0.1\nport = {port}\nstate_dir = state\n"
                f"pairing_port = {ports[0]}\nlog = {self.place.agent_log(name)}\n"
            )
            script = home / "demonstrator.sh"
            script.write_text(_SCRIPT.format(status=3 * status))
            script.chmod(0o755)
            (home / "scripts.conf").write_text(f"demonstrator = {script}\n")

    def make_authority(self) -> None:
        """
        A private CA, and the dispatcher's identity.
        """
        self.voice.title("1. The dispatcher makes a private certificate authority")
        self._dispatcher("setup-ca")
        self._dispatcher("setup-ctrl-exec")

    def pair(self) -> None:
        """
        Both agents ask; both screens show a code; a person approves.
        """
        self.voice.title("2. Two agents ask to be paired; both screens show a code")
        listener = self._start(_dispatcher_words(self.place, "pairing-mode"))
        self._await_line(self.place.log, "ACTION=pairing-mode-start")
        self.voice.command(["ctrl-exec", "pairing-mode"])
        applicants = [self._apply(name) for name in AGENTS]
        asked = [_read_application(applicant) for applicant in applicants]
        waiting = {
            entry["id"]: entry
            for entry in json.loads(self._quietly("list-requests", "--json"))
        }
        for name, (reqid, code) in zip(AGENTS, asked, strict=True):
            theirs = waiting[reqid]["code"]
            verdict = "the same" if theirs == code else "NOT the same"
            self.voice.text(
                f"{name} shows {code}, the dispatcher shows {theirs}: {verdict}"
            )
            if theirs != code:
                raise CtrlExecError(f"the codes of {name} differ; nothing is approved")
        for reqid, _ in asked:
            self._dispatcher("approve", reqid)
        for name, applicant in zip(AGENTS, applicants, strict=True):
            if applicant.wait(_WAIT_SECONDS) != 0:
                raise CtrlExecError(f"{name} could not store its identity")
        self._end(listener)

    def start_agents(self) -> None:
        """
        Two agents, each a process of its own.
        """
        self.voice.title("3. The agents start; each has its own allowlist")
        for name in AGENTS:
            self.voice.command(["ctrl-exec-agent", "serve", "--config", f"{name}/…"])
            self._start(_agent_words(self.place, name, "serve"))
        for name in AGENTS:
            self._await_line(self.place.agent_log(name), "ACTION=start")
        self._dispatcher("ping", *AGENTS, showing="  ok  ")

    def run_script(self) -> None:
        """
        One script, on both at once; one of them ends with an error.
        """
        self.voice.title("4. One script on both, in parallel, over mutual TLS")
        self.voice.text("agent-two's copy ends with exit status 3.")
        words = ["run", *AGENTS, "demonstrator", "--", *ARGUMENTS]
        self._dispatcher(*words, expect=1, showing="exit:3")

    def refuse_script(self) -> None:
        """
        What is not on the allowlist does not run.
        """
        self.voice.title("5. What a host does not list, it does not run")
        self._dispatcher("run", AGENTS[0], "reboot", expect=1, showing="not permitted")

    def compare_logs(self) -> None:
        """
        The same request id on both sides.
        """
        self.voice.title("6. Both ends wrote it down under the same request id")
        lines = self.place.log.read_text().splitlines()
        dispatched = next(line for line in lines if "ACTION=dispatch " in line)
        reqid = dispatched.partition("REQID=")[2].partition(" ")[0]
        places = [("dispatcher", self.place.log)]
        places += [(name, self.place.agent_log(name)) for name in AGENTS]
        for who, log in places:
            for line in log.read_text().splitlines():
                if f"REQID={reqid}" in line:
                    self.voice.text(f"{who:<10}  ACTION={line.partition('ACTION=')[2]}")

    def hand_over(self) -> None:
        """
        Say how to go on by hand.
        """
        alive = [process for process in self._running if process.poll() is None]
        pids = " ".join(str(process.pid) for process in alive)
        stop = self.place.root / "stop.sh"
        stop.write_text(f"#!/bin/sh\nkill {pids}\nrm -r {self.place.root}\n")
        settings = str(self.place.settings)
        self.voice.title("It all goes on running. Try:")
        if shutil.which("ctrl-exec") is None:
            programs = str(Path(sys.argv[0]).resolve().parent)
            self.voice.command(["export", f"PATH={programs}:/usr/bin:/bin"])
        self.voice.command(["export", f"CTRL_EXEC_CONFIG={settings}"])
        self.voice.command(["ctrl-exec", "ping", *AGENTS])
        self.voice.command(["ctrl-exec", "discovery"])
        self.voice.command(["ctrl-exec", "run", AGENTS[0], "demonstrator", "--", "hi"])
        self.voice.command(["ctrl-exec", "run", "agent-*", "demonstrator", "--fold"])
        self.voice.text(
            f"What may run is in {self.place.agent(AGENTS[0])}/scripts.conf"
        )
        self.voice.text("Stop it and remove it:")
        self.voice.command(["sh", str(stop)])

    def stop(self) -> None:
        """
        End every process that still runs.
        """
        for process in self._running:
            process.terminate()
        for process in self._running:
            try:
                process.wait(_TERM_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _dispatcher(self, *words: str, expect: int = 0, showing: str = "") -> None:
        """
        Run a command of the operator's and show it with what it prints.

        @param expect: the exit status that it must have.
        @param showing: what it must print among other things.
        """
        self.voice.command(["ctrl-exec", *words])
        done = subprocess.run(
            _dispatcher_words(self.place, *words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=_environment(self.voice.colour),
            timeout=_WAIT_SECONDS,
            check=False,
        )
        self.voice.output(done.stdout)
        if done.returncode != expect or showing not in done.stdout:
            raise CtrlExecError(
                f"ctrl-exec {words[0]} ended with {done.returncode}; it should have "
                f"ended with {expect} and shown {showing.strip()!r}"
            )

    def _quietly(self, *words: str) -> str:
        return subprocess.run(
            _dispatcher_words(self.place, *words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=_WAIT_SECONDS,
            check=True,
        ).stdout

    def _apply(self, name: str) -> subprocess.Popen[str]:
        words = ["request-pairing", "--dispatcher", "127.0.0.1", "--lookup-by", "ip"]
        # Nobody is there to compare the codes on the agents' side.
        words += ["--ca-fingerprint", self._quietly("ca-fingerprint").strip()]
        self.voice.command(["ctrl-exec-agent", *words])
        return self._start(_agent_words(self.place, name, *words))

    def _start(self, words: Sequence[str]) -> subprocess.Popen[str]:
        """
        Start a process that outlives the command, in a session of its own: a
        key pressed in the terminal is not meant for it.
        """
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._complaints(),
            text=True,
            start_new_session=True,
        )
        self._running.append(process)
        return process

    def _complaints(self) -> IO[str]:
        return (self.place.root / "complaints").open("a")

    def complain(self) -> None:
        """
        Show what the programs said, when something did not work.
        """
        logs = [self.place.log, *map(self.place.agent_log, AGENTS)]
        for path in (self.place.root / "complaints", *logs):
            lines = path.read_text().splitlines() if path.exists() else []
            for line in lines[-_LAST_LINES:]:
                self.voice.text(f"{path.parent.name}: {line}")

    def _end(self, process: subprocess.Popen[str]) -> None:
        process.terminate()
        process.wait(_TERM_SECONDS)
        self._running.remove(process)

    def _await_line(self, log: Path, part: str) -> None:
        deadline = time.monotonic() + _WAIT_SECONDS
        while not (log.exists() and part in log.read_text()):
            failed = [p for p in self._running if p.poll() not in (None, 0)]
            if failed or time.monotonic() > deadline:
                raise CtrlExecError(f"no line with {part} came in {log}")
            time.sleep(_POLL_SECONDS)


def _read_application(applicant: subprocess.Popen[str]) -> tuple[str, str]:
    """
    What an agent shows while it waits: the request's id, and its code.
    """
    assert applicant.stdout is not None
    found: dict[str, str] = {}
    for line in applicant.stdout:
        name, _, value = line.strip().partition(" ")
        found[name] = value.strip()
        if "code" in found:
            return found["request"], found["code"]
    raise CtrlExecError("an agent could not ask to be paired")


def _dispatcher_words(place: Place, *words: str) -> list[str]:
    main = "from ctrlexec.dispatcher.cli import main"
    return [*_python(main), "--config", str(place.settings), *words]


def _agent_words(place: Place, name: str, *words: str) -> list[str]:
    main = "from ctrlexec.agent.cli import main"
    return [*_python(main), *words, "--config", str(place.agent_settings(name))]


def _python(importing: str) -> list[str]:
    return [sys.executable, "-c", f"import sys; {importing}; sys.exit(main())"]


def _environment(colour: bool) -> dict[str, str]:
    return dict(os.environ) if colour else {**os.environ, "NO_COLOR": "1"}


def _free_ports(count: int) -> list[int]:
    with ExitStack() as open_sockets:
        ports = []
        for _ in range(count):
            listening = open_sockets.enter_context(socket.socket())
            listening.bind(("127.0.0.1", 0))
            ports.append(listening.getsockname()[1])
        return ports


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """
    A C{SIGTERM} cleans up too.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before: Callable[..., object] | int | None = signal.signal(
        signal.SIGTERM, interrupt
    )
    try:
        yield
    finally:
        with suppress(TypeError):
            signal.signal(signal.SIGTERM, before)
