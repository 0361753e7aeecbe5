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
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import attrs
from attrs.validators import instance_of, optional

from ctrlexec.agent.settings import AgentSettings
from ctrlexec.agent.trust import TrustedMap, load_trusted
from ctrlexec.agent.trust_store import trust_locked
from ctrlexec.certificates import (
    AgentRole,
    CertificateInfo,
    DispatcherRole,
    ca_fingerprint,
    check_issued,
    check_signed,
)
from ctrlexec.errors import InvalidValue, PkiError, StoreError, abbreviated
from ctrlexec.files import (
    can_write,
    exclusive_lock,
    make_directory,
    read_bounded,
    remove,
    sweep,
    write_atomic,
)
from ctrlexec.protocol.messages import PairApproved
from ctrlexec.tls import Credentials, Identity
from ctrlexec.values import dispatcher_id, serial_from_hex

_BYTES = 4_194_304
#: The limit of X.509, to which a request's common name is cut.
_COMMON_NAME_CHARACTERS = 64


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
        check_meant_for(name, info)
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


def can_replace(settings: AgentSettings) -> bool:
    """
    Whether this process can L{replace} the identity.
    """
    paths = (settings.key, settings.cert, settings.ca)
    return all(map(can_write, {path.parent for path in paths}))


def is_paired(settings: AgentSettings) -> bool:
    """
    Whether there is an identity, good or bad.
    """
    return not any(map(_is_missing, (settings.key, settings.cert, settings.ca)))


def prepare(settings: AgentSettings) -> None:
    """
    Make sure that an identity could be stored, before one is asked for.

    @raise StoreError: it could not.
    """
    make_directory(settings.state_dir, 0o750)
    trusted = settings.trusted_dispatchers_path
    for path in (settings.key, settings.cert, settings.ca, trusted):
        make_directory(path.parent, 0o750)
        if not can_write(path.parent):
            raise StoreError(
                path.parent,
                "is not writable",
                hint="run this as root, or let cert, key, ca and state_dir name "
                "places elsewhere",
            )
    load_trusted(trusted, settings.dispatcher_serial_path)


def store(settings: AgentSettings, new: NewIdentity) -> None:
    """
    Put a new identity in place of the old one.

    @raise StoreError: it was not stored; L{recover} finishes what was begun.
    """
    make_directory(settings.trusted_dispatchers_path.parent, 0o750)
    with locked(settings), trust_locked(settings):
        _sweep(settings)
        trusted = _trusting(settings, new).render()
        _write(settings, _Files(new.key, new.cert, new.ca, trusted))


def own_name(settings: AgentSettings, info: CertificateInfo) -> str:
    """
    What the agent is called by its certificate. The host may have another name
    by now; the dispatcher still knows the agent by the one it was paired under.

    @param info: of the certificate that the agent has.
    """
    match info.role:
        case AgentRole(name):
            return name
    cut = settings.name[:_COMMON_NAME_CHARACTERS]
    return settings.name if info.common_name == cut else info.common_name


def replace(settings: AgentSettings, held: Credentials, new: Credentials) -> None:
    """
    Put a renewed identity in the place of the one that the agent holds. Whom it
    trusts stays as it is.

    @raise PkiError: L{check_held}.
    @raise StoreError: it was not stored; L{recover} finishes what was begun.
    """
    with locked(settings):
        check_held(settings, held)
        _sweep(settings)
        install(settings, new)


def install(settings: AgentSettings, new: Credentials) -> None:
    """
    The same, for whoever holds the lock and knows what was held.
    """
    key, cert, ca = (pem.decode() for pem in (new.key, new.cert, new.ca))
    _write(settings, _Files(key, cert, ca, None))


def check_held(settings: AgentSettings, held: Credentials) -> None:
    """
    Whether the identity in its place is still the one that an agent holds, or
    one that it had before: somebody may have paired it anew.

    @raise PkiError: it is another's, or of another CA; or it can not be read.
    """
    try:
        cert, ca = (read_bounded(path, _BYTES) for path in (settings.cert, settings.ca))
    except FileNotFoundError as error:
        raise PkiError(f"{error.filename}: there is no such file any more") from None
    name = own_name(settings, held.info)
    if ca_fingerprint(ca) != ca_fingerprint(held.ca):
        raise PkiError(f"{settings.ca} is that of another CA by now")
    check_meant_for(name, check_signed(cert=cert, ca=ca))


