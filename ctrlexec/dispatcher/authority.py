# SPDX-License-Identifier: AGPL-3.0-only
"""
The private CA and the dispatcher's identity, where they lie on disk.

Files as in PROTOCOL.md section 4. Those that the original has made are used as
they are; the CA is never overwritten.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

import attrs

from ctrlexec.dispatcher.settings import DispatcherSettings
from ctrlexec.errors import Conflict, PkiError, StoreError
from ctrlexec.files import (
    create_exclusive,
    exclusive_lock,
    make_directory,
    read_bounded,
    remove,
    sweep,
    write_atomic,
)
from ctrlexec.pki import (
    AgentRole,
    CertificateInfo,
    Csr,
    DispatcherRole,
    KeyType,
    Role,
    generate_key,
    issue,
    make_ca,
    make_csr,
    parse_authority,
    random_serial,
    read_certificate,
    read_csr,
)

CA_NAME = "ctrl-exec CA"
CA_DAYS = 3650
#: The subject of every dispatcher's certificate; its role tells them apart.
DISPATCHER_NAME = "ctrl-exec"

_PEM_BYTES = 65_536
_SECRET = 0o600
_PUBLIC = 0o644
_OTHERS = 0o007


@attrs.frozen
class Authority:
    """
    The CA of one dispatcher.

    @ivar settings: where its files are, and how long what it signs is valid.
    """

    settings: DispatcherSettings

    def create_ca(self, now: datetime) -> CertificateInfo:
        """
        Make the CA: first its key, last its certificate. So a crash can leave
        a key without a certificate, which is for a person to judge: it is not
        used, and not removed.

        @raise Conflict: there is a CA, or a part of one.
        @raise StoreError: it could not be written; nothing of it is left.
        """
        ours = self.settings
        self._refuse_a_second()
        make_directory(ours.ca_dir, 0o750)
        key = generate_key(KeyType(ours.key_type))
        cert = make_ca(key, common_name=CA_NAME, days=CA_DAYS, now=now)
        # The key is the claim: of two who begin at once, one gets past here.
        try:
            create_exclusive(ours.ca_key, key, _SECRET)
        except FileExistsError:
            raise _taken(ours.ca_key) from None
        with _undone(ours.ca_key):
            self._write_serial()
            try:
                create_exclusive(ours.ca, cert, _PUBLIC)
            except FileExistsError:
                raise _taken(ours.ca) from None
        return read_certificate(cert)

    def create_identity(
        self, now: datetime, *, replace: bool = False
    ) -> CertificateInfo:
        """
        Make the dispatcher's own key and certificate.

        A crash between the two leaves a key with another one's certificate.
        Nothing uses such a pair; making the identity again mends it.

        @param replace: over those that there are.
        @raise Conflict: there is an identity, or there is no CA.
        @raise StoreError: it could not be written; the old one stays.
        """
        ours = self.settings
        with self._signing():
            if self.has_identity() and not replace:
                raise Conflict(f"there is a dispatcher certificate: {ours.cert}")
            key, cert = self._identity(ours.dispatcher_id, now)
            for path in (ours.key, ours.cert):
                make_directory(path.parent, 0o750)
                sweep(path)
            self._install(key, cert)
        return read_certificate(cert)

    def make_identity(self, now: datetime) -> tuple[bytes, bytes]:
        """
        A key and a certificate for this dispatcher, which are not put anywhere.
        It keeps the id that agents know it by.

        @raise CtrlExecError: they could not be made.
        """
        with self._signing():
            return self._identity(self.dispatcher_id(), now)

    def _identity(self, id: str, now: datetime) -> tuple[bytes, bytes]:
        key = generate_key(KeyType(self.settings.key_type))
        csr = read_csr(make_csr(key, DISPATCHER_NAME))
        return key, self._issue(csr, DispatcherRole(id), DISPATCHER_NAME, now)

    def has_identity(self) -> bool:
        """
        Whether there is an identity, or a part of one.
        """
        return self.settings.key.exists() or self.settings.cert.exists()

    def issue_agent(self, csr: Csr, name: str, now: datetime) -> bytes:
        """
        Certify an agent.

        @param name: the agent's, whatever its request calls it.
        @return: the certificate, PEM.
        @raise Conflict: there is no CA.
        @raise PkiError: the CA can not sign.
        """
        with self._signing():
            return self._issue(csr, AgentRole(name), name, now)

    def can_sign(self) -> bool:
        """
        Whether this process has the key of the CA; only root does.
        """
        return os.access(self.settings.ca_key, os.R_OK)

    def next_end(self, now: datetime) -> datetime:
        """
        When a certificate would end that is issued now; none outlasts the CA.

        @raise PkiError: there is no CA that can be read.
        """
        end = parse_authority(self.ca_certificate()).not_valid_after_utc
        return min(now + timedelta(days=self.settings.cert_days), end)

    def ca_certificate(self) -> bytes:
        """
        The certificate of the CA, PEM.

        @raise PkiError: there is none that can be read.
        """
        return _read(self.settings.ca)

    def ca_private_key(self) -> bytes:
        """
        The key of the CA, PEM.

        @raise PkiError: everybody could read it, or we can not.
        """
        return _read_secret(self.settings.ca_key)

    def dispatcher(self) -> CertificateInfo:
        """
        The certificate that agents will meet.

        @raise PkiError: there is none that can be read.
        """
        path = self.settings.cert
        try:
            return read_certificate(_read(path))
        except PkiError as error:
            raise PkiError(
                f"the dispatcher's certificate can not be used: {error}",
                hint="ctrl-exec setup-ctrl-exec makes one",
            ) from error

    def dispatcher_serial(self) -> str:
        """
        The serial of L{dispatcher}, canonical hex.
        """
        return self.dispatcher().serial

    def dispatcher_id(self) -> str:
        """
        The id that agents are told. What the certificate says goes before the
        settings: it is what agents will be shown.
        """
        match self.dispatcher().role:
            case DispatcherRole(id=own):
                return own
            case _:
                return self.settings.dispatcher_id

    def _refuse_a_second(self) -> None:
        ours = self.settings
        key, cert = ours.ca_key.exists(), ours.ca.exists()
        if key and not cert:
            raise Conflict(
                f"there is a CA key without its certificate: {ours.ca_key}",
                hint=f"restore {ours.ca}, or remove the key if it never signed",
            )
        if cert:
            raise _taken(ours.ca)

    @contextmanager
    def _signing(self) -> Iterator[None]:
        """
        One signs at a time, an original dispatcher included: it locks the same
        file.
        """
        ours = self.settings
        for path in (ours.ca, ours.ca_key):
            if not path.exists():
                raise Conflict(
                    f"there is no CA: {path} is missing",
                    hint="ctrl-exec setup-ca makes one",
                )
        if not ours.ca_serial.exists():
            self._write_serial()
        with exclusive_lock(ours.ca_serial):
            yield

    def _issue(self, csr: Csr, role: Role, name: str, now: datetime) -> bytes:
        return issue(
            csr,
            ca_cert=self.ca_certificate(),
            ca_key=_read_secret(self.settings.ca_key),
            role=role,
            common_name=name,
            days=self.settings.cert_days,
            now=now,
        )

    def _write_serial(self) -> None:
        """
        Where an original dispatcher goes on counting. We never count: our
        serials are random, and so is this start, so that they do not meet.
        """
        with suppress(FileExistsError):
            text = f"{random_serial():032X}\n"
            create_exclusive(self.settings.ca_serial, text.encode(), 0o640)

    def _install(self, key: bytes, cert: bytes) -> None:
        ours = self.settings
        before = _read(ours.key) if ours.key.exists() else None
        write_atomic(ours.key, key, _SECRET)
        with _undone(ours.key, before):
            write_atomic(ours.cert, cert, _PUBLIC)


def _taken(path: Path) -> Conflict:
    return Conflict(f"there is a CA: {path}", hint="a CA is never overwritten")


@contextmanager
def _undone(path: Path, before: bytes | None = None) -> Iterator[None]:
    """
    Put a key back to what it was if what belongs to it can not be written.
    """
    try:
        yield
    except BaseException:
        with suppress(StoreError):
            if before is None:
                remove(path)
            else:
                write_atomic(path, before, _SECRET)
        raise


def _read(path: Path) -> bytes:
    try:
        return read_bounded(path, _PEM_BYTES)
    except FileNotFoundError:
        raise PkiError(f"{path}: there is no such file") from None
    except StoreError as error:
        raise PkiError(str(error)) from error


def _read_secret(path: Path) -> bytes:
    if path.stat().st_mode & _OTHERS:
        raise PkiError(
            f"{path}: every user of this host has access to this key",
            hint=f"chmod 600 {path}",
        )
    return _read(path)
