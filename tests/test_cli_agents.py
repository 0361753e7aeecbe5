# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.cli}: agents, and who is trusted.
"""

from __future__ import annotations

from ctrlexec.dispatcher.queue import FilePairingQueue
from ctrlexec.errors import TransportError
from tests.command_lines import CommandLineCase, Done
from tests.dispatching import REQID, request
from tests.structure import loaded_after


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
                "error: web-2: gone\nhint: look for it\n",
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

    def test_light(self) -> None:
        """
        It loads neither Twisted nor cryptography.
        """
        unwanted = ("twisted", "cryptography", "OpenSSL")
        self.assertEqual(loaded_after("ctrlexec.dispatcher.cli", unwanted), "")


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
        self.assertTrue(self.queue.add(request(hostname="web-1")))

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
