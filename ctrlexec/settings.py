# SPDX-License-Identifier: AGPL-3.0-only
"""
Settings: the text of a file becomes a frozen, typed value.

A program declares each of its keys once, on a class::

    @attrs.frozen(kw_only=True)
    class AgentSettings:
        NOT_USED: ClassVar[frozenset[str]] = frozenset({"max_children"})
        ELSEWHERE: ClassVar[frozenset[str]] = frozenset()

        directory: Path
        port: int = setting(PORT_TO_BIND, default=7443)
        cert: Path = setting(PATH, default=beside("agent.crt"))
        tags: Mapping[str, str] = section()

What a key may hold is a L{Kind}; a key without a default must be in the file.
A file with a bad line is refused whole, with a L{SettingsError} that says
where and what would have been right. What is merely odd is a
L{SettingsWarning}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Protocol, TypeVar, overload

import attrs

from ctrlexec.errors import InvalidValue, SettingsError, abbreviated
from ctrlexec.kinds import Kind, Partly
from ctrlexec.lines import KeyLine, SectionLine, read_text, settings_lines

_KIND = "ctrlexec.settings.kind"
_ALIASES = "ctrlexec.settings.aliases"
_SECTION = "ctrlexec.settings.section"
_EMPTY: Mapping[str, str] = MappingProxyType({})

T = TypeVar("T")
D = TypeVar("D")


class SettingsClass(attrs.AttrsInstance, Protocol):
    """
    A class whose attributes are the keys of a file.

    @cvar NOT_USED: keys and sections of the original that we know but do not
        use; each is worth a warning.
    @cvar ELSEWHERE: keys in the same file that another part of ctrl-exec
        reads; they are not.
    """

    NOT_USED: ClassVar[frozenset[str]]
    ELSEWHERE: ClassVar[frozenset[str]]

    @property
    def directory(self) -> Path:
        """
        The directory of the file, where relative paths start.
        """


S = TypeVar("S", bound=SettingsClass)


@attrs.frozen
class SettingsWarning:
    """
    Something odd in a file that can be used all the same.

    @ivar file: the file, as it was named to us.
    @ivar line: the number of the line, counted from 1; 0 where it is about no
        single line.
    """

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.message}"


@overload
def setting(kind: Kind[T], *, aliases: tuple[str, ...] = ()) -> T: ...
@overload
def setting(kind: Kind[T], *, default: D, aliases: tuple[str, ...] = ()) -> T | D: ...
def setting(
    kind: Kind[Any], *, default: Any = attrs.NOTHING, aliases: tuple[str, ...] = ()
) -> Any:
    """
    Declare an attribute to be the key of the same name.

    @param default: the value when the key is not given, or an
        C{attrs.Factory}; without one the key is required.
    @param aliases: other names of the key.
    """
    return attrs.field(default=default, metadata={_KIND: kind, _ALIASES: aliases})


def section() -> Mapping[str, str]:
    """
    Declare an attribute to be the section of the same name, as it stands.
    """
    return attrs.field(default=_EMPTY, metadata={_SECTION: True})


def beside(name: str) -> Path:
    """
    @return: a default: the file of this name beside the settings file.
    """
    return below("directory", name)


def below(attribute: str, name: str) -> Path:
    """
    @param attribute: an attribute declared earlier, which holds a directory.
    @return: a default: the file of this name in that directory.
    """

    def default(settings: SettingsClass) -> Path:
        directory: Path = getattr(settings, attribute)
        return directory / name

    return attrs.Factory(default, takes_self=True)


def load_settings(cls: type[S], path: Path) -> tuple[S, tuple[SettingsWarning, ...]]:
    """
    Read a settings file: see L{read_settings}.

    @raise SettingsError: the file is missing, unreadable, not UTF-8 or wrong.
    """
    base = path.absolute().parent
    return read_settings(cls, read_text(path), file=str(path), base=base)


def read_settings(
    cls: type[S], text: str, *, file: str, base: Path
) -> tuple[S, tuple[SettingsWarning, ...]]:
    """
    Read the text of a settings file.

    @param cls: the class that declares the keys.
    @param file: what messages call the text.
    @param base: the directory where relative paths start.
    @return: the settings, and what the operator should hear about the text.
    @raise SettingsError: a line is malformed, a value is not of its kind, a
        key is given twice, or a required one is not given.
    """
    reading = _Reading.of(cls, file, base)
    for line in settings_lines(text, file):
        reading.take(line)
    return reading.settings(), tuple(reading.warnings)


@attrs.define
class _Reading(Generic[S]):
    """
    A file while it is read.

    @ivar keys: what the file may call an attribute, and that attribute.
    @ivar sections: the lines of each section that has an attribute.
    @ivar section: the section of the last line, in lower case.
    @ivar given: the number of the line that gave each key of each section.
    """

    cls: type[S]
    file: str
    base: Path
    keys: Mapping[str, attrs.Attribute[Any]]
    sections: Mapping[str, dict[str, str]]
    section: str = ""
    values: dict[str, Any] = attrs.field(factory=dict)
    given: dict[tuple[str, str], int] = attrs.field(factory=dict)
    warnings: list[SettingsWarning] = attrs.field(factory=list)

    @classmethod
    def of(cls, settings: type[S], file: str, base: Path) -> _Reading[S]:
        """
        A file of which no line has been read.
        """
        fields = attrs.fields(settings)
        keys = {
            name: field
            for field in fields
            if _KIND in field.metadata
            for name in (field.name, *field.metadata[_ALIASES])
        }
        sections: dict[str, dict[str, str]] = {
            field.name: {} for field in fields if _SECTION in field.metadata
        }
        return cls(settings, file, base, keys, sections)

    def take(self, line: SectionLine | KeyLine) -> None:
        """
        Read one more line.
        """
        match line:
            case SectionLine(number, name):
                self.section = name.lower()
                if self.section not in self.sections:
                    self._disregard(number, "section", self.section, self.sections)
            case KeyLine() if not self.section:
                self._take_key(line)
            case KeyLine():
                self._take_entry(line)

    def _take_key(self, line: KeyLine) -> None:
        field = self.keys.get(line.key)
        if field is None:
            self._disregard(line.number, "key", line.key, self.keys)
            return
        self._once(line, field.name)
        try:
            outcome = field.metadata[_KIND].read(line.value)
        except InvalidValue as error:
            raise self._refusal(line, error) from None
        match outcome:
            case Partly(value, remarks):
                self.values[field.name] = value
                for remark in remarks:
                    self._warn(line.number, f"{line.key}: {remark}")
            case Path():
                self.values[field.name] = self.base / outcome
            case _:
                self.values[field.name] = outcome

    def _take_entry(self, line: KeyLine) -> None:
        if self.section in self.sections:
            self._once(line, line.key)
            self.sections[self.section][line.key] = line.value
        if line.key in self.keys:
            setting = f"the setting {line.key}, which belongs above every section"
            self._warn(line.number, f"this line in [{self.section}] is not {setting}")

    def _once(self, line: KeyLine, name: str) -> None:
        first = self.given.setdefault((self.section, name), line.number)
        if first != line.number:
            problem = f"expected once, but line {first} gives it too"
            raise SettingsError(self.file, line.number, line.key, problem)

    def _refusal(self, line: KeyLine, error: InvalidValue) -> SettingsError:
        given = abbreviated(error.given) if error.given else "nothing"
        problem = f"expected {error.expected}, not {given}"
        hint = ""
        if "#" in line.value:
            hint = "a comment needs a line of its own"
        elif not line.value and self.keys[line.key].default is not attrs.NOTHING:
            hint = "leave the whole line out to have the default"
        return SettingsError(self.file, line.number, line.key, problem, hint=hint)

    def _disregard(
        self, number: int, what: str, name: str, known: Iterable[str]
    ) -> None:
        """
        Warn of a key or section that no attribute stands for.

        A section is known by its first word, as in C{[profile web]}.
        """
        word = name.split()[0]
        if word in self.cls.ELSEWHERE:
            return
        if word in self.cls.NOT_USED:
            message = f"{what} {abbreviated(name)} is not used by this implementation"
        else:
            # What no good settings need nobody waits for.
            from difflib import get_close_matches

            message = f"unknown {what} {abbreviated(name)} is ignored"
            others = sorted(self.cls.NOT_USED | self.cls.ELSEWHERE)
            for near in get_close_matches(word.lower()[:64], [*known, *others], n=1):
                message += f"; did you mean {near!r}?"
        self._warn(number, message)

    def settings(self) -> S:
        """
        @return: the settings, once every line has been taken.
        """
        for name, field in self.keys.items():
            if field.default is attrs.NOTHING and field.name not in self.values:
                problem = f"missing: expected {field.metadata[_KIND].expected}"
                hint = f"add the line '{name} = …'"
                raise SettingsError(self.file, 0, name, problem, hint=hint)
        sections = {name: MappingProxyType(of) for name, of in self.sections.items()}
        make: Callable[..., S] = self.cls
        try:
            return make(directory=self.base, **self.values, **sections)
        except InvalidValue as error:
            raise SettingsError(self.file, 0, "", str(error)) from None

    def _warn(self, number: int, message: str) -> None:
        self.warnings.append(SettingsWarning(self.file, number, message))
