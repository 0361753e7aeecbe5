# SPDX-License-Identifier: AGPL-3.0-only
"""
C{agent.conf}: the settings of an agent (PROTOCOL.md section 5, NEWER-LINE.md
section 11.1).
"""

# ruff: noqa: RUF009 - setting() declares an attribute, as attrs.field() does.

from __future__ import annotations

import socket
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import ClassVar

import attrs

from ctrlexec.errors import InvalidValue, abbreviated
from ctrlexec.kinds import (
    ADDRESS_TO_BIND,
    BOOLEAN,
    LOG,
    PATH,
    PORT,
    PORT_TO_BIND,
    RATE,
    SIZE,
    SPACE,
    Kind,
    Partly,
    choice,
    entries,
    number,
    seconds,
)
from ctrlexec.settings import below, beside, section, setting
from ctrlexec.values import Rate, agent_name

DEFAULT_FILE = Path("/etc/ctrl-exec-agent/agent.conf")

Network = IPv4Network | IPv6Network


def name_from_host(host_name: str) -> str:
    """
    The name of an agent whose settings give none.

    @param host_name: the fully qualified name of the host.
    @raise InvalidValue: the host's name can not be an agent's.
    """
    try:
        return agent_name(host_name)
    except InvalidValue as error:
        expected = f"{error.expected}; give a name with 'name = …'"
        raise InvalidValue("name of this host", host_name, expected) from None


def _directories(text: str) -> tuple[Path, ...]:
    found = entries(text, ":,")
    if not found:
        raise ValueError(text)
    for entry in found:
        if not entry.startswith("/"):
            raise InvalidValue("directory", entry, _DIRECTORIES.expected)
    return tuple(Path(entry) for entry in found)


def _networks(text: str) -> Partly[tuple[Network, ...]]:
    """
    Where nothing in the list is good the list is refused: to skip all of it
    would let everybody in.
    """
    networks: list[Network] = []
    remarks: list[str] = []
    for entry in entries(text, ","):
        try:
            networks.append(ip_network(entry, strict=False))
        except ValueError:
            remarks.append(f"{abbreviated(entry)} is no address or prefix; skipped")
    if not networks:
        raise ValueError(text)
    return Partly(tuple(networks), tuple(remarks))


_NAME = Kind("the name of this agent, such as web-1.example.net", agent_name)
_DIRECTORIES = Kind(
    "directories that start with /, separated by ':' or ','", _directories
)
_NETWORKS: Kind[tuple[Network, ...]] = Kind(
    "addresses and prefixes such as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32, "
    "separated by ','",
    _networks,
)


