# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.dispatcher.remote} and L{ctrlexec.dispatcher.conversation}:
what a command line hears from an API.
"""

from __future__ import annotations

import socket
from pathlib import Path
from threading import Event

import attrs

from ctrlexec.dispatcher.operator_lines import (
    agent_line,
    asked_line,
    ended_line,
    failed_line,
    planned_line,
    record_line,
    row_line,
    selected_line,
    unreadable_line,
)
from ctrlexec.dispatcher.orders import Selection
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.remote import is_usable
from ctrlexec.dispatcher.results import DiscoveryRow, PingRow, Report, RunRow
from ctrlexec.dispatcher.runs import RunRecord
from ctrlexec.dispatcher.selection import Selected
from ctrlexec.errors import StoreError, Unconfirmed
from ctrlexec.protocol.messages import Capabilities
from ctrlexec.values import HostPort
from tests.scripted_apis import (
    OK,
    ORDER,
    PATIENCE_SECONDS,
    PINGED,
    RAN,
    RemoteTestCase,
    ScriptedApi,
    Seen,
    send,
)
from tests.structure import loaded_after


class RemoteTests(RemoteTestCase):
    """
    What goes well.
    """

    def test_run(self) -> None:
        """
        A run is asked for in one request, and what becomes of it is seen as it
        comes.
        """
        other = attrs.evolve(RAN, host="web-2", exit=1)
        api = self.api(
            OK,
            planned_line(2, "a1"),
            asked_line("web-1"),
            asked_line("web-2"),
            row_line(other),
            row_line(RAN),
            ended_line(["odd"], "a1"),
        )
        seen: Seen[RunRow] = Seen()
        report = self.backend().run(ORDER, seen)
        self.assertEqual(report, Report([other, RAN], ("odd",), "a1"))
        self.assertEqual((seen.total, seen.reqid), (2, "a1"))
        self.assertEqual(seen.hosts, ["web-1", "web-2"])
        self.assertEqual(seen.rows, [other, RAN])
        api.thread.join(PATIENCE_SECONDS)
        head, fields = api.asked
        self.assertEqual(head, "POST /operator/run HTTP/1.0")
        self.assertEqual((fields["username"], fields["token"]), ("ann", "t0ken"))
        self.assertEqual(fields["script"], "backup")

    def test_confirmed(self) -> None:
        """
        Where they are many a person is asked, and the order is given again.
        """
        api = self.api(OK, failed_line(Unconfirmed(60, 50)))
        seen: Seen[RunRow] = Seen()
        # The same socket, as soon as the first answer is given.
        second: list[ScriptedApi] = []

        def again(unconfirmed: Unconfirmed) -> bool:
            api.thread.join(PATIENCE_SECONDS)
            self.path.unlink()
            second.append(self.api(OK, ended_line()))
            return True

        seen.answer = again
        self.assertEqual(self.backend().run(ORDER, seen), Report([]))
        self.assertFalse(api.asked[1]["confirmed"])
        second[0].thread.join(PATIENCE_SECONDS)
        self.assertTrue(second[0].asked[1]["confirmed"])

    def test_notConfirmed(self) -> None:
        """
        Without a yes it is not.
        """
        self.api(OK, failed_line(Unconfirmed(60, 50)))
        seen: Seen[RunRow] = Seen()
        self.assertRaises(Unconfirmed, self.backend().run, ORDER, seen)

    def test_ping(self) -> None:
        """
        So is a ping.
        """
        self.api(OK, asked_line("web-1"), row_line(PINGED), ended_line())
        self.assertEqual(self.ping(), Report([PINGED]))

    def test_discover(self) -> None:
        """
        So is what hosts offer.
        """
        row = DiscoveryRow(host="web-1", capabilities=Capabilities("web-1", "2"))
        self.api(OK, row_line(row), ended_line())
        onlooker: Seen[DiscoveryRow] = Seen()
        report = self.backend().discover(Selection(()), onlooker)
        self.assertEqual(report, Report([row]))

    def test_select(self) -> None:
        """
        Which hosts are meant is one line.
        """
        selected = Selected((HostPort("web-1"), HostPort("web-2", 99)), ("web-1",))
        self.api(OK, selected_line(selected))
        self.assertEqual(self.backend().select(Selection(("web-*",))), selected)

    def test_listAgents(self) -> None:
        """
        Agents are a line each, and so are the records that can not be read.
        """
        records = [AgentRecord(hostname="web-1"), AgentRecord(hostname="web-2")]
        broken = StoreError(Path("web-3.json"), "is cut off")
        lines = map(agent_line, records)
        api = self.api(OK, *lines, unreadable_line(broken), ended_line())
        found, (error,) = self.backend().list_agents({"env": "prod"})
        self.assertEqual(found, records)
        self.assertEqual((str(error), error.path), (str(broken), broken.path))
        api.thread.join(PATIENCE_SECONDS)
        self.assertEqual(api.asked[1]["tags"], {"env": "prod"})

    def test_status(self) -> None:
        """
        What became of a run is one line.
        """
        record = RunRecord.sync(
            reqid="a1",
            script="backup",
            hosts=("web-1",),
            results=[],
            completed=1,
            submitter=None,
        )
        self.api(OK, record_line(record))
        self.assertEqual(self.backend().status("a1"), record)

    def test_pieces(self) -> None:
        """
        It does not matter in which pieces an answer arrives.
        """
        answer = OK + row_line(PINGED) + b'{"later":{}}\n' + ended_line()
        self.api(*(answer[at : at + 1] for at in range(len(answer))))
        self.assertEqual(self.ping(), Report([PINGED]))

    def test_large(self) -> None:
        """
        What a script has said arrives whole, however much that is.
        """
        row = attrs.evolve(RAN, stdout="é\n" * 1_000_000)
        self.api(OK, row_line(row), ended_line())
        self.assertEqual(self.run_it().rows, [row])

    def test_largeOrder(self) -> None:
        """
        So does an order.
        """
        api = self.api(OK, ended_line())
        words = tuple(f"host-{number}" for number in range(50_000))
        onlooker: Seen[PingRow] = Seen()
        self.backend().ping(Selection(words), onlooker)
        api.thread.join(PATIENCE_SECONDS)
        self.assertEqual(tuple(api.asked[1]["selection"]["words"]), words)

    def test_slow(self) -> None:
        """
        While nothing comes the onlooker hears that time goes by, and waits for
        as long as it takes.
        """
        go = Event()

        def slowly(connection: socket.socket) -> None:
            send(connection, [OK])
            go.wait(PATIENCE_SECONDS)
            send(connection, [row_line(PINGED), ended_line()])

        self.does(slowly)
        seen: Seen[PingRow] = Seen()
        seen.on_tick = lambda: go.set() if seen.ticks == 3 else None
        backend = self.backend(take_seconds=PATIENCE_SECONDS, tick_seconds=0.01)
        self.assertEqual(backend.ping(Selection(("a",)), seen), Report([PINGED]))
        self.assertGreaterEqual(seen.ticks, 3)

    def test_busy(self) -> None:
        """
        It hears so as well while there is always something to read.
        """
        ticked = Event()

        def endlessly(connection: socket.socket) -> None:
            send(connection, [OK])
            while not ticked.is_set():
                send(connection, [row_line(PINGED)])
            send(connection, [ended_line()])

        self.does(endlessly)
        seen: Seen[PingRow] = Seen(on_tick=ticked.set)
        self.backend(tick_seconds=0.01).ping(Selection(("a",)), seen)
        self.assertTrue(ticked.is_set())

    def test_interrupted(self) -> None:
        """
        Whoever has had enough leaves, and the API notices.
        """
        api = self.does(_until_left)
        seen: Seen[RunRow] = Seen(on_tick=_interrupt)
        backend = self.backend(tick_seconds=0.01)
        self.assertRaises(KeyboardInterrupt, backend.run, ORDER, seen)
        self.assertTrue(api.left.wait(PATIENCE_SECONDS))

    def test_small(self) -> None:
        """
        Nothing is loaded that takes long.
        """
        unwanted = (
            "asyncio",
            "http",
            "klein",
            "cryptography",
            "OpenSSL",
            "ssl",
            "hashlib",
            "zope.interface",
            "urllib.request",
            "ctrlexec.dispatcher.settings",
            "ctrlexec.protocol.codec",
        )
        self.assertEqual(loaded_after("ctrlexec.dispatcher.remote", unwanted), "")


def _until_left(connection: socket.socket) -> None:
    send(connection, [OK])
    while True:
        send(connection, [asked_line("web-1")])


def _interrupt() -> None:
    raise KeyboardInterrupt


class UsableTests(RemoteTestCase):
    """
    Whether there is an API.
    """

    def test_usable(self) -> None:
        """
        There is where somebody listens, and only there.
        """
        self.assertFalse(is_usable(self.path))
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(self.path))
            self.assertFalse(is_usable(self.path))
            listening.listen()
            self.assertTrue(is_usable(self.path))
        self.assertFalse(is_usable(self.path))
        self.path.unlink()
        self.path.write_text("")
        self.assertFalse(is_usable(self.path))
        self.assertFalse(is_usable(self.path / "below"))
        self.assertFalse(is_usable(Path("/" + "x" * 200)))
