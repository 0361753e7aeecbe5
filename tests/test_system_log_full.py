# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.system_log} when the log takes nothing more.
"""

from __future__ import annotations

from threading import Thread

from twisted.internet.task import Clock

from ctrlexec.events import LinesLost
from ctrlexec.system_log import (
    AGAIN_SECONDS,
    AT_ONCE,
    LAST_SECONDS,
    WAITING_BYTES,
    SystemLog,
    finish_logs,
)
from tests.test_system_log import LogTestCase, Said


class NoRoomTests(LogTestCase):
    """
    L{SystemLog}, where the log has no room for more
    """

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(finish_logs)
        self.clock = Clock()
        self.said = 0
        self.log = SystemLog(
            lambda event: event.line().encode(),
            self.address,
            self.otherwise,
            self.clock.callLater,
            self.clock.seconds,
        )

    def say(self, count: int, size: int = 0) -> None:
        """
        Emit so many events, each with its number.
        """
        for _ in range(count):
            self.log.emit(Said(f"{self.said}{'x' * size}"))
            self.said += 1

    def fill(self) -> int:
        """
        @return: how many messages the log takes before it has no room.
        """
        while not self.clock.getDelayedCalls():
            self.say(1)
        return self.said - 1

    def heard(self) -> list[int]:
        """
        The numbers of what the log has taken since the last time.
        """
        return [int(line.strip(b"x").rpartition(b"=")[2]) for line in self.taken()]

    def test_order(self) -> None:
        """
        What there is no room for comes when there is, in order, even if nothing
        else happens; nobody waits for that.
        """
        before = self.fill()
        self.say(3)
        self.clock.advance(AGAIN_SECONDS)
        self.assertEqual(self.heard(), [*range(before)])
        for _ in range(5):
            self.clock.advance(AGAIN_SECONDS)
        self.assertEqual(self.heard(), [*range(before, self.said)])
        self.assertEqual((self.clock.getDelayedCalls(), self.lost), ([], []))

    def test_nextEvent(self) -> None:
        """
        The next event brings out what waits before it, where nobody tries
        again.
        """
        before = self.fill()
        self.clock = Clock()
        self.heard()
        self.say(1)
        self.assertEqual(self.heard(), [before, before + 1])

    def test_stamped(self) -> None:
        """
        A message that waits is as it was when it happened.
        """
        self.log.form = lambda event: f"{self.clock.seconds():g} {event}".encode()
        self.fill()
        self.taken()
        self.clock.advance(60)
        self.assertTrue(self.taken()[0].startswith(b"0 "))

    def test_atOnce(self) -> None:
        """
        A log that takes lines again gets only so many at a time.
        """
        self.fill()
        self.say(3 * AT_ONCE)
        self.log.address = f"{self.address}-gone"
        self.clock.advance(AGAIN_SECONDS)
        self.assertEqual(len(self.lost), AT_ONCE)
        self.clock.advance(AGAIN_SECONDS)
        self.assertEqual(len(self.lost), 2 * AT_ONCE)

    def test_lost(self) -> None:
        """
        What is too much to keep is counted, and the count follows what was
        kept.
        """
        before = self.fill()
        size = WAITING_BYTES // 10
        self.say(20, size)
        told: list[bytes] = []
        while self.clock.getDelayedCalls():
            told += self.taken()
            self.clock.advance(AGAIN_SECONDS)
        told += self.taken()
        lost = self.said - (len(told) - 1)
        self.assertEqual(told.pop(), b"ACTION=log-lost COUNT=%d" % lost)
        numbers = [int(line.strip(b"x").rpartition(b"=")[2]) for line in told]
        self.assertEqual(numbers, [*range(self.said - lost)])
        self.assertGreater(len(numbers), before + 5)
        self.say(1)
        self.assertEqual(self.heard(), [self.said - 1])

    def test_finish(self) -> None:
        """
        At the end of a program what waits comes out, more than are sent at a
        time.
        """
        self.fill()
        self.say(2 * AT_ONCE)
        self.daemon.settimeout(10)
        told: list[int] = []
        listening = Thread(
            target=lambda: told.extend(
                int(self.daemon.recv(1000).rpartition(b"=")[2])
                for _ in range(self.said)
            )
        )
        listening.start()
        finish_logs()
        listening.join()
        self.assertEqual(told, [*range(self.said)])
        self.assertEqual(self.lost, [])

    def test_finishStuck(self) -> None:
        """
        A log that does not take them even then has had its moment; they are
        told elsewhere, with the count of those that are nowhere.
        """
        before = self.fill()
        self.say(20, WAITING_BYTES // 10)
        # The moment passes while the first one waits.
        times = iter([0.0, LAST_SECONDS])
        self.log.seconds = lambda: next(times)
        finish_logs()
        told = [event for event, _ in self.lost]
        *kept, last = told
        self.assertEqual(kept[0], Said(f"{before}"))
        assert isinstance(last, LinesLost)
        self.assertEqual(before + len(kept) + last.count, self.said)
        finish_logs()
        self.assertEqual(len(self.lost), len(told))

    def test_gone(self) -> None:
        """
        A log that is gone by then has what waits told elsewhere.
        """
        before = self.fill()
        self.daemon.close()
        self.clock.advance(AGAIN_SECONDS)
        [(event, _)] = self.lost
        self.assertEqual(event, Said(f"{before}"))

    def test_threads(self) -> None:
        """
        Events of several threads are each sent once.
        """
        self.fill()
        self.heard()
        threads = [Thread(target=self.say, args=(50,)) for _ in range(4)]
        told: list[bytes] = []
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            told += self.taken()
        while self.clock.getDelayedCalls():
            self.clock.advance(AGAIN_SECONDS)
            told += self.taken()
        self.assertEqual(len(told), 201)
