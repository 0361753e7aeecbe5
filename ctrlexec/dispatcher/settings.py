# SPDX-License-Identifier: AGPL-3.0-only
"""
C{ctrl-exec.conf}: the settings of a dispatcher (PROTOCOL.md section 4,
NEWER-LINE.md section 11.3).
"""

# ruff: noqa: RUF009 - setting() declares an attribute, as attrs.field() does.

from __future__ import annotations

import socket
from pathlib import Path
from typing import ClassVar

import attrs

from ctrlexec.errors import abbreviated
from ctrlexec.kinds import (
    ADDRESS_TO_BIND,
    LOG,
    PATH,
    PORT_TO_BIND,
    SIZE,
    Kind,
    Partly,
    choice,
    number,
    seconds,
)
from ctrlexec.settings import below, setting
from ctrlexec.values import normalised_dispatcher_id

DEFAULT_FILE = Path("/etc/ctrl-exec/ctrl-exec.conf")


def _dispatcher_id(text: str) -> Partly[str]:
    if not text:
        raise ValueError(text)
    used = normalised_dispatcher_id(text)
    remark = f"{abbreviated(text)} is no dispatcher id; {used!r} is used instead"
    return Partly(used, () if used == text else (remark,))


_DISPATCHER_ID: Kind[str] = Kind(
    "an id for this dispatcher, such as dispatcher-1", _dispatcher_id
)


@attrs.frozen(kw_only=True)
class DispatcherSettings:
    """
    @ivar directory: the directory of C{ctrl-exec.conf}.
    @ivar ca_dir: the private CA and the dispatcher's own identity.
    @ivar key: the dispatcher's private key, PEM.
    @ivar cert: the dispatcher's certificate, PEM.
    @ivar ca: the certificate of the private CA, PEM.
    @ivar state_dir: what the dispatcher writes.
    @ivar registry_dir: the registry, one record an agent.
    @ivar dispatcher_id: what agents call this dispatcher; by default made of
        the host's name.
    @ivar pairing_port: where pairing requests arrive; 0 is any free port.
    @ivar pairing_bind: the address they arrive at; empty for all.
    @ivar pairing_timeout: how long pairing mode stays open, in seconds.
    @ivar pairing_max_queue: how many requests may wait at once.
    @ivar read_timeout: how long an agent may take to answer, in seconds.
    @ivar connect_timeout: how long a connection may take, in seconds.
    @ivar max_parallel: how many agents are asked at once.
    @ivar max_answer: how much of one answer is read, in bytes.
    @ivar unregistered_hosts: what becomes of a host that is not registered:
        C{"refuse"} it or C{"connect"} to it.
    @ivar cert_days: how long a certificate that we issue is valid, in days.
    @ivar key_type: the keys that we make: C{"ec"} or C{"rsa"}.
    @ivar log: C{"auto"}, C{"stderr"}, C{"syslog"} or a file.
    @ivar auth_hook: the program that is asked before each operation, if any.
    @ivar auth_hook_timeout: how long it may take, in seconds.
    """

    NOT_USED: ClassVar[frozenset[str]] = frozenset(
        """
        pairing_rate_limit_disable pairing_rate_limit_volume rotation_file
        service_user
        """.split()
    )
    ELSEWHERE: ClassVar[frozenset[str]] = frozenset(
        """
        api_auth_default api_bind api_cert api_key api_max_children api_port
        auth_deny_generic cert_check_interval cert_overlap_days
        cert_renewal_days
        """.split()
    )

    directory: Path
    ca_dir: Path = setting(PATH, default=Path("/etc/ctrl-exec"))
    key: Path = setting(PATH, default=below("ca_dir", "ctrl-exec.key"))
    cert: Path = setting(PATH, default=below("ca_dir", "ctrl-exec.crt"))
    ca: Path = setting(PATH, default=below("ca_dir", "ca.crt"))
    state_dir: Path = setting(PATH, default=Path("/var/lib/ctrl-exec"))
    registry_dir: Path = setting(PATH, default=below("state_dir", "agents"))
    dispatcher_id: str = setting(
        _DISPATCHER_ID,
        default=attrs.Factory(lambda: normalised_dispatcher_id(socket.gethostname())),
    )
    pairing_port: int = setting(PORT_TO_BIND, default=7444)
    pairing_bind: str = setting(ADDRESS_TO_BIND, default="")
    pairing_timeout: int = setting(number(1, 600), default=600)
    pairing_max_queue: int = setting(number(1, 10_000), default=10)
    read_timeout: float = setting(seconds(86_400), default=60.0, aliases=("timeout",))
    connect_timeout: float = setting(seconds(3600), default=10.0)
    max_parallel: int = setting(number(1, 1024), default=64)
    max_answer: int = setting(SIZE, default=128 * 2**20)
    unregistered_hosts: str = setting(choice("refuse", "connect"), default="refuse")
    cert_days: int = setting(number(1, 36_500), default=825)
    key_type: str = setting(choice("ec", "rsa"), default="ec")
    log: str | Path = setting(LOG, default="auto")
    auth_hook: Path | None = setting(PATH, default=None)
    auth_hook_timeout: float = setting(seconds(3600), default=10.0)

    @property
    def ca_key(self) -> Path:
        """
        The private key of the CA.
        """
        return self.ca_dir / "ca.key"

    @property
    def ca_serial(self) -> Path:
        """
        The serial file that the original keeps beside its CA.
        """
        return self.ca_dir / "ca.serial"

    @property
    def pairing_dir(self) -> Path:
        """
        The queue of pairing requests: PROTOCOL.md section 3.
        """
        return self.state_dir / "pairing"

    @property
    def agents_dir(self) -> Path:
        """
        The registry, under its name in PROTOCOL.md section 4.
        """
        return self.registry_dir
