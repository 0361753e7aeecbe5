# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.dispatcher.remote} and L{ctrlexec.dispatcher.conversation}:
what can be wrong with an API.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from threading import Event
from typing import Any

from ctrlexec.dispatcher.conversation import LINE_BYTES, Patience
from ctrlexec.dispatcher.operator_lines import (
    asked_line,
    ended_line,
    failed_line,
    planned_line,
    row_line,
    selected_line,
)
from ctrlexec.dispatcher.orders import Selection
from ctrlexec.dispatcher.results import PingRow
from ctrlexec.dispatcher.selection import Selected
from ctrlexec.errors import Locked, TransportError
from tests.scripted_apis import (
    LOST,
    OK,
    ORDER,
    PATIENCE_SECONDS,
    PINGED,
    RAN,
    WITHOUT,
    RemoteTestCase,
    Seen,
    send,
)


class FailureTests(RemoteTestCase):
    """
    What does not.
    """

    def test_errors(self) -> None:
        """
        Why an order is not carried out is told as if it were done here, for
        each of them.
        """
        backend, selection = self.backend(), Selection(("a",))
        nobody: Seen[Any] = Seen()
        asks: list[Callable[[], object]] = [
            lambda: backend.run(ORDER, nobody),
            lambda: backend.ping(selection, nobody),
            lambda: backend.discover(selection, nobody),
            lambda: backend.select(selection),
            lambda: backend.list_agents({}),
            lambda: backend.status("a1"),
        ]
        for ask in asks:
            api = self.api(OK, failed_line(Locked(["web-1:backup"])))
            with self.assertRaises(Locked) as caught:
                ask()
            self.assertEqual(caught.exception.conflicts, ("web-1:backup",))
            api.thread.join(PATIENCE_SECONDS)
            self.path.unlink()

    def test_failedByTransport(self) -> None:
        """
        An error of the same kind as a connection's is still the other end's.
        """
        self.api(OK, failed_line(TransportError("no way", hint="dig one")))
        self.assertCut("no way", "dig one", self.run_it)

    def test_cut(self) -> None:
        """
        An answer that ends anywhere before its last line is none, even where
        it is cut right behind a line.
        """
        answer = OK + asked_line("web-1") + row_line(PINGED) + ended_line()
        cuts = {0, 1, len(OK) - 1, len(OK), len(answer) - 1}
        cuts |= {at + 1 for at, byte in enumerate(answer[:-1]) if byte == 10}
        for at in sorted(cuts):
            api = self.api(answer[:at])
            self.assertCut(LOST, "", self.ping)
            api.thread.join(PATIENCE_SECONDS)
            self.path.unlink()

    def test_dies(self) -> None:
        """
        When the API is gone in the middle of a run, scripts may still be
        running: how to find out is said, by the request id.
        """
        self.api(OK, planned_line(2, "a1"), asked_line("web-1"), asked_line("web-2"))
        self.assertCut(
            LOST,
            "scripts may still be running: ctrl-exec status a1 knows what became of "
            "them, ctrl-exec attach a1 goes on listening",
            self.run_it,
        )

    def test_diesEarly(self) -> None:
        """
        Before that nothing is known to run, and the log knows better.
        """
        self.api(OK)
        self.assertCut(
            LOST,
            "nothing is known to have begun; what did is in the log of the "
            "dispatcher, with its request id",
            self.run_it,
        )

    def test_reset(self) -> None:
        """
        A connection that is reset, since the API has not read all, is one that
        is cut.
        """
        words = ("x" * 1_000_000,)
        onlooker: Seen[PingRow] = Seen()
        self.does(lambda connection: send(connection, [OK]), reads=False)
        backend = self.backend()
        self.assertCut(LOST, "", lambda: backend.ping(Selection(words), onlooker))

    def test_rubbish(self) -> None:
        """
        What is no answer of an API is called so.
        """
        nonsense = "the API's answer makes no sense: "
        for answer, error, hint in (
            (
                b"220 mail\r\n\r\n",
                "what answers at the API's socket is no API",
                WITHOUT,
            ),
            (b"\r\n\r\n", "what answers at the API's socket is no API", WITHOUT),
            (OK + b"\n", nonsense + "invalid JSON", ""),
            (OK + b"\xff\xfe\n", nonsense + "invalid JSON", ""),
            (OK + b"[1]\n", nonsense + "invalid JSON", ""),
            (OK + b'{"pinged":1}\n', nonsense + "an object was expected", ""),
            (OK + row_line(RAN), nonsense + "RunRow in its place", ""),
            (
                OK + selected_line(Selected(())),
                nonsense + "Selected in its place",
                "",
            ),
        ):
            api = self.api(answer)
            self.assertCut(error, hint, self.ping)
            api.thread.join(PATIENCE_SECONDS)
            self.path.unlink()

    def test_outOfPlace(self) -> None:
        """
        So is a line of another answer, for those that are short.
        """
        for ask in (
            lambda: self.backend().select(Selection(("a",))),
            lambda: self.backend().list_agents({}),
            lambda: self.backend().status("a1"),
        ):
            api = self.api(OK, asked_line("a"))
            self.assertCut(
                "the API's answer makes no sense: Asked in its place", "", ask
            )
            api.thread.join(PATIENCE_SECONDS)
            self.path.unlink()

    def test_endless(self) -> None:
        """
        A line without an end is not read without an end, nor is a header.
        """
        for start in (OK, b"HTTP/1.0 200 OK\r\n"):
            api = self.does(partial(_endless, start))
            ask = partial(self.ping, line_bytes=100_000)
            self.assertCut("the API's answer has no end", WITHOUT, ask)
            self.assertTrue(api.left.wait(PATIENCE_SECONDS))
            self.path.unlink()

    def test_bounds(self) -> None:
        """
        A line may be as long as the longest answer of an agent that can be
        configured, and the API has seconds to take an order.
        """
        self.assertGreaterEqual(LINE_BYTES, 2**30)
        self.assertEqual(Patience().line_bytes, LINE_BYTES)
        self.assertEqual(Patience().take_seconds, 10)
        self.assertEqual(Patience().tick_seconds, 1)

    def test_hung(self) -> None:
        """
        An API that takes no order is not waited for, whatever the order is.
        """
        over = Event()
        self.does(lambda connection: _wait(over))
        self.addCleanup(over.set)
        ask = partial(self.ping, take_seconds=0.05)
        self.assertCut("the API does not answer", WITHOUT, ask)

    def test_unread(self) -> None:
        """
        Nor is one that does not read it.
        """
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        listening.bind(str(self.path))
        listening.listen()
        words = ("x" * 1_000_000,)
        onlooker: Seen[PingRow] = Seen()
        backend = self.backend(take_seconds=0.05)
        self.assertCut(
            "the API does not take the order",
            WITHOUT,
            lambda: backend.ping(Selection(words), onlooker),
        )

    def test_refused(self) -> None:
        """
        What the API says with another status is said, if it is short.
        """
        for code, body, error in (
            (
                b"503 Service Unavailable",
                b'{"ok":false,"error":"service unavailable","detail":"too many"}',
                "the API answered 503: too many",
            ),
            (
                b"404",
                b'{"ok":false,"error":"not found"}',
                "the API answered 404: not found",
            ),
            (b"500 ", b"<html>", "the API answered 500: without a reason"),
            (b"413 ", b'"' * 1_000_000, "the API answered 413: without a reason"),
        ):
            api = self.api(b"HTTP/1.1 " + code + b"\r\n\r\n", body)
            self.assertCut(error, WITHOUT, self.run_it)
            api.thread.join(PATIENCE_SECONDS)
            self.path.unlink()

    def test_nowhere(self) -> None:
        """
        A socket that can not be used is named, with the reason.
        """
        start = f"the API's socket {self.path} can not be used: "
        self.assertCut(start + "No such file or directory", WITHOUT, self.ping)
        socket.socket(socket.AF_UNIX).bind(str(self.path))
        self.assertCut(start + "Connection refused", WITHOUT, self.ping)


def _endless(start: bytes, connection: socket.socket) -> None:
    send(connection, [start])
    while True:
        send(connection, [b"x" * 65_536])


def _wait(event: Event) -> None:
    event.wait(PATIENCE_SECONDS)
