# SPDX-License-Identifier: AGPL-3.0-only
"""
C{scripts.conf}: what may run on this host.

A line is C{name = /absolute/path [key=value ...]} (NEWER-LINE.md section
11.2). A bad line permits nothing and harms no other line, so it is skipped,
with a warning.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import attrs

from ctrlexec.errors import InvalidValue
from ctrlexec.lines import read_file, significant_lines, unfit_character
from ctrlexec.placement import place_of
from ctrlexec.settings import SettingsWarning
from ctrlexec.values import script_name

_ANNOTATION = re.compile(r"([a-z_]+)=(.*)")


@attrs.frozen
class Script:
    """
    A program that the host lets run under a name.

    @ivar path: absolute.
    @ivar annotations: what else its line says, as it stands.
    """

    name: str
    path: Path
    annotations: Mapping[str, str] = MappingProxyType({})


@attrs.frozen
class Permitted:
    """
    The script may run.
    """

    script: Script


@attrs.frozen
class NotPermitted:
    """
    The script may not run.

    @ivar reason: for the log; the caller is not told.
    """

    reason: str


Decision = Permitted | NotPermitted


@attrs.frozen
class Allowlist:
    """
    The scripts of a host, by name.
    """

    scripts: Mapping[str, Script] = MappingProxyType({})

    def decide(self, name: str) -> Decision:
        """
        @param name: as a caller gave it.
        """
        script = self.scripts.get(name)
        return Permitted(script) if script else NotPermitted("not in the allowlist")


def placed(script: Script, directories: tuple[Path, ...] | None) -> Decision:
    """
    Whether a script is where scripts may be: below one of C{script_dirs}, and
    nowhere that anybody may write.

    Symbolic links and C{..} are resolved first, on both sides. The script
    that is permitted has the path of L{place_of}, so that what was looked at is
    what will be started.

    @param directories: C{None} permits any place.
    """
    place = place_of(script.path)
    for path in (place.real, place.start):
        if directories is not None and not _below(path, directories):
            return NotPermitted(f"{path} is outside script_dirs")
    if place.exposed:
        return NotPermitted(place.exposed)
    return Permitted(attrs.evolve(script, path=place.start))


def _below(path: Path, directories: tuple[Path, ...]) -> bool:
    return any(Path(os.path.realpath(each)) in path.parents for each in directories)


def load_allowlist(path: Path) -> tuple[Allowlist, tuple[SettingsWarning, ...]]:
    """
    Read C{scripts.conf}; a line that is not UTF-8 is a bad line.

    @raise SettingsError: the file is missing or unreadable.
    """
    text = read_file(path).decode("utf-8", "surrogateescape")
    return parse_allowlist(text, str(path))


def parse_allowlist(
    text: str, file: str
) -> tuple[Allowlist, tuple[SettingsWarning, ...]]:
    """
    @param file: what warnings call the text.
    @return: the scripts of the good lines, and a warning for each bad one.
    """
    scripts: dict[str, Script] = {}
    warnings: list[SettingsWarning] = []
    for number, line in significant_lines(text):
        try:
            script = _script(line)
            if script.name in scripts:
                raise InvalidValue("line", line, "each name once; the first one stays")
            scripts[script.name] = script
        except InvalidValue as error:
            warnings.append(SettingsWarning(file, number, f"skipped: {error}"))
    return Allowlist(MappingProxyType(scripts)), tuple(warnings)


def _script(line: str) -> Script:
    """
    The path is the one word that is no annotation, wherever it stands.
    """
    name, equals, rest = line.partition("=")
    if not equals or unfit_character(line):
        raise InvalidValue("line", line, "name = /absolute/path [key=value ...]")
    paths: list[str] = []
    annotations: dict[str, str] = {}
    for word in rest.split():
        found = _ANNOTATION.fullmatch(word)
        if found is None:
            paths.append(word)
        elif found[1] in annotations:
            raise InvalidValue("annotation", word, f"{found[1]}= only once")
        else:
            annotations[found[1]] = found[2]
    if len(paths) != 1 or not paths[0].startswith("/"):
        raise InvalidValue("path", " ".join(paths), "one path that starts with /")
    return Script(
        script_name(name.rstrip()), Path(paths[0]), MappingProxyType(annotations)
    )
