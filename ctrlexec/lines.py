# SPDX-License-Identifier: AGPL-3.0-only
"""
The files that people write for us, as lines: C{key = value}, C{[section]},
C{# comment}.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from unicodedata import category

import attrs

from ctrlexec.errors import SettingsError, abbreviated

_BLANKS = " \t"
_SECTION = re.compile(r"\[\s*([^\[\]]*[^\[\]\s])\s*\]")
_KEY = re.compile(r"([^\s=\[\]]+)[ \t]*=[ \t]*(.*)")


@attrs.frozen
class SectionLine:
    """
    C{[name]}: what follows belongs to a section.

    @ivar number: the number of the line, counted from 1.
    @ivar name: in the letters of the file.
    """

    number: int
    name: str


@attrs.frozen
class KeyLine:
    """
    C{key = value}.

    @ivar number: the number of the line, counted from 1.
    @ivar key: one word.
    @ivar value: all of the rest, C{#} included; it may be empty.
    """

    number: int
    key: str
    value: str


def read_file(path: Path) -> bytes:
    """
    @raise SettingsError: the file is missing or unreadable.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise SettingsError(str(path), 0, "", "there is no such file") from None
    except OSError as error:
        problem = f"the file can not be read: {error.strerror}"
        raise SettingsError(str(path), 0, "", problem) from None


def read_text(path: Path) -> str:
    """
    @raise SettingsError: the file is missing, unreadable or not UTF-8.
    """
    data = read_file(path)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = f"expected UTF-8 text, not the byte 0x{data[error.start]:02x}"
        raise SettingsError(str(path), line, "", problem) from None


def significant_lines(text: str) -> Iterator[tuple[int, str]]:
    """
    The lines that say something: neither blank nor a comment as a whole.

    Only a newline ends a line. C{str.splitlines} knows nine other ends, and
    each would let one line pass for two.

    @return: the number of each line, counted from 1, and the line without the
        blanks round it.
    """
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line = line.removesuffix("\r").strip(_BLANKS)
        if line and not line.startswith("#"):
            yield number, line


def unfit_character(line: str) -> str | None:
    """
    Find what no line may hold: a control character other than a tab, or a
    byte that was not UTF-8.

    @return: the first such character, as a person can be shown it.
    """
    for character in line:
        if character != "\t" and category(character) in {"Cc", "Cs"}:
            return ascii(character)
    return None


def settings_lines(text: str, file: str) -> Iterator[SectionLine | KeyLine]:
    """
    The lines of a settings file.

    @param file: what messages call the text.
    @raise SettingsError: a line is neither of the two kinds.
    """
    for number, line in significant_lines(text):
        if unfit := unfit_character(line):
            problem = f"expected printable text, not the character {unfit}"
            raise SettingsError(file, number, "", problem)
        if found := _SECTION.fullmatch(line):
            yield SectionLine(number, found[1])
        elif found := _KEY.fullmatch(line):
            yield KeyLine(number, found[1], found[2])
        else:
            problem = f"expected 'key = value' or '[section]', not {abbreviated(line)}"
            raise SettingsError(file, number, "", problem)
