# SPDX-License-Identifier: AGPL-3.0-only
"""
A dispatcher that tells an agent what is revoked, over real TLS in memory.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.test.iosim import ConnectionCompleter

from ctrlexec.certificates import AgentRole, DispatcherRole
from ctrlexec.errors import ProtocolError
from ctrlexec.protocol.client import AgentClient, Bounds
from ctrlexec.protocol.messages import PingRequest
from ctrlexec.protocol.pool import Pool
from ctrlexec.protocol.revocation import (
    Acknowledged,
    NotAcknowledged,
    Revocations,
    SignedRevocations,
    signed,
)
from ctrlexec.tls import Credentials, mutual_client
from ctrlexec.values import Target
from tests.authority import CA_KEY, KEY
from tests.serving import ServiceTestCase
from tests.wired import DISPATCHER, credentials

AGENT_ONE = Target("agent-one", "127.0.0.1", 7443)
#: Another certificate of the same dispatcher, such as one before a rotation.
STOLEN = credentials(DispatcherRole("hq"))


def of_ca(number: int, *serials: str) -> SignedRevocations:
    """
    A list that the CA has signed.
    """
    listed = Revocations("hq", number, "2026-03-05T18:38:09Z", frozenset(serials))
    return signed(listed, CA_KEY)


class WholeTests(ServiceTestCase):
    """
    Both sides
    """

    def client(self, shown: Credentials, pool: Pool | None = None) -> AgentClient:
        """
        Somebody who asks the agent.
        """
        bounds = Bounds(10, 60, 100_000)
        return AgentClient(self.reactor, mutual_client(shown), bounds, pool)

    def asked(self, asking: Any) -> Deferred[Any]:
        """
        Ask, over a new connection.
        """
        asked: Deferred[Any] = Deferred.fromCoroutine(asking)
        pump = ConnectionCompleter(self.reactor).succeedOnce()
        assert pump is not None
        pump.flush()
        self.pump = pump
        return asked

    def test_cut(self) -> None:
        """
        The connections of whoever is revoked end at once, also one that waits;
        a new one gets nothing but the reason.
        """
        self.started()
        pool = Pool(self.reactor)
        stolen = self.client(STOLEN, pool)
        self.successResultOf(self.asked(stolen.ping(AGENT_ONE, PingRequest("1"))))
        waiting = self.pump
        self.assertFalse(waiting.serverIO.disconnected)
        pushed = self.client(DISPATCHER).revocations(
            AGENT_ONE, of_ca(5, STOLEN.info.serial)
        )
        self.assertEqual(self.successResultOf(self.asked(pushed)), Acknowledged(5))
        waiting.flush()
        self.assertTrue(waiting.serverIO.disconnected)
        self.assertIsNone(pool.take(AGENT_ONE))
        ping = self.client(STOLEN).ping(AGENT_ONE, PingRequest("1"))
        why = self.failureResultOf(self.asked(ping), ProtocolError)
        self.assertIn("certificate revoked", str(why.value))
        ping = self.client(DISPATCHER).ping(AGENT_ONE, PingRequest("1"))
        self.successResultOf(self.asked(ping))

    def test_operator(self) -> None:
        """
        What the operator of the host has revoked is cut off with a reload.
        """
        service = self.started()
        pool = Pool(self.reactor)
        stolen = self.client(STOLEN, pool)
        self.successResultOf(self.asked(stolen.ping(AGENT_ONE, PingRequest("1"))))
        revoked = self.directory / "revoked-serials"
        revoked.write_text(f"0x{STOLEN.info.serial}\n")
        service.reload()
        self.pump.flush()
        self.assertTrue(self.pump.serverIO.disconnected)

    def test_replayed(self) -> None:
        """
        Who has recorded an older list does not get far with it.
        """
        self.started()
        ours = self.client(DISPATCHER)
        self.successResultOf(self.asked(ours.revocations(AGENT_ONE, of_ca(5, "a1"))))
        answer = self.successResultOf(self.asked(ours.revocations(AGENT_ONE, of_ca(4))))
        self.assertEqual(answer, NotAcknowledged("number 5 is here", 5))

    def test_agent(self) -> None:
        """
        An agent brings no list, and signs none.
        """
        self.started()
        sibling = credentials(AgentRole("agent-two"))
        asking = self.client(sibling).revocations(AGENT_ONE, of_ca(5, "a1"))
        why = self.failureResultOf(self.asked(asking), ProtocolError)
        self.assertIn("serial mismatch", str(why.value))
        own = signed(of_ca(5, "a1").revocations, KEY, sibling.cert.decode())
        asking = self.client(DISPATCHER).revocations(AGENT_ONE, own)
        answer = self.successResultOf(self.asked(asking))
        assert isinstance(answer, NotAcknowledged)
        self.assertIn("nobody whose orders are taken here", answer.error)
