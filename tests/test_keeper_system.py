# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for what a keeper knows of the system: L{ctrlexec.agent.keeper.descendants},
L{ctrlexec.agent.keeper.groups} and L{ctrlexec.agent.keeper.ending}.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import ctrlexec
from ctrlexec.agent.keeper.descendants import Process, all_processes, below, look, now
from ctrlexec.agent.keeper.ending import ending, killed_by
from ctrlexec.agent.keeper.groups import Group, end_orphans, own_path, sweep, where
from ctrlexec.agent.kept import ending_from
from ctrlexec.agent.runs import Ending

STAT = b"42 (%b) %b 7 42 41 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 %d 0 100 0 0"

MOUNTS = b"""\
25 1 8:1 / / rw - ext4 /dev/sda1 rw
30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
32 30 0:28 %b %b rw,nosuid shared:4 master:1 - cgroup2 cgroup2 rw
"""


def process(pid: int, parent: int) -> Process:
    return Process(pid, b"%d (x) S %d 1 1 %b" % (pid, parent, b"0 " * 20))


class KilledTests(SynchronousTestCase):
    """
    L{killed_by}
    """

    def test_words(self) -> None:
        """
        The signal is named, and what has sent it only where that is sure.
        """
        for number, limits, words in (
            (9, {"AS": 1024}, "killed by signal 9 (KILL)"),
            (24, {"CPU": 1}, "killed by signal 24 (XCPU): its cpu= was used up"),
            (24, {}, "killed by signal 24 (XCPU)"),
            (40, {}, "killed by signal 40 (real-time)"),
        ):
            self.assertEqual(killed_by(number, limits), words)


class ProcessTests(SynchronousTestCase):
    """
    L{Process}, L{look}, L{below} and L{all_processes}
    """

    def test_stat(self) -> None:
        """
        What the kernel tells of a process is read.
        """
        found = Process(42, STAT % (b"sleep", b"S", 1))
        self.assertEqual(
            (found.command, found.parent, found.group, found.session, found.alive),
            (b"sleep", 7, 42, 41, True),
        )

    def test_name_that_lies(self) -> None:
        """
        A process can have any name, and is nobody else's child for it.
        """
        found = Process(42, STAT % (b"a) Z 1 1 1 (b", b"T", 1))
        self.assertEqual(
            (found.command, found.parent, found.stopped),
            (b"a) Z 1 1 1 (b", 7, True),
        )

    def test_dead(self) -> None:
        """
        A process is dead when all of its threads are.
        """
        self.assertFalse(Process(42, STAT % (b"x", b"Z", 1)).alive)
        self.assertTrue(Process(42, STAT % (b"x", b"Z", 2)).alive)

    def test_gone(self) -> None:
        """
        There may be nothing to read any more.
        """
        self.assertIsNone(look(2**22 + 1))

    def test_born(self) -> None:
        """
        When a process was born is told by the same clock as what time it is.
        """
        ours = look(os.getpid())
        assert ours is not None
        self.assertTrue(0 < ours.born <= now())

    def test_below(self) -> None:
        """
        Descendants are children, and those of them, whatever the order.
        """
        everybody = {
            pid: process(pid, parent)
            for pid, parent in ((5, 4), (4, 3), (3, 2), (6, 3), (9, 1), (2, 1))
        }
        self.assertEqual(sorted(below(3, everybody)), [4, 5, 6])
        self.assertEqual(below(6, everybody), {})

    def test_circle(self) -> None:
        """
        Processes that are read one after the other can look like a circle.
        """
        everybody = {2: process(2, 3), 3: process(3, 2)}
        self.assertEqual(sorted(below(2, everybody)), [2, 3])

    def test_everybody(self) -> None:
        """
        We are among those that there are.
        """
        ours = all_processes()[os.getpid()]
        self.assertEqual(ours.parent, os.getppid())


