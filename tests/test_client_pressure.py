# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.protocol.client} and L{ctrlexec.protocol.connection}:
streams and time, over real TLS in memory: what is kept, what is silent, and who
is slow.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.test.iosim import ConnectionCompleter

from ctrlexec.errors import Unanswered
from ctrlexec.protocol import limits
from ctrlexec.protocol.codec_runs import EVENTS_TYPE, encode_event, encode_heartbeat
from ctrlexec.protocol.exchange import Exchange, Streaming
from ctrlexec.protocol.pool import Pool
from ctrlexec.protocol.run_messages import (
    FollowRequest,
    Output,
    StateChanged,
)
from tests.hearing import (
    CLOSED,
    END,
    HELLO,
    LEFT,
    RUN,
    RUNNING,
    LiveTestCase,
    Source,
)
from tests.narrow import NarrowTransport, narrow_wire
from tests.wires import PING, PONG, TARGET


class PooledTests(LiveTestCase):
    """
    Connections that were streamed on.
    """

    def setUp(self) -> None:
        super().setUp()
        self.pool = Pool(self.reactor)
        self.network.hosted(self.host)

    def stream(self, *lines: bytes | None) -> tuple[Deferred[Any], Streaming]:
        """
        Ask on a connection that may stay, and be told this.
        """
        asked = self.live(pool=self.pool)
        source = Source()
        source.lines += lines
        streaming = self.host.exchanges[-1].stream(200, EVENTS_TYPE, source.pull)
        self.network.flush()
        return asked, streaming

    def again(self, asking: Any) -> Deferred[Any]:
        """
        Ask on the connection that is there.
        """
        asked: Deferred[Any] = Deferred.fromCoroutine(asking)
        self.network.flush()
        return asked

    def test_kept(self) -> None:
        """
        After a whole stream the connection serves other questions, streams
        again among them.
        """
        asked, _ = self.stream(encode_event(HELLO), encode_event(END), None)
        self.successResultOf(asked)
        client = self.network.client(pool=self.pool)
        self.host.answers = [(200, PONG)]
        self.successResultOf(self.again(client.ping(TARGET, PING)))
        asked = self.again(client.run_live(TARGET, RUN, self.hear))
        source = Source()
        source.lines += [encode_event(HELLO), encode_event(END), None]
        self.host.exchanges[-1].stream(200, EVENTS_TYPE, source.pull)
        self.network.flush()
        self.assertEqual(self.successResultOf(asked), END)
        self.assertEqual(self.heard, [HELLO, HELLO])
        self.assertEqual(len(self.host.visits), 1)
        self.pool.close()
        self.network.flush()

    def test_lost(self) -> None:
        """
        After half a stream it serves nothing: who asked knows that the run may go
        on, and nothing is asked again.
        """
        asked, _ = self.stream(encode_event(HELLO))
        assert self.network.pump is not None
        self.network.pump.serverIO.abortConnection()
        self.network.flush()
        error = self.assertNothing(asked, Unanswered, CLOSED)
        self.assertTrue(error.hint.startswith(LEFT))  # type: ignore[attr-defined]
        self.assertEqual(self.heard, [HELLO])
        self.assertIsNone(self.pool.take(TARGET))
        self.assertEqual([*self.reactor.tcpClients], [])

    def test_deadOnArrival(self) -> None:
        """
        A run on a connection that turns out to be dead is not asked for again.
        """
        asked, _ = self.stream(encode_event(END), None)
        self.successResultOf(asked)
        client = self.network.client(pool=self.pool)
        again: Deferred[Any] = Deferred.fromCoroutine(
            client.run_live(TARGET, RUN, self.hear)
        )
        assert self.network.pump is not None
        self.network.pump.serverIO.abortConnection()
        self.network.flush()
        self.assertNothing(again, Unanswered, CLOSED)
        self.assertEqual([*self.reactor.tcpClients], [])

    def test_followedAgain(self) -> None:
        """
        To follow a run twice does no harm, so that is asked again.
        """
        asked, _ = self.stream(encode_event(END), None)
        self.successResultOf(asked)
        client = self.network.client(pool=self.pool)
        again: Deferred[Any] = Deferred.fromCoroutine(
            client.follow(TARGET, FollowRequest("9f"), self.hear)
        )
        assert self.network.pump is not None
        self.network.pump.serverIO.abortConnection()
        self.network.flush()
        self.network.pump = ConnectionCompleter(self.reactor).succeedOnce()
        source = Source()
        source.lines += [encode_event(END), None]
        self.host.exchanges[-1].stream(200, EVENTS_TYPE, source.pull)
        self.network.flush()
        self.assertEqual(self.successResultOf(again), END)
        self.pool.close()
        self.network.flush()


