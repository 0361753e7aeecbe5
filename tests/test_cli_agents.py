# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.cli}: agents, and who is trusted.
"""

from __future__ import annotations

import json

from ctrlexec.certificates import ca_fingerprint
from ctrlexec.dispatcher.authority import Authority
from ctrlexec.dispatcher.queue import FilePairingQueue
from ctrlexec.dispatcher.records import QueuedRequest
from ctrlexec.dispatcher.settings import DispatcherSettings
from ctrlexec.errors import TransportError
from tests.command_lines import CommandLineCase, Done
from tests.dispatching import REQID, protected, request


class PingTests(CommandLineCase):
    """
    C{ctrl-exec ping}.
    """

    def setUp(self) -> None:
        super().setUp()
        self.register("web-1", "web-2")
        self.agents.answers = {"web-2": TransportError("gone", hint="look for it")}

    def test_text(self) -> None:
        """
        The table tells who answered, stderr why somebody did not; the command
        has done what it was asked for.
        """
        self.assertEqual(
            self.command("ping", "web-1", "web-2"),
            Done(
                0,
                "HOST                            STATUS    RTT       "
                "CERT EXPIRY                   VERSION\n"
                "---------------------------------------------------"
                "----------------------------------\n"
                "web-1                           ok        0ms       "
                "Feb 22 22:32:05 2029 GMT      0.1.0\n"
                "web-2                           error     0ms       "
                "?                             ?\n",
                "error: web-2: gone\nhint: look for it\n1 ok, 1 no answer  in 0.0 s\n",
            ),
        )

    def test_json(self) -> None:
        """
        A row each.
        """
        done = self.command("--json", "ping", "web-1", "web-2")
        self.assertEqual((done.status, done.err), (0, ""))
        statuses = {row["host"]: row["status"] for row in done.json["results"]}
        self.assertEqual(statuses, {"web-1": "ok", "web-2": "error"})


class ListAgentsTests(CommandLineCase):
    """
    C{ctrl-exec list-agents}.
    """

    def test_text(self) -> None:
        """
        A header, a rule, and a row for each agent, by name.
        """
        self.register("web-2", "web-1")
        done = self.command("list-agents")
        head, rule, *rows = done.out.splitlines()
        self.assertEqual(head.split()[:2], ["HOSTNAME", "IP"])
        self.assertEqual(set(rule), {"-"})
        self.assertEqual([row.split()[0] for row in rows], ["web-1", "web-2"])

    def test_none(self) -> None:
        """
        Nobody is no error.
        """
        done = self.command("list-agents")
        self.assertEqual((done.status, done.err), (0, "note: no agent is paired yet\n"))
        self.assertEqual(self.command("list-agents", "--json"), Done(0, "[]\n", ""))

    def test_broken(self) -> None:
        """
        A record that can not be read is named; the others are shown.
        """
        self.register("web-1", "web-2")
        (self.registry.directory / "web-2.json").write_text("{")
        done = self.command("--json", "list-agents")
        self.assertEqual(done.status, 1)
        self.assertEqual([each["hostname"] for each in done.json], ["web-1"])
        self.assertIn("web-2.json", done.err)

    def test_tags(self) -> None:
        """
        Only those that have all tags that are asked for.
        """
        self.register("web-1", tags={"role": "web", "site": "a"})
        self.register("web-2", tags={"role": "web", "site": "b"})
        for words, hosts in (
            (("role=web",), ["web-1", "web-2"]),
            (("role=web,site=b",), ["web-2"]),
            (("role=web", "--tags", "site=a"), ["web-1"]),
            (("role=",), []),
        ):
            found = self.command("list-agents", "--json", "--tags", *words).json
            self.assertEqual([each["hostname"] for each in found], hosts, words)
        for odd in ("role", "=web", "role=web,"):
            self.assertEqual(self.command("list-agents", "--tags", odd).status, 2)

    def test_lines(self) -> None:
        """
        A list can be read line by line.
        """
        self.register("web-1", "web-2")
        lines = self.command("list-agents", "--output", "jsonl").out.splitlines()
        self.assertEqual(
            [json.loads(line)["hostname"] for line in lines], ["web-1", "web-2"]
        )
        self.assertEqual(
            self.command("list-requests", "--output", "jsonl"), Done(0, "", "")
        )


class EditTests(CommandLineCase):
    """
    C{ctrl-exec edit-agent} and C{unpair}.
    """

    def setUp(self) -> None:
        super().setUp()
        self.register("web-1", ip="192.0.2.1", expiry="Feb 22 22:32:05 2029 GMT")

    def test_edit(self) -> None:
        """
        The registry says so from then on.
        """
        done = self.command(
            "edit-agent",
            "web-1",
            "--rename=app",
            "--lookup-by=ip",
            "--ip=192.0.2.9",
            "--agent-port=9000",
        )
        self.assertEqual(
            done, Done(0, "app is changed\n    reached at  192.0.2.9 port 9000\n", "")
        )
        self.assertEqual(self.registry.names(), ["app"])
        done = self.command("edit-agent", "app", "--agent-port", "1", "--json")
        self.assertEqual((done.json["hostname"], done.json["port"]), ("app", 1))

    def test_editNothing(self) -> None:
        """
        Something has to be changed, into something that can be; the agent has
        to be there.
        """
        self.register("web-2")
        for words, status in (
            (("web-1",), 1),
            (("web-1", "--rename", "web-2"), 1),
            (("nobody", "--rename", "web-3"), 1),
            (("web-1", "--rename", "../x"), 2),
            (("web-1", "--ip", "web.example.org"), 2),
            (("web-1", "--agent-port", "0"), 2),
            (("web-1", "--lookup-by", "magic"), 2),
            (("web-1", "web-2", "--agent-port", "1"), 2),
        ):
            done = self.command("edit-agent", *words)
            self.assertEqual((done.status, done.out), (status, ""), words)
        self.assertEqual(self.registry.names(), ["web-1", "web-2"])

    def test_unpair(self) -> None:
        """
        Without a terminal nobody is asked; the original asks nobody.
        """
        done = self.command("unpair", "web-1", "--json")
        self.assertEqual(
            done.json,
            {"ok": True, "hostname": "web-1", "expiry": "Feb 22 22:32:05 2029 GMT"},
        )
        self.assertEqual(self.registry.names(), [])
        done = self.command("unpair", "web-1")
        self.assertEqual((done.status, done.out), (1, ""))

    def test_unpairAsks(self) -> None:
        """
        A person is, unless they have said so already.
        """
        self.terminal, self.typed = True, "\n"
        done = self.command("unpair", "web-1")
        self.assertEqual(
            done,
            Done(1, "", "forget the agent web-1? [y/N] note: nothing was changed\n"),
        )
        self.assertEqual(self.registry.names(), ["web-1"])
        self.assertEqual(
            self.command("unpair", "web-1", "--yes"), Done(0, "web-1 is unpaired\n", "")
        )

    def test_unpairBroken(self) -> None:
        """
        A record that can not be read can be removed.
        """
        (self.registry.directory / "web-1.json").write_text("{")
        done = self.command("unpair", "web-1", "--json")
        self.assertEqual(done.json, {"ok": True, "hostname": "web-1"})
        self.assertEqual(self.registry.names(), [])


class TrustTests(CommandLineCase):
    """
    The modes that change whom the dispatcher and its agents trust.
    """

    def setUp(self) -> None:
        super().setUp()
        self.queue = FilePairingQueue(self.home / "state/pairing", 10)

    def set_up(self) -> None:
        """
        Make a CA and an identity.
        """
        for mode in ("setup-ca", "setup-ctrl-exec"):
            self.assertEqual(self.command(mode).status, 0)

    def enqueue(self) -> None:
        """
        Let an agent ask.
        """
        self.assertTrue(self.queue.add(self.asked()))

    def asked(self) -> QueuedRequest:
        """
        What an agent asks: in the exchange of ours, where there is a CA.
        """
        settings = DispatcherSettings(directory=self.home, ca_dir=self.home)
        if not settings.ca.exists():
            return request(hostname="web-1")
        return protected(Authority(settings), hostname="web-1")

    def test_fingerprint(self) -> None:
        """
        The CA is named when it is made, and whenever somebody asks.
        """
        made = self.command("setup-ca").out
        done = self.command("ca-fingerprint")
        self.assertRegex(done.out, r"\Asha256:[0-9a-f]{64}\n\Z")
        self.assertIn(f"fingerprint  {done.out}", made)
        self.assertEqual(
            ca_fingerprint((self.home / "ca.crt").read_bytes()), done.out[:-1]
        )
        document = {"ok": True, "fingerprint": done.out.strip()}
        self.assertEqual(self.command("ca-fingerprint", "--json").json, document)

    def test_noFingerprint(self) -> None:
        """
        Without a CA there is none, in one line.
        """
        done = self.command("ca-fingerprint")
        self.assertEqual((done.status != 0, done.out), (True, ""))
        self.assertIn("ca.crt: there is no such file", done.err)

    def test_legacy(self) -> None:
        """
        A request of the original's exchange is listed as such, and approved
        only by whoever has read what its code does not protect.
        """
        self.set_up()
        self.assertTrue(self.queue.add(request(hostname="web-1")))
        self.sleep = lambda seconds: self.queue.remove(REQID)
        done = self.command("list-requests")
        self.assertIn("  legacy  ", done.out)
        self.assertIn("swap the CA", done.err)
        (waiting,) = self.command("list-requests", "--json").json
        self.assertIs(waiting["legacy"], True)
        done = self.command("approve", REQID)
        self.assertEqual((done.status, done.out), (1, ""))
        self.assertIn("swap the CA", done.err)
        self.assertEqual(self.registry.names(), [])
        self.assertEqual(self.command("approve", "--legacy", REQID).status, 0)

    def test_setup(self) -> None:
        """
        Each says what was made and what comes next.
        """
        done = self.command("setup-ca")
        self.assertEqual(done.status, 0)
        self.assertIn(f"{self.home}/ca.key", done.out)
        self.assertIn("ctrl-exec setup-ctrl-exec", done.err)
        done = self.command("setup-ctrl-exec", "--json")
        self.assertEqual((done.status, done.json["ok"], done.err), (0, True, ""))

    def test_setupTwice(self) -> None:
        """
        A CA is never overwritten.
        """
        self.set_up()
        before = (self.home / "ca.key").read_bytes()
        done = self.command("setup-ca")
        self.assertEqual((done.status, done.out), (1, ""))
        self.assertTrue(done.err.startswith("error: "))
        self.assertEqual((self.home / "ca.key").read_bytes(), before)

    def test_replace(self) -> None:
        """
        With agents registered, a new identity needs a yes: typed, or given as
        an option where nobody can be asked.
        """
        self.set_up()
        self.register("web-1")
        cert = self.home / "ctrl-exec.crt"
        before = cert.read_bytes()
        self.assertEqual(self.command("setup-ctrl-exec").status, 1)
        self.terminal, self.typed = True, "n\n"
        done = self.command("setup-ctrl-exec")
        self.assertEqual(done.status, 1)
        self.assertIn("[y/N]", done.err)
        self.assertEqual(cert.read_bytes(), before)
        self.typed = "y\n"
        self.assertEqual(self.command("setup-ctrl-exec").status, 0)
        self.assertNotEqual(cert.read_bytes(), before)
        self.terminal = False
        self.assertEqual(self.command("setup-ctrl-exec", "--yes").status, 0)

    def test_listRequests(self) -> None:
        """
        The queue is shown with what a person has to do.
        """
        self.enqueue()
        done = self.command("list-requests")
        self.assertEqual(done.out.splitlines()[2].split()[:2], [REQID, "web-1"])
        self.assertIn("compare each code", done.err)
        (waiting,) = self.command("list-requests", "--json").json
        self.assertEqual(waiting["id"], REQID)

    def test_approve(self) -> None:
        """
        The agent is registered; the listener delivers while it is waited for.
        """
        self.set_up()
        self.enqueue()
        self.sleep = lambda seconds: self.queue.remove(REQID)
        done = self.command("approve", REQID, "--lookup-by", "ip")
        self.assertEqual((done.status, done.err), (0, ""))
        self.assertTrue(done.out.startswith("web-1 is approved\n"))
        self.assertIn("192.0.2.1 port 7443\n", done.out)
        self.assertEqual(self.registry.get("web-1").reqid, REQID)

    def test_notDelivered(self) -> None:
        """
        Without a listener, the operator is told what is missing, after five
        seconds.
        """
        self.set_up()
        self.enqueue()
        slept: list[float] = []
        self.sleep = slept.append
        done = self.command("approve", REQID)
        self.assertEqual(done.status, 0)
        self.assertAlmostEqual(sum(slept), 5.0)
        self.assertIn("warning: web-1 does not have its certificate yet", done.err)
        self.assertIn("hint: ctrl-exec pairing-mode", done.err)

    def test_approveAgain(self) -> None:
        """
        A decision stands, and an id that nobody has is an error in one line.
        """
        self.set_up()
        self.enqueue()
        self.assertEqual(self.command("deny", REQID).status, 0)
        for reqid in (REQID, "0000000000000000"):
            done = self.command("approve", reqid)
            self.assertEqual((done.status, done.out), (1, ""))
            self.assertTrue(done.err.startswith("error: "))
            self.assertNotIn(".py", done.err)
        self.assertEqual(self.registry.names(), [])

    def test_replacedAgent(self) -> None:
        """
        An agent of the same name is replaced, and that is said.
        """
        self.set_up()
        self.register("web-1")
        self.enqueue()
        self.sleep = lambda seconds: self.queue.remove(REQID)
        done = self.command("approve", REQID)
        self.assertIn("warning: there was a web-1 before", done.err)

    def test_deny(self) -> None:
        """
        The agent is told no.
        """
        self.enqueue()
        self.assertEqual(self.command("deny", REQID), Done(0, "web-1 is denied\n", ""))
