# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.api.operator} and L{ctrlexec.api.lines}: who comes through
the unix socket, how fast they read, and when they leave.
"""

from __future__ import annotations

import os
import pwd

import attrs

from ctrlexec.dispatcher.locks import Held, Holder
from ctrlexec.dispatcher.operator_lines import Asked, Ended, Planned, read_line
from ctrlexec.dispatcher.orders import RunOrder, Selection
from ctrlexec.dispatcher.running import POLL_SECONDS
from ctrlexec.errors import (
    NotAuthorised,
)
from tests.operators import BACKUP, BOTH, KNOWN_AS, SOMEBODY, OperatorCase


class CallerTests(OperatorCase):
    """
    Who it is that asks.
    """

    def asked_by(self, uid: int) -> str:
        """
        The user that an agent is told of.
        """
        one = RunOrder(selection=Selection(("web-1",)), script="backup")
        self.assertIsInstance(self.answer("run", one, uid)[-1], Ended)
        _, run = self.agents.asked[-1]
        assert run is not None
        self.assertEqual(run.token, "t0ken")  # type: ignore[union-attr]
        return run.username  # type: ignore[union-attr]

    def test_known(self) -> None:
        """
        They are who the system says that they are, whatever they say. That is
        logged as known.
        """
        self.assertEqual(self.asked_by(SOMEBODY), KNOWN_AS)
        (line,) = self.logged("api-request")
        self.assertIn(f"USER={KNOWN_AS}", line)
        self.assertIn("PATH=/operator/run", line)
        self.assertIn("STATUS=200", line)

    def test_believed(self) -> None:
        """
        Root and our own user could be anybody, and are believed. The log still
        has who they are.
        """
        for uid in {0, os.geteuid()}:
            self.assertEqual(self.asked_by(uid), "ann")
            line = self.logged("api-request")[-1]
            self.assertIn(f"USER={pwd.getpwuid(uid).pw_name}", line)

    def test_unknown(self) -> None:
        """
        Somebody of whom the system says nothing gets nothing.
        """
        wire = self.order("ping", BOTH, 0xFFFFFFFF)
        reply = wire.transport.value()
        self.assertIn(b" 403 ", reply.partition(b"\r\n")[0])
        self.assertEqual(self.agents.asked, [])

    def test_token(self) -> None:
        """
        No line of the log has a token.
        """
        self.asked_by(SOMEBODY)
        lines = [event.line() for event in self.recorder.events]
        self.assertNotIn("t0ken", "".join(lines))


class HookedTests(OperatorCase):
    """
    With an auth hook, as for a command line in its own process.
    """

    settings = "auth_hook = hook\n"

    def test_denied(self) -> None:
        """
        The hook is asked about what is to be done, not about the API, and its
        reason is told.
        """
        hook = self.directory / "hook"
        hook.write_text("#!/bin/sh\n")
        hook.chmod(0o755)
        wire = self.order("ping", BOTH)
        (process,) = self.reactor.processes
        process.reads_stdin()
        self.assertIn(b'"action":"ping"', process.stdin)
        self.assertIn(KNOWN_AS.encode(), process.stdin)
        self.assertEqual(self.told(wire), [])
        process.exits(2)
        (failed,) = self.told(wire)
        self.assertIsInstance(failed.error, NotAuthorised)
        self.assertEqual(
            (failed.error.reason, failed.error.code), ("bad credentials", 2)
        )


class LeavingTests(OperatorCase):
    """
    Whoever leaves, and whoever reads slowly.
    """

    settings = "max_parallel = 1\n"

    def test_leaves(self) -> None:
        """
        After a client has left no further host is asked; the one that was
        asked is waited for, and what it says is kept.
        """
        (answer,) = self.late("web-1")
        wire = self.order("run", BACKUP)
        self.assertEqual(self.told(wire)[1:], [Asked("web-1")])
        wire.leave()
        self.assertEqual(len(self.work), 1)
        answer.callback(self.finished("web-1"))
        self.assertEqual(self.agents.names, ["web-1"])
        self.assertEqual(len(self.work), 0)
        _, run = self.agents.asked[0]
        assert run is not None
        (record,) = self.answer("status", run.reqid)
        results = [(each["host"], each["state"]) for each in record.fields["results"]]
        self.assertEqual(results, [("web-1", "ok"), ("web-2", "not started")])
        self.assertEqual(self.faults, [])
        self.assertFalse(self.logged("api-fail"))

    def test_leavesBeforeAnError(self) -> None:
        """
        A failure that nobody waits for any more is nobody's.
        """
        (answer,) = self.late("web-1")
        wire = self.order("run", BACKUP)
        wire.leave()
        answer.errback(RuntimeError("broken"))
        self.assertEqual(len(self.work), 0)

    def test_leavesTheQueue(self) -> None:
        """
        Who waits for a lock and leaves is not waited for: their order is not
        carried out later on.
        """
        holder = Holder("backup", "r1", "bob")
        held = self.dispatcher.stores.locks.take(["web-2"], holder)
        assert isinstance(held, Held)
        wire = self.order("run", attrs.evolve(BACKUP, wait_lock_seconds=10**9))
        self.reactor.advance(60)
        self.assertEqual(len(self.work), 1)
        wire.leave()
        self.reactor.advance(POLL_SECONDS)
        self.assertEqual(len(self.work), 0)
        held.release("web-2")
        self.reactor.advance(60)
        self.assertEqual(self.agents.asked, [])

    def test_slow(self) -> None:
        """
        For a client that does not read, no more is written than what is on its
        way; what there is follows when it reads on, and the work is done
        meanwhile.
        """
        wire = self.order("run", BACKUP, room=10)
        head = wire.transport.value()
        self.assertTrue(head.endswith(b"\r\n\r\n"), head)
        self.assertEqual(self.agents.names, ["web-1", "web-2"])
        self.assertEqual(len(self.work), 0)
        lines = []
        while not wire.transport.half_closed:
            before = len(wire.transport.value())
            wire.transport.read_by_peer(10 - wire.transport.room)
            wire.transport.room = 0
            lines.append(wire.transport.value()[before:])
            self.assertLessEqual(lines[-1].count(b"\n"), 1)
        told = [read_line(line) for line in lines if line]
        self.assertIsInstance(told[0], Planned)
        self.assertEqual(told[1], Asked("web-1"))
        self.assertIsInstance(told[-1], Ended)
        self.assertEqual(len(told), 6)

    def test_slowAndGone(self) -> None:
        """
        What a client that leaves has not read is forgotten.
        """
        wire = self.order("run", BACKUP, room=10)
        wire.leave()
        self.assertEqual(len(self.work), 0)
        self.assertFalse(self.logged("api-fail"))
