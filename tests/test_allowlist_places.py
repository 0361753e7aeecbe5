# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.allowlist}: where scripts may be.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.allowlist import NotPermitted, Permitted, Script, placed


class PlacedTests(SynchronousTestCase):
    """
    L{placed}
    """

    def setUp(self) -> None:
        self.top = Path(self.mktemp()).resolve()
        self.allowed = self.top / "scripts"
        self.outside = self.top / "scripts-old"
        for directory in (self.allowed / "sub", self.outside):
            directory.mkdir(parents=True)
            (directory / "a").write_text("#!/bin/sh\n")

    def assert_permitted(self, path: Path, real: Path, *directories: Path) -> None:
        decision = placed(Script("a", path, timeout=1), directories)
        self.assertEqual(decision, Permitted(Script("a", real, timeout=1)))

    def assert_refused(self, path: Path, real: Path, *directories: Path) -> None:
        decision = placed(Script("a", path), directories)
        self.assertEqual(decision, NotPermitted(f"{real} is outside script_dirs"))

    def test_noLimit(self) -> None:
        """
        Without C{script_dirs} a script may be anywhere, and is started where it
        really is.
        """
        script = Script("a", self.allowed / "../x")
        real = Script("a", self.top / "x")
        self.assertEqual(placed(script, None), Permitted(real))

    def test_below(self) -> None:
        """
        A script in any of the directories, at any depth, may run.
        """
        path = self.allowed / "sub" / "a"
        self.assert_permitted(path, path, self.outside, self.allowed)
        self.assert_permitted(path, path, Path("/"))

    def test_outside(self) -> None:
        """
        A directory whose name only begins alike is another directory, and a
        directory is not below itself.
        """
        self.assert_refused(self.outside / "a", self.outside / "a", self.allowed)
        self.assert_refused(self.allowed, self.allowed, self.allowed)

    def test_noDirectories(self) -> None:
        """
        An empty limit permits nothing.
        """
        self.assert_refused(self.allowed / "a", self.allowed / "a")

    def test_parent(self) -> None:
        """
        C{..} leads out as it does for the system.
        """
        path = self.allowed / ".." / "scripts-old" / "a"
        self.assert_refused(path, self.outside / "a", self.allowed)

    def test_linkOut(self) -> None:
        """
        A link in a directory to a script outside is outside, and so is a
        script reached through a linked directory.
        """
        (self.allowed / "link").symlink_to(self.outside / "a")
        (self.allowed / "way").symlink_to(self.outside)
        for path in (self.allowed / "link", self.allowed / "way" / "a"):
            self.assert_refused(path, self.outside / "a", self.allowed)

    def test_linkIn(self) -> None:
        """
        Where a link leads in, what it leads to is what will be started.
        """
        (self.outside / "link").symlink_to(self.allowed / "sub" / "a")
        real = self.allowed / "sub" / "a"
        self.assert_permitted(self.outside / "link", real, self.allowed)

    def test_linkToProgram(self) -> None:
        """
        A link to a program keeps its own name, as one file may be many
        programs; then both ends must be in the directories.
        """
        (self.allowed / "tools").write_bytes(b"\x7fELF")
        for directory in (self.allowed, self.outside):
            (directory / "up").symlink_to(self.allowed / "tools")
        link = self.allowed / "up"
        self.assert_permitted(link, link, self.allowed)
        link = self.outside / "up"
        self.assert_permitted(link, link, self.allowed, self.outside)
        self.assert_refused(link, link, self.allowed)
        self.assert_refused(link, self.allowed / "tools", self.outside)

    def test_exposed(self) -> None:
        """
        What anybody may write is not permitted, wherever it is.
        """
        path = self.allowed / "sub" / "a"
        path.chmod(0o757)
        refused = NotPermitted(f"{path} is world-writable")
        self.assertEqual(placed(Script("a", path), None), refused)
        self.assertEqual(placed(Script("a", path), (self.allowed,)), refused)

    def test_linkedDirectory(self) -> None:
        """
        The directories may be links themselves.
        """
        (self.top / "way").symlink_to(self.allowed)
        real = self.allowed / "sub" / "a"
        self.assert_permitted(self.top / "way" / "sub" / "a", real, self.top / "way")

    def test_missing(self) -> None:
        """
        That a script is not there is for the runner to say.
        """
        path = self.allowed / "missing"
        self.assert_permitted(path, path, self.allowed)

    def test_loop(self) -> None:
        """
        Links that lead round in a circle are answered, never raised.
        """
        loop = self.allowed / "loop"
        loop.symlink_to(loop)
        self.assert_permitted(loop, loop, self.allowed)
        self.assert_refused(loop, loop, self.outside)
