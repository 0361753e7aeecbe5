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
    BOOLEAN,
    LOG,
    PATH,
    PORT_TO_BIND,
    RATE,
    SIZE,
    Kind,
    Partly,
    choice,
    entries,
    number,
    seconds,
)
from ctrlexec.settings import below, setting
from ctrlexec.values import Rate, is_ip_address, normalised_dispatcher_id

DEFAULT_FILE = Path("/etc/ctrl-exec/ctrl-exec.conf")
#: Where a command line looks for the API that does not know the settings.
DEFAULT_SOCKET = Path("/run/ctrl-exec/api.sock")


def _dispatcher_id(text: str) -> Partly[str]:
    if not text:
        raise ValueError(text)
    used = normalised_dispatcher_id(text)
    remark = f"{abbreviated(text)} is no dispatcher id; {used!r} is used instead"
    return Partly(used, () if used == text else (remark,))


_DISPATCHER_ID: Kind[str] = Kind(
    "an id for this dispatcher, such as dispatcher-1", _dispatcher_id
)


_UNIX = "unix:"
_SOCKET_PATH_BYTES = 107


def _binds(text: str) -> tuple[str | Path, ...]:
    found: list[str | Path] = []
    for entry in entries(text, ","):
        path = entry.removeprefix(_UNIX)
        if path != entry:
            if not path.startswith("/") or len(path.encode()) > _SOCKET_PATH_BYTES:
                raise ValueError(text)
            found.append(Path(path))
        elif is_ip_address(entry):
            found.append(entry)
        else:
            raise ValueError(text)
    return tuple(dict.fromkeys(found)) or ("",)


BINDS: Kind[tuple[str | Path, ...]] = Kind(
    "IPv4 or IPv6 addresses and unix:/absolute/path (107 bytes at most), with commas "
    "between them; or nothing for all addresses",
    _binds,
)


def _group(text: str) -> str:
    if text and text.isprintable() and ":" not in text:
        return text
    raise ValueError(text)


_GROUP: Kind[str] = Kind("the name of a group", _group)


def next_of(path: Path) -> Path:
    """
    Where what will replace a file lies until then.
    """
    return path.with_name(f"{path.name}.next")


def former_of(path: Path) -> Path:
    """
    Where what a file held before is kept.
    """
    return path.with_name(f"{path.name}.previous")


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
    @ivar pairing_rate_limit_volume: how many connections to the pairing port
        may come from an address.
    @ivar pairing_rate_limit_disable: they may be any number.
    @ivar read_timeout: how long an agent may take to answer, in seconds.
    @ivar connect_timeout: how long a connection may take, in seconds.
    @ivar max_parallel: how many agents are asked at once.
    @ivar max_answer: how much of one answer is read, in bytes.
    @ivar unregistered_hosts: what becomes of a host that is not registered:
        C{"refuse"} it or C{"connect"} to it.
    @ivar cert_days: how long a certificate that we issue is valid, in days.
    @ivar cert_renewal_days: the dispatcher's own certificate is replaced when
        so many days are left of it.
    @ivar cert_overlap_days: how many days agents have to learn of that.
    @ivar rotation_file: how far that is.
    @ivar key_type: the keys that we make: C{"ec"} or C{"rsa"}.
    @ivar log: C{"auto"}, C{"stderr"}, C{"syslog"} or a file.
    @ivar auth_hook: the program that is asked before each operation, if any.
    @ivar auth_hook_timeout: how long it may take, in seconds.
    @ivar auth_hook_stdin: whether it finds hosts and arguments on its standard
        input alone.
    @ivar auth_deny_generic: whether the API keeps the reason of a denial to
        itself.
    @ivar max_hosts: how many hosts one request may name.
    @ivar confirm_hosts: a run on more hosts than these needs a person's yes.
    @ivar api_port: where the API listens; 0 is any free port.
    @ivar api_bind: the addresses it listens at, and the paths of its unix
        sockets.
    @ivar api_group: whose members may use its unix sockets.
    @ivar api_cert: the certificate that it shows, PEM; HTTPS with it.
    @ivar api_key: the private key of that certificate, PEM.
    @ivar api_auth_default: what it answers where there is no auth hook:
        C{"deny"} or C{"allow"}.
    @ivar api_max_children: how many requests it works on at once.
    """

    NOT_USED: ClassVar[frozenset[str]] = frozenset(
        """
        service_user
        """.split()
    )
    ELSEWHERE: ClassVar[frozenset[str]] = frozenset(
        """
        cert_check_interval
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
    pairing_rate_limit_volume: Rate = setting(RATE, default=Rate(10, 60, 300))
    pairing_rate_limit_disable: bool = setting(BOOLEAN, default=False)
    read_timeout: float = setting(seconds(86_400), default=60.0, aliases=("timeout",))
    connect_timeout: float = setting(seconds(3600), default=10.0)
    max_parallel: int = setting(number(1, 1024), default=64)
    max_answer: int = setting(SIZE, default=64 * 2**20)
    unregistered_hosts: str = setting(choice("refuse", "connect"), default="refuse")
    cert_days: int = setting(number(1, 36_500), default=825)
    cert_renewal_days: int = setting(number(1, 36_500), default=90)
    cert_overlap_days: int = setting(number(1, 36_500), default=30)
    rotation_file: Path = setting(PATH, default=below("state_dir", "rotation.json"))
    key_type: str = setting(choice("ec", "rsa"), default="ec")
    log: str | Path = setting(LOG, default="auto")
    auth_hook: Path | None = setting(PATH, default=None)
    auth_hook_timeout: float = setting(seconds(3600), default=10.0)
    auth_hook_stdin: bool = setting(BOOLEAN, default=False)
    auth_deny_generic: bool = setting(BOOLEAN, default=False)
    max_hosts: int = setting(number(1, 20_000), default=10_000)
    confirm_hosts: int = setting(number(1, 1_000_000), default=50)
    api_port: int = setting(PORT_TO_BIND, default=7445)
    api_bind: tuple[str | Path, ...] = setting(BINDS, default=("127.0.0.1",))
    api_group: str = setting(_GROUP, default="ctrl-exec")
    api_cert: Path | None = setting(PATH, default=None)
    api_key: Path | None = setting(PATH, default=None)
    api_auth_default: str = setting(choice("deny", "allow"), default="deny")
    api_max_children: int = setting(number(1, 10_000), default=64)

    def as_former(self) -> DispatcherSettings:
        """
        @return: the settings of this dispatcher as it was before its certificate
            was replaced.
        """
        return attrs.evolve(self, key=former_of(self.key), cert=former_of(self.cert))

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
    def tokens_dir(self) -> Path:
        """
        The join tokens: C{docs/pairing.md}.
        """
        return self.state_dir / "tokens"

    @property
    def locks_dir(self) -> Path:
        """
        The locks of scripts that run: PROTOCOL.md section 4.
        """
        return self.state_dir / "locks"

    @property
    def runs_dir(self) -> Path:
        """
        The results of runs: PROTOCOL.md section 4.
        """
        return self.state_dir / "runs"

    @property
    def revocations_dir(self) -> Path:
        """
        What is revoked.
        """
        return self.state_dir / "revocations"

    @property
    def agents_dir(self) -> Path:
        """
        The registry, under its name in PROTOCOL.md section 4.
        """
        return self.registry_dir
