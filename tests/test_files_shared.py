# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.files}: what several users share.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.errors import StoreError
from ctrlexec.files import exclusive_lock, make_shared_directory


class SharedTests(SynchronousTestCase):
    """
    Directories and locks of a group.
    """

    def setUp(self) -> None:
        """
        A directory, and a umask that hides everything from everybody.
        """
        self.directory = Path(self.mktemp())
        self.directory.mkdir(0o750)
        self.addCleanup(os.umask, os.umask(0o077))
        if os.geteuid() == 0:
            os.chown(self.directory, -1, 4242)

    def test_directory(self) -> None:
        """
        A directory is for the group that has the one above it, and so is what
        is made in it.
        """
        path = self.directory / "locks"
        make_shared_directory(path)
        self.assertEqual(path.stat().st_mode & 0o7777, 0o2770)
        self.assertEqual(path.stat().st_gid, self.directory.stat().st_gid)

    def test_above(self) -> None:
        """
        What is missing above it is made, too.
        """
        path = self.directory / "var" / "lib" / "locks"
        make_shared_directory(path)
        self.assertTrue(path.is_dir())

    def test_there(self) -> None:
        """
        A directory that is there stays as somebody has made it.
        """
        make_shared_directory(self.directory)
        self.assertEqual(self.directory.stat().st_mode & 0o7777, 0o750)

    def test_inTheWay(self) -> None:
        """
        A file in its place is an error.
        """
        path = self.directory / "locks"
        path.write_bytes(b"")
        self.assertRaises(StoreError, make_shared_directory, path)

    def test_lock(self) -> None:
        """
        A lock that is shared can be used by the directory's group; others are
        their owner's.
        """
        for shared, mode in ((False, 0o600), (True, 0o660)):
            path = self.directory / f"{shared}.lock"
            with exclusive_lock(path, shared=shared):
                pass
            self.assertEqual(path.stat().st_mode & 0o777, mode)
        self.assertEqual(path.stat().st_gid, self.directory.stat().st_gid)
