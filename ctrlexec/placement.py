# SPDX-License-Identifier: AGPL-3.0-only
"""
Where a script really is, and whether anybody at all could put another in its
place.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import attrs

#: As many links as Linux follows in one path.
_MOST_LINKS = 40


@attrs.frozen
class Place:
    """
    Where a path leads at this moment.

    @ivar real: what is there, without links and C{..}.
    @ivar start: under what path it is to be started; see L{place_of}.
    @ivar exposed: what on the way anybody may change, in words; empty where
        nothing is.
    """

    real: Path
    start: Path
    exposed: str = ""


def place_of(path: Path) -> Place:
    """
    A script is started under its real path, so that C{$0} says where it is and
    no link can be turned in between. A program is not a script: it may go by
    the name that it is called by. C{/bin/uptime} may well be a link to
    C{busybox}, which under its own name would do whatever its first argument
    says. It is started under the link's own name, in the link's real directory.

    @param path: absolute; nothing need be there.
    """
    real = Path(os.path.realpath(path))
    start = real
    if path.is_symlink() and not _is_script(real):
        start = Path(os.path.realpath(path.parent)) / path.name
    return Place(real, start, why_exposed(path) or "")


def why_exposed(path: Path) -> str | None:
    """
    Whether anybody on this host may change what a path leads to: the file
    itself, or a directory on the way to it, that of each link included. The
    sticky bit makes a directory good: nobody can replace there what is
    another's.

    @return: a few words for the operator, or C{None}. What is not there is not
        exposed.
    """
    try:
        for place, mode in _way(path):
            if not mode & stat.S_IWOTH:
                continue
            if not stat.S_ISDIR(mode):
                return f"{place} is world-writable"
            if not mode & stat.S_ISVTX:
                return f"the directory {place} is world-writable"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return f"{path} can not be looked at: {error.strerror}"
    return None


def _way(path: Path) -> Iterator[tuple[str, int]]:
    """
    @return: all that the system goes through from the root to what a path leads
        to, each with its mode; the links themselves have none that counts.
    """
    # Each run takes this way, and Path is several times slower.
    here, links = "/", 0
    ahead = [*reversed(path.parts[1:])]
    yield here, os.lstat(here).st_mode
    while ahead:
        name = ahead.pop()
        if name == "..":
            here = os.path.dirname(here)
            continue
        place = os.path.join(here, name)
        mode = os.lstat(place).st_mode
        if not stat.S_ISLNK(mode):
            here = place
            yield here, mode
            continue
        links += 1
        if links > _MOST_LINKS:
            return
        target = Path(os.readlink(place))
        if target.is_absolute():
            here = "/"
        ahead += reversed([part for part in target.parts if part != "/"])


def _is_script(path: Path) -> bool:
    """
    Whether the system would hand a file to an interpreter, by its path.
    """
    try:
        # A pipe of this name must not make us wait.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.read(descriptor, 2) == b"#!"
        finally:
            os.close(descriptor)
    except OSError:
        return False
