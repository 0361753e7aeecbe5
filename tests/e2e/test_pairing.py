# SPDX-License-Identifier: AGPL-3.0-only
"""
Pairing as two people see it, one at each end.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Callable

from ctrlexec.certificates import ca_fingerprint
from tests.e2e.installation import AgentHome, EndToEndCase


class TerminalTests(EndToEndCase):
    """
    Somebody sits at the agent.
    """

    def setUp(self) -> None:
        super().setUp()
        self.set_up_dispatcher()
        self.start_pairing()
        self.agent = AgentHome.made(self, "agent-one")
        self.before = self.agent.files()

    def asks(
        self, *words: object
    ) -> tuple[subprocess.Popen[str], Callable[[str], None]]:
        """
        Ask from a terminal.

        @return: the program, and what types on its terminal.
        """
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        asking = self.agent.ask(*words, stdin=theirs)
        os.close(theirs)
        return asking, lambda text: self.assertTrue(os.write(ours, text.encode()))

    def shown(self, asking: subprocess.Popen[str]) -> str:
        """
        The code that the agent shows, and asks about.
        """
        assert asking.stdout is not None
        text = ""
        while not text.endswith("[y/N] "):
            character = asking.stdout.read(1)
            if not character:
                self.fail(f"it asks nothing: {text} {self.end(asking)}")
            text += character
        (code,) = re.findall("^  code     (.*)$", text, re.MULTILINE)
        self.assertIn(f"\nDoes the dispatcher show {code}? [y/N] ", text)
        return str(code)

    def assertNothingStored(self) -> None:
        """
        There is no identity, nor a part of one.
        """
        found = set(self.agent.files()) - set(self.before)
        self.assertEqual([name for name in found if "crt" in name or "key" in name], [])

    def test_bothSayYes(self) -> None:
        """
        Both screens show the same code, which the agent asks about; with a yes
        at both ends it is paired.
        """
        asking, types = self.asks()
        code = self.shown(asking)
        self.assertRegex(code, r"\A[0-9]{3} [0-9]{3}\Z")
        (waiting,) = self.json("list-requests")
        self.assertEqual((waiting["code"], waiting["legacy"]), (code, False))
        types("y\n")
        self.dispatched("approve", waiting["id"])
        done = self.end(asking)
        self.assertEqual(done.status, 0, done)
        self.assertEqual(self.end(self.agent.command("pairing-status")).status, 0)

    def test_noHere(self) -> None:
        """
        A no at the agent, or the end of its terminal, is 3, and stores nothing,
        even where the dispatcher has approved.
        """
        for answer in ("n\n", "\n", "\x04"):
            asking, types = self.asks()
            self.shown(asking)
            (waiting,) = self.json("list-requests")
            self.dispatched("approve", waiting["id"])
            types(answer)
            done = self.end(asking)
            self.assertEqual(done.status, 3, done)
            self.assertIn("nothing was stored", done.err)
            self.assertNothingStored()

    def test_nobodyToAsk(self) -> None:
        """
        Without a terminal nothing is sent; in the background that is a wrong
        use of the options.
        """
        for words, status in (((), 1), (("--background",), 2)):
            done = self.end(self.agent.ask(*words))
            self.assertEqual((done.status, done.out), (status, ""))
            self.assertIn("--ca-fingerprint", done.err)
        self.assertEqual(self.json("list-requests"), [])
        self.assertNothingStored()

    def test_otherCa(self) -> None:
        """
        An agent that pins another CA sends nothing.
        """
        pin = "sha256:" + "0" * 64
        done = self.end(self.agent.ask("--ca-fingerprint", pin))
        self.assertEqual(done.status, 1, done)
        self.assertIn(f"no CA with the fingerprint {pin}", done.err)
        self.assertEqual(self.json("list-requests"), [])
        self.assertNothingStored()

    def test_fingerprint(self) -> None:
        """
        What the dispatcher prints is what the agent takes.
        """
        printed = self.dispatched("ca-fingerprint").strip()
        ca = (self.home / "ca.crt").read_bytes()
        self.assertEqual(printed, ca_fingerprint(ca))
