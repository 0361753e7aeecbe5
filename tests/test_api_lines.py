# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of answers that are made while they are read: L{ctrlexec.api.lines}.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ctrlexec.api.http import ApiSite
from ctrlexec.api.lines import Lines
from tests.apis import ApiCase, Later, Wire, asking
from tests.dispatching import at_once


class LinesTests(ApiCase):
    """
    L{Lines}
    """

    def setUp(self) -> None:
        super().setUp()
        self.later = Later()
        self.site = ApiSite(self.later, self.reactor, self.dispatcher.events, at_once)

    def begun(self, room: int) -> tuple[Wire, Lines]:
        """
        An answer whose client has room for so much, beside the header.
        """
        wire = self.wire().send(asking("GET", "/"))
        lines = Lines(self.later.requests[-1])
        lines.begin()
        wire.transport.room = room
        return wire, lines

    def waiting(self, lines: Lines, text: bytes) -> Deferred[None]:
        """
        Something that is said has to wait.
        """
        taken = lines.say(lambda: text)
        assert taken is not None
        self.assertNoResult(taken)
        return taken

    def test_room(self) -> None:
        """
        Who says something hears at once that there is room for more, or when.
        """
        wire, lines = self.begun(30)
        self.assertTrue(lines.has_room)
        self.assertIsNone(lines.say(lambda: b"a\n"))
        first = self.waiting(lines, b"b" * 40)
        self.assertFalse(lines.has_room)
        second = self.waiting(lines, b"c\n")
        wire.transport.read_by_peer(1000)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertTrue(lines.has_room)
        lines.end(lambda: b"d\n")
        self.assertEqual(wire.reply().body, b"a\n" + b"b" * 40 + b"c\nd\n")

    def test_turns(self) -> None:
        """
        Whoever is asked for more may take the room again; the others wait for
        the next time.
        """
        wire, lines = self.begun(0)
        first = self.waiting(lines, b"a\n")
        second = self.waiting(lines, b"b\n")
        again: list[Deferred[None] | None] = []
        first.addCallback(lambda _: again.append(lines.say(lambda: b"c" * 1000)))
        wire.transport.read_by_peer(100)
        self.assertNoResult(second)
        (third,) = again
        assert third is not None
        self.assertNoResult(third)
        wire.transport.read_by_peer(10_000)
        self.successResultOf(second)
        self.successResultOf(third)

    def test_many(self) -> None:
        """
        Any number of them can wait.
        """
        wire, lines = self.begun(0)
        for _ in range(5000):
            taken = self.waiting(lines, b"x")
            taken.addCallback(lambda _: lines.say(lambda: b""))
        wire.transport.read_by_peer(100_000)
        self.assertTrue(lines.has_room)

    def test_left(self) -> None:
        """
        Nobody waits for a client that has left, and nothing is kept for it.
        """
        wire, lines = self.begun(0)
        taken = self.waiting(lines, b"a\n")
        wire.leave()
        self.successResultOf(taken)
        self.assertTrue(lines.left)
        self.assertIsNone(lines.say(lambda: b"b\n"))

    def test_unspelled(self) -> None:
        """
        What nobody takes is not spelled out.
        """
        wire, lines = self.begun(0)
        spelled: list[str] = []

        def spell() -> bytes:
            spelled.append("")
            return b"x\n"

        self.waiting(lines, b"a\n")
        lines.say(spell)
        self.assertEqual(spelled, [])
        wire.transport.read_by_peer(100)
        self.assertEqual(spelled, [""])
