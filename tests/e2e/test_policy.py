# SPDX-License-Identifier: AGPL-3.0-only
"""
What an agent lets run, and how that changes while it runs.
"""

from __future__ import annotations

import json
from pathlib import Path

from ctrlexec.certificates import DispatcherRole, read_certificate
from tests.e2e.clients import Client
from tests.e2e.installation import BIN, AgentHome, EndToEndCase

WHERE = "#!/bin/sh\nprintf '%s' \"$0\"\n"
#: Runs until a file is there.
WAIT = (
    "#!/bin/sh\nwhile [ -d HOME ] && [ ! -e HOME/go ]; do sleep 0.05; done\necho done\n"
)
NOT_PERMITTED = "script not permitted"
SIDECAR = {
    "version": "7",
    "arguments": {
        "type": "object",
        "properties": {
            "service": {"type": "string", "pattern": "^[a-z]{1,20}$"},
            "wait": {"type": "integer", "minimum": 1},
        },
        "required": ["service"],
    },
    "argv": [{"arg": "service"}, {"arg": "wait", "flag": "--wait"}],
}


class PolicyCase(EndToEndCase):
    """
    A paired agent that a test sets up before it starts.
    """

    agent: AgentHome
    client: Client

    def setUp(self) -> None:
        super().setUp()
        (self.agent,) = self.paired("agent-one")

    def serve(self) -> None:
        """
        Start the agent, and connect to it.
        """
        self.serving = self.agent.serve()
        self.client = self.agent.client()

    def reload(self) -> str:
        """
        Have the agent read its settings again.

        @return: how that went.
        """
        return self.agent.reload(self.serving)

    def offered(self) -> dict[str, dict[str, object]]:
        """
        What the agent says that it has, by name.
        """
        status, answer = self.client.ask("/capabilities")
        self.assertEqual(status, 200)
        return {script["name"]: script for script in answer["scripts"]}

    def assertDenied(self, script: str, reason: str) -> None:
        """
        A script does not run, and the log has the reason.
        """
        self.assertEqual(self.client.run(script).get("error"), NOT_PERMITTED)
        self.assertIn(reason, self.agent.lines(f" SCRIPT={script}")[-1])
        self.assertNotIn(script, self.offered())


class SidecarTests(PolicyCase):
    """
    C{<script>.schema.json}
    """

    def setUp(self) -> None:
        super().setUp()
        self.sidecar = self.agent.home / "show.schema.json"
        self.sidecar.write_text(json.dumps(SIDECAR))
        self.agent.allow("plain", "#!/bin/sh\necho plain\n")
        hook = self.agent.home / "hook"
        hook.write_text(f"#!/bin/sh\necho x >>{self.agent.home}/asked\n")
        hook.chmod(0o755)
        self.asked = self.agent.home / "asked"
        self.agent.configure(auth_hook="hook")
        self.serve()

    def test_enforced(self) -> None:
        """
        Arguments that do not fit are refused before the hook, by the name of
        the one that is wrong; others arrive as they are. The schema is shown.
        """
        (row,) = self.json("run", "agent-one", "show", "--", "web", "--wait", "5")[
            "results"
        ]
        self.assertEqual(row["exit"], 3)
        self.assertTrue(row["stdout"].endswith("<web>\n<--wait>\n<5>\n"), row)
        self.assertEqual(self.asked.read_text(), "x\n")
        for args, name in (
            (["Not a word"], "service"),
            (["web", "--wait", "0"], "wait"),
            (["web", "--wait", "soon"], "wait"),
            ([], "service"),
        ):
            (row,) = self.json("run", "agent-one", "show", "--", *args)["results"]
            self.assertEqual(row["exit"], -1)
            self.assertIn(repr(name), row["error"])
            line = self.agent.lines("ACTION=deny ")[-1]
            self.assertIn(repr(name), line)
            self.assertNotIn("Not a word", line + row["error"])
        self.assertEqual(self.asked.read_text(), "x\n")
        shown = self.offered()["show"]
        self.assertEqual((shown["schema"], shown["schema_version"]), (SIDECAR, "7"))

    def test_broken(self) -> None:
        """
        A sidecar that can not be used disables its script and no other one,
        until it is mended, or nobody wants it enforced.
        """
        self.sidecar.write_text('{"arguments": ')
        self.assertIn("STATUS=ok", self.reload())
        self.assertIn("SCRIPT=show", self.agent.lines("ACTION=schema-skip ")[-1])
        self.assertDenied("show", "its schema can not be used")
        self.assertEqual(self.client.run("plain")["stdout"], "plain\n")
        self.agent.configure(enforce_schema="no")
        self.reload()
        self.assertEqual(self.client.run("show", "Not a word")["exit"], 3)
        self.assertNotIn("schema", self.offered()["show"])
        self.agent.configure()
        self.sidecar.write_text(json.dumps(SIDECAR))
        self.reload()
        self.assertEqual(self.client.run("show", "web")["exit"], 3)
        self.assertIn("'service'", self.client.run("show", "Not a word")["error"])


