# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.locks} in one process, in which two runs keep each
other out as well.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.locks import Busy, FileLocks, Held, Holder, LockState
from ctrlexec.errors import StoreError
from tests.authority import NOW
from tests.contracts import LocksContract
from tests.dispatching import REQID


class FileLocksTests(LocksContract, SynchronousTestCase):
    """
    The locks that are files.
    """

    def setUp(self) -> None:
        """
        A directory that is not there yet.
        """
        self.directory = Path(self.mktemp()) / "locks"
        self.path = self.directory / "web-1--echo.lock"

    def locks(self) -> FileLocks:
        """
        See L{LocksContract.locks}.
        """
        return FileLocks(self.directory, lambda: NOW)

    def untold(self) -> FileLocks:
        """
        Locks where the system does not tell who holds them.
        """
        return FileLocks(self.directory, lambda: NOW, self.directory / "nowhere")

    def foreign(self) -> int:
        """
        A lock of an original dispatcher, which has written nothing.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.addCleanup(os.close, descriptor)
        return descriptor

    def test_files(self) -> None:
        """
        Directory and file are for the dispatcher's group, and the file stays
        when the lock is gone.
        """
        held = self.taken("web-1")
        self.assertEqual(self.directory.stat().st_mode & 0o7777, 0o2770)
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o660)
        self.assertEqual(held.release("web-1"), ("web-1",))
        self.assertEqual([*self.directory.iterdir()], [self.path])

    def test_foreign(self) -> None:
        """
        An original's lock is honoured, and known by the name of its file.
        """
        self.foreign()
        self.assertEqual(self.conflicts("web-1", "web-2"), ("web-1:echo",))
        self.assertEqual(
            list(self.locks().listed()), [LockState("web-1", "echo", os.getpid())]
        )

    def test_foreignFile(self) -> None:
        """
        A file of an original that nobody has locked is as good as ours, and
        becomes one that our group can use.
        """
        self.directory.mkdir(parents=True)
        self.path.write_bytes(b"12345\n" * 1000)
        self.path.chmod(0o444)
        held = self.taken("web-1")
        self.assertEqual([state.host for state in self.locks().listed()], ["web-1"])
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o660)
        self.assertEqual(held.hosts, ("web-1",))

    def test_keepsOriginalOut(self) -> None:
        """
        What we have locked, an original can not lock.
        """
        held = self.taken("web-1")
        with self.assertRaises(BlockingIOError):
            self.foreign()
        held.release("web-1")
        self.foreign()

    def test_saysNothingAfterwards(self) -> None:
        """
        What we said about a lock is not taken for what somebody else has to
        say about theirs.
        """
        self.taken("web-1").release("web-1")
        self.foreign()
        for locks in (self.locks(), self.untold()):
            (state,) = locks.listed()
            self.assertEqual((state.user, state.reqid, state.since), ("", "", ""))

    def test_triesLeaveNoTrace(self) -> None:
        """
        Who was turned away has changed nothing about what the holder says.
        """
        held = self.taken("web-1")
        self.conflicts("web-1")
        (state,) = self.locks().listed()
        self.assertEqual(state.user, "alice")
        self.assertEqual(held.hosts, ("web-1",))

    def test_untold(self) -> None:
        """
        Where the system does not tell, it can be found out, but for the
        process; and of several conflicts one is named.
        """
        held = self.taken("web-1", "web-2")
        states = self.untold().listed()
        self.assertEqual([state.host for state in states], ["web-1", "web-2"])
        self.assertEqual({state.user for state in states}, {"alice"})
        busy = self.untold().take(["web-2", "web-1"], Holder("echo", REQID, "bob"))
        self.assertEqual(busy, Busy(("web-1:echo",)))
        held.release(*held.hosts)
        self.assertEqual(list(self.untold().listed()), [])

    def test_sameFile(self) -> None:
        """
        Two hosts whose names differ only in what no file name can have share
        a lock, and do not wait for each other.
        """
        held = self.taken("fe80::1", "fe80__1")
        self.assertEqual(held.release("fe80::1"), ("fe80::1",))
        self.assertEqual(self.conflicts("fe80::1"), ("fe80::1:echo",))
        self.assertEqual(held.release("fe80__1"), ("fe80__1",))
        self.assertEqual(self.taken("fe80::1").hosts, ("fe80::1",))

    def test_longNames(self) -> None:
        """
        A host and a script that are too long for the name of a file can be
        locked, and are listed with their whole names.
        """
        host, script = "w" * 253, "s" * 128
        held = self.taken(host, script=script)
        self.assertEqual(self.where(), [(host, script)])
        self.assertEqual(self.conflicts(host, script=script), (f"{host}:{script}",))
        self.assertEqual(held.hosts, (host,))

    def test_longUser(self) -> None:
        """
        A user's name can be as long as it wants to be.
        """
        holder = Holder("echo", REQID, "é" * 100_000)
        held = self.locks().take(["web-1"], holder)
        assert isinstance(held, Held)
        (state,) = self.locks().listed()
        self.assertEqual(state.user[:100], "é" * 100)
        self.assertLess(len(state.user), 200)
        self.assertEqual(held.hosts, ("web-1",))

    def test_oddFile(self) -> None:
        """
        What is no file can not be locked; nothing stays locked, and whoever
        it was that made it learns where it is.
        """
        self.directory.mkdir(parents=True)
        (self.directory / "web-2--echo.lock").mkdir()
        os.mkfifo(self.directory / "web-3--echo.lock")
        target = self.directory / "target"
        (self.directory / "web-4--echo.lock").symlink_to("target")
        for host in ("web-2", "web-3", "web-4"):
            with self.assertRaises(StoreError) as raised:
                self.taken("web-1", host)
            self.assertEqual(raised.exception.path.name, f"{host}--echo.lock")
        self.assertEqual(list(self.locks().listed()), [])
        self.assertFalse(target.exists())

    def test_noPlace(self) -> None:
        """
        Where no lock can be had, nothing runs.
        """
        self.directory.parent.mkdir()
        self.directory.write_bytes(b"")
        self.assertRaises(StoreError, self.taken, "web-1")
        self.assertRaises(StoreError, self.locks().listed)

    def test_otherFiles(self) -> None:
        """
        What is not called like a lock is none.
        """
        held = self.taken("web-1")
        descriptor = os.open(self.directory / "README", os.O_RDWR | os.O_CREAT)
        self.addCleanup(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for locks in (self.locks(), self.untold()):
            self.assertEqual([state.host for state in locks.listed()], ["web-1"])
        self.assertEqual(held.hosts, ("web-1",))
