# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.attaching}.
"""

from __future__ import annotations

from collections.abc import Mapping

from ctrlexec.dispatcher.orders import Seen as HasSeen
from ctrlexec.dispatcher.results import Outcome, Report, RunRow
from ctrlexec.errors import (
    NotAuthorised,
    NotFound,
    Unanswered,
    Unreachable,
)
from ctrlexec.events import (
    AttachBegun,
)
from ctrlexec.protocol.run_messages import (
    FollowRequest,
    NoSuchRun,
    Output,
    StreamEnded,
)
from tests.lives import LifeCase, denied_actions
from tests.operating import ALICE, CLIENT, Seen


class AttachTests(LifeCase):
    """
    Somebody hears a run that has begun.
    """

    def attach(
        self, *hosts: str, seen: Mapping[str, HasSeen] | None = None
    ) -> Report[RunRow]:
        """
        Hear it.
        """
        self.seen = Seen()
        return self.done(
            self.dispatcher.attach(ALICE, "r1", hosts, seen or {}, self.seen)
        )

    def test_all(self) -> None:
        """
        Where no host is named it is all of them, each from where it was left.
        """
        a, b = Output(0.1, "stdout", "a", 1), Output(0.2, "stdout", "b", 8)
        end = StreamEnded(1.0, "backup", "r1", 0)
        self.agents.follows = {"web-1": [[a, end]], "web-2": [[b, end]]}
        report = self.attach(seen={"web-2": HasSeen(7, 2)})
        self.assertEqual(self.seen.events, [("web-1", a), ("web-2", b)])
        self.assertEqual(
            self.agents.followed,
            [("web-1", FollowRequest("r1")), ("web-2", FollowRequest("r1", 7, 2))],
        )
        self.assertEqual([row.outcome for row in report.rows], [Outcome.OK] * 2)
        self.assertEqual([row.stdout for row in self.seen.rows], ["a", "b"])
        self.assertEqual((self.seen.total, self.seen.reqid), (2, "r1"))
        # That they have ended is told by whoever has asked for it.
        event = AttachBegun("backup", "web-1,web-2", "r1", "alice")
        self.assertEqual(self.written.events, [event])

    def test_bare(self) -> None:
        """
        Who has heard it all and wants no more of it has nothing kept, be it of a
        run that has ended or not.
        """
        self.put(
            hosts={
                "web-1": {"status": "done", "exit": 0, "stdout": "up\n"},
                "web-2": {"status": "accepted"},
            }
        )
        event = Output(0.2, "stdout", "b", 1)
        self.agents.follows = {"web-2": [[event, StreamEnded(1.0, "backup", "r1", 0)]]}
        seen: Seen[RunRow] = Seen()
        report = self.done(self.dispatcher.attach(ALICE, "r1", (), {}, seen, bare=True))
        self.assertEqual(len(seen.events), 2)
        self.assertEqual([row.stdout for row in (*report.rows, *seen.rows)], [""] * 4)
        self.assertEqual([row.outcome for row in report.rows], [Outcome.OK] * 2)

    def test_one(self) -> None:
        """
        Hosts that are named, and no others.
        """
        self.agents.follows = {"web-2": [[StreamEnded(1.0, "backup", "r1", 3)]]}
        (row,) = self.attach("web-2").rows
        self.assertEqual((row.host, row.exit), ("web-2", 3))

    def test_ended(self) -> None:
        """
        What has ended is heard at once, from the record.
        """
        entry = {"status": "done", "exit": 0, "stdout": "up\n", "stderr": ""}
        busy = {"status": "busy", "error": "script already running"}
        self.put(hosts={"web-1": entry, "web-2": busy})
        one, two = self.attach().rows
        self.assertEqual((one.outcome, two.outcome), (Outcome.OK, Outcome.BUSY))
        self.assertEqual(
            self.seen.events, [("web-1", Output(0.0, "stdout", "up\n", 3))]
        )
        self.assertEqual(self.agents.followed, [])

    def test_endedLater(self) -> None:
        """
        Of what somebody has seen a part of, the agent knows to the byte which;
        where it does not answer, the record is good enough.
        """
        entry = {"status": "done", "exit": 0, "stdout": "up\n", "stderr": ""}
        self.put(hosts={"web-1": entry})
        rest, end = Output(0.1, "stdout", "p\n", 3), StreamEnded(1.0, "backup", "r1", 0)
        seen = {"web-1": HasSeen(1, 0)}
        self.agents.follows = {"web-1": [[rest, end]]}
        self.attach(seen=seen)
        self.assertEqual(self.seen.events, [("web-1", rest)])
        self.agents.follows = {"web-1": [[Unreachable("refused")]]}
        (row,) = self.attach(seen=seen).rows
        self.assertEqual(self.seen.events, [("web-1", Output(0.0, "stdout", "p\n", 3))])
        self.assertTrue(row.ok)

    def test_partlyHeard(self) -> None:
        """
        What the agent had told before it was lost is not told again from the
        record.
        """
        self.put(hosts={"web-1": {"status": "done", "exit": 0, "stdout": "abc"}})
        event = Output(0.1, "stdout", "b", 2)
        self.agents.follows = {"web-1": [[event, Unanswered("lost")]]}
        self.agents.results = {"web-1": [NoSuchRun("r1")]}
        self.attach(seen={"web-1": HasSeen(1, 0)})
        told = [e.text for _, e in self.seen.events if isinstance(e, Output)]
        self.assertEqual(told, ["b", "c"])

    def test_foreign(self) -> None:
        """
        A host that it does not go to.
        """
        error = self.failed(
            self.dispatcher.attach(ALICE, "r1", ("web-3",), {}, Seen()), NotFound
        )
        self.assertIn("web-3", str(error))

    def test_denied(self) -> None:
        """
        Who may not know hears nothing.
        """
        working = self.dispatcher.attach(CLIENT, "r1", (), {}, Seen())
        self.failed(working, NotAuthorised)
        self.assertEqual(denied_actions(self.written), ["status"])
        self.assertEqual(self.agents.followed, [])
