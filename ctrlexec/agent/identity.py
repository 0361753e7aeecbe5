# SPDX-License-Identifier: AGPL-3.0-only
"""
An agent's identity on disk: key, certificate, CA, and whom it trusts.

Four files that are of use only together. They are written to one file first,
whole, and put in their places from there; whoever finds that file after a
crash puts them in their places again. So there is the old identity or the new
one, never the key of one with the certificate of the other.
"""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path

import attrs

from ctrlexec.agent.settings import AgentSettings
from ctrlexec.agent.trust import load_trusted
from ctrlexec.certificates import AgentRole, CertificateInfo, check_issued
from ctrlexec.errors import InvalidValue, PkiError, StoreError
from ctrlexec.files import (
    exclusive_lock,
    make_directory,
    read_bounded,
    remove,
    write_atomic,
)
from ctrlexec.protocol.messages import PairApproved
from ctrlexec.tls import Identity
from ctrlexec.values import dispatcher_id, serial_from_hex

_UNFINISHED = ".pairing-unfinished"
_LOCK = ".pairing.lock"
_BYTES = 1_048_576


@attrs.frozen
class NewIdentity:
    """
    What a pairing has brought.

    @ivar key: PEM; likewise C{cert} and C{ca}.
    @ivar serial: the dispatcher's certificate, canonical.
    @ivar dispatcher: its id.
    """

    key: str = attrs.field(repr=False)
    cert: str
    ca: str
    serial: str
    dispatcher: str

    @classmethod
    def approved(
        cls, approval: PairApproved, *, name: str, key: bytes, now: datetime
    ) -> tuple[NewIdentity, CertificateInfo]:
        """
        @param name: what the agent asked to be called.
        @raise PkiError: what the dispatcher sent does not belong together, or
            not to us.
        """
        info = check_issued(
            cert=approval.cert.encode(), ca=approval.ca.encode(), key=key, now=now
        )
        # A dispatcher of the original gives its certificates no role.
        if info.role not in (None, AgentRole(name)):
            raise PkiError(f"the certificate is not for {name!r} but for {info.role}")
        try:
            serial = serial_from_hex(approval.dispatcher_serial)
            # NEWER-LINE.md section 4.2: the serial stands in for a missing id.
            dispatcher = dispatcher_id(approval.dispatcher_id or serial)
        except InvalidValue as error:
            raise PkiError(f"the dispatcher does not say who it is: {error}") from None
        new = cls(key.decode(), approval.cert, approval.ca, serial, dispatcher)
        return new, info


def identity(settings: AgentSettings) -> Identity:
    """
    Where the settings keep the identity.
    """
    return Identity(key=settings.key, cert=settings.cert, ca=settings.ca)


def is_paired(settings: AgentSettings) -> bool:
    """
    Whether there is an identity, good or bad.
    """
    return all(path.exists() for path in (settings.key, settings.cert, settings.ca))


def prepare(settings: AgentSettings) -> None:
    """
    Make sure that an identity could be stored, before one is asked for.

    @raise StoreError: it could not.
    """
    make_directory(settings.state_dir, 0o750)
    for path in (settings.key, settings.cert, settings.ca):
        make_directory(path.parent, 0o750)
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise StoreError(
                path.parent,
                "is not writable",
                hint="run this as root, or let cert, key and ca name files elsewhere",
            )


def store(settings: AgentSettings, new: NewIdentity) -> None:
    """
    Put a new identity in place of the old one.

    @raise StoreError: it was not stored; L{recover} finishes what was begun.
    """
    with exclusive_lock(settings.cert.parent / _LOCK):
        text = json.dumps(attrs.asdict(new)).encode()
        write_atomic(settings.cert.parent / _UNFINISHED, text, 0o600)
        _install(settings, new)


def recover(settings: AgentSettings) -> bool:
    """
    Finish what a crash has interrupted.

    @return: whether there was anything to finish.
    @raise StoreError: it could not be finished.
    """
    unfinished = settings.cert.parent / _UNFINISHED
    if not unfinished.exists():
        return False
    with exclusive_lock(settings.cert.parent / _LOCK):
        try:
            new = NewIdentity(**json.loads(read_bounded(unfinished, _BYTES)))
        except FileNotFoundError:
            return False
        except (ValueError, TypeError) as error:
            raise StoreError(
                unfinished, "is not ours", hint="remove it and pair again"
            ) from error
        _install(settings, new)
    return True


def _install(settings: AgentSettings, new: NewIdentity) -> None:
    make_directory(settings.state_dir, 0o750)
    write_atomic(settings.key, new.key.encode(), 0o640, group_of_directory=True)
    write_atomic(settings.cert, new.cert.encode(), 0o640, group_of_directory=True)
    write_atomic(settings.ca, new.ca.encode(), 0o644)
    path = settings.trusted_dispatchers_path
    trusted = load_trusted(path, settings.dispatcher_serial_path)
    text = trusted.trusting(new.serial, new.dispatcher).render()
    write_atomic(path, text.encode(), 0o644)
    remove(Path(settings.cert.parent / _UNFINISHED))
