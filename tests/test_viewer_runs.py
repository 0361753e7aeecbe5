# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.viewer}: somebody who follows a run, and somebody
who interrupts it.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from ctrlexec.dispatcher.interruption import Wanted
from ctrlexec.dispatcher.live import LiveText
from ctrlexec.dispatcher.orders import Seen
from ctrlexec.dispatcher.printers import Format, run_printer
from ctrlexec.dispatcher.results import CancelRow, Outcome, Report, RunRow
from ctrlexec.dispatcher.seen import SeenNotes, seen_before
from ctrlexec.dispatcher.viewer import Following, Viewer
from ctrlexec.errors import NotFound
from ctrlexec.protocol.run_messages import (
    ASKED_AGAIN,
    Output,
    Signalled,
    StateChanged,
)
from tests.test_viewer import ERASE, WORDING, ViewerCase, row


class FollowingTests(ViewerCase):
    """
    Somebody who sees what a run writes.
    """

    def following(self) -> Viewer[RunRow]:
        """
        They follow one host.
        """
        place = self.place()
        self.notes = SeenNotes(
            Path(self.mktemp()).absolute(), lambda: 0.0, self.clock.seconds
        )
        viewer = Viewer(
            place,
            Format.TEXT,
            run_printer(Format.TEXT, place.look, fold=False),
            attrs.evolve(WORDING, ends=True),
            self.clock.seconds,
            Following(LiveText(place.looks), self.notes),
        )
        viewer.planned(1, "r1")
        viewer.asked("web-1")
        return viewer

    def noted(self) -> dict[str, Seen]:
        """
        What was written down.
        """
        return seen_before(self.notes.directory, "r1")

    def test_streams(self) -> None:
        """
        At once, and on the stream that it was written on.
        """
        viewer = self.following()
        viewer.heard("web-1", Output(0, "stdout", "o", 1))
        self.assertEqual(self.out.getvalue(), "o")
        viewer.heard("web-1", Output(0, "stderr", "e", 1))
        self.assertEqual(self.err.getvalue(), "e")

    def test_progress(self) -> None:
        """
        A line that a script has not ended is nobody else's.
        """
        viewer = self.following()
        viewer.ticked()
        self.assertIn("waiting for 1 of 1", self.err.getvalue())
        viewer.heard("web-1", Output(0, "stdout", "50%", 3))
        before = self.err.getvalue()
        self.assertTrue(before.endswith(ERASE))
        viewer.ticked()
        self.assertEqual(self.err.getvalue(), before)

    def test_quiet(self) -> None:
        """
        No line comes and goes between those of the only host; until it has said
        something, there is one.
        """
        viewer = self.following()
        viewer.heard("web-1", StateChanged(0, "running"))
        viewer.ticked()
        self.assertIn("waiting for 1 of 1", self.err.getvalue())
        viewer.heard("web-1", Output(0, "stdout", "up\n", 3))
        before = self.err.getvalue()
        viewer.ticked()
        self.assertEqual(self.err.getvalue(), before)

    def test_lost(self) -> None:
        """
        That a host is asked again whose connection is lost is said on a line of
        its own; that is nothing that the script has written.
        """
        viewer = self.following()
        viewer.heard("web-1", Output(0, "stdout", "50%", 3))
        viewer.heard("web-1", StateChanged(0, ASKED_AGAIN))
        said = "\nnote: the connection to web-1 is lost; it is asked again\n"
        self.assertEqual((self.out.getvalue(), self.err.getvalue()), ("50%", said))

    def test_ended(self) -> None:
        """
        How it went stands in a line of its own; there is nothing to be noted.
        """
        viewer = self.following()
        viewer.heard("web-1", Output(0, "stdout", "up", 2))
        self.clock.advance(2)
        viewer.heard("web-1", Output(0, "stdout", "!", 3))
        self.assertEqual(self.noted(), {"web-1": Seen(3, 0)})
        viewer.arrived(attrs.evolve(row("web-1"), stdout="up!"))
        viewer.ended(Report(viewer.rows))
        viewer.note()
        self.assertEqual(
            self.out.getvalue(), "up!\n==> web-1  [OK  exit:0  0ms  req:r1]\n"
        )
        self.assertEqual(self.noted(), {})

    def test_unknown(self) -> None:
        """
        Of what nobody knows there may be more to be seen.
        """
        viewer = self.following()
        viewer.heard("web-1", Output(0, "stdout", "up\n", 3))
        viewer.arrived(attrs.evolve(row("web-1"), outcome=Outcome.UNKNOWN))
        viewer.note()
        self.assertEqual(self.noted(), {"web-1": Seen(3, 0)})

    def test_notAsked(self) -> None:
        """
        Hosts that nobody asked are told of at the end, even if nothing arrives
        of them.
        """
        viewer = self.make()
        viewer.planned(2, "r1")
        viewer.asked("web-1")
        viewer.arrived(row("web-1", 1))
        left = attrs.evolve(row("web-2"), outcome=Outcome.NOT_STARTED)
        viewer.ended(Report([*viewer.rows, left], stopped=True))
        self.assertTrue(self.out.getvalue().endswith("]\nnot started: web-2\n"))
        self.assertEqual(
            self.err.getvalue(),
            "error: stopped: too many hosts have failed\n"
            "1 failed (web-1), 1 not started  in 0.0 s\n",
        )


