# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.rotation}: what a crash leaves of it, and people.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime
from typing import Any

import attrs

from ctrlexec.dispatcher import registry, rotation_state, succession
from ctrlexec.dispatcher.authority import Authority
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.rotation import Rotating
from ctrlexec.dispatcher.rotation_state import (
    RotationFile,
    RotationState,
    Stage,
)
from ctrlexec.dispatcher.succession import Succession
from ctrlexec.errors import CtrlExecError
from ctrlexec.files import write_atomic
from ctrlexec.values import iso_time
from tests.authority import DAY, NOW
from tests.operating import ALICE
from tests.rotating import GONE, RotationCase


class Crash(BaseException):
    """
    The end of the process.
    """


class CrashTests(RotationCase):
    """
    A rotation that was interrupted after each of its steps
    """

    def crash_after(self, writes: int) -> Callable[[], bool]:
        """
        End the process when so many files have been written or removed.

        @return: tells whether it came to that.
        """
        count = [0]

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def write(*args: Any, **how: Any) -> Any:
                if count[0] == writes:
                    raise Crash
                count[0] += 1
                return real(*args, **how)

            return write

        patches = [
            self.patch(module, name, counted(getattr(module, name)))
            for module, name in (
                (succession, "write_atomic"),
                (succession, "remove"),
                (rotation_state, "write_atomic"),
                (registry, "write_atomic"),
            )
        ]

        def restored() -> bool:
            for each in patches:
                each.restore()
            return count[0] == writes

        return restored

    def rotate(self) -> None:
        """
        All of it, until it is over.
        """
        self.advance(begin=self.state.stage in (Stage.NONE, Stage.ANNOUNCING))
        for _ in range(3):
            if self.state.stage is not Stage.NONE:
                self.advance()

    def test_everywhere(self) -> None:
        """
        Wherever it breaks off, it is gone on with, and ends as it should: the
        key fits the certificate, the agents know the one that is used and not
        the one before, and nothing is left over.
        """
        writes, crashed = 0, True
        while crashed:
            self.setUp()
            ended = self.crash_after(writes)
            with contextlib.suppress(Crash):
                self.rotate()
            crashed = ended()
            self.resume(writes)
            writes += 1
        self.assertGreater(writes, 12)

    def resume(self, writes: int) -> None:
        """
        The next C{maintain}, and the one after it.
        """
        for _ in range(4):
            self.advance()
        succeeded = self.authority.dispatcher()
        info = Succession(self.dispatcher.settings).info(
            Succession(self.dispatcher.settings).present
        )
        self.assertEqual(info, succeeded, writes)
        state = self.state
        self.assertEqual(state.stage, Stage.NONE, writes)
        self.assertEqual(self.files(), self.left(), writes)
        if succeeded.serial == self.old.serial:
            # Nobody had been told, so there is nothing to go on with.
            self.assertEqual(self.agents.rotated, [])
            return
        self.assertEqual(state.current_serial, succeeded.serial)
        for name in ("web-1", "web-2"):
            record = self.record(name)
            self.assertEqual(record.dispatcher_serial, succeeded.serial, writes)
            told = [
                (action, serial)
                for host, action, serial in self.agents.rotated
                if host == name
            ]
            self.assertEqual(told[0], ("add", succeeded.serial), writes)
            self.assertEqual(told[-1], ("remove", self.old.serial), writes)

    def left(self) -> set[str]:
        """
        What may be there: of a crash before anything was decided a next
        identity that nobody knows of.
        """
        usual = {"ctrl-exec.key", "ctrl-exec.crt"}
        unused = {"ctrl-exec.key.next", "ctrl-exec.crt.next"}
        same = self.authority.dispatcher_serial() == self.old.serial
        return usual | (self.files() & unused if same else set())

    def test_inTheMiddle(self) -> None:
        """
        So it is where the new key is there and its certificate is not; what
        was before is kept, whole.
        """
        self.agents.trusts = self.former.trusts = {"web-2": GONE}
        self.crash_in_switch()
        self.assertEqual(self.advance().stage, Stage.OVERLAP)
        found = Succession(self.dispatcher.settings)
        self.assertEqual(found.info(found.former), self.old)
        info = found.info(found.present)
        assert info is not None
        self.assertEqual(info.serial, self.state.current_serial)
        self.assertNotEqual(info.serial, self.old.serial)

    def test_switched(self) -> None:
        """
        Where the new one is used and that is not written down, it is, and who
        was not told is told with the former one.
        """
        self.agents.trusts = {"web-2": GONE}
        real = RotationFile.save

        def save(file: RotationFile, state: RotationState) -> RotationState:
            if state.stage is Stage.OVERLAP:
                raise Crash
            return real(file, state)

        patch = self.patch(RotationFile, "save", save)
        with contextlib.suppress(Crash):
            self.advance(begin=True)
        patch.restore()
        self.assertEqual(self.state.stage, Stage.ANNOUNCING)
        self.agents.trusts = {}
        self.told(self.agents)
        new = self.authority.dispatcher_serial()
        self.advance()
        self.assertEqual(self.told(self.former), [("web-2", "add", new)])
        self.assertNotIn("add", [action for _, action, _ in self.told(self.agents)])

    def crash_in_switch(self) -> None:
        """
        The new key is in its place, and its certificate is not.
        """
        real, settings = write_atomic, self.dispatcher.settings

        def write(path: Any, *args: Any, **how: Any) -> None:
            if path == settings.cert:
                raise Crash
            real(path, *args, **how)

        patch = self.patch(succession, "write_atomic", write)
        with contextlib.suppress(Crash):
            self.advance(begin=True)
        patch.restore()
        found = Succession(settings)
        self.assertIsNone(found.info(found.present))


