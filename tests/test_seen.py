# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.seen}.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.orders import Seen
from ctrlexec.dispatcher.seen import (
    KEPT_SECONDS,
    MOST_NOTES,
    SeenNotes,
    notes_directory,
    seen_before,
)
from ctrlexec.protocol.run_messages import Output, StateChanged
from tests.messages import JSON

NOW = 1_800_000_000.0


class DirectoryTests(SynchronousTestCase):
    """
    Where notes are.
    """

    def test_places(self) -> None:
        """
        As the XDG base directory specification has it; somebody without a home
        has none.
        """
        home, state = (Path(self.mktemp()).absolute() for _ in range(2))
        home.mkdir()
        usual = home / ".local/state/ctrl-exec/seen"
        for environ, place in (
            ({"HOME": home}, usual),
            ({"HOME": home, "XDG_STATE_HOME": state}, usual),
            ({"HOME": home, "XDG_STATE_HOME": "."}, usual),
            ({"HOME": ""}, None),
            ({}, None),
        ):
            words = {name: str(value) for name, value in environ.items()}
            self.assertEqual(notes_directory(words), place)
        state.mkdir()
        words = {"HOME": str(home), "XDG_STATE_HOME": str(state)}
        self.assertEqual(notes_directory(words), state / "ctrl-exec/seen")

    def test_anothers(self) -> None:
        """
        In a home that is somebody else's, nothing is written or removed: root
        may have been called with it.
        """
        home = Path(self.mktemp()).absolute()
        home.mkdir()
        self.patch(os, "geteuid", lambda: os.getuid() + 1)
        self.assertIsNone(notes_directory({"HOME": str(home)}))


class NotesTests(SynchronousTestCase):
    """
    How much of a run somebody has seen.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute() / "state" / "seen"
        self.clock = Clock()
        self.path = self.directory / "r1.json"
        self.notes = self.made()

    def made(self, directory: Path | None = None) -> SeenNotes:
        """
        The note of a run that is followed.
        """
        where = directory or self.directory
        notes = SeenNotes(where, lambda: NOW, self.clock.seconds)
        notes.begin("r1")
        return notes

    def test_goesOn(self) -> None:
        """
        What was noted is what is known afterwards, of each host and stream.
        """
        self.notes.note("a", Output(0, "stdout", "x", 10))
        self.notes.note("a", Output(0, "stderr", "x", 3))
        self.notes.note("b", Output(0, "stdout", "x", 5))
        self.notes.note("b", Output(0, "stdout", "y", 7))
        self.notes.note("b", StateChanged(0, "running"))
        self.notes.keep()
        self.assertEqual(
            seen_before(self.directory, "r1"), {"a": Seen(10, 3), "b": Seen(7, 0)}
        )

    def test_private(self) -> None:
        """
        It is nobody else's business.
        """
        self.notes.note("a", Output(0, "stdout", "x", 1))
        self.notes.keep()
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.directory.stat().st_mode & 0o077, 0)

    def test_seldom(self) -> None:
        """
        However much is written, it is noted once a second at the most.
        """
        for end in range(1, 100):
            self.notes.note("a", Output(0, "stdout", "x", end))
        self.assertFalse(self.path.exists())
        self.clock.advance(1)
        self.notes.note("a", Output(0, "stdout", "x", 100))
        self.notes.note("a", Output(0, "stdout", "x", 101))
        self.assertEqual(seen_before(self.directory, "r1"), {"a": Seen(100, 0)})

    def test_nothing(self) -> None:
        """
        Where nothing was seen there is nothing to note.
        """
        self.notes.keep()
        self.assertFalse(self.directory.exists())

    def test_dropped(self) -> None:
        """
        Who has seen all of it needs no note.
        """
        self.notes.note("a", Output(0, "stdout", "x", 1))
        self.notes.keep()
        self.notes.drop()
        self.notes.keep()
        self.assertFalse(self.path.exists())

    def test_bounded(self) -> None:
        """
        The oldest are removed when another one is begun, and those of runs that
        no agent knows any more.
        """
        self.directory.mkdir(parents=True)
        for number in range(MOST_NOTES + 20):
            path = self.directory / f"n{number}.json"
            path.write_text("{}")
            os.utime(path, (NOW - number, NOW - number))
        old = self.directory / "n0.json"
        os.utime(old, (NOW - KEPT_SECONDS, NOW - KEPT_SECONDS))
        other = self.directory / "other"
        other.write_text("")
        self.notes.note("a", Output(0, "stdout", "x", 1))
        self.notes.keep()
        left = {path.name for path in self.directory.glob("*.json")}
        self.assertEqual(len(left), MOST_NOTES)
        self.assertIn("r1.json", left)
        self.assertNotIn("n0.json", left)
        self.assertNotIn(f"n{MOST_NOTES + 19}.json", left)
        self.assertTrue(other.exists())

    def test_nowhere(self) -> None:
        """
        Where it can not be written, nobody is stopped; nor is somebody without
        a home, or whose run has an id that is none.
        """
        place = Path(self.mktemp())
        place.write_text("not a directory")
        for notes in (
            self.made(place / "seen"),
            SeenNotes(None, lambda: NOW, self.clock.seconds),
        ):
            notes.begin("r1")
            notes.note("a", Output(0, "stdout", "x", 1))
            notes.keep()
            notes.drop()
        self.notes.begin("../x")
        self.notes.note("a", Output(0, "stdout", "x", 1))
        self.notes.keep()
        self.assertFalse(self.directory.exists())
        self.assertEqual(seen_before(None, "r1"), {})
        self.assertEqual(seen_before(self.directory, "../x"), {})

    @given(st.binary() | JSON.map(lambda said: json.dumps({"hosts": said}).encode()))
    def test_anything(self, data: bytes) -> None:
        """
        A note that is none says nothing.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(data)
        for had in seen_before(self.directory, "r1").values():
            self.assertGreaterEqual(min(had.stdout, had.stderr), 0)
