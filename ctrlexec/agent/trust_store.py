# SPDX-License-Identifier: AGPL-3.0-only
"""
The trusted map on disk: whoever changes it holds its lock, reads what is there
and writes the whole of it anew.

The agent writes it, pairing does, and so does C{update-ctrl-exec-serial}: three
processes, and two users where root pairs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from ctrlexec.agent.settings import AgentSettings
from ctrlexec.agent.trust import (
    NAMELESS,
    Change,
    NotChanged,
    TrustedMap,
    load_trusted,
)
from ctrlexec.files import directory_lock, make_directory, sweep, write_atomic

#: Which of the files that the map has had this one is.
Mark = tuple[int, int, int] | None


@attrs.frozen
class SerialChange:
    """
    A dispatcher changes which of its serials the agent trusts.

    @ivar serial: canonical.
    @ivar dispatcher: who asks; from its certificate, never from its words.
    """

    change: Change
    serial: str
    dispatcher: str


def stored_trust(settings: AgentSettings) -> TrustedMap:
    """
    Whom the files say to trust.

    @raise StoreError: they can not be read.
    """
    return load_trusted(
        settings.trusted_dispatchers_path, settings.dispatcher_serial_path
    )


def change_trust(
    settings: AgentSettings, asked: SerialChange
) -> TrustedMap | NotChanged:
    """
    Change the map on disk. It may wait for a lock and for the disk.

    @raise StoreError: it was not changed.
    """
    with trust_locked(settings):
        changed = stored_trust(settings).changed(
            asked.change, asked.serial, asked.dispatcher
        )
        if isinstance(changed, TrustedMap):
            _write(settings, changed)
        return changed


def migrate_trust(settings: AgentSettings) -> str | None:
    """
    Make a map of the older line's single serial, where there is no map
    (NEWER-LINE.md section 4.2).

    @return: the serial, if there was one to take over.
    @raise StoreError: the map can not be written; the older file still counts.
    """
    path, older = settings.trusted_dispatchers_path, settings.dispatcher_serial_path
    if os.path.lexists(path) or not os.path.lexists(older):
        return None
    with trust_locked(settings):
        # Another process may have been faster.
        if os.path.lexists(path):
            return None
        found = stored_trust(settings)
        for serial, dispatcher in found.entries.items():
            assert dispatcher == NAMELESS
            _write(settings, found)
            return serial
    return None


@contextmanager
def trust_locked(settings: AgentSettings) -> Iterator[None]:
    """
    Hold the lock under which the map is written.

    @raise StoreError: there is no directory for it.
    """
    directory = settings.trusted_dispatchers_path.parent
    make_directory(directory, 0o750)
    with directory_lock(directory):
        yield


def trust_mark(settings: AgentSettings) -> Mark:
    """
    Two marks that differ have the map written in between.
    """
    try:
        found = os.stat(settings.trusted_dispatchers_path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _write(settings: AgentSettings, trusted: TrustedMap) -> None:
    path: Path = settings.trusted_dispatchers_path
    sweep(path)
    write_atomic(path, trusted.render().encode(), 0o644)
