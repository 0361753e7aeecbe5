# SPDX-License-Identifier: AGPL-3.0-only
"""
What happened: the catalogue of events, one line each.

Every run, every refusal and every change of trust is an event. Its line reads
C{ACTION=name KEY=value …}, keys in alphabetical order (PROTOCOL.md section 9,
NEWER-LINE.md section 16); no value can add a key or a line of its own. A token
is never a field.

It is over 400 lines, since the catalogue is one: who reads a log looks here.
"""

from __future__ import annotations

import re
import syslog
from typing import ClassVar

import attrs

from ctrlexec.errors import one_line

_PLAIN = re.compile(r"[^\s\"\\=\x00-\x1f\x7f-\x9f\u2028\u2029]*")
_CHARACTERS = 128


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
        fields = self.fields()
        pairs = [f"{key}={_spelled(fields[key])}" for key in sorted(fields)]
        return " ".join([f"ACTION={self.action}", *pairs])

    def fields(self) -> dict[str, str]:
        """
        What the event says, by key; its action is none of the keys.
        """
        return {
            name.rstrip("_").upper(): str(value)
            for name, value in attrs.asdict(self).items()
            if value is not None
        }


def brief(text: str | None) -> str:
    """
    As much of a caller's words as a line of the log has room for; no name or id
    that is any good is longer.
    """
    text = text or ""
    if len(text) <= _CHARACTERS:
        return text
    return f"{text[:_CHARACTERS]}…"


def _spelled(value: str) -> str:
    if _PLAIN.fullmatch(value) and value.isprintable():
        return value
    escaped = one_line(value.replace("\\", "\\\\").replace('"', '\\"'))
    return f'"{escaped}"'


class _Warning(Event):
    level = syslog.LOG_WARNING


class _Error(Event):
    level = syslog.LOG_ERR


# --- of the agent --------------------------------------------------------


@attrs.frozen
class AgentStarted(Event):
    """The agent listens."""

    action = "start"
    port: int


@attrs.frozen
class AgentStopped(Event):
    """The agent has stopped; so many runs go on without it, and which."""

    action = "stop"
    runs: int
    reqids: str | None = None


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
    dispatcher: str | None = None


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
class RateBlocked(_Warning):
    """An address is blocked for a while, since it came too often or failed."""

    action = "rate-block"
    peer: str
    reason: str


@attrs.frozen
class RateEvicted(_Warning):
    """More addresses came than are kept in mind; so many are forgotten."""

    action = "rate-evict"
    count: int


@attrs.frozen
class Overloaded(_Warning):
    """A connection was closed at once, for there are too many; said once."""

    action = "overload"
    peer: str
    live: int


@attrs.frozen
class SerialChanged(Event):
    """A dispatcher has changed which of its serials the agent trusts."""

    action = "rotate"
    dispatcher: str
    serial_action: str
    serial: str
    peer: str


@attrs.frozen
class SerialNotChanged(_Warning):
    """A dispatcher may not change that."""

    action = "rotate-deny"
    dispatcher: str
    reason: str


@attrs.frozen
class SerialChangeFailed(_Error):
    """A dispatcher may change that, but the map could not be written."""

    action = "rotate-fail"
    dispatcher: str
    error: str


@attrs.frozen
class TrustMigrated(Event):
    """The older line's single serial has become the trusted map."""

    action = "trust-migrate"
    dispatcher: str
    serial: str


@attrs.frozen
class CertificatePromoted(Event):
    """A renewed certificate is in the place of the old one."""

    action = "cert-promote"
    status: str


@attrs.frozen
class CertificateNotPromoted(_Warning):
    """A renewed certificate was not one for this agent."""

    action = "cert-promote"
    error: str


@attrs.frozen
class SettingsWarned(_Warning):
    """A settings file holds something that is not used."""

    action = "config-warn"
    msg: str


@attrs.frozen
class SchemaSkipped(_Warning):
    """The sidecar of a script can not be used; with C{enforce_schema} the
    script does not run."""

    action = "schema-skip"
    script: str
    reason: str


@attrs.frozen
class SchemaVersionDerived(_Warning):
    """The sidecar of a script has a version that is none."""

    action = "schema-version-derive"
    script: str
    reason: str


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


# --- of both -------------------------------------------------------------


@attrs.frozen
class Authorised(Event):
    """The auth hook has allowed something."""

    action = "auth"
    authaction: str
    user: str
    ip: str
    dispatcher: str | None = None
    result: str = "pass"


@attrs.frozen
class NotAuthorised(_Warning):
    """The auth hook has denied something, or could not be asked."""

    action = "auth"
    authaction: str
    user: str
    ip: str
    dispatcher: str | None
    reason: str
    result: str = "deny"


@attrs.frozen
class AuthHookTimedOut(_Warning):
    """The auth hook took too many seconds, and was killed."""

    action = "auth-hook-timeout"
    timeout: str


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
