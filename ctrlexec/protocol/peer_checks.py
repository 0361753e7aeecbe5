# SPDX-License-Identifier: AGPL-3.0-only
"""
What an agent must prove to be before it is asked anything: DESIGN.md, Trust.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from ctrlexec.errors import Untrusted
from ctrlexec.pki import AgentRole, CertificateInfo, DispatcherRole
from ctrlexec.protocol.connection import PeerCheck
from ctrlexec.values import openssl_time


def any_agent(certificate: CertificateInfo | None) -> None:
    """
    Any certificate of the CA, as the original has it, but a dispatcher's.
    """
    if certificate is None or isinstance(certificate.role, DispatcherRole):
        raise Untrusted("the peer's certificate is not an agent's")


def named(name: str) -> PeerCheck:
    """
    The agent of this name and no other, so that one compromised agent can not
    answer for another: DESIGN.md, Trust. A certificate that was made by the
    original carries its name in the subject only.
    """

    def check(certificate: CertificateInfo | None) -> None:
        any_agent(certificate)
        assert certificate is not None
        match certificate.role:
            case AgentRole(found):
                # The registry tells names apart by case, so a role does too:
                # WEB-1, once it is paired, must not answer for web-1.
                same = found == name
            case _:
                found = certificate.common_name
                # Outside of ASCII there are letters whose small form is an
                # ASCII one.
                same = found.isascii() and found.lower() == name.lower()
        if not same:
            raise Untrusted(
                f"the certificate is that of {found!r}, not of {name!r}",
                hint="does the registry hold the right address for this agent?",
            )

    return check


def not_before(since: datetime, check: PeerCheck) -> PeerCheck:
    """
    The peer that another check lets through, if its certificate ends no earlier
    than the last one that we know of: a key that the agent has given up, and
    that somebody else may have found, is not good enough.
    """

    def checked(certificate: CertificateInfo | None) -> None:
        check(certificate)
        assert certificate is not None
        if certificate.not_after < since:
            raise Untrusted(
                "the certificate ended at "
                f"{openssl_time(certificate.not_after)}, and the agent has had a "
                "later one",
                hint="if the agent was set back to an older state, pair it again",
            )

    return checked


def unrevoked(revoked: Callable[[], frozenset[str]], check: PeerCheck) -> PeerCheck:
    """
    The peer that another check lets through, unless its certificate is revoked.
    """

    def checked(certificate: CertificateInfo | None) -> None:
        check(certificate)
        assert certificate is not None
        if certificate.serial in revoked():
            raise Untrusted(
                "certificate revoked",
                hint="pair the agent again if it is in good hands",
            )

    return checked
