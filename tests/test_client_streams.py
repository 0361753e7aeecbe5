# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.protocol.client} and L{ctrlexec.protocol.connection}: runs
that are heard while they live, over real TLS in memory.
"""

from __future__ import annotations

import json

from twisted.internet.defer import CancelledError, Deferred

from ctrlexec.errors import ProtocolError, Unanswered
from ctrlexec.protocol import limits
from ctrlexec.protocol.codec_runs import EVENTS_TYPE, encode_event, encode_heartbeat
from ctrlexec.protocol.http import LAST_CHUNK, chunk
from ctrlexec.protocol.messages import RunAccepted, RunFinished, RunRefused
from ctrlexec.protocol.run_messages import (
    FollowRequest,
    NoSuchRun,
    Output,
)
from tests.hearing import (
    CLOSED,
    END,
    HEAD,
    HELLO,
    LEFT,
    RUN,
    RUNNING,
    LiveTestCase,
    Source,
    told,
)
from tests.wires import TARGET, http


class AnswerTests(LiveTestCase):
    """
    What an agent may answer to who wants to hear.
    """

    def test_stream(self) -> None:
        """
        Events are told as they come, the last one is the answer.
        """
        self.network.hosted(self.host)
        asked = self.live()
        [exchange] = self.host.exchanges
        self.assertIs(json.loads(exchange.request.body)["stream"], True)
        source = Source()
        streaming = exchange.stream(200, EVENTS_TYPE, source.pull)
        self.network.flush()
        self.assertEqual(self.heard, [])
        for event in (RUNNING, HELLO):
            source.lines.append(encode_event(event))
            streaming.ready()
            self.network.flush()
            self.assertEqual(self.heard[-1], event)
        source.lines += [encode_heartbeat(0.2), encode_event(END), None]
        streaming.ready()
        self.network.flush()
        self.assertEqual(self.successResultOf(asked), END)
        self.assertEqual(self.heard, [RUNNING, HELLO])
        self.network.flush()

    def test_anySplit(self) -> None:
        """
        The same if it comes a byte at a time, and from other hands.
        """
        stream = HEAD + told(RUNNING, HELLO, END) + LAST_CHUNK
        for script in (
            [stream],
            [bytes([byte]) for byte in stream],
            [stream.replace(EVENTS_TYPE.encode(), b"Application/X-NDJSON; a=b")],
            [b"HTTP/1.1 100 Continue\r\n\r\n", stream],
        ):
            self.setUp()
            self.scripted(*script)
            self.assertEqual(self.successResultOf(self.live()), END)
            self.assertEqual(self.heard, [RUNNING, HELLO])
            self.network.flush()

    def test_plain(self) -> None:
        """
        An agent that knows no streams, or has nothing to tell of, answers as it
        always did.
        """
        finished = b'{"script":"a","exit":3,"stdout":"o","stderr":"","reqid":"9f"}'
        refused = b'{"exit":-1,"error":"script not permitted"}'
        accepted = b'{"script":"a","status":"accepted","reqid":"9f"}'
        busy = b'{"script":"a","status":"busy","reqid":"9f","error":"runs"}'
        for answer, expected in (
            (http(finished, minor=0), RunFinished("a", 3, "o", "", "9f")),
            (http(refused), RunRefused("script not permitted")),
            (http(accepted, 202), RunAccepted("a", "9f")),
            (http(busy, 409), RunRefused("runs", "a", "9f", "busy")),
        ):
            self.setUp()
            self.scripted(answer)
            self.assertEqual(self.successResultOf(self.live()), expected)
            self.assertEqual(self.heard, [])
            self.network.flush()

    def test_unwanted(self) -> None:
        """
        A stream that nobody has asked for is no answer to an ordinary order.
        """
        self.scripted(HEAD + told(END) + LAST_CHUNK)
        asked = self.network.ask(self.network.client().run(TARGET, RUN))
        text = "the answer has no exit that is a number"
        self.assertNothing(asked, ProtocolError, text)

    def test_follow(self) -> None:
        """
        A run can be followed from where it was left.
        """
        agent = self.scripted(HEAD + told(HELLO, END) + LAST_CHUNK)
        client = self.network.client()
        asked = self.network.ask(
            client.follow(TARGET, FollowRequest("9f", 5, 2), self.hear)
        )
        self.assertEqual(self.successResultOf(asked), END)
        self.assertEqual(self.heard, [HELLO])
        self.assertTrue(agent.received.startswith(b"POST /follow HTTP/1.1\r\n"))
        self.assertIn(b'{"reqid":"9f","stdout":5,"stderr":2}', agent.received)
        self.network.flush()

    def test_followNobody(self) -> None:
        """
        A run that is not there can not; nor can it where nothing is told.
        """
        client = self.network.client()
        follow = FollowRequest("9f")
        self.scripted(http(b'{"status":"unknown","reqid":"9f"}', 404))
        asked = self.network.ask(client.follow(TARGET, follow, self.hear))
        self.assertEqual(self.successResultOf(asked), NoSuchRun("9f"))
        self.network.flush()
        self.scripted(http(b'{"status":"ok"}'))
        asked = self.network.ask(client.follow(TARGET, follow, self.hear))
        text = "the answer does not tell what the run writes"
        self.assertNothing(asked, ProtocolError, text)


class LossTests(LiveTestCase):
    """
    Streams that end before their end.
    """

    def test_cut(self) -> None:
        """
        Wherever it is cut, that is no end, and what had come was told.
        """
        whole = HEAD + told(HELLO, END)
        end = len(HEAD + told(HELLO))
        for cut in (0, 20, len(HEAD), len(HEAD) + 9, end, end + 3, len(whole) - 9):
            self.setUp()
            self.scripted(whole[:cut])
            error = self.assertNothing(self.live(), Unanswered, CLOSED)
            self.assertTrue(error.hint.startswith(LEFT))  # type: ignore[attr-defined]
            self.assertEqual(self.heard, [HELLO] if cut >= end else [])

    def test_cutAfterwards(self) -> None:
        """
        A stream whose last event has come is whole, even if its last chunk has
        not.
        """
        self.scripted(HEAD + told(HELLO, END))
        self.assertEqual(self.successResultOf(self.live()), END)
        self.network.flush()

    def test_noEnd(self) -> None:
        """
        One that closes in good form without its last event is not.
        """
        for events in ((), (HELLO,)):
            self.setUp()
            self.scripted(HEAD + told(*events) + LAST_CHUNK, closes=False)
            text = "the agent's answer makes no sense: the stream has no end"
            self.assertNothing(self.live(), Unanswered, text)

    def test_lies(self) -> None:
        """
        What is no event ends it.
        """
        known = {
            b"hello\n": "an event of the stream is not a JSON object",
            b'{"t":1,"state":"eaten"}\n': "state must be one that a run can be in",
            encode_event(END) * 2: "the stream goes on after its end",
        }
        for line, text in known.items():
            self.setUp()
            self.scripted(HEAD + told(HELLO) + chunk(line), closes=False)
            self.assertNothing(self.live(), ProtocolError, text)
            self.assertEqual(self.heard, [HELLO])

    def test_endless(self) -> None:
        """
        A line without an end is given up in time, whether it is one chunk or
        many.
        """
        for piece in (
            b"ffffffff\r\n" + b"x" * 4 * limits.EVENT_LINE_BYTES,
            chunk(b"x" * 1000) * (4 * limits.EVENT_LINE_BYTES // 1000),
        ):
            self.setUp()
            self.scripted(HEAD + piece, closes=False)
            text = "an event of the stream is too long"
            self.assertNothing(self.live(), ProtocolError, text)

    def test_unbounded(self) -> None:
        """
        All of them together may be longer than any answer.
        """
        self.scripted(HEAD, *[told(HELLO)] * 5000, told(END) + LAST_CHUNK)
        self.assertEqual(self.successResultOf(self.live(answer_bytes=1000)), END)
        self.assertEqual(len(self.heard), 5000)
        self.network.flush()

    def test_backwards(self) -> None:
        """
        An agent that counts backwards is heard all the same.
        """
        back = Output(0.3, "stdout", "again\n", 0)
        self.scripted(HEAD + told(HELLO, back, END) + LAST_CHUNK)
        self.assertEqual(self.successResultOf(self.live()), END)
        self.assertEqual(self.heard, [HELLO, back])
        self.network.flush()

    def test_cancelled(self) -> None:
        """
        Who does not want to hear any more closes the connection, and the agent
        sees that.
        """
        lost: list[str] = []
        self.network.hosted(self.host)
        asked = self.live()
        [exchange] = self.host.exchanges
        exchange.when_lost(lambda: lost.append("lost"))
        source = Source()
        source.lines.append(encode_event(HELLO))
        exchange.stream(200, EVENTS_TYPE, source.pull)
        self.network.flush()
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.network.flush()
        self.assertEqual(lost, ["lost"])

    def test_saidBefore(self) -> None:
        """
        An agent that has said all and closed is heard to the end, at the
        listener's own speed.
        """
        for rest, outcome in ((told(END) + LAST_CHUNK, END), (b"", None)):
            self.setUp()
            taking: list[Deferred[None]] = []

            def slowly(
                event: object, taking: list[Deferred[None]] = taking
            ) -> Deferred[None]:
                taking.append(Deferred())
                return taking[-1]

            self.scripted(HEAD + told(HELLO, HELLO, HELLO) + rest)
            asked = self.live(slowly)
            self.network.flush()
            for count in (1, 2, 3):
                self.assertEqual(len(taking), count)
                self.assertNoResult(asked)
                taking[-1].callback(None)
            if outcome is None:
                self.assertNothing(asked, Unanswered, CLOSED)
            else:
                self.assertEqual(self.successResultOf(asked), outcome)

    def test_fault(self) -> None:
        """
        Whoever hears it and can not take it ends it with their own error.
        """

        class Full(Exception):
            pass

        def full(event: object) -> None:
            raise Full("no room")

        agent = self.scripted(HEAD + told(HELLO), closes=False)
        self.assertNothing(self.live(full), Full, "no room")
        self.assertIsNotNone(agent.lost)
        later: Deferred[None] = Deferred()
        agent = self.scripted(HEAD + told(HELLO), closes=False)
        asked = self.live(lambda event: later)
        self.assertNoResult(asked)
        later.errback(Full("no room"))
        self.assertNothing(asked, Full, "no room")
        self.assertIsNotNone(agent.lost)