class GroupTests(SynchronousTestCase):
    """
    L{own_path}, L{where} and L{Group}
    """

    def test_own_path(self) -> None:
        """
        Our path is that in version 2, which others may stand beside.
        """
        text = b"9:name=systemd:/a\n4:memory:/b\n0::/c/d:e\n"
        self.assertEqual(own_path(text), b"/c/d:e")
        self.assertIsNone(own_path(b"4:memory:/b\n"))

    def test_where(self) -> None:
        """
        The directory of a path is found wherever the hierarchy is mounted, and
        whatever part of it.
        """
        for root, mount, path, directory in (
            (b"/", b"/sys/fs/cgroup", b"/a/b", b"/sys/fs/cgroup/a/b"),
            (b"/", b"/sys/fs/cgroup/unified", b"/", b"/sys/fs/cgroup/unified"),
            (b"/a", b"/cg", b"/a/b", b"/cg/b"),
            (b"/a", b"/cg", b"/a", b"/cg"),
            (b"/a", b"/cg", b"/ab", None),
            (b"/", rb"/c\040g", b"/x", b"/c g/x"),
        ):
            found = where(path, MOUNTS % (root, mount))
            self.assertEqual(found, directory, (root, mount, path))

    def test_nowhere(self) -> None:
        """
        There may be no version 2.
        """
        self.assertIsNone(where(b"/", b"25 1 8:1 / / rw - ext4 /dev/sda1 rw\n"))

    def test_can_not_be_made(self) -> None:
        """
        A group that can not be made has no members, and can not be ended.
        """
        for parent in (None, os.fsencode(self.mktemp())):
            group = Group(parent, b"keeper-1")
            group.enter()
            self.assertEqual(group.members(), [])
            group.freeze()
            group.kill()
            group.leave()

    def test_removed(self) -> None:
        """
        Who finds that its group was removed, while it was outside, is told.
        """
        self.assertTrue(Group(None, b"keeper-1").enter())
        parent = self.directory()
        group = Group(os.fsencode(parent), b"keeper-1")
        (parent / "keeper-1" / "cgroup.procs").write_text("")
        self.assertTrue(group.enter())
        self.assertTrue(group.enter())
        (parent / "cgroup.procs").write_text("")
        group.freeze()
        (parent / "keeper-1" / "cgroup.procs").unlink()
        self.assertFalse(group.enter())

    def directory(self) -> Path:
        """
        @return: what looks like a control group, as far as files can.
        """
        parent = Path(self.mktemp()).absolute()
        parent.mkdir()
        return parent

    def test_sweep(self) -> None:
        """
        Only groups of ours that are empty are removed.
        """
        parent = self.directory()
        for name in ("keeper-1-a", "keeper-2-b", "other"):
            (parent / name).mkdir()
        (parent / "keeper-2-b" / "cgroup.procs").write_text("1")
        sweep(os.fsencode(parent))
        self.assertEqual(
            sorted(each.name for each in parent.iterdir()), ["keeper-2-b", "other"]
        )
        sweep(os.fsencode(parent / "missing"))
        sweep(None)

    def test_orphans(self) -> None:
        """
        What a keeper has left is ended, and nothing of another's whose id begins
        like its.
        """
        parent = self.directory()
        for name in ("keeper-12-a", "keeper-123-b"):
            (parent / name).mkdir()
            (parent / name / "cgroup.kill").write_text("")
        end_orphans(os.fsencode(parent), 12)
        self.assertEqual((parent / "keeper-12-a" / "cgroup.kill").read_text(), "1")
        self.assertEqual((parent / "keeper-123-b" / "cgroup.kill").read_text(), "")


class CloseTests(SynchronousTestCase):
    """
    L{close_from}
    """

    def left(self, *words: str) -> str:
        """
        Have a program that has some descriptors open close those from one on.

        @param words: Python that goes before.
        @return: which are left.
        """
        program = (
            "import os, sys",
            "sys.path.append(sys.argv[1])",
            "from ctrlexec.agent.keeper import rights",
            "for each in (5, 7, 300): os.dup2(0, each)",
            *words,
            "rights.close_from(4)",
            "os.dup2(1, 3)",
            "print(*sorted(map(int, listed('/proc/self/fd'))))",
        )
        place = str(Path(ctrlexec.__file__).parent.parent)
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", "\n".join(program), place],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=True,
        )
        return done.stdout.decode().strip()

    def test_all(self) -> None:
        """
        Those below stay, and none above, where the list can not be had either.
        Descriptor 4 is that of the list of what is left.
        """
        self.assertEqual(self.left("listed = os.listdir"), "0 1 2 3 4")
        missing = "rights._LAST_DESCRIPTOR = 1000; os.listdir = lambda _: open('/x/x')"
        self.assertEqual(self.left("listed = os.listdir", missing), "0 1 2 3 4")


class EndingTests(SynchronousTestCase):
    """
    L{ending} and L{ending_from}
    """

    @given(
        st.integers(0, 255),
        st.sampled_from(["done", "cancelled", "timed_out", "failed"]),
        st.text(max_size=50),
        st.integers(0, 2**60),
        st.booleans(),
    )
    def test_is_json(
        self, exit: int, state: str, reason: str, count: int, late: bool
    ) -> None:
        """
        An ending is JSON, whatever the reason, and is read again as it was.
        """
        text = ending(
            exit=exit,
            state=state,
            reason=reason,
            stdout_bytes=count,
            stderr_bytes=7,
            stdin_timed_out=late,
        )
        found = ending_from(text)
        assert found is not None
        self.assertEqual(
            (found.exit, found.state, found.stdout_bytes, found.stderr_bytes),
            (exit, state, count, 7),
        )
        self.assertEqual(found.stdin_timed_out, late)
        self.assertEqual(len(found.reason), len(reason))
        self.assertLessEqual(len(text), 512)

    def test_none(self) -> None:
        """
        What is cut, or tells something else, is no ending.
        """
        good = {"exit": 1, "state": "done", "reason": "", "stdout_bytes": 0}
        good |= {"stderr_bytes": 0, "stdin_timed_out": False, "finished": 1.5}
        self.assertEqual(
            ending_from(json.dumps(good).encode()), Ending(exit=1, finished=1.5)
        )
        for bad in (
            b"",
            b" " * 512,
            b"[]",
            b'{"exit": 1',
            b"\xff",
            json.dumps(good | {"state": "running"}).encode(),
            json.dumps(good | {"exit": None}).encode(),
            json.dumps(good | {"finished": []}).encode(),
            json.dumps(good | {"finished": float("nan")}).encode(),
            json.dumps(good | {"exit": float("inf")}).encode(),
            json.dumps(good | {"exit": 256}).encode(),
            json.dumps(good | {"exit": -1}).encode(),
            b"[" * 100_000,
        ):
            self.assertIsNone(ending_from(bad), bad)
