# SPDX-License-Identifier: AGPL-3.0-only
"""
What happens on a dispatcher.

It is over 400 lines, since it is a list of everything that does.
"""

from __future__ import annotations

import attrs

from ctrlexec.events.event import ErrorEvent, Event, WarningEvent


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
    """It is known what became of a run on a host, in the one word C{state};
    either C{exit} or C{error} is given."""

    action = "run"
    script: str
    target: str
    rtt: str
    reqid: str
    exit: int | None = None
    error: str | None = None
    state: str | None = None


@attrs.frozen
class RunSubmitted(Event):
    """A run has begun on a host, and nobody waits for its end."""

    action = "run-async"
    script: str
    target: str
    rtt: str
    reqid: str
    status: str = "accepted"


@attrs.frozen
class RunBusy(WarningEvent):
    """A run has not begun on a host, because it runs there already."""

    action = "run-async"
    script: str
    target: str
    rtt: str
    reqid: str
    error: str
    status: str = "busy"


@attrs.frozen
class RunNotSubmitted(ErrorEvent):
    """A run has not begun on a host, or nobody can tell; C{state} says which."""

    action = "run-async"
    script: str
    target: str
    rtt: str
    reqid: str
    error: str
    state: str
    status: str = "error"


@attrs.frozen
class DispatchStopped(WarningEvent):
    """An order goes to so many of its hosts no more, because others failed."""

    action = "dispatch-stop"
    script: str
    reqid: str
    left: int
    reason: str


@attrs.frozen
class ResultFetched(Event):
    """An agent has said how far a run is: C{running}, C{done}, C{expired}."""

    action = "result"
    target: str
    status: str
    rtt: str
    reqid: str


@attrs.frozen
class ResultNotFetched(ErrorEvent):
    """An agent has not said how far a run is."""

    action = "result"
    target: str
    error: str
    rtt: str
    reqid: str


@attrs.frozen
class RunSettled(Event):
    """It has become known what became of a run on a host, in the one word
    C{state}, after whoever asked for it had been told that it goes on, or that
    nobody knows; told once."""

    action = "run-settled"
    script: str
    target: str
    state: str
    reqid: str


@attrs.frozen
class AttachBegun(Event):
    """Somebody hears from now on what a run writes on hosts."""

    action = "attach"
    script: str
    hosts: str
    reqid: str
    user: str


@attrs.frozen
class CancelAnswered(Event):
    """Somebody has ended a run on a host, or it had ended: C{state} says how."""

    action = "cancel"
    target: str
    state: str
    rtt: str
    reqid: str
    user: str


@attrs.frozen
class CancelFailed(WarningEvent):
    """Somebody wanted to end a run on a host, and nobody knows whether it has."""

    action = "cancel"
    target: str
    error: str
    rtt: str
    reqid: str
    user: str


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
class Discovered(Event):
    """An agent was asked what it offers; C{scripts} counts them."""

    action = "capabilities"
    target: str
    rtt: str
    scripts: int | None = None
    error: str | None = None


@attrs.frozen
class LockAcquired(Event):
    """A script is locked on hosts, until it has ended there."""

    action = "lock-acquire"
    hosts: str
    script: str
    reqid: str


@attrs.frozen
class LockReleased(Event):
    """A script is locked no longer on a host."""

    action = "lock-release"
    hosts: str
    script: str
    reqid: str


@attrs.frozen
class LockConflict(WarningEvent):
    """A script was not run, because it runs already on some of the hosts."""

    action = "lock-conflict"
    conflicts: str
    reqid: str
    user: str


@attrs.frozen
class RunNotStored(ErrorEvent):
    """The results of a run could not be kept."""

    action = "run-store-fail"
    reqid: str
    error: str


@attrs.frozen
class RunsNotSwept(ErrorEvent):
    """The results of runs that are over a day old could not be removed."""

    action = "run-sweep-fail"
    error: str


@attrs.frozen
class AgentEdited(Event):
    """A person has changed where an agent is reached, or what it is called."""

    action = "edit-agent"
    agent: str
    user: str
    renamed_from: str | None = None
    ip: str | None = None
    port: int | None = None
    lookup_by: str | None = None


