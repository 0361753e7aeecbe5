# SPDX-License-Identifier: AGPL-3.0-only
"""
C{scripts.conf}: what may run on this host.

A line is C{name = /absolute/path [key=value ...]} (NEWER-LINE.md section
11.2). A bad line permits nothing and harms no other line, so it is skipped,
with a warning. An annotation that is not known makes a bad line of it: it may
be a limit that is misspelt, without which the script is not to run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs

from ctrlexec import kinds
from ctrlexec.agent.runs import RunLimits
from ctrlexec.errors import InvalidValue
from ctrlexec.lines import read_file, significant_lines, unfit_character
from ctrlexec.placement import place_of
from ctrlexec.settings import SettingsWarning
from ctrlexec.values import script_name

_ANNOTATION = re.compile(r"([A-Za-z0-9_-]+)=(.*)")
_PROFILE = re.compile(r"[A-Za-z0-9_.-]{1,127}")
_NO_LOCK = "none"


def _profile(text: str) -> str:
    if _PROFILE.fullmatch(text):
        return text
    raise ValueError(text)


def _lock(text: str) -> str:
    return "" if text == _NO_LOCK else script_name(text)


#: What may stand behind a path: C{docs/runs.md}. Those that L{Script} has not
#: are the system's L{RunLimits}.
ANNOTATIONS: Mapping[str, kinds.Kind[Any]] = MappingProxyType(
    {
        "timeout": kinds.DURATION,
        "max_output": kinds.SIZE,
        "nproc": kinds.number(1, 2**22),
        "as": kinds.SPACE,
        "nofile": kinds.number(1, 2**20),
        "cpu": kinds.DURATION,
        "lock": kinds.Kind("a name of letters, digits, '_' and '-', or none", _lock),
        "profile": kinds.Kind("the name of a profile", _profile),
    }
)


@attrs.frozen
class Script:
    """
    A program that the host lets run under a name.

    @ivar path: absolute.
    @ivar timeout: after how many seconds it is ended, whoever wants it to run;
        C{None} for never.
    @ivar max_output: how many bytes are kept of each of its output streams;
        C{None} for what the settings say.
    @ivar lock: see L{lock_of}: C{None} where its line says nothing of one, empty
        where it says that there is none.
    @ivar profile: is told to whoever asks what there is, and no more.
    """

    name: str
    path: Path
    timeout: float | None = None
    max_output: int | None = None
    lock: str | None = None
    profile: str = ""
    limits: RunLimits = attrs.field(factory=RunLimits)

    def lock_of(self, *, asynchronous: bool) -> str:
        """
        The name of the lock that a run of it takes, which must be free; empty
        for none. Without one of its own it is the script's name for a run that
        nobody waits for, as with the original, and none for all others.
        """
        if self.lock is not None:
            return self.lock
        return self.name if asynchronous else ""

    def annotations(self) -> dict[str, str]:
        """
        What its line says beside the path.
        """
        said = {
            "timeout": self.timeout,
            "max_output": self.max_output,
            "nproc": self.limits.nproc,
            "as": self.limits.memory_bytes,
            "nofile": self.limits.nofile,
            "cpu": self.limits.cpu_seconds,
            "lock": _NO_LOCK if self.lock == "" else self.lock,
            "profile": self.profile or None,
        }
        return {key: str(value) for key, value in said.items() if value is not None}


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
    annotations: dict[str, Any] = {}
    for word in rest.split():
        found = _ANNOTATION.fullmatch(word)
        if found is None:
            paths.append(word)
        elif found[1] in annotations:
            raise InvalidValue("annotation", word, f"{found[1]}= only once")
        else:
            annotations[found[1]] = _value(word, *found.groups())
    behind = paths[1:] if paths and paths[0].startswith("/") else ()
    for word in behind:
        if not word.startswith("/"):
            raise InvalidValue("annotation", word, f"one of {_known()}")
    if len(paths) != 1 or not paths[0].startswith("/"):
        raise InvalidValue("path", " ".join(paths), "one path that starts with /")
    return _annotated(script_name(name.rstrip()), Path(paths[0]), annotations)


def _value(word: str, key: str, text: str) -> Any:
    """
    @raise InvalidValue: there is no such annotation, or it can not have that
        value.
    """
    kind = ANNOTATIONS.get(key)
    if kind is None:
        raise InvalidValue("annotation", word, f"one of {_known()}")
    try:
        return kind.read(text)
    except InvalidValue:
        raise InvalidValue("annotation", word, f"{key}= with {kind.expected}") from None


def _known() -> str:
    return ", ".join(f"{each}=" for each in ANNOTATIONS)


def _annotated(name: str, path: Path, values: dict[str, Any]) -> Script:
    limits = RunLimits(
        nproc=values.pop("nproc", None),
        memory_bytes=values.pop("as", None),
        nofile=values.pop("nofile", None),
        cpu_seconds=values.pop("cpu", None),
    )
    return Script(name, path, limits=limits, **values)
