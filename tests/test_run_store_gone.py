# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.run_store}: directories that go, and that are gone.
"""

from __future__ import annotations

import shutil

from tests.test_run_store import ENDED, KEY, StoreTestCase, mode


class GoneTests(StoreTestCase):
    """
    L{RunStore.clear} and L{RunStore.finish}
    """

    def test_cleared(self) -> None:
        """
        The directory of a run goes with whatever is in it. What a link in it, or in
        its place, leads to stays.
        """
        other = self.root / "other"
        other.mkdir(parents=True)
        (other / "stdout").write_text("another's")
        directory = self.claimed()
        (directory / "stdout").write_text("x")
        (directory / "more" / "of it").mkdir(parents=True)
        (directory / "link").symlink_to(other)
        self.store.clear(KEY)
        self.assertFalse(directory.exists())
        directory.symlink_to(other)
        self.store.clear(KEY)
        self.assertEqual((other / "stdout").read_text(), "another's")

    def test_swept(self) -> None:
        """
        A run is written down where somebody has removed the directory of its owner.
        """
        directory = self.claimed()
        shutil.rmtree(directory.parent)
        self.store.finish(KEY, ENDED, directory, durable=False)
        self.assertEqual(self.tree(), ["hq", "hq/r-1.json"])
        self.assertEqual(mode(self.root / "hq"), 0o750)
