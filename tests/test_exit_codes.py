# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.exit_codes}.
"""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.exit_codes import error_status, rows_status, waited_status
from ctrlexec.dispatcher.results import Outcome, RunRow
from ctrlexec.dispatcher.viewer import Interrupted
from ctrlexec.errors import (
    Conflict,
    CtrlExecError,
    InvalidValue,
    Locked,
    NotAuthorised,
    NotFound,
    PkiError,
    RequestRejected,
    SettingsError,
    TransportError,
    Unconfirmed,
)

#: What each outcome is alone: in detail, and where nobody asks for that.
TABLE = {
    Outcome.OK: (0, 0),
    Outcome.ACCEPTED: (0, 0),
    Outcome.FAILED: (1, 1),
    Outcome.CANCELLED: (1, 1),
    Outcome.NOT_STARTED: (1, 1),
    Outcome.TIMED_OUT: (124, 124),
    Outcome.DENIED: (4, 1),
    Outcome.REFUSED: (4, 1),
    Outcome.BUSY: (6, 1),
    Outcome.UNREACHABLE: (3, 1),
    Outcome.UNKNOWN: (3, 1),
    Outcome.RUNNING: (3, 1),
}


def ended(outcomes: Iterable[Outcome]) -> list[RunRow]:
    """
    What became of a run, a host for each outcome.
    """
    return [
        RunRow(host="a", script="x", reqid="r", outcome=outcome) for outcome in outcomes
    ]


class RowsTests(SynchronousTestCase):
    """
    What became of a run on all of its hosts.
    """

    def test_each(self) -> None:
        """
        Each outcome alone, and beside hosts where all went well.
        """
        self.assertEqual(set(TABLE), set(Outcome))
        for outcome, (detailed, plain) in TABLE.items():
            rows = ended([Outcome.OK, outcome, Outcome.OK])
            self.assertEqual(rows_status(rows), detailed, outcome)
            self.assertEqual(rows_status(rows, detailed=False), plain, outcome)

    def test_weight(self) -> None:
        """
        Of several the heaviest counts.
        """
        by_weight = (
            Outcome.DENIED,
            Outcome.UNKNOWN,
            Outcome.BUSY,
            Outcome.TIMED_OUT,
            Outcome.FAILED,
            Outcome.OK,
        )
        for place, outcome in enumerate(by_weight):
            rows = ended(reversed(by_weight[place:]))
            self.assertEqual(rows_status(rows), TABLE[outcome][0])

    def test_stopped(self) -> None:
        """
        That hosts were left out is heavier than all else; who asks for no
        detail is told that it did not work.
        """
        rows = ended([Outcome.DENIED, Outcome.NOT_STARTED])
        self.assertEqual(rows_status(rows, stopped=True), 5)
        self.assertEqual(rows_status(rows, stopped=True, detailed=False), 1)

    @given(st.lists(st.sampled_from(Outcome)), st.booleans(), st.booleans())
    def test_always(
        self, outcomes: list[Outcome], stopped: bool, detailed: bool
    ) -> None:
        """
        It is 0 if all went well, and only then.
        """
        rows = ended(outcomes)
        status = rows_status(rows, stopped=stopped, detailed=detailed)
        good = not stopped and all(row.ok for row in rows)
        self.assertEqual(status == 0, good)
        self.assertIn(status, (0, 1, 3, 4, 5, 6, 124))


class OtherTests(SynchronousTestCase):
    """
    The others.
    """

    def test_waited(self) -> None:
        """
        NEWER-LINE.md section 6.2.
        """
        for outcomes, complete, status in (
            ([Outcome.OK, Outcome.OK], True, 0),
            ([Outcome.OK, Outcome.FAILED], True, 1),
            ([Outcome.BUSY], True, 1),
            ([Outcome.FAILED, Outcome.RUNNING], False, 2),
            ([], True, 0),
        ):
            self.assertEqual(waited_status(ended(outcomes), complete=complete), status)

    def test_errors(self) -> None:
        """
        One table from errors to exit statuses.
        """
        table: tuple[tuple[CtrlExecError, int, int], ...] = (
            (SettingsError("f", 1, "k", "p"), 7, 7),
            (Unconfirmed(60, 50), 2, 2),
            (Interrupted("i"), 130, 130),
            (NotAuthorised("denied", 1), 1, 4),
            (Locked(["a:x"]), 1, 6),
            (TransportError("gone"), 1, 3),
            (PkiError("p"), 7, 7),
            (RequestRejected("p"), 1, 1),
            (InvalidValue("w", "g", "e"), 2, 2),
            (NotFound("n"), 1, 1),
            (Conflict("c"), 1, 1),
        )
        for error, plain, detailed in table:
            self.assertEqual(error_status(error), plain, error)
            self.assertEqual(error_status(error, detailed=True), detailed, error)
