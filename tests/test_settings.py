# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.settings}.
"""

# ruff: noqa: RUF009 - setting() declares an attribute, as attrs.field() does.

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import attrs
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.errors import SettingsError
from ctrlexec.kinds import BOOLEAN, PATH, Kind, Partly, number
from ctrlexec.settings import (
    SettingsWarning,
    below,
    beside,
    load_settings,
    read_settings,
    section,
    setting,
)

BASE = Path("/etc/lamp")


def _first_word(text: str) -> Partly[str]:
    first, *rest = text.split()
    return Partly(first, tuple(f"{word} is dropped" for word in rest))


WORD: Kind[str] = Kind("a word", _first_word)


@attrs.frozen(kw_only=True)
class LampSettings:
    """
    One key of each sort.
    """

    NOT_USED: ClassVar[frozenset[str]] = frozenset({"wick", "profile"})
    ELSEWHERE: ClassVar[frozenset[str]] = frozenset({"switch_port"})

    directory: Path
    room: str = setting(WORD)
    watts: int = setting(number(1, 100), default=40, aliases=("power",))
    bulb: Path = setting(PATH, default=beside("bulb.txt"))
    state_dir: Path = setting(PATH, default=Path("/var/lib/lamp"))
    record: Path = setting(PATH, default=below("state_dir", "record"))
    dimmed: bool | None = setting(BOOLEAN, default=None)
    tags: Mapping[str, str] = section()


def read(text: str) -> tuple[LampSettings, tuple[SettingsWarning, ...]]:
    return read_settings(LampSettings, text, file="lamp.conf", base=BASE)


class ReadSettingsTests(SynchronousTestCase):
    """
    L{read_settings}
    """

    def refused(self, text: str) -> SettingsError:
        with self.assertRaises(SettingsError) as caught:
            read(text)
        error: SettingsError = caught.exception
        return error

    def warned(self, text: str) -> list[str]:
        return [str(warning) for warning in read("room = hall\n" + text)[1]]

    def test_values(self) -> None:
        """
        Each value is of the type of its kind, and nothing is remarked.
        """
        settings, warnings = read(
            "\ufeff# A lamp.\r\n\r\n room=hall\r\n\tpower =  60 \n"
            "dimmed = ON\nbulb = /opt/bulb"
        )
        self.assertEqual(
            settings,
            LampSettings(
                directory=BASE,
                room="hall",
                watts=60,
                bulb=Path("/opt/bulb"),
                dimmed=True,
            ),
        )
        self.assertEqual(warnings, ())

    def test_defaults(self) -> None:
        """
        What is not given has its default, those that hang on another key too.
        """
        settings, _ = read("room = hall\nstate_dir = state")
        self.assertEqual(settings.watts, 40)
        self.assertEqual(settings.bulb, BASE / "bulb.txt")
        self.assertEqual(settings.record, BASE / "state/record")
        self.assertIsNone(settings.dimmed)
        self.assertEqual(settings.tags, {})

    def test_relativePath(self) -> None:
        """
        A relative path starts at the file's directory.
        """
        settings, _ = read("room = hall\nbulb = ../bulb # big")
        self.assertEqual(settings.bulb, BASE / "../bulb # big")

    def test_section(self) -> None:
        """
        A section is found in any case and in parts, and its lines are kept as
        they stand.
        """
        settings, warnings = read(
            "room = hall\n[Tags]\nsite = a = b # c\n[ TAGS ]\nempty ="
        )
        self.assertEqual(settings.tags, {"site": "a = b # c", "empty": ""})
        self.assertEqual(warnings, ())

    def test_frozen(self) -> None:
        """
        Settings do not change once they are read, sections included.
        """
        settings, _ = read("room = hall\n[tags]\nsite = a")
        with self.assertRaises(TypeError):
            settings.tags["site"] = "b"  # type: ignore[index]
        with self.assertRaises(attrs.exceptions.FrozenInstanceError):
            settings.watts = 1  # type: ignore[misc]

    def test_wrongType(self) -> None:
        """
        A value of another kind is refused with file, line, key, what was
        expected and what was there.
        """
        error = self.refused("room = hall\n\nwatts = 101")
        self.assertEqual(
            str(error),
            "lamp.conf:3: watts: expected a number from 1 to 100, not '101'",
        )
        self.assertEqual((error.file, error.line, error.key), ("lamp.conf", 3, "watts"))
        self.assertEqual(error.hint, "")

    def test_commentInValue(self) -> None:
        """
        Somebody who put a comment after a value is told what is wrong with it.
        """
        error = self.refused("watts = 60 # bright")
        self.assertEqual(error.hint, "a comment needs a line of its own")

    def test_noValue(self) -> None:
        """
        An empty value is not a default.
        """
        error = self.refused("watts =")
        self.assertEqual(
            str(error),
            "lamp.conf:1: watts: expected a number from 1 to 100, not nothing",
        )
        self.assertIn("leave the whole line out", error.hint)

    def test_missing(self) -> None:
        """
        A required key that is not there is named, with what it should hold.
        """
        error = self.refused("[tags]\nroom = hall")
        self.assertEqual(str(error), "lamp.conf: room: missing: expected a word")
        self.assertEqual((error.line, error.key), (0, "room"))
        self.assertEqual(error.hint, "add the line 'room = …'")

    def test_twice(self) -> None:
        """
        A key that is given twice is refused, under an alias too.
        """
        error = self.refused("watts = 40\npower = 40")
        self.assertEqual(
            str(error), "lamp.conf:2: power: expected once, but line 1 gives it too"
        )
        self.assertEqual(self.refused("[tags]\na = 1\nb = 2\na = 1").line, 4)

    def test_malformed(self) -> None:
        """
        A line of no known form is refused, wherever it stands.
        """
        lines = ["watts 40", "= 40", "two words = 1", "[tags", "[]", "[ \xa0 ]", "]"]
        for line in lines:
            for head in ("", "[tags]", "[unknown]"):
                error = self.refused(f"{head}\n{line}")
                self.assertEqual((error.line, error.key), (2, ""), line)
                self.assertIn("expected 'key = value' or '[section]'", str(error))

    def test_controlCharacter(self) -> None:
        """
        A control character is refused and shown escaped; neither it nor a
        separator of Unicode's ends a line.
        """
        for character in "\x00\x07\x0b\x0c\r\x1b\x7f\x85":
            error = self.refused(f"room = a{character}watts = 60")
            self.assertEqual(error.line, 1)
            self.assertIn(ascii(character), str(error))
            self.assertNotIn(character, str(error))
        self.assertEqual(read("room = a\nbulb = x\u2028watts = 60")[0].watts, 40)

    def test_unknownKey(self) -> None:
        """
        An unknown key is a warning that suggests the nearest one.
        """
        self.assertEqual(
            self.warned("wats = 60\nWatts = 60\nzzz = 1\nswich_port = 1"),
            [
                "lamp.conf:2: unknown key 'wats' is ignored; did you mean 'watts'?",
                "lamp.conf:3: unknown key 'Watts' is ignored; did you mean 'watts'?",
                "lamp.conf:4: unknown key 'zzz' is ignored",
                "lamp.conf:5: unknown key 'swich_port' is ignored; "
                "did you mean 'switch_port'?",
            ],
        )

    def test_unusedKey(self) -> None:
        """
        A key that we know and do not use is a plain warning; one that
        somebody else reads is none.
        """
        self.assertEqual(
            self.warned("wick = 1\nswitch_port = 2"),
            ["lamp.conf:2: key 'wick' is not used by this implementation"],
        )

    def test_otherSection(self) -> None:
        """
        A section that is not ours is one warning, whatever is in it.
        """
        self.assertEqual(
            self.warned("[tag]\nx = 1\nx = 2\n[Profile web]\ny = 1"),
            [
                "lamp.conf:2: unknown section 'tag' is ignored; did you mean 'tags'?",
                "lamp.conf:5: section 'profile web' is not used by this implementation",
            ],
        )

    def test_settingInSection(self) -> None:
        """
        A setting that slipped into a section is pointed out: there it sets
        nothing.
        """
        for name in ("tags", "profile web"):
            self.assertEqual(
                self.warned(f"[{name}]\nwatts = 60")[-1],
                f"lamp.conf:3: this line in [{name}] is not the setting watts, "
                "which belongs above every section",
            )

    def test_partly(self) -> None:
        """
        Remarks on a value become warnings with its line and key.
        """
        settings, warnings = read("\nroom = hall of fame")
        self.assertEqual(settings.room, "hall")
        self.assertEqual(
            [str(warning) for warning in warnings],
            [
                "lamp.conf:2: room: of is dropped",
                "lamp.conf:2: room: fame is dropped",
            ],
        )

    @given(
        watts=st.integers(1, 100),
        room=st.from_regex(r"[!-~]{1,20}", fullmatch=True),
        tags=st.dictionaries(
            st.from_regex(r"[a-z][a-z0-9._/-]{0,9}", fullmatch=True),
            st.text(st.characters(exclude_categories=("C", "Z")), max_size=20),
        ),
        blank=st.sampled_from(["", " ", "\t "]),
        end=st.sampled_from(["\n", "\r\n", "\n# watts = 0\n\n"]),
    )
    def test_roundTrip(
        self, watts: int, room: str, tags: dict[str, str], blank: str, end: str
    ) -> None:
        """
        What is written, with blanks and comments anywhere, is what is read.
        """
        lines = [("room", room), ("watts", str(watts)), *tags.items()]
        written = [f"{blank}{key}{blank}={blank}{value}" for key, value in lines]
        written.insert(2, f"{blank}[{blank}tags{blank}]{blank}")
        settings, _ = read(end.join(written) + end)
        self.assertEqual(
            settings,
            LampSettings(directory=BASE, room=room, watts=watts, tags=tags),
        )

    @given(st.text() | st.text("rom=watsgd[]# \n\r\t10\xa0\x1c\ud800"))
    @example("[\x1c]")
    @example("watts = " + "9" * 5000)
    def test_anyText(self, text: str) -> None:
        """
        Whatever the text, it is read or refused.
        """
        with contextlib.suppress(SettingsError):
            read(text)


class LoadSettingsTests(SynchronousTestCase):
    """
    L{load_settings}
    """

    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def test_load(self) -> None:
        """
        Relative paths start at the directory of the file, which is absolute
        whatever way the file was named.
        """
        self.path.write_text("room = größe\n", "utf-8")
        settings, _ = load_settings(LampSettings, self.path)
        self.assertEqual(settings.room, "größe")
        self.assertEqual(settings.directory, Path.cwd() / self.path.parent)
        self.assertTrue(settings.bulb.is_absolute())

    def test_missing(self) -> None:
        """
        A missing file is named.
        """
        error = self.assertRaises(SettingsError, load_settings, LampSettings, self.path)
        self.assertEqual(str(error), f"{self.path}: there is no such file")
