# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.modes.run_options}: options of C{run} that the
original does not have.
"""

from __future__ import annotations

from tests.command_runs import RunsCase


class OptionsTests(RunsCase):
    """
    Options that make no sense together, and those that reach the agents.
    """

    def test_refused(self) -> None:
        """
        One sentence says why, and nobody is asked.
        """
        for words in (
            ("--async", "--follow"),
            ("--async", "--fold"),
            ("--async", "--on-disconnect", "cancel"),
            ("--async", "--batch", "1"),
            ("--async", "--canary", "1"),
            ("--async", "--max-failures", "1"),
            ("--fold", "--follow"),
            ("--json", "--follow"),
            ("--batch-wait", "5s"),
            ("--async", "--batch", "1", "--batch-wait", "0"),
            ("--batch", "0"),
            ("--batch", "101%"),
            ("--batch", "some"),
            ("--canary", "0"),
            ("--max-failures", "-1"),
            ("--timeout", "0"),
            ("--timeout", "soon"),
            ("--timeout", "40d"),
            ("--on-disconnect", "burn"),
        ):
            done = self.command("run", "web-1", "backup", *words)
            self.assertEqual(done.status, 2, words)
            self.assertRegex(done.err, "^error: [^\n]+\n(hint: [^\n]+\n)?$")
        self.assertEqual(self.agents.asked, [])
        self.assertIn(
            "--output jsonl",
            self.command("run", "web-1", "backup", "--follow", "--json").err,
        )

    def test_named(self) -> None:
        """
        What is wrong with a value is said of its option; what can not go
        together, and why.
        """
        for words, said in (
            (("--timeout", "0"), "invalid --timeout '0': expected a time of up to 30d"),
            (("--batch-wait", "-1"), "invalid --batch-wait '-1': expected a time"),
            (("--canary", "0"), "invalid --canary '0': expected a number from 1"),
            (("--batch", "0"), "invalid --batch '0': expected one host at least"),
            (("--max-failures", "x"), "invalid --max-failures 'x': expected"),
            (("--wait-lock", "x"), "invalid --wait-lock 'x': expected"),
            (
                ("--async", "--on-disconnect", "keep"),
                "--async and --on-disconnect can not go together: nobody waits who "
                "could leave",
            ),
        ):
            done = self.command("run", "web-1", "backup", *words)
            self.assertEqual(done.status, 2)
            self.assertTrue(done.err.startswith(f"error: {said}"), done.err)
        done = self.command("wait", "r1", "--timeout", "x")
        self.assertIn("invalid --timeout 'x'", done.err)

    def test_lots(self) -> None:
        """
        How many would be asked at a time can be seen before.
        """
        self.register("web-3", "web-4")
        words = ("run", "web-*", "backup", "--dry-run")
        rolling = ("--canary", "1", "--batch", "2", "--batch-wait", "0")
        done = self.command(*words, *rolling)
        self.assertEqual(done.out, "web-1\nweb-2\nweb-3\nweb-4\n")
        said = "note: backup would be run on 4 hosts, so many at a time: 1 2 1\n"
        self.assertEqual(done.err, said)
        document = self.command(*words, *rolling, "--json").json
        self.assertEqual(document["lots"], [1, 2, 1])
        self.assertNotIn("lots", self.command(*words, "--json").json)

    def test_given(self) -> None:
        """
        What is given is what is asked for.
        """
        words = ("--timeout", "2h", "--on-disconnect", "cancel")
        self.command("run", "web-1", "backup", *words)
        asked = self.asked()
        self.assertEqual((asked.timeout, asked.on_disconnect), (7200, "cancel"))
        self.command("run", "web-1", "backup")
        asked = self.asked()
        self.assertEqual((asked.timeout, asked.on_disconnect), (None, "keep"))

    def test_batchWait(self) -> None:
        """
        There is time between two batches.
        """
        asked: list[int] = []

        def meanwhile() -> None:
            asked.append(len(self.agents.asked))
            self.clock.advance(30)

        self.meanwhile = meanwhile
        words = ("--batch", "50%", "--batch-wait", "30s")
        done = self.command("run", "web-*", "backup", *words)
        self.assertEqual((done.status, asked), (0, [1]))
        self.assertEqual(len(self.agents.asked), 2)
