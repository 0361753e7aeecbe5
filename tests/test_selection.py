# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.selection}.

It is over 400 lines, since there are so many ways to name a host, and to get
it wrong.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from itertools import product
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.orders import Selection
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.registry import FileRegistry
from ctrlexec.dispatcher.selection import (
    MOST_HOSTS,
    MOST_PATTERNS,
    Selected,
    everything,
    natural,
    select,
)
from ctrlexec.errors import CtrlExecError, InvalidValue, NotFound
from ctrlexec.values import HostPort
from tests.structure import ROOT

AGENTS: Mapping[str, Mapping[str, str]] = {
    "db-1": {"env": "prod", "role": "db", "site": "a:1"},
    "db-2": {"env": "test", "role": "db", "spare": ""},
    "web-1": {"env": "prod", "role": "web"},
    "web-2": {"env": "prod", "role": "web"},
    "web-10": {"env": "test", "role": "web"},
    "mail.example": {},
}
WEBS = ["web-1", "web-2", "web-10"]

words = st.text(alphabet="web-12[]*?@=:,.x/ \n\0é", max_size=12)
stretches = st.builds(
    lambda first, more: (first, first + more), st.integers(0, 30), st.integers(0, 9)
)
ranges = st.lists(stretches, min_size=1, max_size=3)


class SelectionTestCase(SynchronousTestCase):
    """
    A registry with some agents.
    """

    def setUp(self) -> None:
        """
        Six agents.
        """
        self.directory = Path(self.mktemp())
        self.registry = FileRegistry(self.directory)
        for name, tags in AGENTS.items():
            self.registry.put(AgentRecord(name, tags=tags))

    def selected(
        self, *words: str, exclude: str | tuple[str, ...] = (), port: int | None = None
    ) -> Selected:
        """
        What some words mean.

        @param exclude: a text is split into words.
        """
        if isinstance(exclude, str):
            exclude = tuple(exclude.split())
        return select(Selection(words, exclude, port), self.registry)

    def names(self, *words: str, exclude: str | tuple[str, ...] = ()) -> list[str]:
        """
        The names of the hosts that some words mean.
        """
        return [each.host for each in self.selected(*words, exclude=exclude).hosts]

    def assertInvalid(self, *given: str) -> None:
        """
        None of these is a word.
        """
        for word in given:
            self.assertRaises(InvalidValue, self.names, word)
            self.assertRaises(InvalidValue, self.names, "db-1", exclude=(word,))


class NameTests(SelectionTestCase):
    """
    Hosts that are called by their names.
    """

    def test_order(self) -> None:
        """
        They are asked in the order in which they were named, registered or
        not.
        """
        given = ["web-2", "nowhere", "db-1", "2001:db8::1", "192.0.2.1"]
        self.assertEqual(self.names(*given), given)

    def test_ports(self) -> None:
        """
        A port that was given for one goes before that for all.
        """
        selected = self.selected("web-1:7001", "web-2", "[2001:db8::1]:1", port=7002)
        self.assertEqual(
            selected.hosts,
            (
                HostPort("web-1", 7001),
                HostPort("web-2", 7002),
                HostPort("2001:db8::1", 1),
            ),
        )
        self.assertEqual(self.selected("web-1").hosts, (HostPort("web-1"),))

    def test_twice(self) -> None:
        """
        Who is named twice is asked once, and that is said; the first port
        counts.
        """
        given = ["web-1", "web-2:7001", "web-1", "web-2:7002", "web-1"]
        selected = self.selected(*given)
        self.assertEqual(selected.hosts, (HostPort("web-1"), HostPort("web-2", 7001)))
        self.assertEqual(selected.repeated, ("web-1", "web-2"))
        again = self.selected("web-1", "web-1:7001")
        self.assertEqual(again.hosts, (HostPort("web-1", 7001),))

    def test_repeatedExcluded(self) -> None:
        """
        What is said about hosts is about those that are asked.
        """
        given = ["web-1", "web-1", "web-2"]
        self.assertEqual(self.selected(*given, exclude="web-1").repeated, ())

    def test_invalid(self) -> None:
        """
        What can be no host's name is none.
        """
        self.assertInvalid("", "a b", "-web", "web:", "web:0", "web:70000", "a@b")
        self.assertInvalid("web\n", "../web", "é", "[::1]:0", "w" * 254)

    def test_nothing(self) -> None:
        """
        Nobody means nothing.
        """
        self.assertRaises(InvalidValue, self.selected)


