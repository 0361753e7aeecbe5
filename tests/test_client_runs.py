# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.protocol.client}: what is asked about runs that have begun,
and what kind of failure each failure is, over real TLS in memory.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from typing import Any

from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.test.iosim import ConnectionCompleter

from ctrlexec.errors import (
    CtrlExecError,
    Forbidden,
    InvalidValue,
    ProtocolError,
    Unanswered,
    Unreachable,
    Untrusted,
)
from ctrlexec.pki import AgentRole, parse_certificate
from ctrlexec.protocol.client import AgentClient
from ctrlexec.protocol.codec_trust import NoSuchRequest
from ctrlexec.protocol.connection import ClientConnection, TooLarge
from ctrlexec.protocol.messages import RunAccepted, RunRefused, RunRequest
from ctrlexec.protocol.run_messages import (
    CancelDone,
    FollowRequest,
    LiveRun,
    LiveRunsAnswer,
    NoSuchRun,
    RunResult,
    Signalled,
)
from ctrlexec.tls import ServerConnections, mutual_server
from tests.authority import KEY, OTHER_KEY
from tests.wired import AGENT, OTHER_CA, credentials, showing
from tests.wires import HOST, PONG, TARGET, ClientTestCase, http

RUN = RunRequest("a", reqid="9f")
UNKNOWN = b'{"status":"unknown","reqid":"9f"}'
Asking = Callable[[AgentClient], Awaitable[Any]]


class AskTests(ClientTestCase):
    """
    Questions about runs, and their answers.
    """

    def ask(self, asking: Asking, answer: bytes, **options: Any) -> Deferred[Any]:
        """
        Ask an agent that gives this answer.
        """
        self.reactor.tcpServers.clear()
        self.agent = self.network.scripted(answer)
        asked = self.network.ask(asking(self.network.client(**options)))
        self.network.flush()
        return asked

    def test_asynchronous(self) -> None:
        """
        An order that nobody waits for is accepted, or the agent is busy.
        """
        order = RunRequest("a", reqid="9f", asynchronous=True)
        accepted = http(b'{"script":"a","status":"accepted","reqid":"9f"}', 202)
        asked = self.ask(lambda agents: agents.run(TARGET, order), accepted)
        self.assertEqual(self.successResultOf(asked), RunAccepted("a", "9f"))
        self.assertIn(b'"async":true', self.agent.received)
        busy = http(
            b'{"script":"a","status":"busy","reqid":"9f",'
            b'"error":"script already running"}',
            409,
        )
        asked = self.ask(lambda agents: agents.run(TARGET, order), busy)
        self.assertEqual(
            self.successResultOf(asked),
            RunRefused("script already running", "a", "9f", "busy"),
        )

    def test_result(self) -> None:
        """
        What became of a run, if it is known.
        """
        known = {
            http(
                b'{"reqid":"9f","status":"done","script":"a","exit":"3","stdout":"o"}'
            ): RunResult("9f", "a", "done", exit=3, stdout="o", original=True),
            http(UNKNOWN, 404): NoSuchRun("9f"),
        }
        for answer, expected in known.items():
            asked = self.ask(lambda agents: agents.result(TARGET, "9f"), answer)
            self.assertEqual(self.successResultOf(asked), expected)
            self.assertTrue(
                self.agent.received.startswith(b"GET /result/9f HTTP/1.1\r\n")
            )

    def test_otherResult(self) -> None:
        """
        The record of another run is no answer.
        """
        answer = http(b'{"reqid":"9e","status":"done","exit":0}')
        asked = self.ask(lambda agents: agents.result(TARGET, "9f"), answer)
        why = self.failureResultOf(asked, ProtocolError)
        self.assertEqual(str(why.value), "the answer is about another run")

    def test_noPath(self) -> None:
        """
        What can be no id of a run is not asked about.
        """
        for reqid in ("", "../9f", "9f HTTP/1.1\r\n"):
            asked: Deferred[Any] = Deferred.fromCoroutine(
                self.network.client().result(TARGET, reqid)
            )
            self.failureResultOf(asked, InvalidValue)

    def test_cancel(self) -> None:
        """
        The answer to a cancel lists what was signalled.
        """
        known = {
            http(
                b'{"status":"ok","reqid":"9f","state":"cancelled","signalled":'
                b'[{"pid":7,"command":"sleep","signal":"TERM"}]}'
            ): CancelDone("9f", "cancelled", (Signalled(7, "sleep", "TERM"),)),
            http(UNKNOWN, 404): NoSuchRun("9f"),
        }
        for answer, expected in known.items():
            asked = self.ask(lambda agents: agents.cancel(TARGET, "9f"), answer)
            self.assertEqual(self.successResultOf(asked), expected)
            self.assertIn(b"POST /cancel ", self.agent.received)
            self.assertTrue(self.agent.received.endswith(b'{"reqid":"9f"}'))

    def test_patience(self) -> None:
        """
        To cancel a run and to begin to follow one may take a minute, however
        short the time for other answers is; a longer one counts.
        """

        def hear(event: object) -> None:
            pass

        questions: list[tuple[Asking, float, str]] = [
            (lambda agents: agents.cancel(TARGET, "9f"), 5, "60s"),
            (
                lambda agents: agents.follow(TARGET, FollowRequest("9f"), hear),
                5,
                "60s",
            ),
            (lambda agents: agents.cancel(TARGET, "9f"), 90, "90s"),
            (lambda agents: agents.result(TARGET, "9f"), 5, "5s"),
        ]
        for asking, seconds, text in questions:
            self.setUp()
            self.network.scripted(closes=False)
            asked = self.network.ask(asking(self.network.client(read_seconds=seconds)))
            self.reactor.advance(float(text[:-1]) - 0.1)
            self.assertNoResult(asked)
            self.reactor.advance(0.1)
            self.assertFails(asked, Unanswered, f"read timeout after {text}")

    def test_runs(self) -> None:
        """
        What runs there.
        """
        answer = http(
            b'{"status":"ok","others":2,"runs":[{"reqid":"9f","script":"a",'
            b'"state":"running","started":"s","seconds":1.5,"username":"me",'
            b'"async":true,"pid":7}]}'
        )
        asked = self.ask(lambda agents: agents.runs(TARGET), answer)
        run = LiveRun("9f", "a", "running", "s", 1.5, "me", True, 7)
        self.assertEqual(self.successResultOf(asked), LiveRunsAnswer((run,), 2))
        self.assertTrue(self.agent.received.startswith(b"GET /runs HTTP/1.1\r\n"))

    def test_originals(self) -> None:
        """
        An agent that knows no such question says so in its own way.
        """
        questions: list[Asking] = [
            lambda agents: agents.result(TARGET, "9f"),
            lambda agents: agents.cancel(TARGET, "9f"),
            lambda agents: agents.runs(TARGET),
            lambda agents: agents.follow(TARGET, FollowRequest("9f"), lambda _: None),
        ]
        for asking in questions:
            asked = self.ask(asking, http(b'{"error":"not found"}', 404, minor=0))
            why = self.failureResultOf(asked, NoSuchRequest)
            self.assertEqual(str(why.value), "the agent answered 404: not found")