class SilenceTests(LiveTestCase):
    """
    Agents that say nothing.
    """

    def setUp(self) -> None:
        super().setUp()
        self.network.hosted(self.host)

    def stream(self, asked: Deferred[Any], *events: Any) -> tuple[Source, Streaming]:
        """
        Tell of a run.
        """
        source = Source()
        source.lines += [encode_event(event) for event in events]
        exchange: Exchange = self.host.exchanges[-1]
        streaming = exchange.stream(200, EVENTS_TYPE, source.pull)
        self.network.flush()
        self.assertNoResult(asked)
        return source, streaming

    def wait(self, seconds: float) -> None:
        """
        Time passes.
        """
        self.reactor.advance(seconds)
        self.network.flush()

    def test_noAnswer(self) -> None:
        """
        The answer must begin in the time that any answer has.
        """
        asked = self.live(read_seconds=30)
        self.wait(29.9)
        self.assertNoResult(asked)
        self.wait(0.1)
        error = self.assertNothing(asked, Unanswered, "read timeout after 30s")
        self.assertTrue(error.hint.startswith(LEFT))  # type: ignore[attr-defined]

    def test_heartbeats(self) -> None:
        """
        A run that says nothing lives for as long as its agent says so, whatever
        the time for an answer is.
        """
        asked = self.live(read_seconds=30)
        source, streaming = self.stream(asked, RUNNING)
        for beat in range(100):
            self.wait(limits.SILENCE_SECONDS - 1)
            source.lines.append(encode_heartbeat(beat))
            streaming.ready()
            self.network.flush()
        source.lines += [encode_event(END), None]
        streaming.ready()
        self.network.flush()
        self.assertEqual(self.successResultOf(asked), END)
        self.network.flush()

    def test_silence(self) -> None:
        """
        An agent that does not even say that it is there has gone.
        """
        self.assertGreater(limits.SILENCE_SECONDS, 4 * limits.HEARTBEAT_SECONDS)
        asked = self.live()
        self.stream(asked, HELLO)
        self.wait(limits.SILENCE_SECONDS - 0.1)
        self.assertNoResult(asked)
        self.wait(0.1)
        self.assertNothing(asked, Unanswered, "read timeout after 45s")

    def test_silentEnd(self) -> None:
        """
        An agent that has told the end, and does not end the stream, is not
        waited for in vain.
        """
        asked = self.live()
        self.stream(asked, HELLO, END)
        self.wait(limits.SILENCE_SECONDS)
        self.assertEqual(self.successResultOf(asked), END)
        self.network.flush()

    def test_slowListener(self) -> None:
        """
        While we do not read, the agent's silence is our own.
        """
        taken: Deferred[None] = Deferred()
        asked = self.live(lambda event: taken)
        self.stream(asked, HELLO)
        self.wait(10 * limits.SILENCE_SECONDS)
        self.assertNoResult(asked)
        taken.callback(None)
        self.wait(limits.SILENCE_SECONDS - 0.1)
        self.assertNoResult(asked)
        self.wait(0.1)
        self.assertNothing(asked, Unanswered, "read timeout after 45s")

    def test_keptFromReading(self) -> None:
        """
        What has come while we were kept from reading it counts, also when the
        time is over by then.
        """
        asked = self.live()
        source, streaming = self.stream(asked, HELLO)
        source.lines.append(encode_heartbeat(1))
        streaming.ready()
        self.reactor.pump([0, 0])
        pump = self.network.pump
        assert pump is not None
        # As a reactor does it: what is due first, and then what has come.
        self.reactor.callLater(limits.SILENCE_SECONDS, pump.pump, False, False)
        self.wait(limits.SILENCE_SECONDS)
        self.wait(limits.SILENCE_SECONDS - 0.1)
        source.lines += [encode_event(END), None]
        streaming.ready()
        self.network.flush()
        self.assertEqual(self.successResultOf(asked), END)
        self.network.flush()