class PatternTests(SelectionTestCase):
    """
    Patterns of registered names.
    """

    def test_stars(self) -> None:
        """
        A star is any text, a question mark any character; names come as
        people count.
        """
        self.assertEqual(self.names("web-*"), WEBS)
        self.assertEqual(self.names("web-?"), WEBS[:2])
        self.assertEqual(self.names("*.example"), ["mail.example"])
        self.assertEqual(len(self.names("*")), len(AGENTS))

    def test_port(self) -> None:
        """
        A pattern can have a port, too.
        """
        selected = self.selected("db-*:7001", "web-1", port=7002)
        self.assertEqual([each.port for each in selected.hosts], [7001, 7001, 7002])

    def test_overlap(self) -> None:
        """
        Patterns may overlap, that is what they do.
        """
        selected = self.selected("web-2", "web-*", "*-1", "web-[1-2]", "web-1")
        names = [each.host for each in selected.hosts]
        self.assertEqual(names, ["web-2", "web-1", "web-10", "db-1"])
        self.assertEqual(selected.repeated, ())

    def test_none(self) -> None:
        """
        A pattern that matches nobody is a mistake, and is named.
        """
        with self.assertRaises(NotFound) as raised:
            self.names("web-1", "wbe-*")
        self.assertIn("'wbe-*'", str(raised.exception))
        self.assertIn("list-agents", raised.exception.hint)

    def test_unreadable(self) -> None:
        """
        An agent whose record is broken is not passed over: whoever asks for it
        learns what is wrong.
        """
        (self.directory / "web-3.json").write_bytes(b"{")
        self.assertIn("web-3", self.names("web-*"))

    def test_invalid(self) -> None:
        """
        What could be no name is no pattern; the case of letters counts.
        """
        self.assertInvalid("web *", "web/*", "*:0", "*:x", "w*é", "*\n", "a*" * 200)
        self.assertRaises(NotFound, self.names, "WEB-*")

    def test_many(self) -> None:
        """
        So many patterns are no selection that a person has made.
        """
        most = ["web-*", "@env=prod"] * (MOST_PATTERNS // 2)
        self.assertEqual(len(self.names(*most)), 4)
        self.assertRaises(InvalidValue, self.names, *most, "db-*")
        self.assertRaises(InvalidValue, self.names, *most, exclude="db-*")

    def test_tedious(self) -> None:
        """
        A pattern that is tedious to match is matched all the same.
        """
        self.registry.put(AgentRecord("a" * 250))
        self.assertRaises(NotFound, self.names, "*a" * 149 + "b")


class TagTests(SelectionTestCase):
    """
    Agents by their tags.
    """

    def test_value(self) -> None:
        """
        Agents with this very tag.
        """
        self.assertEqual(self.names("@role=web"), WEBS)
        self.assertEqual(self.names("@env=prod"), ["db-1", "web-1", "web-2"])

    def test_any(self) -> None:
        """
        Agents with this tag, whatever it says; nothing is a value as well.
        """
        self.assertEqual(self.names("@spare"), ["db-2"])
        self.assertEqual(self.names("@spare="), ["db-2"])
        self.assertEqual(self.names("@env"), ["db-1", "db-2", *WEBS])

    def test_port(self) -> None:
        """
        What looks like a port is one. Where a tag does, a port has to follow.
        """
        (host,) = self.selected("@spare:7001").hosts
        self.assertEqual(host, HostPort("db-2", 7001))
        self.assertRaises(NotFound, self.selected, "@site=a:1")
        (host,) = self.selected("@site=a:1:7001").hosts
        self.assertEqual(host, HostPort("db-1", 7001))

    def test_none(self) -> None:
        """
        A tag that nobody has is a mistake, and is named.
        """
        for word in ("@env=Prod", "@rol", "@env=prod*", "@env=[p]"):
            with self.assertRaises(NotFound) as raised:
                self.names(word)
            self.assertIn(f"'{word}'", str(raised.exception))
            self.assertIn("discovery", raised.exception.hint)

    def test_unreadable(self) -> None:
        """
        An agent whose record is cut off may have the tag: that is said of it by
        its name, unless it is named otherwise, and gets a row that says so.
        """
        (self.directory / "web-3.json").write_text('{"hostname":')
        selected = self.selected("@role=web")
        self.assertEqual([each.host for each in selected.hosts], WEBS)
        (warning,) = selected.warnings
        self.assertIn("web-3.json", warning)
        self.assertIn("its tags are not known", warning)
        self.assertEqual(self.selected("@role=web", "web-3").warnings, ())
        self.assertEqual(self.selected("web-*").warnings, ())
        self.assertEqual(self.selected("web-1", exclude="@role=db").hosts[0].port, None)

    def test_unreadableOnly(self) -> None:
        """
        Nor is it passed over where nobody else has the tag.
        """
        (self.directory / "web-3.json").write_text("[]")
        with self.assertRaises(NotFound) as raised:
            self.names("@role=mail")
        self.assertIn("web-3.json", raised.exception.hint)

    def test_unreadableExcluded(self) -> None:
        """
        The same where all agents but those with a tag are meant.
        """
        (self.directory / "web-3.json").write_text("")
        meant = everything(Selection((), ("@role=db",)), self.registry)
        self.assertIn("web-3", [each.host for each in meant.hosts])
        self.assertEqual(meant.warnings, ())
        meant = everything(Selection((), ("@role=db", "web-3")), self.registry)
        self.assertEqual(len(meant.warnings), 1)

    def test_invalid(self) -> None:
        """
        A tag has a name.
        """
        self.assertInvalid("@", "@=prod", "@:7001", "@env=prod:0")


class RangeTests(SelectionTestCase):
    """
    Names that are spelled by ranges.
    """

    def test_spelled(self) -> None:
        """
        A range stands for names, registered or not; its width is kept.
        """
        for word, expected in (
            ("web-[1-2]", "web-1 web-2"),
            ("web[08-11,50]-x", "web08-x web09-x web10-x web11-x web50-x"),
            ("[1-2]", "1 2"),
            ("a[1-2]b[3,4].c", "a1b3.c a1b4.c a2b3.c a2b4.c"),
            ("n[0-10/5]", "n0 n5 n10"),
            ("n[7]", "n7"),
        ):
            self.assertEqual(self.names(word), expected.split())

    def test_port(self) -> None:
        """
        A range can have a port, too.
        """
        (host,) = self.selected("web-[1]:7001").hosts
        self.assertEqual(host, HostPort("web-1", 7001))

    def test_invalid(self) -> None:
        """
        What is no range is none, and it is said what would be one.
        """
        self.assertInvalid("w[", "w]", "w[]", "w[1", "w[1-]", "w[-1]", "w[a-b]")
        self.assertInvalid("w[5-3]", "w[1-2/0]", "w[01-100]", "w[1-2][3-4]", "w[1]*")
        self.assertInvalid("w[1,]", "w[1 -2]", "w[[1]]", "-[1-2]", "w[1]:0")
        self.assertInvalid("w" * 253 + "[1-2]", "w[!1]", "w[1-2],x", "w[1]&w[2]")
        with self.assertRaises(InvalidValue) as raised:
            self.names("w[5-3]")
        self.assertIn("web[01-40,50]", str(raised.exception))

    def test_endless(self) -> None:
        """
        A range that would spell too many names is refused before it does.
        """
        self.assertInvalid(
            "w[1-1000001]",
            "w[0-999999999]",
            "w[1-9999999999999999]",
            "w[1-1001]-[1-1000]",
            "w" + "[0-9]x" * 7,
            "w[1-60000,1-60000]",
        )

    def test_endlessTogether(self) -> None:
        """
        So are several that would.
        """
        stride = f"w[0-{MOST_HOSTS - 1}/1000]"
        self.assertEqual(len(self.names(stride)), MOST_HOSTS // 1000)
        half = f"[1-1000]-[1-{MOST_HOSTS // 2000 + 1}]"
        self.assertRaises(InvalidValue, self.names, f"a{half}", f"b{half}")
        self.assertRaises(InvalidValue, self.names, f"a{half}", exclude=f"b{half}")

    @given(ranges, ranges)
    def test_all(
        self, first: list[tuple[int, int]], second: list[tuple[int, int]]
    ) -> None:
        """
        Nothing that is spelled is missing, and nothing else is there.
        """

        def bracketed(stretches: list[tuple[int, int]]) -> str:
            return "[" + ",".join(f"{low}-{high}" for low, high in stretches) + "]"

        def numbers(stretches: list[tuple[int, int]]) -> set[int]:
            return {
                number for low, high in stretches for number in range(low, high + 1)
            }

        found = self.names(f"n{bracketed(first)}x{bracketed(second)}")
        pairs = product(numbers(first), numbers(second))
        self.assertEqual(sorted(found), sorted(f"n{a}x{b}" for a, b in pairs))


class ExcludeTests(SelectionTestCase):
    """
    Hosts that are not meant.
    """

    def test_excludes(self) -> None:
        """
        They can be named in every way; a port of theirs does not matter.
        """
        for word in ("web-2 web-10", "web-2:1 web-1?", "web-[2,10]", "@env=test web-2"):
            self.assertEqual(self.names("web-*", exclude=word), ["web-1"])

    def test_others(self) -> None:
        """
        Who was not meant anyway can be excluded.
        """
        self.assertEqual(self.names("web-*", exclude="db-* nowhere"), WEBS)

    def test_none(self) -> None:
        """
        Somebody who excludes what is not there has mistyped it, and would run
        what they meant to spare.
        """
        with self.assertRaises(NotFound) as raised:
            self.names("web-*", exclude="wbe-1*")
        self.assertIn("'wbe-1*'", str(raised.exception))

    def test_all(self) -> None:
        """
        Where nobody is left, that is an error.
        """
        self.assertRaises(NotFound, self.names, "web-*", exclude="*")


class EverythingTests(SelectionTestCase):
    """
    All registered agents.
    """

    def test_all(self) -> None:
        """
        Each once, as people count, at the port that is given for all.
        """
        selected = everything(Selection((), port=7001), self.registry)
        self.assertEqual(
            [each.host for each in selected.hosts],
            ["db-1", "db-2", "mail.example", *WEBS],
        )
        self.assertEqual({each.port for each in selected.hosts}, {7001})
        self.assertEqual(selected.repeated, ())

    def test_exclude(self) -> None:
        """
        But for those that are excluded, unless that is all of them.
        """
        selected = everything(Selection((), ("web-*", "db-*")), self.registry)
        self.assertEqual(selected.hosts, (HostPort("mail.example"),))
        self.assertRaises(NotFound, everything, Selection((), ("*",)), self.registry)

    def test_nobody(self) -> None:
        """
        Where nobody is registered, everything is nothing, and no error.
        """
        registry = FileRegistry(self.directory / "empty")
        self.assertEqual(everything(Selection(()), registry), Selected(()))


class AnythingTests(SelectionTestCase):
    """
    What nobody has thought of.
    """

    @given(st.lists(words, max_size=4), st.lists(words, max_size=2))
    def test_anything(self, given: list[str], exclude: list[str]) -> None:
        """
        Whatever is typed means some hosts, each once, or is an error of ours.
        """
        selection = Selection(tuple(given), tuple(exclude))
        try:
            found = [each.host for each in select(selection, self.registry).hosts]
        except CtrlExecError:
            return
        self.assertTrue(found)
        self.assertEqual(len(found), len(set(found)))

    @given(st.permutations(["web-1", "web-[2-3]", "db-*", "@role=web"]))
    def test_firstMention(self, given: list[str]) -> None:
        """
        Whatever is mentioned first comes first.
        """
        expected = [name for word in given for name in self.names(word)]
        self.assertEqual(self.names(*given), [*dict.fromkeys(expected)])

    @given(st.permutations(["a", "a1", "a01", "a1b", "a2", "a10", "a10.x", "b", "1"]))
    def test_natural(self, names: list[str]) -> None:
        """
        Names are in one order, whichever they came in: as people count.
        """
        expected = ["1", "a", "a01", "a1", "a1b", "a2", "a10", "a10.x", "b"]
        self.assertEqual(sorted(names, key=natural), expected)


class LoadTests(SynchronousTestCase):
    """
    What a plain name costs.
    """

    def test_lazy(self) -> None:
        """
        Who types no range does not load what reads ranges.
        """
        program = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
            "from pathlib import Path\n"
            "from ctrlexec.dispatcher.orders import Selection\n"
            "from ctrlexec.dispatcher.registry import FileRegistry\n"
            "from ctrlexec.dispatcher.selection import select\n"
            "for word in 'web-1', 'web-[1]':\n"
            "    select(Selection((word,)), FileRegistry(Path('nowhere')))\n"
            "    print('ClusterShell' in sys.modules)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        self.assertEqual(done.stdout.split(), ["False", "True"])
