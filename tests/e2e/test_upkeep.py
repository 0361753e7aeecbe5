# SPDX-License-Identifier: AGPL-3.0-only
"""
What people and init scripts ask an agent's own command.
"""

from __future__ import annotations

from datetime import datetime, timezone

from ctrlexec.certificates import AgentRole, DispatcherRole, Role, read_certificate
from ctrlexec.pki import issue, make_csr, read_csr
from tests.e2e.installation import AgentHome, Done, EndToEndCase


class UpkeepCase(EndToEndCase):
    """
    The modes of one agent
    """

    agent: AgentHome

    def mode(self, mode: str) -> Done:
        """
        What becomes of a mode.
        """
        return self.end(self.agent.command(mode))

    def checks(self, status: int) -> dict[str, str]:
        """
        What C{self-check} finds, which ends with this status: by the name of
        the check its verdict, the worst of those that it has.
        """
        done = self.mode("self-check")
        self.assertEqual((done.status, done.err), (status, ""), done)
        found: dict[str, str] = {}
        for line in done.out.splitlines():
            verdict, name = line[:4].strip(), line[6:22].strip()
            found[name] = max(verdict, found.get(name, ""), key=VERDICTS.index)
        return found


VERDICTS = ["", "ok", "warn", "FAIL"]


class NewAgentTests(UpkeepCase):
    def test_notPaired(self) -> None:
        """
        Before it is paired each mode says so, by its status or in words.
        """
        self.agent = AgentHome.made(self, "agent-one")
        self.assertEqual(self.mode("paired"), Done(1, "", ""))
        self.assertEqual(self.mode("cert-staged"), Done(1, "", ""))
        self.assertEqual(self.mode("promote-cert"), Done(0, "", ""))
        self.assertEqual(self.checks(1)["identity"], "FAIL")
        done = self.mode("self-ping")
        self.assertEqual(done.status, 1)
        self.assertTrue(done.err.startswith("error: "), done)


class PairedAgentTests(UpkeepCase):
    def setUp(self) -> None:
        super().setUp()
        (self.agent,) = self.paired("agent-one")

    def test_good(self) -> None:
        """
        Once it is paired, and runs, all is good; what is not is named.
        """
        self.assertEqual(self.mode("paired"), Done(0, "", ""))
        done = self.mode("self-ping")
        self.assertEqual((done.status, done.out), (1, ""))
        self.assertTrue(done.err.startswith("error: "), done)
        self.assertIn("hint: does the agent run", done.err)
        self.agent.serve()
        done = self.mode("self-ping")
        self.assertEqual((done.status, done.err), (0, ""))
        checks = self.checks(0)
        self.assertEqual(set(checks.values()), {"ok"})
        self.assertLess(
            {"settings", "identity", "certificate", "dispatchers", "script show"},
            set(checks),
        )
        script = self.agent.home / "show"
        script.chmod(0o775)
        self.assertEqual(self.checks(0)["script show"], "warn")
        script.chmod(0o777)
        self.assertEqual(self.checks(1)["script show"], "FAIL")

    def test_promote(self) -> None:
        """
        A renewed certificate that waits is taken, and the next start shows it;
        one that is not the agent's is not.
        """
        self.assertEqual(self.mode("cert-staged"), Done(1, "", ""))
        before = (self.agent.home / "agent.crt").read_bytes()
        for role in (AgentRole("agent-two"), DispatcherRole("agent-one")):
            self.stage(role)
            self.assertEqual(self.mode("cert-staged"), Done(0, "", ""))
            self.assertEqual(self.mode("promote-cert").status, 0)
            self.assertEqual(self.mode("cert-staged"), Done(1, "", ""))
            self.assertIn("ERROR=", self.agent.lines("ACTION=cert-promote ")[-1])
            self.assertEqual((self.agent.home / "agent.crt").read_bytes(), before)
        renewed = self.stage(AgentRole("agent-one"))
        self.assertEqual(self.checks(0)["staged"], "warn")
        done = self.mode("promote-cert")
        self.assertEqual((done.status, done.err), (0, ""))
        self.assertIn("STATUS=installed", self.agent.lines("ACTION=cert-promote ")[-1])
        self.assertEqual(self.mode("cert-staged"), Done(1, "", ""))
        self.agent.serve()
        shown = self.agent.connect().getpeercert()
        assert shown is not None
        serial = read_certificate(renewed).serial
        self.assertEqual(int(str(shown["serialNumber"]), 16), int(serial, 16))
        (row,) = self.json("ping", "agent-one")["results"]
        self.assertEqual(row["status"], "ok")

    def stage(self, role: Role) -> bytes:
        """
        Have a certificate of the dispatcher's CA for the agent's key wait.
        """
        key = (self.agent.home / "agent.key").read_bytes()
        renewed = issue(
            read_csr(make_csr(key, "agent-one")),
            ca_cert=(self.home / "ca.crt").read_bytes(),
            ca_key=(self.home / "ca.key").read_bytes(),
            role=role,
            common_name="agent-one",
            days=100,
            now=datetime.now(timezone.utc),
        )
        (self.agent.home / "state" / "agent.crt.staged").write_bytes(renewed)
        return renewed
