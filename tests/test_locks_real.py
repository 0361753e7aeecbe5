# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.locks} with real processes, which die and contend.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.locks import Busy, FileLocks, Held, Holder
from tests.structure import ROOT

PREAMBLE = f"""
import json, os, resource, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from ctrlexec.dispatcher.locks import Busy, FileLocks, Held, Holder
from ctrlexec.errors import StoreError
directory, *hosts = sys.argv[1:]
locks, holder = FileLocks(Path(directory)), Holder("echo", "00c0ffee", "child")
def say(word):
    print(json.dumps(word), flush=True)
"""

HOLD = """
held = locks.take(hosts, holder)
say(type(held).__name__)
sys.stdin.readline()
"""

# A mark that somebody else has made means that both have the lock.
CONTEND = """
wins = 0
say("ready")
sys.stdin.readline()
while wins < 40:
    held = locks.take(hosts, holder)
    if isinstance(held, Busy):
        continue
    wins += 1
    for host in hosts:
        os.close(os.open(f"{directory}/{host}", os.O_CREAT | os.O_EXCL))
    for host in hosts:
        os.unlink(f"{directory}/{host}")
        held.release(host)
say("done")
"""

MEET = """
say("ready")
for _ in range(30):
    sys.stdin.readline()
    held = locks.take(hosts, holder)
    say(type(held).__name__)
    sys.stdin.readline()
    del held
    say("free")
"""

TRY = """
say(type(locks.take(hosts, holder)).__name__)
while True:
    locks.take(hosts, holder)
"""

FORK = """
held = locks.take(hosts, holder)
child = os.fork()
if not child:
    del held
    sys.exit()
os.waitpid(child, 0)
say(type(locks.take(hosts, holder)).__name__)
"""

# As a program that is just being started, before its descriptors are closed.
INHERIT = """
held = locks.take(hosts, holder)
child = os.fork()
if not child:
    sys.stdin.read()
    os._exit(0)
held.release(*hosts)
say(type(locks.take(hosts, holder)).__name__)
"""

FEW_DESCRIPTORS = """
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
try:
    locks.take(hosts, holder)
except StoreError as error:
    say(error.hint)
say(len(locks.listed()))
say(len(locks.take(hosts[:5], holder).hosts))
"""

SOFT_LIMIT = """
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard))
say(len(locks.take(hosts, holder).hosts))
"""

# No byte can be written to any file.
FULL = """
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
held = locks.take(hosts, holder)
say([type(held).__name__, [state.user for state in locks.listed()]])
"""

# Root may do everything; so this is done by somebody else.
UNPRIVILEGED = """
os.chdir(directory)
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
locks = FileLocks(Path("."))
held = locks.take(["readable"], holder)
say(type(held).__name__)
say(type(locks.take(["readable"], holder)).__name__)
for host in ("unreadable", "missing"):
    try:
        locks.take([host], holder)
    except StoreError as error:
        say([str(error), error.hint])
"""


