# SPDX-License-Identifier: AGPL-3.0-only
"""
All that decides what an agent does, read from its files at one moment.

Either everything is good, or the question what is allowed has no answer and
what was in force stays.
"""

from __future__ import annotations

import os
from ipaddress import IPv6Address, ip_address
from pathlib import Path

import attrs

from ctrlexec.agent.allowlist import (
    Allowlist,
    Decision,
    NotPermitted,
    Permitted,
    load_allowlist,
    within,
)
from ctrlexec.agent.runs import why_not_executable
from ctrlexec.agent.settings import AgentSettings
from ctrlexec.agent.trust import TrustedMap, load_revoked, load_trusted
from ctrlexec.errors import SettingsError
from ctrlexec.protocol.messages import ScriptInfo
from ctrlexec.settings import SettingsWarning, load_settings


@attrs.frozen
class Policy:
    """
    @ivar revoked: canonical serials.
    """

    settings: AgentSettings
    allowlist: Allowlist
    trusted: TrustedMap
    revoked: frozenset[str]

    def decide(self, name: str) -> Decision:
        """
        Whether a script may start now.
        """
        match self.allowlist.decide(name):
            case Permitted(script):
                return within(script, self.settings.script_dirs)
            case NotPermitted() as refusal:
                return refusal

    def scripts(self) -> tuple[ScriptInfo, ...]:
        """
        The scripts that may start now, by name.
        """
        return tuple(
            ScriptInfo(
                name,
                str(self.allowlist.scripts[name].path),
                why_not_executable(decision.script.path) is None,
            )
            for name in sorted(self.allowlist.scripts)
            if isinstance(decision := self.decide(name), Permitted)
        )

    def admits(self, address: str) -> bool:
        """
        Whether a connection may come from an address.
        """
        allowed = self.settings.allowed_ips
        if allowed is None:
            return True
        try:
            source = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(source, IPv6Address) and source.ipv4_mapped:
            source = source.ipv4_mapped
        return any(source in network for network in allowed)


@attrs.frozen
class Overrides:
    """
    What the command line says in place of C{agent.conf}.

    @ivar port: C{None} where it says nothing; likewise C{allowlist}.
    """

    port: int | None = None
    allowlist: Path | None = None


def load_policy(
    file: Path, overrides: Overrides
) -> tuple[Policy, tuple[SettingsWarning, ...]]:
    """
    @param file: C{agent.conf}.
    @raise SettingsError: a file can not be used.
    @raise StoreError: a list can not be read.
    """
    settings, warnings = load_agent_settings(file, overrides)
    if settings.auth_hook is not None:
        # To run without asking would open what the operator has closed.
        raise SettingsError(
            str(file),
            0,
            "auth_hook",
            "this release can not ask an auth hook yet",
            hint="remove the line only if every trusted dispatcher may run every "
            "script of this host",
        )
    allowlist, more = load_allowlist(settings.allowlist)
    policy = Policy(
        settings,
        allowlist,
        load_trusted(
            settings.trusted_dispatchers_path, settings.dispatcher_serial_path
        ),
        load_revoked(settings.revoked_serials),
    )
    return policy, (*warnings, *more)


def load_agent_settings(
    file: Path, overrides: Overrides
) -> tuple[AgentSettings, tuple[SettingsWarning, ...]]:
    """
    C{agent.conf} alone, which is all that pairing needs.

    @raise SettingsError: it can not be used.
    """
    settings, warnings = load_settings(AgentSettings, file)
    if overrides.port is not None:
        settings = attrs.evolve(settings, port=overrides.port)
    if overrides.allowlist is not None:
        path = Path(os.path.abspath(overrides.allowlist))
        settings = attrs.evolve(settings, allowlist=path)
    return settings, warnings
