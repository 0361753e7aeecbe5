# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.modes.runs}. They are over 400 lines: what became
of a run is asked in many ways.
"""

from __future__ import annotations

import json

import attrs

from ctrlexec.errors import Unreachable
from ctrlexec.protocol.messages import RunAccepted, RunFinished, RunRefused
from ctrlexec.protocol.run_messages import (
    RUNNING,
    CancelDone,
    LiveRun,
    LiveRunsAnswer,
    NoSuchRun,
    RunResult,
    Signalled,
)
from tests.command_lines import Done
from tests.command_runs import BUSY, UP, RunsCase, ended


class StateTests(RunsCase):
    """
    What became of a run, in words and in numbers.
    """

    def test_timedOut(self) -> None:
        """
        A script whose time was over has a result and a reason.
        """
        self.agents.answers = {
            "web-1": RunFinished(
                "backup", 126, "half\n", "", "", "timed_out", "timed out after 30s"
            )
        }
        done = self.command("run", "web-1", "backup")
        self.assertEqual(done.status, 124)
        self.assertIn("    ERROR: timed out after 30s\nhalf\n", done.out)
        (row,) = self.command("run", "web-1", "backup", "--json").json["results"]
        self.assertEqual((row["state"], row["exit"]), ("timed out", 126))

    def test_detail(self) -> None:
        """
        Without an option of ours the exit status is 0 or 1, as the original's;
        with one, or on demand, it says more.
        """
        for answer, detailed in (
            (RunRefused("script not permitted"), 4),
            (Unreachable("nobody is there"), 3),
            (BUSY, 6),
            (RunFinished("backup", 3, "", "", ""), 1),
            (RunFinished("backup", 0, "", "", ""), 0),
        ):
            self.agents.answers = {"web-1": answer}
            plain = self.command("run", "web-1", "backup").status
            self.assertEqual(plain, min(detailed, 1))
            for option in (
                "--detailed-exit",
                "--follow",
                "--timeout=30s",
                "--on-disconnect=keep",
                "--batch=1",
                "--canary=1",
                "--max-failures=50%",
            ):
                done = self.command("run", "web-1", "backup", option)
                if isinstance(answer, RunRefused | Unreachable) and "=" in option:
                    # A failure that stops an order is told as just that.
                    self.assertIn(done.status, (detailed, 5), option)
                else:
                    self.assertIn(done.status, (detailed, 5), option)
            self.assertEqual(
                self.command("run", "web-1", "backup", "--no-follow").status, plain
            )

    def test_denied(self) -> None:
        """
        Likewise where nobody may be asked at all.
        """
        self.configure("auth_hook = /no/such/hook\n")
        self.assertEqual(self.command("run", "web-1", "backup").status, 1)
        self.assertEqual(
            self.command("run", "web-1", "backup", "--detailed-exit").status, 4
        )
        self.assertEqual(self.command("ps").status, 4)
        self.assertEqual(self.command("ping", "web-1").status, 1)

    def test_rolling(self) -> None:
        """
        What was not started is listed as such, and why.
        """
        self.register("web-3", "web-4")
        self.agents.answers = {"web-1": RunFinished("backup", 3, "", "", "")}
        done = self.command("run", "web-*", "backup", "--canary", "1")
        self.assertEqual(done.status, 5)
        self.assertTrue(done.out.endswith("\nnot started: web-2 web-3 web-4\n"))
        self.assertIn(
            "warning: the canary has failed: not started on 3 of 4 hosts\n", done.err
        )
        self.assertNotIn("stopped", done.err)
        self.assertIn("1 failed (web-1), 3 not started", done.err)
        self.assertEqual(self.agents.names, ["web-1"])
        document = self.command("run", "web-*", "backup", "--canary=1", "--json").json
        states = [row["state"] for row in document["results"]]
        self.assertEqual(states, ["failed"] + ["not started"] * 3)


class AsyncTests(RunsCase):
    """
    C{ctrl-exec run --async}, and what is asked later.
    """

    def test_text(self) -> None:
        """
        Who has taken it, and who has not: NEWER-LINE.md section 12.2.
        """
        self.agents.answers = {"web-1": RunAccepted("backup", ""), "web-2": BUSY}
        done = self.command("run", "web-*", "backup", "--async")
        reqid = self.asked().reqid
        self.assertTrue(self.asked().asynchronous)
        self.assertEqual(
            done.out,
            f"reqid: {reqid}\n"
            f"{'web-1':<30}  accepted\n"
            f"{'web-2':<30}  BUSY  script already running\n",
        )
        self.assertEqual(done.status, 0)
        self.assertIn(f"ctrl-exec wait {reqid}", done.err)

    def test_nobody(self) -> None:
        """
        If nobody has taken it, it has failed; on demand the way is told.
        """
        self.agents.answers = {"web-1": BUSY}
        done = self.command("run", "web-1", "backup", "--async", "--json")
        self.assertEqual(done.status, 1)
        self.assertIs(done.json["ok"], True)
        (row,) = done.json["results"]
        self.assertEqual(row["status"], "busy")
        words = ("run", "web-1", "backup", "--async", "--detailed-exit")
        self.assertEqual(self.command(*words).status, 6)
        done = self.command("run", "web-1", "backup", "--async", "--output=jsonl")
        self.assertEqual(json.loads(done.out)["status"], "busy")

    def test_status(self) -> None:
        """
        While it runs that is what is known of it.
        """
        reqid = self.submitted()
        self.agents.results = {
            name: [RunResult(reqid, "backup", RUNNING)] for name in ("web-1", "web-2")
        }
        done = self.command("status", reqid)
        self.assertEqual(done.status, 0)
        self.assertIn(f"==> web-1  [RUNNING  req:{reqid}]\n", done.out)

    def test_wait(self) -> None:
        """
        0 if all went well, 1 if not, 2 if it takes longer.
        """
        for exits, status in (((0, 0), 0), ((0, 3), 1), ((None, 0), 2)):
            reqid = self.submitted()
            self.agents.results = {
                f"web-{number}": [
                    RunResult(reqid, "backup", RUNNING)
                    if exit is None
                    else RunResult(reqid, "backup", "done", exit=exit)
                ]
                * 99
                for number, exit in enumerate(exits, 1)
            }
            self.meanwhile = lambda: self.clock.pump([0.25] * 40)
            done = self.command("wait", reqid, "--timeout", "5s")
            self.assertEqual(done.status, status, done)
            self.assertIn("==> web-2  [", done.out)
        self.assertIn("note: it has not ended on web-1\n", done.err)
        self.assertIs(
            self.command("wait", reqid, "--timeout=0", "--json").json["ok"], True
        )

    def test_waitProgress(self) -> None:
        """
        Who waits at a terminal sees for how long.
        """
        reqid = self.submitted()
        self.agents.results = {
            name: [RunResult(reqid, "backup", RUNNING)] * 99
            for name in ("web-1", "web-2")
        }
        self.terminal = True
        self.meanwhile = lambda: self.clock.pump([0.25] * 40)
        done = self.command("wait", reqid, "--timeout", "5s")
        self.assertIn(f"waiting for {reqid}: 2s of 5s", done.err)

    def test_waitInterrupted(self) -> None:
        """
        Who does not want to wait is told how to come back.
        """
        reqid = self.submitted()
        self.agents.results = {
            name: [RunResult(reqid, "backup", RUNNING)] for name in ("web-1", "web-2")
        }

        def meanwhile() -> None:
            raise KeyboardInterrupt

        self.meanwhile = meanwhile
        done = self.command("wait", reqid)
        self.assertEqual(
            done,
            Done(
                130,
                "",
                "error: interrupted\n"
                f"hint: it goes on: ctrl-exec wait {reqid} waits again, "
                "attach shows it\n",
            ),
        )

    def test_notAsked(self) -> None:
        """
        What is shown may be old: who could not be asked is named, and not said
        to run.
        """
        reqid = self.submitted()
        self.agents.results = {
            "web-1": [RunResult(reqid, "backup", RUNNING)] * 2,
            "web-2": [Unreachable("nobody is there")] * 2,
        }
        said = "warning: web-2 could not be asked: nobody is there\n"
        self.assertIn(said, self.command("status", reqid).err)
        done = self.command("wait", reqid, "--timeout=0")
        self.assertEqual(done.status, 2)
        self.assertIn(said, done.err)
        self.assertIn("note: it has not ended on web-1\n", done.err)
        self.assertIn("note: nobody knows whether it has ended on web-2\n", done.err)
        self.assertEqual(self.command("status", reqid, "--json").err, "")

    def test_seenBefore(self) -> None:
        """
        Who sees only the rest of it is told so.
        """
        reqid = self.submitted()
        notes = self.state / "ctrl-exec/seen"
        notes.mkdir(parents=True)
        note = '{"hosts":{"web-1":{"stdout":7,"stderr":2}}}'
        self.agents.follows = {name: [(UP, ended())] * 2 for name in ("web-1", "web-2")}
        for words, told in (
            (("web-1",), True),
            (("web-1", "--from-start"), False),
            (("web-2",), False),
        ):
            (notes / f"{reqid}.json").write_text(note)
            done = self.command("attach", reqid, *words)
            said = "note: 9 bytes were shown before; --from-start shows all\n"
            self.assertEqual(said in done.err, told)

    def test_patterns(self) -> None:
        """
        Hosts of a run are named; a pattern is no name, and that is said.
        """
        for mode in ("attach", "cancel"):
            done = self.command(mode, "r1", "web-*")
            self.assertEqual(
                done,
                Done(
                    2,
                    "",
                    f"error: {mode} takes the names of hosts, and 'web-*' is a "
                    "pattern\nhint: without a host all hosts of the run are meant\n",
                ),
            )

    def test_unknown(self) -> None:
        """
        What nobody knows of: 1, for attach and cancel too.
        """
        for mode in ("status", "wait", "attach", "cancel"):
            done = self.command(mode, "0123456789abcdef")
            self.assertEqual((done.status, done.out), (1, ""), mode)
            self.assertIn("no result for reqid 0123456789abcdef", done.err)
            # Not 2, which says that it has not ended.
            done = self.command(mode, "../x")
            self.assertEqual(done.status, 1)
            self.assertIn("invalid request id '../x': expected letters", done.err)

    def test_attachForPrograms(self) -> None:
        """
        That is a line each; there is no one document.
        """
        done = self.command("attach", "r1", "--json")
        self.assertEqual(done.status, 2)
        self.assertIn("--output jsonl", done.err)


class CancelTests(RunsCase):
    """
    C{ctrl-exec cancel}.
    """

    def test_text(self) -> None:
        """
        How it has ended on each host, and what was told to end.
        """
        reqid = self.submitted()
        signalled = (Signalled(7, "sh", "TERM"), Signalled(8, "sleep", "KILL"))
        self.agents.ends = {
            "web-1": CancelDone(reqid, "cancelled", signalled),
            "web-2": CancelDone(reqid, "done"),
        }
        done = self.command("cancel", reqid)
        self.assertEqual(done.status, 0)
        head, _, *lines = done.out.splitlines()
        self.assertEqual(head.split(), ["HOST", "STATE", "SIGNALLED"])
        self.assertEqual(
            sorted(line.split() for line in lines),
            [
                ["7", "sh", "TERM"],
                ["8", "sleep", "KILL"],
                ["web-1", "cancelled", "2"],
                ["web-2", "done", "0"],
            ],
        )
        # They are no "ok" runs: some of them were cancelled.
        self.assertIn("2 ended  in", done.err)

    def test_someHosts(self) -> None:
        """
        Only where somebody wants it.
        """
        reqid = self.submitted()
        self.agents.ends = {"web-2": CancelDone(reqid, "cancelled")}
        document = self.command("cancel", reqid, "web-2", "--json").json
        self.assertEqual([host for host, _ in self.agents.ended], ["web-2"])
        (row,) = document["results"]
        self.assertEqual((row["state"], row["signalled"]), ("cancelled", []))

    def test_unreachable(self) -> None:
        """
        Where nobody answers it is not known.
        """
        reqid = self.submitted()
        self.agents.ends = {
            "web-1": CancelDone(reqid, "cancelled"),
            "web-2": Unreachable("nobody is there"),
        }
        done = self.command("cancel", reqid)
        self.assertEqual(done.status, 3)
        self.assertIn("error: web-2: nobody is there\n", done.err)
        done = self.command("cancel", reqid, "--output", "jsonl")
        self.assertEqual(len(done.out.splitlines()), 2)

    def test_gone(self) -> None:
        """
        An agent that does not know the run has not ended it.
        """
        reqid = self.submitted()
        self.agents.ends = {name: NoSuchRun(reqid) for name in ("web-1", "web-2")}
        self.assertNotEqual(self.command("cancel", reqid).status, 0)


class PsTests(RunsCase):
    """
    C{ctrl-exec ps}.
    """

    live = LiveRun("r1", "backup", RUNNING, "", 192.0, "ann", False, 77)

    def test_text(self) -> None:
        """
        What runs where, since when, and who has started it.
        """
        self.agents.running = {"web-2": LiveRunsAnswer((self.live,), 2)}
        done = self.command("ps")
        self.assertEqual(self.agents.names, ["web-1", "web-2"])
        _, _, line = done.out.splitlines()
        self.assertEqual(line.split(), "web-2 r1 backup running 3m 12s ann 77".split())
        self.assertIn("note: web-2: 2 runs of other dispatchers\n", done.err)
        self.assertEqual(done.status, 0)

    def test_nothing(self) -> None:
        """
        Nothing is no table.
        """
        done = self.command("ps", "web-1")
        self.assertEqual((done.status, done.out), (0, ""))
        self.assertIn("note: nothing of ours runs there\n", done.err)

    def test_silent(self) -> None:
        """
        What could not be asked may run something.
        """
        self.agents.running = {"web-1": Unreachable("nobody is there")}
        for words in ((), ("web-1",)):
            done = self.command("ps", *words)
            self.assertEqual(done.status, 3)
            self.assertNotIn("nothing of ours", done.err)

    def test_terminal(self) -> None:
        """
        On a terminal a line is a line, however long names are; in a file they
        are whole.
        """
        live = attrs.evolve(
            self.live, script="a-script-of-a-long-name", username="u" * 40
        )
        self.agents.running = {"web-2": LiveRunsAnswer((live,), 0)}
        whole = self.command("ps").out
        self.assertIn(
            f" a-script-of-a-long-name  running   3m 12s    {'u' * 40}  77\n", whole
        )
        self.terminal = True
        shown = self.command("ps").out
        self.assertEqual(max(map(len, shown.splitlines())) <= 80, True)
        self.assertIn("…", shown)
        self.assertIn("  r1 ", shown)

    def test_programs(self) -> None:
        """
        Programs are told what the agents tell.
        """
        self.agents.running = {
            "web-1": Unreachable("nobody is there"),
            "web-2": LiveRunsAnswer((self.live,), 0),
        }
        done = self.command("ps", "--json")
        self.assertEqual(done.status, 3)
        lost, found = sorted(done.json["results"], key=lambda row: str(row["host"]))
        self.assertEqual(lost["error"], "nobody is there")
        (run,) = found["runs"]
        self.assertEqual((run["async"], run["pid"], found["others"]), (False, 77, 0))