class KindTests(ClientTestCase):
    """
    Whether an agent was asked: a run that was not asked for can be asked for
    again.
    """

    def run_there(self) -> Deferred[Any]:
        """
        Ask an agent for a run.
        """
        return self.network.ask(self.network.client().run(TARGET, RUN))

    def assertKind(self, asked: Deferred[Any], kind: type[CtrlExecError]) -> str:
        """
        It failed like this.
        """
        why = self.failureResultOf(asked, kind).value
        self.assertIs(type(why), kind)
        self.network.flush()
        return str(why)

    def test_unreachable(self) -> None:
        """
        Without a connection the agent was not asked.
        """
        for why in (
            error.getConnectError(OSError(errno.ECONNREFUSED, "from the system")),
            error.getConnectError(OSError(errno.EHOSTUNREACH, "from the system")),
            error.getConnectError(OSError(errno.ETIMEDOUT, "from the system")),
            error.TimeoutError(),
            error.DNSLookupError(),
            OSError("out of sockets"),
        ):
            self.setUp()
            asked = self.run_there()
            self.fail_once(why)
            self.assertKind(asked, Unreachable)

    def test_noHandshake(self) -> None:
        """
        Nor was it if there was no handshake: the port says nothing, or closes.
        """
        self.network.scripted()
        for closes in (False, True):
            asked: Deferred[Any] = Deferred.fromCoroutine(
                self.network.client().run(TARGET, RUN)
            )
            pump = ConnectionCompleter(self.reactor).succeedOnce(greet=False)
            assert pump is not None
            if closes:
                pump.serverIO.stream.clear()
                pump.clientIO.stream.clear()
                pump.serverIO.loseConnection()
                pump.flush()
            else:
                self.reactor.advance(60)
            self.assertKind(asked, Unreachable)
            pump.flush()

    def test_untrusted(self) -> None:
        """
        Nor if we do not trust it: it is of another CA, or another agent.
        """
        for tls in (
            ServerConnections(showing(OTHER_CA, OTHER_KEY)),
            mutual_server(credentials(AgentRole("agent-two"))),
        ):
            self.setUp()
            agent = self.network.scripted(http(PONG), tls=tls)
            self.assertKind(self.run_there(), Untrusted)
            self.assertEqual(agent.received, b"")

    def test_untrusting(self) -> None:
        """
        Nor if it does not trust us, which we learn only when we believe that it
        has been.
        """
        mixed = showing(credentials(AgentRole("agent-one")).cert, KEY)
        store = mixed.get_cert_store()
        assert store is not None
        store.add_cert(X509.from_cryptography(parse_certificate(OTHER_CA)))
        mixed.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
        self.network.scripted(http(PONG), tls=ServerConnections(mixed))
        text = f"TLS handshake with '{HOST}' failed - certificate or trust mismatch"
        self.assertEqual(self.assertKind(self.run_there(), Untrusted), text)

    def test_revoked(self) -> None:
        """
        Nor if its certificate is revoked.
        """
        self.network.scripted(http(PONG))
        client = self.network.client(revoked=lambda: frozenset([AGENT.info.serial]))
        asked = self.network.ask(client.run(TARGET, RUN))
        self.assertEqual(self.assertKind(asked, Untrusted), "certificate revoked")

    def test_forbidden(self) -> None:
        """
        An agent that does not take orders from us has done nothing.
        """
        self.network.scripted(http(b'{"error":"serial mismatch"}', 403))
        text = self.assertKind(self.run_there(), Forbidden)
        self.assertEqual(text, "forbidden: serial mismatch")

    def test_unanswered(self) -> None:
        """
        Whatever goes wrong once it has been asked, it may have done it.
        """
        for script in (
            (b"",),
            (b"HTTP/1.1 200",),
            (b"rubbish\r\n",),
        ):
            self.setUp()
            self.network.scripted(*script)
            self.assertKind(self.run_there(), Unanswered)
        self.setUp()
        self.network.scripted(closes=False)
        asked = self.run_there()
        self.reactor.advance(60)
        self.assertKind(asked, Unanswered)

    def test_tooLarge(self) -> None:
        """
        Of what is too large it is said what allows more.
        """
        self.network.scripted(http(b"x" * 200_000))
        asked = self.run_there()
        why = self.failureResultOf(asked, Unanswered).value
        self.assertIsInstance(why, TooLarge)
        self.assertIn("max_answer", why.hint)
        self.network.flush()

    def test_tampered(self) -> None:
        """
        Nobody in between can make us believe that an agent was not asked, by what
        they send to us or make the agent say of what they send to it.
        """
        connection = ClientConnection(b"", lambda _: None, 1)
        known = {
            "decryption failed or bad record mac": False,
            "ssl/tls alert bad record mac": False,
            "tlsv1 alert internal error": False,
            "wrong version number": False,
            "tlsv1 alert unknown ca": True,
            "sslv3 alert certificate expired": True,
            "tlsv13 alert certificate required": True,
            "ssl/tls alert bad certificate": True,
        }
        for reason, expected in known.items():
            why = SSL.Error([("SSL routines", "", reason)])
            self.assertEqual(connection.is_unasked(why), expected, reason)
        self.assertFalse(connection.is_unasked(error.ConnectionLost()))
        # Once it has taken a first request, it has long looked at us.
        connection.makeConnection(StringTransport())
        connection.free = True
        connection.again(b"")
        alert = SSL.Error([("SSL routines", "", "tlsv1 alert unknown ca")])
        self.assertFalse(connection.is_unasked(alert))

    def test_tamperedLater(self) -> None:
        """
        Rubbish in place of the answer, from somebody in between, leaves it open
        whether the agent was asked.
        """
        self.network.scripted(closes=False)
        asked = self.run_there()
        assert self.network.pump is not None
        client: Any = self.network.pump.client
        client.dataReceived(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        self.network.flush()
        self.assertKind(asked, Unanswered)
