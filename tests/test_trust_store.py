# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.trust_store}, and for what a map lets be changed.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.trust import Change, NotChanged, TrustedMap
from ctrlexec.agent.trust_store import (
    SerialChange,
    change_trust,
    migrate_trust,
    stored_trust,
    trust_locked,
    trust_mark,
)
from ctrlexec.errors import StoreError
from tests.agents import agent_settings, tree
from tests.test_trust import IDS, MAPS, SERIALS

CHANGES = st.sampled_from(Change)


class ChangedTests(SynchronousTestCase):
    """
    L{TrustedMap.changed}
    """

    trusted = TrustedMap({"d1": "hq", "e1": "lab"})

    def test_add(self) -> None:
        """
        A dispatcher adds a serial, which is its own then; again is no matter.
        """
        after = self.trusted.changed(Change.ADD, "d2", "hq")
        assert isinstance(after, TrustedMap)
        self.assertEqual(after.entries, {"d1": "hq", "d2": "hq", "e1": "lab"})
        self.assertEqual(after.changed(Change.ADD, "d2", "hq"), after)

    def test_remove(self) -> None:
        """
        It removes one of its own; one that is not there is removed already.
        """
        after = self.trusted.changed(Change.REMOVE, "d1", "hq")
        self.assertEqual(after, TrustedMap({"e1": "lab"}))
        absent = self.trusted.changed(Change.REMOVE, "d9", "hq")
        self.assertEqual(absent, self.trusted)

    def test_others(self) -> None:
        """
        It neither removes nor takes over the serial of another.
        """
        for change in Change:
            refused = NotChanged("serial not owned by 'hq'")
            self.assertEqual(self.trusted.changed(change, "e1", "hq"), refused)

    def test_stranger(self) -> None:
        """
        Whoever is trusted no more, or never was, changes nothing.
        """
        for change in Change:
            refused = NotChanged("'new' is not trusted")
            self.assertEqual(self.trusted.changed(change, "f1", "new"), refused)
            self.assertEqual(TrustedMap().changed(change, "f1", "new"), refused)

    @given(trusted=MAPS, change=CHANGES, serial=SERIALS, dispatcher=IDS)
    def test_onlyOwn(
        self, trusted: TrustedMap, change: Change, serial: str, dispatcher: str
    ) -> None:
        """
        Whatever is asked, the entries of the others stay as they are, and no
        other id appears.
        """
        after = trusted.changed(change, serial, dispatcher)
        if isinstance(after, TrustedMap):
            for each in (trusted, after):
                self.assertIn(dispatcher, trusted.entries.values())
                others = {s: n for s, n in each.entries.items() if n != dispatcher}
                self.assertEqual(
                    others,
                    {s: n for s, n in trusted.entries.items() if n != dispatcher},
                )


