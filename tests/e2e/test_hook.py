# SPDX-License-Identifier: AGPL-3.0-only
"""
An agent with an auth hook, as PROTOCOL.md section 6 and NEWER-LINE.md section 15
have it.
"""

from __future__ import annotations

import json
import os
import re
import select
from pathlib import Path

from ctrlexec.certificates import read_certificate
from ctrlexec.process import FIXED_PATH, INHERITED
from tests.e2e.installation import PATIENCE_SECONDS, AgentHome, EndToEndCase

#: What a shell adds to what it was given.
OF_THE_SHELL = {"PWD", "OLDPWD", "SHLVL", "_"}
TOKEN = "t0ken-that-nobody-shall-read"
#: Tells that it runs, and does so until it is ended; so does its child.
HANGS = """\
exec 5>alive
echo here >&5
sleep 60 &
sleep 60
"""


class HookTests(EndToEndCase):
    """
    A hook is called anew for each question, so a test can change it while the
    agent runs.
    """

    def setUp(self) -> None:
        super().setUp()
        (self.agent,) = self.paired("agent-one")
        self.hook = self.agent.home / "hook"
        self.hooked("exit 0")
        self.agent.configure(auth_hook="hook", auth_hook_timeout=0.5)
        self.serving = self.agent.serve()
        self.client = self.agent.client()

    def hooked(self, text: str) -> None:
        """
        From now on the hook does this.
        """
        fresh = self.agent.home / "hook.new"
        fresh.write_text(f"#!/bin/sh\ncd {self.agent.home}\n{text}\n")
        fresh.chmod(0o755)
        fresh.rename(self.hook)

    def said(self) -> object:
        """
        Why a script does not run; C{None} where it does.
        """
        answer = self.client.run("show")
        self.assertEqual(answer["exit"], -1 if "error" in answer else 3)
        return answer.get("error")

    def test_answers(self) -> None:
        """
        One exit status allows. All others deny, and so does a hook that a
        signal ends, or that is not there, or no program any more.
        """
        self.assertIsNone(self.said())
        for text, reason in (
            ("exit 1", "denied"),
            ("exit 2", "bad credentials"),
            ("exit 3", "insufficient privilege"),
            ("exit 77", "hook exited 77"),
            ("kill -9 $$", "hook killed by SIGKILL"),
            ("kill -TERM $$", "hook killed by SIGTERM"),
        ):
            self.hooked(text)
            self.assertEqual(self.said(), f"not authorised: {reason}")
            self.assertIn(f'REASON="not authorised: {reason}"', self.last("deny"))
        self.hooked("exit 0")
        self.assertIsNone(self.said())
        self.hook.chmod(0o644)
        self.assertRegex(str(self.said()), "^not authorised: hook not started: ")
        self.hook.unlink()
        self.assertRegex(str(self.said()), "^not authorised: hook not started: ")
        self.assertEqual(self.client.ask("/capabilities")[0], 403)
        self.assertEqual(self.client.ask("/ping", reqid="a")[0], 200)

    def test_question(self) -> None:
        """
        A hook is told all that there is to know, in both ways, and nothing of
        the agent's own environment. It sees a run, the question what there is,
        and a change of trust.
        """
        self.hooked('cat >stdin; env -0 >env; test "$#" = 0')
        args = ("a b", "ünï\nline", "")
        who = {"username": "ann", "token": TOKEN, "reqid": "r-1"}
        self.client.run("show", *args, **who)
        self.assertAsked("run", script="show", args=[*args], **who)
        self.assertEqual(self.client.ask("/capabilities")[0], 200)
        self.assertAsked("discovery")
        rotate = {"serial": "a1", "action": "add", "token": TOKEN}
        self.assertEqual(self.client.ask("/rotate-serial", **rotate)[0], 200)
        self.assertAsked("rotate", args=["add", "a1"], token=TOKEN)

    def assertAsked(self, action: str, **expected: object) -> None:
        """
        The hook was asked this, and what is not named here is empty.
        """
        asked = json.loads((self.agent.home / "stdin").read_text())
        timestamp = asked["timestamp"]
        self.assertRegex(timestamp, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        serial = read_certificate((self.home / "ctrl-exec.crt").read_bytes()).serial
        empty = dict.fromkeys(("script", "username", "token", "reqid"), "")
        known = {
            **empty,
            "action": action,
            "args": [],
            "source_ip": "127.0.0.1",
            "timestamp": timestamp,
            "dispatcher": "ops",
            "dispatcher_serial": serial,
            **expected,
        }
        self.assertEqual(asked, {**known, "submitter": None})
        args = known.pop("args")
        self.assertEqual(
            self.environment(),
            {
                **{f"ENVEXEC_{key.upper()}": text for key, text in known.items()},
                "ENVEXEC_ARGS": " ".join(asked["args"]),
                "ENVEXEC_ARGS_JSON": json.dumps(args, separators=(",", ":")),
                "ENVEXEC_HOSTS": "",
                "ENVEXEC_SUBMITTER": "",
                "ENVEXEC_SUBMITTER_IP": "",
                "PATH": FIXED_PATH,
            },
        )

    def environment(self) -> dict[str, str]:
        """
        What the hook found in its environment, but for a few names that it may
        have of the agent's.
        """
        text = (self.agent.home / "env").read_text()
        pairs = (entry.partition("=") for entry in text.split("\0") if entry)
        harmless = {*INHERITED, *OF_THE_SHELL}
        return {name: value for name, _, value in pairs if name not in harmless}

    def test_late(self) -> None:
        """
        While a hook takes its time a ping is answered, and another question
        asked. When the time is over it ends with all that it has started, and
        has denied.
        """
        self.agent.configure(auth_hook="hook", auth_hook_timeout=2)
        self.agent.reload(self.serving)
        alive = self.pipe("alive")
        self.hooked(HANGS)
        self.client.begin("/run", script="show")
        self.assertEqual(self.next_of(alive), b"here\n")
        self.hooked("exit 0")
        other = self.agent.client()
        self.assertEqual(other.ask("/ping", reqid="a")[0], 200)
        self.assertEqual(other.run("show")["exit"], 3)
        self.assertEqual(self.agent.lines("ACTION=auth-hook-timeout"), [])
        _, answer = self.client.answer()
        self.assertEqual(answer["error"], "not authorised: denied")
        # Whoever lives holds the pipe open for writing.
        self.assertEqual(self.next_of(alive), b"")
        self.assertIn("TIMEOUT=2", self.last("auth-hook-timeout"))

    def pipe(self, name: str) -> int:
        """
        The end to read from of a new pipe with a name.
        """
        os.mkfifo(self.agent.home / name)
        reading = os.open(self.agent.home / name, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reading)
        return reading

    def next_of(self, pipe: int) -> bytes:
        """
        What is written next; nothing once nobody can write any more.
        """
        ready, _, _ = select.select([pipe], [], [], PATIENCE_SECONDS)
        self.assertTrue(ready, "nothing is written, and nobody closes")
        return os.read(pipe, 100)

    def test_unread(self) -> None:
        """
        A hook that neither reads its question nor ends when it should holds up
        nobody, however much there is to read.
        """
        self.hooked("exec <&-; exit 2")
        for _ in range(10):
            answer = self.client.run("show", *["x" * 60_000] * 2)
            self.assertEqual(answer["error"], "not authorised: bad credentials")

    def test_token(self) -> None:
        """
        Whatever becomes of a request, its token stands in no log.
        """
        who = {"token": TOKEN, "username": "ann"}
        self.agent.allow("silent", "#!/bin/sh\nexit 0\n")
        self.agent.reload(self.serving)
        for text in ("exit 0", "exit 1", "kill -9 $$", "sleep 60"):
            self.hooked(text)
            self.client.run("silent", **who)
            self.client.run("unknown", **who)
            self.client.ask("/rotate-serial", serial="a1", **who)
            self.client.ask("/rotate-serial", serial="no serial", **who)
            self.client.ask("/run", script="silent", args=[1], **who)
            self.dispatcher("--token", TOKEN, "run", "agent-one", "silent")
        for path in (self.log, self.agent.log):
            self.assertNotIn(TOKEN, path.read_text())
        self.serving.terminate()
        done = self.end(self.serving)
        self.assertNotIn(TOKEN, done.out + done.err)

    def last(self, action: str) -> str:
        """
        The last line of this action in the agent's log.
        """
        return self.agent.lines(f"ACTION={action} ")[-1]


class UnfitHookTests(EndToEndCase):
    """
    A hook that can not be asked.
    """

    def test_start(self) -> None:
        """
        An agent whose hook is missing, no program, or open to anybody does not
        start, and says so in one line, with the status that stops a supervisor.
        """
        agent = AgentHome.made(self, "agent-one", auth_hook="hook")
        hook = agent.home / "hook"
        self.assertRefused(agent, "hook can not be asked: ")
        hook.write_text("#!/bin/sh\nexit 0\n")
        self.assertRefused(agent, "hook can not be asked: ")
        hook.chmod(0o757)
        self.assertRefused(agent, "is world-writable")

    def assertRefused(self, agent: AgentHome, why: str) -> None:
        settings = agent.home / "agent.conf"
        words = ["-n", "--pidfile=", "ctrl-exec-agent", "--config", settings]
        for process in (agent.command("serve"), self.start("twistd", *words)):
            done = self.end(process)
            self.assertEqual(done.status, 78, done)
            (line,) = re.findall("^error: .*", done.err, re.M)
            self.assertIn(f"{Path(settings)}: auth_hook: ", line)
            self.assertIn(why, line)
