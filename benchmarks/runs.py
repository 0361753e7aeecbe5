# SPDX-License-Identifier: AGPL-3.0-only
"""
What a run costs beyond what the machine itself takes for it: see C{README}.
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

# The harness of the end-to-end tests stands at the top of the project.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.e2e.clients import Client
from tests.e2e.installation import BIN, hang_up
from tests.e2e.lives import RunsCase
from tests.e2e.test_terminal import Operator

#: How often each thing is done; half as many in all go before, uncounted.
TIMES = 200
#: How many callers at once order runs, and for how long.
CALLERS = 8
SECONDS = 5.0
#: How late a line may reach a terminal.
FIRST_BYTE_SECONDS = 0.05

#: Writes down when it writes, again and again.
CLOCK = """\
#!{python}
import time
for _ in range(60):
    print(time.time_ns(), flush=True)
    time.sleep(0.03)
"""


@attrs.frozen
class Measured:
    """
    How long something took, in seconds.
    """

    name: str
    seconds: Sequence[float]

    @property
    def median(self) -> float:
        """
        The middle one.
        """
        return statistics.median(self.seconds)

    def line(self, limit: float | None = None) -> str:
        """
        @param limit: the median of what the machine takes for it at least.
        """
        slow = sorted(self.seconds)[int(len(self.seconds) * 0.99)]
        text = f"{self.name:<44} {_ms(self.median)}  99%: {_ms(slow)}"
        return text if limit is None else f"{text}  x{self.median / limit:.2f}"


def measure(name: str, work: Callable[[], object], times: int = TIMES) -> Measured:
    """
    Do something often, one after the other.
    """
    for _ in range(times // 2):
        work()
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return Measured(name, seconds)


def spawn() -> None:
    """
    What any run takes at least: a program that does nothing.
    """
    pid = os.posix_spawn("/bin/true", ["/bin/true"], {})
    os.waitpid(pid, 0)


class Echo:
    """
    Another process's end of a TLS connection, which answers a message of a run's
    size with one, and does nothing else.
    """

    def __init__(self, case: RunsCase) -> None:
        home = case.home
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(home / "ctrl-exec.crt", home / "ctrl-exec.key")
        listening = socket.create_server(("127.0.0.1", 0))
        self.pid = os.fork()
        if self.pid == 0:
            self._answer(context, listening)
            os._exit(0)
        plain = socket.create_connection(listening.getsockname())
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = case.agent.context().wrap_socket(plain)
        listening.close()

    def ask(self) -> None:
        """
        There and back.
        """
        self.connection.sendall(bytes(300))
        self.connection.recv(300)

    def close(self) -> None:
        """
        End it.
        """
        self.connection.close()
        os.waitpid(self.pid, 0)

    @staticmethod
    def _answer(context: ssl.SSLContext, listening: socket.socket) -> None:
        plain, _ = listening.accept()
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(plain, server_side=True) as secure:
            while secure.recv(300):
                secure.sendall(bytes(300))


class Benchmark(RunsCase):
    """
    An agent, for as long as is measured.
    """

    def runTest(self) -> None:
        """
        Measure everything, and print it.
        """
        self.prepare()
        echo = Echo(self)
        round_trip = measure("a message over TLS, there and back", echo.ask)
        echo.close()
        start = measure("posix_spawn of /bin/true, and its end", spawn)
        limit = round_trip.median + start.median
        say(round_trip.line())
        say(start.line())
        say(f"{'both: what a run takes at least':<44} {_ms(limit)}\n")
        self.latency(limit)
        self.throughput(start.median)
        self.first_bytes(round_trip.median)

    def prepare(self) -> None:
        """
        Scripts to measure with.
        """
        shutil.copy("/bin/true", self.agent.home / "nothing")
        with (self.agent.home / "scripts.conf").open("a") as allowlist:
            allowlist.write(f"nothing = {self.agent.home}/nothing\n")
        self.agent.allow("clock", CLOCK.format(python=sys.executable))
        settings = self.agent.home / "agent.conf"
        text = settings.read_text()
        settings.write_text(f"{text}rate_limit_disable = yes\n")
        hang_up(self.serving)
        self.await_line(self.agent.log, "ACTION=reload")

    def latency(self, limit: float) -> None:
        """
        One run after the other on one connection.
        """
        client = self.raw()
        number = iter(range(10**9))
        say(measure("a run without an id", lambda: run(client, "")).line(limit))
        say(
            measure(
                "a run with one: claimed and kept",
                lambda: run(client, f"one-{next(number)}"),
            ).line(limit)
        )

    def throughput(self, start: float) -> None:
        """
        Several callers at once.
        """
        counts = [0] * CALLERS
        until = time.monotonic() + SECONDS

        def order(caller: int) -> None:
            client = self.raw()
            while time.monotonic() < until:
                run(client, f"many-{caller}-{counts[caller]}")
                counts[caller] += 1

        threads = [threading.Thread(target=order, args=(i,)) for i in range(CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rate = sum(counts) / SECONDS
        name = f"runs a second, {CALLERS} callers"
        say(f"{name:<44} {rate:7.0f}     one process after the other: {1 / start:.0f}")
        say(f"{'':<44} {rate * start:7.2f} of that\n")

    def first_bytes(self, limit: float) -> None:
        """
        From the script's write to whoever reads.
        """
        stream = self.stream("/run", script="clock", reqid="clock", stream=True)
        late = []
        for event in iter(stream.event, {}):
            if "stdout" in event:
                late.append(since(event["stdout"].split()[-1]))
        say(Measured("a line, to a peer that follows", late[5:]).line(limit))
        late = self.seen_at_a_terminal()
        found = Measured("a line, to a terminal", late[5:])
        say(found.line(limit))
        self.assertLess(found.median, FIRST_BYTE_SECONDS)

    def seen_at_a_terminal(self) -> list[float]:
        """
        The same through C{ctrl-exec}.
        """
        program = [str(BIN / "ctrl-exec"), "--config", str(self.settings)]
        operator = Operator.running(self, [*program, "run", "agent-one", "clock"])
        late, known = [], 0
        while operator._looks(time.monotonic() + 20):
            now = time.time_ns()
            lines = operator.seen.split("\n")[:-1]
            stamps = [
                word for line in lines for word in line.split() if len(word) == 19
            ]
            late += [(now - int(stamp)) / 1e9 for stamp in stamps[known:]]
            known = len(stamps)
        os.waitpid(operator.pid, 0)
        return late


def run(client: Client, reqid: str) -> None:
    """
    One that does nothing.
    """
    answer = client.run("nothing", reqid=reqid)
    assert answer["exit"] == 0, answer


def since(stamp: str) -> float:
    """
    @param stamp: nanoseconds, by the clock on the wall.
    """
    return (time.time_ns() - int(stamp)) / 1e9


def say(text: str) -> None:
    """
    Print a line.
    """
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:7.2f} ms"


def main() -> int:
    """
    @return: 0 if everything could be measured, and a line is at a terminal in
        time.
    """
    from twisted.trial.reporter import TestResult

    result = TestResult()
    Benchmark("runTest").run(result)
    for _, failure in (*result.errors, *result.failures):
        sys.stderr.write(f"{failure}\n")
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    raise SystemExit(main())
