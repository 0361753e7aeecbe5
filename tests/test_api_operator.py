# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.api.operator}: what command lines ask for through the unix
socket, and what they are told.
"""

from __future__ import annotations

from functools import partial
from typing import NoReturn

import attrs
from twisted.internet.defer import Deferred

from ctrlexec.api.http import ApiSite
from ctrlexec.dispatcher.locks import Held, Holder
from ctrlexec.dispatcher.operator import encode_request
from ctrlexec.dispatcher.operator_lines import Asked, Ended, Planned, read_line
from ctrlexec.dispatcher.orders import Caller, Selection
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.results import DiscoveryRow, PingRow, RunRow
from ctrlexec.dispatcher.runs import RunRecord
from ctrlexec.dispatcher.selection import Selected
from ctrlexec.errors import (
    InvalidValue,
    Locked,
    NotFound,
    PkiError,
    StoreError,
    Unconfirmed,
)
from ctrlexec.values import HostPort
from tests.apis import Wire, asking
from tests.operators import BACKUP, BOTH, KNOWN_AS, OperatorCase


class OperationTests(OperatorCase):
    """
    What a command line can ask for.
    """

    def test_run(self) -> None:
        """
        A run is told as it happens, and what becomes of it is kept.
        """
        first, second = self.late("web-1", "web-2")
        wire = self.order("run", BACKUP)
        match self.told(wire):
            case [Planned(2, str(early)), Asked("web-1"), Asked("web-2")]:
                pass
            case told:
                self.fail(f"{told}")
        second.callback(self.finished("web-2"))
        match self.told(wire):
            case [RunRow(host="web-2", stdout="web-2\n", reqid=reqid)]:
                pass
            case told:
                self.fail(f"{told}")
        first.callback(self.finished("web-1"))
        match self.told(wire):
            case [RunRow(host="web-1"), Ended((), str(also))]:
                self.assertEqual([early, also], [reqid, reqid])
            case told:
                self.fail(f"{told}")
        self.assertTrue(wire.transport.half_closed)
        wire.leave()
        match self.answer("status", reqid):
            case [RunRecord(script="backup", submitter=submitter)]:
                assert submitter is not None
                self.assertEqual(submitter.username, KNOWN_AS)
            case told:
                self.fail(f"{told}")

    def test_ping(self) -> None:
        """
        So is a ping, with what should be known besides.
        """
        match self.answer("ping", Selection(("web-1", "web-1"))):
            case [
                Planned(1),
                Asked("web-1"),
                PingRow(host="web-1", version="0.1.0"),
                Ended((warning,), ""),
            ]:
                self.assertIn("named more than once", warning)
            case told:
                self.fail(f"{told}")

    def test_discover(self) -> None:
        """
        So is what hosts offer; without a host it is all of them.
        """
        match self.answer("discover", Selection(())):
            case [Planned(2), *lines, Ended()]:
                rows = [line for line in lines if isinstance(line, DiscoveryRow)]
                self.assertEqual({row.host for row in rows}, {"web-1", "web-2"})
                self.assertTrue(all(row.capabilities for row in rows))
            case told:
                self.fail(f"{told}")

    def test_select(self) -> None:
        """
        Which hosts are meant.
        """
        wish = Selection(("web-*",), ("web-2",), 99)
        selected = Selected((HostPort("web-1", 99),))
        self.assertEqual(self.answer("select", wish), [selected])

    def test_listAgents(self) -> None:
        """
        Which agents are paired, and which records can not be read.
        """
        record = AgentRecord("web-3", tags={"env": "prod"})
        self.dispatcher.stores.registry.put(record)
        (self.directory / "state/agents/web-9.json").write_text("{")
        match self.answer("list-agents", {}):
            case [AgentRecord(), AgentRecord(), AgentRecord(), StoreError(), Ended()]:
                pass
            case told:
                self.fail(f"{told}")
        match self.answer("list-agents", {"env": "prod"}):
            case [AgentRecord() as found, StoreError(), Ended()]:
                self.assertEqual(found, record)
            case told:
                self.fail(f"{told}")

    def test_chunked(self) -> None:
        """
        A client of HTTP/1.1 is told the same, in chunks.
        """
        reply = self.order("select", BOTH, minor=1).reply()
        self.assertEqual(reply.status, 200)
        self.assertEqual(reply.fields["transfer-encoding"], "chunked")
        selected = Selected((HostPort("web-1"), HostPort("web-2")))
        self.assertEqual(read_line(reply.body), selected)


class ErrorTests(OperatorCase):
    """
    What a command line is told where it does not get what it asks for.
    """

    settings = "confirm_hosts = 1\n"

    def test_errors(self) -> None:
        """
        Whatever the dispatcher says is said in its own words.
        """
        for operation, wish, kind, words in (
            (
                "ping",
                Selection(("db-*",)),
                NotFound,
                "no agent matches 'db-*'",
            ),
            ("status", "none", NotFound, "no result for reqid none"),
            (
                "status",
                "../x",
                InvalidValue,
                "invalid request id '../x': expected letters, digits, '_' and '-'",
            ),
            (
                "run",
                BACKUP,
                Unconfirmed,
                "this goes to 2 hosts, and more than 1 need a yes",
            ),
        ):
            self.assertFailed(self.answer(operation, wish), kind, words)
        self.assertEqual(self.agents.asked, [])

    def test_locked(self) -> None:
        """
        A script that runs already is named, with where it does.
        """
        holder = Holder("backup", "r1", "bob")
        held = self.dispatcher.stores.locks.take(["web-2"], holder)
        assert isinstance(held, Held)
        self.addCleanup(held.release, "web-2")
        order = attrs.evolve(BACKUP, confirmed=True)
        (failed,) = self.answer("run", order)
        self.assertIsInstance(failed.error, Locked)
        self.assertEqual(failed.error.conflicts, ("web-2:backup",))

    def test_noIdentity(self) -> None:
        """
        A dispatcher that has no identity says so as it would in its own
        process.
        """

        def refuse(reactor: object) -> NoReturn:
            raise PkiError("no key", hint="make one")

        self.api.dispatcher = attrs.evolve(self.dispatcher, agents=refuse)
        (failed,) = self.answer("ping", BOTH)
        self.assertEqual((str(failed.error), failed.error.hint), ("no key", "make one"))

    def test_fault(self) -> None:
        """
        A fault of ours is in the log; the command line is told that there is
        one.
        """

        def fail(reactor: object) -> NoReturn:
            raise RuntimeError("t0ken")

        self.api.dispatcher = attrs.evolve(self.dispatcher, agents=fail)
        (failed,) = self.answer("ping", BOTH)
        self.assertEqual(str(failed.error), "internal error of the API")
        (line,) = self.logged("api-fail")
        self.assertIn("RuntimeError", line)
        self.assertNotIn("t0ken", line)

    def test_noOrder(self) -> None:
        """
        What is no order is refused like any request that makes no sense, and
        so is what no command line asks for.
        """
        for method, path, body, status, detail in (
            ("POST", "run", b"", 400, "invalid JSON"),
            ("POST", "run", b"[" * 10_000, 400, "invalid JSON"),
            ("POST", "ping", b"{}", 400, "an object was expected"),
            (
                "POST",
                "status",
                b'{"reqid":"a","token":"\\u0000"}',
                400,
                "invalid token '': expected UTF-8 text without NUL characters",
            ),
            ("POST", "unpair", b"{}", 404, "there is no operation unpair"),
            ("POST", "", b"{}", 404, "there is no operation "),
            ("POST", "run/x", b"{}", 404, "there is no operation run/x"),
            ("GET", "run", None, 405, "this takes POST"),
        ):
            wire = self.through_socket()
            wire.send(asking(method, f"/operator/{path}", body))
            reply = wire.reply()
            self.assertEqual((reply.status, reply.json()["detail"]), (status, detail))
            wire.leave()
        self.assertEqual(len(self.work), 0)

    def test_onlyThere(self) -> None:
        """
        Who comes by TCP finds nothing of this, whatever they may do.
        """
        plain = ApiSite(
            self.api.app.resource(),
            self.reactor,
            self.dispatcher.events,
            self.dispatcher.process.in_thread,
        )
        body = encode_request(Caller(username="root"), BOTH)
        wire = Wire.to(plain).send(asking("POST", "/operator/ping", body))
        self.assertEqual(wire.reply().status, 404)
        self.assertEqual(self.agents.asked, [])

    def test_overload(self) -> None:
        """
        When so many are under way the next one is turned away, and that is
        written down.
        """
        ends: list[Deferred[None]] = [Deferred() for _ in range(self.most)]
        for end in ends:
            self.work.begin(partial(_until, end))
        self.assertEqual(len(self.work), self.most)
        body = encode_request(Caller(username="ann"), BOTH)
        wire = self.through_socket().send(asking("POST", "/operator/ping", body))
        reply = wire.reply()
        self.assertEqual(reply.status, 503)
        self.assertEqual(reply.json()["detail"], "too many concurrent requests")
        self.assertIn("retry-after", reply.fields)
        self.assertEqual(len(self.logged("api-overload")), 1)
        self.assertEqual(self.agents.asked, [])
        for end in ends:
            end.callback(None)
        self.assertIsInstance(self.answer("ping", BOTH)[-1], Ended)


async def _until(end: Deferred[None]) -> None:
    await end
