# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.lifecycle}: agents that are known already.
"""

from __future__ import annotations

from ctrlexec.dispatcher.orders import Reach
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.errors import Conflict, InvalidValue, NotFound, StoreError
from tests.dispatching import REQID, request
from tests.test_lifecycle import TrustTestCase

AGENT = AgentRecord(
    "agent-one", ip="192.0.2.1", port=7443, expiry="Jun  7 18:38:09 2028 GMT"
)


class KnownAgentTestCase(TrustTestCase):
    """
    A dispatcher that knows an agent.
    """

    def setUp(self) -> None:
        """
        One agent, and no event yet.
        """
        super().setUp()
        self.trust.registry.put(AGENT)
        self.log.events.clear()

    def assertSame(self) -> None:
        """
        All is as it was, and nothing is said to have happened.
        """
        self.assertEqual(list(self.trust.registry.records()[0]), [AGENT])
        self.assertEqual(self.log.events, [])


class EditAgentTests(KnownAgentTestCase):
    """
    Where an agent is reached, and what it is called.
    """

    def edited(
        self, name: str = "agent-one", rename: str | None = None, **reach: object
    ) -> AgentRecord:
        """
        The record of an agent, changed like this.
        """
        record = self.trust.edit_agent(name, Reach(**reach), rename)  # type: ignore[arg-type]
        self.assertEqual(self.trust.registry.get(record.hostname), record)
        return record

    def logged(self) -> list[str]:
        """
        What is said to have happened.
        """
        return [event.line() for event in self.log.events]

    def test_reach(self) -> None:
        """
        What is given is changed, and said; all else stays.
        """
        record = self.edited(ip="192.0.2.9", port=7001, lookup_by="ip")
        self.assertEqual(record.address(), "192.0.2.9")
        self.assertEqual((record.port, record.expiry), (7001, AGENT.expiry))
        self.assertEqual(
            self.logged(),
            [
                "ACTION=edit-agent AGENT=agent-one IP=192.0.2.9 LOOKUP_BY=ip "
                "PORT=7001 USER=root"
            ],
        )

    def test_onlyOne(self) -> None:
        """
        What is not given stays, and so does what is given as it is.
        """
        record = self.edited(port=7001, ip="192.0.2.1")
        self.assertEqual((record.ip, record.lookup_by), ("192.0.2.1", "hostname"))
        self.assertEqual(
            self.logged(), ["ACTION=edit-agent AGENT=agent-one PORT=7001 USER=root"]
        )

    def test_rename(self) -> None:
        """
        An agent with a new name keeps its certificate, which has the old one.
        """
        record = self.edited(rename="web-1")
        self.assertEqual(record.identity, "agent-one")
        self.assertEqual(list(self.trust.registry.names()), ["web-1"])
        self.assertEqual(
            self.logged(),
            ["ACTION=edit-agent AGENT=web-1 RENAMED_FROM=agent-one USER=root"],
        )

    def test_renameTwice(self) -> None:
        """
        However often it is renamed, its certificate stays what it is; once it
        is called so again, there is nothing to remember.
        """
        self.edited(rename="web-1")
        self.assertEqual(self.edited("web-1", "web-2").identity, "agent-one")
        self.assertEqual(self.edited("web-2", "agent-one"), AGENT)

    def test_renameAndReach(self) -> None:
        """
        Both can be changed at once.
        """
        record = self.edited(rename="web-1", port=7001)
        self.assertEqual((record.hostname, record.port), ("web-1", 7001))
        self.assertEqual(len(self.logged()), 1)

    def test_sameAgain(self) -> None:
        """
        Who wants what is the case already has it, and nothing happens.
        """
        again = self.edited(rename="agent-one", port=7443, lookup_by="hostname")
        self.assertEqual(again, AGENT)
        self.assertSame()

    def test_nothing(self) -> None:
        """
        Who wants nothing is told what could be wanted.
        """
        with self.assertRaises(Conflict) as raised:
            self.edited()
        self.assertIn("--rename", raised.exception.hint)
        self.assertSame()

    def test_taken(self) -> None:
        """
        No agent takes the name of another one.
        """
        other = AgentRecord("agent-two", port=1)
        self.trust.registry.put(other)
        self.assertRaises(Conflict, self.edited, rename="agent-two")
        self.trust.registry.remove("agent-two")
        self.assertSame()

    def test_wrong(self) -> None:
        """
        A name or an address that is none changes nothing.
        """
        for name in ("", "../x", "a b", "-x"):
            self.assertRaises(InvalidValue, self.edited, rename=name)
        self.assertRaises(InvalidValue, self.edited, ip="nowhere")
        self.assertSame()

    def test_noAddress(self) -> None:
        """
        An agent is not looked up by an address that nobody knows.
        """
        self.trust.registry.put(AgentRecord("agent-two"))
        self.assertRaises(Conflict, self.edited, "agent-two", lookup_by="ip")
        both = self.edited("agent-two", lookup_by="ip", ip="192.0.2.2")
        self.assertEqual(both.address(), "192.0.2.2")

    def test_unknown(self) -> None:
        """
        Nobody can be changed who is not there, or whose record is broken.
        """
        self.assertRaises(NotFound, self.edited, "agent-two", rename="web-1")
        path = self.settings.registry_dir / "agent-two.json"
        path.write_bytes(b"{")
        self.assertRaises(StoreError, self.edited, "agent-two", rename="web-1")
        path.unlink()
        self.assertSame()


class NameTakenTests(KnownAgentTestCase):
    """
    A name that a renamed agent has in its certificate is nobody else's.
    """

    def test_approve(self) -> None:
        """
        Whoever asks to be paired under it is refused, since its certificate
        would be as good as the renamed one's; nothing is decided.
        """
        self.trust.edit_agent("agent-one", Reach(), "frontend")
        self.assertTrue(self.trust.queue.add(request()))
        conflict = self.assertRaises(Conflict, self.trust.approve, REQID, legacy=True)
        self.assertIn("frontend was called agent-one before", str(conflict))
        self.assertIsNone(self.trust.queue.decision(REQID))
        self.assertEqual([*self.trust.registry.names()], ["frontend"])


class UnpairTests(KnownAgentTestCase):
    """
    Forgetting an agent.
    """

    def test_unpairs(self) -> None:
        """
        It is gone, and until when its certificate is valid is said.
        """
        self.assertEqual(self.trust.unpair("agent-one"), AGENT)
        self.assertEqual(list(self.trust.registry.names()), [])
        self.assertEqual(
            [event.line() for event in self.log.events],
            [
                'ACTION=unpair AGENT=agent-one EXPIRY="Jun  7 18:38:09 2028 GMT" '
                "USER=root"
            ],
        )

    def test_broken(self) -> None:
        """
        One whose record can not be read can be forgotten, too.
        """
        (self.settings.registry_dir / "agent-two.json").write_bytes(b"{")
        self.assertIsNone(self.trust.unpair("agent-two"))
        self.assertEqual(list(self.trust.registry.names()), ["agent-one"])
        self.assertEqual(self.log.actions, ["unpair"])

    def test_unknown(self) -> None:
        """
        Nobody can be forgotten who is not there.
        """
        self.assertRaises(NotFound, self.trust.unpair, "agent-two")
        self.assertRaises(InvalidValue, self.trust.unpair, "../agent-one")
        self.assertSame()

    def test_twice(self) -> None:
        """
        Nobody is forgotten twice.
        """
        self.trust.unpair("agent-one")
        self.assertRaises(NotFound, self.trust.unpair, "agent-one")
        self.assertEqual(self.log.actions, ["unpair"])
