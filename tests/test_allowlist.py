# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.allowlist}.
"""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.allowlist import (
    Allowlist,
    NotPermitted,
    Permitted,
    Script,
    load_allowlist,
    parse_allowlist,
    placed,
)
from ctrlexec.errors import SettingsError
from ctrlexec.values import script_name

NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)
WORDS = st.from_regex(r"[!-~]{0,20}", fullmatch=True)
SCRIPTS = st.builds(
    Script,
    NAMES,
    WORDS.map(lambda word: Path("/" + word)),
    st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), WORDS),
)


def parse(text: str) -> tuple[Allowlist, list[str]]:
    allowlist, warnings = parse_allowlist(text, "scripts.conf")
    return allowlist, [str(warning) for warning in warnings]


class ParseAllowlistTests(SynchronousTestCase):
    """
    L{parse_allowlist}
    """

    def test_lines(self) -> None:
        """
        A name, a path, and annotations before or after it.
        """
        allowlist, warnings = parse(
            "# What may run here.\r\n\n"
            "uptime = /usr/bin/uptime\n"
            "  disk-free=/opt/df.sh   profile=web timeout=\n"
            "db_dump\t=\tprofile=db\t/opt/a=b.sh\n"
        )
        self.assertEqual(warnings, [])
        self.assertEqual(
            list(allowlist.scripts.values()),
            [
                Script("uptime", Path("/usr/bin/uptime")),
                Script(
                    "disk-free", Path("/opt/df.sh"), {"profile": "web", "timeout": ""}
                ),
                Script("db_dump", Path("/opt/a=b.sh"), {"profile": "db"}),
            ],
        )

    def test_badLines(self) -> None:
        """
        A bad line is skipped with a warning that says what is wrong with it,
        and the lines round it stay.
        """
        line = "invalid line {}: expected name = /absolute/path [key=value ...]"
        path = "invalid path {}: expected one path that starts with /"
        name = "letters, digits, '_' and '-', 128 characters at most"
        bad = {
            "uptime": line.format("'uptime'"),
            "[scripts]": line.format("'[scripts]'"),
            "a = /opt/\x1b[2J": line.format(r"'a = /opt/\x1b[2J'"),
            "a =": path.format("''"),
            "a = profile=web": path.format("''"),
            "a = bin/a": path.format("'bin/a'"),
            "a = /opt/a /opt/b": path.format("'/opt/a /opt/b'"),
            "a = /opt/a # why": path.format("'/opt/a # why'"),
            "../a = /opt/a": f"invalid script name '../a': expected {name}",
            "= /opt/a": f"invalid script name '': expected {name}",
            "a = /opt/a x=1 x=1": "invalid annotation 'x=1': expected x= only once",
        }
        for text, problem in bad.items():
            allowlist, warnings = parse(f"first = /a\n{text}\nlast = /z")
            self.assertEqual(warnings, [f"scripts.conf:2: skipped: {problem}"])
            self.assertEqual(list(allowlist.scripts), ["first", "last"])

    def test_duplicate(self) -> None:
        """
        Of two lines for one name the first one stays.
        """
        allowlist, warnings = parse("a = /first\na = /second")
        self.assertEqual(allowlist.scripts["a"].path, Path("/first"))
        self.assertEqual(
            warnings,
            [
                "scripts.conf:2: skipped: invalid line 'a = /second': "
                "expected each name once; the first one stays"
            ],
        )

    @given(st.lists(SCRIPTS, unique_by=lambda script: script.name))
    def test_roundTrip(self, scripts: list[Script]) -> None:
        """
        Every script that can be written down is read as it was.
        """
        lines = [
            " ".join(
                [
                    f"{script.name} = {script.path}",
                    *(f"{key}={value}" for key, value in script.annotations.items()),
                ]
            )
            for script in scripts
        ]
        allowlist, warnings = parse("\n".join(lines))
        self.assertEqual(warnings, [])
        self.assertEqual(list(allowlist.scripts.values()), scripts)

    @given(st.text() | st.text("ab_-=/# \n\r\t\xa0\x1c\ud800"))
    def test_anyText(self, text: str) -> None:
        """
        Whatever the text, what it permits is a good name for one absolute
        path.
        """
        allowlist, _ = parse(text)
        for name, script in allowlist.scripts.items():
            self.assertEqual(script_name(name), script.name)
            self.assertTrue(script.path.is_absolute())


class LoadAllowlistTests(SynchronousTestCase):
    """
    L{load_allowlist}
    """

    def test_notUtf8(self) -> None:
        """
        A line that is not UTF-8 is skipped like any bad line; in a comment it
        does not matter.
        """
        path = Path(self.mktemp())
        path.write_bytes(b"# caf\xe9\na = /opt/caf\xe9\nb = /opt/b\n")
        allowlist, warnings = load_allowlist(path)
        self.assertEqual(list(allowlist.scripts), ["b"])
        self.assertEqual([warning.line for warning in warnings], [2])
        self.assertIn(r"'a = /opt/caf\udce9'", str(warnings[0]))

    def test_missing(self) -> None:
        """
        A missing file is an error that names it, not an empty list.
        """
        path = Path(self.mktemp())
        error = self.assertRaises(SettingsError, load_allowlist, path)
        self.assertEqual(str(error), f"{path}: there is no such file")


class DecideTests(SynchronousTestCase):
    """
    L{Allowlist.decide}
    """

    def test_permitted(self) -> None:
        """
        A script in the list may run.
        """
        allowlist, _ = parse("a = /opt/a")
        self.assertEqual(allowlist.decide("a"), Permitted(Script("a", Path("/opt/a"))))

    def test_notPermitted(self) -> None:
        """
        Nothing else may, however close its name comes.
        """
        allowlist, _ = parse("a = /opt/a")
        for name in ("b", "A", "a ", "a\n", "a\x00", "./a", "/opt/a", ""):
            self.assertEqual(
                allowlist.decide(name), NotPermitted("not in the allowlist")
            )

    def test_empty(self) -> None:
        """
        An empty list permits nothing.
        """
        self.assertIsInstance(Allowlist().decide("a"), NotPermitted)


class PlacedTests(SynchronousTestCase):
    """
    L{placed}
    """

    def setUp(self) -> None:
        self.top = Path(self.mktemp()).resolve()
        self.allowed = self.top / "scripts"
        self.outside = self.top / "scripts-old"
        for directory in (self.allowed / "sub", self.outside):
            directory.mkdir(parents=True)
            (directory / "a").write_text("#!/bin/sh\n")

    def assert_permitted(self, path: Path, real: Path, *directories: Path) -> None:
        decision = placed(Script("a", path, {"x": "1"}), directories)
        self.assertEqual(decision, Permitted(Script("a", real, {"x": "1"})))

    def assert_refused(self, path: Path, real: Path, *directories: Path) -> None:
        decision = placed(Script("a", path), directories)
        self.assertEqual(decision, NotPermitted(f"{real} is outside script_dirs"))

    def test_noLimit(self) -> None:
        """
        Without C{script_dirs} a script may be anywhere, and is started where it
        really is.
        """
        script = Script("a", self.allowed / "../x")
        real = Script("a", self.top / "x")
        self.assertEqual(placed(script, None), Permitted(real))

    def test_below(self) -> None:
        """
        A script in any of the directories, at any depth, may run.
        """
        path = self.allowed / "sub" / "a"
        self.assert_permitted(path, path, self.outside, self.allowed)
        self.assert_permitted(path, path, Path("/"))

    def test_outside(self) -> None:
        """
        A directory whose name only begins alike is another directory, and a
        directory is not below itself.
        """
        self.assert_refused(self.outside / "a", self.outside / "a", self.allowed)
        self.assert_refused(self.allowed, self.allowed, self.allowed)

    def test_noDirectories(self) -> None:
        """
        An empty limit permits nothing.
        """
        self.assert_refused(self.allowed / "a", self.allowed / "a")

    def test_parent(self) -> None:
        """
        C{..} leads out as it does for the system.
        """
        path = self.allowed / ".." / "scripts-old" / "a"
        self.assert_refused(path, self.outside / "a", self.allowed)

    def test_linkOut(self) -> None:
        """
        A link in a directory to a script outside is outside, and so is a
        script reached through a linked directory.
        """
        (self.allowed / "link").symlink_to(self.outside / "a")
        (self.allowed / "way").symlink_to(self.outside)
        for path in (self.allowed / "link", self.allowed / "way" / "a"):
            self.assert_refused(path, self.outside / "a", self.allowed)

    def test_linkIn(self) -> None:
        """
        Where a link leads in, what it leads to is what will be started.
        """
        (self.outside / "link").symlink_to(self.allowed / "sub" / "a")
        real = self.allowed / "sub" / "a"
        self.assert_permitted(self.outside / "link", real, self.allowed)

    def test_linkToProgram(self) -> None:
        """
        A link to a program keeps its own name, as one file may be many
        programs; then both ends must be in the directories.
        """
        (self.allowed / "tools").write_bytes(b"\x7fELF")
        for directory in (self.allowed, self.outside):
            (directory / "up").symlink_to(self.allowed / "tools")
        link = self.allowed / "up"
        self.assert_permitted(link, link, self.allowed)
        link = self.outside / "up"
        self.assert_permitted(link, link, self.allowed, self.outside)
        self.assert_refused(link, link, self.allowed)
        self.assert_refused(link, self.allowed / "tools", self.outside)

    def test_exposed(self) -> None:
        """
        What anybody may write is not permitted, wherever it is.
        """
        path = self.allowed / "sub" / "a"
        path.chmod(0o757)
        refused = NotPermitted(f"{path} is world-writable")
        self.assertEqual(placed(Script("a", path), None), refused)
        self.assertEqual(placed(Script("a", path), (self.allowed,)), refused)

    def test_linkedDirectory(self) -> None:
        """
        The directories may be links themselves.
        """
        (self.top / "way").symlink_to(self.allowed)
        real = self.allowed / "sub" / "a"
        self.assert_permitted(self.top / "way" / "sub" / "a", real, self.top / "way")

    def test_missing(self) -> None:
        """
        That a script is not there is for the runner to say.
        """
        path = self.allowed / "missing"
        self.assert_permitted(path, path, self.allowed)

    def test_loop(self) -> None:
        """
        Links that lead round in a circle are answered, never raised.
        """
        loop = self.allowed / "loop"
        loop.symlink_to(loop)
        self.assert_permitted(loop, loop, self.allowed)
        self.assert_refused(loop, loop, self.outside)
