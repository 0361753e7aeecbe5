# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.self_check}.
"""

from __future__ import annotations

import json
import os
import pwd
from datetime import datetime
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.policy import Overrides
from ctrlexec.agent.self_check import Verdict, self_check, whose_rights
from tests.agents import agent_directory, tree
from tests.authority import DAY
from tests.wired import AGENT, DISPATCHER, TODAY


class SelfCheckTests(SynchronousTestCase):
    """
    An agent with all that it needs.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.file = agent_directory(self.directory)
        names = {"agent.key": AGENT.key, "agent.crt": AGENT.cert, "ca.crt": AGENT.ca}
        for name, content in names.items():
            (self.directory / name).write_bytes(content)
        (self.directory / "agent.key").chmod(0o600)
        self.state = self.directory / "state"
        self.state.mkdir()
        (self.state / "ctrl-exec-dispatchers").write_text("d1 hq\nd2 hq\ne1 lab\n")
        self.script = self.directory / "bin" / "hello"
        self.script.parent.chmod(0o755)

    def now(self) -> datetime:
        """
        The time, as the test has it.
        """
        return TODAY

    def remarks(self, verdict: Verdict) -> list[tuple[str, str]]:
        """
        What has this verdict: name and words.
        """
        return [
            (check.name, check.found)
            for check in self_check(self.file, Overrides(), self.now)
            if check.verdict is verdict
        ]

    def assertFails(self, name: str, words: str) -> None:
        """
        This fails and nothing else does.
        """
        [(failed, found)] = self.remarks(Verdict.FAIL)
        self.assertEqual(failed, name)
        self.assertIn(words, found)

    def configure(self, line: str) -> None:
        """
        Add a line to the settings.
        """
        with self.file.open("a") as conf:
            conf.write(f"{line}\n")

    def allow(self, line: str) -> None:
        """
        Add a line to the allowlist.
        """
        with (self.directory / "scripts.conf").open("a") as allowlist:
            allowlist.write(f"{line}\n")

    def test_good(self) -> None:
        """
        Each check has its name, none fails, and nothing is changed by it.
        """
        before = tree(self.directory)
        self.assertEqual(self.remarks(Verdict.FAIL), [])
        good = dict(self.remarks(Verdict.OK))
        self.assertLessEqual(
            {"settings", "identity", "dispatchers", "revoked", "state", "allowlist"},
            good.keys(),
        )
        self.assertEqual(good["dispatchers"], "trusts hq, lab")
        self.assertEqual(good["script hello"], str(self.script))
        self.assertEqual(tree(self.directory), before)

    def test_rights(self) -> None:
        """
        It says whose rights it looks with, and warns where they are not those
        of the agent's user, to whom the state belongs.
        """
        us = os.geteuid()
        name = pwd.getpwuid(us).pw_name
        self.assertEqual(
            dict(self.remarks(Verdict.OK))["rights"], f"looked at with those of {name}"
        )
        for directory in (self.state, self.state / "none"):
            self.assertIs(whose_rights(directory, us).verdict, Verdict.OK)
        check = whose_rights(self.state, 2**31)
        self.assertIs(check.verdict, Verdict.WARN)
        self.assertIn("with those of user 2147483648, but ", check.found)
        self.assertTrue(check.found.endswith(f"run self-check as {name}"), check.found)

    def test_settings(self) -> None:
        """
        Without settings there is nothing else to look at.
        """
        self.file.write_text("port = many\n")
        self.assertFails("settings", "agent.conf:1: port")
        self.assertEqual(self.remarks(Verdict.OK), [])

    def test_identity(self) -> None:
        """
        An identity that is missing, unfit, or out of date fails.
        """
        key = self.directory / "agent.key"
        key.chmod(0o644)
        self.assertFails("identity", "every user")
        key.unlink()
        self.assertFails("identity", "not paired")

    def test_expired(self) -> None:
        """
        A certificate that has ended fails; one that ends soon is a warning.
        """
        self.assertEqual(self.remarks(Verdict.WARN)[0][0], "certificate")
        later = TODAY + 30 * DAY
        checks = list(self_check(self.file, Overrides(), lambda: later))
        [failed] = [each for each in checks if each.verdict is Verdict.FAIL]
        self.assertEqual(failed.name, "certificate")
        self.assertIn("expired", failed.found)

    def test_whose(self) -> None:
        """
        A certificate of another name is a warning: the agent works, and can
        not be renewed.
        """
        (self.directory / "agent.crt").write_bytes(DISPATCHER.cert)
        self.assertIn("name", dict(self.remarks(Verdict.WARN)))

    def test_trust(self) -> None:
        """
        To trust nobody fails; so does a list of the revoked that can not be
        read.
        """
        (self.state / "ctrl-exec-dispatchers").write_text("")
        self.assertFails("dispatchers", "none is trusted")
        (self.state / "ctrl-exec-dispatchers").write_text("d1 hq\n")
        (self.directory / "revoked-serials").write_text("my laptop\n")
        self.assertFails("revoked", "revoked-serials:1")
        (self.directory / "revoked-serials").write_text("0xD1\n")
        warned = ("revoked", "d1 of hq is trusted and revoked")
        self.assertIn(warned, self.remarks(Verdict.WARN))
        (self.state / "revocations.json").write_text("{")
        self.assertFails("revoked", "revocations.json: is cut off")

    def test_scripts(self) -> None:
        """
        A script that could not be started fails, by name.
        """
        self.script.chmod(0o644)
        self.assertFails("script hello", "Not executable")
        self.script.unlink()
        self.assertFails("script hello", "No such file")
        (self.directory / "scripts.conf").unlink()
        self.assertFails("allowlist", "no such file")

    def test_interpreter(self) -> None:
        """
        So does one whose interpreter is not there.
        """
        self.script.write_text("#!/opt/nowhere/python -u\n")
        self.assertFails("script hello", "its interpreter '/opt/nowhere/python': No")

    def test_oddLimits(self) -> None:
        """
        A limit that is of no use is a warning.
        """
        self.allow(f"other = {self.script} as=1k")
        warned = ("script other", "as=1024 is too little for any program")
        self.assertIn(warned, self.remarks(Verdict.WARN))

    def test_badLine(self) -> None:
        """
        A bad line of the allowlist fails: what it was to permit does not run.
        """
        self.allow("bye = /bin/true timout=30s")
        self.assertFails(
            "allowlist", "scripts.conf:2: skipped: invalid annotation 'timout=30s'"
        )

    def test_limits(self) -> None:
        """
        What a line says beside the path is shown with it.
        """
        said = "timeout=30 max_output=65536 nproc=9 lock=none profile=web"
        self.allow(f"other = {self.script} {said}")
        good = dict(self.remarks(Verdict.OK))
        self.assertEqual(good["script other"], f"{self.script} {said}")

    def test_runs(self) -> None:
        """
        Where runs are written down must be writable: the directory, or, where
        there is none yet, the one that it will be made in.
        """
        self.configure(f"async_runs_dir = {self.directory}/elsewhere/runs")
        self.assertFails("state", f"{self.directory}/elsewhere is not there")
        (self.directory / "elsewhere").mkdir()
        self.assertEqual(self.remarks(Verdict.FAIL), [])
        (self.directory / "elsewhere" / "runs").touch()
        self.assertFails("state", f"{self.directory}/elsewhere/runs is not there")

    def test_schema(self) -> None:
        """
        A schema that can not be used fails its script; where schemas are not
        enforced it is a warning.
        """
        (self.script.parent / "hello.schema.json").write_text("rubbish")
        self.assertFails("script hello", "its schema can not be used")
        self.configure("enforce_schema = no")
        self.assertEqual(self.remarks(Verdict.FAIL), [])
        self.assertIn("script hello", dict(self.remarks(Verdict.WARN)))

    def test_schemaOdd(self) -> None:
        """
        What is odd about a schema that is enforced is a warning.
        """
        sidecar = self.script.parent / "hello.schema.json"
        value = {"type": "string", "format": "nothing"}
        document = {"version": 1, "arguments": {"properties": {"x": value}}}
        sidecar.write_text(json.dumps(document))
        self.assertEqual(self.remarks(Verdict.FAIL), [])
        warned = [found for name, found in self.remarks(Verdict.WARN)]
        self.assertIn("its schema: format 'nothing' is not known", warned)
        self.assertTrue(any("version" in found for found in warned), warned)

    def test_groupWritable(self) -> None:
        """
        A script that its group can change is a warning, as is one in such a
        directory; one that everybody can change fails.
        """
        for path in (self.script, self.script.parent):
            path.chmod(0o775)
            warned = ("script hello", f"{path} is group-writable")
            self.assertIn(warned, self.remarks(Verdict.WARN))
            path.chmod(0o755)
        self.script.chmod(0o777)
        self.assertFails("script hello", "world-writable")

    def test_places(self) -> None:
        """
        The directories that the settings name must be there.
        """
        self.configure(f"script_dirs = {self.directory}/bin:{self.directory}/none")
        self.assertFails("script_dirs", "none is no directory")
        self.configure(f"cert_staging_path = {self.directory}/gone/staged")
        names = [name for name, _ in self.remarks(Verdict.FAIL)]
        self.assertEqual(names, ["state", "script_dirs"])

    def test_hook(self) -> None:
        """
        An auth hook that can not be asked fails, since nobody would be let
        through.
        """
        hook = self.directory / "hook"
        self.configure(f"auth_hook = {hook}")
        self.assertFails("auth_hook", "No such file")
        hook.write_text("#!/bin/sh\n")
        self.assertFails("auth_hook", "Not executable")
        hook.chmod(0o755)
        self.assertEqual(dict(self.remarks(Verdict.OK))["auth_hook"], str(hook))
        hook.chmod(0o757)
        self.assertFails("auth_hook", "world-writable")

    def test_warned(self) -> None:
        """
        What is odd in a file is a warning, and so is a certificate that waits.
        """
        self.configure("sandbox = 1")
        (self.state / "agent.crt.staged").touch()
        names = [name for name, _ in self.remarks(Verdict.WARN)]
        self.assertEqual(names, ["settings", "certificate", "staged"])
        self.assertEqual(self.remarks(Verdict.FAIL), [])
