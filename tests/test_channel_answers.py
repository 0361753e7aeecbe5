# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of answers that take their time: L{ctrlexec.api.channel} and
L{ctrlexec.api.writing}.
"""

from __future__ import annotations

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from ctrlexec.api.channel import REQUESTS_AT_ONCE
from ctrlexec.api.http import OPERATOR_SECONDS, ApiRequest, ApiSite
from ctrlexec.protocol import limits
from tests.apis import ApiCase, Later, Wire, asking
from tests.dispatching import at_once

HEALTH = asking("GET", "/health")


class AnswerTests(ApiCase):
    """
    Answers that take their time.
    """

    def setUp(self) -> None:
        super().setUp()
        self.later = Later()
        self.site = ApiSite(self.later, self.reactor, self.dispatcher.events, at_once)

    def begun(self, *pieces: bytes) -> tuple[Wire, ApiRequest]:
        """
        A request that waits for its answer.
        """
        wire = self.wire().send(*(pieces or (HEALTH,)))
        return wire, self.later.requests[-1]

    def test_order(self) -> None:
        """
        The second request is not begun before the first is answered.
        """
        wire, first = self.begun(HEALTH + HEALTH)
        self.assertEqual(len(self.later.requests), 1)
        first.write(b"one")
        first.finish()
        self.later.requests[1].write(b"two")
        self.later.requests[1].finish()
        self.assertEqual([each.body for each in wire.replies()], [b"one", b"two"])

    def test_flood(self) -> None:
        """
        Who sends requests without reading answers is not read any more, until
        it is.
        """
        wire, first = self.begun(HEALTH)
        wire.send(b"GET / HTTP/1.1\r\nX: " + b"a" * limits.HEADER_BYTES)
        self.assertEqual(wire.transport.producerState, "paused")
        first.finish()
        self.assertEqual(wire.transport.producerState, "producing")
        self.assertEqual([each.status for each in wire.replies()], [200, 431])

    def test_turns(self) -> None:
        """
        Who sends many requests in one go has some of them answered, and then it
        is somebody else's turn; no more is read meanwhile.
        """
        bad = asking("GET", "/nowhere")
        self.site.resource = self.api.app.resource()
        wire = self.wire().send(bad * (2 * REQUESTS_AT_ONCE + 1))
        self.assertEqual(len(wire.replies()), REQUESTS_AT_ONCE)
        self.assertEqual(wire.transport.producerState, "paused")
        self.assertEqual(wire.send(bad).replies(), [])
        self.reactor.advance(0)
        self.assertEqual(len(wire.replies()), REQUESTS_AT_ONCE + 2)
        self.assertEqual(wire.transport.producerState, "producing")
        wire.send(bad * (REQUESTS_AT_ONCE + 1)).leave()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_slowReader(self) -> None:
        """
        A long answer is written as fast as its client reads it, and as long as
        it does.
        """
        wire, request = self.begun()
        wire.transport.room = 100_000
        request.write(b"a" * 1_000_000)
        request.finish()
        self.assertLess(len(wire.transport.value()), 200_000)
        for _ in range(9):
            self.reactor.advance(limits.WRITE_SECONDS - 1)
            wire.transport.read_by_peer(150_000)
        self.assertEqual(len(wire.reply().body), 1_000_000)
        self.reactor.advance(limits.IDLE_SECONDS)
        self.assertTrue(wire.transport.half_closed)

    def test_noReader(self) -> None:
        """
        A client that does not read at all is cut off.
        """
        wire, request = self.begun()
        wire.transport.room = 0
        request.write(b"a" * 1_000_000)
        request.finish()
        self.reactor.advance(limits.WRITE_SECONDS)
        self.assertTrue(wire.transport.aborted)
        wire.leave()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_operator(self) -> None:
        """
        An operator who looks at the first page of it is left in peace.
        """
        self.site = ApiSite(
            self.later, self.reactor, self.dispatcher.events, at_once, self.later
        )
        wire, request = self.begun()
        wire.transport.room = 0
        request.write(b"a" * 1_000_000)
        self.reactor.advance(OPERATOR_SECONDS - 1)
        self.assertFalse(wire.transport.aborted)
        self.reactor.advance(1)
        self.assertTrue(wire.transport.aborted)

    def test_backPressure(self) -> None:
        """
        What makes an answer as it goes is told when to wait.
        """
        told: list[str] = []

        @implementer(IPushProducer)
        class Maker:
            def pauseProducing(self) -> None:
                told.append("pause")

            def resumeProducing(self) -> None:
                told.append("resume")

            def stopProducing(self) -> None:
                told.append("stop")

        wire, request = self.begun()
        request.registerProducer(Maker(), True)
        wire.transport.room = 10
        request.write(b"a line\n" * 10)
        wire.transport.read_by_peer(10_000)
        self.assertEqual(told, ["pause", "resume"])
        request.unregisterProducer()
        request.finish()
        self.assertEqual(wire.reply().body, b"a line\n" * 10)

    def test_gone(self) -> None:
        """
        A client that leaves is a line of the log, and its request learns it.
        """
        wire, request = self.begun()
        gone = request.notifyFinish()
        wire.leave()
        self.failureResultOf(gone)
        self.assertEqual(
            self.logged("api-request"),
            [
                "ACTION=api-request LEN=0 METHOD=GET PATH=/health PEER=192.0.2.9 "
                "STATUS=499"
            ],
        )

    def test_finish(self) -> None:
        """
        A site that ends closes what is idle, and the rest after its answer.
        """
        idle, (busy, request) = self.wire(), self.begun()
        ended = self.site.finish()
        self.assertTrue(idle.transport.half_closed)
        self.assertFalse(busy.transport.half_closed)
        request.finish()
        self.assertEqual(busy.reply().fields["connection"], "close")
        self.assertTrue(busy.transport.half_closed)
        idle.leave()
        self.assertNoResult(ended)
        busy.leave()
        self.successResultOf(ended)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
