# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.gate}, and for what an agent tells it: who is turned
away.
"""

from __future__ import annotations

from ctrlexec.agent.admission import QUIET_SECONDS
from ctrlexec.rates import EVICTED_ADDRESSES, Rate
from tests.agents import HQ, PEER, SIBLING, STRANGER
from tests.authority import DAY
from tests.gates import OTHER, PROBES, VOLUME, GateTestCase


class RateTests(GateTestCase):
    """
    Addresses that come too often, or fail.
    """

    def tearDown(self) -> None:
        """
        Nobody is within any more.
        """
        self.assertEqual(self.in_force.gate.live, 0)

    def test_probes(self) -> None:
        """
        One failed handshake too many blocks an address, which the log hears
        once, whatever it tries; others are not touched.
        """
        tries = [self.fails() for _ in range(PROBES + 5)]
        self.assertEqual(tries, [True] * (PROBES + 1) + [False] * 4)
        self.assertEqual(self.logged("rate-block"), [f"PEER={PEER} REASON=probe"])
        self.assertTrue(self.fails(OTHER))
        self.clock.advance(3599)
        self.assertFalse(self.visits(HQ))
        self.clock.advance(1)
        self.assertTrue(self.visits(HQ))

    def test_prefix(self) -> None:
        """
        The addresses of one /64 are one host's, and counted together.
        """
        tries = [self.fails(f"2001:db8::{number:x}") for number in range(1, 8)]
        self.assertEqual(tries, [True] * (PROBES + 1) + [False] * 3)
        self.assertTrue(self.fails("2001:db8:0:1::1"))

    def test_volume(self) -> None:
        """
        So does coming too often with a certificate that is not trusted.
        """
        for certificate in (STRANGER, SIBLING):
            tries = [self.visits(certificate) for _ in range(VOLUME + 3)]
            self.assertEqual(tries, [True] * (VOLUME + 1) + [False] * 2)
            self.assertEqual(self.logged("rate-block"), [f"PEER={PEER} REASON=volume"])
            self.clock.advance(300)

    def test_volumeOfFailures(self) -> None:
        """
        A failed handshake is a connection too.
        """
        self.settle(rate_limit_probe=Rate(1000, 600, 3600))
        tries = [self.fails() for _ in range(VOLUME + 3)]
        self.assertEqual(tries, [True] * (VOLUME + 1) + [False] * 2)
        self.assertEqual(self.logged("rate-block"), [f"PEER={PEER} REASON=volume"])

    def test_trusted(self) -> None:
        """
        A trusted dispatcher comes as often as it likes: the original locks its
        own out at eleven runs a minute.
        """
        self.assertEqual([self.visits(HQ) for _ in range(500)], [True] * 500)
        self.assertEqual(self.log.taken(), [])

    def test_trustedCounted(self) -> None:
        """
        Unless the settings say that it counts as everybody does: then the one
        that is too many is turned away itself.
        """
        self.settle(rate_limit_trusted=True)
        for certificate in (HQ, STRANGER):
            tries = [self.visits(certificate) for _ in range(VOLUME + 3)]
            self.assertEqual(tries, [True] * VOLUME + [False] * 3)
            self.assertEqual(self.logged("rate-block"), [f"PEER={PEER} REASON=volume"])
            self.clock.advance(300)

    def test_noLongerTrusted(self) -> None:
        """
        A dispatcher's certificate that is revoked, or has expired since its
        session began, proves nothing.
        """
        policy = self.agent.policy
        self.evolve(revoked=frozenset({"d1"}))
        tries = [self.visits(HQ) for _ in range(VOLUME + 2)]
        self.assertEqual(tries, [True] * (VOLUME + 1) + [False])
        self.in_force.policy = policy
        self.time = HQ.not_after + DAY
        tries = [self.visits(HQ, OTHER) for _ in range(VOLUME + 2)]
        self.assertEqual(tries, [True] * (VOLUME + 1) + [False])

    def test_revokedAndExpired(self) -> None:
        """
        A certificate that is both is refused as a revoked one.
        """
        self.evolve(revoked=frozenset({"d1"}))
        self.time = HQ.not_after + DAY
        answer = self.answer("POST", "/ping", {})
        self.assertEqual(answer, (403, {"error": "certificate revoked"}))

    def test_keptAlive(self) -> None:
        """
        A connection counts once, however much it asks.
        """
        visit = self.comes(STRANGER)
        assert visit is not None
        for _ in range(3 * VOLUME):
            self.answer("POST", "/ping", {}, certificate=STRANGER)
        self.assertEqual(self.logged("rate-block"), [])
        self.agent.ended(visit)

    def test_disabled(self) -> None:
        """
        Both limits can be turned off, also for who is blocked already.
        """
        for _ in range(PROBES + 1):
            self.fails()
        self.settle(rate_limit_disable=True, rate_limit_trusted=True)
        self.log.taken()
        self.assertEqual([self.fails() for _ in range(50)], [True] * 50)
        self.assertEqual(self.logged("rate-block"), [])

    def test_evicted(self) -> None:
        """
        A thousand addresses are kept in mind; that some are forgotten is one
        line for all of them.
        """
        for number in range(1001):
            self.fails(f"2001:db8:{number:x}::1")
        self.assertEqual(self.logged("rate-evict"), [f"COUNT={EVICTED_ADDRESSES}"])

    def test_forget(self) -> None:
        """
        What addresses did can be forgotten, which ends their blocks.
        """
        for _ in range(PROBES + 1):
            self.fails()
        self.assertFalse(self.visits(HQ))
        self.in_force.gate.forget()
        self.assertTrue(self.visits(HQ))


class AddressTests(GateTestCase):
    """
    C{allowed_ips}
    """

    def test_blocked(self) -> None:
        """
        An address that may not connect is logged once in a while, and never
        counted.
        """
        self.settle(allowed_ips=())
        for _ in range(100):
            self.assertFalse(self.agent.admits(PEER))
        self.assertEqual(self.log.taken(), [f"ACTION=ip-block PEER={PEER}"])
        self.clock.advance(QUIET_SECONDS)
        self.agent.admits(PEER)
        self.assertEqual(self.log.taken(), [f"ACTION=ip-block PEER={PEER}"])
        self.in_force.gate.forget()
        self.agent.admits(PEER)
        self.assertEqual(self.log.taken(), [f"ACTION=ip-block PEER={PEER}"])
        self.settle(allowed_ips=None)
        self.assertTrue(self.visits(HQ))
