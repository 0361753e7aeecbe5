# SPDX-License-Identifier: AGPL-3.0-only
"""
C{self-check}: everything that an agent needs, looked at one by one.

Nothing is changed, and a check that fails keeps no other from being made.
"""

from __future__ import annotations

import enum
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import attrs

from ctrlexec.agent import identity
from ctrlexec.agent.allowlist import (
    Allowlist,
    NotPermitted,
    Permitted,
    Script,
    load_allowlist,
)
from ctrlexec.agent.obstacles import odd_limits, why_no_interpreter
from ctrlexec.agent.policy import (
    Overrides,
    Policy,
    load_agent_settings,
    schemas_of,
)
from ctrlexec.agent.revocation import load_pushed
from ctrlexec.agent.schema import Schema, Unusable
from ctrlexec.agent.settings import AgentSettings
from ctrlexec.agent.staging import is_staged
from ctrlexec.agent.trust import TrustedMap, load_revoked
from ctrlexec.agent.trust_store import stored_trust
from ctrlexec.certificates import CertificateInfo, check_issued
from ctrlexec.errors import CtrlExecError, abbreviated
from ctrlexec.files import can_write, why_not_executable
from ctrlexec.placement import why_exposed
from ctrlexec.settings import SettingsWarning
from ctrlexec.values import openssl_time

_SOON = timedelta(days=30)


class Verdict(enum.Enum):
    """
    What came of a check, as it is printed.
    """

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@attrs.frozen
class Check:
    """
    @ivar name: what was looked at.
    @ivar found: what there is, or what is wrong with it.
    """

    name: str
    verdict: Verdict
    found: str


def self_check(
    file: Path, overrides: Overrides, now: Callable[[], datetime]
) -> Iterator[Check]:
    """
    @param file: C{agent.conf}.
    """
    try:
        settings, warnings = load_agent_settings(file, overrides)
    except CtrlExecError as error:
        yield _fail("settings", str(error))
        return
    yield _ok("settings", f"{file}, for the agent {settings.name}")
    yield from _warned("settings", warnings)
    yield whose_rights(settings.state_dir, os.geteuid())
    yield from _identity(settings, now())
    yield from _trust(settings)
    yield from _places(settings)
    yield from _scripts(settings)


def whose_rights(state_dir: Path, uid: int) -> Check:
    """
    For whom all of this is looked at. The agent runs as whoever its state
    belongs to, and may have fewer rights than whoever asks.

    @param uid: who asks.
    """
    ours, owner = _user(uid), _owner(state_dir, uid)
    if owner == uid:
        return _ok("rights", f"looked at with those of {ours}")
    theirs = _user(owner)
    return _warn(
        "rights",
        f"looked at with those of {ours}, but {state_dir} belongs to {theirs}; "
        f"to see what the agent can do, run self-check as {theirs}",
    )


def _owner(state_dir: Path, uid: int) -> int:
    """
    @return: whom the agent runs as; the given one where nobody can tell.
    """
    try:
        return state_dir.stat().st_uid
    except OSError:
        return uid


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _identity(settings: AgentSettings, now: datetime) -> Iterator[Check]:
    if not identity.is_paired(settings):
        yield _fail("identity", "this agent is not paired")
        return
    try:
        held = identity.identity(settings).load()
    except CtrlExecError as error:
        yield _fail("identity", str(error))
        return
    yield _ok("identity", f"{settings.key}, {settings.cert} and {settings.ca}")
    try:
        check_issued(cert=held.cert, ca=held.ca, key=held.key, now=now)
    except CtrlExecError as error:
        yield _fail("certificate", str(error))
    else:
        yield _validity(held.info, now)
    try:
        identity.check_meant_for(settings.name, held.info)
    except CtrlExecError as error:
        yield _warn("name", str(error))
    if is_staged(settings):
        path = settings.cert_staging_path
        yield _warn("staged", f"{path} waits for 'promote-cert' and a restart")


def _validity(info: CertificateInfo, now: datetime) -> Check:
    text = f"{info.serial}, ends {openssl_time(info.not_after)}"
    verdict = Verdict.OK if now + _SOON < info.not_after else Verdict.WARN
    return Check("certificate", verdict, text)


