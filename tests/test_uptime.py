# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.uptime}.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec import uptime


class UptimeTests(SynchronousTestCase):
    """
    For how long this host has been up, and since which start.
    """

    def test_boot(self) -> None:
        """
        A start has a name, unless the host does not tell, or tells nonsense.
        """
        name = uptime.boot_id()
        self.assertGreater(len(name), 30)
        self.assertEqual(uptime.boot_id(), name)
        path = Path(self.mktemp())
        self.patch(uptime, "BOOT_ID", path)
        self.assertEqual(uptime.boot_id(), "")
        path.write_bytes(b"\xff")
        self.assertEqual(uptime.boot_id(), "")

    def test_seconds(self) -> None:
        """
        Time goes on.
        """
        before = uptime.uptime_seconds()
        self.assertGreater(before, 0)
        self.assertGreaterEqual(uptime.uptime_seconds(), before)
