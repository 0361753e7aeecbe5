# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.protocol.limits}, and for the other numbers that peers and
operators count on.

Everywhere else the tests use the names, so that they hold whatever the numbers
are.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec import process, rates
from ctrlexec.agent import admission, schema
from ctrlexec.agent.keeper import keep, script
from ctrlexec.protocol import limits


class LimitTests(SynchronousTestCase):
    """
    The numbers
    """

    def test_protocol(self) -> None:
        """
        Those of PROTOCOL.md and NEWER-LINE.md, which peers count on.
        """
        self.assertEqual(limits.REQUEST_BODY_BYTES, 1_048_576)
        self.assertEqual(limits.HEADER_LINES, 32)
        self.assertEqual(limits.CSR_BYTES, 10_240)
        self.assertEqual(limits.PAIRING_BODY_BYTES, 65_536)
        self.assertEqual(limits.PAIRING_SECONDS, 600)
        self.assertEqual(schema.SCHEMA_BYTES, 65_536)
        self.assertEqual(rates.TRACKED_ADDRESSES, 1000)
        self.assertEqual((script.NOT_STARTED, script.NOT_EXECUTABLE), (126, 127))
        self.assertEqual((keep.KILLED, process.KILLED), (126, 126))

    def test_ours(self) -> None:
        """
        Ours bound what a stranger costs: nobody makes them longer or larger
        without meaning to.
        """
        self.assertEqual(limits.HEADER_BYTES, 16_384)
        self.assertEqual(limits.HEADER_SECONDS, 15)
        self.assertEqual(limits.BODY_SECONDS, 60)
        self.assertEqual(limits.IDLE_SECONDS, 60)
        self.assertEqual(limits.WRITE_SECONDS, 60)
        self.assertEqual(admission.UNPROVEN_SHARE, 4)
        self.assertEqual(keep.DRAIN_SECONDS, 1)