class PlacementTests(PolicyCase):
    """
    Where scripts are
    """

    def allow(self, name: str, path: str) -> None:
        """
        Add a path as it stands to the allowlist.
        """
        with (self.agent.home / "scripts.conf").open("a") as allowlist:
            allowlist.write(f"{name} = {path}\n")

    def made(self, path: Path, text: str = WHERE) -> Path:
        """
        An executable file, and the directories above it.
        """
        path.parent.mkdir(0o755, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def test_dirs(self) -> None:
        """
        With C{script_dirs} neither a link nor C{..} is a way out; a link is a
        way in, and the script finds its real path in C{$0}.
        """
        home = self.agent.home
        inside, outside = self.made(home / "in/script"), self.made(home / "out/script")
        (home / "in/leads-out").symlink_to(outside)
        (home / "out/leads-in").symlink_to(inside)
        (home / "linked").symlink_to(home / "in")
        self.agent.configure(script_dirs=home / "linked")
        self.allow("inside", f"{inside}")
        self.allow("in-by-parent", f"{home}/out/../in/script")
        self.allow("in-by-link", f"{home}/out/leads-in")
        self.allow("in-by-linked-directory", f"{home}/linked/script")
        self.allow("outside", f"{outside}")
        self.allow("out-by-parent", f"{home}/in/../out/script")
        self.allow("out-by-link", f"{home}/in/leads-out")
        self.serve()
        for name in ("inside", "in-by-parent", "in-by-link", "in-by-linked-directory"):
            self.assertEqual(self.client.run(name)["stdout"], str(inside))
            self.assertIn(name, self.offered())
        for name in ("outside", "out-by-parent", "out-by-link"):
            self.assertIn(f"{name} does not run", str(self.agent.lines("config-warn")))
            self.assertDenied(name, "is outside script_dirs")
        # Turned while the agent runs.
        (home / "out/leads-in").unlink()
        (home / "out/leads-in").symlink_to(outside)
        self.assertDenied("in-by-link", "is outside script_dirs")

    def test_worldWritable(self) -> None:
        """
        What anybody can change does not run, whether it was so when the agent
        started or is so now; the sticky bit makes a directory good.
        """
        home = self.agent.home
        open_file, later = self.made(home / "a/script"), self.made(home / "d/script")
        open_file.chmod(0o757)
        in_open, in_sticky = self.made(home / "b/script"), self.made(home / "c/script")
        in_open.parent.chmod(0o777)
        in_sticky.parent.chmod(0o1777)
        for name, path in (
            ("open", open_file),
            ("in-open", in_open),
            ("in-sticky", in_sticky),
            ("later", later),
        ):
            self.allow(name, f"{path}")
        self.serve()
        for name, reason in (
            ("open", f"{open_file} is world-writable"),
            ("in-open", f"the directory {in_open.parent} is world-writable"),
        ):
            self.assertIn(f"{name} does not run: {reason}", self.warned(name))
            self.assertDenied(name, reason)
        for name in ("in-sticky", "later"):
            self.assertEqual(self.client.run(name)["exit"], 0)
        later.chmod(0o757)
        self.assertDenied("later", f"{later} is world-writable")

    def warned(self, name: str) -> str:
        """
        What the log said of a script when the files were read.
        """
        return self.agent.lines(f" {name} does not run")[-1]


class OlderDispatcherTests(PolicyCase):
    """
    A dispatcher of the older line
    """

    def test_updateSerial(self) -> None:
        """
        It tells the agent its next serial through the script that ours ships,
        and the certificate is good from then on.
        """
        wrapper = self.agent.allow(
            "update-ctrl-exec-serial",
            "#!/bin/sh\n"
            f"export CTRL_EXEC_AGENT_CONFIG={self.agent.home}/agent.conf\n"
            f'exec {BIN}/update-ctrl-exec-serial "$@"\n',
        )
        self.serve()
        identity = self.credentials(DispatcherRole("next"))
        serial = read_certificate(identity[0].read_bytes()).serial
        coming = self.agent.client(*identity)
        self.assertEqual(coming.ask("/ping", reqid="a")[0], 403)
        words = ("run", "agent-one", wrapper.name, "--", serial)
        self.assertIn(f"trusted: {serial} ops", self.dispatched(*words))
        self.assertEqual(coming.ask("/ping", reqid="a")[0], 200)
        self.assertIn(f"SERIAL={serial}", self.agent.lines("ACTION=rotate ")[-1])
        trusted = self.agent.home / "state" / "ctrl-exec-dispatchers"
        self.assertIn(f"{serial} ops\n", trusted.read_text())
        # Not anything is a serial.
        for word in ("no-serial", ""):
            answer = self.client.run(wrapper.name, word)
            self.assertEqual(answer["exit"], 1)
            self.assertTrue(answer["stderr"].startswith("error: "), answer)


class ReloadTests(PolicyCase):
    """
    C{SIGHUP}
    """

    def setUp(self) -> None:
        super().setUp()
        text = WAIT.replace("HOME", str(self.agent.home))
        self.agent.allow("wait", text)

    def test_refused(self) -> None:
        """
        Whichever file can not be used, all of the old stays in force, and one
        line says so.
        """
        self.serve()
        home = self.agent.home
        good = (home / "agent.conf").read_text()
        trusted = home / "state" / "ctrl-exec-dispatchers"
        (home / "scripts.conf").write_text("")
        bad = {
            "agent.conf": good + "a line that is none\n",
            "revoked-serials": "no serial\n",
        }
        for name, text in bad.items():
            before = (home / name).read_text() if (home / name).exists() else ""
            (home / name).write_text(text)
            self.assertStays(name)
            (home / name).write_text(before)
        self.agent.configure(auth_hook="no-hook")
        self.assertStays("no-hook")
        self.agent.configure(allowed_ips="nobody, 999.1.1.1")
        self.assertStays("allowed_ips")
        (home / "agent.conf").write_text(good)
        trusted.rename(home / "trusted")
        trusted.mkdir()
        self.assertStays(trusted.name)
        trusted.rmdir()
        (home / "trusted").rename(trusted)
        (home / "scripts.conf").rename(home / "scripts")
        self.assertStays("scripts.conf")
        (home / "scripts").rename(home / "scripts.conf")
        self.assertIn("STATUS=ok", self.reload())
        self.assertEqual(self.client.run("show")["error"], NOT_PERMITTED)

    def assertStays(self, why: str) -> None:
        """
        The settings are refused, and what ran before runs still.
        """
        before = len(self.agent.lines("ACTION="))
        line = self.reload()
        self.assertIn("failed, the old settings stay", line)
        self.assertIn(why, line)
        self.assertEqual(self.agent.client().run("show")["exit"], 3)
        since = self.agent.lines("ACTION=")[before:]
        actions = [line.split("ACTION=")[1].split()[0] for line in since]
        self.assertEqual(actions, ["reload", "run-start", "run"])

    def test_underWay(self) -> None:
        """
        Runs and connections go on, and a changed port says that it takes a
        restart, while the rest is in force.
        """
        self.serve()
        self.client.begin("/run", script="wait")
        self.await_line(self.agent.log, "ACTION=run-start")
        other = self.agent.client()
        self.assertEqual(other.run("show")["exit"], 3)
        port, self.agent.port = self.agent.port, 1
        self.agent.configure(max_runs=1)
        self.agent.port = port
        self.assertIn("STATUS=ok", self.reload())
        warned = self.agent.lines("ACTION=config-warn ")
        self.assertIn("port has changed; that needs a restart", warned[-1])
        self.assertEqual(other.run("show")["error"][:5], "busy:")
        self.assertEqual(self.agent.client().ask("/ping", reqid="a")[0], 200)
        (self.agent.home / "go").touch()
        self.assertEqual(self.client.answer()[1]["stdout"], "done\n")

    def test_busy(self) -> None:
        """
        Where as many runs go on as may, one more is told so at once, and the
        log has it; what has ended makes room.
        """
        self.agent.configure(max_runs=2)
        self.serve()
        going_on = [self.client, self.agent.client()]
        for number, client in enumerate(going_on, 1):
            client.begin("/run", script="wait")
            self.await_line(self.agent.log, "ACTION=run-start", None, number)
        (row,) = self.json("run", "agent-one", "show")["results"]
        self.assertEqual(row["error"], "busy: 2 runs are going on already")
        self.assertIn(row["error"], self.agent.lines("ACTION=deny ")[-1])
        self.assertEqual(self.agent.client().ask("/ping", reqid="a")[0], 200)
        (self.agent.home / "go").touch()
        for client in going_on:
            self.assertEqual(client.answer()[1]["exit"], 0)
        (row,) = self.json("run", "agent-one", "show")["results"]
        self.assertEqual(row["exit"], 3)