class HandTests(RotationCase):
    """
    What people do to it
    """

    def test_madeAnew(self) -> None:
        """
        An identity that was made anew by hand in the middle is the one that is
        gone on from.
        """
        self.agents.trusts = {"web-2": GONE}
        self.now = NOW + 740 * DAY
        self.advance()
        self.done(self.dispatcher.setup_identity(ALICE, confirmed=True))
        by_hand = self.authority.dispatcher_serial()
        self.agents.trusts = {}
        state = self.advance()
        self.assertEqual(state.previous_serial, by_hand)

    def test_lost(self) -> None:
        """
        Where the next identity is lost, the rotation is given up.
        """
        self.agents.trusts = {"web-2": GONE}
        self.now = NOW + 740 * DAY
        self.advance()
        Succession(self.dispatcher.settings).next.key.unlink()
        self.now = NOW
        self.assertEqual(self.advance().stage, Stage.NONE)
        self.assertEqual(self.authority.dispatcher_serial(), self.old.serial)

    def test_original(self) -> None:
        """
        What an original has written is read: it has switched already, and its
        old key is gone.
        """
        file = self.dispatcher.settings.rotation_file
        file.parent.mkdir(parents=True, exist_ok=True)
        expires = iso_time(NOW + DAY)
        file.write_text(
            f'{{"current_serial":"{self.old.serial}","previous_serial":"0A",'
            f'"rotated_at":"x","overlap_expires":"{expires}","note":7}}'
        )
        self.assertEqual(self.state.stage, Stage.OVERLAP)
        self.assertEqual(
            (self.state.previous_serial, self.state.extra), ("a", {"note": 7})
        )
        self.assertEqual(self.advance().stage, Stage.NONE)
        self.assertEqual(
            set(self.told(self.agents)),
            {("web-1", "remove", "a"), ("web-2", "remove", "a")},
        )
        self.assertIn('"note":7', file.read_text())

    def test_putBack(self) -> None:
        """
        Where somebody has put the former identity back, no agent is told to
        forget it.
        """
        file = self.dispatcher.settings.rotation_file
        file.parent.mkdir(parents=True, exist_ok=True)
        expires = iso_time(NOW + DAY)
        file.write_text(
            f'{{"current_serial":"0A","previous_serial":"{self.old.serial}",'
            f'"stage":"overlap","overlap_expires":"{expires}"}}'
        )
        self.assertEqual(self.advance().stage, Stage.NONE)
        self.assertEqual(self.told(self.agents), [])

    def test_broken(self) -> None:
        """
        A state that is cut off is named, and nothing is done.
        """
        file = self.dispatcher.settings.rotation_file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('{"current_ser')
        working = Rotating(self.dispatcher, "alice").advance(begin=True)
        error = self.failed(working, CtrlExecError)
        self.assertIn("rotation.json", str(error))
        self.assertEqual(self.agents.rotated, [])


class TwoTests(RotationCase):
    """
    Two dispatchers of one CA
    """

    def test_apart(self) -> None:
        """
        One rotates, and the other's certificate, state and agents are as they
        were.
        """
        other = attrs.evolve(
            self.dispatcher.settings,
            key=self.home / "b.key",
            cert=self.home / "b.crt",
            rotation_file=self.home / "b.json",
            dispatcher_id="b",
        )
        Authority(other).create_identity(NOW)
        before = Authority(other).dispatcher()
        self.advance(begin=True)
        self.advance()
        self.assertEqual(Authority(other).dispatcher(), before)
        self.assertFalse(other.rotation_file.exists())


class StatusTests(RotationCase):
    """
    C{serial-status}, as the dispatcher answers it
    """

    def test_standing(self) -> None:
        """
        It says how far it is, and who knows of it.
        """
        standing = self.done(self.dispatcher.serial_status(ALICE))
        self.assertEqual(standing.state.stage, Stage.NONE)
        self.assertEqual(set(map(standing.status, standing.agents)), {"current"})
        self.agents.trusts = {"web-2": GONE}
        self.now: datetime = NOW + 740 * DAY
        self.advance()
        self.register(AgentRecord("web-3", serial_status="current"))
        standing = self.done(self.dispatcher.serial_status(ALICE))
        self.assertEqual(
            {each.hostname: standing.status(each) for each in standing.agents},
            {"web-1": "current", "web-2": "pending", "web-3": "pending"},
        )

    def test_maintain(self) -> None:
        """
        C{maintain} does what is due of it, and says how far it is.
        """
        self.agents.trusts = {"web-2": GONE}
        self.now = NOW + 740 * DAY
        done = self.done(self.dispatcher.maintain(ALICE))
        self.assertEqual((done.rotation, done.ok), ("announcing", True))
