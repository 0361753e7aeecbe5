# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.run_ages}.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent import run_ages
from ctrlexec.agent.run_ages import (
    AGES,
    KEPT_SECONDS,
    Ages,
    parse_ages,
    read_ages,
    spelled_ages,
    write_ages,
)
from ctrlexec.agent.run_store import RunKey
from ctrlexec.errors import ProtocolError, StoreError

KEY = RunKey("hq", "r-1")
OTHER = RunKey("lab", "r-1")
_SECONDS = st.floats(0, 10**6)


@attrs.define
class Host:
    """
    A host, and what is known there of the time.

    @ivar real: how much of it has passed, in seconds.
    @ivar up: for how long it has been up.
    @ivar boot: what tells its start from others; empty where it does not say.
    """

    real: float = 0.0
    up: float = 0.0
    boot: str = ""
    ages: Ages = attrs.field(factory=Ages)

    def passes(
        self, seconds: float, happens: str, boot: str = "", up: float = 0.0
    ) -> None:
        """
        It is up for so long, and then something happens.

        @param happens: somebody C{"sweeps"}; another C{"agent"} goes on; the host
            was started, or the disk is in C{"another"} one.
        @param boot: what that one says.
        @param up: for how long it has been up.
        """
        self.real += seconds
        self.up += seconds
        if happens == "sweeps":
            self.ages = self.ages.at(self.up).noticed([(KEY, 1.0)])
            return
        if happens == "another":
            # No two starts say the same.
            self.up, self.boot = up, boot and f"{boot} {self.real} {self.boot}"
        written = parse_ages(spelled_ages(self.ages))
        self.ages = written.resumed(self.boot, self.up)


_LIVES = st.lists(
    st.tuples(
        _SECONDS,
        st.sampled_from(["sweeps", "agent", "another"]),
        st.sampled_from(["", "b"]),
        _SECONDS,
    )
)


class AgesTests(SynchronousTestCase):
    """
    L{Ages}
    """

    @given(_LIVES)
    def test_neverEarly(self, life: list[tuple[float, str, str, float]]) -> None:
        """
        Whatever becomes of host and agent, and whenever somebody looks: no run is
        older than the time that has passed.
        """
        host = Host()
        host.passes(0, "sweeps")
        for event in life:
            host.passes(*event)
        host.passes(0, "sweeps")
        age = host.ages.total - host.ages.since(KEY)
        self.assertLessEqual(age, host.real + 0.001)

    @given(st.lists(st.tuples(_SECONDS, _SECONDS)))
    def test_notForEver(self, lives: list[tuple[float, float]]) -> None:
        """
        All that a host is up until somebody looks for the last time counts, in each
        of its lives, whichever agent looks.
        """
        host = Host()
        host.passes(0, "another", "b")
        host.passes(0, "sweeps")
        for first, second in lives:
            host.passes(first, "sweeps")
            host.passes(second, "agent")
            host.passes(0, "sweeps")
            host.passes(60, "another", "b", 30)
        age = host.ages.total - host.ages.since(KEY)
        self.assertAlmostEqual(age, sum(map(sum, lives)), places=3)

    def test_day(self) -> None:
        """
        The time of a run is over after a day, not before.
        """
        ages = Ages(uptime=5.0).noticed([(KEY, 1.0)])
        for seconds, over in ((KEPT_SECONDS, False), (KEPT_SECONDS + 1, True)):
            self.assertEqual(ages.at(5.0 + seconds).is_over(KEY), over)

    def test_changed(self) -> None:
        """
        With another time, to either side, it is new; one that is not there any more
        is not known.
        """
        ages = Ages().noticed([(KEY, 7.0), (OTHER, 7.0)]).at(50.0)
        for changed, since in ((7.0, 0.0), (6.0, 50.0), (8.0, 50.0)):
            self.assertEqual(ages.noticed([(KEY, changed)]).since(KEY), since)
        self.assertEqual({*ages.noticed([(KEY, 7.0)]).seen}, {KEY})

    def test_gone(self) -> None:
        """
        One that had to go is known until its day is over.
        """
        ages = Ages().noticed([(KEY, 1.0)]).at(50.0).without([], [KEY])
        self.assertTrue(ages.is_gone(KEY))
        self.assertFalse(ages.is_gone(OTHER))
        self.assertEqual(ages.seen, {})
        for seconds, known in ((KEPT_SECONDS, True), (KEPT_SECONDS + 1, False)):
            self.assertEqual(ages.at(seconds).noticed([]).is_gone(KEY), known)

    def test_nobody(self) -> None:
        """
        One that has no reqid nobody can ask for again.
        """
        key = RunKey.of("hq", "")
        self.assertFalse(Ages().noticed([(key, 1.0)]).without([], [key]).is_gone(key))

    def test_notTooMany(self) -> None:
        """
        Of each dispatcher so many are known, the newest; what others have lost
        takes nothing from it.
        """
        self.patch(run_ages, "MOST_GONE", 2)
        keys = [RunKey("hq", f"r-{number}") for number in range(4)]
        ages = Ages().noticed([(key, 1.0) for key in (OTHER, *keys)])
        ages = ages.without([], [OTHER]).without([], keys[:1]).without([], keys[1:])
        self.assertEqual([*ages.gone], [OTHER, *keys[2:]])


