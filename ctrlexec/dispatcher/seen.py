# SPDX-License-Identifier: AGPL-3.0-only
"""
How much of what a run writes somebody has seen, noted in their home, so that
C{ctrl-exec attach} goes on where they left.

The note is a convenience: where it can not be written or read, a run is shown
from its beginning.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from ctrlexec.dispatcher.members import number_of, object_of
from ctrlexec.dispatcher.orders import Seen
from ctrlexec.errors import CtrlExecError
from ctrlexec.files import make_directory, read_bounded, remove, write_atomic
from ctrlexec.protocol.fields import from_json, to_json
from ctrlexec.protocol.run_messages import Output
from ctrlexec.values import request_id

#: How large a note may be: one of as many hosts as an order may name.
NOTE_BYTES = 16 * 2**20
#: How many notes are kept, and for how long: as long as agents keep a run.
MOST_NOTES = 100
KEPT_SECONDS = 86_400.0
#: How often a note is written at the most.
PAUSE_SECONDS = 1.0

_NOTE = ".json"


def notes_directory(environ: Mapping[str, str]) -> Path | None:
    """
    @param environ: the environment of the process.
    @return: where the notes are; C{None} for somebody without a home. Another
        one's home is none: they would decide what is removed there, and root may
        have been left with the home of whoever called it.
    """
    state, home = environ.get("XDG_STATE_HOME", ""), environ.get("HOME", "")
    if _is_ours(state):
        return Path(state) / "ctrl-exec" / "seen"
    if _is_ours(home):
        return Path(home) / ".local" / "state" / "ctrl-exec" / "seen"
    return None


def _is_ours(directory: str) -> bool:
    try:
        about = os.stat(directory)
    except OSError:
        return False
    return directory.startswith("/") and about.st_uid == os.geteuid()


def seen_before(directory: Path | None, reqid: str) -> dict[str, Seen]:
    """
    @return: how much of each host's output was seen; nothing of those that are
        not among them.
    """
    if directory is None:
        return {}
    try:
        data = read_bounded(directory / f"{request_id(reqid)}{_NOTE}", NOTE_BYTES)
        hosts = object_of(from_json(data).get("hosts"))
        return {host: _seen(object_of(said)) for host, said in hosts.items()}
    except (CtrlExecError, OSError):
        return {}


def _seen(said: Mapping[str, Any]) -> Seen:
    return Seen(max(number_of(said, "stdout"), 0), max(number_of(said, "stderr"), 0))


@attrs.define(eq=False)
class SeenNotes:
    """
    The note of one run, while it is followed.

    @ivar directory: where it is; C{None} for nowhere.
    @ivar now: unix seconds, which the age of notes is counted in.
    @ivar seconds: what the time between two writings is measured by.
    """

    directory: Path | None
    now: Callable[[], float]
    seconds: Callable[[], float]
    hosts: dict[str, Seen] = attrs.field(factory=dict)
    _reqid: str = attrs.field(default="", init=False)
    _next: float = attrs.field(default=0.0, init=False)
    _is_written: bool = attrs.field(default=True, init=False)

    def begin(self, reqid: str) -> None:
        """
        The run has an id.
        """
        self._reqid = reqid
        self._next = self.seconds() + PAUSE_SECONDS

    def note(self, host: str, event: object) -> None:
        """
        Something that was heard has been shown.
        """
        if not isinstance(event, Output):
            return
        had = self.hosts.get(host, Seen())
        # Not by name: who has sent this decides what the stream is called.
        self.hosts[host] = (
            attrs.evolve(had, stderr=event.end)
            if event.stream == "stderr"
            else attrs.evolve(had, stdout=event.end)
        )
        self._is_written = False
        if self.seconds() >= self._next:
            self.keep()

    def keep(self) -> None:
        """
        Write it down, if there is anything new.
        """
        path = self._path()
        if self._is_written or path is None:
            return
        self._is_written = True
        said = {host: attrs.asdict(seen) for host, seen in self.hosts.items()}
        with suppress(CtrlExecError, OSError):
            make_directory(path.parent, 0o700)
            self._sweep(path)
            write_atomic(path, to_json({"hosts": said}) + b"\n", 0o600)
        self._next = self.seconds() + PAUSE_SECONDS

    def drop(self) -> None:
        """
        The run has ended, and all of it was seen.
        """
        path = self._path()
        self._is_written = True
        if path is not None:
            with suppress(CtrlExecError, OSError):
                remove(path)

    def _path(self) -> Path | None:
        if self.directory is None or not self._reqid:
            return None
        try:
            return self.directory / f"{request_id(self._reqid)}{_NOTE}"
        except CtrlExecError:
            return None

    def _sweep(self, ours: Path) -> None:
        """
        Remove what nobody will ask for any more. Once is enough.
        """
        if ours.exists():
            return
        notes = []
        for path in ours.parent.glob(f"*{_NOTE}"):
            with suppress(OSError):
                notes.append((path.stat().st_mtime, path))
        notes.sort(reverse=True)
        for place, (changed, path) in enumerate(notes, 2):
            if place > MOST_NOTES or self.now() - changed >= KEPT_SECONDS:
                path.unlink(missing_ok=True)
