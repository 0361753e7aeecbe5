# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.completion}.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from ctrlexec.dispatcher.cli import ctrl_exec
from ctrlexec.dispatcher.command import CommandLine
from ctrlexec.dispatcher.completion import MOST_RUNS, VARIABLE, offers, shell_script
from ctrlexec.dispatcher.terminal import Terminal
from tests.command_lines import CommandLineCase, Screen


class CompletionCase(CommandLineCase):
    """
    Somebody who presses the tabulator key.
    """

    def setUp(self) -> None:
        super().setUp()
        self.register("web-2", "web-10", scripts=("backup", "uptime"))
        self.register("db", scripts=("vacuum",))
        self.screens = Screen(), Screen(), Screen()

    def offered(self, *words: str) -> list[str]:
        """
        @param words: what stands there; the last one is not finished.
        @return: what it can become.
        """
        *before, word = words
        line = CommandLine(self.world(Terminal(*self.screens, {})), None)
        return [each.value for each in offers(ctrl_exec, line, before, word)]

    def tearDown(self) -> None:
        """
        The terminal has shown nothing of it.
        """
        self.assertEqual([each.getvalue() for each in self.screens], ["", "", ""])


class OffersTests(CompletionCase):
    """
    What a word can become.
    """

    def test_runs(self) -> None:
        """
        The runs that are on record here, and those that somebody has looked at,
        the newest first; nothing that is no id, and no more than somebody would
        read.
        """
        records = self.home / "state/runs"
        notes = self.home / "ctrl-exec/seen"
        self.environ["XDG_STATE_HOME"] = str(self.home)
        for at, path in enumerate(
            (
                records / "a1.json",
                notes / "b2.json",
                records / "c3.json",
                records / "c3.key",
                records / "$(x).json",
            )
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
            os.utime(path, (at, at))
        for mode in ("attach", "cancel", "status", "wait"):
            self.assertEqual(self.offered(mode, ""), ["c3", "b2", "a1"])
        self.assertEqual(self.offered("wait", "b"), ["b2"])
        self.assertEqual(self.offered("wait", "c3", ""), [])
        for number in range(2 * MOST_RUNS):
            (records / f"r{number}.json").write_text("{}")
        self.assertEqual(len(self.offered("status", "")), MOST_RUNS)

    def test_modes(self) -> None:
        """
        Modes and options, wherever options may stand.
        """
        self.assertEqual(self.offered("list-a"), ["list-agents"])
        self.assertEqual(self.offered("--json", "unp"), ["unpair"])
        self.assertIn("--output", self.offered("--"))
        self.assertIn("--exclude", self.offered("run", "--ex"))
        self.assertEqual(
            self.offered("ping", "--output", ""), ["text", "json", "jsonl"]
        )
        self.assertEqual(self.offered("completion", ""), ["bash", "zsh", "fish"])

    def test_hosts(self) -> None:
        """
        Registered hosts, as people sort them.
        """
        for words, hosts in (
            (("ping", ""), ["db", "web-2", "web-10"]),
            (("ping", "web-2", "web"), ["web-2", "web-10"]),
            (("discovery", "d"), ["db"]),
            (("ping", "db", "--exclude", "w"), ["web-2", "web-10"]),
            (("unpair", "d"), ["db"]),
            (("unpair", "db", ""), []),
            (("edit-agent", "w"), ["web-2", "web-10"]),
            (("run", ""), ["db", "web-2", "web-10"]),
            (("ps", "d"), ["db"]),
            (("attach", ""), []),
            (("attach", "r1", "d"), ["db"]),
            (("cancel", "r1", "db", "w"), ["web-2", "web-10"]),
            (("run", "--on-disconnect", ""), ["keep", "cancel"]),
        ):
            self.assertEqual(self.offered(*words), hosts, words)

    def test_scripts(self) -> None:
        """
        Behind a host, what discovery has found there; behind a pattern, what
        it has found anywhere.
        """
        for words, offered in (
            (("run", "web-2", "b"), ["backup"]),
            (("run", "web-2", "v"), []),
            (("run", "web-2", "db", "v"), ["vacuum"]),
            (("run", "web-*", "v"), ["vacuum"]),
            (("run", "--exclude", "db", "web-2", "u"), ["uptime"]),
            (("run", "db", ""), ["db", "web-2", "web-10", "vacuum"]),
        ):
            self.assertEqual(self.offered(*words), offered, words)

    def test_scriptsOwn(self) -> None:
        """
        What follows -- is the script's.
        """
        self.assertEqual(self.offered("run", "web-2", "backup", "--", ""), [])
        self.assertEqual(self.offered("run", "web-2", "backup", "--", "x", "d"), [])

    def test_odd(self) -> None:
        """
        In the middle of a line that makes no sense there is nothing to offer.
        """
        self.offered("frob", "")
        self.offered("run", "--frob", "web-2", "")
        self.offered("--version", "")
        self.assertEqual(self.offered("ping", "--port", "x", "d"), ["db"])

    def test_noSettings(self) -> None:
        """
        Where nothing can be read, nothing is offered, and nothing said.
        """
        self.configure("frob\n")
        self.assertEqual(self.offered("ping", ""), [])
        self.environ["CTRL_EXEC_CONFIG"] = "/no/such.conf"
        self.assertEqual(self.offered("run", "web-2", ""), [])
        self.assertEqual(self.offered("ping", "--socket", "/no/such.sock", ""), [])

    def test_oddSettings(self) -> None:
        """
        Nor is a warning the place for it.
        """
        self.configure("max_paralel = 3\n")
        self.assertEqual(self.offered("ping", "d"), ["db"])

    def test_hostile(self) -> None:
        """
        An agent that calls its scripts what a shell would run is not helped:
        what is offered is one key away from being run.
        """
        self.register("web-2", scripts=("ok", "; rm -rf ~", "$(x)", "a\nplain,b", "*"))
        self.assertEqual(
            self.offered("run", "web-2", ""), ["db", "web-2", "web-10", "ok"]
        )


class ShellTests(CompletionCase):
    """
    What shells and we say to each other.
    """

    def answered(self, instruction: str, words: str, place: str) -> str:
        """
        @return: what a shell is told that has asked.
        """
        for name, value in (("COMP_WORDS", words), ("COMP_CWORD", place)):
            self.patch(os, "environ", {**os.environ, name: value})
        self.environ[VARIABLE] = instruction
        done = self.command("never", "looked", "at")
        self.assertEqual((done.status, done.err), (0, ""))
        return done.out

    def test_answers(self) -> None:
        """
        Each shell in its own words.
        """
        for instruction, place, told in (
            ("bash_complete", "2", "plain,db\n"),
            ("zsh_complete", "2", "plain\ndb\nhost\n"),
            ("fish_complete", "d", "plain,db\thost\n"),
        ):
            self.assertEqual(
                self.answered(instruction, "ctrl-exec ping d", place), told
            )

    def test_nonsense(self) -> None:
        """
        Who asks for something else is told nothing.
        """
        for instruction, place in (
            ("bash_complete", "x"),
            ("frob_complete", "1"),
            ("frob", "1"),
        ):
            self.assertEqual(self.answered(instruction, "ctrl-exec p", place), "")

    def test_scripts(self) -> None:
        """
        Each shell gets a script that asks us, under all our names.
        """
        for shell in ("bash", "zsh", "fish"):
            done = self.command("completion", shell)
            self.assertEqual((done.status, done.err), (0, ""))
            self.assertIn(f"{VARIABLE}={shell}_complete", done.out)
            for name in ("ctrl-exec", "ced", "ctrl-exec-dispatcher"):
                self.assertRegex(done.out, rf"[ ]{name}( |\n)", shell)
        self.assertEqual(self.command("completion", "tcsh").status, 2)

    def test_syntax(self) -> None:
        """
        The shells that are here find nothing wrong with it.
        """
        for shell in ("bash", "zsh", "fish"):
            program = shutil.which(shell)
            if program is not None:
                done = subprocess.run(
                    [program, "-n"],
                    input=shell_script(shell),
                    text=True,
                    capture_output=True,
                    check=False,
                )
                self.assertEqual((done.returncode, done.stderr), (0, ""), shell)
