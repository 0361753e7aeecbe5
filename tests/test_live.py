# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.live}.
"""

from __future__ import annotations

import json

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.live import (
    LINE_CHARACTERS,
    STDERR,
    STDOUT,
    LiveLines,
    LiveText,
    Piece,
)
from ctrlexec.dispatcher.orders import Seen
from ctrlexec.dispatcher.render import Look
from ctrlexec.dispatcher.results import Outcome, RunRow
from ctrlexec.dispatcher.tables import harmless
from ctrlexec.protocol.run_messages import Output, StateChanged

PIPES = {STDOUT: Look(), STDERR: Look()}
TERMINAL = {STDOUT: Look(terminal=True), STDERR: Look(terminal=True)}
COLOURS = {STDOUT: Look(terminal=True, colour=True), STDERR: Look(terminal=True)}
ROW = RunRow(
    host="web-1",
    script="x",
    reqid="r1",
    outcome=Outcome.OK,
    exit=0,
    stdout="all of it\n",
    stderr="!\n",
)


def out(text: str, end: int = 0) -> Output:
    """
    Something on standard output.
    """
    return Output(0.5, STDOUT, text, end)


def err(text: str) -> Output:
    """
    Something on standard error.
    """
    return Output(0.5, STDERR, text, 0)


class OneTests(SynchronousTestCase):
    """
    One host.
    """

    def live(self, looks: dict[str, Look]) -> LiveText:
        """
        Somebody who follows it.
        """
        made = LiveText(looks)
        made.planned(1)
        return made

    def heard(self, live: LiveText, *events: Output) -> list[Piece]:
        """
        What is printed.
        """
        hosts = ["web-1"]
        return [
            piece for event in events for piece in live.heard("web-1", event, hosts)
        ]

    def test_atOnce(self) -> None:
        """
        Nothing is kept back, not even the beginning of a line.
        """
        live = self.live(TERMINAL)
        self.assertEqual(self.heard(live, out("h")), [Piece(STDOUT, "h")])
        self.assertFalse(live.ends_lines)
        self.assertEqual(self.heard(live, err("ey\n")), [Piece(STDERR, "ey\n")])
        self.assertTrue(live.ends_lines)
        self.assertEqual([*live.heard("web-1", StateChanged(1, "running"), [])], [])

    def test_pipes(self) -> None:
        """
        Files get what was written, byte for byte.
        """
        pieces = self.heard(self.live(PIPES), out("\x1b[2J\r"), out("\n"))
        self.assertEqual([piece.text for piece in pieces], ["\x1b[2J\r", "\n"])

    def test_hostile(self) -> None:
        """
        A terminal obeys none of it.
        """
        (piece,) = self.heard(self.live(TERMINAL), out("\x1b[2J\u202e\n"))
        self.assertEqual(piece.text, "\\x1b[2J\\u202e\n")

    @given(st.lists(st.text(st.sampled_from("ab\r\n\x1b\t"))))
    def test_pieces(self, texts: list[str]) -> None:
        """
        However it is cut, a terminal shows what it would of the whole.
        """
        live = self.live(TERMINAL)
        pieces = self.heard(live, *map(out, texts))
        last, _ = live.ended(ROW)
        shown = "".join(piece.text for piece in (*pieces, *last))
        whole = harmless("".join(texts))
        wanted = whole if not whole or whole.endswith("\n") else f"{whole}\n"
        self.assertEqual(shown, wanted)

    def test_lastLine(self) -> None:
        """
        A line without an end gets one before something else is said; once on a
        terminal, where both streams stand in the same.
        """
        live = self.live(TERMINAL)
        self.heard(live, err("oh"), out("no"))
        self.assertEqual([*live.ended(ROW)[0]], [Piece(STDOUT, "\n")])
        self.assertTrue(live.ends_lines)
        live = self.live(PIPES)
        self.heard(live, err("oh"), out("no"))
        self.assertEqual(
            [*live.broken_off()], [Piece(STDERR, "\n"), Piece(STDOUT, "\n")]
        )

    def test_once(self) -> None:
        """
        What has been heard is not told again; who could not be heard is told
        in the end.
        """
        live = self.live(TERMINAL)
        self.assertEqual(live.ended(ROW)[1], ROW)
        self.heard(live, out("all of it\n"))
        self.assertEqual(live.ended(ROW)[1], attrs.evolve(ROW, stdout="", stderr=""))

    def test_seen(self) -> None:
        """
        Who has ended already and is told at once is told what is new.
        """
        row = attrs.evolve(ROW, stdout="é1\n2\n")
        live = LiveText(TERMINAL, {"web-1": Seen(4, 0)})
        live.planned(1)
        self.assertEqual(live.ended(row)[1].stdout, "2\n")
        self.assertEqual(live.ended(row)[1].stderr, "!\n")


class SeveralTests(SynchronousTestCase):
    """
    Several hosts.
    """

    hosts = ("a", "web-10")

    def live(self, looks: dict[str, Look] = TERMINAL) -> LiveText:
        """
        Somebody who follows them.
        """
        made = LiveText(looks)
        made.planned(2)
        return made

    def text(self, live: LiveText, host: str, event: Output) -> str:
        """
        What is printed, all of it on our standard output.
        """
        pieces = [*live.heard(host, event, self.hosts)]
        self.assertEqual({piece.stream for piece in pieces} - {STDOUT}, set())
        return "".join(piece.text for piece in pieces)

    def test_lines(self) -> None:
        """
        Each line says whose it is, and which of them are complaints; the names
        take the same room.
        """
        live = self.live()
        self.assertEqual(
            self.text(live, "a", out("one\ntwo\n")), "a:      one\na:      two\n"
        )
        self.assertEqual(self.text(live, "web-10", err("oh\n")), "web-10: STDERR: oh\n")

    def test_whole(self) -> None:
        """
        A line waits for its end, so that no other host stands in it; at the end
        of the run it is shown as it is.
        """
        live = self.live()
        self.assertEqual(self.text(live, "a", out("o")), "")
        self.assertTrue(live.ends_lines)
        self.assertEqual(self.text(live, "web-10", out("x\n")), "web-10: x\n")
        self.assertEqual(self.text(live, "a", out("ne\ntw")), "a:      one\n")
        row = attrs.evolve(ROW, host="a")
        pieces, rest = live.ended(row)
        self.assertEqual([*pieces], [Piece(STDOUT, "a: tw\n")])
        self.assertEqual(rest.stdout, "")
        self.assertEqual([*live.broken_off()], [])

    def test_endless(self) -> None:
        """
        A line without an end is shown piece by piece, and not kept.
        """
        live = self.live()
        text = self.text(live, "a", out("x" * (2 * LINE_CHARACTERS + 5)))
        self.assertEqual(text.count("\n"), 2)
        self.assertEqual(text.count("x"), 2 * LINE_CHARACTERS)
        (last,) = live.broken_off()
        self.assertEqual(last.text, "a: xxxxx\n")

    def test_hostile(self) -> None:
        """
        Nobody writes a line that looks like another host's.
        """
        live = self.live()
        text = self.text(live, "a", out("\r\x1b[1Aweb-10: fine\n"))
        self.assertEqual(text, "a:      \na:      \\x1b[1Aweb-10: fine\n")
        self.assertEqual(self.text(live, "a", out("dos\r\n")), "a:      dos\n")

    def test_returns(self) -> None:
        """
        What a progress bar writes over is a line of its own, with its name,
        however it is cut; a file has it as it is.
        """
        live = self.live()
        self.assertEqual(self.text(live, "a", out("1%\r")), "")
        self.assertEqual(
            self.text(live, "a", out("50%\rdo")), "a:      1%\na:      50%\n"
        )
        self.assertEqual(self.text(live, "a", out("ne\r")), "")
        self.assertEqual(self.text(live, "a", out("\nx\r")), "a:      done\n")
        (last,) = live.broken_off()
        self.assertEqual(last.text, "a: x\n")
        live = self.live(PIPES)
        self.assertEqual(self.text(live, "a", out("1%\r2%\n")), "a:      1%\r2%\n")

    def test_colours(self) -> None:
        """
        Which stream it is shows by the colour of the name.
        """
        live = self.live(COLOURS)
        self.assertTrue(
            self.text(live, "web-10", out("x\n")).startswith("\x1b[36mweb-10:\x1b[0m x")
        )
        self.assertTrue(
            self.text(live, "web-10", err("x\n")).startswith("\x1b[33mweb-10:\x1b[0m S")
        )


class LinesTests(SynchronousTestCase):
    """
    Programs.
    """

    def test_lines(self) -> None:
        """
        A line for each thing that was written; the row is whole.
        """
        live = LiveLines()
        live.planned(2)
        pieces = [
            *live.heard("a", out("x\n"), []),
            *live.heard("a", err("y"), []),
            *live.heard("a", StateChanged(1, "running"), []),
        ]
        self.assertEqual(
            [json.loads(piece.text) for piece in pieces],
            [
                {"host": "a", "t": 0.5, "stdout": "x\n"},
                {"host": "a", "t": 0.5, "stderr": "y"},
            ],
        )
        self.assertEqual({piece.stream for piece in pieces}, {STDOUT})
        self.assertEqual(live.ended(ROW), ((), ROW))
        self.assertEqual(live.broken_off(), ())
