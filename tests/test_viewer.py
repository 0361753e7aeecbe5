# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.viewer}.
"""

from __future__ import annotations

import attrs
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.printers import Format, ping_printer, run_printer
from ctrlexec.dispatcher.render import Look
from ctrlexec.dispatcher.results import Outcome, PingRow, Report, RunRow
from ctrlexec.dispatcher.terminal import Terminal
from ctrlexec.dispatcher.viewer import Declined, Viewer
from ctrlexec.dispatcher.wording import Wording
from ctrlexec.errors import Unconfirmed
from tests.command_lines import Screen

WORDING = Wording(order="run backup", lost="no result", going_on="it runs on at")
ASKING = Wording(
    order="ping", lost="no answer", going_on="no answer from", errors_apart=True
)
ERASE = "\r\x1b[K"


def row(host: str, exit: int = 0) -> RunRow:
    """
    A script that has ended.
    """
    outcome = Outcome.FAILED if exit else Outcome.OK
    return RunRow(host=host, script="backup", reqid="r1", outcome=outcome, exit=exit)


class ViewerCase(SynchronousTestCase):
    """
    Has somebody in front of a terminal, who can be made to type.
    """

    typed = ""
    terminal = True

    def setUp(self) -> None:
        self.clock = Clock()

    def make(self, how: Format = Format.TEXT, *, fold: bool = False) -> Viewer[RunRow]:
        """
        Somebody who waits for a run.
        """
        printer = run_printer(how, Look(), fold=fold)
        return Viewer(self.place(), how, printer, WORDING, self.clock.seconds)

    def place(self) -> Terminal:
        """
        Where they sit.
        """
        streams = Screen(self.typed), Screen(), Screen()
        for stream in streams:
            stream.terminal = self.terminal
        _, self.out, self.err = streams
        return Terminal(*streams, {"NO_COLOR": "1"})


class ProgressTests(ViewerCase):
    """
    What is waited for.
    """

    def test_soon(self) -> None:
        """
        Nobody who gets an answer within a second sees any of it.
        """
        viewer = self.make()
        viewer.planned(1)
        viewer.asked("web-1")
        viewer.arrived(row("web-1"))
        viewer.ended(Report(viewer.rows))
        self.assertEqual(self.err.getvalue(), "")

    def test_names(self) -> None:
        """
        How many are missing, and which of them are being asked; the line is
        there again below each result.
        """
        viewer = self.make()
        viewer.planned(3)
        viewer.asked("web-1")
        viewer.asked("web-2")
        viewer.ticked()
        self.assertEqual(self.err.getvalue(), f"{ERASE}waiting for 3 of 3: web-1 web-2")
        viewer.arrived(row("web-1"))
        self.assertTrue(
            self.err.getvalue().endswith(f"{ERASE}{ERASE}waiting for 2 of 3: web-2")
        )
        viewer.asked("web-3")
        viewer.arrived(row("web-2"))
        viewer.arrived(row("web-3"))
        viewer.ended(Report(viewer.rows))
        self.assertTrue(self.err.getvalue().endswith(f"{ERASE}3 ok  in 0.0 s\n"))

    def test_between(self) -> None:
        """
        Between two lots nobody is asked, and the line says that.
        """
        viewer = self.make()
        viewer.planned(2)
        viewer.asked("web-1")
        viewer.arrived(row("web-1"))
        viewer.ticked()
        self.assertEqual(
            self.err.getvalue(), f"{ERASE}waiting for 1 of 2: the next are asked later"
        )

    def test_long(self) -> None:
        """
        The line stays one line, however many names there are.
        """
        viewer = self.make()
        viewer.planned(64)
        for number in range(64):
            viewer.asked(f"web-{number}")
        viewer.ticked()
        shown = self.err.getvalue().removeprefix(ERASE)
        self.assertEqual((len(shown), shown[-1]), (79, "…"))

    def test_notBegun(self) -> None:
        """
        As long as nobody is asked, it is a hook or a lock that is waited for.
        """
        viewer = self.make()
        viewer.ticked()
        self.assertEqual(
            self.err.getvalue(), f"{ERASE}waiting for permission, or for a lock"
        )

    def test_pipe(self) -> None:
        """
        A file gets none of it.
        """
        self.terminal = False
        viewer = self.make()
        viewer.planned(1)
        viewer.asked("web-1")
        viewer.ticked()
        self.assertEqual(self.err.getvalue(), "")

    def test_json(self) -> None:
        """
        A program gets nothing before all is there, and the person who waits
        for the program sees how far it is.
        """
        viewer = self.make(Format.JSON)
        viewer.planned(2)
        viewer.asked("web-1")
        viewer.asked("web-2")
        viewer.ticked()
        viewer.arrived(row("web-1"))
        viewer.ticked()
        self.assertTrue(self.err.getvalue().endswith("waiting for 1 of 2: web-2"))
        self.assertEqual(self.out.getvalue(), "")


class EndTests(ViewerCase):
    """
    When all is known.
    """

    def test_count(self) -> None:
        """
        More than one host are counted, with the time since the first of them
        was asked; one is not.
        """
        viewer = self.make()
        self.clock.advance(7)
        viewer.planned(3)
        for host in ("web-1", "web-2", "web-3"):
            viewer.asked(host)
        self.clock.advance(1.25)
        viewer.arrived(row("web-1"))
        viewer.arrived(row("web-2"))
        viewer.arrived(row("web-3", 2))
        viewer.ended(Report(viewer.rows))
        self.assertEqual(self.err.getvalue(), "2 ok, 1 failed (web-3)  in 1.2 s\n")

    def test_one(self) -> None:
        """
        Of one host the outcome is said in a word where its line has none.
        """
        for outcome, said in (
            (Outcome.OK, ""),
            (Outcome.FAILED, ""),
            (Outcome.UNREACHABLE, "1 unreachable (web-1)  in 0.0 s\n"),
        ):
            viewer = self.make()
            viewer.planned(1)
            viewer.asked("web-1")
            viewer.arrived(attrs.evolve(row("web-1"), outcome=outcome))
            viewer.ended(Report(viewer.rows))
            self.assertEqual(self.err.getvalue(), said)

    def test_warnings(self) -> None:
        """
        What else there is to know is a warning each, for everybody.
        """
        for how in Format:
            viewer = self.make(how)
            viewer.ended(Report([], ("a is named twice", "odd")))
            self.assertEqual(
                self.err.getvalue(), "warning: a is named twice\nwarning: odd\n"
            )

    def test_complaints(self) -> None:
        """
        What a table has no place for is said behind it, and a hint once.
        """
        printer = ping_printer(Format.TEXT, Look())
        viewer: Viewer[PingRow] = Viewer(
            self.place(), Format.TEXT, printer, ASKING, self.clock.seconds
        )
        viewer.planned(2)
        for host in ("web-1", "web-2"):
            viewer.asked(host)
            viewer.arrived(PingRow(host=host, reqid="x", error="gone", hint="look"))
        viewer.ended(Report(viewer.rows))
        self.assertEqual(
            self.err.getvalue(),
            "error: web-1: gone\nerror: web-2: gone\nhint: look\n"
            "2 no answer  in 0.0 s\n",
        )

    def test_programs(self) -> None:
        """
        A program counts by itself.
        """
        for how in (Format.JSON, Format.JSONL):
            viewer = self.make(how)
            viewer.planned(2)
            for host in ("web-1", "web-2"):
                viewer.asked(host)
                viewer.arrived(row(host, 1))
            viewer.ended(Report(viewer.rows))
            self.assertEqual(self.err.getvalue(), "")


class InterruptionTests(ViewerCase):
    """
    The operator has had enough.
    """

    def half(self, viewer: Viewer[RunRow]) -> None:
        """
        One of four has answered, two are being asked.
        """
        viewer.planned(4)
        for host in ("web-1", "web-2", "web-3"):
            viewer.asked(host)
        viewer.arrived(row("web-1"))

    def test_words(self) -> None:
        """
        Where it goes on is said by name; who was not asked is counted.
        """
        viewer = self.make()
        self.half(viewer)
        self.assertEqual(
            viewer.reckoning("interrupted"),
            "interrupted: 1 of 4 hosts have answered; it runs on at web-2, web-3; "
            "1 was not asked",
        )

    def test_nobody(self) -> None:
        """
        Before the first host is asked nothing goes on anywhere.
        """
        viewer = self.make()
        self.assertEqual(
            viewer.reckoning("interrupted"), "interrupted: no host was asked"
        )

    def test_told(self) -> None:
        """
        A program gets what has come, and who is missing.
        """
        viewer = self.make(Format.JSON)
        self.half(viewer)
        told = viewer.broken_off()
        self.assertEqual([each["host"] for each in told["results"]], ["web-1"])
        self.assertEqual(
            (told["unanswered"], told["not_asked"]), (["web-2", "web-3"], 1)
        )
        self.assertEqual(self.out.getvalue(), "")

    def test_folded(self) -> None:
        """
        What was kept for the end is shown.
        """
        viewer = self.make(fold=True)
        self.half(viewer)
        viewer.broken_off()
        self.assertTrue(self.out.getvalue().startswith("==> web-1  [OK"))


class QuestionTests(ViewerCase):
    """
    So many hosts need a yes.
    """

    def test_yes(self) -> None:
        """
        A person is asked with the name of the script.
        """
        self.typed = "y\n"
        self.assertTrue(self.make().agrees(Unconfirmed(60, 50)))
        self.assertEqual(self.err.getvalue(), "run backup on 60 hosts? [y/N] ")

    def test_no(self) -> None:
        """
        A no is the end of it.
        """
        self.typed = "n\n"
        with self.assertRaises(Declined):
            self.make().agrees(Unconfirmed(60, 50))

    def test_nobody(self) -> None:
        """
        Where nobody can be asked, nobody has said yes.
        """
        self.terminal = False
        self.assertFalse(self.make().agrees(Unconfirmed(60, 50)))
        self.assertEqual(self.err.getvalue(), "")
