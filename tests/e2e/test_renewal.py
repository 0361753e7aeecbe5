# SPDX-License-Identifier: AGPL-3.0-only
"""
Certificates that end, and are renewed before that, or after.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

from ctrlexec.certificates import AgentRole, read_certificate
from ctrlexec.pki import issue, make_csr, read_csr
from ctrlexec.values import openssl_time
from tests.e2e.installation import AgentHome, EndToEndCase


class RenewalTests(EndToEndCase):
    """
    A dispatcher and one agent
    """

    def setUp(self) -> None:
        super().setUp()
        self.configure(cert_days=10)
        (self.agent,) = self.paired("agent-one")
        self.key = self.agent.home / "agent.key"
        self.cert = self.agent.home / "agent.crt"

    def shown(self) -> str:
        """
        The serial that the agent shows to whoever connects.
        """
        certificate = self.agent.connect().getpeercert()
        assert certificate is not None
        return str(certificate["serialNumber"]).lower().lstrip("0")

    def known(self) -> str:
        """
        When its certificate ends, as far as the registry knows.
        """
        (record,) = self.json("list-agents")
        return str(record["expiry"])

    def test_ping(self) -> None:
        """
        A ping renews an agent that is due, once, for a new key; it is shown
        without a restart, and by the next start.
        """
        self.agent.serve()
        before = self.key.read_bytes(), self.shown()
        self.dispatched("ping", "agent-one")
        self.assertEqual(self.shown(), before[1])
        self.configure(cert_days=100)
        (row,) = self.json("ping", "agent-one")["results"]
        info = read_certificate(self.cert.read_bytes())
        self.assertEqual(row["expiry"], openssl_time(info.not_after))
        self.assertEqual(self.known(), row["expiry"])
        self.assertEqual(self.shown(), info.serial)
        self.assertNotEqual(info.serial, before[1])
        self.assertNotEqual(self.key.read_bytes(), before[0])
        self.assertIn(
            "STATUS=cert-installed", self.agent.lines("ACTION=renew-complete ")[-1]
        )
        self.dispatched("ping", "agent-one")
        self.dispatched("maintain")
        self.assertEqual(len(self.agent.lines("ACTION=renew-complete ")), 1)

    def test_maintain(self) -> None:
        """
        So does C{maintain}, which names who is off and fails for none of that.
        """
        self.configure(cert_days=100)
        done = self.json("maintain")
        self.assertEqual((done["ok"], done["silent"]), (True, ["agent-one"]))
        self.agent.serve()
        done = self.json("maintain")
        self.assertEqual((done["pinged"], done["renewed"]), (1, ["agent-one"]))
        self.assertEqual(self.json("maintain")["renewed"], [])

    def test_restart(self) -> None:
        """
        The agent asks for it itself, and starts with what it got.
        """
        process = self.agent.serve()
        self.dispatched("renew", "agent-one")
        serial = self.shown()
        process.terminate()
        self.end(process)
        self.agent.serve()
        self.assertEqual(self.shown(), serial)

    def test_expired(self) -> None:
        """
        One that ended while the host was off is renewed by an operator, and
        an earlier one of the agent's is not good enough for that.
        """
        self.expire(self.agent, days_ago=3)
        earlier = self.cert.read_bytes()
        end = self.expire(self.agent, days_ago=2)
        self.note(end)
        process = self.agent.serve()
        (row,) = self.json("ping", "agent-one")["results"]
        self.assertEqual(row["status"], "error")
        self.assertEqual(self.dispatcher("renew", "agent-one").status, 1)
        self.dispatched("renew", "agent-one", "--expired")
        (row,) = self.json("ping", "agent-one")["results"]
        self.assertEqual(row["status"], "ok")
        process.terminate()
        self.end(process)
        self.cert.write_bytes(earlier)
        self.key.write_bytes(self.first_key)
        self.agent.serve()
        done = self.dispatcher("renew", "agent-one", "--expired")
        self.assertEqual(done.status, 1)
        self.assertIn("has had a later one", done.err)

    def expire(self, agent: AgentHome, days_ago: int) -> str:
        """
        Give the agent a certificate of its CA that has ended.

        @return: when, in openssl's form.
        """
        now = datetime.now(timezone.utc)
        self.first_key = self.key.read_bytes()
        cert = issue(
            read_csr(make_csr(self.first_key, agent.name)),
            ca_cert=(self.home / "ca.crt").read_bytes(),
            ca_key=(self.home / "ca.key").read_bytes(),
            role=AgentRole(agent.name),
            common_name=agent.name,
            days=1,
            now=now - timedelta(days=days_ago + 1),
        )
        self.cert.write_bytes(cert)
        return openssl_time(read_certificate(cert).not_after)

    def note(self, end: str) -> None:
        """
        Have the registry know of it.
        """
        file: Path = self.home / "state" / "agents" / "agent-one.json"
        record = json.loads(file.read_text())
        file.write_text(json.dumps({**record, "expiry": end}))


class RotationTests(EndToEndCase):
    """
    The dispatcher's own certificate
    """

    def test_rotated(self) -> None:
        """
        Agents are told, one that was off is told later, and orders go through
        with the new certificate at every moment; then the former serial is in
        no map any more, and its key is gone.
        """
        here, off = self.paired("agent-one", "agent-two")
        here.serve()
        before = read_certificate((self.home / "ctrl-exec.crt").read_bytes()).serial
        done = self.json("rotate-cert")
        self.assertEqual(done["pending"], ["agent-two"])
        self.assertNotEqual(done["serial"], before)
        self.assertEqual(self.trusted(here), {before, done["serial"]})
        (row,) = self.json("ping", "agent-one")["results"]
        self.assertEqual(row["status"], "ok")
        off.serve()
        # It trusts the dispatcher's role, and has not been told of its serial.
        self.assertEqual(self.trusted(off), {before})
        (row,) = self.json("ping", "agent-two")["results"]
        self.assertEqual(row["status"], "ok")
        done = self.json("maintain")
        self.assertEqual((done["ok"], done["rotation"]), (True, "none"))
        status = self.json("serial-status")
        for agent in (here, off):
            self.assertEqual(self.trusted(agent), {status["current_serial"]})
        left = sorted(each.name for each in self.home.glob("ctrl-exec.*"))
        self.assertEqual(left, ["ctrl-exec.conf", "ctrl-exec.crt", "ctrl-exec.key"])

    def trusted(self, agent: AgentHome) -> set[str]:
        """
        The serials in an agent's map.
        """
        lines = (agent.home / "state" / "ctrl-exec-dispatchers").read_text()
        return {
            line.split()[0] for line in lines.splitlines() if not line.startswith("#")
        }
