# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.protocol.client}, over real TLS in memory, against agents
of every kind: original ones, other ones' and hostile ones.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.test.iosim import ConnectionCompleter

from ctrlexec.errors import ProtocolError, TransportError
from ctrlexec.protocol import limits
from ctrlexec.protocol.connection import LINGER_SECONDS
from ctrlexec.protocol.messages import (
    PingAnswer,
    RunFinished,
    RunRequest,
)
from ctrlexec.values import Target
from tests.wires import (
    HOST,
    PING,
    PONG,
    TARGET,
    ClientTestCase,
    http,
)


class AnswerTests(ClientTestCase):
    """
    Answers, and what is none.
    """

    def test_request(self) -> None:
        """
        The bytes of a request: one that closes, for the host that was meant.
        """
        agent = self.network.scripted(http(PONG))
        self.ping()
        self.assertEqual(
            agent.received,
            b"POST /ping HTTP/1.1\r\nHost: agent-one.example:7443\r\n"
            b"Content-Type: application/json\r\nContent-Length: 14\r\n"
            b'Connection: close\r\n\r\n{"reqid":"9f"}',
        )

    def test_ipv6(self) -> None:
        """
        An IPv6 address stands in brackets where a port follows.
        """
        agent = self.network.scripted(http(PONG))
        self.ping(Target("agent-one", "2001:db8::1", 7443))
        self.assertIn(b"\r\nHost: [2001:db8::1]:7443\r\n", agent.received)

    def test_shapes(self) -> None:
        """
        Answers of originals and of others: HTTP/1.0 until the connection is
        closed, names in any case, chunks, bare line feeds, a byte at a time.
        """
        whole = http(PONG)
        shapes: list[tuple[bytes, ...]] = [
            (whole,),
            (http(PONG, minor=0),),
            (b"HTTP/1.0 200 OK\r\n\r\n" + PONG,),
            (b"HTTP/1.0 200 OK\nCONTENT-LENGTH: %d\n\n" % len(PONG), PONG),
            (b"HTTP/1.1 200\r\ncontent-length:%d\r\n\r\n" % len(PONG), PONG),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"%x\r\n%s\r\n0\r\n\r\n" % (len(PONG), PONG),
            ),
            (b"HTTP/1.1 100 Continue\r\n\r\n" * 3, whole),
            tuple(bytes([byte]) for byte in whole),
            (whole, b"and something else"),
            (whole, whole),
        ]
        for shape in shapes:
            self.setUp()
            self.network.scripted(*shape)
            answer = self.successResultOf(self.ping())
            self.assertEqual(answer, PingAnswer("agent-one", "0.8.4", "e", "9f"))
            self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_lingering(self) -> None:
        """
        An answer counts when it is whole; an agent that then neither speaks
        nor closes is not waited for longer than a few seconds.
        """
        agent = self.network.scripted(http(PONG), closes=False)
        self.successResultOf(self.ping())
        self.network.flush()
        self.assertIsNotNone(agent.lost)

    def test_deaf(self) -> None:
        """
        The same where the agent does not even answer TLS's own goodbye.
        """
        self.network.scripted(http(PONG), closes=False)
        asked = Deferred.fromCoroutine(self.network.client().ping(TARGET, PING))
        pump = ConnectionCompleter(self.reactor).succeedOnce(greet=False)
        assert pump is not None
        while not asked.called:
            pump.pump()
        self.successResultOf(asked)
        self.reactor.advance(LINGER_SECONDS - 0.1)
        self.assertFalse(pump.clientIO.disconnecting)
        self.reactor.advance(0.1)
        self.assertTrue(pump.clientIO.disconnecting)
        pump.flush()

    def test_run(self) -> None:
        """
        A run's answer, to the longest that is allowed.
        """
        body = b'{"script":"a","exit":0,"stdout":"%s"}'
        length = 100_000 - len(body % b"")
        self.network.scripted(http(body % (b"x" * length)))
        client = self.network.client()
        asked = self.network.ask(client.run(TARGET, RunRequest("a")))
        self.assertEqual(
            self.successResultOf(asked), RunFinished("a", 0, "x" * length, "", "")
        )

    def test_tooLarge(self) -> None:
        """
        A hundred megabytes are cut off at the limit, announced or not.
        """
        for head in (
            b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n",
            b"HTTP/1.0 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6400000\r\n",
        ):
            self.setUp()
            self.network.scripted(head, *[b"x" * 1_000_000] * 100)
            self.assertFails(self.ping(), TransportError, "the answer is too large")

    def test_rubbish(self) -> None:
        """
        What is no answer, in words.
        """
        known = {
            b"SSH-2.0-OpenSSH\r\n": "not an HTTP answer",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n": "malformed header",
            b"x" * (limits.HEADER_BYTES + 1): "header too large",
        }
        for data, reason in known.items():
            self.setUp()
            self.network.scripted(data)
            text = f"the agent's answer makes no sense: {reason}"
            self.assertFails(self.ping(), TransportError, text)

    def test_notJson(self) -> None:
        """
        A body that is none of ours.
        """
        for body in (b"", b"<html>", b"[]", PONG[:-1]):
            self.setUp()
            self.network.scripted(http(body))
            text = "the answer is not a JSON object"
            self.assertFails(self.ping(), ProtocolError, text)

    def test_cut(self) -> None:
        """
        Half an answer is none, wherever it is cut.
        """
        whole = http(PONG)
        for end in (0, 1, 20, len(whole) - len(PONG), len(whole) - 1):
            self.setUp()
            self.network.scripted(whole[:end])
            text = f"host '{HOST}' closed the connection without an answer"
            self.assertFails(self.ping(), TransportError, text)

    def test_unanswered(self) -> None:
        """
        Who asked for a run that was not answered is told to look before they
        ask again; not so where the agent never got the request.
        """
        for script, hint in (
            (b"", "the script may still be running there: look for r-1 in the log"),
            (b"HTTP/1.1 200 OK", "the script may still be running there"),
        ):
            self.setUp()
            self.network.scripted(script)
            client = self.network.client()
            asked = self.network.ask(client.run(TARGET, RunRequest("a", reqid="r-1")))
            error = self.failureResultOf(asked, TransportError).value
            self.assertTrue(error.hint.startswith(hint), error.hint)
        self.setUp()
        self.network.scripted(b"")
        error = self.failureResultOf(self.ping(), TransportError).value
        self.assertEqual(error.hint, "")

    def test_refusals(self) -> None:
        """
        Refusals are errors in the words of PROTOCOL.md section 7.
        """
        known = {
            (403, b'{"error":"serial mismatch"}'): "forbidden: serial mismatch",
            (403, b"<html>"): "forbidden: no reason given",
            (413, b'{"error":"request too large"}'): "request too large",
            (404, b'{"error":"not found"}'): "the agent answered 404: not found",
            (500, b""): "the agent answered 500",
        }
        for (code, body), text in known.items():
            self.setUp()
            self.network.scripted(http(body, code))
            self.assertFails(self.ping(), ProtocolError, text)

    def test_slow(self) -> None:
        """
        An agent that does not answer in time.
        """
        self.network.scripted(b"HTTP/1.1 200 OK\r\n", closes=False)
        asked = self.ping()
        self.reactor.advance(59.9)
        self.network.flush()
        self.assertNoResult(asked)
        self.reactor.advance(0.1)
        self.assertFails(asked, TransportError, "read timeout after 60s")

    def test_silentPort(self) -> None:
        """
        The time for the answer covers the handshake: a port that takes
        connections and says nothing does not hold us.
        """
        self.network.scripted()
        asked = Deferred.fromCoroutine(self.network.client().ping(TARGET, PING))
        pump = ConnectionCompleter(self.reactor).succeedOnce(greet=False)
        assert pump is not None
        self.reactor.advance(60)
        self.assertFails(asked, TransportError, "read timeout after 60s")
        pump.flush()
