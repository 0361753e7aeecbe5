# SPDX-License-Identifier: AGPL-3.0-only
"""
What somebody at a terminal sees of a run while it lives, and how they end it:
in the process of their own, and through the API's socket.
"""

from __future__ import annotations

import os
import re
import signal
import time
from typing import ClassVar

from tests.e2e.installation import BIN, PATIENCE_SECONDS
from tests.e2e.sockets import SocketCase
from tests.e2e.test_terminal import INTERRUPT, Operator

#: How long it may take until what was written is seen.
SEEN_SECONDS = 0.05
STAMPS_WRITTEN = 40
STAMPS = f"""\
#!/bin/sh
for number in $(seq {STAMPS_WRITTEN}); do
    sleep 0.05
    echo "stamp $(date +%s%N) end"
done
"""
ENDLESS = """\
#!/bin/sh
echo $$ >"$1"
echo begun
echo complaint >&2
setsid sleep 600 &
echo $! >>"$1"
sleep 600
"""


class RunsCase(SocketCase):
    """
    Two agents, an API, and somebody at a terminal.
    """

    scripts: ClassVar = {"stamps": STAMPS, "endless": ENDLESS}
    way: tuple[str, ...] = ("--direct",)

    def operator(self, *words: object) -> Operator:
        """
        Somebody who types a command.
        """
        program = [str(BIN / "ctrl-exec"), "--config", str(self.settings)]
        return Operator.running(self, [*program, *self.way, *map(str, words)])

    def begin(self) -> Operator:
        """
        They run something that does not end.
        """
        self.pids = self.root / "pids"
        operator = self.operator("run", "web-1", "endless", "--", self.pids)
        operator.sees("begun")
        operator.sees("complaint")
        return operator

    def live(self) -> list[int]:
        """
        Which processes of the script there still are.
        """
        found = map(int, self.pids.read_text().split())
        return [pid for pid in found if os.path.exists(f"/proc/{pid}/cmdline")]

    def reqid(self, operator: Operator) -> str:
        """
        The id of the run that they are told of.
        """
        found = re.search(r"attach ([0-9a-f]{16})", operator.seen)
        assert found is not None, operator.seen
        return found[1]


class DirectTests(RunsCase):
    """
    In a process of their own.
    """

    def test_atOnce(self) -> None:
        """
        What a script writes is seen within 50 ms. Something else may run on
        this machine, so the fastest of several counts.
        """
        operator = self.operator("run", "web-1", "stamps")
        delays = []
        for number in range(1, STAMPS_WRITTEN + 1):
            operator.sees(" end", number)
            stamps = re.findall("stamp ([0-9]+) end", operator.seen)
            delays.append(time.time() - int(stamps[-1]) / 10**9)
        self.assertEqual(operator.status(), 0)
        self.assertLess(min(delays), SEEN_SECONDS)

    def test_cancelled(self) -> None:
        """
        With c nothing of it is left, what has a session of its own included.
        """
        operator = self.begin()
        self.assertEqual(len(self.live()), 2)
        operator.types(INTERRUPT)
        operator.sees("c cancels it on 1 host, d leaves it running")
        operator.types("c\r")
        self.assertEqual(operator.status(), 130, operator.seen)
        self.assertEqual(self.live(), [])
        self.assertIn("note: web-1: cancelled, ", operator.seen)
        self.assertIn("    ERROR: cancelled", operator.seen)
        self.assertIn(" interrupted: the run was cancelled\r\n", operator.seen)
        self.assertEqual(operator.seen.count("begun"), 1)

    def test_left(self) -> None:
        """
        With a second Ctrl-C it runs on. Who comes back sees it, and another one
        can end it.
        """
        operator = self.begin()
        operator.types(INTERRUPT)
        operator.sees("anything else goes on waiting")
        operator.types(INTERRUPT)
        self.assertEqual(operator.status(), 130, operator.seen)
        reqid = self.reqid(operator)
        self.assertEqual(len(self.live()), 2)
        again = self.operator("attach", reqid, "--from-start")
        again.sees("begun")
        shown = self.operator("ps")
        self.assertEqual(shown.status(), 0)
        self.assertIn(reqid, shown.seen)
        ended = self.operator("cancel", reqid)
        self.assertEqual(ended.status(), 0, ended.seen)
        self.assertEqual(self.live(), [])
        self.assertEqual(again.status(), 1, again.seen)
        again.sees("    ERROR: cancelled")

    def test_terminated(self) -> None:
        """
        Whoever ends it from outside, or closes the terminal, is told what one who
        leaves is told; then it dies of that.
        """
        for number in (signal.SIGTERM, signal.SIGHUP):
            operator = self.begin()
            os.kill(operator.pid, number)
            self.assertEqual(operator.status(), -number, operator.seen)
            self.assertIn("it runs on at web-1", operator.seen)
            self.assertNotIn("Traceback", operator.seen)
            self.assertEqual(len(self.live()), 2)
            ended = self.operator("cancel", self.reqid(operator))
            self.assertEqual(ended.status(), 0, ended.seen)
            self.assertEqual(self.live(), [])

    def test_goesOn(self) -> None:
        """
        With anything else nothing has happened, and nothing is lost.
        """
        operator = self.operator("run", "web-1", "stamps")
        operator.sees("end")
        operator.types(INTERRUPT)
        operator.sees("anything else goes on waiting")
        operator.types("\r")
        self.assertEqual(operator.status(), 0, operator.seen)
        self.assertEqual(operator.seen.count(" end"), STAMPS_WRITTEN)


class SocketTests(DirectTests):
    """
    The same through the API's socket.
    """

    way = ()

    def test_endsWithThem(self) -> None:
        """
        Whoever wanted that their leaving ends it has it so.
        """
        self.pids = self.root / "pids"
        words = ("run", "web-1", "endless", "--on-disconnect", "cancel", "--")
        operator = self.operator(*words, self.pids)
        operator.sees("complaint")
        operator.types(INTERRUPT)
        operator.sees("goes on waiting")
        operator.types("d\r")
        self.assertEqual(operator.status(), 130)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.live() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertEqual(self.live(), [])
