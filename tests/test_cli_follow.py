# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of C{ctrl-exec run --follow} and C{attach}: what is shown as it comes, and
what Ctrl-C means meanwhile.
"""

from __future__ import annotations

import json
import os
import signal

from twisted.internet.defer import Deferred

from ctrlexec.protocol.run_messages import (
    RUNNING,
    Output,
    RunResult,
)
from tests.command_lines import Done
from tests.command_runs import OH, UP, RunsCase, ended


class FollowTests(RunsCase):
    """
    C{ctrl-exec run --follow}.
    """

    def test_one(self) -> None:
        """
        One host: its streams are ours; how it went follows, and no output
        twice.
        """
        self.agents.lives = {"web-1": (UP, OH, ended(3))}
        done = self.command("run", "web-1", "backup", "--follow")
        self.assertEqual(
            done,
            Done(
                1,
                f"up\n==> web-1  [FAIL  exit:3  0ms  req:{self.asked().reqid}]\n",
                "oh\n",
            ),
        )
        self.assertEqual(self.notes(), [])

    def test_several(self) -> None:
        """
        Several hosts: each line says whose it is.
        """
        self.agents.lives = {"web-1": (UP, OH, ended()), "web-2": (UP, ended())}
        done = self.command("run", "web-*", "backup", "--follow")
        reqid = self.asked().reqid
        self.assertEqual(
            done.out,
            "web-1: up\n"
            "web-1: STDERR: oh\n"
            f"==> web-1  [OK  exit:0  0ms  req:{reqid}]\n"
            "web-2: up\n"
            f"==> web-2  [OK  exit:0  0ms  req:{reqid}]\n",
        )
        self.assertEqual(done.err, "2 ok  in 0.0 s\n")

    def test_unheard(self) -> None:
        """
        An agent that can not be followed tells all at the end.
        """
        done = self.command("run", "web-1", "backup", "--follow")
        self.assertTrue(done.out.startswith("web-1\n==> web-1  [OK  exit:0"), done)
        self.assertEqual(done.out.count("web-1"), 2)

    def test_byDefault(self) -> None:
        """
        On a terminal one host is followed; several, a fold, a pipe and a
        program are not, unless somebody wants it.
        """
        self.agents.lives = {"web-1": (UP, ended()), "web-2": (UP, ended())}
        for terminal, words, follows in (
            (True, ("web-1",), True),
            (True, ("web-1", "--no-follow"), False),
            (True, ("web-1", "--fold"), False),
            (True, ("web-1", "--json"), False),
            (True, ("web-1", "--output=jsonl"), False),
            (True, ("web-1", "web-2"), False),
            (True, ("web-[1-2]",), False),
            (False, ("web-1",), False),
            (False, ("web-1", "web-2", "--follow"), True),
        ):
            self.terminal = terminal
            done = self.command("run", *words, "backup")
            self.assertEqual("up\n" in done.out, follows, (terminal, words))

    def test_lines(self) -> None:
        """
        A program is told line by line, the row last.
        """
        self.agents.lives = {"web-1": (UP, OH, ended())}
        done = self.command("run", "web-1", "backup", "--follow", "--output=jsonl")
        first, second, row = map(json.loads, done.out.splitlines())
        self.assertEqual(first, {"host": "web-1", "t": 0.5, "stdout": "up\n"})
        self.assertEqual(second, {"host": "web-1", "t": 0.6, "stderr": "oh\n"})
        self.assertEqual((row["state"], row["stdout"]), ("ok", "up\n"))
        self.assertEqual(done.err, "")

    def test_interrupted(self) -> None:
        """
        Who leaves is told how to come back; what they have seen is noted.
        """
        self.agents.lives = {"web-1": (UP, Deferred(), ended())}

        def meanwhile() -> None:
            raise KeyboardInterrupt

        self.meanwhile = meanwhile
        done = self.command("run", "web-1", "backup", "--follow")
        reqid = self.asked().reqid
        self.assertEqual((done.status, done.out), (130, "up\n"))
        self.assertIn(f"hint: ctrl-exec attach {reqid} goes on", done.err)
        self.assertIn(f"ctrl-exec cancel {reqid} ends it", done.err)
        (note,) = self.notes()
        self.assertEqual(note.name, f"{reqid}.json")
        self.assertEqual(
            json.loads(note.read_text())["hosts"]["web-1"], {"stdout": 3, "stderr": 0}
        )

    def test_attach(self) -> None:
        """
        Who comes back sees what they have not seen; once all is seen, there is
        nothing to be noted any more.
        """
        self.test_interrupted()
        reqid = self.asked().reqid
        self.meanwhile = self.clock.seconds
        more = Output(1, "stdout", "done\n", 8)
        self.agents.results = {"web-1": [RunResult(reqid, "backup", RUNNING)] * 2}
        self.agents.follows = {"web-1": [(more, ended())]}
        done = self.command("attach", reqid)
        ((_, request),) = self.agents.followed
        self.assertEqual((request.stdout, request.stderr), (3, 0))
        self.assertTrue(done.out.startswith("done\n==> web-1  [OK"), done)
        self.assertEqual((done.status, self.notes()), (0, []))

    def test_fromStart(self) -> None:
        """
        Unless they want all of it.
        """
        self.test_interrupted()
        reqid = self.asked().reqid
        self.meanwhile = self.clock.seconds
        self.agents.results = {"web-1": [RunResult(reqid, "backup", RUNNING)] * 2}
        self.agents.follows = {"web-1": [(UP, ended())]}
        self.command("attach", reqid, "--from-start")
        ((_, request),) = self.agents.followed
        self.assertEqual(request.stdout, 0)


class InterruptionTests(RunsCase):
    """
    Ctrl-C at a terminal, while something is waited for.
    """

    terminal = True

    def test_offered(self) -> None:
        """
        The first one asks what is meant; the second one is clear. What is
        shown, and the exit status, are those of any interruption.
        """
        self.agents.lives = {"web-1": (UP, Deferred(), ended())}
        self.clock.callFromThread = lambda work: self.clock.callLater(0, work)  # type: ignore[attr-defined]
        self.clock.addReader = self.clock.removeReader = lambda reader: None  # type: ignore[attr-defined]
        keys, other = os.pipe()
        self.addCleanup(os.close, keys)
        self.addCleanup(os.close, other)
        self.keyboard = keys

        def meanwhile() -> None:
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)
                self.clock.advance(0)
            self.clock.advance(0)

        self.meanwhile = meanwhile
        done = self.command("run", "web-1", "backup")
        reqid = self.asked().reqid
        self.assertEqual(done.status, 130)
        self.assertIn(
            f"c cancels it on 1 host, d leaves it running (ctrl-exec attach {reqid}), "
            "anything else goes on waiting\n",
            done.err,
        )
        self.assertIn("0 of 1 hosts have answered; it runs on at web-1", done.err)
