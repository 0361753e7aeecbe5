# SPDX-License-Identifier: AGPL-3.0-only
"""
What happens on an agent.
"""

from __future__ import annotations

import attrs

from ctrlexec.events.event import ErrorEvent, Event, WarningEvent


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
class CapabilitiesDenied(WarningEvent):
    """Somebody asked what the agent offers and is not trusted."""

    action = "capabilities-deny"
    peer: str
    peer_serial: str
    reason: str
    dispatcher: str | None = None


@attrs.frozen
class SerialRejected(WarningEvent):
    """A certificate of the CA gave an order and is no trusted dispatcher's."""

    action = "serial-reject"
    peer: str
    peer_serial: str
    reqid: str


@attrs.frozen
class CertificateRevoked(WarningEvent):
    """A revoked certificate connected."""

    action = "revoked-cert"
    peer: str
    serial: str


@attrs.frozen
class TlsFailed(WarningEvent):
    """A connection did not get through its handshake."""

    action = "tls-failure"
    peer: str
    reason: str


@attrs.frozen
class AddressBlocked(WarningEvent):
    """A connection came from an address that may not connect."""

    action = "ip-block"
    peer: str


@attrs.frozen
class RateBlocked(WarningEvent):
    """An address is blocked for a while, since it came too often or failed."""

    action = "rate-block"
    peer: str
    reason: str


@attrs.frozen
class RateEvicted(WarningEvent):
    """More addresses came than are kept in mind; so many are forgotten."""

    action = "rate-evict"
    count: int


@attrs.frozen
class Overloaded(WarningEvent):
    """
    There are too many connections: one was closed at once, or the oldest that
    proved nothing made room for it; said once.
    """

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
class SerialNotChanged(WarningEvent):
    """A dispatcher may not change that."""

    action = "rotate-deny"
    dispatcher: str
    reason: str


@attrs.frozen
class SerialChangeFailed(ErrorEvent):
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
class CsrMade(Event):
    """A dispatcher is ready to renew the agent's certificate, and has a request
    for the next one."""

    action = "renew"
    peer: str
    reqid: str
    dispatcher: str
    status: str


@attrs.frozen
class CsrNotMade(ErrorEvent):
    """A dispatcher is ready to renew the agent's certificate, and has no request
    for the next one."""

    action = "renew"
    peer: str
    reqid: str
    dispatcher: str
    error: str


@attrs.frozen
class CertificateTaken(Event):
    """The agent shows a renewed certificate from now on, which is in the place
    of the old one or waits for that."""

    action = "renew-complete"
    peer: str
    reqid: str
    dispatcher: str
    status: str
    expiry: str


@attrs.frozen
class CertificateNotTaken(ErrorEvent):
    """The agent keeps the certificate that it has, and why."""

    action = "renew-complete"
    peer: str
    reqid: str
    dispatcher: str
    error: str


@attrs.frozen
class CertificatePromoted(Event):
    """A renewed certificate is in the place of the old one."""

    action = "cert-promote"
    status: str


@attrs.frozen
class CertificateNotPromoted(WarningEvent):
    """A renewed certificate is not in the place of the old one, and why."""

    action = "cert-promote"
    error: str


@attrs.frozen
class RevocationsStored(Event):
    """A dispatcher has sent a list of revoked certificates, which is in force
    here; so many are revoked by it and those before."""

    action = "revocations"
    peer: str
    dispatcher: str
    number: int
    count: int


@attrs.frozen
class RevocationsRefused(WarningEvent):
    """A dispatcher has sent a list of revoked certificates that does not count,
    and why."""

    action = "revocations-deny"
    peer: str
    dispatcher: str
    reason: str
    number: int | None = None


@attrs.frozen
class RevocationsNotStored(ErrorEvent):
    """A dispatcher has sent a list of revoked certificates that could not be
    stored, so it does not count."""

    action = "revocations-fail"
    peer: str
    dispatcher: str
    error: str


@attrs.frozen
class SettingsWarned(WarningEvent):
    """A settings file holds something that is not used."""

    action = "config-warn"
    msg: str


@attrs.frozen
class SchemaSkipped(WarningEvent):
    """The sidecar of a script can not be used; with C{enforce_schema} the
    script does not run."""

    action = "schema-skip"
    script: str
    reason: str


@attrs.frozen
class SchemaVersionDerived(WarningEvent):
    """The sidecar of a script has a version that is none."""

    action = "schema-version-derive"
    script: str
    reason: str


@attrs.frozen
class SchemaFormatIgnored(WarningEvent):
    """The sidecar of a script names formats that nobody here can check."""

    action = "schema-format"
    script: str
    formats: str


@attrs.frozen
class Reloaded(Event):
    """The settings were read again, and are in force."""

    action = "reload"
    status: str
    scripts: int


@attrs.frozen
class ReloadFailed(WarningEvent):
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
class PairingDenied(WarningEvent):
    """The dispatcher said no."""

    action = "pair-denied"
    reqid: str
    reason: str


@attrs.frozen
class PairingTimedOut(WarningEvent):
    """No decision came while the agent waited."""

    action = "pair-timeout"
    reqid: str


@attrs.frozen
class PairingFailed(WarningEvent):
    """The exchange ended before a decision."""

    action = "pair-fail"
    reason: str
    reqid: str | None = None
