# SPDX-License-Identifier: AGPL-3.0-only
"""
A renewed certificate that waits to be put in its place: C{cert-staged} and
C{promote-cert} (NEWER-LINE.md section 8).

For agents that can not write their own identity: root promotes what the
agent's user has staged. What that user writes is not trusted; it is looked at
again, whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime

from ctrlexec.agent import identity
from ctrlexec.agent.settings import AgentSettings
from ctrlexec.certificates import check_issued
from ctrlexec.errors import CtrlExecError, PkiError
from ctrlexec.events import CertificateNotPromoted, CertificatePromoted
from ctrlexec.files import read_bounded, remove, write_atomic
from ctrlexec.interfaces import IEventSink

_BYTES = 1_048_576


def is_staged(settings: AgentSettings) -> bool:
    """
    Whether a certificate waits.
    """
    return os.path.isfile(settings.cert_staging_path)


def promote(
    settings: AgentSettings, events: IEventSink, now: Callable[[], datetime]
) -> bool:
    """
    Put the certificate that waits in the place of the old one. One that is not
    for this agent, its key and its CA is removed.

    @return: whether the agent has a new certificate.
    @raise CtrlExecError: nothing could be decided or done; all stays.
    """
    identity.recover(settings)
    if not os.path.lexists(settings.cert_staging_path):
        return False
    if not identity.is_paired(settings):
        raise PkiError("this agent is not paired: there is nothing to renew")
    with identity.locked(settings):
        # What can not be read is not the fault of what waits.
        key, ca = (read_bounded(path, _BYTES) for path in (settings.key, settings.ca))
        try:
            staged = _checked(settings, key, ca, now())
        except CtrlExecError as error:
            events.emit(CertificateNotPromoted(str(error)))
            remove(settings.cert_staging_path)
            return False
        write_atomic(settings.cert, staged, 0o640, keep_owner=True)
        remove(settings.cert_staging_path)
    events.emit(CertificatePromoted("installed"))
    return True


def _checked(settings: AgentSettings, key: bytes, ca: bytes, now: datetime) -> bytes:
    """
    @raise CtrlExecError: it can not be this agent's next certificate.
    """
    path = settings.cert_staging_path
    try:
        staged = read_bounded(path, _BYTES)
        info = check_issued(cert=staged, ca=ca, key=key, now=now)
        identity.check_meant_for(settings.name, info)
    except FileNotFoundError:
        raise PkiError(f"{path}: it is gone, or a link to nowhere") from None
    except PkiError as error:
        raise PkiError(f"{path}: {error}") from None
    return staged
