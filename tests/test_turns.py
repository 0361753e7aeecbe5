# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.turns}.
"""

from __future__ import annotations

from collections.abc import Collection

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.turns import WRITES, Turns


class TurnsTests(SynchronousTestCase):
    """
    Hosts are on record as asked before they are.
    """

    def setUp(self) -> None:
        self.written: list[list[str]] = []
        self.writing: Deferred[None] | None = None

    async def write(self, hosts: Collection[str]) -> None:
        """
        Remember it, when the test says so.
        """
        if self.writing is not None:
            await self.writing
        self.written.append(sorted(hosts))

    def test_first(self) -> None:
        """
        Who is asked at once needs no word of their own: as many of the first lot
        as are asked at a time.
        """
        turns = Turns([["a", "b", "c"], ["d"]], 2, self.write)
        self.assertEqual(turns.first(), {"a", "b"})
        for host in "abcd":
            self.successResultOf(Deferred.fromCoroutine(turns.come(host)))
        self.assertEqual(self.written, [["c"], ["d"]])

    def test_nobody(self) -> None:
        """
        An order may go to nobody.
        """
        self.assertEqual(Turns([], 2, self.write).first(), frozenset())

    def test_many(self) -> None:
        """
        Of very many hosts some are written at a time, and none of the next lot.
        """
        names = [f"h{number:04}" for number in range(10 * WRITES)]
        turns = Turns([names[:5], names[5:]], 4, self.write)
        turns.first()
        for host in names:
            self.successResultOf(Deferred.fromCoroutine(turns.come(host)))
        self.assertEqual(self.written[0], [names[4]])
        self.assertEqual(self.written[1], names[5:9])
        self.assertEqual([name for part in self.written for name in part], names[4:])

    def test_together(self) -> None:
        """
        Nobody is asked before that is written, nor is it written twice.
        """
        names = [f"h{number:04}" for number in range(2 * WRITES)]
        turns = Turns([["first"], names], 4, self.write)
        turns.first()
        self.writing = Deferred()
        coming = [Deferred.fromCoroutine(turns.come(host)) for host in names[:2]]
        for each in coming:
            self.assertNoResult(each)
        self.writing.callback(None)
        for each in coming:
            self.successResultOf(each)
        self.assertEqual(self.written, [names[:2]])