class FileTests(SynchronousTestCase):
    """
    L{read_ages} and L{write_ages}
    """

    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.root.mkdir()

    @given(
        st.builds(
            Ages,
            st.just(10.0**6),
            st.text(),
            _SECONDS,
            st.dictionaries(
                st.builds(RunKey, st.text(), st.text()), st.tuples(_SECONDS, _SECONDS)
            ),
            st.dictionaries(st.builds(RunKey, st.text(), st.text()), _SECONDS),
        )
    )
    def test_same(self, ages: Ages) -> None:
        """
        What was written down is read again.
        """
        self.assertEqual(parse_ages(spelled_ages(ages)), ages)

    def test_file(self) -> None:
        """
        It is a file of the store as long as there is something to know.
        """
        self.assertEqual(read_ages(self.root), Ages())
        ages = Ages(9.0, "b", 5.0, {KEY: (1.0, 2.0)}, {OTHER: 3.0})
        write_ages(self.root, ages)
        self.assertEqual(read_ages(self.root), ages)
        self.assertEqual([path.name for path in self.root.iterdir()], [AGES])
        write_ages(self.root, Ages(9.0, "b", 5.0))
        self.assertEqual([*self.root.iterdir()], [])

    def test_boot(self) -> None:
        """
        Where it is not known since which start a host is up, all that was up before
        does not count.
        """
        ages = Ages(9.0, "", 5.0).resumed("", 8.0)
        self.assertEqual(ages, Ages(9.0, "", 8.0))

    def test_nonsense(self) -> None:
        """
        What is nothing of ours is refused.
        """
        sound = {"total": 1, "uptime": 1, "seen": {}, "gone": {}}
        changes: list[dict[str, Any]] = [
            {"total": "1"},
            {"total": True},
            {"uptime": None},
            {"uptime": 1e999},
            {"uptime": 10**400},
            {"boot": 1},
            {"seen": []},
            {"seen": {"hq": []}},
            {"seen": {"hq": {"r-1": 1}}},
            {"seen": {"hq": {"r-1": [1, 2, 3]}}},
            {"gone": {"hq": {"r-1": [1]}}},
            {"gone": None},
        ]
        for change in changes:
            text = json.dumps({**sound, **change}).encode()
            self.assertRaises(ProtocolError, parse_ages, text)
        parse_ages(json.dumps(sound).encode())
        (self.root / AGES).write_bytes(b"{")
        self.assertRaises(StoreError, read_ages, self.root)

    def test_future(self) -> None:
        """
        Nothing is of the future, so nothing is kept for ever.
        """
        fields = {
            "total": 5,
            "uptime": 1,
            "seen": {"hq": {"r-1": [1, 1e300]}},
            "gone": {"hq": {"r-2": 1e300}},
        }
        ages = parse_ages(json.dumps(fields).encode())
        self.assertEqual((ages.since(KEY), [*ages.gone.values()]), (5.0, [5.0]))
