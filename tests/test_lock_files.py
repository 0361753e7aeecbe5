# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.lock_files}.
"""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.lock_files import (
    LockState,
    file_name,
    line_of,
    locked_files,
    state_of,
)

SINCE = "2026-03-05T18:38:09Z"
STATE = LockState("web-1", "echo", 42, "alice", "a8e5d95be720fcc8", SINCE)

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}", fullmatch=True)
scripts = st.from_regex(r"[A-Za-z0-9_-]{1,128}", fullmatch=True)


class FileNameTests(SynchronousTestCase):
    """
    L{file_name}: PROTOCOL.md section 4.
    """

    def test_usual(self) -> None:
        """
        What an original calls it.
        """
        for host, script, expected in (
            ("web-1", "echo", "web-1--echo.lock"),
            ("db.example", "a_b-c", "db.example--a_b-c.lock"),
            ("2001:db8::1", "echo", "2001_db8__1--echo.lock"),
            ("../../etc/x y", "echo", ".._.._etc_x_y--echo.lock"),
        ):
            self.assertEqual(file_name(host, script), expected)

    @given(names, scripts)
    def test_fits(self, host: str, script: str) -> None:
        """
        Every host and script can be locked, however long they are called.
        """
        self.assertLessEqual(len(file_name(host, script).encode()), 255)

    def test_longDiffer(self) -> None:
        """
        What is cut off still tells two locks apart.
        """
        host = "w" * 250
        first, second = (file_name(host, script) for script in ("a" * 9, "a" * 8))
        self.assertNotEqual(first, second)
        self.assertEqual(len(file_name("w" * 244, "abcd")), 255)
        self.assertEqual(file_name("w" * 244, "abcd")[:244], "w" * 244)


class StateTests(SynchronousTestCase):
    """
    What is known about a lock.
    """

    def setUp(self) -> None:
        """
        The file of a lock.
        """
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def known(self, text: bytes, pid: int | None = 42, name: str = "") -> LockState:
        """
        What is known from a file with this text.
        """
        path = self.directory / (name or file_name("web-1", "echo"))
        path.write_bytes(text)
        return state_of(path, pid)

    def test_ours(self) -> None:
        """
        What one of ours has written is known, whatever follows it.
        """
        for rest in (b"", b'"since":"of an older one"}\n', b"\xff\n"):
            self.assertEqual(self.known(line_of(STATE) + rest), STATE)

    def test_foreign(self) -> None:
        """
        Of others, the name of the file is known, and the process.
        """
        for text in (
            b"",
            b"\n" + line_of(STATE),
            b"1234\n",
            b"[]\n",
            b"{}\n",
            b"\xff",
            b"[" * 4000,
            line_of(STATE)[:50],
        ):
            self.assertEqual(self.known(text), LockState("web-1", "echo", 42))

    def test_old(self) -> None:
        """
        What another process has written is about another lock.
        """
        self.assertEqual(
            self.known(line_of(STATE), pid=43), LockState("web-1", "echo", 43)
        )

    def test_untold(self) -> None:
        """
        Where the system does not tell who it is, what is written counts.
        """
        self.assertEqual(self.known(line_of(STATE), pid=None), STATE)

    def test_ofAnother(self) -> None:
        """
        What is about another file does not count.
        """
        self.assertEqual(
            self.known(line_of(STATE), name="web-2--echo.lock"),
            LockState("web-2", "echo", 42),
        )

    def test_split(self) -> None:
        """
        A name is split where a host can end.
        """
        for name, host, script in (
            ("web--1--echo", "web", "1--echo"),
            ("web---x", "web", "-x"),
            ("a_b--echo", "a_b", "echo"),
            ("_odd--echo", "_odd--echo", ""),
            ("nothing", "nothing", ""),
            ("--echo", "--echo", ""),
        ):
            state = self.known(b"", name=f"{name}.lock")
            self.assertEqual((state.host, state.script), (host, script))

    def test_noFile(self) -> None:
        """
        A pipe or a link under this name is not read.
        """
        pipe = self.directory / "web-1--pipe.lock"
        os.mkfifo(pipe)
        self.assertEqual(state_of(pipe, 42), LockState("web-1", "pipe", 42))
        target = self.directory / "other"
        target.write_bytes(line_of(STATE))
        link = self.directory / "web-1--echo.lock"
        link.symlink_to("other")
        self.assertEqual(state_of(link, 42), LockState("web-1", "echo", 42))


class LockedFilesTests(SynchronousTestCase):
    """
    What the system tells.
    """

    def setUp(self) -> None:
        """
        Two files.
        """
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        for name in ("a--x.lock", "b--x.lock", "a--x.txt"):
            (self.directory / name).write_bytes(b"")

    def line(self, name: str, kind: str = "FLOCK ", pid: int = 42) -> str:
        """
        How the system tells of a lock of one of the files.
        """
        about = (self.directory / name).stat()
        device = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}"
        return f"1: {kind} ADVISORY  WRITE {pid} {device}:{about.st_ino} 0 EOF\n"

    def locked(self, *texts: str) -> dict[str, int | None]:
        """
        What is known where the system tells this, one after the other.
        """
        told = iter([*texts, *texts[-1:] * 9])
        return locked_files(self.directory, lambda: next(told))

    def test_locked(self) -> None:
        """
        Of the files of locks, those that are locked.
        """
        text = self.line("a--x.lock") + self.line("a--x.txt")
        self.assertEqual(self.locked(text), {"a--x.lock": 42})
        self.assertEqual(self.locked(""), {})

    def test_others(self) -> None:
        """
        Other kinds of locks, other devices, those who only wait, and what we
        do not understand are passed over.
        """
        about = (self.directory / "b--x.lock").stat()
        text = (
            self.line("b--x.lock", kind="POSIX ")
            + self.line("b--x.lock", kind="-> FLOCK ")
            + f"2: FLOCK  ADVISORY  WRITE 7 ff:ff:{about.st_ino} 0 EOF\n"
            + "3: FLOCK  ADVISORY  WRITE 7 <none>:0 0 EOF\n"
            + "nonsense\n"
        )
        self.assertEqual(self.locked(text), {})

    def test_noProcess(self) -> None:
        """
        A lock can be of a process that we can not see.
        """
        for pid in (0, -1):
            text = self.line("a--x.lock", pid=pid)
            self.assertEqual(self.locked(text), {"a--x.lock": None})

    def test_hidden(self) -> None:
        """
        A lock that was passed over while others came and went is found when
        the system is asked again.
        """
        first, second = self.line("a--x.lock"), self.line("b--x.lock")
        both = {"a--x.lock": 42, "b--x.lock": 42}
        self.assertEqual(self.locked(first, first + second), both)
        self.assertEqual(self.locked(first, second, first), both)

    def test_ends(self) -> None:
        """
        A system that always tells something new is not asked for ever.
        """
        about = (self.directory / "a--x.lock").stat()
        device = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}"
        asked: list[int] = []

        def told() -> str:
            asked.append(len(asked))
            return f"1: FLOCK  ADVISORY  WRITE 7 {device}:{len(asked)} 0 EOF\n"

        locked_files(self.directory, told)
        self.assertLess(len(asked), 20)

    @given(st.text(alphabet="1: FLOCKADVISRYWET-<>0nef\n", max_size=200))
    def test_anything(self, text: str) -> None:
        """
        Nothing that the system could tell is too much.
        """
        self.locked(text)
