# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.dispatcher.modes.tokens}: C{ctrl-exec join-token}.
"""

from __future__ import annotations

from datetime import timedelta

from ctrlexec.dispatcher.join_tokens import FileJoinTokens
from ctrlexec.joining import JoinSecret
from ctrlexec.values import iso_time
from tests.authority import NOW
from tests.command_lines import CommandLineCase


class JoinTokenTests(CommandLineCase):
    """
    A dispatcher with a CA.
    """

    def setUp(self) -> None:
        super().setUp()
        self.assertEqual(self.command("setup-ca").status, 0)
        self.tokens = FileJoinTokens(self.home / "state/tokens")

    def create(self, *words: str) -> JoinSecret:
        """
        The token that is printed.
        """
        done = self.command("join-token", "create", *words)
        self.assertEqual(done.status, 0, done)
        return JoinSecret.parse(done.out)

    def test_create(self) -> None:
        """
        One string is printed, which pins the CA; what is kept is what was
        asked for.
        """
        secret = self.create(
            "--name", "web-1", "--tags", "env=prod,role=web", "--ttl", "2h"
        )
        fingerprint = self.command("ca-fingerprint").out.strip()
        self.assertEqual(secret.authority, fingerprint)
        ((kept,), _) = self.tokens.listed()
        self.assertEqual((kept.id, kept.name, kept.uses), (secret.id, "web-1", 1))
        self.assertEqual(kept.tags, {"env": "prod", "role": "web"})
        self.assertEqual(kept.expires, iso_time(NOW + timedelta(hours=2)))
        self.assertEqual(kept.user, "alice")

    def test_createJson(self) -> None:
        """
        A program gets the token with all that it is good for.
        """
        made = self.command("--json", "join-token", "create", "--uses", "3").json
        self.assertEqual(JoinSecret.parse(made["token"]).id, made["id"])
        self.assertEqual((made["ok"], made["uses"], made["left"]), (True, 3, 3))

    def test_wrong(self) -> None:
        """
        What can not be is refused with 2, and no token is made.
        """
        for words in (
            ("--ttl", "59s"),
            ("--ttl", "31d"),
            ("--ttl", "1"),
            ("--ttl", "1y"),
            ("--uses", "0"),
            ("--uses", "1001"),
            ("--uses", "2", "--name", "web-1"),
            ("--name", "../web"),
            ("--tags", "env"),
        ):
            done = self.command("join-token", "create", *words)
            self.assertEqual((done.status, done.out), (2, ""), words)
        self.assertEqual(self.tokens.listed(), ([], []))

    def test_noCa(self) -> None:
        """
        Without a CA there is nothing that an agent could pin.
        """
        (self.home / "ca.crt").unlink()
        self.assertEqual(self.command("join-token", "create").status, 7)
        self.assertEqual(self.tokens.listed(), ([], []))

    def test_list(self) -> None:
        """
        All is listed but the secret, for people and for programs.
        """
        secret = self.create("--tags", "env=prod", "--uses", "3")
        shown = self.command("join-token", "list").out
        title, _, row = shown.splitlines()
        self.assertEqual(title.split()[:4], ["ID", "NAME", "TAGS", "USES"])
        for word in (secret.id, "env=prod", "2026-03-05T19:08:09Z", "alice"):
            self.assertIn(word, row)
        (listed,) = self.command("join-token", "list", "--json").json
        self.assertEqual(
            sorted(listed),
            ["created", "expires", "id", "left", "name", "tags", "user", "uses"],
        )
        for form in (secret.text, secret.secret.hex(), secret.key.hex()):
            self.assertNotIn(form, shown + str(listed))

    def test_listNothing(self) -> None:
        """
        That there is none is said.
        """
        done = self.command("join-token", "list")
        self.assertEqual(done.status, 0)
        self.assertIn("there is no join token", done.err)

    def test_listBroken(self) -> None:
        """
        One that can not be read is named, and the others are listed.
        """
        broken, whole = self.create(), self.create()
        path = self.home / f"state/tokens/{broken.id}.json"
        path.write_text("{")
        done = self.command("join-token", "list")
        self.assertEqual(done.status, 1)
        self.assertIn(whole.id, done.out)
        self.assertIn(str(path), done.err)

    def test_revoke(self) -> None:
        """
        What is revoked is gone; what is not there can not be.
        """
        secret = self.create()
        self.assertEqual(self.command("join-token", "revoke", secret.id).status, 0)
        self.assertEqual(self.tokens.listed(), ([], []))
        self.assertEqual(self.command("join-token", "revoke", secret.id).status, 1)
        self.assertEqual(self.command("join-token", "revoke", "../x").status, 2)

    def test_help(self) -> None:
        """
        Without a word, or with a wrong one, it is told where to look.
        """
        for words in ((), ("make",)):
            done = self.command("join-token", *words)
            self.assertEqual(done.status, 2)
            self.assertIn("ctrl-exec join-token --help", done.err)
        done = self.command("join-token", "create", "--colour")
        self.assertIn("ctrl-exec join-token create --help", done.err)
