# SPDX-License-Identifier: AGPL-3.0-only
"""
A renewed identity that waits to be put in its place: C{cert-staged} and
C{promote-cert} (NEWER-LINE.md section 8).

For agents that can not write their own identity: root promotes what the
agent's user has staged. What that user writes is not trusted; it is looked at
again, whole.

A certificate for a new key brings that key, in a file beside it; without such a
file it is for the key that the agent has.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import attrs

from ctrlexec.agent import identity
from ctrlexec.agent.settings import AgentSettings
from ctrlexec.certificates import (
    check_identity,
    check_issued,
    key_digest,
    parse_private_key,
    read_certificate,
)
from ctrlexec.errors import CtrlExecError, PkiError, StoreError
from ctrlexec.events import CertificateNotPromoted, CertificatePromoted
from ctrlexec.files import make_directory, read_bounded, remove, sweep, write_atomic
from ctrlexec.interfaces import IEventSink
from ctrlexec.tls import Credentials
from ctrlexec.values import iso_time

_BYTES = 1_048_576


def is_staged(settings: AgentSettings) -> bool:
    """
    Whether a certificate waits.
    """
    return os.path.isfile(settings.cert_staging_path)


def staged_key(settings: AgentSettings) -> Path:
    """
    Where the key of the certificate that waits is, if it has one of its own.
    """
    path = settings.cert_staging_path
    return path.with_name(f"{path.name}.key")


def keep(settings: AgentSettings, held: Credentials, new: Credentials) -> bool:
    """
    Put a renewed identity in its place, or where it waits for that.

    @param held: what the agent holds.
    @return: whether it waits.
    @raise PkiError: the agent was paired anew.
    @raise StoreError: it could be put nowhere.
    """
    if not identity.can_replace(settings):
        _stage(settings, held, new)
        return True
    identity.replace(settings, held, new)
    _forget(settings)
    return False


def held(settings: AgentSettings, now: datetime) -> Credentials:
    """
    What an agent shows from its start on: what waits, where that is good, since
    it has shown that before; else what is in its place.

    @raise PkiError: that can not be used.
    """
    placed = identity.identity(settings).load()
    if is_staged(settings):
        try:
            name = identity.own_name(settings, placed.info)
            known = _Placed(placed.key, placed.ca, name)
            waiting, begin = _checked(settings, known, now)
        except CtrlExecError:
            return placed
        if begin <= now and waiting.info.not_after > placed.info.not_after:
            return waiting
    return placed


def promote(
    settings: AgentSettings, events: IEventSink, now: Callable[[], datetime]
) -> bool:
    """
    Put what waits in the place of the old. What is not for this agent, its key
    and its CA is removed; what is not valid yet waits on, since it may be our
    clock that is wrong.

    @return: whether the agent has a new certificate.
    @raise CtrlExecError: nothing could be decided or done; all stays.
    """
    identity.recover(settings)
    if not os.path.lexists(settings.cert_staging_path):
        return False
    if not identity.is_paired(settings):
        raise PkiError("this agent is not paired: there is nothing to renew")
    with identity.locked(settings):
        # What can not be read is not the fault of what waits.
        key, cert, ca = (read_bounded(path, _BYTES) for path in _paths(settings))
        placed = _Placed(key, ca, _own_name(settings, cert))
        moment = now()
        try:
            staged, begin = _checked(settings, placed, moment)
        except CtrlExecError as error:
            events.emit(CertificateNotPromoted(str(error)))
            _forget(settings)
            return False
        if moment < begin:
            events.emit(CertificateNotPromoted(_early(settings, begin)))
            return False
        if staged.key == key:
            write_atomic(settings.cert, staged.cert, 0o640, keep_owner=True)
        else:
            identity.install(settings, staged)
        _forget(settings)
    events.emit(CertificatePromoted("installed"))
    return True


def _stage(settings: AgentSettings, held: Credentials, new: Credentials) -> None:
    path, beside = settings.cert_staging_path, staged_key(settings)
    identity.check_held(settings, held)
    make_directory(path.parent, 0o750)
    for each in (path, beside):
        sweep(each)
    # A crash in between leaves a pair that does not fit, and is not used.
    write_atomic(beside, new.key, 0o600)
    try:
        write_atomic(path, new.cert, 0o640)
    except StoreError:
        remove(beside)
        raise


def _forget(settings: AgentSettings) -> None:
    # In this order: a key without its certificate waits for nothing.
    remove(settings.cert_staging_path)
    remove(staged_key(settings))


@attrs.frozen
class _Placed:
    """
    What a certificate that waits has to fit.

    @ivar name: what the agent is called by its certificate.
    """

    key: bytes = attrs.field(repr=False)
    ca: bytes
    name: str


def _checked(
    settings: AgentSettings, placed: _Placed, now: datetime
) -> tuple[Credentials, datetime]:
    """
    @return: what waits, and when it begins to be valid.
    @raise CtrlExecError: it can not be this agent's next identity.
    """
    path, ca = settings.cert_staging_path, placed.ca
    try:
        cert = read_bounded(path, _BYTES)
        key = _key_for(cert, placed.key, settings)
        begin = check_identity(cert=cert, ca=ca, key=key).not_before
        info = check_issued(cert=cert, ca=ca, key=key, now=max(now, begin))
        identity.check_meant_for(placed.name, info)
    except FileNotFoundError:
        raise PkiError(f"{path}: it is gone, or a link to nowhere") from None
    except PkiError as error:
        raise PkiError(f"{path}: {error}") from None
    return Credentials(key, cert, ca, info), begin


def _key_for(cert: bytes, key: bytes, settings: AgentSettings) -> bytes:
    """
    The key that waits beside a certificate, if it is that certificate's.
    """
    digest = read_certificate(cert).key_digest
    try:
        beside = read_bounded(staged_key(settings), _BYTES)
    except FileNotFoundError:
        return key
    try:
        own = parse_private_key(beside, check_primes=False)
        return beside if digest == key_digest(own.public_key()) else key
    except PkiError:
        return key


def _own_name(settings: AgentSettings, cert: bytes) -> str:
    try:
        return identity.own_name(settings, read_certificate(cert))
    except PkiError:
        # The new one is all the more wanted.
        return settings.name


def _paths(settings: AgentSettings) -> tuple[Path, Path, Path]:
    return settings.key, settings.cert, settings.ca


def _early(settings: AgentSettings, begin: datetime) -> str:
    path = settings.cert_staging_path
    return f"{path}: the certificate is not valid before {iso_time(begin)}; it waits"
