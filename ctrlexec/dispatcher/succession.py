# SPDX-License-Identifier: AGPL-3.0-only
"""
The dispatcher's next identity and its former one, beside the one that it uses.

The next one is made first, and lies in files of its own until every file that
it replaces is written: whoever finds it after a crash can go on. The former one
is kept for as long as there are agents that know no other.
"""

from __future__ import annotations

import stat
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import attrs

from ctrlexec.dispatcher.authority import Authority
from ctrlexec.dispatcher.settings import DispatcherSettings, next_of
from ctrlexec.errors import PkiError
from ctrlexec.files import read_bounded, remove, sweep, write_atomic
from ctrlexec.pki import CertificateInfo, check_identity

_PEM_BYTES = 65_536
_SECRET, _PUBLIC, _OTHERS = 0o600, 0o644, 0o007


@attrs.frozen
class Place:
    """
    Where an identity is.
    """

    key: Path
    cert: Path


@attrs.frozen
class Succession:
    """
    What becomes of a dispatcher's identities.
    """

    settings: DispatcherSettings

    @property
    def present(self) -> Place:
        """
        The one in use.
        """
        return Place(self.settings.key, self.settings.cert)

    @property
    def next(self) -> Place:
        """
        The one that will be.
        """
        return Place(next_of(self.settings.key), next_of(self.settings.cert))

    @property
    def former(self) -> Place:
        """
        The one that was.
        """
        former = self.settings.as_former()
        return Place(former.key, former.cert)

    def info(self, place: Place) -> CertificateInfo | None:
        """
        @return: what is in a place, if that is an identity of this CA, whole.
        """
        try:
            return check_identity(
                cert=_read(place.cert), ca=_read(self.settings.ca), key=_read(place.key)
            )
        except (FileNotFoundError, PkiError):
            return None

    def prepare(self, now: datetime) -> CertificateInfo:
        """
        Make the next identity. One that was left there by a crash, and that
        nobody has been told of, is written over.

        @raise CtrlExecError: it could not be made.
        """
        key, cert = Authority(self.settings).make_identity(now)
        for path in (self.next.key, self.next.cert):
            sweep(path)
        write_atomic(self.next.key, key, _SECRET)
        write_atomic(self.next.cert, cert, _PUBLIC)
        info = self.info(self.next)
        assert info is not None, "it has just been written"
        return info

    def switch(self) -> None:
        """
        Use the next identity from now on, and keep the present one as the former
        one. It can be done again after a crash at any point of it, and then
        changes nothing that is done.

        @raise PkiError: there is no next identity.
        @raise StoreError: a file can not be written.
        """
        new, present = self.info(self.next), self.info(self.present)
        if new is None:
            raise PkiError(f"{self.next.cert}: the next identity can not be used")
        if present == new:
            return
        if present is not None:
            _copy(self.present, self.former)
        # Where key and certificate are not one, a crash has left them so, and
        # the former ones are kept already.
        _copy(self.next, self.present)

    def forget(self, place: Place) -> None:
        """
        Remove an identity that is of no use any more; its key first.

        @raise StoreError: it could not be removed.
        """
        remove(place.key)
        remove(place.cert)


def _copy(source: Place, target: Place) -> None:
    for origin, path, usual in (
        (source.key, target.key, _SECRET),
        (source.cert, target.cert, _PUBLIC),
    ):
        sweep(path)
        mode = usual
        # Whoever could read the old one still can: the API has a user of its own.
        with suppress(FileNotFoundError):
            mode = stat.S_IMODE(path.stat().st_mode)
        if usual == _SECRET:
            mode &= ~_OTHERS
        write_atomic(path, _read(origin), mode, keep_owner=True)


def _read(path: Path) -> bytes:
    return read_bounded(path, _PEM_BYTES)
