# SPDX-License-Identifier: AGPL-3.0-only
"""
The main job, from an empty directory to a script's output.
"""

from __future__ import annotations

import json
import re
import signal
import stat
import subprocess

from tests.e2e.installation import BIN, AgentHome, EndToEndCase, hang_up, running_with


class JourneyTests(EndToEndCase):
    def test_fromNothingToOutput(self) -> None:
        """
        Two agents are paired, and a script runs on both with its arguments,
        its context, its stderr and its exit status.
        """
        one, two = self.paired("agent-one", "agent-two")
        one.serve()
        two.serve()
        args = ("two words", 'it\'s "so"', "", "$HOME; *", "ünï\nline")
        answer = self.json("run", "agent-one", "agent-two", "show", "--", *args)
        self.assertIs(answer["ok"], True)
        self.assertEqual(
            sorted(result["host"] for result in answer["results"]),
            ["agent-one", "agent-two"],
        )
        for result in answer["results"]:
            context, _, rest = result["stdout"].partition("\n")
            self.assertEqual(rest, "".join(f"<{arg}>\n" for arg in args))
            self.assertEqual(json.loads(context)["args"], list(args))
            self.assertEqual(json.loads(context)["dispatcher"], "ops")
            self.assertEqual(result["stderr"], "complaint\n")
            self.assertEqual(result["exit"], 3)
            self.assertRegex(result["rtt"], r"^[0-9]+ms$")

    def test_sameRequestIdOnBothSides(self) -> None:
        """
        Dispatcher and agent log one run under one request id.
        """
        (agent,) = self.paired("agent-one")
        agent.serve()
        (result,) = self.json("run", "agent-one", "show")["results"]
        for log in (self.log, agent.log):
            self.await_line(log, f"REQID={result['reqid']}")
        line = self.await_line(agent.log, "ACTION=run ")
        self.assertIn(f"EXIT=3 PEER=127.0.0.1 REQID={result['reqid']}", line)

    def test_textForPeople(self) -> None:
        """
        Without C{--json} a run and a ping print what PROTOCOL.md has them
        print, and the exit status tells.
        """
        (agent,) = self.paired("agent-one")
        agent.serve()
        ran = self.dispatcher("run", "agent-one", "show", "--", "x")
        self.assertEqual(ran.status, 1)
        self.assertRegex(
            ran.out.splitlines()[0],
            r"^==> agent-one  \[FAIL  exit:3  [0-9]+ms  req:[0-9a-f]{16}\]$",
        )
        self.assertIn("    STDERR: complaint", ran.out)
        pinged = self.dispatched("ping", "agent-one").splitlines()
        self.assertEqual(pinged[0].split()[:3], ["HOST", "STATUS", "RTT"])
        self.assertRegex(pinged[1], r"^-+$")
        self.assertEqual(pinged[2].split()[:2], ["agent-one", "ok"])

    def test_refusalsAreRows(self) -> None:
        """
        A script that is not listed, an agent that is not known and one that
        does not run each give a row with an error, never silence.
        """
        one, _ = self.paired("agent-one", "agent-down")
        one.serve()
        answer = self.json("run", "agent-one", "agent-down", "nobody", "reboot")
        errors = {row["host"]: row["error"] for row in answer["results"]}
        self.assertEqual(errors["agent-one"], "script not permitted")
        self.assertEqual(errors["nobody"], "unknown agent")
        self.assertIn("connection refused", errors["agent-down"])
        self.assertEqual({row["exit"] for row in answer["results"]}, {-1})
        self.await_line(one.log, "ACTION=deny")

    def test_keysAreSecret(self) -> None:
        """
        No private key can be read by everybody, on either side.
        """
        (agent,) = self.paired("agent-one")
        for key, mode in (
            (self.home / "ca.key", 0o600),
            (self.home / "ctrl-exec.key", 0o600),
            (agent.home / "agent.key", 0o640),
        ):
            self.assertEqual(stat.S_IMODE(key.stat().st_mode), mode, key)

    def test_authorityIsNeverOverwritten(self) -> None:
        """
        A second C{setup-ca} changes nothing and says so.
        """
        self.set_up_dispatcher()
        before = (self.home / "ca.key").read_bytes()
        done = self.dispatcher("setup-ca")
        self.assertNotEqual(done.status, 0)
        self.assertTrue(done.err.startswith("error: "), done)
        self.assertEqual((self.home / "ca.key").read_bytes(), before)

    def test_bothScreensShowTheSameCode(self) -> None:
        """
        The agent waits in the foreground, with the code that the dispatcher
        lists; denied, it stores nothing and ends with 3.
        """
        self.set_up_dispatcher()
        self.start_pairing()
        agent = AgentHome.made(self, "agent-one")
        before = agent.files()
        asking = agent.request_pairing()
        assert asking.stdout is not None
        shown = ""
        while "code" not in shown:
            shown += asking.stdout.readline()
        (waiting,) = self.json("list-requests")
        self.assertIn(waiting["code"], shown)
        self.assertIn(waiting["code"], self.dispatched("list-requests"))
        self.dispatched("deny", waiting["id"])
        done = self.end(asking)
        self.assertEqual(done.status, 3, done)
        self.assertIn("rejected by operator", done.err)
        self.assertEqual(
            set(agent.files()) - set(before),
            {"log", ".pairing.lock"} & set(agent.files()),
        )

    def test_pairingInTheBackground(self) -> None:
        """
        The parent prints the request's id alone and ends with 0.
        """
        self.set_up_dispatcher()
        self.start_pairing()
        agent = AgentHome.made(self, "agent-one")
        done = self.end(agent.request_pairing("--background", "--timeout", 1))
        self.assertEqual(done.status, 0)
        self.assertRegex(done.out, r"^[0-9a-f]{16}\n$")
        self.await_line(agent.log, "ACTION=pair-timeout")
        self.assertEqual(self.end(agent.command("pairing-status")).status, 1)

    def test_pairingMode(self) -> None:
        """
        In pairing mode a key approves what is shown, and C{quit} ends it.
        """
        self.set_up_dispatcher()
        words = ["--config", self.settings, "pairing-mode"]
        mode = self.start("ctrl-exec", *words, stdin=subprocess.PIPE)
        self.await_line(self.log, "ACTION=pairing-mode-start", mode)
        agent = AgentHome.made(self, "agent-one")
        asking = agent.request_pairing()
        assert mode.stdin is not None
        assert mode.stdout is not None
        shown = ""
        while "code " not in shown:
            shown += mode.stdout.readline()
        self.assertIn("agent-one asks to be paired", shown)
        mode.stdin.write("a\n")
        mode.stdin.flush()
        self.assertEqual(self.end(asking).status, 0)
        mode.stdin.write("quit\n")
        mode.stdin.flush()
        self.assertEqual(self.end(mode).status, 0)
        self.assertFalse((self.home / "state" / "pairing-mode.pid").exists())

    def test_interrupted(self) -> None:
        """
        C{Ctrl-C} ends the waiting with 130 and one line; the script goes on.
        """
        (agent,) = self.paired("agent-one")
        agent.allow("slow", "#!/bin/sh\nsleep 1\n")
        agent.serve()
        words = ["--config", self.settings, "run", "agent-one", "slow"]
        asking = self.start("ctrl-exec", *words)
        self.await_line(agent.log, "ACTION=run-start")
        asking.send_signal(signal.SIGINT)
        done = self.end(asking)
        self.assertEqual(done.status, 130, done)
        self.assertNotIn("Traceback", done.err)
        self.assertIn("EXIT=0", self.await_line(agent.log, "ACTION=run "))

    def test_pairingStatus(self) -> None:
        """
        0 for a paired agent, 1 for one that is not.
        """
        (agent,) = self.paired("agent-one")
        self.assertEqual(self.end(agent.command("pairing-status")).status, 0)

    def test_unpairedAgentDoesNotServe(self) -> None:
        """
        It ends with 78 and says what to do.
        """
        agent = AgentHome.made(self, "agent-one")
        done = self.end(agent.command("serve"))
        self.assertEqual(done.status, 78)
        self.assertIn("request-pairing", done.err)

    def test_reload(self) -> None:
        """
        A new script may run after C{SIGHUP}; a file with a mistake changes
        nothing, and the log says so.
        """
        (agent,) = self.paired("agent-one")
        serving = agent.serve()
        agent.allow("fresh", "#!/bin/sh\necho fresh\n")
        hang_up(serving)
        self.await_line(agent.log, "ACTION=reload")
        (row,) = self.json("run", "agent-one", "fresh")["results"]
        self.assertEqual(row["stdout"], "fresh\n")
        agent.configure(port="many")
        hang_up(serving)
        self.await_line(agent.log, "ACTION=reload", count=2)
        (row,) = self.json("run", "agent-one", "fresh")["results"]
        self.assertEqual(row["stdout"], "fresh\n")

    def test_listAgents(self) -> None:
        """
        The registry as a table and as JSON.
        """
        self.paired("agent-one", "agent-two")
        lines = self.dispatched("list-agents").splitlines()
        self.assertEqual(
            [line.split()[0] for line in lines[2:]], ["agent-one", "agent-two"]
        )
        records = self.json("list-agents")
        self.assertEqual(
            [record["hostname"] for record in records], ["agent-one", "agent-two"]
        )


