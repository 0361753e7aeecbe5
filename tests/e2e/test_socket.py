# SPDX-License-Identifier: AGPL-3.0-only
"""
End to end: command lines that go through the API's unix socket, and say what
they would say without it.
"""

from __future__ import annotations

import json
import os
import re
from typing import ClassVar

from tests.e2e.installation import Done
from tests.e2e.sockets import SocketCase

HOOK = """\
#!/bin/sh
case $ENVEXEC_TOKEN in
bad) exit 2 ;;
worse) exit 77 ;;
esac
"""
#: What differs from one time to the next, and what it becomes.
MASKS = (
    (r"\b[0-9]+ms *", "TIME "),
    (r"\b[0-9a-f]{16}\b", "REQID"),
    (r"in [0-9]+\.[0-9] s", "in TIME"),
)


class SameTests(SocketCase):
    """
    It makes no difference to who types.
    """

    more: ClassVar = {"confirm_hosts": 2}

    def setUp(self) -> None:
        super().setUp()
        records = self.home / "state/agents"
        (records / "broken.json").write_text("{")
        record = json.loads((records / "web-2.json").read_text())
        record.update(hostname="gone", port=1, tags={"env": "prod"})
        (records / "gone.json").write_text(json.dumps(record))

    def assertSame(self, *words: object, status: int = 0) -> Done:
        """
        A command says the same in both ways, and ends with this status.
        """
        direct = masked(self.dispatcher("--direct", *words))
        for done in (self.dispatcher(*words), self.through_socket(*words)):
            self.assertEqual(masked(done), direct)
        self.assertEqual(direct.status, status, direct)
        return direct

    def test_results(self) -> None:
        """
        Results are the same to the byte, for people and for programs, whatever
        became of each host.
        """
        hosts = ("web-1", "web-2", "gone", "broken", "nobody")
        for how in ("text", "json", "jsonl"):
            show = ("--output", how)
            run = (*show, "run", "--yes")
            done = self.assertSame(*run, "web-1", "web-2", "quiet", "--", "a", "ü")
            self.assertIn("output of 2 arguments", done.out)
            self.assertSame(*run, *hosts, "quiet", status=1)
            self.assertSame(*run, "web-1", "no-such-script", status=1)
            self.assertSame(*show, "ping", *hosts)
            self.assertSame(*show, "discovery", "web-1", "gone", "nobody")
            self.assertSame(*show, "list-agents", status=1)
            self.assertSame(*show, "list-agents", "--tags", "env=prod", status=1)
        self.assertSame("run", "--fold", "web-1", "web-2", "quiet")
        self.assertSame("run", "--dry-run", "@env", "web-*", "quiet")
        self.assertSame("ping", "web-1", "web-1", "web-[1-2]", "--exclude", "web-2")

    def test_errors(self) -> None:
        """
        So is what is wrong, with its hint and its status.
        """
        for how in ("text", "json"):
            show = ("--output", how)
            three = ("web-1", "web-2", "gone")
            self.assertSame(*show, "run", *three, "quiet", status=2)
            self.assertSame(*show, "run", "db-*", "quiet", status=1)
            self.assertSame(*show, "run", "--dry-run", "db-*", "quiet", status=1)
            self.assertSame(*show, "run", "web-[1-", "quiet", status=2)
            self.assertSame(*show, "run", "web-1", "no/script", status=2)
            self.assertSame(*show, "ping", "-x", status=2)
            self.assertSame(*show, "ping", "@no=tag", status=1)
            self.assertSame(*show, "ping", "web-1", "--exclude", "web-1", status=1)
            self.assertSame(*show, "status", "none", status=1)
            self.assertSame(*show, "status", "../none", status=1)

    def test_status(self) -> None:
        """
        What became of a run is the same, and so is that of a run that was
        given in the other way.
        """
        for way in ((), ("--direct",)):
            answer = self.json(*way, "run", "web-1", "quiet", "--", way)
            reqid = answer["results"][0]["reqid"]
            for how in ("text", "json", "jsonl"):
                self.assertSame("--output", how, "status", reqid)

    def test_locked(self) -> None:
        """
        A script that runs already does, whoever began it.
        """
        begun, go = self.pipe("begun"), self.pipe("go")
        for way in ("--direct", "--json"):
            running = self.start(
                *("ctrl-exec", "--config", self.settings, way),
                *("run", "web-1", "waits", "--", self.root),
            )
            self.await_pipe(begun)
            for how in ("text", "json"):
                self.assertSame("--output", how, "run", "web-1", "waits", status=1)
            os.write(go, b"done\n")
            self.assertEqual(self.end(running).status, 0)


class HookedTests(SocketCase):
    """
    With an auth hook.
    """

    more: ClassVar = {"auth_hook": "hook"}

    def configure(self, **more: object) -> None:
        """
        Write the hook as well.
        """
        hook = self.home / "hook"
        hook.write_text(HOOK)
        hook.chmod(0o755)
        super().configure(**more)

    def test_denied(self) -> None:
        """
        Who is denied is told so in the same words, for each mode.
        """
        for token in ("bad", "worse"):
            for words in (
                ("run", "web-1", "quiet"),
                ("ping", "web-1"),
                ("discovery",),
                ("list-agents",),
                ("status", "none"),
            ):
                command = ("--token", token, *words)
                done = masked(self.dispatcher("--direct", *command))
                self.assertEqual(masked(self.through_socket(*command)), done)
                self.assertEqual(done.status, 1, done)
        log = self.log.read_text()
        self.assertNotIn("worse", log)
        self.assertEqual(self.through_socket("ping", "web-1").status, 0)


def masked(done: Done) -> Done:
    """
    What is the same each time.
    """
    out, err = done.out, done.err
    for mask, name in MASKS:
        out, err = re.sub(mask, name, out), re.sub(mask, name, err)
    return Done(done.status, out, err)
