# SPDX-License-Identifier: AGPL-3.0-only
"""
C{join}: an agent is paired by a token, and no person is needed at either end
(C{docs/pairing.md}, "Joining without a person").
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

import attrs
from twisted.internet.defer import Deferred, succeed

from ctrlexec.agent import identity
from ctrlexec.agent.applying import DENIED, pair, planned
from ctrlexec.agent.policy import Overrides, load_agent_settings
from ctrlexec.errors import CtrlExecError, InvalidValue
from ctrlexec.files import read_bounded
from ctrlexec.joining import JoinSecret
from ctrlexec.protocol.agreement import Awaited, Terms

#: Where a token is looked for that is neither on the command line nor in a file.
VARIABLE = "CTRL_EXEC_JOIN_TOKEN"

#: How long it may take: no person is waited for.
_SECONDS = 60
_FILE_BYTES = 4096
_ANYBODY_MAY_READ = 0o004


@attrs.frozen
class _Nobody:
    """
    There is no person, and no need of one: the token has named the CA.
    """

    def compares(self, awaited: Awaited) -> Deferred[bool]:
        """
        See L{ctrlexec.agent.enrolment.Person}.
        """
        return succeed(True)


def join(options: Namespace) -> int:
    """
    Prove the token to the dispatcher, and store what comes of it.

    @return: the exit status.
    @raise CtrlExecError: nothing came of it.
    """
    token = given_token(options.token, options.token_file, os.environ)
    settings, _ = load_agent_settings(options.config, Overrides())
    identity.recover(settings)
    identity.prepare(settings)
    plan = planned(options, settings, Terms.joining(token), False)
    plan = attrs.evolve(plan, seconds=options.timeout or _SECONDS)
    status = pair(plan, _Nobody())
    if status == DENIED:
        sys.stderr.write(
            "hint: the token is unknown there, used up, too old, revoked, or not for "
            f"{settings.name}; or that dispatcher can let nobody in. Its log says "
            "which: join-refused\n"
        )
    return status


def given_token(
    argument: str | None, file: Path | None, environ: Mapping[str, str]
) -> JoinSecret:
    """
    @param argument: the token on the command line, or C{None}.
    @param file: a file that holds it, or C{None}.
    @raise CtrlExecError: there is none, or none that can be used. No message
        has the token in it.
    """
    if file is not None:
        return JoinSecret.parse(_read(file))
    text = argument if argument is not None else environ.get(VARIABLE)
    if text is None:
        raise CtrlExecError(
            "join needs a token",
            hint="ctrl-exec join-token create makes one on the dispatcher; it goes "
            f"into --token-file FILE, ${VARIABLE} or the command line",
        )
    return JoinSecret.parse(text)


def _read(file: Path) -> str:
    try:
        data = read_bounded(file, _FILE_BYTES)
        mode = file.stat().st_mode
    except FileNotFoundError:
        raise CtrlExecError(f"{file}: there is no such file") from None
    if mode & _ANYBODY_MAY_READ:
        sys.stderr.write(
            f"warning: {file}: anybody on this host can read the token\n"
            f"hint: chmod 600 {file}\n"
        )
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        raise InvalidValue("token file", str(file), "a join token") from None
