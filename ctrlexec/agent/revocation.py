# SPDX-License-Identifier: AGPL-3.0-only
"""
The lists of revoked certificates that dispatchers have sent, beside the one that
the operator of the host keeps (C{docs/revocation.md}).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs

from ctrlexec.agent.settings import AgentSettings
from ctrlexec.errors import InvalidValue, ProtocolError, StoreError
from ctrlexec.files import (
    directory_lock,
    make_directory,
    read_bounded,
    sweep,
    write_atomic,
)
from ctrlexec.protocol.fields import from_json, to_json
from ctrlexec.protocol.revocation import (
    MOST_SERIALS,
    NotAcknowledged,
    Revocations,
    canonical_serials,
)
from ctrlexec.values import dispatcher_id

if TYPE_CHECKING:
    pass

_FILE_BYTES = 16 * 2**20
_CA, _DISPATCHERS = "ca", "dispatchers"


@attrs.frozen
class Held:
    """
    What is revoked by one hand.

    @ivar number: of the last list.
    @ivar serials: of all lists so far: what is revoked stays so.
    """

    number: int = 0
    serials: frozenset[str] = frozenset()


@attrs.frozen
class Pushed:
    """
    What is revoked by lists that dispatchers have sent.

    @ivar by_ca: lists that the CA has signed, by the id of who keeps them.
    @ivar by_dispatcher: lists that a dispatcher has signed, by its id.
    """

    by_ca: Mapping[str, Held] = MappingProxyType({})
    by_dispatcher: Mapping[str, Held] = MappingProxyType({})

    def revokes(self, serial: str, dispatcher: str | None) -> bool:
        """
        Whether a certificate is revoked. A dispatcher revokes no other one: else
        whoever has stolen its key could cut off all that could stop him.

        @param dispatcher: whose orders the certificate stands for, if anybody's.
        """
        lists = [*self.by_ca.values()]
        if dispatcher is None:
            lists += self.by_dispatcher.values()
        elif dispatcher in self.by_dispatcher:
            lists.append(self.by_dispatcher[dispatcher])
        return any(serial in each.serials for each in lists)

    def held(self, signer: str | None, issuer: str) -> Held:
        """
        @param signer: the id of the dispatcher that has signed; C{None} for the
            CA.
        """
        if signer is None:
            return self.by_ca.get(issuer, Held())
        return self.by_dispatcher.get(signer, Held())

    def with_list(
        self, signer: str | None, found: Revocations
    ) -> Pushed | NotAcknowledged:
        """
        What is revoked once a list counts, too.
        """
        before = self.held(signer, found.issuer)
        if found.number <= before.number:
            return NotAcknowledged(f"number {before.number} is here", before.number)
        serials = before.serials | found.serials
        if len(serials) > MOST_SERIALS:
            return NotAcknowledged(f"more than {MOST_SERIALS} serials", before.number)
        after = Held(found.number, serials)
        if signer is None:
            return attrs.evolve(self, by_ca={**self.by_ca, found.issuer: after})
        return attrs.evolve(self, by_dispatcher={**self.by_dispatcher, signer: after})

    def joined(self, other: Pushed) -> Pushed:
        """
        The newer of each list; it has all that the older one has.
        """
        return Pushed(
            _newer(self.by_ca, other.by_ca),
            _newer(self.by_dispatcher, other.by_dispatcher),
        )


def load_pushed(path: Path) -> Pushed:
    """
    What is stored; nothing where there is no file.

    @raise StoreError: it can not be read. To go on without it would let in whom
        it was meant for.
    """
    try:
        fields = from_json(read_bounded(path, _FILE_BYTES))
        return Pushed(_lists(fields[_CA]), _lists(fields[_DISPATCHERS]))
    except FileNotFoundError:
        return Pushed()
    except (
        ProtocolError,
        InvalidValue,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ):
        raise StoreError(path, "is cut off, or was not written by us") from None


def store_list(
    settings: AgentSettings, signer: str | None, found: Revocations
) -> Pushed | NotAcknowledged:
    """
    Store a list that somebody may send. It may wait for a lock and for the disk.

    @param signer: see L{Pushed.held}.
    @return: what is revoked now, or why nothing has changed.
    @raise StoreError: nothing has changed, either.
    """
    path = settings.pushed_revocations
    make_directory(path.parent, 0o750)
    with directory_lock(path.parent):
        pushed = load_pushed(path).with_list(signer, found)
        if isinstance(pushed, Pushed):
            lists = {_CA: pushed.by_ca, _DISPATCHERS: pushed.by_dispatcher}
            data = to_json({hand: _plain(each) for hand, each in lists.items()})
            if len(data) > _FILE_BYTES:
                # Nobody could read it any more.
                raise StoreError(path, f"would be larger than {_FILE_BYTES} bytes")
            sweep(path)
            write_atomic(path, data + b"\n", 0o640)
        return pushed


def _newer(these: Mapping[str, Held], those: Mapping[str, Held]) -> Mapping[str, Held]:
    older = {issuer: Held() for issuer in {**these, **those}}
    return {
        issuer: max(
            these.get(issuer, none), those.get(issuer, none), key=lambda x: x.number
        )
        for issuer, none in older.items()
    }


def _lists(fields: Any) -> Mapping[str, Held]:
    return {dispatcher_id(issuer): _held(each) for issuer, each in fields.items()}


def _held(fields: Any) -> Held:
    number = fields["number"]
    if type(number) is not int:
        raise TypeError(number)
    return Held(number, canonical_serials(fields["serials"]))


def _plain(lists: Mapping[str, Held]) -> dict[str, Any]:
    return {
        issuer: {"number": each.number, "serials": sorted(each.serials)}
        for issuer, each in lists.items()
    }
