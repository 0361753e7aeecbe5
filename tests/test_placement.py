# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.placement}.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.placement import place_of, why_exposed


class PlacementTestCase(SynchronousTestCase):
    """
    A script two directories deep, and a program beside it.
    """

    def setUp(self) -> None:
        self.top = Path(self.mktemp()).resolve()
        self.inner = self.top / "opt" / "scripts"
        self.inner.mkdir(parents=True)
        self.script, self.program = self.inner / "script", self.inner / "program"
        self.script.write_text("#!/bin/sh\n")
        self.program.write_bytes(b"\x7fELF")
        for path in (self.script, self.program):
            path.chmod(0o755)


class PlaceTests(PlacementTestCase):
    """
    L{place_of}
    """

    def starts(self, path: Path) -> Path:
        return place_of(path).start

    def test_real(self) -> None:
        """
        Without a link at its end a path leads to one place, whatever it is.
        """
        for path in (self.script, self.program, self.inner / "missing", Path("/")):
            place = place_of(self.inner / ".." / "scripts" / path)
            self.assertEqual((place.real, place.start), (path, path))

    def test_script(self) -> None:
        """
        A script that a link leads to is started under its real path.
        """
        link = self.top / "link"
        link.symlink_to(self.script)
        self.assertEqual(self.starts(link), self.script)

    def test_program(self) -> None:
        """
        A program keeps the name of the link, so that what was allowed as
        C{uptime} is not started as C{busybox}.
        """
        way, link = self.top / "way", self.inner / "uptime"
        way.symlink_to(self.inner)
        link.symlink_to("program")
        place = place_of(way / "uptime")
        self.assertEqual((place.real, place.start), (self.program, link))

    def test_pipe(self) -> None:
        """
        A pipe is no script, and makes nobody wait.
        """
        pipe, link = self.top / "pipe", self.top / "link"
        os.mkfifo(pipe)
        link.symlink_to(pipe)
        self.assertEqual(self.starts(link), link)


class ExposedTests(PlacementTestCase):
    """
    L{why_exposed}
    """

    def test_good(self) -> None:
        """
        What only its owner or a group may write is not exposed, nor is what is
        not there.
        """
        self.inner.chmod(0o775)
        self.script.chmod(0o775)
        for name in ("script", "program", "missing", "missing/x", "script/x"):
            self.assertIsNone(why_exposed(self.inner / name), name)

    def test_file(self) -> None:
        """
        A script that anybody may write is.
        """
        self.script.chmod(0o757)
        reason = f"{self.script} is world-writable"
        self.assertEqual(why_exposed(self.script), reason)
        link = self.top / "link"
        link.symlink_to(self.script)
        self.assertEqual(why_exposed(link), reason)

    def test_directory(self) -> None:
        """
        Any directory above it counts, unless it has the sticky bit.
        """
        for directory in (self.inner, self.inner.parent):
            directory.chmod(0o777)
            reason = f"the directory {directory} is world-writable"
            self.assertEqual(why_exposed(self.script), reason)
            directory.chmod(0o1777)
            self.assertIsNone(why_exposed(self.script))

    def test_linksDirectory(self) -> None:
        """
        So does the directory of a link on the way, and one that C{..} leaves
        again: who may write it decides where the way leads.
        """
        exposed = self.top / "exposed"
        (exposed / "sub").mkdir(parents=True)
        exposed.chmod(0o777)
        (exposed / "link").symlink_to(self.script)
        (exposed / "way").symlink_to("../opt")
        (self.top / "far").symlink_to(exposed / "way")
        reason = f"the directory {exposed} is world-writable"
        for path in (
            exposed / "link",
            exposed / "way" / "scripts" / "script",
            exposed / "sub" / ".." / ".." / "opt" / "scripts" / "script",
            self.top / "far" / "scripts" / "script",
        ):
            self.assertEqual(why_exposed(path), reason, path)

    def test_loop(self) -> None:
        """
        Links that lead round in a circle lead to nothing that could be started.
        """
        loop = self.top / "loop"
        loop.symlink_to(loop)
        self.assertIsNone(why_exposed(loop))

    def test_unknown(self) -> None:
        """
        What can not be looked at is taken for exposed.
        """
        path = self.top / ("x" * 300)
        self.assertEqual(
            why_exposed(path), f"{path} can not be looked at: File name too long"
        )