@attrs.frozen(kw_only=True)
class AgentSettings:
    """
    @ivar directory: the directory of C{agent.conf}.
    @ivar name: what the dispatcher calls this agent; by default the fully
        qualified name of the host.
    @ivar port: where the agent listens; 0 is any free port.
    @ivar bind: the address it listens on; empty for all.
    @ivar key: the private key, PEM.
    @ivar cert: the certificate, PEM.
    @ivar ca: the certificate of the private CA, PEM.
    @ivar state_dir: what the agent writes.
    @ivar trusted_dispatchers_path: the trusted map.
    @ivar dispatcher_serial_path: the older line's single trusted serial.
    @ivar cert_staging_path: where a renewed certificate waits to be promoted.
    @ivar revoked_serials: the revocation list.
    @ivar allowlist: C{scripts.conf}.
    @ivar script_dirs: where scripts may be; C{None} for anywhere.
    @ivar enforce_schema: arguments must fit the schema beside a script, and a
        schema that can not be used disables it.
    @ivar stdin_timeout: how long a script may leave its context unread, in
        seconds.
    @ivar stop_grace: how long requests may take to be answered when the agent
        stops, in seconds.
    @ivar max_output: how much of each output stream is kept, in bytes.
    @ivar async_runs_dir: what became of runs, and what they wrote.
    @ivar run_store_size: how much room that may take, in bytes; above it the
        oldest of the dispatcher that has most are forgotten.
    @ivar run_grace: how long a script that is to end may take after TERM, in
        seconds; then it is killed.
    @ivar pairing_port: where the dispatcher listens for pairing requests.
    @ivar log: C{"auto"}, C{"stderr"}, C{"syslog"} or a file.
    @ivar allowed_ips: who may connect; C{None} for anybody.
    @ivar rate_limit_volume: how many connections may come from an address that
        do not turn out to be a trusted dispatcher's.
    @ivar rate_limit_probe: how many handshakes of an address may fail.
    @ivar rate_limit_disable: neither of both applies.
    @ivar rate_limit_trusted: trusted dispatchers count as everybody does.
    @ivar max_connections: how many connections there may be at once.
    @ivar max_runs: how many runs there may be at once. A place is kept for each
        dispatcher that has none.
    @ivar auth_hook: the program that is asked before each run, if any.
    @ivar auth_hook_timeout: how long it may take, in seconds.
    @ivar auth_hook_stdin: it reads its question there, and the arguments are
        only there.
    @ivar key_type: what key the agent makes for itself; C{"rsa"} where a
        dispatcher of the original's newer line signs, which takes no other.
    @ivar tags: the lines of C{[tags]}.
    """

    NOT_USED: ClassVar[frozenset[str]] = frozenset(
        """
        dispatcher_cn executor_socket max_children profile sandbox writable_paths
        """.split()
    )
    ELSEWHERE: ClassVar[frozenset[str]] = frozenset()

    directory: Path
    name: str = setting(
        _NAME, default=attrs.Factory(lambda: name_from_host(socket.getfqdn()))
    )
    port: int = setting(PORT_TO_BIND, default=7443)
    bind: str = setting(ADDRESS_TO_BIND, default="")
    key: Path = setting(PATH, default=beside("agent.key"))
    cert: Path = setting(PATH, default=beside("agent.crt"))
    ca: Path = setting(PATH, default=beside("ca.crt"))
    state_dir: Path = setting(PATH, default=Path("/var/lib/ctrl-exec-agent"))
    trusted_dispatchers_path: Path = setting(
        PATH, default=below("state_dir", "ctrl-exec-dispatchers")
    )
    dispatcher_serial_path: Path = setting(PATH, default=beside("ctrl-exec-serial"))
    cert_staging_path: Path = setting(
        PATH, default=below("state_dir", "agent.crt.staged")
    )
    revoked_serials: Path = setting(PATH, default=beside("revoked-serials"))
    allowlist: Path = setting(PATH, default=beside("scripts.conf"))
    script_dirs: tuple[Path, ...] | None = setting(_DIRECTORIES, default=None)
    enforce_schema: bool = setting(BOOLEAN, default=True)
    stdin_timeout: float = setting(seconds(3600), default=10.0)
    stop_grace: float = setting(seconds(3600), default=30.0)
    max_output: int = setting(SIZE, default=8 * 2**20)
    async_runs_dir: Path = setting(PATH, default=below("state_dir", "runs"))
    run_store_size: int = setting(SPACE, default=2**30)
    run_grace: float = setting(seconds(3600), default=10.0)
    pairing_port: int = setting(PORT, default=7444)
    log: str | Path = setting(LOG, default="auto")
    allowed_ips: tuple[Network, ...] | None = setting(_NETWORKS, default=None)
    rate_limit_volume: Rate = setting(RATE, default=Rate(10, 60, 300))
    rate_limit_probe: Rate = setting(RATE, default=Rate(3, 600, 3600))
    rate_limit_disable: bool = setting(BOOLEAN, default=False)
    rate_limit_trusted: bool = setting(BOOLEAN, default=False)
    max_connections: int = setting(number(1, 65_536), default=256)
    max_runs: int = setting(number(1, 65_536), default=64)
    auth_hook: Path | None = setting(PATH, default=None)
    auth_hook_timeout: float = setting(seconds(3600), default=10.0)
    auth_hook_stdin: bool = setting(BOOLEAN, default=False)
    key_type: str = setting(choice("ec", "rsa"), default="ec")
    tags: Mapping[str, str] = section()

    @property
    def pushed_revocations(self) -> Path:
        """
        The lists of revoked certificates that dispatchers have sent. The agent
        writes it, which it can not do beside C{revoked_serials}.
        """
        return self.state_dir / "revocations.json"
