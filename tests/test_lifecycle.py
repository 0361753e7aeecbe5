# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.lifecycle}.

It has over 400 lines: what goes wrong in the middle of an approval takes room.
"""

from __future__ import annotations

from datetime import datetime
from itertools import count
from pathlib import Path

import attrs
from twisted.python.components import proxyForInterface
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.orders import Reach
from ctrlexec.dispatcher.records import AgentRecord, QueuedRequest
from ctrlexec.errors import (
    Conflict,
    InvalidValue,
    NotFound,
    PkiError,
    RequestRejected,
    StoreError,
)
from ctrlexec.interfaces import IPairingQueue
from ctrlexec.pki import AgentRole, check_issued, read_certificate
from ctrlexec.protocol.messages import REJECTED, PairApproved, PairDecision
from tests.authority import KEY, NOW, data
from tests.dispatching import (
    NONCE,
    REQID,
    Recorder,
    protected,
    request,
    settings_in,
    trust_in,
)


class TrustTestCase(SynchronousTestCase):
    """
    A dispatcher, set up, and its operator.
    """

    def setUp(self) -> None:
        """
        A CA and an identity.
        """
        self.settings = settings_in(Path(self.mktemp()))
        self.log = Recorder()
        self.trust = trust_in(self.settings, self.log)
        self.trust.setup_ca()
        self.trust.setup_identity()

    def asks(self, asked: QueuedRequest | None = None) -> None:
        """
        An agent asks to be paired.
        """
        self.assertTrue(self.trust.queue.add(asked or protected(self.trust.authority)))

    def assertUntouched(self) -> None:
        """
        The request still waits, and nobody is registered.
        """
        self.assertIsNone(self.trust.queue.decision(REQID))
        self.assertEqual(list(self.trust.registry.names()), [])


class SetupTests(TrustTestCase):
    """
    The CA and the identity.
    """

    def test_events(self) -> None:
        """
        Each change of trust is an event that names who made it.
        """
        self.assertEqual(self.log.actions, ["ca-create", "identity-create"])
        for event in self.log.events:
            self.assertIn("USER=root", event.line())

    def test_secondCa(self) -> None:
        """
        A refused change is none.
        """
        self.assertRaises(Conflict, self.trust.setup_ca)
        self.assertEqual(self.log.actions, ["ca-create", "identity-create"])

    def test_nobodyAtStake(self) -> None:
        """
        As long as no agent is registered, the identity can be made anew.
        """
        before = self.trust.authority.dispatcher_serial()
        self.assertEqual(self.trust.agents_at_stake(), 0)
        self.trust.setup_identity()
        self.assertNotEqual(self.trust.authority.dispatcher_serial(), before)

    def test_agentsAtStake(self) -> None:
        """
        Once agents are, a person must agree.
        """
        before = self.trust.authority.dispatcher_serial()
        self.trust.registry.put(AgentRecord("agent-one"))
        self.assertEqual(self.trust.agents_at_stake(), 1)
        self.assertRaises(Conflict, self.trust.setup_identity)
        self.assertEqual(self.trust.authority.dispatcher_serial(), before)
        self.trust.setup_identity(confirmed=True)
        self.assertNotEqual(self.trust.authority.dispatcher_serial(), before)


class ApproveTests(TrustTestCase):
    """
    Letting an agent in.
    """

    def approved(self, asked: QueuedRequest, *reach: Reach) -> AgentRecord:
        """
        The record of an agent that asked like this.
        """
        self.asks(asked)
        return self.trust.approve(REQID, *reach).record

    def test_decision(self) -> None:
        """
        The agent will get a certificate for its key and name, the CA, its own
        nonce, and whom to obey.
        """
        self.asks()
        approval = self.trust.approve(REQID)
        decision = self.trust.queue.decision(REQID)
        assert isinstance(decision, PairApproved)
        info = check_issued(
            cert=decision.cert.encode(), ca=decision.ca.encode(), key=KEY, now=NOW
        )
        self.assertEqual(info.role, AgentRole("agent-one"))
        self.assertEqual(info.serial, approval.serial)
        self.assertEqual(decision.nonce, NONCE)
        own = read_certificate(self.settings.cert.read_bytes())
        self.assertEqual(decision.dispatcher_serial, own.serial)
        self.assertEqual(decision.dispatcher_id, "hq")

    def test_record(self) -> None:
        """
        The agent is registered, as it is reached and as it was told.
        """
        self.asks()
        approval = self.trust.approve(REQID)
        self.assertFalse(approval.replaced)
        self.assertEqual(self.trust.registry.get("agent-one"), approval.record)
        self.assertEqual(
            approval.record,
            AgentRecord(
                "agent-one",
                ip="192.0.2.1",
                paired="2026-03-05T18:38:09Z",
                expiry="Jun  7 18:38:09 2028 GMT",
                reqid=REQID,
                lookup_by="hostname",
                port=7443,
                dispatcher_serial=self.trust.authority.dispatcher_serial(),
                serial_status="current",
                serial_confirmed="2026-03-05T18:38:09Z",
                cert_serial=approval.serial,
            ),
        )

    def test_formerCertificates(self) -> None:
        """
        Those that an agent of the name had before are remembered, so that they
        can be revoked, too; that it was revoked is over.
        """
        before = AgentRecord(
            "agent-one", cert_serial="a2", former_serials=("a1",), revoked="then"
        )
        self.trust.registry.put(before)
        self.asks()
        record = self.trust.approve(REQID).record
        self.assertEqual(record.former_serials, ("a2", "a1"))
        self.assertEqual(record.revoked, "")

    def test_event(self) -> None:
        """
        Who let whom in is written down.
        """
        self.asks()
        serial = self.trust.approve(REQID).serial
        self.assertEqual(
            self.log.events[-1].line(),
            f"ACTION=pair-approve AGENT=agent-one REQID={REQID} SERIAL={serial} "
            "USER=root",
        )

    def test_effectiveValues(self) -> None:
        """
        The operator's word goes before the agent's, and that before what is
        usual: NEWER-LINE.md section 5.
        """
        said = protected(
            self.trust.authority, lookup_by="ip", port=7000, ip="198.51.100.7"
        )
        record = self.approved(said)
        self.assertEqual(
            (record.lookup_by, record.port, record.ip), ("ip", 7000, "198.51.100.7")
        )
        self.trust.queue.remove(REQID)
        record = self.approved(said, Reach("hostname", "203.0.113.1", 7001))
        self.assertEqual(
            (record.lookup_by, record.port, record.ip),
            ("hostname", 7001, "203.0.113.1"),
        )

    def test_reachIsChecked(self) -> None:
        """
        What an operator mistypes is not written down.
        """
        self.assertRaises(InvalidValue, Reach, lookup_by="dns")
        self.assertRaises(InvalidValue, Reach, ip="agent-one")
        self.assertRaises(InvalidValue, Reach, port=0)
        self.assertRaises(InvalidValue, Reach, port=65536)

    def test_replaced(self) -> None:
        """
        An agent that is paired again takes its own place, even that of a
        record that can not be read.
        """
        path = self.settings.registry_dir / "agent-one.json"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"{")
        self.assertTrue(self.trust.is_registered("agent-one"))
        self.asks()
        self.assertTrue(self.trust.approve(REQID).replaced)
        self.assertEqual(self.trust.registry.get("agent-one").reqid, REQID)

    def test_unknown(self) -> None:
        """
        Nothing is approved that nobody asked for.
        """
        self.assertRaises(NotFound, self.trust.approve, REQID)
        self.assertEqual(list(self.trust.registry.names()), [])

    def test_twice(self) -> None:
        """
        What is decided stays decided.
        """
        self.asks()
        self.trust.approve(REQID)
        before = self.trust.queue.decision(REQID)
        for again in (self.trust.approve, self.trust.deny):
            self.assertRaises(Conflict, again, REQID)
        self.assertEqual(self.trust.queue.decision(REQID), before)

    def test_weakKey(self) -> None:
        """
        A key that the listener would not have taken is not signed either,
        whoever put it into the queue.
        """
        self.asks(request(csr=data("weak-rsa-1024.csr").decode()))
        with self.assertRaises(RequestRejected):
            self.trust.approve(REQID, legacy=True)
        self.assertUntouched()

    def test_noAuthority(self) -> None:
        """
        Without a CA nothing is decided, and the request waits on.
        """
        self.asks()
        self.settings.ca_key.unlink()
        self.assertRaises(Conflict, self.trust.approve, REQID)
        self.assertUntouched()

    def test_noIdentity(self) -> None:
        """
        An agent that could not be told whom to obey is not let in.
        """
        self.asks()
        self.settings.cert.unlink()
        error = self.assertRaises(PkiError, self.trust.approve, REQID)
        self.assertIn("setup-ctrl-exec", error.hint)
        self.assertUntouched()

    def test_gone(self) -> None:
        """
        An agent that leaves while its certificate is being made is not
        registered.
        """
        self.asks()
        asked = count(1)

        def later() -> datetime:
            if next(asked) == 2:
                self.trust.queue.remove(REQID)
            return NOW

        trust = attrs.evolve(self.trust, now=later)
        self.assertRaises(NotFound, trust.approve, REQID)
        self.assertEqual(list(self.trust.registry.names()), [])
        self.assertNotIn("pair-approve", self.log.actions)

    def test_registryFails(self) -> None:
        """
        Where the agent can not be registered it is not let in: the request
        waits on.
        """
        self.asks()
        (self.settings.registry_dir / "agent-one.json").mkdir(parents=True)
        self.assertRaises(StoreError, self.trust.approve, REQID)
        self.assertIsNone(self.trust.queue.decision(REQID))
        self.assertNotIn("pair-approve", self.log.actions)

    def test_putBack(self) -> None:
        """
        Where the decision can not be written the record of an agent that was
        paired before is what it was.
        """
        before = AgentRecord("agent-one", ip="192.0.2.9", port=7999)
        self.trust.registry.put(before)
        self.asks()
        queue = Failing(self.trust.queue, StoreError(Path("q"), "disk full"))
        trust = attrs.evolve(self.trust, queue=queue)
        self.assertRaises(StoreError, trust.approve, REQID)
        self.assertEqual(self.trust.registry.get("agent-one"), before)

    def test_decidedMeanwhile(self) -> None:
        """
        Of two who let the same agent in at once, one does, and the agent is
        registered.
        """
        self.asks()
        self.trust.approve(REQID)
        record = self.trust.registry.get("agent-one")
        # The other one looked just before.
        trust = attrs.evolve(self.trust, queue=Late(self.trust.queue))
        with self.assertRaises(Conflict):
            trust.approve(REQID, legacy=True)
        self.assertEqual(self.trust.registry.get("agent-one").port, record.port)
        self.assertEqual(list(self.trust.registry.names()), ["agent-one"])

    def test_crash(self) -> None:
        """
        After a crash between registering and deciding the request can be
        approved again.
        """
        self.asks()
        queue = Failing(self.trust.queue, SystemExit())
        trust = attrs.evolve(self.trust, queue=queue)
        self.assertRaises(SystemExit, trust.approve, REQID)
        approval = self.trust.approve(REQID)
        self.assertEqual(approval.record.hostname, "agent-one")


class Late(proxyForInterface(IPairingQueue)):  # type: ignore[misc]
    """
    A queue that has not heard of the decision when it is asked first.
    """

    _asked = False

    def decision(self, reqid: str) -> PairDecision | None:
        """
        See L{IPairingQueue.decision}.
        """
        first, self._asked = not self._asked, True
        return None if first else self.original.decision(reqid)

    def get(self, reqid: str, now: float) -> QueuedRequest:
        """
        See L{IPairingQueue.get}.
        """
        return request()


class Failing(proxyForInterface(IPairingQueue)):  # type: ignore[misc]
    """
    A queue that can not write a decision down.
    """

    def __init__(self, original: IPairingQueue, error: BaseException) -> None:
        super().__init__(original)
        self.error = error

    def decide(self, reqid: str, decision: PairDecision) -> None:
        """
        See L{IPairingQueue.decide}.
        """
        raise self.error


class DenyTests(TrustTestCase):
    """
    Turning an agent away.
    """

    def test_denied(self) -> None:
        """
        The agent will hear it, and it is written down.
        """
        self.asks()
        asked = protected(self.trust.authority)
        self.assertEqual(self.trust.deny(REQID), asked)
        self.assertEqual(self.trust.queue.decision(REQID), REJECTED)
        self.assertEqual(list(self.trust.registry.names()), [])
        self.assertEqual(
            self.log.events[-1].line(),
            f"ACTION=pair-deny AGENT=agent-one REQID={REQID} USER=root",
        )

    def test_unknown(self) -> None:
        """
        Nothing is denied that nobody asked for.
        """
        self.assertRaises(NotFound, self.trust.deny, REQID)


class RequestsTests(TrustTestCase):
    """
    What waits.
    """

    def test_requests(self) -> None:
        """
        A request waits until it is decided.
        """
        self.asks()
        asked = protected(self.trust.authority)
        self.assertEqual(list(self.trust.requests()), [asked])
        self.trust.deny(REQID)
        self.assertEqual(list(self.trust.requests()), [])
