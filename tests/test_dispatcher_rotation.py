# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.rotation}: in which order it goes, whom it tells,
and what a crash leaves of it.
"""

from __future__ import annotations

import os
from typing import Any

import attrs

from ctrlexec.dispatcher.rotation import Rotating
from ctrlexec.dispatcher.rotation_state import (
    Stage,
    is_rotation_due,
)
from ctrlexec.errors import Conflict, PkiError
from ctrlexec.protocol.messages import RotateFailed, RunFinished
from ctrlexec.values import iso_time
from tests.authority import DAY, NOW
from tests.fake_agents import FakeAgents
from tests.rotating import GONE, OLDER, RotationCase


class OrderTests(RotationCase):
    """
    What comes after what
    """

    def test_whole(self) -> None:
        """
        The next serial is announced with the present certificate, then it is
        used; then the former one is taken from the agents, with the new one.
        """
        used: list[str] = []

        def noted(reactor: object) -> FakeAgents:
            used.append(self.authority.dispatcher_serial())
            return self.agents

        self.dispatcher = attrs.evolve(self.dispatcher, agents=noted)
        state = self.advance(begin=True)
        new = self.authority.dispatcher()
        self.assertNotEqual(new.serial, self.old.serial)
        self.assertEqual(used, [self.old.serial])
        self.assertEqual(
            self.told(self.agents),
            [("web-1", "add", new.serial), ("web-2", "add", new.serial)],
        )
        self.assertEqual(
            (state.stage, state.current_serial, state.previous_serial),
            (Stage.OVERLAP, new.serial, self.old.serial),
        )
        self.assertEqual(state.overlap_expires, iso_time(NOW + 30 * DAY))
        self.assertEqual(self.record("web-1").dispatcher_serial, new.serial)
        self.assertEqual(self.record("web-1").serial_confirmed, iso_time(NOW))
        state = self.advance()
        self.assertEqual(used, [self.old.serial, new.serial])
        self.assertEqual(
            self.told(self.agents),
            [
                ("web-1", "remove", self.old.serial),
                ("web-2", "remove", self.old.serial),
            ],
        )
        self.assertEqual((state.stage, state.previous_serial), (Stage.NONE, ""))
        self.assertEqual(state.previous_retired, iso_time(NOW))
        self.assertEqual(self.files(), {"ctrl-exec.key", "ctrl-exec.crt"})
        self.assertEqual(self.advance(), state)
        self.assertEqual(
            [each for each in self.written.actions if each != "serial-confirmed"],
            ["cert-renewal-start", "serial-broadcast", "cert-switch", "serial-retire"],
        )

    def test_key(self) -> None:
        """
        The new key is another one, for the id that agents know.
        """
        self.advance(begin=True)
        new = self.authority.dispatcher()
        self.assertNotEqual(new.key_digest, self.old.key_digest)
        self.assertEqual(new.role, self.old.role)
        self.assertEqual(self.dispatcher.settings.key.stat().st_mode & 0o777, 0o600)

    def test_owner(self) -> None:
        """
        Whoever could read the key can read the new one: the API has a user of
        its own.
        """
        key = self.dispatcher.settings.key
        key.chmod(0o640)
        if os.geteuid() == 0:
            os.chown(key, 12345, 12346)
        before = key.stat()
        self.advance(begin=True)
        after = key.stat()
        self.assertNotEqual(after.st_ino, before.st_ino)
        self.assertEqual(
            (after.st_uid, after.st_gid, after.st_mode),
            (before.st_uid, before.st_gid, before.st_mode),
        )

    def test_addresses(self) -> None:
        """
        Agents are told at the address and port that the registry has for them.
        """
        targets = []
        real = FakeAgents.rotate_serial

        async def rotate_serial(agents: FakeAgents, target: Any, request: Any) -> Any:
            targets.append((target.host, target.port))
            return await real(agents, target, request)

        self.patch(FakeAgents, "rotate_serial", rotate_serial)
        self.advance(begin=True)
        self.assertEqual(sorted(targets), [("10.0.0.1", 7443), ("web-2", 8443)])

    def test_twice(self) -> None:
        """
        A second rotation waits for the end of the first.
        """
        self.advance(begin=True)
        working = Rotating(self.dispatcher, "alice").advance(begin=True)
        self.failed(working, Conflict)


class DueTests(RotationCase):
    """
    When it begins by itself
    """

    def test_due(self) -> None:
        """
        When so many days are left; where certificates do not live that long,
        half of their life.
        """
        for left, days, due in (
            (91, 90, False),
            (89, 90, True),
            (40, 90, True),
            (-1, 90, True),
        ):
            end = NOW + left * DAY
            found = is_rotation_due(end, NOW + 825 * DAY, NOW, days)
            self.assertEqual(found, due, left)
        self.assertFalse(is_rotation_due(NOW + 6 * DAY, NOW + 10 * DAY, NOW, 90))
        self.assertTrue(is_rotation_due(NOW + 4 * DAY, NOW + 10 * DAY, NOW, 90))
        self.assertFalse(is_rotation_due(NOW + DAY, NOW + DAY, NOW, 90))

    def test_patient(self) -> None:
        """
        It waits for agents that are off, for as long as the overlap is, and
        then goes on without them.
        """
        self.agents.trusts = {"web-2": GONE}
        self.assertEqual(self.advance().stage, Stage.NONE)
        self.now = NOW + 740 * DAY
        for _ in range(2):
            self.assertEqual(self.advance().stage, Stage.ANNOUNCING)
        self.assertEqual(self.authority.dispatcher_serial(), self.old.serial)
        told = self.told(self.agents)
        self.assertEqual([name for name, _, _ in told], ["web-1", "web-2", "web-2"])
        self.now += 31 * DAY
        self.assertEqual(self.advance().stage, Stage.OVERLAP)

    def test_all(self) -> None:
        """
        It goes on at once when all have been told.
        """
        self.now = NOW + 740 * DAY
        self.assertEqual(self.advance().stage, Stage.OVERLAP)

    def test_ended(self) -> None:
        """
        A certificate that has ended announces nothing; the next one is used,
        and agents of ours know its role.
        """

        def ended(reactor: object) -> FakeAgents:
            raise PkiError("the dispatcher's certificate ended")

        agents = self.dispatcher.agents
        self.dispatcher = attrs.evolve(self.dispatcher, agents=ended)
        self.now = NOW + 830 * DAY
        self.assertEqual(self.advance().stage, Stage.OVERLAP)
        self.dispatcher = attrs.evolve(self.dispatcher, agents=agents)
        self.advance()
        self.assertEqual(len(self.told(self.former)), 2)


class LateTests(RotationCase):
    """
    Agents that were off
    """

    def test_told(self) -> None:
        """
        They are told with the former certificate, which they know.
        """
        self.agents.trusts = self.former.trusts = {"web-2": GONE}
        self.advance(begin=True)
        new = self.authority.dispatcher_serial()
        self.assertEqual(self.record("web-2").serial_status, "pending")
        self.assertEqual(self.advance().stage, Stage.OVERLAP)
        self.agents.trusts = self.former.trusts = {}
        self.told(self.former)
        self.assertEqual(self.advance().stage, Stage.NONE)
        self.assertEqual(self.told(self.former), [("web-2", "add", new)])
        self.assertEqual(self.record("web-2").serial_status, "current")

    def test_stale(self) -> None:
        """
        When the overlap ends they are given up, and are not told to forget the
        only serial that they know.
        """
        self.agents.trusts = self.former.trusts = {"web-2": GONE}
        self.advance(begin=True)
        self.told(self.agents)
        self.now += 31 * DAY
        self.assertEqual(self.advance().stage, Stage.NONE)
        self.assertEqual(self.told(self.agents), [("web-1", "remove", self.old.serial)])
        self.assertEqual(self.record("web-2").serial_status, "stale")
        self.assertIn("serial-stale", self.written.actions)

    def test_refused(self) -> None:
        """
        One that refuses keeps its old trust, and the log says why.
        """
        refused = RotateFailed("'ops' has 100 serials already")
        self.agents.trusts = self.former.trusts = {"web-1": refused}
        self.advance(begin=True)
        self.assertEqual(self.record("web-1").serial_status, "pending")
        lines = [each.line() for each in self.written.events]
        self.assertTrue(any("100 serials" in line for line in lines), lines)

    def test_retiring(self) -> None:
        """
        The former serial is taken from those that are off when they are back,
        and from nobody any more once the former certificate has ended.
        """
        self.advance(begin=True)
        self.agents.trusts = {"web-2": GONE}
        state = self.advance()
        self.assertEqual((state.stage, state.retiring), (Stage.RETIRING, ("web-2",)))
        self.told(self.agents)
        self.assertEqual(self.advance().stage, Stage.RETIRING)
        self.assertEqual(self.told(self.agents), [("web-2", "remove", self.old.serial)])
        self.now = NOW + 826 * DAY
        self.assertEqual(self.advance().stage, Stage.NONE)

    def test_revoked(self) -> None:
        """
        Nor is one that is revoked; nobody speaks to it.
        """
        self.register(attrs.evolve(self.record("web-2"), revoked=iso_time(NOW)))
        self.advance(begin=True)
        self.assertEqual(self.advance().stage, Stage.NONE)
        names = {name for name, _, _ in self.told(self.agents)}
        self.assertEqual(names, {"web-1"})

    def test_unpaired(self) -> None:
        """
        Who is unpaired is not waited for.
        """
        self.agents.trusts = self.former.trusts = {"web-2": GONE}
        self.advance(begin=True)
        self.dispatcher.stores.registry.remove("web-2")
        self.assertEqual(self.advance().stage, Stage.NONE)


class OlderTests(RotationCase):
    """
    Agents of the older line
    """

    def setUp(self) -> None:
        super().setUp()
        self.agents.trusts = {"web-1": OLDER}
        self.former.trusts = {"web-1": OLDER}

    def scripts(self) -> list[tuple[str, Any]]:
        """
        What was run, where.
        """
        return [
            (target.name, (run.script, run.args))  # type: ignore[union-attr]
            for target, run in self.agents.asked
        ]

    def test_script(self) -> None:
        """
        They are told by the script that is allowed there for that.
        """
        self.advance(begin=True)
        new = self.authority.dispatcher_serial()
        expected = ("web-1", ("update-ctrl-exec-serial", (new,)))
        self.assertEqual(self.scripts(), [expected])
        self.assertEqual(self.record("web-1").serial_status, "current")
        self.assertEqual(self.advance().stage, Stage.NONE)

    def test_late(self) -> None:
        """
        But not before the next certificate is about to be used: the oldest know
        one serial only.
        """
        self.agents.trusts = {"web-1": OLDER, "web-2": GONE}
        self.now = NOW + 740 * DAY
        self.assertEqual(self.advance().stage, Stage.ANNOUNCING)
        self.assertEqual(self.scripts(), [])
        self.agents.trusts = {"web-1": OLDER}
        self.assertEqual(self.advance().stage, Stage.OVERLAP)
        self.assertEqual(len(self.scripts()), 1)

    def test_failed(self) -> None:
        """
        A script that fails, or is not allowed, has told nobody.
        """
        self.agents.answers = {"web-1": RunFinished("x", 1, "", "no such id", "")}
        self.advance(begin=True)
        self.assertEqual(self.record("web-1").serial_status, "pending")
        lines = [each.line() for each in self.written.events]
        self.assertTrue(any("no such id" in line for line in lines), lines)
