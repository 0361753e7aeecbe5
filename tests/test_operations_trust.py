# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.operations}: hooks, and changes of trust.
"""

from __future__ import annotations

from typing import Any

import attrs

from ctrlexec.certificates import ca_fingerprint
from ctrlexec.dispatcher.orders import Door, Reach, RunOrder, Selection
from ctrlexec.dispatcher.over_tls import agents_over_tls
from ctrlexec.dispatcher.runs import RunRecord
from ctrlexec.errors import (
    Conflict,
    NotAuthorised,
    NotFound,
    PkiError,
)
from ctrlexec.values import Submitter
from tests.authority import DAY, NOW
from tests.dispatching import protected, request
from tests.operating import ALICE, DispatcherCase, Seen, overseen


class HookTests(DispatcherCase):
    """
    Nothing passes by a hook.
    """

    def setUp(self) -> None:
        super().setUp()
        self.dispatcher = self.configured("auth_hook = /no/such/hook")

    def test_everything(self) -> None:
        """
        A hook that can not be asked lets nobody do anything.
        """
        ours, seen = self.dispatcher, Seen[Any]()
        selection = Selection(("web-1",))
        order = RunOrder(selection=selection, script="backup")
        for working in (
            ours.run(ALICE, order, seen),
            ours.ping(ALICE, selection, seen),
            ours.discover(ALICE, selection, seen),
            ours.select(ALICE, selection),
            ours.list_agents(ALICE),
            ours.list_locks(ALICE),
            ours.list_requests(ALICE),
            ours.edit_agent(ALICE, "web-1", Reach(port=1)),
            ours.unpair(ALICE, "web-1"),
            ours.approve(ALICE, "0123456789abcdef", Reach()),
            ours.deny(ALICE, "0123456789abcdef"),
            ours.setup_ca(ALICE),
            ours.setup_identity(ALICE, confirmed=True),
        ):
            error = self.failed(working, NotAuthorised)
            self.assertEqual(error.code, 1)
        self.assertEqual(self.agents.asked, [])
        self.assertEqual(set(self.written.actions), {"auth"})
        self.assertEqual(self.record("web-1").port, 7443)
        self.assertFalse((self.home / "ca").exists())

    def test_decisions(self) -> None:
        """
        Who is asked about a decision learns which request it is about.
        """
        ours, asked = overseen(self.dispatcher)
        for action, decision in (
            ("approve", ours.approve(ALICE, "0123456789abcdef", Reach())),
            ("deny", ours.deny(ALICE, "0123456789abcdef")),
        ):
            self.failed(decision, NotFound)
            context = asked.pop()
            self.assertEqual(
                (context.action, context.reqid), (action, "0123456789abcdef")
            )

    def test_status(self) -> None:
        """
        Nor does anybody learn what became of a run.
        """
        record = RunRecord.sync(
            reqid="0123456789abcdef",
            script="backup",
            hosts=("web-1",),
            results=[],
            completed=int(NOW.timestamp()),
            submitter=Submitter("alice", "127.0.0.1"),
        )
        self.dispatcher.stores.runs.put(record)
        for door in (Door.API, Door.SOCKET):
            caller = attrs.evolve(ALICE, door=door)
            self.failed(self.dispatcher.status(caller, record.reqid), NotAuthorised)
            self.failed(self.dispatcher.wait(caller, record.reqid, 1), NotAuthorised)

    def test_ownStatus(self) -> None:
        """
        But for the command line that reads the record itself, as the original does.
        """
        record = RunRecord.sync(
            reqid="0123456789abcdef",
            script="backup",
            hosts=("web-1",),
            results=[],
            completed=int(NOW.timestamp()),
            submitter=None,
        )
        self.dispatcher.stores.runs.put(record)
        self.assertEqual(self.done(self.dispatcher.status(ALICE, record.reqid)), record)
        waited = self.done(self.dispatcher.wait(ALICE, record.reqid, 1))
        self.assertEqual(waited, record)

    def test_hidden(self) -> None:
        """
        Who is denied does not learn which agents there are.
        """
        for words in (("web-*",), ("db-*",)):
            working = self.dispatcher.ping(ALICE, Selection(words), Seen())
            self.failed(working, NotAuthorised)


class TrustTests(DispatcherCase):
    """
    Changes of trust reach the files.
    """

    def setUp(self) -> None:
        super().setUp()
        self.done(self.dispatcher.setup_ca(ALICE))
        self.done(self.dispatcher.setup_identity(ALICE, confirmed=True))
        authority = self.dispatcher.trust(ALICE).authority
        self.request = protected(authority, hostname="web-3")
        self.queue = self.dispatcher.stores.queue
        self.assertTrue(self.queue.add(self.request))

    def test_approve(self) -> None:
        """
        Who is approved is registered as it is to be reached, and the decision
        waits for the listener.
        """
        self.assertEqual(
            self.done(self.dispatcher.list_requests(ALICE)), [self.request]
        )
        reach = Reach("ip", "10.9.9.9", 7000)
        approval = self.done(self.dispatcher.approve(ALICE, self.request.id, reach))
        self.assertFalse(approval.replaced)
        record = self.record("web-3")
        self.assertEqual((record.address(), record.port), ("10.9.9.9", 7000))
        self.assertEqual(self.done(self.dispatcher.list_requests(ALICE)), [])
        self.assertFalse(self.dispatcher.is_delivered(self.request.id))
        self.queue.remove(self.request.id)
        self.assertTrue(self.dispatcher.is_delivered(self.request.id))
        agents, _ = self.done(self.dispatcher.list_agents(ALICE))
        names = [agent.hostname for agent in agents]
        self.assertEqual(names, ["web-1", "web-2", "web-3"])
        self.assertEqual(self.written.actions[-1], "pair-approve")

    def test_legacy(self) -> None:
        """
        A request of the original's exchange needs a word more.
        """
        asked = request("1111111111111111", hostname="web-4")
        self.assertTrue(self.queue.add(asked))
        self.failed(self.dispatcher.approve(ALICE, asked.id, Reach()), Conflict)
        self.done(self.dispatcher.approve(ALICE, asked.id, Reach(), legacy=True))
        self.assertEqual(self.record("web-4").reqid, asked.id)

    def test_fingerprint(self) -> None:
        """
        The CA has a name, for whoever may ask.
        """
        authority = self.dispatcher.trust(ALICE).authority
        fingerprint = self.done(self.dispatcher.ca_fingerprint(ALICE))
        self.assertEqual(fingerprint, ca_fingerprint(authority.ca_certificate()))

    def test_deny(self) -> None:
        """
        Who is denied is not registered.
        """
        denied = self.done(self.dispatcher.deny(ALICE, self.request.id))
        self.assertEqual(denied.hostname, "web-3")
        self.assertNotIn("web-3", self.dispatcher.stores.registry.names())
        again = self.dispatcher.approve(ALICE, self.request.id, Reach())
        self.failed(again, Conflict)

    def test_identity(self) -> None:
        """
        Agents are at stake when the identity is replaced, so that needs a
        word.
        """
        self.assertEqual(self.dispatcher.agents_at_stake(ALICE), 2)
        self.failed(self.dispatcher.setup_identity(ALICE, confirmed=False), Conflict)

    def test_connects(self) -> None:
        """
        With the identity that was made, agents can be spoken to.
        """
        agents_over_tls(self.dispatcher.settings, NOW, self.clock)

    def test_expired(self) -> None:
        """
        With one that has ended, nobody is asked: each agent could only say
        that the handshake failed.
        """
        with self.assertRaises(PkiError) as caught:
            agents_over_tls(self.dispatcher.settings, NOW + 826 * DAY, self.clock)
        self.assertIn("ended on Jun  7 ", str(caught.exception))
        self.assertIn("setup-ctrl-exec", caught.exception.hint)

    def test_noIdentity(self) -> None:
        """
        Without one, the operator is told what makes it.
        """
        self.dispatcher.settings.cert.unlink()
        with self.assertRaises(PkiError) as caught:
            agents_over_tls(self.dispatcher.settings, NOW, self.clock)
        self.assertIn("ctrl-exec.crt", str(caught.exception))
        self.assertIn("setup-ctrl-exec", caught.exception.hint)
