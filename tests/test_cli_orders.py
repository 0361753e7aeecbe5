# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.modes.asking}: what hosts are meant, who has to say
yes, and who says no.
"""

from __future__ import annotations

from ctrlexec.dispatcher.locks import FileLocks, Held, Holder
from tests.command_lines import CommandLineCase, Done


class SelectionTests(CommandLineCase):
    """
    Which hosts are meant.
    """

    def setUp(self) -> None:
        super().setUp()
        self.register("web-1", "web-2", "web-10", "db", tags={"role": "x"})

    def test_patterns(self) -> None:
        """
        A run goes where its words lead, and not where --exclude says.
        """
        for words, hosts in (
            (("web-*",), ["web-1", "web-2", "web-10"]),
            (("@role=x", "--exclude", "web-*"), ["db"]),
            (("web-[1-2]", "db", "--exclude=db", "--exclude=web-2"), ["web-1"]),
        ):
            self.agents.asked.clear()
            self.assertEqual(self.command("run", *words, "backup").status, 0)
            self.assertEqual(self.agents.names, hosts)

    def test_pingAndDiscovery(self) -> None:
        """
        The same words for the others that ask; a discovery without a host is
        one of all.
        """
        for words, hosts in (
            (("ping", "web-?"), ["web-1", "web-2"]),
            (("ping", "*", "--exclude=web-*"), ["db"]),
            (("discovery", "--exclude", "web-*"), ["db"]),
            (("discovery",), ["db", "web-1", "web-2", "web-10"]),
        ):
            self.agents.asked.clear()
            self.assertEqual(self.command(*words).status, 0)
            self.assertEqual(self.agents.names, hosts)

    def test_nothing(self) -> None:
        """
        A pattern that matches nothing is an error, and nobody is asked.
        """
        done = self.command("run", "app-*", "web-1", "backup")
        self.assertEqual((done.status, done.out), (1, ""))
        self.assertIn("error: no agent matches 'app-*'\nhint: ", done.err)
        self.assertEqual(self.agents.asked, [])

    def test_twice(self) -> None:
        """
        A host that is named twice is asked once, and that is said.
        """
        done = self.command("run", "db", "db", "backup", "--json")
        self.assertEqual(len(done.json["results"]), 1)
        self.assertEqual(
            done.err, "warning: db was named more than once; it is asked once\n"
        )

    def test_dryRun(self) -> None:
        """
        Where a run would go, and nothing else.
        """
        done = self.command("run", "web-*", "db:9000", "backup", "--dry-run")
        self.assertEqual(
            done,
            Done(
                0,
                "web-1\nweb-2\nweb-10\ndb:9000\n",
                "note: backup would be run on 4 hosts\n",
            ),
        )
        done = self.command("run", "db", "db", "backup", "--dry-run", "--json")
        self.assertEqual(
            done,
            Done(
                0,
                '{"ok":true,"dry_run":true,"script":"backup","hosts":["db"]}\n',
                "warning: db was named more than once; it is asked once\n",
            ),
        )
        self.assertEqual(self.command("run", "db", "../sh", "--dry-run").status, 2)
        self.assertEqual(self.agents.asked, [])


class ConfirmationTests(CommandLineCase):
    """
    Many hosts need a yes.
    """

    def setUp(self) -> None:
        super().setUp()
        self.configure("confirm_hosts = 2\n")
        self.register("web-1", "web-2", "web-3")

    def test_few(self) -> None:
        """
        As many as the settings say do not.
        """
        self.assertEqual(self.command("run", "web-1", "web-2", "x").status, 0)

    def test_nobodyToAsk(self) -> None:
        """
        Without a terminal that is an error, unless --yes stands there.
        """
        done = self.command("run", "web-*", "x")
        self.assertEqual((done.status, done.out), (2, ""))
        self.assertIn("hint: --dry-run shows them; --yes says yes\n", done.err)
        self.assertEqual(self.agents.asked, [])
        self.assertEqual(self.command("run", "web-*", "x", "--yes").status, 0)
        self.assertEqual(len(self.agents.asked), 3)

    def test_asked(self) -> None:
        """
        A person is asked, once.
        """
        self.terminal, self.typed = True, "n\n"
        done = self.command("run", "web-*", "x")
        self.assertEqual(
            done, Done(1, "", "run x on 3 hosts? [y/N] error: nothing was run\n")
        )
        self.assertEqual(self.agents.asked, [])
        self.typed = "y\n"
        done = self.command("run", "web-*", "x")
        self.assertEqual(done.status, 0)
        self.assertEqual(done.err.count("[y/N]"), 1)
        self.assertEqual(len(self.agents.asked), 3)


class RefusalTests(CommandLineCase):
    """
    Orders that are not carried out.
    """

    def setUp(self) -> None:
        super().setUp()
        self.register("web-1", "web-2")

    def test_denied(self) -> None:
        """
        PROTOCOL.md section 7: a hook that can not be called denies.
        """
        self.configure("auth_hook = /no/such/hook\n")
        for mode in (("run", "web-1", "x"), ("ping", "web-1"), ("list-agents",)):
            done = self.command(*mode)
            self.assertEqual((done.status, done.out), (1, ""))
            self.assertRegex(done.err, "^Denied: hook not started[^\n]+\nhint: .+\n$")
            done = self.command(*mode, "--json")
            self.assertRegex(
                done.out, r'^\{"ok":false,"error":"hook not started[^"]+","code":1\}\n$'
            )
        self.assertEqual(self.agents.asked, [])

    def lock(self, host: str) -> Held:
        """
        Let somebody else run C{backup} there.
        """
        locks = FileLocks(self.home / "state/locks")
        held = locks.take([host], Holder("backup", "r0", "bob"))
        assert isinstance(held, Held)
        self.addCleanup(held.release, host)
        return held

    def test_locked(self) -> None:
        """
        The same for a script that runs already.
        """
        self.lock("web-2")
        done = self.command("run", "web-1", "web-2", "backup")
        self.assertEqual((done.status, done.out), (1, ""))
        self.assertRegex(
            done.err, "^Locked: already running: web-2:backup\nhint: [^\n]+\n$"
        )
        done = self.command("run", "web-1", "web-2", "backup", "--output", "jsonl")
        self.assertEqual(
            done.out,
            '{"ok":false,"error":"locked","code":4,"conflicts":["web-2:backup"]}\n',
        )
        self.assertEqual(self.agents.asked, [])

    def test_waitLock(self) -> None:
        """
        Who waits long enough has their turn.
        """
        held = self.lock("web-2")

        def meanwhile() -> None:
            self.clock.advance(4)
            held.release("web-2")
            self.clock.pump([0.5] * 4)

        self.meanwhile = meanwhile
        done = self.command("run", "web-2", "backup", "--wait-lock", "10")
        self.assertEqual((done.status, self.agents.names), (0, ["web-2"]))

    def test_waitLockInVain(self) -> None:
        """
        Who does not, has not.
        """
        self.lock("web-2")
        self.meanwhile = lambda: self.clock.pump([0.5] * 10)
        done = self.command("run", "web-2", "backup", "--wait-lock", "3")
        self.assertEqual((done.status, self.agents.asked), (1, []))

    def test_waitLockOdd(self) -> None:
        """
        A time that is none is a mistake.
        """
        for text in ("nan", "-1", "soon", "1e9"):
            done = self.command("run", "web-2", "backup", "--wait-lock", text)
            self.assertEqual((done.status, self.agents.asked), (2, []), text)

    def test_listLocks(self) -> None:
        """
        Who holds what, for people and for programs.
        """
        self.assertEqual(
            self.command("list-locks").err.splitlines()[-1], "note: nothing is locked"
        )
        self.lock("web-2")
        (line,) = self.command("list-locks").out.splitlines()[2:]
        self.assertEqual(line.split()[:2], ["web-2", "backup"])
        self.assertIn(" bob ", line)
        (lock,) = self.command("list-locks", "--json").json
        self.assertEqual(
            (lock["host"], lock["script"], lock["user"], lock["reqid"]),
            ("web-2", "backup", "bob", "r0"),
        )
