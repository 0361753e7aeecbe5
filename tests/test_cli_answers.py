# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.modes.asking}: in which form answers come, and
what becomes of them later.
"""

from __future__ import annotations

import json

from twisted.internet.defer import Deferred

from ctrlexec.errors import TransportError
from ctrlexec.protocol.messages import (
    Capabilities,
    RunAnswer,
    RunFinished,
    RunRefused,
    ScriptInfo,
)
from ctrlexec.values import iso_time
from tests.authority import NOW
from tests.command_lines import CommandLineCase, Done

COUNT = "in 0.0 s\n"


class FormTests(CommandLineCase):
    """
    In which form the answer comes.
    """

    def setUp(self) -> None:
        super().setUp()
        self.register("web-1", "web-2", "web-3")
        done = RunFinished("x", 0, "up\n", "", "")
        self.agents.answers = {
            "web-1": done,
            "web-2": done,
            "web-3": RunRefused("script not permitted"),
        }

    def test_fold(self) -> None:
        """
        Hosts that say the same are told once.
        """
        for option in ("-b", "--fold"):
            done = self.command("run", "web-*", "x", option)
            self.assertEqual(done.status, 1)
            self.assertRegex(
                done.out,
                r"^==> web-\[1-2\]  \[OK  exit:0  2 hosts  req:[0-9a-f]{16}\]\nup\n"
                r"==> web-3  \[FAIL  exit:-1  1 host  req:[0-9a-f]{16}\]\n"
                r"    ERROR: script not permitted\n$",
            )
            self.assertEqual(done.err, f"2 ok, 1 denied (web-3)  {COUNT}")

    def test_foldForPrograms(self) -> None:
        """
        That is for people: PROTOCOL.md has no such JSON.
        """
        done = self.command("run", "web-*", "x", "--fold", "--json")
        self.assertEqual((done.status, self.agents.asked), (2, []))

    def test_lines(self) -> None:
        """
        A program that wants results as they come gets a line each, and
        nothing on stderr.
        """
        done = self.command("run", "web-*", "x", "--output", "jsonl")
        self.assertEqual((done.status, done.err), (1, ""))
        rows = [json.loads(line) for line in done.out.splitlines()]
        self.assertEqual([row["host"] for row in rows], ["web-1", "web-2", "web-3"])

    def test_sameThing(self) -> None:
        """
        --json is short for --output json; of both, the last one counts.
        """
        for words in (
            ("--json", "ping", "web-1"),
            ("--output=json", "ping", "web-1"),
            ("--output", "jsonl", "ping", "web-1", "--json"),
            ("--json", "--output", "text", "ping", "web-1", "--output", "json"),
        ):
            self.assertIs(self.command(*words).json["ok"], True)
        done = self.command("--json", "ping", "web-1", "--output=text")
        self.assertTrue(done.out.startswith("HOST "))

    def test_linesInterrupted(self) -> None:
        """
        What has come has been told already; the last line is the failure.
        """
        waiting: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-2": waiting}

        def meanwhile() -> None:
            raise KeyboardInterrupt

        self.meanwhile = meanwhile
        done = self.command("run", "web-1", "web-2", "x", "--output=jsonl")
        self.assertEqual(done.status, 130)
        first, last = map(json.loads, done.out.splitlines())
        self.assertEqual(first["host"], "web-1")
        self.assertEqual(
            last,
            {
                "ok": False,
                "error": "interrupted: 1 of 2 hosts have answered; it runs on at web-2",
                "hint": f"ctrl-exec attach {first['reqid']} goes on listening, "
                f"ctrl-exec cancel {first['reqid']} ends it",
                "reqid": first["reqid"],
                "unanswered": ["web-2"],
                "not_asked": 0,
            },
        )

    def test_interruptedEarly(self) -> None:
        """
        Before anybody was asked, a program is told just that.
        """
        self.configure("auth_hook = /no/such/hook\n")

        def wait(work: object) -> None:
            raise KeyboardInterrupt

        self.wait = wait  # type: ignore[method-assign]
        done = self.command("run", "web-1", "x", "--json")
        self.assertEqual(
            (done.status, done.json["error"], done.json["results"]),
            (130, "interrupted: no host was asked", []),
        )
        self.assertEqual(
            self.command("list-agents"), Done(130, "", "error: interrupted\n")
        )


class DiscoveryTests(CommandLineCase):
    """
    C{ctrl-exec discovery}.
    """

    def setUp(self) -> None:
        super().setUp()
        self.register("web-1", "web-2")
        self.agents.answers = {"web-2": TransportError("gone", hint="look for it")}
        backup = ScriptInfo("backup", "/opt/backup", True)
        offered = Capabilities("web-1", "0.12.3", (backup,), {"role": "web"})
        self.agents.offers = {"web-1": offered}

    def test_text(self) -> None:
        """
        Who offers what; why somebody did not answer; 0, for it was asked.
        """
        done = self.command("discovery", "web-1", "web-2")
        self.assertEqual(
            done,
            Done(
                0,
                "HOST                            STATUS    RTT       VERSION     "
                "SCRIPTS\n" + "-" * 71 + "\n"
                "web-1                           ok        0ms       0.12.3      "
                "backup\n"
                "web-2                           error     0ms       ?           ?\n",
                f"error: web-2: gone\nhint: look for it\n1 ok, 1 no answer  {COUNT}",
            ),
        )

    def test_json(self) -> None:
        """
        As PROTOCOL.md section 8 has it for the API.
        """
        done = self.command("discovery", "--json")
        self.assertEqual((done.status, done.err), (0, ""))
        self.assertEqual(done.json["hosts"]["web-1"]["tags"], {"role": "web"})
        self.assertEqual(done.json["hosts"]["web-2"]["error"], "gone")

    def test_tags(self) -> None:
        """
        What it has found is what tags mean afterwards.
        """
        done = self.command("list-agents", "--tags", "role=web")
        self.assertEqual(done.err, "note: no agent has these tags\n")
        self.command("discovery")
        (record,) = self.command("list-agents", "--tags", "role=web", "--json").json
        self.assertEqual(record["hostname"], "web-1")
        self.agents.asked.clear()
        self.command("run", "@role=web", "backup")
        self.assertEqual(self.agents.names, ["web-1"])

    def test_nobody(self) -> None:
        """
        Nobody to ask is no error.
        """
        for name in ("web-1", "web-2"):
            self.registry.remove(name)
        self.assertEqual(
            self.command("discovery"), Done(0, "", "note: no agent is paired yet\n")
        )


class StatusTests(CommandLineCase):
    """
    C{ctrl-exec status}.
    """

    def setUp(self) -> None:
        super().setUp()
        self.register("web-1", "web-2")
        self.agents.answers = {"web-2": RunFinished("x", 3, "", "oh\n", "")}
        self.ran = self.command("run", "web-1", "web-2", "backup")
        self.reqid = self.ran.out.partition("req:")[2].partition("]")[0]

    def test_text(self) -> None:
        """
        The same rows as the run itself has shown; that one has failed is not
        a failure to find out.
        """
        self.assertEqual(self.ran.status, 1)
        done = self.command("status", self.reqid)
        self.assertEqual(
            done,
            Done(
                0,
                self.ran.out,
                "1 ok, 1 failed (web-2)\n"
                f"note: backup for alice on 2 hosts ended {iso_time(NOW)}\n",
            ),
        )

    def test_programs(self) -> None:
        """
        The record, who asked included: NEWER-LINE.md section 12.2; or its
        results, a line each.
        """
        answer = self.command("status", self.reqid, "--json").json
        self.assertEqual((answer["ok"], answer["reqid"]), (True, self.reqid))
        self.assertEqual(
            answer["submitter"], {"username": "alice", "source_ip": "127.0.0.1"}
        )
        done = self.command("status", self.reqid, "--output", "jsonl")
        self.assertEqual(
            [json.loads(line) for line in done.out.splitlines()], answer["results"]
        )

    def test_fold(self) -> None:
        """
        What is the same, once.
        """
        self.agents.answers = {name: RunFinished("x", 0, "", "", "") for name in "ab"}
        self.register("a", "b")
        reqid = self.command("run", "a", "b", "x").out.partition("req:")[2][:16]
        self.assertIn("2 hosts", self.command("status", reqid, "--fold").out)
        self.assertEqual(self.command("status", reqid, "-b", "--json").status, 2)

    def test_unknown(self) -> None:
        """
        There is no such run; or it can not be one.
        """
        done = self.command("status", "0123456789abcdef", "--json")
        self.assertEqual((done.status, done.json["ok"]), (1, False))
        self.assertEqual(self.command("status", "../x").status, 1)
