# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.identity}: what an agent takes for its identity.
"""

from __future__ import annotations

import attrs
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.identity import NewIdentity
from ctrlexec.certificates import AgentRole, DispatcherRole, Role
from ctrlexec.errors import PkiError
from ctrlexec.protocol.messages import PairApproved
from tests.agents import APPROVAL, approved
from tests.authority import CA, CA_KEY, DAY, KEY, NOW, OTHER_KEY, data, issued
from tests.wired import OTHER_CA, TODAY


class ApprovedTests(SynchronousTestCase):
    """
    L{NewIdentity.approved}
    """

    def refused(self, approval: PairApproved, **meant: object) -> str:
        """
        Why an approval is of no use.
        """
        error = self.assertRaises(PkiError, approved, approval, **meant)
        return str(error)

    def certified(
        self, role: Role, *, ca: bytes = CA, ca_key: bytes = CA_KEY
    ) -> PairApproved:
        """
        An approval with another certificate.
        """
        cert = issued(role, ca=ca, ca_key=ca_key).decode()
        return attrs.evolve(APPROVAL, cert=cert)

    def test_good(self) -> None:
        """
        The dispatcher's serial becomes canonical.
        """
        new = approved(APPROVAL)
        self.assertEqual((new.serial, new.dispatcher), ("d1", "hq"))
        self.assertEqual(new.key, KEY.decode())
        self.assertNotIn("PRIVATE", repr(new))

    def test_older(self) -> None:
        """
        A dispatcher of the older line has no id; its serial stands in for it.
        """
        new = approved(attrs.evolve(APPROVAL, dispatcher_id=""))
        self.assertEqual((new.serial, new.dispatcher), ("d1", "d1"))

    def test_original(self) -> None:
        """
        A dispatcher of the original gives no role, but keeps the name.
        """
        approval = attrs.evolve(
            APPROVAL,
            cert=data("original-agent.crt").decode(),
            ca=data("original-ca.crt").decode(),
        )
        key = data("original-agent.key")
        info = NewIdentity.approved(approval, name="agent-one", key=key, now=TODAY)[1]
        self.assertIsNone(info.role)
        error = self.assertRaises(
            PkiError,
            NewIdentity.approved,
            approval,
            name="agent-two",
            key=key,
            now=TODAY,
        )
        self.assertIn("not for 'agent-two' but for 'agent-one'", str(error))

    def test_otherKey(self) -> None:
        """
        A certificate for another key than the one that was made.
        """
        self.assertIn("another key", self.refused(APPROVAL, key=OTHER_KEY))

    def test_otherCa(self) -> None:
        """
        A certificate that the CA beside it did not sign.
        """
        approval = attrs.evolve(APPROVAL, ca=OTHER_CA.decode())
        self.assertIn("not signed by this CA", self.refused(approval))

    def test_notACa(self) -> None:
        """
        A CA that is none.
        """
        approval = attrs.evolve(APPROVAL, ca=APPROVAL.cert)
        self.assertIn("CA certificate", self.refused(approval))

    def test_dispatcherRole(self) -> None:
        """
        An agent is never given a dispatcher's certificate.
        """
        approval = self.certified(DispatcherRole("agent-one"))
        words = "not for 'agent-one' but for the dispatcher 'agent-one'"
        self.assertIn(words, self.refused(approval))

    def test_otherName(self) -> None:
        """
        Nor another agent's.
        """
        approval = self.certified(AgentRole("agent-two"))
        words = "not for 'agent-one' but for 'agent-two'"
        self.assertIn(words, self.refused(approval))

    def test_expired(self) -> None:
        """
        Nor one that is over.
        """
        cert = issued(AgentRole("agent-one"), now=NOW - 20 * DAY).decode()
        self.assertIn("expired", self.refused(attrs.evolve(APPROVAL, cert=cert)))

    def test_rubbish(self) -> None:
        """
        What is no certificate, or two of them.
        """
        for cert in ("", "x", APPROVAL.cert * 2, APPROVAL.cert[:-40]):
            self.refused(attrs.evolve(APPROVAL, cert=cert))
            self.refused(attrs.evolve(APPROVAL, ca=cert))

    def test_nobody(self) -> None:
        """
        A dispatcher that does not say who it is could give no orders.
        """
        for serial in ("", "hq", "d1 hq", "d1\nd2", "x" * 9, "d" * 65):
            approval = attrs.evolve(APPROVAL, dispatcher_serial=serial)
            self.assertIn("who it is", self.refused(approval), serial)
        for name in ("-", "a b", "a\nd2 evil", "#", "x" * 65):
            approval = attrs.evolve(APPROVAL, dispatcher_id=name)
            self.assertIn("who it is", self.refused(approval), name)
