# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.dispatcher.pairing_gate}.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.pairing_gate import STRANGERS, PairingGate
from ctrlexec.rates import Rate, RateLimits
from tests.dispatching import Recorder, settings_in

A, B = "192.0.2.1", "192.0.2.2"
#: Ten is the default.
VOLUME = 10


class PairingGateTests(SynchronousTestCase):
    """
    L{PairingGate}
    """

    def setUp(self) -> None:
        self.log, self.clock = Recorder(), Clock()
        self.gate = self.gate_with()

    def gate_with(self, **settings: Any) -> PairingGate:
        """
        A gate with other settings than the defaults.
        """
        limits = RateLimits(self.log, self.clock.seconds)
        return PairingGate(settings_in(Path("x"), **settings), self.log, limits)

    def come(self, count: int, address: str = A, connections: int = 0) -> list[bool]:
        """
        Come so often, and tell when that let in.
        """
        return [self.gate.admits(address, connections) for _ in range(count)]

    def logged(self) -> list[str]:
        """
        What was logged since the last time.
        """
        lines = [event.line() for event in self.log.events]
        self.log.events.clear()
        return lines

    def test_tooOften(self) -> None:
        """
        An address that comes too often is turned away from then on, for as long
        as the limit says, and the log hears of it once; others are not touched.
        """
        self.assertEqual(self.come(VOLUME + 90), [True] * VOLUME + [False] * 90)
        self.assertEqual(self.logged(), [f"ACTION=rate-block PEER={A} REASON=volume"])
        self.assertEqual(self.come(1, B), [True])
        self.clock.advance(299.9)
        self.assertEqual(self.come(1), [False])
        self.clock.advance(0.1)
        self.assertEqual(self.come(1), [True])
        self.assertEqual(self.logged(), [])

    def test_slowly(self) -> None:
        """
        An agent that tries every ten seconds is never turned away.
        """
        for _ in range(100):
            self.assertEqual(self.come(1), [True])
            self.clock.advance(10)

    def test_prefix(self) -> None:
        """
        The addresses of one /64 are one host's.
        """
        found = [self.come(1, f"2001:db8::{number}") for number in range(VOLUME + 1)]
        self.assertEqual(found, [[True]] * VOLUME + [[False]])

    def test_setting(self) -> None:
        """
        The limit is a setting.
        """
        self.gate = self.gate_with(pairing_rate_limit_volume=Rate(1, 5, 7))
        self.assertEqual(self.come(2), [True, False])
        self.clock.advance(7)
        self.assertEqual(self.come(1), [True])

    def test_disabled(self) -> None:
        """
        It can be turned off.
        """
        self.gate = self.gate_with(pairing_rate_limit_disable=True)
        self.assertEqual(self.come(100), [True] * 100)
        self.assertEqual(self.logged(), [])

    def test_full(self) -> None:
        """
        There is an end to how many may be connected, wherever they come from;
        the queue has room beside those who are no use for it.
        """
        most = 10 + STRANGERS
        self.assertEqual(self.come(1, connections=most - 1), [True])
        self.assertEqual(self.come(1, connections=most), [False])
        reason = '"too many connections"'
        self.assertEqual(self.logged(), [f"ACTION=pair-reject IP={A} REASON={reason}"])

    def test_fullCounts(self) -> None:
        """
        Who comes again and again while there is no room is not logged for ever.
        """
        self.come(1000, connections=1000)
        self.assertEqual(len(self.logged()), VOLUME + 1)