class PluginTests(EndToEndCase):
    def test_twistdKnowsAllThree(self) -> None:
        """
        The wheel alone teaches C{twistd} the three services.
        """
        for plugin in ("ctrl-exec-agent", "ctrl-exec-pairing", "ctrl-exec-api"):
            done = self.end(self.start("twistd", plugin, "--help"))
            self.assertEqual(done.status, 0, done)
            self.assertIn("Options", done.out)

    def test_aliases(self) -> None:
        """
        Each program answers under each of its names.
        """
        for name in ("ctrl-exec", "ced", "ctrl-exec-dispatcher"):
            done = self.end(self.start(name, "--version"))
            self.assertRegex(done.out, r"[0-9]+\.[0-9]+")
        for name in ("ctrl-exec-agent", "cea"):
            done = self.end(self.start(name, "--version"))
            self.assertRegex(done.out, r"[0-9]+\.[0-9]+")


class DemoTests(EndToEndCase):
    def test_demo(self) -> None:
        """
        The demo shows the main job in 15 seconds and leaves nothing behind.
        """
        done = subprocess.run(
            [str(BIN / "ctrl-exec"), "demo"],
            env={"PATH": "/usr/bin:/bin", "TMPDIR": str(self.root)},
            capture_output=True,
            text=True,
            timeout=15,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done)
        reqids = re.findall(r"REQID=([0-9a-f]{16})", done.stdout)
        self.assertEqual(len(set(reqids)), 1)
        self.assertGreaterEqual(len(reqids), 6)
        self.assertIn("script not permitted", done.stdout)
        self.assertIn("exit:3", done.stdout)
        self.assertEqual([path.name for path in self.root.iterdir()], ["dispatcher"])
        self.assertEqual(running_with(str(self.root)), [])