class StoreTestCase(SynchronousTestCase):
    """
    An agent in a directory.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.settings = agent_settings(self.directory)
        self.map = self.settings.trusted_dispatchers_path
        self.older = self.settings.dispatcher_serial_path

    def trust(self, text: str) -> None:
        """
        Write the map.
        """
        self.map.parent.mkdir(exist_ok=True)
        self.map.write_text(text)


class ChangeTests(StoreTestCase):
    """
    L{change_trust}
    """

    def test_written(self) -> None:
        """
        What a change makes of the map is on disk, for everybody to read, and
        nothing is left beside it.
        """
        self.trust("d1 hq\n")
        after = change_trust(self.settings, SerialChange(Change.ADD, "d2", "hq"))
        self.assertEqual(after, TrustedMap({"d1": "hq", "d2": "hq"}))
        self.assertEqual(stored_trust(self.settings), after)
        self.assertEqual(stat.S_IMODE(self.map.stat().st_mode), 0o644)
        self.assertEqual(os.listdir(self.map.parent), [self.map.name])

    def test_refused(self) -> None:
        """
        What is refused changes no byte.
        """
        self.trust("d1 hq # by hand\ne1 lab\n")
        before = tree(self.directory)
        asked = SerialChange(Change.REMOVE, "e1", "hq")
        self.assertIsInstance(change_trust(self.settings, asked), NotChanged)
        self.assertEqual(tree(self.directory), before)

    def test_fresh(self) -> None:
        """
        It is the map on disk that is changed, as another process has left it.
        """
        self.trust("d1 hq\n")
        change_trust(self.settings, SerialChange(Change.ADD, "d2", "hq"))
        self.trust("d1 hq\nf1 late\n")
        change_trust(self.settings, SerialChange(Change.ADD, "d3", "hq"))
        entries = {"d1": "hq", "d3": "hq", "f1": "late"}
        self.assertEqual(stored_trust(self.settings).entries, entries)

    def test_last(self) -> None:
        """
        A map of which the last entry is removed trusts nobody; the older file
        does not come back.
        """
        self.trust("d1 hq\n")
        self.older.write_text("aa\n")
        change_trust(self.settings, SerialChange(Change.REMOVE, "d1", "hq"))
        self.assertEqual(stored_trust(self.settings).entries, {})

    def test_unreadable(self) -> None:
        """
        A map that can not be read is not written over.
        """
        self.map.mkdir(parents=True)
        asked = SerialChange(Change.ADD, "d2", "hq")
        self.assertRaises(StoreError, change_trust, self.settings, asked)

    def test_locked(self) -> None:
        """
        One lock is held meanwhile, for which nothing stands in the directory.
        """
        with trust_locked(self.settings):
            descriptor = os.open(self.map.parent, os.O_RDONLY)
            self.addCleanup(os.close, descriptor)
            exclusive = fcntl.LOCK_EX | fcntl.LOCK_NB
            self.assertRaises(BlockingIOError, fcntl.flock, descriptor, exclusive)
        fcntl.flock(descriptor, exclusive)
        self.assertEqual(os.listdir(self.map.parent), [])

    def test_mark(self) -> None:
        """
        Each change is seen; nothing is, where nothing has changed.
        """
        self.assertIsNone(trust_mark(self.settings))
        self.trust("d1 hq\n")
        first = trust_mark(self.settings)
        self.assertEqual(trust_mark(self.settings), first)
        change_trust(self.settings, SerialChange(Change.ADD, "d1", "hq"))
        self.assertNotEqual(trust_mark(self.settings), first)


class MigrateTests(StoreTestCase):
    """
    L{migrate_trust}
    """

    def test_migrated(self) -> None:
        """
        The older line's serial becomes a map; a number of digits only is hex.
        """
        self.older.write_text("16\n")
        self.assertEqual(migrate_trust(self.settings), "16")
        self.assertTrue(self.map.read_text().endswith("\n16 dispatcher\n"))
        self.assertEqual(stored_trust(self.settings).entries, {"16": "dispatcher"})
        self.assertIsNone(migrate_trust(self.settings))

    def test_map(self) -> None:
        """
        A map that is there counts alone, an empty one or a bad one too.
        """
        self.older.write_text("aa\n")
        for text in ("", "d1 hq\n", "rubbish"):
            self.trust(text)
            self.assertIsNone(migrate_trust(self.settings))
            self.assertEqual(self.map.read_text(), text)

    def test_nothing(self) -> None:
        """
        Where there is no serial, no map is made.
        """
        for text in (None, "", "aa bb\n", "hq\n"):
            if text is not None:
                self.older.write_text(text)
            self.assertIsNone(migrate_trust(self.settings))
            self.assertFalse(self.map.exists())

    def test_unwritable(self) -> None:
        """
        Where no map can be made that is an error, and the older file counts.
        """
        self.older.write_text("aa\n")
        self.map.parent.touch()
        self.assertRaises(StoreError, migrate_trust, self.settings)
