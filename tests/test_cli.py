# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.cli}: runs, and command lines that can not be
carried out.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ctrlexec import __version__
from ctrlexec.protocol.messages import RunAnswer, RunFinished, RunRefused, RunRequest
from tests.command_lines import CommandLineCase, Done


class RunTests(CommandLineCase):
    """
    C{ctrl-exec run}.
    """

    def setUp(self) -> None:
        super().setUp()
        self.register("web-1", "web-2")

    def asked(self) -> RunRequest:
        """
        @return: what the last agent was asked for.
        """
        request = self.agents.asked[-1][1]
        assert isinstance(request, RunRequest)
        return request

    def test_text(self) -> None:
        """
        Each host has a line and its output; all were content.
        """
        done = self.command("run", "web-1", "web-2", "backup")
        reqid = self.asked().reqid
        self.assertEqual(
            done,
            Done(
                0,
                f"==> web-1  [OK  exit:0  0ms  req:{reqid}]\nweb-1\n"
                f"==> web-2  [OK  exit:0  0ms  req:{reqid}]\nweb-2\n",
                "2 ok  in 0.0 s\n",
            ),
        )
        log = self.log.read_text()
        counts = [log.count(f"ACTION={action} ") for action in ("dispatch", "run")]
        self.assertEqual(counts, [1, 2])

    def test_failures(self) -> None:
        """
        One host that fails makes the command fail; its hint comes once, behind
        the results.
        """
        self.agents.answers = {"web-2": RunFinished("backup", 3, "", "oh\n", "")}
        done = self.command("run", "web-1", "web-2", "x", "y", "backup")
        reqid = self.asked().reqid
        self.assertEqual(done.status, 1)
        self.assertIn(
            f"==> web-2  [FAIL  exit:3  0ms  req:{reqid}]\n    STDERR: oh\n", done.out
        )
        self.assertEqual(done.out.count("    ERROR: unknown agent\n"), 2)
        self.assertEqual(
            done.err,
            "hint: ctrl-exec list-agents shows the agents that are paired\n"
            "1 ok, 1 failed (web-2), 2 unreachable (x y)  in 0.0 s\n",
        )

    def test_json(self) -> None:
        """
        Programs get one line, and nothing on stderr.
        """
        self.agents.answers = {"web-2": RunRefused("script not permitted")}
        done = self.command("run", "web-1", "web-2", "backup", "--json")
        self.assertEqual((done.status, done.err), (1, ""))
        self.assertIs(done.json["ok"], True)
        one, two = done.json["results"]
        self.assertEqual((one["exit"], one["stdout"]), (0, "web-1\n"))
        self.assertEqual((two["exit"], two["error"]), (-1, "script not permitted"))

    def test_arguments(self) -> None:
        """
        What stands behind the first -- reaches the script as it was typed,
        even if it looks like an option of ours or is empty.
        """
        args = ("--json", "two words", "$HOME", "", "--", "-h")
        done = self.command("run", "web-1", "backup", "--", *args)
        self.assertEqual(done.status, 0)
        self.assertTrue(done.out.startswith("==> web-1"))
        self.assertEqual(self.asked().args, args)

    def test_caller(self) -> None:
        """
        Who asks is $USER with $ENVEXEC_TOKEN, unless options say otherwise;
        the token is not logged.
        """
        self.environ["ENVEXEC_TOKEN"] = "t0ken"
        self.command("run", "web-1", "backup")
        self.assertEqual(
            (self.asked().username, self.asked().token), ("alice", "t0ken")
        )
        self.command("--token", "0ther", "run", "web-1", "--username=bob", "backup")
        self.assertEqual((self.asked().username, self.asked().token), ("bob", "0ther"))
        self.assertIn("USER=bob", self.log.read_text())
        self.assertNotIn("0ther", self.log.read_text())

    def test_optionsAnywhere(self) -> None:
        """
        Options stand before or behind the mode; the last one counts.
        """
        for words in (
            ("--port", "9000", "run", "web-1", "backup"),
            ("run", "--port=9000", "web-1", "backup"),
            ("--port", "1", "run", "web-1", "backup", "--port", "9000"),
            ("run", "web-1:9000", "backup", "--port", "1"),
        ):
            self.command(*words)
            self.assertEqual(self.agents.asked[-1][0].port, 9000, words)

    def test_ownOptionsAnywhere(self) -> None:
        """
        So do those that only some modes have, and one that none has is named.
        """
        for words in (
            ("--dry-run", "--exclude", "web-2", "--json", "run", "web-*", "backup"),
            ("--exclude=web-2", "--json", "run", "--dry-run", "web-*", "backup"),
        ):
            done = self.command(*words)
            self.assertEqual((done.status, done.err), (0, ""))
            self.assertEqual(done.json["hosts"], ["web-1"])
        self.assertEqual(self.agents.asked, [])
        done = self.command("--frob", "run", "web-1", "backup")
        self.assertEqual(done.status, 2)
        self.assertIn("--frob", done.err)
        done = self.command("--batch", "2", "ping", "web-1")
        self.assertEqual(done.status, 2)
        self.assertIn("--batch", done.err)

    def test_progress(self) -> None:
        """
        After a second a terminal is told who is waited for; that is gone
        before anything else is shown.
        """
        self.terminal = True
        slow: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-2": slow}

        def meanwhile() -> None:
            self.clock.advance(1)
            slow.callback(RunRefused("no"))

        self.meanwhile = meanwhile
        done = self.command("run", "web-1", "web-2", "backup")
        erase = "\r\x1b[K"
        self.assertIn(f"{erase}waiting for 1 of 2: web-2{erase}", done.err)

    def test_interrupted(self) -> None:
        """
        Whoever stops waiting keeps what has arrived, and is told in one line
        where it goes on. From then on an interrupt is not waited for.
        """
        self.agents.answers = {"web-2": Deferred()}

        def meanwhile() -> None:
            raise KeyboardInterrupt

        self.meanwhile = meanwhile
        done = self.command("run", "web-1", "web-2", "backup")
        self.assertEqual(done.status, 130)
        self.assertTrue(done.out.startswith("==> web-1  [OK"))
        self.assertEqual(
            done.err,
            "error: interrupted: 1 of 2 hosts have answered; it runs on at web-2\n"
            f"hint: ctrl-exec attach {self.asked().reqid} goes on listening, "
            f"ctrl-exec cancel {self.asked().reqid} ends it\n",
        )
        self.assertEqual(self.impatience, 1)
        self.agents.answers = {"web-2": Deferred()}
        answer = self.command("--json", "run", "web-1", "web-2", "backup").json
        self.assertIs(answer["ok"], False)
        self.assertEqual([row["host"] for row in answer["results"]], ["web-1"])
        self.assertEqual(answer["unanswered"], ["web-2"])
        self.assertEqual(answer["reqid"], self.asked().reqid)

    def test_hostileOutput(self) -> None:
        """
        A script's escape sequences reach a file, and no terminal.
        """
        self.agents.answers = {"web-1": RunFinished("x", 0, "\x1b[2J\n", "", "")}
        self.assertIn("\n\x1b[2J\n", self.command("run", "web-1", "x").out)
        self.terminal = True
        self.assertTrue(
            self.command("run", "web-1", "x").out.startswith("\\x1b[2J\n==> web-1")
        )
        self.assertIn("\n\\x1b[2J\n", self.command("run", "web-[1-2]", "x").out)


