# SPDX-License-Identifier: AGPL-3.0-only
"""
What every implementation of a store of runs must do: see L{tests.contracts}.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from zope.interface.verify import verifyObject

from ctrlexec.dispatcher.runs import KeyClaim, RunRecord
from ctrlexec.errors import InvalidValue, NotFound
from ctrlexec.interfaces import IRunStore
from ctrlexec.values import Submitter
from tests.contracts import AT, OTHER
from tests.dispatching import REQID

if TYPE_CHECKING:
    from twisted.trial.unittest import SynchronousTestCase as Base
else:
    Base = object


#: What stands for a key of somebody's.
KEY_HASH = "5e" * 32


class RunStoreContract(Base):
    """
    What an L{IRunStore} does.
    """

    def runs(self) -> IRunStore:
        """
        @return: an empty one, where what is put is put at L{AT}.
        """
        raise NotImplementedError

    def record(self, reqid: str = REQID) -> RunRecord:
        """
        A run of C{echo} on two hosts.
        """
        return RunRecord.sync(
            reqid=reqid,
            script="echo",
            hosts=("web-1", "web-2"),
            results=[{"host": "web-1", "exit": 0, "stdout": "\u00e9\n", "stderr": ""}],
            completed=int(AT),
            submitter=Submitter("alice", "192.0.2.1"),
        )

    def test_interface(self) -> None:
        """
        It is what it says.
        """
        self.assertTrue(verifyObject(IRunStore, self.runs()))

    def test_keeps(self) -> None:
        """
        What was put is what is got.
        """
        runs = self.runs()
        for reqid in (REQID, OTHER):
            runs.put(self.record(reqid))
        self.assertEqual(runs.get(REQID, AT), self.record())

    def test_unknown(self) -> None:
        """
        A run that nobody knows of is not found.
        """
        runs = self.runs()
        self.assertRaises(NotFound, runs.get, REQID, AT)
        runs.put(self.record())
        self.assertRaises(NotFound, runs.get, OTHER, AT)

    def test_expires(self) -> None:
        """
        A run is known for a day, whether anybody sweeps or not.
        """
        runs = self.runs()
        runs.put(self.record())
        self.assertEqual(runs.get(REQID, AT + 86_399), self.record())
        self.assertRaises(NotFound, runs.get, REQID, AT + 86_400)

    def test_sweeps(self) -> None:
        """
        What has expired can be removed, and nothing else is.
        """
        runs = self.runs()
        self.assertEqual(runs.sweep(AT), 0)
        runs.put(self.record())
        self.assertEqual(runs.sweep(AT + 86_399), 0)
        self.assertEqual(runs.get(REQID, AT), self.record())
        self.assertEqual(runs.sweep(AT + 86_400), 1)
        self.assertRaises(NotFound, runs.get, REQID, AT)
        self.assertEqual(runs.sweep(AT + 86_400), 0)

    def test_noPaths(self) -> None:
        """
        Nothing that is a path is an id.
        """
        runs = self.runs()
        for reqid in ("../x", "a/b", "", ".x", "a\0"):
            self.assertRaises(InvalidValue, runs.get, reqid, AT)
            record = attrs.evolve(self.record(), reqid=reqid)
            self.assertRaises(InvalidValue, runs.put, record)

    def test_changes(self) -> None:
        """
        A change starts from what is there, and is there afterwards.
        """
        runs = self.runs()
        runs.put(self.record())
        seen: list[RunRecord] = []

        def change(record: RunRecord) -> RunRecord:
            seen.append(record)
            return attrs.evolve(record, fields={**record.fields, "completed": 1})

        changed = runs.change(REQID, change, AT)
        self.assertEqual(seen, [self.record()])
        self.assertEqual(changed.fields["completed"], 1)
        self.assertEqual(runs.get(REQID, AT), changed)

    def test_changesNothing(self) -> None:
        """
        What is not there can not be changed; a change that fails leaves all as
        it was.
        """
        runs = self.runs()
        self.assertRaises(NotFound, runs.change, REQID, lambda record: record, AT)
        runs.put(self.record())

        def fails(record: RunRecord) -> RunRecord:
            raise KeyError(record.reqid)

        self.assertRaises(KeyError, runs.change, REQID, fails, AT)
        self.assertEqual(runs.get(REQID, AT), self.record())
        self.assertRaises(
            NotFound, runs.change, REQID, lambda record: record, AT + 86_400
        )

    def test_version(self) -> None:
        """
        Whoever has seen a record can tell that there is another one, and whoever
        has seen none that there is one.
        """
        runs = self.runs()
        seen = [runs.version(REQID)]
        self.assertEqual(seen, [""])
        runs.put(self.record())
        seen.append(runs.version(REQID))
        for hosts in (["web-1"], ["web-2"]):
            runs.change(REQID, lambda record, h=hosts: record.with_cancelled(h), AT)  # type: ignore[misc]
            seen.append(runs.version(REQID))
        self.assertEqual(len({*seen}), 4)
        runs.change(REQID, lambda record: record, AT)
        self.assertEqual(runs.version(REQID), seen[-1])

    def test_claims(self) -> None:
        """
        A key stands for the first run that it was given with, whoever asks; of
        another there is no record.
        """
        runs = self.runs()
        self.assertIsNone(runs.claimed(KEY_HASH, AT))
        first, late = KeyClaim(REQID, "a"), AT + 86_399
        self.assertEqual(runs.claim(KEY_HASH, "a", self.record(), AT), first)
        self.assertEqual(runs.claim(KEY_HASH, "b", self.record(OTHER), late), first)
        self.assertEqual(runs.claimed(KEY_HASH, late), first)
        self.assertEqual(runs.get(REQID, AT), self.record())
        self.assertRaises(NotFound, runs.get, OTHER, AT)
        other = runs.claim("0" * 64, "b", self.record(OTHER), AT)
        self.assertEqual(other, KeyClaim(OTHER, "b"))

    def test_claimExpires(self) -> None:
        """
        It does so for a day.
        """
        runs, late = self.runs(), AT + 86_400
        runs.claim(KEY_HASH, "a", self.record(), AT)
        self.assertIsNone(runs.claimed(KEY_HASH, late))
        claim = runs.claim(KEY_HASH, "b", self.record(OTHER), late)
        self.assertEqual(claim, KeyClaim(OTHER, "b"))

    def test_recordsAreNoClaims(self) -> None:
        """
        A run that is on record has no key by that.
        """
        runs = self.runs()
        runs.put(self.record())
        self.assertIsNone(runs.claimed(KEY_HASH, AT))

    def test_noKeys(self) -> None:
        """
        Nothing but a hash is a key.
        """
        runs = self.runs()
        for key in ("", "../x", "a" * 63, "A" * 64):
            self.assertRaises(InvalidValue, runs.claim, key, "a", self.record(), AT)
            self.assertRaises(InvalidValue, runs.claimed, key, AT)
