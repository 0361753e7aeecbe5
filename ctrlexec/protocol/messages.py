# SPDX-License-Identifier: AGPL-3.0-only
"""
The messages between dispatcher and agent, as frozen values.

How each of them is spelled in JSON is known to L{ctrlexec.protocol.codec} and
its neighbours alone. Sources: PROTOCOL.md sections 2 and 3, NEWER-LINE.md
sections 3 and 5.

It is over 400 lines, since it is no more than a list; what is said about a run
that has begun is in L{ctrlexec.protocol.run_messages}.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from attrs.validators import in_

from ctrlexec.values import NEVER_RAN as NEVER_RAN
from ctrlexec.values import ON_DISCONNECT


@attrs.frozen
class RunRequest:
    """
    A dispatcher asks an agent to run a script.

    @ivar args: what follows the script's own name in its argv.
    @ivar username: who asks, as the caller claims.
    @ivar token: what the caller proves it with; never logged.
    @ivar asynchronous: the answer is not to wait for its end: NEWER-LINE.md
        section 3.3.
    @ivar stream: the answer may be the events of the run, as they come; no
        peer of the original knows of it, as of all that follows.
    @ivar timeout: after how many seconds it is ended, or C{None}.
    @ivar on_disconnect: what happens to it when the caller goes away.
    """

    script: str
    args: tuple[str, ...] = ()
    reqid: str = ""
    username: str = ""
    token: str = attrs.field(default="", repr=False)
    asynchronous: bool = False
    stream: bool = False
    timeout: float | None = None
    on_disconnect: str = attrs.field(default="keep", validator=in_(ON_DISCONNECT))


@attrs.frozen
class RunFinished:
    """
    A script ran and ended.

    @ivar exit: 0 to 255; 126 for a script that a signal ended, 127 for one
        that could not be started.
    @ivar state: how it ended, see L{ctrlexec.protocol.run_messages}.
    @ivar reason: why it did not end by itself, in a few words; else empty.
    """

    script: str
    exit: int
    stdout: str
    stderr: str
    reqid: str
    state: str = "done"
    reason: str = ""


@attrs.frozen
class RunRefused:
    """
    A script was not started.

    @ivar script: C{None} where the request did not get as far as a name.
    @ivar reqid: likewise.
    @ivar state: C{"denied"}; C{"busy"} where it may be started later;
        C{"cancelled"} where somebody has taken the order back.
    @ivar reason: what is behind the error, where that is one of the contract's
        words and more can be told; else empty.
    """

    error: str
    script: str | None = None
    reqid: str | None = None
    state: str = "denied"
    reason: str = ""


@attrs.frozen
class RunAccepted:
    """
    A script runs, and nobody waits for it: the answer to an asynchronous
    request.
    """

    script: str
    reqid: str


#: What an agent answers to a L{RunRequest}.
RunAnswer = RunFinished | RunRefused | RunAccepted


@attrs.frozen
class RunContext:
    """
    What a script reads on its standard input.

    @ivar peer_ip: the dispatcher's address.
    @ivar dispatcher: the id of the dispatcher, from its certificate's place in
        the trusted map.
    @ivar timestamp: ISO 8601, UTC.
    """

    script: str
    args: tuple[str, ...]
    reqid: str
    peer_ip: str
    username: str
    token: str = attrs.field(repr=False)
    timestamp: str
    dispatcher: str


@attrs.frozen
class PingRequest:
    """
    A dispatcher asks whether an agent is there.
    """

    reqid: str = ""


@attrs.frozen
class PingAnswer:
    """
    @ivar host: the agent's own name for itself.
    @ivar expiry: when the agent's certificate ends, in openssl's form; or
        C{"unknown"}.
    @ivar staged: whether a renewed certificate waits to be put in its place; no
        agent of the older line says so.
    @ivar renewal_due: whether the agent wants its certificate to be renewed; no
        agent of the original says so.
    """

    host: str
    version: str
    expiry: str
    reqid: str = ""
    staged: bool = False
    renewal_due: bool = False


@attrs.frozen
class ScriptInfo:
    """
    @ivar executable: whether the agent could start it now.
    @ivar profile: the profile that its line in the allowlist names, or empty.
    @ivar schema: what stands in its schema sidecar, if it has one.
    @ivar schema_version: empty likewise.
    """

    name: str
    path: str
    executable: bool
    profile: str = ""
    schema: Mapping[str, Any] | None = None
    schema_version: str = ""


@attrs.frozen
class Capabilities:
    """
    What an agent offers.

    @ivar scripts: sorted by name.
    @ivar renewal_due: see L{PingAnswer}.
    """

    host: str
    version: str
    scripts: tuple[ScriptInfo, ...] = ()
    tags: Mapping[str, str] = attrs.field(factory=dict)
    renewal_due: bool = False


@attrs.frozen
class RotateRequest:
    """
    A dispatcher asks an agent to trust one more serial of its own, or one less.

    @ivar serial: as it was sent.
    @ivar action: C{"add"} or C{"remove"}.
    @ivar token: for the agent's auth hook; never logged.
    """

    serial: str
    action: str = attrs.field(default="add", validator=in_(("add", "remove")))
    token: str = attrs.field(default="", repr=False)


@attrs.frozen
class RotateDone:
    """
    The agent trusts as it was asked to.

    @ivar dispatcher: the id that the caller's certificate stands for.
    """

    action: str
    serial: str
    dispatcher: str


@attrs.frozen
class RotateFailed:
    """
    The agent trusts as before.
    """

    error: str


#: What an agent answers to a L{RotateRequest}.
RotateAnswer = RotateDone | RotateFailed


@attrs.frozen
class RenewRequest:
    """
    A dispatcher is ready to renew an agent's certificate.

    @ivar new_key: whether it is to be for a new key; no dispatcher of the
        original says so.
    """

    reqid: str = ""
    new_key: bool = False


@attrs.frozen
class RenewCsr:
    """
    An agent asks for its next certificate.

    @ivar csr: PEM.
    """

    csr: str
    reqid: str = ""


@attrs.frozen
class RenewOrder:
    """
    A dispatcher gives an agent its next certificate.

    @ivar cert: PEM.
    @ivar ca: the certificate of the CA, PEM; an agent goes by the one that it
        has.
    """

    cert: str
    ca: str = ""
    reqid: str = ""


@attrs.frozen
class RenewDone:
    """
    The agent has taken its next certificate.

    @ivar staged: whether it waits to be put in its place.
    """

    reqid: str = ""
    staged: bool = False


@attrs.frozen
class RenewFailed:
    """
    The agent keeps the certificate that it has.
    """

    error: str
    reqid: str = ""


@attrs.frozen
class Refused:
    """
    An agent's answer to a request that it does not take.

    @ivar code: the HTTP status.
    @ivar status: C{"forbidden"} beside a serial mismatch, else empty.
    """

    code: int
    error: str
    status: str = ""


SERIAL_MISMATCH = Refused(403, "serial mismatch", "forbidden")
FORBIDDEN = Refused(403, "forbidden")
NOT_AUTHORISED = Refused(403, "not authorised")
REVOKED = Refused(403, "certificate revoked")
NOT_FOUND = Refused(404, "not found")


@attrs.frozen
class JoinProof:
    """
    An agent brings a join token: see L{ctrlexec.joining}.

    @ivar id: the token's, 16 hex characters.
    @ivar mac: 64 hex characters.
    """

    id: str
    mac: str = attrs.field(repr=False)


@attrs.frozen
class PairRequest:
    """
    An agent asks to be paired.

    @ivar csr: PEM, exactly as it was sent: the confirmation code covers it.
    @ivar nonce: 32 hex characters, echoed by an approval.
    @ivar lookup_by: C{"ip"}, C{"hostname"}, or empty: how the agent wants to
        be found.
    @ivar port: the agent's own port; 0 where it did not say.
    @ivar ip: the agent's own address of the connection; empty likewise.
    @ivar commitment: to the nonce that the agent will reveal, 64 hex
        characters; empty in the exchange of the original.
    @ivar join: what is to take the place of a person's decision, or C{None}.
    """

    hostname: str
    csr: str
    nonce: str
    lookup_by: str = attrs.field(default="", validator=in_(("", "ip", "hostname")))
    port: int = 0
    ip: str = ""
    commitment: str = ""
    join: JoinProof | None = None


@attrs.frozen
class PairOpened:
    """
    A dispatcher's answer to a commitment: who it is, and its own nonce.

    @ivar nonce_d: 64 hex characters.
    @ivar ca: the certificate of the CA, PEM.
    @ivar cert: the certificate that the dispatcher shows on this connection,
        PEM.
    """

    reqid: str
    nonce_d: str
    ca: str
    cert: str


@attrs.frozen
class PairReveal:
    """
    An agent shows the nonce that it had committed to.

    @ivar reqid: the dispatcher's.
    @ivar nonce_a: 64 hex characters.
    """

    reqid: str
    nonce_a: str


@attrs.frozen
class PairPending:
    """
    A dispatcher's answer: a person will decide.
    """

    reqid: str


@attrs.frozen
class PairFailed:
    """
    A dispatcher's first answer: there is nothing to decide.
    """

    reason: str


@attrs.frozen
class PairApproved:
    """
    A dispatcher's second answer: the identity that the agent has from now on.

    @ivar cert: the agent's certificate, PEM.
    @ivar ca: the certificate of the CA, PEM.
    @ivar nonce: the request's.
    @ivar dispatcher_serial: the dispatcher's own serial, canonical hex.
    @ivar dispatcher_id: empty from a dispatcher of the older line.
    """

    cert: str
    ca: str
    nonce: str
    dispatcher_serial: str
    dispatcher_id: str = ""


@attrs.frozen
class PairDenied:
    """
    A dispatcher's second answer: no.
    """

    reason: str


#: All that whoever brings a join token that will not do is told.
JOIN_REFUSED = PairFailed("join refused")
REJECTED = PairDenied("rejected by operator")
TIMED_OUT = PairDenied("approval timeout")

#: What ends an exchange that was L{PairPending}.
PairDecision = PairApproved | PairDenied
