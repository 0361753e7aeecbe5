# SPDX-License-Identifier: AGPL-3.0-only
"""
What happened: the catalogue of events, one line each.

Every run, every refusal and every change of trust is an event. Its line reads
C{ACTION=name KEY=value …}, keys in alphabetical order (PROTOCOL.md section 9,
NEWER-LINE.md section 16); no value can add a key or a line of its own. A token
is never a field.
"""

from __future__ import annotations

import re
import syslog
from typing import ClassVar

import attrs

from ctrlexec.errors import one_line

_PLAIN = re.compile(r"[^\s\"\\=\x00-\x1f\x7f-\x9f\u2028\u2029]*")


@attrs.frozen
class Event:
    """
    One thing that happened. A field that is C{None} is left out of the line.
    """

    action: ClassVar[str]
    level: ClassVar[int] = syslog.LOG_INFO

    def line(self) -> str:
        """
        The event as it is logged.
        """
        fields = {
            name.rstrip("_").upper(): _spelled(str(value))
            for name, value in attrs.asdict(self).items()
            if value is not None
        }
        pairs = [f"{key}={fields[key]}" for key in sorted(fields)]
        return " ".join([f"ACTION={self.action}", *pairs])


def _spelled(value: str) -> str:
    if _PLAIN.fullmatch(value) and value.isprintable():
        return value
    escaped = one_line(value.replace("\\", "\\\\").replace('"', '\\"'))
    return f'"{escaped}"'


class _Warning(Event):
    level = syslog.LOG_WARNING


# --- of the agent --------------------------------------------------------


@attrs.frozen
class AgentStarted(Event):
    """The agent listens."""

    action = "start"
    port: int


@attrs.frozen
class AgentStopped(Event):
    """The agent has stopped; so many scripts go on without it."""

    action = "stop"
    runs: int


@attrs.frozen
class RunStarted(Event):
    """A script is about to start."""

    action = "run-start"
    script: str
    peer: str
    reqid: str
    dispatcher: str


@attrs.frozen
class RunEnded(Event):
    """A script has ended."""

    action = "run"
    script: str
    exit: int
    peer: str
    reqid: str
    dispatcher: str


@attrs.frozen
class RunDenied(_Warning):
    """A script was not started."""

    action = "deny"
    script: str
    peer: str
    reqid: str
    reason: str
    dispatcher: str


@attrs.frozen
class StdinTimedOut(_Warning):
    """A script did not read its context in time."""

    action = "stdin-timeout"
    script: str
    reqid: str


@attrs.frozen
class PingAnswered(Event):
    """A dispatcher asked whether the agent is there."""

    action = "ping"
    peer: str
    reqid: str
    dispatcher: str


@attrs.frozen
class CapabilitiesAnswered(Event):
    """A dispatcher asked what the agent offers."""

    action = "capabilities"
    peer: str
    scripts: int
    dispatcher: str


@attrs.frozen
class CapabilitiesDenied(_Warning):
    """Somebody asked what the agent offers and is not trusted."""

    action = "capabilities-deny"
    peer: str
    peer_serial: str
    reason: str


@attrs.frozen
class SerialRejected(_Warning):
    """A certificate of the CA gave an order and is no trusted dispatcher's."""

    action = "serial-reject"
    peer: str
    peer_serial: str
    reqid: str


@attrs.frozen
class CertificateRevoked(_Warning):
    """A revoked certificate connected."""

    action = "revoked-cert"
    peer: str
    serial: str


@attrs.frozen
class TlsFailed(_Warning):
    """A connection did not get through its handshake."""

    action = "tls-failure"
    peer: str
    reason: str


@attrs.frozen
class AddressBlocked(_Warning):
    """A connection came from an address that may not connect."""

    action = "ip-block"
    peer: str


@attrs.frozen
class SettingsWarned(_Warning):
    """A settings file holds something that is not used."""

    action = "config-warn"
    msg: str


@attrs.frozen
class Reloaded(Event):
    """The settings were read again, and are in force."""

    action = "reload"
    status: str
    scripts: int


@attrs.frozen
class ReloadFailed(_Warning):
    """The settings were read again, and the old ones stay in force."""

    action = "reload"
    status: str
    error: str


@attrs.frozen
class PairingCompleted(Event):
    """The agent has stored an identity and trusts a dispatcher."""

    action = "pair-complete"
    status: str
    dispatcher: str
    dispatcher_host: str


@attrs.frozen
class PairingDenied(_Warning):
    """The dispatcher said no."""

    action = "pair-denied"
    reqid: str
    reason: str


@attrs.frozen
class PairingTimedOut(_Warning):
    """No decision came while the agent waited."""

    action = "pair-timeout"
    reqid: str


@attrs.frozen
class PairingFailed(_Warning):
    """The exchange ended before a decision."""

    action = "pair-fail"
    reason: str
    reqid: str | None = None


# --- of the dispatcher ---------------------------------------------------


@attrs.frozen
class Dispatched(Event):
    """A script is about to be asked for."""

    action = "dispatch"
    script: str
    hosts: str
    reqid: str
    user: str
    mode: str = "sync"


@attrs.frozen
class RunAnswered(Event):
    """An agent has answered; either C{exit} or C{error} is given."""

    action = "run"
    script: str
    target: str
    rtt: str
    reqid: str
    exit: int | None = None
    error: str | None = None


@attrs.frozen
class Pinged(Event):
    """An agent was pinged; either C{result} or C{error} is given."""

    action = "ping"
    target: str
    rtt: str
    reqid: str
    result: str | None = None
    error: str | None = None


@attrs.frozen
class PairingOpened(Event):
    """The pairing port is open."""

    action = "pairing-mode-start"
    port: int


@attrs.frozen
class PairingClosed(Event):
    """The pairing port is closed."""

    action = "pairing-mode-stop"


@attrs.frozen
class PairingExpired(Event):
    """The pairing port closes because its time is over."""

    action = "pairing-mode-timeout"
    port: int


@attrs.frozen
class PairRequested(Event):
    """An agent asks to be paired."""

    action = "pair-request"
    agent: str
    ip: str
    reqid: str
    status: str
    reported_ip: str | None = None


@attrs.frozen
class PairRejected(_Warning):
    """A request on the pairing port was none to decide on."""

    action = "pair-reject"
    ip: str
    reason: str


@attrs.frozen
class PairApproved(Event):
    """A person has approved an agent; its certificate is issued."""

    action = "pair-approve"
    agent: str
    reqid: str
    serial: str
    user: str


@attrs.frozen
class PairDenied(Event):
    """A person has denied an agent."""

    action = "pair-deny"
    agent: str
    reqid: str
    user: str


@attrs.frozen
class PairEnded(Event):
    """A request has left the queue: delivered, denied, expired or withdrawn."""

    action = "pair-end"
    agent: str
    reqid: str
    status: str


@attrs.frozen
class AuthorityCreated(Event):
    """There is a new certificate authority."""

    action = "ca-create"
    serial: str
    user: str


@attrs.frozen
class IdentityCreated(Event):
    """The dispatcher has a new identity."""

    action = "identity-create"
    serial: str
    user: str
