# SPDX-License-Identifier: AGPL-3.0-only
"""
What every implementation of a store must do, whatever it keeps its records in:
mixins for test cases, which make the store.

It is over 400 lines, since who writes another store looks here for all of it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import attrs
from zope.interface.verify import verifyObject

from ctrlexec.dispatcher.locks import Busy, Held, Holder
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.errors import Conflict, InvalidValue, NotFound
from ctrlexec.interfaces import ILocks, IPairingQueue, IRegistry
from ctrlexec.protocol.messages import REJECTED, PairApproved
from ctrlexec.values import from_iso_time, iso_time
from tests.authority import NOW
from tests.dispatching import NONCE, REQID, request

if TYPE_CHECKING:
    from twisted.trial.unittest import SynchronousTestCase as Base
else:
    Base = object

AT = NOW.timestamp()
OTHER = "00c0ffee00c0ffee"
APPROVED = PairApproved("cert", "ca", NONCE, "4f0a", "hq")


class RegistryContract(Base):
    """
    What an L{IRegistry} does.
    """

    def registry(self) -> IRegistry:
        """
        @return: an empty one.
        """
        raise NotImplementedError

    def test_interface(self) -> None:
        """
        It is what it says.
        """
        self.assertTrue(verifyObject(IRegistry, self.registry()))

    def test_adds(self) -> None:
        """
        Who is new is added, and never takes the place of another.
        """
        registry = self.registry()
        registry.add(AgentRecord("agent-one", port=1))
        with self.assertRaises(Conflict):
            registry.add(AgentRecord("agent-one", port=2))
        self.assertEqual(registry.get("agent-one").port, 1)

    def test_removes(self) -> None:
        """
        An agent that is removed is unknown, and others are not.
        """
        registry = self.registry()
        self.assertFalse(registry.remove("agent-one"))
        for name in ("agent-one", "agent-two"):
            registry.put(AgentRecord(name))
        self.assertTrue(registry.remove("agent-one"))
        self.assertEqual(list(registry.names()), ["agent-two"])
        self.assertRaises(NotFound, registry.get, "agent-one")

    def test_empty(self) -> None:
        """
        An empty registry can be listed.
        """
        registry = self.registry()
        self.assertEqual(list(registry.names()), [])
        records, errors = registry.records()
        self.assertEqual((list(records), list(errors)), ([], []))

    def test_keeps(self) -> None:
        """
        What was put is what is got.
        """
        registry = self.registry()
        record = AgentRecord(
            "agent-one", ip="192.0.2.1", port=1, tags={"env": "prod"}, extra={"x": [1]}
        )
        registry.put(record)
        self.assertEqual(registry.get("agent-one"), record)

    def test_replaces(self) -> None:
        """
        There is one record for a name: the last.
        """
        registry = self.registry()
        for port in (1, 2):
            registry.put(AgentRecord("agent-one", port=port))
        self.assertEqual(list(registry.names()), ["agent-one"])
        self.assertEqual(registry.get("agent-one").port, 2)

    def test_sorted(self) -> None:
        """
        Names and records come sorted.
        """
        registry = self.registry()
        for name in ("b", "c.example", "a"):
            registry.put(AgentRecord(name))
        expected = ["a", "b", "c.example"]
        self.assertEqual(list(registry.names()), expected)
        self.assertEqual([r.hostname for r in registry.records()[0]], expected)

    def test_unknown(self) -> None:
        """
        Who is not there is not found.
        """
        self.assertRaises(NotFound, self.registry().get, "agent-one")

    def test_noPaths(self) -> None:
        """
        Nothing that is a path is a name.
        """
        for name in ("../agent", "a/b", "", ".hidden", "a\0"):
            self.assertRaises(InvalidValue, self.registry().get, name)

    def test_changes(self) -> None:
        """
        A change is made to what there is, and kept.
        """
        registry = self.registry()
        registry.put(AgentRecord("agent-one", port=1, ip="192.0.2.1"))
        changed = registry.change("agent-one", lambda a: attrs.evolve(a, port=2))
        self.assertEqual(changed, AgentRecord("agent-one", port=2, ip="192.0.2.1"))
        self.assertEqual(registry.get("agent-one"), changed)

    def test_changesName(self) -> None:
        """
        Who is called by another name is not known by the old one any more.
        """
        registry = self.registry()
        registry.put(AgentRecord("agent-one", port=1))
        registry.change("agent-one", lambda a: attrs.evolve(a, hostname="web"))
        self.assertEqual(list(registry.names()), ["web"])
        self.assertEqual(registry.get("web"), AgentRecord("web", port=1))

    def test_changesToTakenName(self) -> None:
        """
        Nobody can be called as somebody else is.
        """
        registry = self.registry()
        for port, name in enumerate(("agent-one", "agent-two"), 1):
            registry.put(AgentRecord(name, port=port))
        with self.assertRaises(Conflict):
            registry.change(
                "agent-one", lambda a: attrs.evolve(a, hostname="agent-two")
            )
        self.assertEqual(registry.get("agent-one").port, 1)
        self.assertEqual(registry.get("agent-two").port, 2)

    def test_changesNobody(self) -> None:
        """
        Who is not there can not be changed, and nobody is asked how.
        """
        registry = self.registry()
        self.assertRaises(NotFound, registry.change, "agent-one", self.fail)
        registry.put(AgentRecord("agent-two"))
        self.assertRaises(NotFound, registry.change, "agent-one", self.fail)

    def test_changeFails(self) -> None:
        """
        A change that can not be thought of leaves all as it is.
        """
        registry = self.registry()
        registry.put(AgentRecord("agent-one"))
        with self.assertRaises(InvalidValue):
            registry.change("agent-one", lambda a: attrs.evolve(a, hostname="../x"))
        self.assertEqual(registry.get("agent-one"), AgentRecord("agent-one"))


class LocksContract(Base):
    """
    What an L{ILocks} does.
    """

    def locks(self) -> ILocks:
        """
        @return: one with nothing locked; each with the same locks.
        """
        raise NotImplementedError

    def taken(self, *hosts: str, script: str = "echo") -> Held:
        """
        The script, locked on these hosts.
        """
        held = self.locks().take(hosts, Holder(script, REQID, "alice"))
        assert isinstance(held, Held)
        return held

    def conflicts(self, *hosts: str, script: str = "echo") -> tuple[str, ...]:
        """
        Where the script is locked, for somebody who wants to have it.
        """
        busy = self.locks().take(hosts, Holder(script, OTHER, "bob"))
        assert isinstance(busy, Busy)
        return busy.conflicts

    def where(self) -> list[tuple[str, str]]:
        """
        Host and script of all that is listed.
        """
        return [(state.host, state.script) for state in self.locks().listed()]

    def test_interface(self) -> None:
        """
        It is what it says.
        """
        self.assertTrue(verifyObject(ILocks, self.locks()))

    def test_keepsOthersOut(self) -> None:
        """
        What is locked can not be locked; the conflicts come sorted.
        """
        held = self.taken("web-2", "web-1", "web-10")
        self.assertEqual(
            self.conflicts("web-9", "web-2", "web-10"), ("web-10:echo", "web-2:echo")
        )
        self.assertEqual(sorted(held.hosts), ["web-1", "web-10", "web-2"])

    def test_allOrNone(self) -> None:
        """
        Who can not have all locks has none.
        """
        held = self.taken("web-2")
        self.conflicts("web-1", "web-2", "web-3")
        self.assertEqual(self.where(), [("web-2", "echo")])
        self.assertEqual(self.taken("web-1", "web-3").hosts, ("web-1", "web-3"))
        self.assertEqual(held.hosts, ("web-2",))

    def test_scripts(self) -> None:
        """
        Another script on the same host is another matter.
        """
        held = self.taken("web-1"), self.taken("web-1", script="uptime")
        self.assertEqual(self.where(), [("web-1", "echo"), ("web-1", "uptime")])
        self.assertEqual([each.hosts for each in held], [("web-1",)] * 2)

    def test_releases(self) -> None:
        """
        One host after the other can be free again, each once.
        """
        held = self.taken("web-1", "web-2")
        self.assertEqual(held.release("web-1", "web-9"), ("web-1",))
        self.assertEqual(held.release("web-1"), ())
        self.assertEqual(held.hosts, ("web-2",))
        again = self.taken("web-1")
        self.assertEqual(self.conflicts("web-1", "web-2"), ("web-1:echo", "web-2:echo"))
        self.assertEqual(held.release("web-2", "web-1"), ("web-2",))
        self.assertEqual(self.where(), [("web-1", "echo")])
        self.assertEqual(again.hosts, ("web-1",))

    def test_forgotten(self) -> None:
        """
        Locks that nobody knows of any more are free.
        """
        held = self.taken("web-1")
        del held
        self.assertEqual(self.where(), [])
        self.assertEqual(self.taken("web-1").hosts, ("web-1",))

    def test_nobody(self) -> None:
        """
        A run on no host needs no lock.
        """
        self.assertEqual(self.taken().hosts, ())
        self.assertEqual(self.where(), [])

    def test_lists(self) -> None:
        """
        Whose lock it is can be seen, and looking does no harm.
        """
        self.assertEqual(list(self.locks().listed()), [])
        held = self.taken("web-1")
        (state,) = self.locks().listed()
        self.assertEqual((state.user, state.reqid), ("alice", REQID))
        self.assertEqual(from_iso_time(state.since), NOW)
        self.assertEqual(self.conflicts("web-1"), ("web-1:echo",))
        held.release("web-1")
        self.assertEqual(list(self.locks().listed()), [])


class PairingQueueContract(Base):
    """
    What an L{IPairingQueue} does.
    """

    def queue(self, most: int = 10, lifetime_seconds: float = 600) -> IPairingQueue:
        """
        @return: an empty one.
        """
        raise NotImplementedError

    def test_interface(self) -> None:
        """
        It is what it says.
        """
        self.assertTrue(verifyObject(IPairingQueue, self.queue()))

    def test_empty(self) -> None:
        """
        Nothing is pending, nothing is found, and nothing can be decided.
        """
        queue = self.queue()
        self.assertEqual(list(queue.pending(AT)), [])
        self.assertRaises(NotFound, queue.get, REQID, AT)
        self.assertRaises(NotFound, queue.decide, REQID, REJECTED)
        self.assertIsNone(queue.decision(REQID))
        self.assertTrue(queue.withdraw(REQID))
        queue.remove(REQID)

    def test_pending(self) -> None:
        """
        What was added is pending, as it was.
        """
        queue, asked = self.queue(), request(port=7000, reverse_dns="a.example")
        self.assertTrue(queue.add(asked))
        self.assertEqual(list(queue.pending(AT)), [asked])
        self.assertEqual(queue.get(REQID, AT), asked)

    def test_oldestFirst(self) -> None:
        """
        Who waits longest comes first.
        """
        queue = self.queue()
        later = iso_time(NOW + timedelta(seconds=1))
        queue.add(request("0000000000000000", received=later))
        queue.add(request())
        self.assertEqual(
            [r.id for r in queue.pending(AT + 1)], [REQID, "0000000000000000"]
        )

    def test_full(self) -> None:
        """
        There is no more room than there is, and it is made by a decision.
        """
        queue = self.queue(most=1)
        self.assertTrue(queue.add(request()))
        self.assertFalse(queue.add(request(OTHER)))
        self.assertEqual([r.id for r in queue.pending(AT)], [REQID])
        queue.decide(REQID, REJECTED)
        self.assertTrue(queue.add(request(OTHER)))

    def test_sameId(self) -> None:
        """
        A request can not take another's place.
        """
        queue = self.queue()
        queue.add(request())
        with self.assertRaises(Conflict):
            queue.add(request(hostname="agent-two"))
        self.assertEqual(queue.get(REQID, AT).hostname, "agent-one")

    def test_expires(self) -> None:
        """
        A request waits for its lifetime, and makes room after that.
        """
        queue = self.queue(most=1)
        queue.add(request())
        self.assertEqual(len(queue.pending(AT + 599)), 1)
        self.assertRaises(NotFound, queue.get, REQID, AT + 600)
        self.assertEqual(list(queue.pending(AT + 600)), [])
        late = iso_time(NOW + timedelta(seconds=600))
        self.assertTrue(queue.add(request(OTHER, received=late)))

    def test_decides(self) -> None:
        """
        A decision reaches whoever asks for it, and ends the waiting.
        """
        for decision in (APPROVED, REJECTED):
            queue = self.queue()
            queue.add(request())
            self.assertIsNone(queue.decision(REQID))
            queue.decide(REQID, decision)
            self.assertEqual(queue.decision(REQID), decision)
            self.assertEqual(list(queue.pending(AT)), [])
            self.assertRaises(NotFound, queue.get, REQID, AT)

    def test_decidesOnce(self) -> None:
        """
        A second decision changes nothing, whichever it is.
        """
        for first in (APPROVED, REJECTED):
            for second in (APPROVED, REJECTED):
                queue = self.queue()
                queue.add(request())
                queue.decide(REQID, first)
                self.assertRaises(Conflict, queue.decide, REQID, second)
                self.assertEqual(queue.decision(REQID), first)

    def test_withdraws(self) -> None:
        """
        What was taken back is gone, and can not be decided any more.
        """
        queue = self.queue()
        queue.add(request())
        self.assertTrue(queue.withdraw(REQID))
        self.assertEqual(list(queue.pending(AT)), [])
        self.assertRaises(NotFound, queue.decide, REQID, APPROVED)

    def test_decidedBeforeWithdrawn(self) -> None:
        """
        What is decided can not be taken back.
        """
        queue = self.queue()
        queue.add(request())
        queue.decide(REQID, APPROVED)
        self.assertFalse(queue.withdraw(REQID))
        self.assertEqual(queue.decision(REQID), APPROVED)

    def test_removes(self) -> None:
        """
        What was removed leaves nothing, not even its decision.
        """
        queue = self.queue()
        queue.add(request())
        queue.decide(REQID, APPROVED)
        queue.remove(REQID)
        self.assertIsNone(queue.decision(REQID))
        self.assertRaises(NotFound, queue.decide, REQID, REJECTED)

    def test_noPaths(self) -> None:
        """
        Nothing that is a path is an id.
        """
        queue = self.queue()
        for reqid in ("../x", "a/b", "", ".x"):
            self.assertRaises(InvalidValue, queue.get, reqid, AT)
            self.assertRaises(InvalidValue, queue.decide, reqid, REJECTED)
            self.assertRaises(InvalidValue, queue.decision, reqid)
            self.assertRaises(InvalidValue, queue.withdraw, reqid)

    def test_others(self) -> None:
        """
        What happens to one request does not concern another.
        """
        queue = self.queue()
        queue.add(request())
        queue.add(attrs.evolve(request(), id=OTHER))
        queue.decide(REQID, REJECTED)
        queue.remove(REQID)
        self.assertEqual([r.id for r in queue.pending(AT)], [OTHER])