class UsageTests(CommandLineCase):
    """
    Command lines that make no sense end with 2 and ask nothing of anybody.
    """

    def refused(self, *words: str) -> str:
        """
        @return: what is said on stderr.
        """
        done = self.command(*words)
        self.assertEqual((done.status, done.out), (2, ""), words)
        self.assertRegex(done.err, "^error: [^\n]+\n(hint: [^\n]+\n)?$")
        self.assertEqual(self.agents.asked, [])
        return done.err

    def test_run(self) -> None:
        """
        A run needs a host and a script, both well-formed.
        """
        for words in (
            ("run",),
            ("run", "web-1"),
            ("run", "web-1", "--", "backup"),
            ("run", "web-1:0", "backup"),
            ("run", "a b", "backup"),
            ("run", "web-1", "../sh"),
            ("run", "web-1", "backup", "--port", "70000"),
        ):
            self.refused(*words)

    def test_forgottenDashes(self) -> None:
        """
        An option that is meant for the script is told where it goes.
        """
        self.assertEqual(
            self.refused("run", "web-1", "backup", "--full"),
            "error: run has no option --full\n"
            "hint: is it the script's? then: run HOST SCRIPT -- --full\n",
        )

    def test_modes(self) -> None:
        """
        A mode that is not there, and arguments that no mode but run has.
        """
        self.assertIn("no mode 'frob'", self.refused("frob"))
        self.assertIn("behind --", self.refused("ping", "web-1", "--", "x"))
        self.refused("ping")
        self.refused("approve")
        self.refused("--bogus")
        self.refused("approve", "../../etc/passwd")
        self.refused("pairing-mode", "--timeout", "601")

    def test_json(self) -> None:
        """
        A program is told on stdout, too.
        """
        for words in (("--json", "frob"), ("ping", "--json")):
            done = self.command(*words)
            self.assertEqual((done.status, done.json["ok"]), (2, False))

    def test_help(self) -> None:
        """
        Help is for stdout, in the order in which the modes are met.
        """
        for words in ((), ("--help",), ("-h",)):
            done = self.command(*words)
            self.assertEqual((done.status, done.err), (0, ""))
            self.assertLess(done.out.index("  run "), done.out.index("  setup-ca "))
        help_of_run = self.command("run", "--help").out
        self.assertIn("HOST[:PORT]... SCRIPT [-- ARG...]", help_of_run)

    def test_version(self) -> None:
        """
        The version is shown wherever it is asked for.
        """
        for words in (
            ("--version",),
            ("ping", "--version"),
            ("ping", "x", "--version"),
        ):
            self.assertEqual(
                self.command(*words), Done(0, f"ctrl-exec {__version__}\n", "")
            )


class SettingsTests(CommandLineCase):
    """
    Settings that can not be used end with 7.
    """

    def test_missing(self) -> None:
        """
        A file that is not there is named, whoever named it first.
        """
        done = self.command("list-agents", "--config", "/no/such.conf")
        self.assertEqual(done.status, 7)
        self.assertTrue(done.err.startswith("error: /no/such.conf: there is no such"))
        self.assertIn("hint: --config", done.err)

    def test_notOurs(self) -> None:
        """
        A file that the system does not give us is an error in one line, too.
        """
        (self.home / "state").write_text("not a directory")
        done = self.command("list-agents")
        self.assertEqual((done.status, done.out), (1, ""))
        self.assertRegex(done.err, "^error: [^\\n]*state/agents[^\\n]*\\n$")

    def test_wrong(self) -> None:
        """
        A bad line is named.
        """
        self.configure("max_parallel = many\n")
        done = self.command("list-agents", "--json")
        self.assertEqual((done.status, done.json["ok"]), (7, False))
        self.assertIn(f"{self.settings}:5: max_parallel", done.err)

    def test_odd(self) -> None:
        """
        What is merely odd is a warning.
        """
        self.configure("max_paralel = 3\n")
        done = self.command("list-agents")
        self.assertEqual(done.status, 0)
        self.assertIn(f"warning: {self.settings}:5: unknown key", done.err)
