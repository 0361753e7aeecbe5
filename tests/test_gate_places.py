# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.gate}: who has a place, and who keeps it.
"""

from __future__ import annotations

import attrs
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from ctrlexec.agent.trust import TrustedMap
from ctrlexec.certificates import CertificateInfo
from ctrlexec.protocol.exchange import Peer, Visit
from tests.agents import HQ, PEER, SIBLING, STRANGER
from tests.authority import DAY
from tests.gates import OTHER, VOLUME, GateTestCase


class OverloadTests(GateTestCase):
    """
    C{max_connections}
    """

    def setUp(self) -> None:
        super().setUp()
        self.settle(max_connections=8)

    def test_oneAddress(self) -> None:
        """
        Half-open connections of one address leave room for a dispatcher, who
        then may have all that there is.
        """
        self.assertEqual(self.knocks_often(1000, OTHER).count(True), 2)
        self.assertEqual(self.logged("overload"), [f"LIVE=2 PEER={OTHER}"])
        found = [self.comes(HQ) is not None for _ in range(9)]
        self.assertEqual(found, [True] * 8 + [False])
        self.assertEqual(self.logged("overload"), [f"LIVE=8 PEER={PEER}"])
        self.assertEqual([each.address for each in self.told_to_go], [OTHER] * 2)

    def test_turnedAway(self) -> None:
        """
        Who is turned away because there is no room has done nothing wrong.
        """
        held = [self.knocks() for _ in range(1000)][:2]
        for visit in held:
            assert visit is not None
            self.agent.handshake_failed(visit, Failure(ConnectionLost()))
        self.assertTrue(self.visits(HQ))
        self.assertEqual(self.logged("rate-block"), [])

    def test_stranger(self) -> None:
        """
        A certificate that is not trusted gives no right to more places.
        """
        found = [self.comes(SIBLING) is not None for _ in range(3)]
        self.assertEqual(found, [True, True, False])

    def test_givesWay(self) -> None:
        """
        Who has to go is told once, and has no place any more; the log says that
        he went, not that his handshake failed.
        """
        for number in range(9):
            self.knocks(f"10.0.0.{number}")
        [first] = self.told_to_go
        self.assertEqual(self.in_force.gate.live, 8)
        self.assertEqual(self.log.taken(), ["ACTION=overload LIVE=8 PEER=10.0.0.8"])
        self.agent.handshake_failed(first, Failure(ConnectionLost()))
        self.assertEqual(self.in_force.gate.live, 8)
        self.assertEqual(
            self.log.taken(),
            [
                "ACTION=tls-failure PEER=10.0.0.0 "
                'REASON="gave way to a newer connection"'
            ],
        )

    def test_givesWayLate(self) -> None:
        """
        So it is when he has shown a certificate that is not trusted.
        """
        self.comes(SIBLING, "10.0.0.0")
        for number in range(1, 9):
            self.knocks(f"10.0.0.{number}")
        [first] = self.told_to_go
        self.agent.ended(first)
        self.assertEqual(self.in_force.gate.live, 8)

    def give_way(self, address: str) -> None:
        """
        Come, have to go because others come, and be gone.
        """
        visit = self.knocks(address)
        assert visit is not None
        for number in range(8):
            self.knocks(f"10.0.0.{number}")
        self.assertIn(visit, self.told_to_go)
        self.agent.handshake_failed(visit, Failure(ConnectionLost()))
        for other in self.told_to_go:
            self.agent.ended(other)
        self.told_to_go.clear()

    def test_givesWayOften(self) -> None:
        """
        To come and have to go is no failed handshake, but no visit of a trusted
        dispatcher either: it counts as one of the other connections.
        """
        for _ in range(VOLUME):
            self.give_way(PEER)
        self.assertEqual(self.logged("rate-block"), [])
        self.give_way(PEER)
        self.assertEqual(self.logged("rate-block"), [f"PEER={PEER} REASON=volume"])
        self.assertFalse(self.visits(HQ))

    def test_givesWayCounted(self) -> None:
        """
        Where all connections count it was counted when it came.
        """
        self.settle(rate_limit_trusted=True)
        for _ in range(VOLUME):
            self.give_way(PEER)
        self.assertEqual(self.logged("rate-block"), [])

    def test_proven(self) -> None:
        """
        Whatever comes, no trusted dispatcher has to go for it; nor does one
        whose handshake is not done yet, if it was there before.
        """
        held = [self.comes(HQ), self.comes(HQ), self.knocks()]
        self.assertEqual([each for each in held if each is None], [])
        for number in range(1000):
            self.knocks(f"10.0.{number // 250}.{number % 250}")
            for visit in self.told_to_go[-1:]:
                self.agent.handshake_failed(visit, Failure(ConnectionLost()))
        self.assertEqual([each for each in held if each in self.told_to_go], [])
        self.assertEqual(len(self.told_to_go), 1000 - 5)

    def test_forget(self) -> None:
        """
        After a reload an address has to prove it again.
        """
        self.visits(HQ)
        self.in_force.gate.forget()
        visit = self.knocks()
        for number in range(8):
            self.knocks(f"10.0.0.{number}")
        self.assertEqual(self.told_to_go, [visit])

    def test_lookalikes(self) -> None:
        """
        Connections of one address and certificate are told apart: the end of
        one that was never trusted frees its own place only.
        """
        policy = self.agent.policy
        self.evolve(revoked=frozenset({"d1"}))
        stale = self.comes(HQ)
        self.in_force.policy = attrs.evolve(policy, settings=self.agent.policy.settings)
        fresh = self.comes(HQ)
        assert stale is not None
        assert fresh is not None
        self.agent.ended(stale)
        self.assertEqual(self.knocks_often(3), [True, True, False])
        self.assertEqual(self.in_force.gate.live, 3)


class StayingTests(GateTestCase):
    """
    Who may ask twice on one connection.
    """

    def stays(self, certificate: CertificateInfo, visit: Visit) -> bool:
        """
        Whether the holder of a certificate may.
        """
        return self.agent.may_stay(Peer(PEER, certificate), visit)

    def test_trusted(self) -> None:
        """
        A trusted dispatcher may, and nobody else.
        """
        for certificate, expected in ((HQ, True), (STRANGER, False), (SIBLING, False)):
            visit = self.comes(certificate)
            assert visit is not None
            self.assertEqual(self.stays(certificate, visit), expected)

    def test_onlySince(self) -> None:
        """
        One that was not trusted when it came has its place on loan still: it
        has to come again.
        """
        visit = self.comes(STRANGER)
        assert visit is not None
        self.evolve(trusted=TrustedMap({"e1": "lab"}))
        self.assertFalse(self.stays(STRANGER, visit))

    def test_noLonger(self) -> None:
        """
        It may for as long as it is one: not when it is revoked, expired or no
        longer in the map.
        """
        visit, policy = self.comes(HQ), self.agent.policy
        assert visit is not None
        for change in ({"revoked": frozenset({"d1"})}, {"trusted": TrustedMap()}):
            self.evolve(**change)
            self.assertFalse(self.stays(HQ, visit))
            self.in_force.policy = policy
        self.assertTrue(self.stays(HQ, visit))
        self.time = HQ.not_after + DAY
        self.assertFalse(self.stays(HQ, visit))
