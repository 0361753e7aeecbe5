# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.modes.revoking}: C{ctrl-exec revoke}.
"""

from __future__ import annotations

from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.revocation import FileRevocations
from ctrlexec.errors import TransportError
from ctrlexec.protocol.codec_trust import NoSuchRequest
from tests.command_lines import CommandLineCase, Done

#: How wide the table is.
RULE = 38
AGAIN = "note: ctrl-exec revoke --push tells the others, once they are there\n"


class RevokeTests(CommandLineCase):
    """
    C{ctrl-exec revoke}.
    """

    def setUp(self) -> None:
        super().setUp()
        for mode in ("setup-ca", "setup-ctrl-exec"):
            self.assertEqual(self.command(mode).status, 0)
        self.registry.put(AgentRecord(hostname="web-1", cert_serial="a1"))
        self.register("web-2", "web-3")
        self.store = FileRevocations(self.home / "state/revocations")

    def test_text(self) -> None:
        """
        The table tells who knows; an original that can not is no failure.
        """
        self.agents.knows = {"web-3": NoSuchRequest("the agent answered 404")}
        self.assertEqual(
            self.command("revoke", "web-1", "--reason", "stolen"),
            Done(
                0,
                "web-1 is revoked: serial a1\n"
                "HOST                            RESULT\n"
                f"{'-' * RULE}\n"
                "web-2                           acknowledged\n"
                "web-3                           not supported\n",
                "",
            ),
        )
        self.assertIn("REASON=stolen SERIAL=a1 USER=alice", self.log.read_text())

    def test_json(self) -> None:
        """
        The same for programs; that somebody is not there fails.
        """
        self.agents.knows = {"web-2": TransportError("gone")}
        done = self.command("--json", "revoke", "web-1")
        number = self.store.listed().number
        self.assertEqual(done.status, 1)
        self.assertEqual(
            done.json,
            {
                "ok": False,
                "number": number,
                "results": [
                    {"host": "web-2", "result": "gone"},
                    {"host": "web-3", "result": "acknowledged"},
                ],
                "agent": "web-1",
                "serials": ["a1"],
                "new": 1,
            },
        )

    def test_push(self) -> None:
        """
        Who was not there is told later, and nobody else.
        """
        self.agents.knows = {"web-2": TransportError("gone")}
        self.assertEqual(self.command("revoke", "web-1").err, AGAIN)
        self.agents.told.clear()
        self.agents.knows = {}
        done = self.command("revoke", "--push")
        self.assertEqual(done.status, 0)
        self.assertEqual([host for host, _ in self.agents.told], ["web-2"])
        note = "note: there is no agent that does not know it\n"
        self.assertEqual(self.command("revoke", "--push"), Done(0, "", note))

    def test_asks(self) -> None:
        """
        On a terminal a person is asked, unless they have said so already.
        """
        self.terminal, self.typed = True, "\n"
        done = self.command("revoke", "web-1")
        question = "revoke web-1? That can not be undone. [y/N] "
        self.assertEqual(done, Done(1, "", f"{question}note: nothing was changed\n"))
        self.assertEqual(self.store.listed().number, 0)
        self.assertEqual(self.command("revoke", "web-1", "--yes").status, 0)
        self.assertNotEqual(self.store.listed().number, 0)

    def test_again(self) -> None:
        """
        To revoke what is revoked already is no failure, and is said.
        """
        self.command("revoke", "web-1")
        done = self.command("revoke", "a1")
        self.assertEqual(
            (done.status, done.out), (0, "web-1 is revoked, as before: serial a1\n")
        )

    def test_usage(self) -> None:
        """
        Either something is revoked, or agents are told.
        """
        for words in ((), ("web-1", "--push")):
            self.assertEqual(self.command("revoke", *words).status, 2)
        self.assertEqual(self.store.listed().number, 0)

    def test_unknown(self) -> None:
        """
        What is neither agent nor serial is an error.
        """
        done = self.command("revoke", "web-9")
        self.assertEqual(done.status, 1)
        self.assertIn("neither an agent nor a serial", done.err)

    def test_listed(self) -> None:
        """
        The list of agents shows who is revoked.
        """
        self.command("revoke", "web-1")
        out = self.command("list-agents").out
        [line] = [line for line in out.splitlines() if line.startswith("web-1")]
        self.assertTrue(line.endswith(" revoked"), line)
        agents = {
            each["hostname"]: each
            for each in self.command("list-agents", "--json").json
        }
        self.assertEqual(agents["web-1"]["revoked"], "2026-03-05T18:38:09Z")
        self.assertNotIn("revoked", agents["web-2"])

    def test_ping(self) -> None:
        """
        Whoever pings it learns why it does not answer.
        """
        self.command("revoke", "web-1")
        done = self.command("ping", "web-1", "--json")
        [row] = done.json["results"]
        self.assertEqual(row["error"], "certificate revoked")

    def test_unpair(self) -> None:
        """
        To unpair can revoke, too: first that, then the agent is forgotten.
        """
        done = self.command("unpair", "web-1", "--revoke", "--json")
        self.assertEqual(done.status, 0)
        self.assertEqual(
            (done.json["hostname"], done.json["serials"]), ("web-1", ["a1"])
        )
        self.assertEqual([*self.registry.names()], ["web-2", "web-3"])
        self.assertEqual(self.store.listed().serials, {"a1"})

    def test_unpairAsks(self) -> None:
        """
        A person who unpairs is asked about it.
        """
        self.terminal = True
        self.typed = "y\nn\n"
        done = self.command("unpair", "web-2")
        self.assertEqual((done.status, done.out), (0, "web-2 is unpaired\n"))
        self.assertEqual(self.store.listed().number, 0)
        self.typed = "y\ny\n"
        done = self.command("unpair", "web-1")
        self.assertIn("revoke its certificate, too? [y/N] ", done.err)
        self.assertEqual(self.store.listed().serials, {"a1"})
        self.assertEqual([*self.registry.names()], ["web-3"])

    def test_unpairUnknown(self) -> None:
        """
        A serial is no agent that could be unpaired.
        """
        done = self.command("unpair", "beef", "--revoke", "--yes")
        self.assertEqual(done.status, 1)
        self.assertEqual(self.store.listed().number, 0)
