# SPDX-License-Identifier: AGPL-3.0-only
"""
The modes for whoever looks after an agent, people and init scripts:
C{self-check}, C{self-ping}, C{paired}, C{cert-staged}, C{promote-cert}
(NEWER-LINE.md section 12.1).
"""

from __future__ import annotations

import sys
from argparse import Namespace
from datetime import datetime, timezone

from ctrlexec.agent import identity
from ctrlexec.agent.policy import Overrides, load_agent_settings
from ctrlexec.agent.self_check import Verdict
from ctrlexec.agent.self_check import self_check as checks
from ctrlexec.agent.settings import AgentSettings
from ctrlexec.agent.staging import is_staged, promote
from ctrlexec.errors import CtrlExecError, explained, one_line
from ctrlexec.events import CertificateNotPromoted
from ctrlexec.sinks import open_sink

_PROGRAM = "ctrl-exec-agent"


def self_check(options: Namespace) -> int:
    """
    Print each check, by name.

    @return: 0 unless one has failed; a warning fails nothing.
    """
    failed = False
    overrides = Overrides(options.port, options.allowlist)
    for check in checks(options.config, overrides, _now):
        failed = failed or check.verdict is Verdict.FAIL
        _say(f"{check.verdict.value:<4}  {check.name:<16}  {one_line(check.found)}")
    return 1 if failed else 0


def self_ping(options: Namespace) -> int:
    """
    Ask the agent that runs here whether it is there.

    @return: 0.
    @raise CtrlExecError: it is not.
    """
    from ctrlexec.agent import self_ping as asking
    from ctrlexec.agent.service import global_reactor
    from ctrlexec.foreground import run_to_end

    settings = _settings(options)
    credentials = identity.identity(settings).load()
    reactor = global_reactor()
    _say(run_to_end(reactor, asking.self_ping(reactor, settings, credentials)))
    return 0


def paired(options: Namespace) -> int:
    """
    @return: 0 if there are key, certificate and CA, else 1; nothing is printed.
    """
    return 0 if identity.is_paired(_settings(options)) else 1


def cert_staged(options: Namespace) -> int:
    """
    @return: 0 if a renewed certificate waits, else 1; nothing is printed.
    """
    return 0 if is_staged(_settings(options)) else 1


def promote_cert(options: Namespace) -> int:
    """
    Put the certificate that waits in its place.

    @return: 0 whatever happens: this runs before each start of the agent, and
        the old certificate is better than no agent.
    """
    try:
        settings = _settings(options)
    except (CtrlExecError, OSError) as error:
        # Nobody says where the log is.
        _complain(error)
        return 0
    events = open_sink(str(settings.log), _PROGRAM, _now, sys.stderr)
    try:
        promoted = promote(settings, events, _now)
    except Exception as error:
        # One that is a fault of ours must not keep the agent from starting
        # either.
        events.emit(CertificateNotPromoted(_words(error)))
        _complain(error)
        return 0
    if promoted:
        _say(f"{settings.cert} is the renewed certificate")
    return 0


def _words(error: Exception) -> str:
    if isinstance(error, (CtrlExecError, OSError)):
        return str(error)
    return f"internal error: {error!r}"


def _complain(error: Exception) -> None:
    if not isinstance(error, CtrlExecError):
        error = CtrlExecError(_words(error))
    sys.stderr.write(explained(error))


def _settings(options: Namespace) -> AgentSettings:
    overrides = Overrides(options.port, options.allowlist)
    settings, _ = load_agent_settings(options.config, overrides)
    return settings


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _now() -> datetime:
    return datetime.now(timezone.utc)
