# SPDX-License-Identifier: AGPL-3.0-only
"""
All that decides what an agent does, read from its files at one moment.

Either everything is good, or the question what is allowed has no answer and
what was in force stays.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from types import MappingProxyType

import attrs

from ctrlexec.agent.allowlist import (
    Allowlist,
    Decision,
    NotPermitted,
    Permitted,
    Script,
    load_allowlist,
    placed,
)
from ctrlexec.agent.revocation import Pushed, load_pushed
from ctrlexec.agent.schema import Rules, Schema, Unusable, load_schema
from ctrlexec.agent.settings import AgentSettings
from ctrlexec.agent.trust import Trusted, TrustedMap, load_revoked, load_trusted
from ctrlexec.certificates import CertificateInfo
from ctrlexec.errors import SettingsError
from ctrlexec.events import (
    Event,
    SchemaFormatIgnored,
    SchemaSkipped,
    SchemaVersionDerived,
    brief,
    listed,
)
from ctrlexec.files import why_not_executable
from ctrlexec.placement import why_exposed
from ctrlexec.protocol.messages import ScriptInfo
from ctrlexec.settings import SettingsWarning, load_settings

#: The profile of a script whose line names none (NEWER-LINE.md, 3.5 and 10.1).
_NO_PROFILE = "default"


@attrs.frozen
class Policy:
    """
    @ivar revoked: canonical serials, by the operator of this host.
    @ivar schemas: what is beside the scripts of the allowlist, by name.
    @ivar pushed: what dispatchers have revoked.
    """

    settings: AgentSettings
    allowlist: Allowlist
    trusted: TrustedMap
    revoked: frozenset[str]
    schemas: Mapping[str, Schema | Unusable] = MappingProxyType({})
    pushed: Pushed = attrs.field(factory=Pushed)

    def is_revoked(self, certificate: CertificateInfo | None) -> bool:
        """
        Whether a certificate is revoked, by whomever. Without a serial it can
        not be looked up, so it is taken for one.
        """
        if certificate is None or not certificate.serial:
            return True
        match self.trusted.decide(certificate):
            case Trusted(dispatcher):
                owner: str | None = dispatcher
            case _:
                owner = None
        serial = certificate.serial
        return serial in self.revoked or self.pushed.revokes(serial, owner)

    def decide(self, name: str) -> Decision:
        """
        Whether a script may start now.
        """
        match self.allowlist.decide(name), self.schemas.get(name):
            case NotPermitted() as refusal, _:
                return refusal
            case _, Unusable(reason) if self.settings.enforce_schema:
                return NotPermitted(f"its schema can not be used: {reason}")
            case Permitted(script), _:
                return placed(script, self.settings.script_dirs)
        raise AssertionError(name)

    def why_unfit(self, name: str, args: Sequence[str]) -> str | None:
        """
        What is wrong with the arguments for a script, in words that name one;
        C{None} where they fit or nothing is said of them.
        """
        match self.schemas.get(name):
            case Schema(rules=Rules() as rules) if self.settings.enforce_schema:
                return rules.why_unfit(args)
        return None

    def scripts(self) -> tuple[ScriptInfo, ...]:
        """
        The scripts that may start now, by name.
        """
        return tuple(
            self._info(self.allowlist.scripts[name], decision.script)
            for name in sorted(self.allowlist.scripts)
            if isinstance(decision := self.decide(name), Permitted)
        )

    def _info(self, script: Script, resolved: Script) -> ScriptInfo:
        schema = self.schemas.get(script.name)
        info = ScriptInfo(
            script.name,
            str(script.path),
            why_not_executable(resolved.path) is None,
            script.profile or _NO_PROFILE,
        )
        if isinstance(schema, Schema):
            return attrs.evolve(
                info, schema=schema.document, schema_version=schema.version
            )
        return info

    def remarks(self) -> Iterator[Event]:
        """
        What the log should know of the schemas.
        """
        for name, schema in self.schemas.items():
            match schema:
                case Unusable(reason):
                    yield SchemaSkipped(name, reason)
                case Schema(remark=remark, unknown_formats=formats):
                    if remark:
                        yield SchemaVersionDerived(name, remark)
                    if formats:
                        yield SchemaFormatIgnored(name, brief(listed(formats)))

    def warnings(self) -> Iterator[SettingsWarning]:
        """
        Which scripts of the allowlist can not run, as they are now.
        """
        for name in self.allowlist.scripts:
            match self.decide(name):
                case NotPermitted(reason):
                    message = f"{name} does not run: {reason}"
                    yield SettingsWarning(str(self.settings.allowlist), 0, message)

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
    _check_hook(file, settings.auth_hook)
    allowlist, more = load_allowlist(settings.allowlist)
    policy = Policy(
        settings,
        allowlist,
        load_trusted(
            settings.trusted_dispatchers_path, settings.dispatcher_serial_path
        ),
        load_revoked(settings.revoked_serials),
        MappingProxyType(schemas_of(allowlist)),
        load_pushed(settings.pushed_revocations),
    )
    return policy, (*warnings, *more, *policy.warnings())


def schemas_of(allowlist: Allowlist) -> dict[str, Schema | Unusable]:
    """
    What is beside the scripts of an allowlist, by name of the script.
    """
    found = {
        name: load_schema(script.path) for name, script in allowlist.scripts.items()
    }
    return {name: schema for name, schema in found.items() if schema is not None}


def _check_hook(file: Path, hook: Path | None) -> None:
    """
    A hook that can not be executed would deny everything from now on, and one
    that anybody can change would allow it; better that whoever has set it hears
    so at once.
    """
    if hook is None:
        return
    obstacle = why_not_executable(hook) or why_exposed(hook)
    if obstacle is not None:
        raise SettingsError(
            str(file),
            0,
            "auth_hook",
            f"{hook} can not be asked: {obstacle}",
            hint="remove the line only if every trusted dispatcher may run every "
            "script of this host",
        )


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
