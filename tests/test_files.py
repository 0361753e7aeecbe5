# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.files}, on a real directory.
"""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.errors import StoreError
from ctrlexec.files import (
    create_exclusive,
    exclusive_lock,
    make_directory,
    read_bounded,
    remove,
    sweep,
    write_atomic,
)


def mode_of(path: Path) -> int:
    """
    The permissions of a file.
    """
    return stat.S_IMODE(path.stat().st_mode)


class FilesTestCase(SynchronousTestCase):
    """
    A directory of its own, a strange umask, and no descriptor left open.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.path = self.directory / "record.json"
        self.addCleanup(os.umask, os.umask(0o027))
        before = self.open_files()
        self.addCleanup(lambda: self.assertEqual(self.open_files(), before))

    def open_files(self) -> int:
        """
        How many descriptors this process has.
        """
        return len(os.listdir("/proc/self/fd"))

    def names(self) -> list[str]:
        """
        What lies in the directory, hidden files too.
        """
        return sorted(os.listdir(self.directory))


class WriteTests(FilesTestCase):
    """
    L{write_atomic}
    """

    def test_writes(self) -> None:
        """
        The file is there, whole, with nothing beside it.
        """
        write_atomic(self.path, b"one")
        self.assertEqual(
            (self.path.read_bytes(), self.names()), (b"one", ["record.json"])
        )

    def test_replaces(self) -> None:
        """
        A reader that has the old file open keeps all of the old file.
        """
        write_atomic(self.path, b"old")
        with self.path.open("rb") as reader:
            write_atomic(self.path, b"new")
            self.assertEqual(reader.read(), b"old")
        self.assertEqual(self.path.read_bytes(), b"new")

    def test_mode(self) -> None:
        """
        The permissions are those asked for, whatever the umask and the old
        file say.
        """
        for mode in (0o600, 0o644, 0o666, 0o640):
            write_atomic(self.path, b"", mode)
            self.assertEqual(mode_of(self.path), mode)

    def test_longNames(self) -> None:
        """
        A name may be as long as the system allows.
        """
        path = self.directory / ("n" * 255)
        write_atomic(path, b"long")
        self.assertEqual(path.read_bytes(), b"long")

    def test_failure(self) -> None:
        """
        What can not be replaced stays, and nothing is left beside it.
        """
        self.path.mkdir()
        with self.assertRaises(StoreError) as caught:
            write_atomic(self.path, b"new")
        self.assertEqual(
            str(caught.exception), f"{self.path}: cannot write it: Is a directory"
        )
        self.assertEqual(caught.exception.path, self.path)
        self.assertEqual(self.names(), ["record.json"])

    def test_noDirectory(self) -> None:
        """
        A directory that is missing is an error in words.
        """
        path = self.directory / "missing" / "record.json"
        self.assertRaises(StoreError, write_atomic, path, b"")

    def test_symlink(self) -> None:
        """
        A link under the name is replaced; what it points to is not touched.
        """
        target = self.directory / "target"
        target.write_bytes(b"precious")
        self.path.symlink_to(target)
        write_atomic(self.path, b"new")
        self.assertFalse(self.path.is_symlink())
        self.assertEqual(target.read_bytes(), b"precious")

    def test_group(self) -> None:
        """
        A file can be given to the group of its directory.
        """
        group = self.directory.stat().st_gid
        write_atomic(self.path, b"", 0o640, group_of_directory=True)
        found = self.path.stat()
        self.assertEqual((found.st_gid, mode_of(self.path)), (group, 0o640))


