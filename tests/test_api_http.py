# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of a socket's connections, and of what goes wrong on them:
L{ctrlexec.api.http}.
"""

from __future__ import annotations

from typing import NoReturn

from twisted.python.failure import Failure
from twisted.web.resource import Resource

from ctrlexec.api.http import CONNECTIONS, ApiRequest, ApiSite, in_words
from ctrlexec.errors import NotFound
from tests.apis import CLIENT, ApiCase, Later, Wire, asking
from tests.dispatching import at_once

HEALTH = asking("GET", "/health")


class CrowdTests(ApiCase):
    """
    As many connections as there may be.
    """

    def setUp(self) -> None:
        super().setUp()
        self.later = Later()
        self.site = ApiSite(self.later, self.reactor, self.dispatcher.events, at_once)

    def test_evicted(self) -> None:
        """
        Of those that are owed nothing, the one goes that was of no use for the
        longest time.
        """
        wires = [self.wire() for _ in range(CONNECTIONS)]
        wires[0].send(HEALTH)
        wires[1].send(HEALTH)
        self.later.requests[1].finish()
        self.wire()
        self.assertEqual(
            [number for number, wire in enumerate(wires) if wire.transport.aborted], [2]
        )
        # Its end is not known yet, and nobody is cut off twice.
        self.wire()
        self.assertTrue(wires[3].transport.aborted)
        for wire in (wires[0], wires[1]):
            self.assertFalse(wire.transport.aborted)
        self.assertEqual(self.logged("api-overload"), [])

    def test_leaving(self) -> None:
        """
        Who has got their answer and does not close keeps nobody out; nobody is
        cut off for that who may yet want something, and nobody twice.
        """
        last = HEALTH.replace(b"HTTP/1.1", b"HTTP/1.0")
        wires = [self.wire().send(last) for _ in range(CONNECTIONS - 1)]
        idle = self.wire()
        for request in self.later.requests[1:]:
            request.finish()
        self.assertFalse(wires[0].transport.half_closed)
        self.assertTrue(wires[1].transport.half_closed)
        self.wire().send(HEALTH)
        self.assertTrue(idle.transport.aborted)
        for _ in range(2):
            self.wire().send(HEALTH)
        self.assertEqual(
            [number for number, wire in enumerate(wires) if wire.transport.aborted],
            [1, 2],
        )

    def test_full(self) -> None:
        """
        Where all are owed an answer, nobody else is let in.
        """
        for _ in range(CONNECTIONS):
            self.wire().send(HEALTH)
        self.assertIsNone(self.site.buildProtocol(CLIENT))
        self.assertEqual(
            self.logged("api-overload"),
            [f"ACTION=api-overload LIVE={CONNECTIONS} PEER=192.0.2.9"],
        )
        self.later.requests[0].finish()
        self.assertIsNotNone(self.site.buildProtocol(CLIENT))

    def test_abort(self) -> None:
        """
        All of them can be closed at once.
        """
        wires = [self.wire().send(HEALTH), self.wire()]
        self.site.abort_all()
        for wire in wires:
            self.assertTrue(wire.transport.aborted)
            wire.leave()
        self.successResultOf(self.site.finish())
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class Broken(Resource):
    """
    Fails before or after it has begun to answer.
    """

    isLeaf = True
    begins = False

    def render(self, request: ApiRequest) -> NoReturn:
        """
        Fail.
        """
        if self.begins:
            request.write(b"half of an an")
        raise ZeroDivisionError("s3cret")


class FaultTests(ApiCase):
    """
    Faults of ours outside of every route.
    """

    def setUp(self) -> None:
        super().setUp()
        self.broken = Broken()
        self.site = ApiSite(self.broken, self.reactor, self.dispatcher.events, at_once)

    def test_before(self) -> None:
        """
        The client hears that there was one, in JSON, and may go on.
        """
        wire = self.wire().send(HEALTH)
        reply = wire.reply()
        self.assertEqual((reply.status, reply.json()["error"]), (500, "internal error"))
        self.assertEqual(reply.fields["connection"], "keep-alive")
        (line,) = self.logged("api-fail")
        self.assertNotIn("s3cret", line)

    def test_after(self) -> None:
        """
        An answer that can not be completed is cut off, not ended.
        """
        self.broken.begins = True
        wire = self.wire().send(HEALTH)
        self.assertTrue(wire.transport.half_closed)
        self.assertFalse(wire.transport.value().endswith(b"0\r\n\r\n"))
        self.assertEqual(len(self.logged("api-fail")), 1)
        wire.leave()

    def test_words(self) -> None:
        """
        What is written down of a fault is where it was, and what the system
        said; an error of ours is a sentence already.
        """

        def words(error: Exception) -> str:
            try:
                raise error
            except Exception:
                return in_words(Failure())

        self.assertRegex(
            words(KeyError("s3cret")), r"^KeyError at test_api_http.py:[0-9]+$"
        )
        self.assertRegex(
            words(OSError(28, "No space left on device")),
            r"^OSError \(No space left on device\) at test_api_http.py:",
        )
        self.assertEqual(words(NotFound("there is none")), "there is none")
        self.assertEqual(in_words(Failure(KeyError())), "KeyError at an unknown place")


class PipelineTests(ApiCase):
    """
    What one request leaves to the next.
    """

    def test_identity(self) -> None:
        """
        No token and no name of one request is another one's.
        """
        self.api.dispatcher = self.made("api_auth_default = allow\n")
        one = {"hosts": ["web-1"], "script": "a", "username": "ann"}
        two = {"hosts": ["web-1"], "script": "a"}
        wire = Wire.to(self.site)
        wire.send(asking("POST", "/run", one) + asking("POST", "/run", two))
        self.assertEqual([each.status for each in wire.replies()], [200, 200])
        self.assertEqual(
            [line.rpartition("USER=")[2] for line in self.logged("dispatch")],
            ["ann", ""],
        )