def recover(settings: AgentSettings) -> bool:
    """
    Finish what a crash has interrupted.

    @return: whether there was anything to finish.
    @raise StoreError: it could not be finished.
    """
    unfinished = _unfinished(settings)
    if not os.path.exists(unfinished):
        return False
    with _to_be_finished(), locked(settings), trust_locked(settings):
        try:
            files = _Files(**json.loads(read_bounded(unfinished, _BYTES)))
        except FileNotFoundError:
            return False
        except (ValueError, TypeError) as error:
            raise StoreError(
                unfinished, "is not ours", hint="remove it and pair again"
            ) from error
        _sweep(settings)
        _install(settings, files)
    return True


@attrs.frozen
class _Files:
    """
    What the four files will hold.

    @ivar trusted: C{None} where the map stays as it is.
    """

    key: str = attrs.field(repr=False, validator=instance_of(str))
    cert: str = attrs.field(validator=instance_of(str))
    ca: str = attrs.field(validator=instance_of(str))
    trusted: str | None = attrs.field(validator=optional(instance_of(str)))


def _write(settings: AgentSettings, files: _Files) -> None:
    text = json.dumps(attrs.asdict(files)).encode()
    write_atomic(_unfinished(settings), text, 0o600)
    with _to_be_finished():
        _install(settings, files)


def _install(settings: AgentSettings, files: _Files) -> None:
    # Root stores for the user that the agent runs as, which the directory's
    # group has in it. Whoever pairs an agent of their own shares it with nobody.
    secret = 0o640 if os.geteuid() == 0 else 0o600
    # What is renewed belongs to whom it belonged.
    renewed = files.trusted is None
    for path, text, mode in (
        (settings.key, files.key, secret),
        (settings.cert, files.cert, 0o640),
    ):
        write_atomic(
            path, text.encode(), mode, group_of_directory=True, keep_owner=renewed
        )
    write_atomic(settings.ca, files.ca.encode(), 0o644)
    if files.trusted is not None:
        trusted = settings.trusted_dispatchers_path
        make_directory(trusted.parent, 0o750)
        write_atomic(trusted, files.trusted.encode(), 0o644)
    remove(_unfinished(settings))


def _trusting(settings: AgentSettings, new: NewIdentity) -> TrustedMap:
    """
    Whom the agent trusts from now on. Within one CA nobody is dropped; but
    serials and ids say nothing of whom another CA gives the same ones to.
    """
    trusted = TrustedMap()
    if _authority(settings) == ca_fingerprint(new.ca.encode()):
        trusted = load_trusted(
            settings.trusted_dispatchers_path, settings.dispatcher_serial_path
        )
    return trusted.trusting(new.serial, new.dispatcher)


def _authority(settings: AgentSettings) -> str | None:
    try:
        return ca_fingerprint(read_bounded(settings.ca, _BYTES))
    except (FileNotFoundError, PkiError):
        return None


def check_meant_for(name: str, info: CertificateInfo) -> None:
    """
    @param name: the agent's own.
    @raise PkiError: the certificate is another's.
    """
    match info.role:
        case AgentRole(given) if given == name:
            return
        # A dispatcher of the original gives its certificates no role.
        case None if info.common_name == name[:_COMMON_NAME_CHARACTERS]:
            return
        case None:
            given = abbreviated(info.common_name)
        case AgentRole(other):
            given = repr(other)
        case DispatcherRole(other):
            given = f"the dispatcher {other!r}"
    raise PkiError(f"the certificate is not for {name!r} but for {given}")


def _is_missing(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except OSError:
        # There is something; whoever loads it will say what is wrong with it.
        return False
    return False


def _unfinished(settings: AgentSettings) -> Path:
    # Agents that live side by side have certificates of different names.
    return settings.cert.with_name(f".{settings.cert.name}.unfinished")


@contextmanager
def locked(settings: AgentSettings) -> Iterator[None]:
    """
    Hold the lock under which key, certificate and CA are written.

    @raise StoreError: their directory can not be written to.
    """
    with exclusive_lock(settings.cert.with_name(f".{settings.cert.name}.lock")):
        yield


def _sweep(settings: AgentSettings) -> None:
    trusted = settings.trusted_dispatchers_path
    for path in (settings.key, settings.cert, settings.ca, _unfinished(settings)):
        sweep(path)
    if trusted.parent.is_dir():
        sweep(trusted)


@contextmanager
def _to_be_finished() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        error.hint = error.hint or (
            "the new identity is complete; once that is mended, 'ctrl-exec-agent "
            "pairing-status', as the user who paired, puts it in its place"
        )
        raise
