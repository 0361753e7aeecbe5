# SPDX-License-Identifier: AGPL-3.0-only
"""
End to end: who may use the API's unix socket, what that costs, and what
becomes of a run when one of the two ends goes away.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.installation import Done
from tests.e2e.sockets import SocketCase

#: Loads all that a command line needs, and goes on as somebody who may read
#: none of it: a Python need not be where everybody can start it.
SOMEBODY = """
import os, sys
from ctrlexec.dispatcher.cli import main
group, key, *words = sys.argv[1:]
main(words)
sys.stdout.write("=====\\n")
if os.geteuid() == 0:
    os.setgroups([int(group)] if group else [])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
sys.stdout.write(f"{os.access(key, os.R_OK)}\\n")
sys.exit(main(words))
"""
#: Nothing of it is needed to talk to a socket.
HEAVY = "twisted cryptography OpenSSL zope klein ssl asyncio hashlib jsonschema".split()


class OperatorTests(SocketCase):
    """
    Who may use the socket, and what it costs.
    """

    def as_somebody(self, group: str, *words: object) -> Done:
        """
        A command of a user who has nothing but perhaps a group.

        @return: what became of it; the first line of its output says whether
            they can read the dispatcher's key.
        """
        key = self.home / "ctrl-exec.key"
        if os.geteuid():
            # There is nobody else that we could be.
            key.chmod(0)
            self.socket.chmod(0o660 if group else 0)
        words = (group, key, "--socket", self.socket, *words)
        done = self.end(self.start("python", "-c", SOMEBODY, *words))
        first, _, out = done.out.partition("=====\n")
        self.assertTrue(first, done)
        return Done(done.status, out, done.err)

    def test_operator(self) -> None:
        """
        An operator in the group needs neither root nor the dispatcher's key,
        and is known by name whatever they call themselves.
        """
        words = ("--username", "root", "run", "web-1", "quiet")
        done = self.as_somebody(str(self.group.gr_gid), *words)
        self.assertEqual(done.status, 0, done)
        readable, _, out = done.out.partition("\n")
        self.assertEqual(readable, "False")
        self.assertIn("output of 0 arguments", out)
        (*_, line) = lines_of(self.log, "ACTION=dispatch ")
        user = re.search(r"USER=(\S+)", line)
        assert user is not None
        if os.geteuid() == 0:
            self.assertNotEqual(user[1], "root")

    def test_stranger(self) -> None:
        """
        Somebody who is not in it can not use the socket, and is told who can.
        """
        done = self.as_somebody("", "ping", "web-1")
        self.assertEqual(done.status, 1, done)
        self.assertEqual(done.out, "False\n")
        self.assertIn("Permission denied", done.err)
        self.assertIn("api_group", done.err)

    def test_light(self) -> None:
        """
        A command line through the socket loads nothing that takes long, with
        the settings and without.
        """
        for way in (("--socket", self.socket), ("--config", self.settings)):
            for words in (
                ("ping", "web-1"),
                ("run", "web-1", "quiet"),
                ("list-agents",),
            ):
                process = self.start(
                    "ctrl-exec",
                    *way,
                    *words,
                    env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"},
                )
                done = self.end(process)
                self.assertEqual(done.status, 0, done)
                loaded = {
                    line.rpartition("| ")[2].strip() for line in done.err.split("\n")
                }
                self.assertIn("ctrlexec.dispatcher.remote", loaded)
                self.assertEqual(loaded & {*HEAVY, "ctrlexec.events"}, set(), words)


class LeavingTests(SocketCase):
    """
    When one of the two ends before the work does.
    """

    def setUp(self) -> None:
        super().setUp()
        begun, self.go = self.pipe("begun"), self.pipe("go")
        self.running = self.start(
            *("ctrl-exec", "--socket", self.socket, "run", "web-1", "web-2"),
            *("waits", "--", self.root),
        )
        self.await_pipe(begun)
        (line,) = lines_of(self.log, "ACTION=dispatch ")
        found = re.search(r"REQID=(\S+)", line)
        assert found is not None
        self.reqid = found[1]

    def test_interrupted(self) -> None:
        """
        Who has had enough is told what runs on. It does: no further host is
        asked, and what came of it can be asked for.
        """
        self.running.send_signal(signal.SIGINT)
        done = self.end(self.running)
        self.assertEqual(done.status, 130, done)
        self.assertRegex(done.err, "web-1.*1 was not asked")
        # The API knows it before the agent answers, and ends when all is kept.
        self.await_line(self.log, "STATUS=499")
        self.api.terminate()
        os.write(self.go, b"done\n")
        self.end(self.api)
        found = self.json("--direct", "status", self.reqid)
        first, second = found["results"]
        self.assertEqual((first["host"], first["stdout"]), ("web-1", "done\n"))
        self.assertEqual((second["host"], second["state"]), ("web-2", "not started"))

    def test_killed(self) -> None:
        """
        When the API is killed the command line ends at once, and says that
        scripts may run on.
        """
        self.api.kill()
        done = self.end(self.running)
        self.assertEqual(done.status, 1, done)
        self.assertIn("closed the connection before the end", done.err)
        self.assertIn(f"running: ctrl-exec status {self.reqid} knows", done.err)
        # The lock went with it; a new API takes the place of the dead one.
        self.end(self.api)
        self.log.unlink()
        self.start_api()
        os.write(self.go, b"done\n")
        self.assertEqual(self.through_socket("ping", "web-1").status, 0)

    def test_stopped(self) -> None:
        """
        An API that is stopped waits for what runs, and gives the answer.
        """
        self.api.terminate()
        os.write(self.go, b"done\ndone\n")
        done = self.end(self.running)
        self.assertIn("done\n", done.out)
        self.assertIn("==> web-2", done.out)
        self.assertEqual(self.end(self.api).status, -signal.SIGTERM)
        self.assertFalse(self.socket.exists())


def lines_of(log: Path, part: str) -> Sequence[str]:
    """
    The lines of a log with a text in them.
    """
    return [line for line in log.read_text().splitlines() if part in line]