class OfferTests(ViewerCase):
    """
    Somebody who interrupts is asked what they mean.
    """

    def waiting(self) -> Viewer[RunRow]:
        """
        They wait for two hosts.
        """
        viewer = self.make()
        viewer.wording = attrs.evolve(WORDING, ends=True)
        viewer.planned(2, "r1")
        viewer.asked("web-1")
        viewer.asked("web-2")
        return viewer

    def test_words(self) -> None:
        """
        What they can type is said in a line of its own, and no progress stands
        in it.
        """
        viewer = self.waiting()
        viewer.ticked()
        self.assertTrue(viewer.offers())
        offer = (
            "c cancels it on 2 hosts, d leaves it running (ctrl-exec attach r1), "
            "anything else goes on waiting\n"
        )
        self.assertTrue(self.err.getvalue().endswith(f"{ERASE}{offer}"))
        viewer.ticked()
        self.assertTrue(self.err.getvalue().endswith(offer))
        self.assertIs(viewer.wants("c\n"), Wanted.CANCEL)
        viewer.ticked()
        self.assertFalse(self.err.getvalue().endswith(offer))

    def test_wanted(self) -> None:
        """
        Only c and d are answers.
        """
        for typed, wanted in (
            ("C \n", Wanted.CANCEL),
            ("d", Wanted.LEAVE),
            ("\n", Wanted.GO_ON),
            ("cancel\n", Wanted.GO_ON),
            ("", Wanted.GO_ON),
            (None, Wanted.GO_ON),
        ):
            viewer = self.waiting()
            self.assertIs(viewer.wants(typed), wanted)

    def test_silent(self) -> None:
        """
        Whoever types nothing is told that this was no answer.
        """
        viewer = self.waiting()
        viewer.wants(None)
        self.assertEqual(self.err.getvalue(), "note: no answer: it goes on\n")

    def test_endsWithThem(self) -> None:
        """
        What ends when they leave does not run on, whatever they type.
        """
        viewer = self.waiting()
        viewer.wording = attrs.evolve(viewer.wording, stays=False)
        self.assertTrue(viewer.offers())
        self.assertIn(
            "c cancels it on 2 hosts, d leaves, and it is cancelled, anything else",
            self.err.getvalue(),
        )

    def test_nothing(self) -> None:
        """
        There is nothing to ask before a host is asked, or after the last has
        answered; nor about what can not be ended, or where nobody sits.
        """
        self.assertFalse(self.make().offers())
        viewer = self.waiting()
        viewer.wording = WORDING
        self.assertFalse(viewer.offers())
        viewer = self.waiting()
        viewer.arrived(row("web-1"))
        viewer.arrived(row("web-2"))
        self.assertFalse(viewer.offers())
        self.terminal = False
        self.assertFalse(self.waiting().offers())
        self.assertEqual(self.err.getvalue(), "")

    def test_canceller(self) -> None:
        """
        How it was ended is said beside the results.
        """
        viewer = self.waiting()
        viewer.wants("c")
        canceller = viewer.canceller()
        canceller.planned(2, "r1")
        signalled = (Signalled(7, "sleep", "TERM"),)
        done = CancelRow(
            host="web-1", reqid="r1", state="cancelled", signalled=signalled
        )
        canceller.arrived(done)
        canceller.arrived(attrs.evolve(done, signalled=(), state="timed_out"))
        canceller.arrived(attrs.evolve(done, signalled=(), state="unreachable"))
        # It was not asked, and is listed as not started.
        canceller.arrived(attrs.evolve(done, host="web-3", signalled=()))
        canceller.arrived(CancelRow(host="b", reqid="r1", error="gone", hint="look"))
        canceller.failed(NotFound("no such run"))
        self.assertEqual(
            self.err.getvalue().removeprefix(f"{ERASE}waiting for it to end{ERASE}"),
            "note: web-1: cancelled, 1 process told to end\n"
            "note: web-1: it had ended already: timed out\n"
            "note: web-1: nothing is to be ended there: unreachable\n"
            "error: b: it may not be cancelled: gone\nhint: look\n"
            "error: it is not cancelled: no such run\n"
            "hint: it goes on; Ctrl-C and c asks once more\n",
        )
        self.assertEqual(self.out.getvalue(), "")

    def test_underWay(self) -> None:
        """
        Who leaves while it is about to end is not told that it runs on, but
        where its agent has not said so.
        """
        viewer = self.waiting()
        viewer.wants("c")
        canceller = viewer.canceller()
        self.assertEqual(viewer.ending, ["web-1", "web-2"])
        canceller.arrived(CancelRow(host="web-2", reqid="r1", error="gone"))
        self.assertEqual(
            viewer.reckoning("interrupted"),
            "interrupted: 0 of 2 hosts have answered; it may be ending at web-1; "
            "it runs on at web-2",
        )
        canceller.failed(NotFound("no such run"))
        self.assertEqual(viewer.ending, [])
        # They have it asked once more.
        viewer.canceller().planned(2, "r1")
        self.assertEqual(viewer.ending, ["web-1"])

    def test_wasCancelled(self) -> None:
        """
        It was cancelled if somebody wanted that, and an agent or a result says
        so; one that had ended by then was not.
        """
        viewer = self.waiting()
        done = CancelRow(host="web-1", reqid="r1", state="done")
        cancelled = attrs.evolve(row("web-2"), outcome=Outcome.CANCELLED)
        viewer.arrived(row("web-1"))
        self.assertFalse(viewer.was_cancelled)
        viewer.canceller().arrived(done)
        self.assertFalse(viewer.was_cancelled)
        viewer.arrived(cancelled)
        self.assertTrue(viewer.was_cancelled)
        viewer = self.waiting()
        viewer.arrived(cancelled)
        self.assertFalse(viewer.was_cancelled)
        viewer.canceller().arrived(attrs.evolve(done, state="cancelled"))
        self.assertTrue(viewer.was_cancelled)
