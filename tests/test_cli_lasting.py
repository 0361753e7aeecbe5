# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.modes.lasting}: what is printed, and the exit
status.
"""

from __future__ import annotations

from ctrlexec.errors import ProtocolError, TransportError
from ctrlexec.protocol.messages import PingAnswer
from ctrlexec.values import openssl_time
from tests.authority import DAY, NOW
from tests.command_lines import CommandLineCase


class LastingCase(CommandLineCase):
    """
    A dispatcher that is set up; C{web-1} is due.
    """

    def setUp(self) -> None:
        super().setUp()
        self.register("web-1", "web-2")
        self.assertEqual(self.command("setup-ca").status, 0)
        self.assertEqual(self.command("setup-ctrl-exec", "--yes").status, 0)
        soon = openssl_time(NOW + 9 * DAY)
        self.agents.pings = {"web-1": PingAnswer("web-1", "0.1.0", soon)}


class RenewTests(LastingCase):
    """
    C{renew}
    """

    def test_renewed(self) -> None:
        """
        It says what the agent has now.
        """
        done = self.command("renew", "web-2")
        self.assertEqual((done.status, done.err), (0, ""))
        self.assertTrue(done.out.startswith("web-2 has a new certificate: serial "))
        document = self.command("--json", "renew", "web-2").json
        self.assertEqual((document["ok"], document["host"]), (True, "web-2"))
        self.assertFalse(document["staged"])

    def test_failed(self) -> None:
        """
        An agent that does not take it is a failure, in its words.
        """
        self.agents.takes = {"web-1": ProtocolError("cert required")}
        done = self.command("renew", "web-1")
        self.assertEqual(done.status, 1)
        self.assertIn("error: cert required\n", done.err)

    def test_expired(self) -> None:
        """
        Nobody is asked whose last certificate is not known; that is about
        certificates, and so is the status.
        """
        done = self.command("renew", "--expired", "web-1")
        self.assertEqual(done.status, 7)
        self.assertIn("hint: pair it again\n", done.err)
        self.assertEqual(self.agents.renewed, [])

    def test_socket(self) -> None:
        """
        The API has no key of the CA.
        """
        self.assertEqual(self.command("--socket", "/x", "renew", "web-1").status, 2)

    def test_ping(self) -> None:
        """
        A ping renews who is due, and shows the new date.
        """
        (row,) = self.command("--json", "ping", "web-1").json["results"]
        self.assertEqual(row["expiry"], self.registry.get("web-1").expiry)
        self.assertEqual(self.agents.renewed, ["web-1"])


class MaintainTests(LastingCase):
    """
    C{maintain}
    """

    def test_done(self) -> None:
        """
        It counts; who is off is named, and is no failure.
        """
        self.agents.answers = {"web-2": TransportError("gone")}
        done = self.command("maintain")
        self.assertEqual(done.status, 0)
        self.assertEqual(done.out, "2 agents, 1 answered, 1 renewed\n")
        self.assertEqual(done.err, "note: web-2 has not answered\n")
        document = self.command("--json", "maintain").json
        self.assertEqual(document["rotation"], "none")
        self.assertEqual(document["renewed"], ["web-1"])

    def test_failed(self) -> None:
        """
        What went wrong is told, and is the exit status.
        """
        self.agents.requests = {"web-1": ProtocolError("the agent answered 404")}
        done = self.command("maintain")
        self.assertEqual(done.status, 1)
        self.assertIn("error: web-1: its certificate is not renewed", done.err)


class RotateTests(LastingCase):
    """
    C{rotate-cert} and C{serial-status}
    """

    def test_rotated(self) -> None:
        """
        It says what is used now, and who does not know of it.
        """
        self.agents.trusts = {"web-2": TransportError("gone")}
        done = self.command("--json", "rotate-cert")
        self.assertEqual(done.status, 0)
        self.assertEqual(done.json["pending"], ["web-2"])
        self.assertIn("web-2 has not been told of it yet", done.err)
        serial = done.json["serial"]
        status = self.command("--json", "serial-status").json
        self.assertEqual(
            (status["stage"], status["current_serial"]), ("overlap", serial)
        )
        self.assertEqual(
            {each["hostname"]: each["serial_status"] for each in status["agents"]},
            {"web-1": "current", "web-2": "pending"},
        )
        done = self.command("rotate-cert")
        self.assertEqual(done.status, 1)
        self.assertIn("the last rotation is not over yet", done.err)

    def test_status(self) -> None:
        """
        People see facts, and a table.
        """
        done = self.command("serial-status")
        self.assertEqual((done.status, done.err), (0, ""))
        self.assertIn("rotation  none under way\n", done.out)
        self.assertIn("HOSTNAME", done.out)
        self.command("rotate-cert")
        self.assertIn(
            "some agents may not know it yet", self.command("serial-status").out
        )
