# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.staging}.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.staging import is_staged, promote
from ctrlexec.certificates import AgentRole, DispatcherRole, read_certificate
from ctrlexec.errors import CtrlExecError, PkiError, StoreError
from tests.agents import Recorded, agent_settings, tree
from tests.authority import DAY, OTHER_KEY
from tests.wired import AGENT, OTHER_CA, TODAY, certified_by, credentials

RENEWED = credentials(AgentRole("agent-one"))


class StagingTests(SynchronousTestCase):
    """
    L{is_staged} and L{promote}
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.settings = agent_settings(self.directory)
        self.settings.key.write_bytes(AGENT.key)
        self.settings.cert.write_bytes(AGENT.cert)
        self.settings.ca.write_bytes(AGENT.ca)
        self.staged = self.settings.cert_staging_path
        self.staged.parent.mkdir()
        self.log = Recorded()

    def promoted(self) -> bool:
        """
        Promote what waits.
        """
        return promote(self.settings, self.log, lambda: TODAY)

    def test_nothing(self) -> None:
        """
        Nothing waits, nothing happens.
        """
        before = tree(self.directory)
        self.assertFalse(is_staged(self.settings))
        self.assertFalse(self.promoted())
        self.assertEqual(tree(self.directory), before)
        self.assertEqual(self.log.taken(), [])

    def test_promoted(self) -> None:
        """
        A good one takes the old one's place, for the same owner, and waits no
        more.
        """
        self.staged.write_bytes(RENEWED.cert)
        with contextlib.suppress(PermissionError):
            os.chown(self.settings.cert, 12345, 12346)
        old = self.settings.cert.stat()
        self.assertTrue(is_staged(self.settings))
        self.assertTrue(self.promoted())
        self.assertEqual(self.settings.cert.read_bytes(), RENEWED.cert)
        new = self.settings.cert.stat()
        self.assertEqual((new.st_uid, new.st_gid), (old.st_uid, old.st_gid))
        self.assertEqual(stat.S_IMODE(new.st_mode), 0o640)
        self.assertFalse(self.staged.exists())
        self.assertEqual(self.log.taken(), ["ACTION=cert-promote STATUS=installed"])

    def test_refused(self) -> None:
        """
        One that is another's, or not in date, or no certificate is removed,
        and logged; the old one stays.
        """
        for cert, words in (
            (b"", "not a PEM certificate"),
            (AGENT.key, "not a PEM certificate"),
            (RENEWED.cert * 2, "2 certificates"),
            (b"x" * 2_000_000, "larger than"),
            (credentials(AgentRole("agent-two")).cert, "not for 'agent-one'"),
            (credentials(DispatcherRole("hq")).cert, "not for 'agent-one'"),
            (
                credentials(AgentRole("agent-one"), now=TODAY - 4 * DAY).cert,
                "expired",
            ),
            (
                credentials(AgentRole("agent-one"), ca=OTHER_CA, ca_key=OTHER_KEY).cert,
                "not signed by this CA",
            ),
        ):
            self.staged.write_bytes(cert)
            self.assertFalse(self.promoted())
            self.assertEqual(self.settings.cert.read_bytes(), AGENT.cert)
            self.assertFalse(self.staged.exists())
            [line] = self.log.taken()
            self.assertTrue(line.startswith("ACTION=cert-promote ERROR="), line)
            self.assertIn(words.replace('"', '\\"'), line)
            self.assertNotIn("PRIVATE", line)

    def test_early(self) -> None:
        """
        One that is not valid yet waits until it is: it may be the clock that
        is wrong. Before that it is looked at as any other.
        """
        later = TODAY + 2 * DAY
        self.staged.write_bytes(credentials(AgentRole("agent-one"), now=later).cert)
        self.assertFalse(self.promoted())
        self.assertEqual(self.settings.cert.read_bytes(), AGENT.cert)
        self.assertTrue(self.staged.exists())
        [line] = self.log.taken()
        self.assertTrue(line.startswith("ACTION=cert-promote ERROR="), line)
        self.assertIn("not valid before", line)
        self.assertTrue(promote(self.settings, self.log, lambda: later))
        self.staged.write_bytes(credentials(AgentRole("agent-two"), now=later).cert)
        self.assertFalse(self.promoted())
        self.assertFalse(self.staged.exists())

    def test_otherKey(self) -> None:
        """
        So is one for another key, even one that the CA has signed.
        """
        self.settings.key.write_bytes(OTHER_KEY)
        self.staged.write_bytes(RENEWED.cert)
        self.assertFalse(self.promoted())
        self.assertIn("for another key", self.log.lines[-1])

    def test_issuedByAgent(self) -> None:
        """
        And one that an agent has signed with its own certificate.
        """
        forged = certified_by(AGENT.cert, AGENT.key, "agent-one", is_ca=False)
        self.assertEqual(read_certificate(forged).common_name, "agent-one")
        self.staged.write_bytes(forged)
        self.assertFalse(self.promoted())
        self.assertIn("not signed by this CA", self.log.lines[-1])

    def test_link(self) -> None:
        """
        Root follows no pipe and no link to nowhere, and what a link leads to
        is not removed with it.
        """
        os.mkfifo(self.staged)
        self.assertFalse(self.promoted())
        self.staged.symlink_to("nowhere")
        self.assertFalse(self.promoted())
        target = self.directory / "scripts.conf"
        self.staged.symlink_to(target)
        self.assertFalse(self.promoted())
        self.assertTrue(target.exists())
        self.assertFalse(os.path.lexists(self.staged))

    def test_undecided(self) -> None:
        """
        Where key or CA can not be read, what waits is kept.
        """
        self.staged.write_bytes(RENEWED.cert)
        self.settings.ca.unlink()
        self.assertRaises(PkiError, self.promoted)
        self.settings.ca.mkdir()
        self.assertRaises(StoreError, self.promoted)
        self.assertTrue(self.staged.exists())

    def test_crash(self) -> None:
        """
        One that could not be put in place still waits.
        """
        self.staged.write_bytes(RENEWED.cert)
        self.settings.cert.unlink()
        self.settings.cert.mkdir()
        self.assertRaises(CtrlExecError, self.promoted)
        self.assertTrue(self.staged.exists())