class ProcessTests(SynchronousTestCase):
    """
    Locks among processes.
    """

    def setUp(self) -> None:
        """
        Locks, and nobody who has one.
        """
        self.directory = Path(self.mktemp()).absolute() / "locks"
        self.locks = FileLocks(self.directory)

    def child(self, program: str, *hosts: str) -> subprocess.Popen[str]:
        """
        A process that is at work.
        """
        child = subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + program, str(self.directory), *hosts],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(child.communicate)
        self.addCleanup(child.kill)
        return child

    def heard(self, child: subprocess.Popen[str]) -> Any:
        """
        What a process says next.
        """
        assert child.stdout is not None
        return json.loads(child.stdout.readline())

    def tell(self, *children: subprocess.Popen[str]) -> None:
        """
        Let processes go on.
        """
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()

    def said(self, program: str, *hosts: str) -> list[Any]:
        """
        All that a process has to say.
        """
        output, _ = self.child(program, *hosts).communicate()
        return [json.loads(line) for line in output.splitlines()]

    def take(self, *hosts: str) -> Held | Busy:
        """
        Try to lock the same script ourselves.
        """
        return self.locks.take(hosts, Holder("echo", "a8e5d95be720fcc8", "parent"))

    def test_keepsOut(self) -> None:
        """
        What another process has locked is locked, and its number is known.
        """
        child = self.child(HOLD, "web-1", "web-2")
        self.assertEqual(self.heard(child), "Held")
        self.assertEqual(self.take("web-2", "web-3"), Busy(("web-2:echo",)))
        states = self.locks.listed()
        self.assertEqual([state.host for state in states], ["web-1", "web-2"])
        self.assertEqual({state.pid for state in states}, {child.pid})
        self.assertEqual({state.user for state in states}, {"child"})

    def test_killed(self) -> None:
        """
        A dispatcher that is killed holds nothing any more.
        """
        child = self.child(HOLD, "web-1", "web-2")
        self.assertEqual(self.heard(child), "Held")
        child.kill()
        child.wait()
        self.assertEqual(list(self.locks.listed()), [])
        self.assertIsInstance(self.take("web-1", "web-2"), Held)
        self.assertEqual({state.user for state in self.locks.listed()}, set())

    def test_contend(self) -> None:
        """
        Of several that want the same for long, one has it at a time, and each
        has its turn.
        """
        self.directory.mkdir(parents=True)
        hosts = [f"web-{number}" for number in range(6)]
        children = [self.child(CONTEND, *hosts[start:]) for start in range(3)]
        for child in children:
            self.assertEqual(self.heard(child), "ready")
        self.tell(*children)
        for child in children:
            self.assertEqual(self.heard(child), "done")
        self.assertEqual(list(self.locks.listed()), [])

    def test_oneIsFirst(self) -> None:
        """
        Of two that want the same at the same moment, one has it.
        """
        hosts = [f"web-{number}" for number in range(50)]
        children = self.child(MEET, *hosts), self.child(MEET, *hosts[25:])
        for child in children:
            self.assertEqual(self.heard(child), "ready")
        for _ in range(30):
            self.tell(*children)
            self.assertEqual(
                sorted(self.heard(child) for child in children), ["Busy", "Held"]
            )
            self.tell(*children)
            self.assertEqual([self.heard(child) for child in children], ["free"] * 2)

    def test_triesTurnNobodyAway(self) -> None:
        """
        Who tries in vain to have several locks keeps nobody from those that
        are free.
        """
        held = self.take("z")
        hosts = [f"web-{number}" for number in range(300)]
        child = self.child(TRY, *hosts, "z")
        self.assertEqual(self.heard(child), "Busy")
        for _ in range(3000):
            self.assertIsInstance(self.take("web-0"), Held)
        self.assertIsInstance(held, Held)

    def test_forked(self) -> None:
        """
        A child that a dispatcher forks takes nothing away from it.
        """
        self.assertEqual(self.said(FORK, "web-1"), ["Busy"])

    def test_inherited(self) -> None:
        """
        A lock that is released is free, whoever has inherited it meanwhile.
        """
        self.assertEqual(self.said(INHERIT, "web-1"), ["Held"])

    def test_fewDescriptors(self) -> None:
        """
        Where there are not enough descriptors, somebody is told what to do
        about it, and nothing stays locked.
        """
        hosts = [f"web-{number}" for number in range(100)]
        hint, listed, held = self.said(FEW_DESCRIPTORS, *hosts)
        self.assertIn("LimitNOFILE", hint)
        self.assertEqual((listed, held), (0, 5))

    def test_softLimit(self) -> None:
        """
        The soft limit of descriptors is none.
        """
        hosts = [f"web-{number}" for number in range(100)]
        self.assertEqual(self.said(SOFT_LIMIT, *hosts), [100])

    def test_full(self) -> None:
        """
        A lock holds even where nothing can be written about it.
        """
        self.assertEqual(self.said(FULL, "web-1"), [["Held", [""]]])

    def test_unprivileged(self) -> None:
        """
        Who may only read an original's file can lock it all the same; where
        not even that is allowed, the reason is.
        """
        self.directory.mkdir(parents=True)
        for name, mode in (("readable", 0o444), ("unreadable", 0)):
            path = self.directory / f"{name}--echo.lock"
            path.write_bytes(b"")
            path.chmod(mode)
        self.directory.chmod(0o555)
        self.addCleanup(self.directory.chmod, 0o755)
        held, busy, *refused = self.said(UNPRIVILEGED)
        self.assertEqual((held, busy), ("Held", "Busy"))
        for (error, hint), name in zip(refused, ("unreadable", "missing"), strict=True):
            self.assertIn(f"{name}--echo.lock: cannot lock it: Permission", error)
            self.assertIn("able to write", hint)
