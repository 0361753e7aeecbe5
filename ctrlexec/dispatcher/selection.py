# SPDX-License-Identifier: AGPL-3.0-only
"""
Which hosts somebody means by some words.

A word is a name or an address; a range such as C{web[01-40,50]}, which stands
for the names that it spells; a pattern with C{*} and C{?} of registered names;
or C{@TAG=VALUE} for the registered agents with this tag, C{@TAG} for any value
of it. C{:PORT} may follow each of them.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Container, Sequence
from functools import cached_property

import attrs

from ctrlexec.dispatcher.orders import Selection
from ctrlexec.errors import InvalidValue, NotFound, StoreError, abbreviated
from ctrlexec.interfaces import IRegistry
from ctrlexec.values import HostPort, agent_name, port_number

#: How many names the ranges of one selection may spell.
MOST_HOSTS = 100_000
#: How many patterns and tags one selection may have: each is held against all
#: registered names.
MOST_PATTERNS = 100

_WORD = (
    "HOST, a pattern with * and ?, a range such as web[01-40,50], or @TAG=VALUE, "
    "each with or without :PORT"
)
_RANGE = "ranges such as web[01-40,50], from the lower number to the higher one"
_HOW_TO_FIND = (
    "ctrl-exec list-agents shows the agents that are paired; tags are as ctrl-exec "
    "discovery last found them"
)
_PATTERN_CHARACTERS = re.compile(r"[*?\[]|^@")
_BRACKETED_ADDRESS = re.compile(r"\[[^\]]*:[^\]]*\](:[0-9]+)?")
_GLOB = re.compile(r"[A-Za-z0-9._*?-]{1,300}")
_STRETCH = r"[0-9]{1,9}(?:-[0-9]{1,9}(?:/[0-9]{1,9})?)?"
_RANGES = rf"\[{_STRETCH}(?:,{_STRETCH})*\]"
_RANGED = re.compile(rf"[A-Za-z0-9._-]*(?:{_RANGES}[A-Za-z0-9._-]*)+")
_PORT = re.compile(r"(.+):([0-9]+)", re.DOTALL)


@attrs.frozen
class Selected:
    """
    The hosts that are meant, each once.

    @ivar hosts: in the order in which they were first mentioned.
    @ivar repeated: those that were mentioned by their name more than once.
    @ivar unreadable: why it is not known of others whether a tag means them.
    """

    hosts: tuple[HostPort, ...]
    repeated: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """
        What whoever has named them should know.
        """
        return (
            *(
                f"{host} was named more than once; it is asked once"
                for host in self.repeated
            ),
            *self.unreadable,
        )


def select(selection: Selection, registry: IRegistry) -> Selected:
    """
    The hosts that some words name.

    A host that is named as such need not be registered.

    @raise InvalidValue: one of the words is none.
    @raise NotFound: a pattern matches no agent, or all hosts are excluded.
    """
    if not selection.words:
        raise InvalidValue("selection", "", _WORD)
    words = _Words(registry)
    found: dict[str, int | None] = {}
    typed: set[str] = set()
    repeated: dict[str, None] = {}
    for word in selection.words:
        meant = words.meant(word)
        for name in meant.names:
            if meant.is_name and name in typed:
                repeated[name] = None
            found[name] = found.get(name) or meant.port
        if meant.is_name:
            typed.update(meant.names)
    hosts = _without(words, selection, found)
    again = tuple(name for name in repeated if name in found)
    return Selected(hosts, again, words.unreadable(found))


def everything(selection: Selection, registry: IRegistry) -> Selected:
    """
    All registered agents but those that are excluded.

    @raise InvalidValue: a word is none.
    @raise NotFound: a pattern matches no agent, or all hosts are excluded.
    """
    words = _Words(registry)
    hosts = _without(words, selection, dict.fromkeys(words.names))
    return Selected(hosts, unreadable=words.unreadable([each.host for each in hosts]))


def _without(
    words: _Words, selection: Selection, found: dict[str, int | None]
) -> tuple[HostPort, ...]:
    named = len(found)
    for word in selection.exclude:
        for name in words.meant(word).names:
            found.pop(name, None)
    if named and not found:
        raise NotFound("all hosts are excluded", hint="--exclude takes away too much")
    return tuple(HostPort(name, port or selection.port) for name, port in found.items())


@attrs.frozen
class _Meant:
    """
    @ivar names: without any twice.
    @ivar is_name: whether the word is simply a name.
    """

    names: Sequence[str]
    port: int | None
    is_name: bool = False


@attrs.define(slots=False)
class _Words:
    """
    Reads words; the registry is read once, and no more of it than is needed.
    """

    registry: IRegistry
    spelled: int = 0
    patterns: int = 0
    untagged: Sequence[StoreError] = ()

    @cached_property
    def names(self) -> Sequence[str]:
        return sorted(self.registry.names(), key=natural)

    @cached_property
    def tags(self) -> Sequence[tuple[str, dict[str, str]]]:
        records, self.untagged = self.registry.records()
        return sorted(
            ((record.hostname, dict(record.tags)) for record in records),
            key=lambda tagged: natural(tagged[0]),
        )

    def unreadable(self, named: Container[str]) -> tuple[str, ...]:
        """
        @param named: the hosts that are asked all the same; each has a row that
            says what is wrong.
        @return: why it is not known of others whether a tag means them.
        """
        return tuple(
            f"{error}; its tags are not known"
            for error in self.untagged
            if error.path.stem not in named
        )

    def meant(self, word: str) -> _Meant:
        if _is_name(word):
            asked = HostPort.parse(word)
            return _Meant([asked.host], asked.port, is_name=True)
        pattern, port = _port(word)
        if "[" in pattern and not pattern.startswith("@"):
            return _Meant(self._ranged(pattern), port)
        self.patterns += 1
        if self.patterns > MOST_PATTERNS:
            given = str(self.patterns)
            raise InvalidValue("number of patterns", given, f"{MOST_PATTERNS} at most")
        if pattern.startswith("@"):
            return _Meant(self._tagged(pattern), port)
        return _Meant(self._matching(pattern), port)

    def _matching(self, pattern: str) -> Sequence[str]:
        if not _GLOB.fullmatch(pattern):
            raise InvalidValue("host", pattern, _WORD)
        matches = re.compile(fnmatch.translate(pattern)).match
        names = [name for name in self.names if matches(name)]
        return _some(pattern, names, _HOW_TO_FIND)

    def _tagged(self, word: str) -> Sequence[str]:
        tag, equals, value = word[1:].partition("=")
        if not tag:
            raise InvalidValue("host", word, _WORD)
        return _some(
            word,
            [
                name
                for name, tags in self.tags
                if tag in tags and (not equals or tags[tag] == value)
            ],
            # Read by now, as the tags are.
            next(iter(self.unreadable(())), _HOW_TO_FIND),
        )

    def _ranged(self, word: str) -> Sequence[str]:
        if not _RANGED.fullmatch(word):
            raise InvalidValue("range", word, _RANGE)
        self.spelled += _count(word)
        if self.spelled > MOST_HOSTS:
            raise InvalidValue("range", word, f"{MOST_HOSTS} hosts at most")
        from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet, NodeSetException

        try:
            names = list(NodeSet(word, resolver=RESOLVER_NOGROUP))
        except NodeSetException:
            raise InvalidValue("range", word, _RANGE) from None
        return [agent_name(name) for name in names]


def _is_name(word: str) -> bool:
    return not _PATTERN_CHARACTERS.search(word) or bool(
        _BRACKETED_ADDRESS.fullmatch(word)
    )


def _port(word: str) -> tuple[str, int | None]:
    found = _PORT.fullmatch(word)
    return (found[1], port_number(found[2])) if found else (word, None)


def _count(word: str) -> int:
    """
    How many names a range spells, found without spelling them.
    """
    count = 1
    for ranges in re.findall(_RANGES, word):
        here = 0
        for stretch in ranges[1:-1].split(","):
            first, _, rest = stretch.partition("-")
            last, _, step = rest.partition("/")
            if last:
                here += max(int(last) - int(first), 0) // max(int(step or 1), 1) + 1
            else:
                here += 1
        count *= here
    return count


def _some(word: str, names: Sequence[str], hint: str) -> Sequence[str]:
    if not names:
        raise NotFound(f"no agent matches {abbreviated(word)}", hint=hint)
    return names


def natural(name: str) -> tuple[tuple[str, int, str], ...]:
    """
    A key that sorts C{web-2} before C{web-10}.
    """
    return tuple(
        (text, int(digits or 0), digits)
        for text, digits in re.findall(r"([^0-9]*)([0-9]*)", name)
    )