class CreateTests(FilesTestCase):
    """
    L{create_exclusive}
    """

    def test_creates(self) -> None:
        """
        The file is there, whole, with its permissions and nothing beside it.
        """
        create_exclusive(self.path, b"key", 0o600)
        self.assertEqual(self.path.read_bytes(), b"key")
        self.assertEqual((mode_of(self.path), self.path.stat().st_nlink), (0o600, 1))
        self.assertEqual(self.names(), ["record.json"])

    def test_exists(self) -> None:
        """
        A file, a directory or a dangling link under the name stays as it is.
        """
        link, directory = self.directory / "link", self.directory / "directory"
        self.path.write_bytes(b"first")
        link.symlink_to(self.directory / "nowhere")
        directory.mkdir()
        for path in (self.path, link, directory):
            self.assertRaises(FileExistsError, create_exclusive, path, b"second")
        self.assertEqual(self.path.read_bytes(), b"first")
        self.assertEqual(self.names(), ["directory", "link", "record.json"])

    def test_oneOfMany(self) -> None:
        """
        Of many who create the same file at once, one does.
        """
        created: list[bytes] = []

        def create(data: bytes) -> None:
            try:
                create_exclusive(self.path, data)
            except FileExistsError:
                return
            created.append(data)

        threads = [threading.Thread(target=create, args=(b"%d" % n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(created, [self.path.read_bytes()])

    def test_failure(self) -> None:
        """
        A directory that is missing is an error in words.
        """
        path = self.directory / "missing" / "record.json"
        self.assertRaises(StoreError, create_exclusive, path, b"")


class ReadTests(FilesTestCase):
    """
    L{read_bounded}
    """

    def test_whole(self) -> None:
        """
        A file as long as allowed is read whole.
        """
        self.path.write_bytes(b"12345")
        self.assertEqual(read_bounded(self.path, 5), b"12345")

    def test_tooLarge(self) -> None:
        """
        One byte more is refused.
        """
        self.path.write_bytes(b"123456")
        with self.assertRaises(StoreError) as caught:
            read_bounded(self.path, 5)
        self.assertEqual(str(caught.exception), f"{self.path}: is larger than 5 bytes")

    def test_endless(self) -> None:
        """
        A device that never ends is no file.
        """
        self.assertRaises(StoreError, read_bounded, Path("/dev/zero"), 5)

    def test_missing(self) -> None:
        """
        A file that is not there is told from one that can not be read.
        """
        self.assertRaises(FileNotFoundError, read_bounded, self.path, 5)

    def test_pipe(self) -> None:
        """
        A pipe under the name neither blocks nor feeds us.
        """
        os.mkfifo(self.path)
        with self.assertRaises(StoreError) as caught:
            read_bounded(self.path, 5)
        self.assertEqual(str(caught.exception), f"{self.path}: is not a regular file")

    def test_directory(self) -> None:
        """
        A directory under the name is an error, each time, and costs no
        descriptor.
        """
        for _ in range(3):
            self.assertRaises(StoreError, read_bounded, self.directory, 5)


class RemoveTests(FilesTestCase):
    """
    L{remove}
    """

    def test_removes(self) -> None:
        """
        It says whether there was a file.
        """
        self.path.write_bytes(b"")
        self.assertEqual([remove(self.path), remove(self.path)], [True, False])
        self.assertEqual(self.names(), [])

    def test_failure(self) -> None:
        """
        What is not a file is not removed.
        """
        self.path.mkdir()
        self.assertRaises(StoreError, remove, self.path)
        self.assertEqual(self.names(), ["record.json"])


class SweepTests(FilesTestCase):
    """
    L{sweep}
    """

    def test_sweeps(self) -> None:
        """
        What a crash left beside a file goes; the file, what was left beside
        another one, and what only looks like it stay.
        """
        kept = [
            ".other.json.0123456789ab.tmp",
            ".recordxjson.0123456789ab.tmp",
            ".record.json.0123.tmp",
            ".record.json.lock",
            "record.json",
        ]
        for name in [*kept, ".record.json.0123456789ab.tmp"]:
            (self.directory / name).write_bytes(b"")
        sweep(self.path)
        self.assertEqual(self.names(), sorted(kept))


class DirectoryTests(FilesTestCase):
    """
    L{make_directory}
    """

    def test_makes(self) -> None:
        """
        All that is missing gets the same permissions, within the umask.
        """
        inner = self.directory / "one" / "two"
        make_directory(inner, 0o730)
        self.assertEqual([mode_of(inner), mode_of(inner.parent)], [0o710, 0o710])

    def test_there(self) -> None:
        """
        One that is there keeps its permissions.
        """
        self.directory.chmod(0o700)
        make_directory(self.directory, 0o770)
        self.assertEqual(mode_of(self.directory), 0o700)

    def test_failure(self) -> None:
        """
        A file in the way is an error in words.
        """
        self.path.write_bytes(b"")
        self.assertRaises(StoreError, make_directory, self.path)
        self.assertRaises(StoreError, make_directory, self.path / "below")


class LockTests(FilesTestCase):
    """
    L{exclusive_lock}
    """

    def is_locked(self) -> bool:
        """
        Whether another one would have to wait for the lock.
        """
        with self.path.open("rb") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    def test_holds(self) -> None:
        """
        The lock is held as long as the block lasts, and kept from others.
        """
        with exclusive_lock(self.path):
            self.assertTrue(self.is_locked())
        self.assertFalse(self.is_locked())

    def test_letsGo(self) -> None:
        """
        An error in the block lets go of the lock, and comes through as it is.
        """

        def fail() -> None:
            with exclusive_lock(self.path):
                raise FileExistsError("the block's own")

        self.assertRaises(FileExistsError, fail)
        self.assertFalse(self.is_locked())

    def test_keepsContent(self) -> None:
        """
        A file that holds something can be the lock of itself.
        """
        self.path.write_bytes(b"0A\n")
        with exclusive_lock(self.path):
            pass
        self.assertEqual(self.path.read_bytes(), b"0A\n")

    def test_failure(self) -> None:
        """
        A link is not followed: somebody else would choose what we make.
        """
        self.path.symlink_to(self.directory / "elsewhere")

        def lock() -> None:
            with exclusive_lock(self.path):
                self.fail("locked")

        self.assertRaises(StoreError, lock)
        self.assertEqual(self.names(), ["record.json"])

    def test_oneAtATime(self) -> None:
        """
        Read, modify, write: no change of many at once is lost.
        """
        counter = self.directory / "counter"
        counter.write_text("0")

        def count() -> None:
            for _ in range(10):
                with exclusive_lock(self.path):
                    number = int(counter.read_text())
                    write_atomic(counter, str(number + 1).encode())

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(counter.read_text(), "40")
