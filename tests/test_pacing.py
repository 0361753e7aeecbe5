# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.pacing}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.pacing import Pacing


def connections(seconds: float, *, ours: bool) -> int:
    """
    How often a host is asked within that time.
    """
    pacing, now, count = Pacing(), 0.0, 0
    while now <= seconds:
        count += len(pacing.due(["web-1"], now))
        pacing.asked("web-1", now, ours=ours)
        now += pacing.pause(["web-1"], now)
    return count


class PacingTests(SynchronousTestCase):
    """
    Agents are asked less and less often.
    """

    def test_original(self) -> None:
        """
        One of the original line is asked every two seconds at most, and, with the
        order, less than ten times in a minute.
        """
        self.assertEqual(connections(1.9, ours=False), 1)
        self.assertLess(connections(60, ours=False) + 1, 10)

    def test_ours(self) -> None:
        """
        One of ours is asked sooner: most scripts are short.
        """
        self.assertEqual(connections(1.75, ours=True), 4)

    def test_eachForItself(self) -> None:
        """
        A slow one slows no other; whoever has not been asked is due.
        """
        pacing = Pacing()
        pacing.asked("old", 5.0, ours=False)
        pacing.asked("new", 5.0, ours=True)
        hosts = ["old", "new", "other"]
        self.assertEqual(pacing.due(hosts, 5.25), ["new", "other"])
        self.assertEqual(pacing.pause(["old", "new"], 5.0), 0.25)
        self.assertEqual(pacing.pause(["old"], 6.0), 1.0)
        self.assertEqual(pacing.pause([], 6.0), 0.0)

    def test_becomesSlow(self) -> None:
        """
        One that stops to answer is left more time.
        """
        pacing = Pacing()
        pacing.asked("web-1", 0.0, ours=True)
        pacing.asked("web-1", 0.25, ours=False)
        self.assertEqual(pacing.pause(["web-1"], 0.25), 2.0)
