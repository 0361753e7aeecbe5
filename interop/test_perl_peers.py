# SPDX-License-Identifier: AGPL-3.0-only
"""
Both directions against peers on the libraries that the original stands on.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from ctrlexec.certificates import read_certificate
from ctrlexec.pki import confirmation_code
from tests.e2e.installation import PATIENCE_SECONDS, AgentHome, EndToEndCase

PEERS = Path(__file__).parent / "peers"
DATA = Path(__file__).parent.parent / "tests" / "data"


class PerlCase(EndToEndCase):
    def perl(self, script: str, *words: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["perl", str(PEERS / script), *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(self._reap, process)
        return process

    def line(self, process: subprocess.Popen[str]) -> str:
        """
        The next line that a peer prints.
        """
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            self.fail(f"it has ended: {process.communicate(timeout=PATIENCE_SECONDS)}")
        return line.rstrip("\n")

    def take_over(self) -> None:
        """
        Give the dispatcher the CA and the identity of an original one.
        """
        for name in ("key", "crt"):
            for ours, theirs in (("ca", "ca"), ("ctrl-exec", "dispatcher")):
                copy = self.home / f"{ours}.{name}"
                shutil.copy(DATA / f"original-{theirs}.{name}", copy)
                copy.chmod(0o600)


class PerlDispatcherTests(PerlCase):
    def test_asks(self) -> None:
        """
        LWP gets whole answers from our agent, C{TE} and C{Connection} fields
        and all.
        """
        (agent,) = self.paired("agent-one")
        agent.serve()
        self.assertEqual(self.ask(agent, "POST", "/ping", {"reqid": "a"})["reqid"], "a")
        ran = self.ask(agent, "POST", "/run", {"script": "show", "args": ["ü", "b c"]})
        self.assertEqual(ran["exit"], 3)
        self.assertIn("<ü>\n<b c>\n", ran["stdout"])
        offered = self.ask(agent, "GET", "/capabilities", None)
        self.assertEqual([entry["name"] for entry in offered["scripts"]], ["show"])

    def test_async(self) -> None:
        """
        It orders a run that it does not wait for, and asks what became of it,
        as the original's newer line does.
        """
        (agent,) = self.paired("agent-one")
        agent.serve()
        order = {"script": "show", "args": ["b c"], "reqid": "ab-1", "async": True}
        answer = self.ask(agent, "POST", "/run", order, 202)
        accepted = {"script": "show", "status": "accepted", "reqid": "ab-1"}
        self.assertEqual(answer, accepted)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (record := self.ask(agent, "GET", "/result/ab-1", None))[
            "status"
        ] == "running":
            self.assertLess(time.monotonic(), deadline)
        self.assertEqual((record["status"], record["exit"]), ("done", 3))
        self.assertEqual((record["script"], record["owner"]), ("show", "ops"))
        self.assertTrue(record["stdout"].endswith("<b c>\n"))
        self.assertEqual(record["stderr"], "complaint\n")
        for name in ("started", "finished"):
            self.assertRegex(record[name], r"\A[0-9-]{10}T[0-9:]{8}Z\Z")
        unknown = self.ask(agent, "GET", "/result/ab-2", None, 404)
        self.assertEqual(unknown, {"status": "unknown", "reqid": "ab-2"})

    def ask(
        self,
        agent: AgentHome,
        method: str,
        path: str,
        body: object,
        status: int = 200,
    ) -> Any:
        identity = [self.home / name for name in ("ctrl-exec.crt", "ctrl-exec.key")]
        url = f"https://127.0.0.1:{agent.port}{path}"
        text = [] if body is None else [json.dumps(body)]
        words = [*identity, self.home / "ca.crt", method, url, *text]
        done = self.end(self.perl("ask-agent.pl", *words))
        first, _, answer = done.out.partition("\n")
        self.assertEqual(first, f"HTTP/1.1 {status}", done)
        return json.loads(answer)


class PerlAgentTests(PerlCase):
    def registered(self) -> str:
        """
        An agent of the original, which runs.

        @return: its name.
        """
        self.take_over()
        cert, key = (DATA / f"original-agent.{name}" for name in ("crt", "key"))
        peer = self.perl("be-agent.pl", cert, key, DATA / "original-ca.crt")
        name = read_certificate(cert.read_bytes()).common_name
        port = int(self.line(peer))
        record = {"hostname": name, "ip": "127.0.0.1", "lookup_by": "ip", "port": port}
        registry = self.home / "state" / "agents"
        registry.mkdir(parents=True)
        (registry / f"{name}.json").write_text(json.dumps(record))
        return name

    def test_answers(self) -> None:
        """
        Our dispatcher understands HTTP/1.0, odd cases of names, fields that it
        does not know, and an agent whose name is in the subject only.
        """
        host = self.registered()
        (row,) = self.json("ping", host)["results"]
        self.assertEqual((row["status"], row["version"]), ("ok", "0.8.4"))
        (row,) = self.json("run", host, "show", "--", "a b", "c")["results"]
        self.assertEqual((row["exit"], row["stdout"]), (4, "a b|c\n"))

    def test_async(self) -> None:
        """
        Runs that nobody waits for, on an agent that knows nothing of ours:
        accepted, busy, asked for until they have ended.
        """
        host = self.registered()
        answer = self.json("run", host, "show", "--async")
        self.assertEqual(answer["results"][0]["status"], "accepted", answer)
        reqid = answer["reqid"]
        busy = self.json("run", host, "show", "--async")["results"][0]
        self.assertEqual(busy["status"], "busy", busy)
        record = self.json("status", reqid)
        self.assertEqual(record["hosts"][host]["status"], "running", record)
        waited = self.dispatcher("wait", reqid)
        self.assertEqual(waited.status, 1, waited)
        entry = self.json("status", reqid)["hosts"][host]
        self.assertEqual((entry["status"], entry["exit"]), ("done", 4))
        self.assertEqual(entry["stdout"], "late\n")

    def test_unknownViews(self) -> None:
        """
        What such an agent does not know costs nobody the answer.
        """
        host = self.registered()
        done = self.dispatcher("run", host, "show", "--follow", "--", "x")
        self.assertEqual(done.status, 1, done)
        self.assertIn("x\n", done.out)
        done = self.dispatcher(
            "cancel", self.json("run", host, "show")["results"][0]["reqid"]
        )
        self.assertNotIn("Traceback", done.out + done.err)


class PerlPairingTests(PerlCase):
    def test_applicant(self) -> None:
        """
        An agent of the original is paired by our dispatcher.
        """
        self.take_over()
        self.start_pairing()
        words = [self.pairing_port, "agent-one", DATA / "original-agent.csr", "0" * 32]
        peer = self.perl("ask-pairing.pl", *words)
        pending = json.loads(self.line(peer))
        self.assertEqual(pending["status"], "pending")
        (waiting,) = self.json("list-requests")
        csr = (DATA / "original-agent.csr").read_bytes()
        self.assertEqual(
            (waiting["code"], waiting["legacy"]), (confirmation_code(csr), True)
        )
        refused = self.dispatcher("approve", pending["reqid"])
        self.assertIn("asks in the old way", refused.err)
        self.dispatched("approve", "--legacy", pending["reqid"])
        approved = json.loads(self.line(peer))
        self.assertEqual(self.line(peer), "closed")
        self.assertEqual(approved["status"], "approved")
        self.assertEqual(approved["nonce"], "0" * 32)
        dispatcher = read_certificate((self.home / "ctrl-exec.crt").read_bytes())
        self.assertEqual(approved["dispatcher_serial"], dispatcher.serial)

    def test_listener(self) -> None:
        """
        Our agent is paired by a dispatcher of the original's older line, and
        then takes its orders.
        """
        self.take_over()
        identity = [self.home / name for name in ("ctrl-exec.crt", "ctrl-exec.key")]
        authority = [self.home / name for name in ("ca.crt", "ca.key")]
        serial = read_certificate(identity[0].read_bytes()).serial
        peer = self.perl("be-listener.pl", *identity, *authority, serial, self.root)
        self.pairing_port = int(self.line(peer))
        agent = AgentHome.made(self, "agent-one")
        done = self.end(agent.ask())
        self.assertIn("no terminal to ask at", done.err)
        done = self.end(agent.ask("--legacy"))
        self.assertEqual(done.status, 0, done)
        agent.serve()
        registry = self.home / "state" / "agents"
        registry.mkdir(parents=True)
        record = {"hostname": "agent-one", "ip": "127.0.0.1", "lookup_by": "ip"}
        (registry / "agent-one.json").write_text(json.dumps(record))
        (row,) = self.json("run", f"agent-one:{agent.port}", "show")["results"]
        self.assertEqual(row["exit"], 3)
