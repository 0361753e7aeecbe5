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
)
from ctrlexec.agent.runs import RunLimits
from ctrlexec.errors import SettingsError
from ctrlexec.values import script_name

NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)
WORDS = st.from_regex(r"[!-~]{0,20}", fullmatch=True)
SECONDS = st.integers(1, 30 * 86_400)
SCRIPTS = st.builds(
    Script,
    NAMES,
    WORDS.map(lambda word: Path("/" + word)),
    st.none() | SECONDS,
    st.none() | st.integers(1, 2**30),
    st.none() | st.just("") | NAMES.filter(lambda name: name != "none"),
    st.just("") | st.from_regex(r"[A-Za-z0-9_.-]{1,9}", fullmatch=True),
    st.builds(
        RunLimits,
        nproc=st.none() | st.integers(1, 2**22),
        memory_bytes=st.none() | st.integers(1, 2**40),
        nofile=st.none() | st.integers(1, 2**20),
        cpu_seconds=st.none() | SECONDS,
    ),
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
            "  disk-free=/opt/df.sh   profile=web timeout=5m\n"
            "db_dump\t=\tlock=db\t/opt/a=b.sh\n"
        )
        self.assertEqual(warnings, [])
        self.assertEqual(
            list(allowlist.scripts.values()),
            [
                Script("uptime", Path("/usr/bin/uptime")),
                Script("disk-free", Path("/opt/df.sh"), timeout=300, profile="web"),
                Script("db_dump", Path("/opt/a=b.sh"), lock="db"),
            ],
        )

    def test_annotations(self) -> None:
        """
        Each annotation has its place, and times and sizes their units.
        """
        allowlist, warnings = parse(
            "a = /a timeout=2h max_output=64k nproc=64 as=4G nofile=256 cpu=90s"
            " lock=db profile=web.1\n"
            "b = /b timeout=90 lock=none"
        )
        self.assertEqual(warnings, [])
        limits = RunLimits(nproc=64, memory_bytes=4 * 2**30, nofile=256, cpu_seconds=90)
        self.assertEqual(
            [*allowlist.scripts.values()],
            [
                Script("a", Path("/a"), 7200, 65_536, "db", "web.1", limits),
                Script("b", Path("/b"), timeout=90, lock=""),
            ],
        )

    def test_badAnnotations(self) -> None:
        """
        An annotation that is misspelt, not known, or of no such value may have
        been meant for a limit, so its script is not permitted; what would have
        been right is said.
        """
        time = "a time of up to 30d such as 90, 30s, 5m or 2h"
        bytes_ = "a number of bytes up to {}, for example 8388608, 512k or 8M"
        lock = "a name of letters, digits, '_' and '-', or none"
        known = "timeout=, max_output=, nproc=, as=, nofile=, cpu=, lock=, profile="
        bad = {
            "timout=30s": f"one of {known}",
            "Timeout=30s": f"one of {known}",
            "max-output=1M": f"one of {known}",
            "schema=/opt/a.json": f"one of {known}",
            "=": f"one of {known}",
            "timeout=5 junk": f"one of {known}",
            "timeout=": f"timeout= with {time}",
            "timeout=0": f"timeout= with {time}",
            "timeout=31d": f"timeout= with {time}",
            "timeout=1.5": f"timeout= with {time}",
            "timeout=721h": f"timeout= with {time}",
            "max_output=2G": f"max_output= with {bytes_.format('1G')}",
            "max_output=all": f"max_output= with {bytes_.format('1G')}",
            "nproc=0": "nproc= with a number from 1 to 4194304",
            "nproc=-1": "nproc= with a number from 1 to 4194304",
            "as=1025G": f"as= with {bytes_.format('1024G')}",
            "nofile=unlimited": "nofile= with a number from 1 to 1048576",
            "cpu=forever": f"cpu= with {time}",
            "lock=": f"lock= with {lock}",
            "lock=../db": f"lock= with {lock}",
            "profile=": "profile= with the name of a profile",
            "timeout=5 timeout=6": "timeout= only once",
        }
        for text, expected in bad.items():
            allowlist, warnings = parse(f"first = /a\na = /opt/a {text}\nlast = /z")
            self.assertEqual([*allowlist.scripts], ["first", "last"], text)
            word = text.split()[-1]
            problem = f"invalid annotation '{word}': expected {expected}"
            self.assertEqual(warnings, [f"scripts.conf:2: skipped: {problem}"])

    def test_locks(self) -> None:
        """
        A run that nobody waits for takes the lock of its script's name, others
        take none; a lock that the line names is for all, and one may be done
        without.
        """
        allowlist, _ = parse("a = /a\nb = /b lock=db\nc = /c lock=none")
        taken = {
            name: [
                script.lock_of(asynchronous=asynchronous)
                for asynchronous in (False, True)
            ]
            for name, script in allowlist.scripts.items()
        }
        self.assertEqual(taken, {"a": ["", "a"], "b": ["db", "db"], "c": ["", ""]})

    def test_badLines(self) -> None:
        """
        A bad line is skipped with a warning that says what is wrong with it,
        and the lines round it stay.
        """
        line = "invalid line {}: expected name = /absolute/path [key=value ...]"
        path = "invalid path {}: expected one path that starts with /"
        known = (
            "invalid annotation {}: expected one of timeout=, max_output=, nproc=, "
            "as=, nofile=, cpu=, lock=, profile="
        )
        name = "letters, digits, '_' and '-', 128 characters at most"
        bad = {
            "uptime": line.format("'uptime'"),
            "[scripts]": line.format("'[scripts]'"),
            "a = /opt/\x1b[2J": line.format(r"'a = /opt/\x1b[2J'"),
            "a =": path.format("''"),
            "a = profile=web": path.format("''"),
            "a = bin/a": path.format("'bin/a'"),
            "a = /opt/a /opt/b": path.format("'/opt/a /opt/b'"),
            "a = opt/a junk": path.format("'opt/a junk'"),
            "a = /opt/a # why": known.format("'#'"),
            "../a = /opt/a": f"invalid script name '../a': expected {name}",
            "= /opt/a": f"invalid script name '': expected {name}",
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
                    *(f"{key}={text}" for key, text in script.annotations().items()),
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
