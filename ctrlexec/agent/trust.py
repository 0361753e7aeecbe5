# SPDX-License-Identifier: AGPL-3.0-only
"""
Whose orders an agent takes: the trusted map, and the revocation list.

NEWER-LINE.md section 4, PROTOCOL.md sections 1 and 5; DESIGN.md, Trust.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import attrs

from ctrlexec.certificates import AgentRole, CertificateInfo, DispatcherRole
from ctrlexec.errors import InvalidValue, SettingsError
from ctrlexec.files import read_bounded
from ctrlexec.lines import significant_lines
from ctrlexec.values import dispatcher_id, revoked_serials, serial_from_hex

_FILE_BYTES = 1_048_576
_HEADER = (
    "# The dispatchers that this agent trusts: certificate serial and id.\n"
    "# Written by ctrl-exec-agent; pairing adds a line.\n"
)
#: How many serials a dispatcher may give itself: a map that is too long to be
#: read would end the trust in all others, and the agent with its next start.
MOST_SERIALS = 100
#: The id of a dispatcher of the older line, which has none.
NAMELESS = "dispatcher"


@attrs.frozen
class Trusted:
    """
    The caller may give orders.

    @ivar dispatcher: its id.
    """

    dispatcher: str


@attrs.frozen
class NotTrusted:
    """
    The caller may not.

    @ivar reason: for the log.
    """

    reason: str


class Change(enum.Enum):
    """
    What a dispatcher may do to its own serials.
    """

    ADD = "add"
    REMOVE = "remove"


@attrs.frozen
class NotChanged:
    """
    The map stays as it is.

    @ivar reason: for the log, and for the dispatcher.
    """

    reason: str


@attrs.frozen
class TrustedMap:
    """
    The dispatchers that an agent trusts.

    @ivar entries: canonical serial to dispatcher id.
    """

    entries: Mapping[str, str] = MappingProxyType({})

    @classmethod
    def parse(cls, text: str) -> TrustedMap:
        """
        C{<hex serial> <dispatcher id>} lines; a line that is none trusts
        nobody.
        """
        entries: dict[str, str] = {}
        for _, line in significant_lines(text):
            words = line.partition("#")[0].split()
            if len(words) == 2:
                try:
                    entries[serial_from_hex(words[0])] = dispatcher_id(words[1])
                except InvalidValue:
                    continue
        return cls(MappingProxyType(entries))

    def render(self) -> str:
        """
        The text of the map's file.
        """
        lines = (f"{serial} {name}\n" for serial, name in sorted(self.entries.items()))
        return _HEADER + "".join(lines)

    def trusting(self, serial: str, dispatcher: str) -> TrustedMap:
        """
        The map with one dispatcher more; nobody is dropped.
        """
        return TrustedMap(MappingProxyType({**self.entries, serial: dispatcher}))

    def changed(
        self, change: Change, serial: str, dispatcher: str
    ) -> TrustedMap | NotChanged:
        """
        The map after a dispatcher has changed one of its own serials
        (NEWER-LINE.md section 3.7).

        Nobody takes over the serial of another: the original lets C{add} give
        it to the caller, who could C{remove} it then.

        @param serial: canonical.
        @param dispatcher: who asks.
        """
        if dispatcher not in self.entries.values():
            return NotChanged(f"'{dispatcher}' is not trusted")
        if self.entries.get(serial, dispatcher) != dispatcher:
            return NotChanged(f"serial not owned by '{dispatcher}'")
        match change:
            case Change.ADD if self._is_full(serial, dispatcher):
                return NotChanged(f"'{dispatcher}' has {MOST_SERIALS} serials already")
            case Change.ADD:
                return self.trusting(serial, dispatcher)
            case Change.REMOVE:
                rest = {s: name for s, name in self.entries.items() if s != serial}
                return TrustedMap(MappingProxyType(rest))

    def _is_full(self, serial: str, dispatcher: str) -> bool:
        own = sum(name == dispatcher for name in self.entries.values())
        return serial not in self.entries and own >= MOST_SERIALS

    def decide(self, certificate: CertificateInfo | None) -> Trusted | NotTrusted:
        """
        Whether the holder of a certificate of the CA may give orders: as the
        dispatcher that its role names, or by its serial. An agent never may.
        """
        if not self.entries:
            return NotTrusted("no trusted dispatchers stored")
        if certificate is None:
            return NotTrusted("no certificate")
        if isinstance(certificate.role, AgentRole):
            return NotTrusted("an agent's certificate")
        match certificate.role:
            # The CA says whose it is. The map is asked after that: any dispatcher
            # may add a serial that is not there yet, that of another one's next
            # certificate included, and would own it then.
            case DispatcherRole(name) if name in self.entries.values():
                return Trusted(name)
        by_serial = self.entries.get(certificate.serial)
        if by_serial is not None:
            return Trusted(by_serial)
        return NotTrusted("serial mismatch")


def load_trusted(path: Path, older: Path) -> TrustedMap:
    """
    @param path: the map.
    @param older: the older line's file, one hex serial; read where there is no
        map.
    @return: an empty map, which trusts nobody, where there is neither.
    @raise StoreError: a file is there and can not be read.
    """
    text = _text(path)
    if text is not None:
        return TrustedMap.parse(text)
    match (_text(older) or "").split():
        case [serial]:
            return TrustedMap.parse(f"{serial} {NAMELESS}")
    return TrustedMap()


def load_revoked(path: Path) -> frozenset[str]:
    """
    The serials that are revoked; none where there is no file.

    @raise SettingsError: a line is no serial. To skip it would let in whom it
        was meant for.
    @raise StoreError: the file is there and can not be read.
    """
    revoked: set[str] = set()
    for number, line in significant_lines(_text(path) or ""):
        try:
            revoked |= revoked_serials(line)
        except InvalidValue as error:
            raise SettingsError(str(path), number, "", str(error)) from None
    return frozenset(revoked)


def _text(path: Path) -> str | None:
    try:
        return read_bounded(path, _FILE_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return None