def _trust(settings: AgentSettings) -> Iterator[Check]:
    trusted, revoked = TrustedMap(), frozenset[str]()
    try:
        trusted = stored_trust(settings)
    except CtrlExecError as error:
        yield _fail("dispatchers", str(error))
    else:
        ids = ", ".join(sorted(set(trusted.entries.values())))
        yield (
            _ok("dispatchers", f"trusts {ids}")
            if ids
            else _fail("dispatchers", "none is trusted, so nobody gives orders")
        )
    try:
        revoked = load_revoked(settings.revoked_serials)
        load_pushed(settings.pushed_revocations)
    except CtrlExecError as error:
        yield _fail("revoked", str(error))
    else:
        path = settings.revoked_serials
        there = os.path.exists(path)
        yield _ok("revoked", f"{path}" if there else f"none: there is no {path}")
    for serial in sorted(revoked & trusted.entries.keys()):
        name = trusted.entries[serial]
        yield _warn("revoked", f"{serial} of {name} is trusted and revoked")


def _places(settings: AgentSettings) -> Iterator[Check]:
    runs = settings.async_runs_dir
    for directory in dict.fromkeys(
        (
            settings.trusted_dispatchers_path.parent,
            settings.cert_staging_path.parent,
            # It is made when it is needed first.
            runs if os.path.lexists(runs) else runs.parent,
        )
    ):
        yield (
            _ok("state", f"{directory}")
            if directory.is_dir() and can_write(directory)
            else _fail("state", f"{directory} is not there or not writable")
        )
    for directory in settings.script_dirs or ():
        yield (
            _ok("script_dirs", f"{directory}")
            if directory.is_dir()
            else _fail("script_dirs", f"{directory} is no directory")
        )
    if settings.auth_hook is not None:
        hook = settings.auth_hook
        why = why_not_executable(hook) or why_exposed(hook)
        yield (
            _fail("auth_hook", f"{settings.auth_hook}: {why}")
            if why
            else _ok("auth_hook", f"{settings.auth_hook}")
        )


def _scripts(settings: AgentSettings) -> Iterator[Check]:
    try:
        allowlist, warnings = load_allowlist(settings.allowlist)
    except CtrlExecError as error:
        yield _fail("allowlist", str(error))
        return
    yield _ok("allowlist", f"{settings.allowlist}, scripts: {len(allowlist.scripts)}")
    # Somebody wanted each of them to permit something, and it does not.
    yield from (_fail("allowlist", str(warning)) for warning in warnings)
    policy = _policy(settings, allowlist)
    for name in sorted(allowlist.scripts):
        yield from _script(policy, name)


def _policy(settings: AgentSettings, allowlist: Allowlist) -> Policy:
    """
    What decides on scripts, with nobody who could have one run.
    """
    schemas = schemas_of(allowlist)
    return Policy(settings, allowlist, TrustedMap(), frozenset(), schemas)


def _script(policy: Policy, name: str) -> Iterator[Check]:
    label = f"script {name}"
    match policy.decide(name):
        case NotPermitted(reason):
            yield _fail(label, reason)
        case Permitted(script):
            path = script.path
            why = why_not_executable(path) or why_no_interpreter(path)
            if why is not None:
                yield _fail(label, f"{path}: {why}")
                return
            yield _ok(label, " ".join([str(script.path), *_said(script)]))
            yield from _schema(label, policy.schemas.get(name))
            owner = _owner(policy.settings.state_dir, os.geteuid())
            for each in odd_limits(script.limits, owner):
                yield _warn(label, each)
            for path in (script.path, script.path.parent):
                if path.stat().st_mode & stat.S_IWGRP:
                    yield _warn(label, f"{path} is group-writable")


def _schema(label: str, schema: Schema | Unusable | None) -> Iterator[Check]:
    match schema:
        case Unusable(reason):
            yield _warn(label, f"its schema is not enforced: {reason}")
        case Schema(remark=remark, unknown_formats=formats):
            if remark:
                yield _warn(label, f"its schema: {remark}")
            for each in map(abbreviated, formats):
                yield _warn(label, f"its schema: format {each} is not known")


def _said(script: Script) -> Iterator[str]:
    """
    What its line in the allowlist says beside the path.
    """
    for key, value in script.annotations().items():
        yield f"{key}={value}"


def _warned(name: str, warnings: tuple[SettingsWarning, ...]) -> Iterator[Check]:
    for warning in warnings:
        yield _warn(name, str(warning))


def _ok(name: str, found: str) -> Check:
    return Check(name, Verdict.OK, found)


def _warn(name: str, found: str) -> Check:
    return Check(name, Verdict.WARN, found)


def _fail(name: str, found: str) -> Check:
    return Check(name, Verdict.FAIL, found)
