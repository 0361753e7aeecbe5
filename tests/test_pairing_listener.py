# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.pairing}: what becomes of a request.
"""

from __future__ import annotations

import attrs
from hypothesis import given
from hypothesis import strategies as st

from ctrlexec.dispatcher.records import QueuedRequest
from ctrlexec.dispatcher.surroundings import Ending
from ctrlexec.events import PairRejected
from ctrlexec.pki import confirmation_code
from ctrlexec.protocol import codec
from ctrlexec.protocol.messages import Refused
from tests.authority import data
from tests.dispatching import CSR, NONCE
from tests.pairing import (
    ASKED,
    PEER,
    Agent,
    ListenerTestCase,
)


class AskingTests(ListenerTestCase):
    """
    What becomes of a request.
    """

    def test_pending(self) -> None:
        """
        It is queued with all that helps a person to judge, and the agent hears
        the first half of the answer.
        """
        agent = self.asks(
            attrs.evolve(ASKED, ip="198.51.100.7", port=7000, lookup_by="ip")
        )
        (waiting,) = self.pending()
        self.assertEqual(
            agent.answers, [(200, {"status": "pending", "reqid": waiting.id}, True)]
        )
        self.assertEqual(
            waiting,
            QueuedRequest(
                id=waiting.id,
                hostname="agent-one",
                ip="198.51.100.7",
                csr=CSR,
                nonce=NONCE,
                received="2026-03-05T18:38:09Z",
                code=confirmation_code(CSR.encode()),
                source_ip="192.0.2.1",
                lookup_by="ip",
                port=7000,
                reverse_dns="agent-one.example",
                reverse_confirmed=True,
            ),
        )
        self.assertRegex(waiting.id, r"\A[0-9a-f]{16}\Z")
        self.assertEqual(
            self.log.events[-1].line(),
            "ACTION=pair-request AGENT=agent-one IP=192.0.2.1 "
            f"REPORTED_IP=198.51.100.7 REQID={waiting.id} STATUS=pending",
        )
        self.assertEqual(self.watcher.seen, [("agent-one", "arrived")])

    def test_ownAddress(self) -> None:
        """
        Where the agent does not say its address, it is where it comes from.
        """
        self.asks()
        self.assertEqual([r.ip for r in self.pending()], ["192.0.2.1"])
        self.assertNotIn("REPORTED_IP", self.log.events[-1].line())

    def assertRefused(self, agent: Agent, reason: str, logged: str) -> None:
        """
        The agent hears this, the log says that, and nothing is queued.
        """
        expected = {"status": "error", "reason": reason}
        self.assertEqual(agent.answers, [(200, expected, False)])
        (event,) = self.log.events
        assert isinstance(event, PairRejected)
        self.assertEqual(event.ip, "192.0.2.1")
        self.assertIn(logged, event.reason)
        self.assertEqual(self.pending(), [])
        self.assertEqual(self.watcher.seen, [])

    def test_invalid(self) -> None:
        """
        What is no request is refused.
        """
        self.assertRefused(self.asks(b"{"), "invalid request", "invalid request")

    def test_invalidHostname(self) -> None:
        """
        A name that could be a path is refused in the protocol's own words.
        """
        agent = self.asks(attrs.evolve(ASKED, hostname="../agent"))
        self.assertRefused(agent, "invalid hostname", "invalid hostname")

    def test_weakKey(self) -> None:
        """
        A certificate request that we would not sign is not queued, and the log
        says what is wrong with it.
        """
        for name, why in (
            ("weak-rsa-1024.csr", "1024 bits"),
            ("weak-sha1.csr", "sha1"),
        ):
            agent = self.asks(attrs.evolve(ASKED, csr=data(name).decode()))
            self.assertRefused(agent, "invalid request", why)
            self.log.events.clear()

    def test_queueFull(self) -> None:
        """
        There is an end to how many may wait.
        """
        agents = [self.asks() for _ in range(3)]
        self.assertEqual(
            agents[2].answers,
            [(200, {"status": "error", "reason": "pairing queue full"}, False)],
        )
        self.assertEqual(len(self.pending()), 2)
        self.assertEqual(self.log.actions, ["pair-request"] * 2 + ["pair-reject"])

    def test_diskFull(self) -> None:
        """
        A queue that can not be written is not the agent's fault, and the log
        says whose it is.
        """
        self.directory.write_bytes(b"")
        agent = self.asks()
        self.assertEqual(agent.answers[0][1]["reason"], "internal error")
        self.assertIn(str(self.directory), self.log.events[0].line())

    def test_otherPaths(self) -> None:
        """
        The port has one use.
        """
        for method, path in (("GET", "/pair"), ("POST", "/"), ("POST", "/pair?x")):
            agent = self.asks(method=method, path=path)
            self.assertEqual(agent.answers, [(404, {"error": "not found"}, False)])
        self.assertEqual(self.log.actions, ["pair-reject"] * 3)

    def test_refusals(self) -> None:
        """
        What is no HTTP, or too much of it, is answered in the words of the
        pairing port.
        """
        for code, reason in ((413, "request too large"), (400, "invalid request")):
            refusal = self.listener.refusal(PEER, Refused(code, "why"))
            expected = codec.to_json({"status": "error", "reason": reason})
            self.assertEqual(refusal, (200, expected))
        self.assertEqual(self.log.actions, ["pair-reject"] * 2)

    @given(st.binary())
    def test_anything(self, body: bytes) -> None:
        """
        Whatever is sent, there is an answer at once.
        """
        agent = self.asks(body)
        self.assertEqual(len(agent.answers), 1)

    def test_leavesOnTheWay(self) -> None:
        """
        An agent that has gone before its request is in the queue leaves none
        there.
        """
        self.threads.held = True
        agent = self.asks()
        self.threads.turn()
        agent.leaves()
        while self.threads.work:
            self.threads.turn()
        self.assertEqual(agent.answers, [])
        self.assertEqual(self.files(), [])
        self.assertEqual(self.watcher.seen[-1], ("agent-one", Ending.WITHDRAWN))
