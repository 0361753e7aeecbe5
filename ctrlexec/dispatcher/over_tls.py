# SPDX-License-Identifier: AGPL-3.0-only
"""
From a dispatcher's settings to what speaks to agents as this dispatcher.
"""

from __future__ import annotations

from datetime import datetime

from twisted.internet.interfaces import IReactorTime

from ctrlexec.dispatcher.dispatch import Agents
from ctrlexec.dispatcher.revocation import FileRevocations, RevokedSerials
from ctrlexec.dispatcher.settings import DispatcherSettings, next_of
from ctrlexec.errors import PkiError
from ctrlexec.protocol.client import AgentClient, Bounds
from ctrlexec.protocol.pool import Pool
from ctrlexec.tls import Identity, mutual_client
from ctrlexec.values import openssl_time

_HOW_TO_SET_UP = "ctrl-exec setup-ctrl-exec makes the dispatcher's key and certificate"


def agents_over_tls(
    settings: DispatcherSettings,
    now: datetime,
    reactor: IReactorTime,
    pool: Pool | None = None,
) -> Agents:
    """
    What speaks to agents as this dispatcher.

    @param pool: where connections wait for the next question, if they do.
    @raise PkiError: the dispatcher has no identity that an agent would accept.
    """
    try:
        credentials = Identity(settings.key, settings.cert, settings.ca).load()
    except PkiError as error:
        match error.__cause__:
            case FileNotFoundError():
                error.hint = _HOW_TO_SET_UP
            case PermissionError():
                error.hint = "the dispatcher's key is for root and its own user"
            case _ if next_of(settings.key).exists():
                error.hint = "a rotation broke off: ctrl-exec maintain goes on with it"
        raise
    # Agents could only say that the handshake failed.
    if credentials.info.not_after <= now:
        ended = openssl_time(credentials.info.not_after)
        raise PkiError(
            f"{settings.cert}: the dispatcher's certificate ended on {ended}",
            hint=_HOW_TO_SET_UP,
        )
    bounds = Bounds(
        connect_seconds=settings.connect_timeout,
        read_seconds=settings.read_timeout,
        answer_bytes=settings.max_answer,
    )
    revoked = RevokedSerials(FileRevocations(settings.revocations_dir))
    return AgentClient(
        reactor, mutual_client(credentials), bounds, pool, revoked=revoked
    )