class PressureTests(LiveTestCase):
    """
    Somebody hears more slowly than a run writes: nothing is lost, and nothing is
    held.
    """

    #: What all of us may hold of a stream, agent and dispatcher each.
    MOST_BYTES = 262_144

    def setUp(self) -> None:
        super().setUp()
        self.taking: list[Deferred[None]] = []
        self.pulled = 0
        self.lost: list[str] = []
        self.network.hosted(self.host)
        client = self.network.client()
        self.asked: Deferred[Any] = Deferred.fromCoroutine(
            client.run_live(TARGET, RUN, self.hear_slowly)
        )
        self.pump = narrow_wire(self.reactor)
        self.pump.flush()
        self.agent, self.dispatcher = self.pump.serverIO, self.pump.clientIO

    def hear_slowly(self, event: Output | StateChanged) -> Deferred[None]:
        """
        Take it only when the test says so.
        """
        self.heard.append(event)
        self.taking.append(Deferred())
        return self.taking[-1]

    def take(self, count: int) -> None:
        """
        Take some events.
        """
        for _ in range(count):
            self.taking[-1].callback(None)
            self.pump.flush()

    def stream(self, total: int = 10**9) -> None:
        """
        Write so many events, as fast as they are pulled.
        """
        text = "x" * limits.EVENT_BYTES

        def pull() -> bytes | None:
            self.pulled += 1
            if self.pulled > total + 1:
                return None
            if self.pulled > total:
                return encode_event(END)
            end = self.pulled * limits.EVENT_BYTES
            return encode_event(Output(1.0, "stdout", text, end))

        [exchange] = self.host.exchanges
        exchange.when_lost(lambda: self.lost.append("lost"))
        exchange.stream(200, EVENTS_TYPE, pull)
        self.pump.flush()

    @property
    def connection(self) -> Any:
        """
        The dispatcher's side of it.
        """
        ends: Any = self.dispatcher
        return ends.protocol._wrappedProtocol.wrappedProtocol

    def leave(self) -> None:
        """
        The dispatcher goes.
        """
        self.asked.cancel()
        self.failureResultOf(self.asked, CancelledError)
        self.pump.flush()
        self.assertEqual(self.lost, ["lost"])

    def test_held(self) -> None:
        """
        As long as one event is not taken, the agent pulls no more of them, and
        neither side holds more than a little; for each that is taken, a few more
        are pulled.
        """
        assert isinstance(self.agent, NarrowTransport)
        self.stream()
        self.assertEqual(len(self.heard), 1)
        pulled = self.pulled
        self.assertLess(pulled * limits.EVENT_BYTES, 3 * self.MOST_BYTES)
        for _ in range(10):
            self.reactor.advance(10)
            self.pump.flush()
        self.assertEqual((self.pulled, len(self.heard)), (pulled, 1))
        self.take(100)
        self.assertEqual(len(self.heard), 101)
        self.assertLess(self.pulled, pulled + 100 + 9)
        self.assertLess(self.connection.held_bytes, self.MOST_BYTES)
        self.assertLess(self.agent.most_bytes, self.MOST_BYTES)
        self.leave()

    def test_whole(self) -> None:
        """
        A slow listener hears all of it, and then the end.
        """
        self.stream(total=50)
        self.assertNoResult(self.asked)
        self.take(50)
        self.assertEqual(self.successResultOf(self.asked), END)
        self.assertEqual(
            [event.end for event in self.heard if isinstance(event, Output)],
            [n * limits.EVENT_BYTES for n in range(1, 51)],
        )
        self.pump.flush()

    def test_goneMeanwhile(self) -> None:
        """
        What an agent has said before its connection was lost is heard at the
        listener's own speed, and then that it was.
        """
        self.stream()
        connection = self.connection
        self.agent.abortConnection()
        self.agent.stream.clear()
        self.pump.flush()
        self.assertFalse(connection.connected)
        self.assertNoResult(self.asked)
        self.take(1)
        self.assertEqual(len(self.heard), 1)
        self.assertNothing(self.asked, Unanswered, CLOSED)

    def test_stalled(self) -> None:
        """
        A listener that takes nothing for very long is left by the agent.
        """
        self.stream()
        self.reactor.advance(limits.FOLLOW_SECONDS)
        self.pump.flush()
        self.assertEqual(self.lost, ["lost"])
        self.assertNoResult(self.asked)
        while self.taking and not self.taking[-1].called:
            self.take(1)
        self.failureResultOf(self.asked, Unanswered)