@attrs.frozen
class AgentUnpaired(Event):
    """A person has removed an agent; its certificate is valid until it ends."""

    action = "unpair"
    agent: str
    expiry: str
    user: str


@attrs.frozen
class RenewalBegun(Event):
    """An agent has sent the request for its next certificate."""

    action = "renew"
    target: str
    reqid: str


@attrs.frozen
class RenewalNotBegun(ErrorEvent):
    """An agent has sent no request for its next certificate that is any good."""

    action = "renew"
    target: str
    reqid: str
    error: str


@attrs.frozen
class RenewalCompleted(Event):
    """An agent has its next certificate; C{staged} if it waits there to be put
    in its place."""

    action = "renew-complete"
    target: str
    expiry: str
    reqid: str
    serial: str
    staged: str | None = None


@attrs.frozen
class RenewalNotCompleted(ErrorEvent):
    """An agent has not taken the certificate that was issued to it."""

    action = "renew-complete"
    target: str
    reqid: str
    error: str


@attrs.frozen
class Revoked(WarningEvent):
    """A person has revoked a certificate; C{agent} is whose it is, if that is
    known."""

    action = "revoke"
    serial: str
    user: str
    reason: str | None = None
    agent: str | None = None


@attrs.frozen
class RevocationsPushed(Event):
    """An agent has the list of revoked certificates of this number."""

    action = "revocations"
    target: str
    number: int


@attrs.frozen
class RevocationsNotPushed(WarningEvent):
    """An agent does not have the list of revoked certificates of this number."""

    action = "revocations"
    target: str
    number: int
    error: str


@attrs.frozen
class RotationBegun(Event):
    """The next certificate of the dispatcher is made, and not used yet."""

    action = "cert-renewal-start"
    serial: str
    previous: str
    user: str


@attrs.frozen
class RotationSwitched(Event):
    """The dispatcher uses its next certificate from now on."""

    action = "cert-switch"
    serial: str
    previous: str


@attrs.frozen
class SerialAnnounced(Event):
    """So many agents are about to be told of a serial of the dispatcher's."""

    action = "serial-broadcast"
    hosts: int
    serial: str
    dispatcher: str


@attrs.frozen
class SerialConfirmed(Event):
    """An agent has said that it trusts a serial."""

    action = "serial-confirmed"
    agent: str
    serial: str


@attrs.frozen
class SerialNotConfirmed(WarningEvent):
    """An agent has not said that it trusts a serial; it is told again."""

    action = "serial-broadcast-fail"
    agent: str
    serial: str
    error: str


@attrs.frozen
class SerialStale(WarningEvent):
    """An agent was not told in time. If it is of the original it has to be
    paired again."""

    action = "serial-stale"
    agent: str


@attrs.frozen
class SerialRetired(Event):
    """So many agents were told not to trust a serial any more."""

    action = "serial-retire"
    hosts: int
    serial: str


@attrs.frozen
class SerialNotRetired(WarningEvent):
    """An agent has not said that it trusts a serial no more."""

    action = "serial-retire-error"
    agent: str
    serial: str
    error: str


@attrs.frozen
class MaintenanceDone(Event):
    """All agents were pinged, and all that was due is done; so many answered."""

    action = "maintain"
    agents: int
    pinged: int


@attrs.frozen
class MaintenanceFailed(ErrorEvent):
    """A part of what is looked after from time to time could not be done."""

    action = "maintain"
    phase: str
    error: str


@attrs.frozen
class PairingOpened(Event):
    """The pairing port is open; in the background, in a process, for so long."""

    action = "pairing-mode-start"
    port: int
    pid: int | None = None
    timeout: int | None = None


@attrs.frozen
class PairingClosed(Event):
    """The pairing port is closed; or the process that has it was told so."""

    action = "pairing-mode-stop"
    pid: int | None = None


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
class PairRejected(WarningEvent):
    """A request on the pairing port was none to decide on."""

    action = "pair-reject"
    ip: str
    reason: str


@attrs.frozen
class PairApproved(Event):
    """A person, or C{token:ID}, has approved an agent; its certificate is issued."""

    action = "pair-approve"
    agent: str
    reqid: str
    serial: str
    user: str
    #: C{"legacy"} where the code said nothing of the dispatcher.
    exchange: str | None = None


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
