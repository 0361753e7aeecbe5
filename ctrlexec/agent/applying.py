# SPDX-License-Identifier: AGPL-3.0-only
"""
The person's side of a pairing: C{request-pairing} and C{pairing-status}.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import attrs
from twisted.internet.defer import Deferred, succeed

from ctrlexec import pki
from ctrlexec.agent import enrolment, identity
from ctrlexec.agent.policy import Overrides, load_agent_settings
from ctrlexec.agent.question import ask
from ctrlexec.agent.settings import AgentSettings
from ctrlexec.agent.trust import load_trusted
from ctrlexec.certificates import CertificateInfo, ca_fingerprint
from ctrlexec.codes import LEGACY_WARNING
from ctrlexec.errors import CtrlExecError, explained, one_line
from ctrlexec.protocol.agreement import Awaited, Terms
from ctrlexec.system_log import finish_logs
from ctrlexec.values import HostPort, openssl_time

STORED, FAILED, TIMED_OUT, DENIED = 0, 1, 2, 3
_SECONDS = 600
_BACKGROUND_SECONDS = 30


@attrs.frozen
class Plan:
    """
    A pairing as the operator asked for it.

    @ivar asks: whether somebody is there who compares the codes.
    """

    settings: AgentSettings
    file: Path
    application: enrolment.Application
    dispatcher: HostPort
    seconds: int
    asks: bool


def apply_for_pairing(options: Namespace) -> int:
    """
    Ask the dispatcher, and store what comes of it.

    @return: the exit status.
    @raise CtrlExecError: nothing came of it.
    """
    terms = Terms(options.legacy, options.ca_fingerprint or "")
    asks = not options.background and not terms.authority and sys.stdin.isatty()
    if not (asks or terms.authority or terms.legacy):
        raise CtrlExecError(
            "there is no terminal to ask at whether both show the same code",
            hint="--ca-fingerprint sha256:HEX pins the CA instead; ctrl-exec "
            "ca-fingerprint prints it on the dispatcher",
        )
    settings, _ = load_agent_settings(options.config, Overrides())
    identity.recover(settings)
    identity.prepare(settings)
    if "." not in settings.name:
        sys.stderr.write(
            f"warning: {settings.name!r} has no domain; other hosts may have the "
            "same name\n"
        )
    plan = planned(options, settings, terms, asks)
    return _in_background(plan) if options.background else pair(plan, _Here(plan))


def planned(
    options: Namespace, settings: AgentSettings, terms: Terms, asks: bool
) -> Plan:
    """
    What the command line and the settings come to; with a fresh key.
    """
    port = options.dispatcher.port or options.port or settings.pairing_port
    default = _BACKGROUND_SECONDS if options.background else _SECONDS
    return Plan(
        settings,
        options.config,
        enrolment.Application.new(
            settings, options.lookup_by, pki.KeyType(settings.key_type), terms
        ),
        attrs.evolve(options.dispatcher, port=port),
        options.timeout or default,
        asks,
    )


@attrs.frozen
class _Here:
    """
    The person who typed the command.
    """

    plan: Plan

    def compares(self, awaited: Awaited) -> Deferred[bool]:
        """
        See L{enrolment.Person}.
        """
        plan = self.plan
        _say(f"Asked {plan.dispatcher.host} to pair {plan.settings.name}.\n")
        _say(f"  request  {awaited.reqid}")
        _say(f"  code     {awaited.code}\n")
        if awaited.legacy:
            _say(f"Beware: {LEGACY_WARNING}.\n")
        _say("Approve it there only if the dispatcher shows the same code:")
        legacy = "--legacy " if awaited.legacy else ""
        _say(f"  ctrl-exec approve {legacy}{awaited.reqid}\n")
        _say(f"Waiting for up to {plan.seconds}s …")
        if not plan.asks:
            return succeed(True)
        from ctrlexec.agent.service import global_reactor

        question = f"Does the dispatcher show {awaited.code}?"
        return ask(global_reactor(), sys.stdin.fileno(), _write, question)


@attrs.frozen
class _Away:
    """
    Nobody, in the background.

    @ivar tell: tells the command that began it what it waits for.
    """

    tell: Callable[[str], None]

    def compares(self, awaited: Awaited) -> Deferred[bool]:
        """
        See L{enrolment.Person}.
        """
        self.tell(f"pending {awaited.reqid}")
        return succeed(True)


def _in_background(plan: Plan) -> int:
    """
    The parent says the request's id as soon as there is one, and ends; the
    child waits on.
    """
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        with os.fdopen(reading) as child:
            word, _, text = child.read().partition(" ")
        if word != "pending":
            sys.stderr.write(text or "error: the background process has ended\n")
            return FAILED
        _say(text)
        return STORED
    os.close(reading)
    status = FAILED
    try:
        status = _wait_alone(plan, writing)
        finish_logs()
    finally:
        # Whatever happens, the child never goes on as if it were the parent.
        os._exit(status)


def _wait_alone(plan: Plan, parent: int) -> int:
    """
    @param parent: a descriptor; what the parent should know is written to it.
    """

    def tell(text: str) -> None:
        nonlocal parent
        if parent >= 0:
            os.write(parent, text.encode())
            os.close(parent)
            parent = -1

    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    try:
        return pair(plan, _Away(tell))
    except CtrlExecError as error:
        tell(f"error {explained(error)}")
    except KeyboardInterrupt:
        tell("error error: stopped\n")
    return FAILED


def pair(plan: Plan, person: enrolment.Person) -> int:
    """
    Ask, wait, and say how it has ended.

    @return: the exit status.
    """
    from ctrlexec.agent.service import enrolment_for, global_reactor
    from ctrlexec.foreground import run_to_end

    reactor = global_reactor()
    pairing = enrolment_for(reactor, plan.settings, plan.dispatcher, plan.seconds)
    return _told(plan, run_to_end(reactor, pairing.pair(plan.application, person)))


def _told(plan: Plan, result: enrolment.Result) -> int:
    match result:
        case enrolment.Paired(certificate, dispatcher):
            _say(f"\nPaired with dispatcher {dispatcher}.")
            _say(f"The certificate ends {openssl_time(certificate.not_after)}.")
            _say(f"The CA is {_authority(plan.settings)}.")
            _say(f"Start the agent:  ctrl-exec-agent serve --config {plan.file}")
            return STORED
        case enrolment.Refused(reason):
            shown = one_line(reason[:200])
            sys.stderr.write(f"denied: {shown}; nothing was stored\n")
            return DENIED
        case enrolment.Declined(approved):
            sys.stderr.write(
                "nobody here said that both show the same code; nothing was stored\n"
            )
            if approved:
                sys.stderr.write(
                    "hint: the dispatcher has approved already; there: "
                    f"ctrl-exec unpair {plan.settings.name}\n"
                )
            return DENIED
        case enrolment.NoDecision(seconds):
            sys.stderr.write(
                f"nobody decided within {seconds:g}s; nothing was stored\n"
                "hint: run request-pairing again, with a longer --timeout\n"
            )
            return TIMED_OUT


def pairing_status(file: Path) -> int:
    """
    Say whether the agent has an identity, and what it is.

    @return: 0 if it has one that can be used, else 1.
    """
    settings, _ = load_agent_settings(file, Overrides())
    identity.recover(settings)
    if not identity.is_paired(settings):
        _say(f"{settings.name} is not paired")
        return 1
    info = identity.identity(settings).load().info
    trusted = load_trusted(
        settings.trusted_dispatchers_path, settings.dispatcher_serial_path
    )
    _say(f"{settings.name} is paired")
    _say(f"  CA           {_authority(settings)}")
    _say(f"  certificate  {info.serial}, ends {openssl_time(info.not_after)}")
    for serial, name in sorted(trusted.entries.items()):
        _say(f"  trusts       {name} ({serial})")
    return _usable(info, bool(trusted.entries))


def _authority(settings: AgentSettings) -> str:
    """
    What a person can compare with the dispatcher's own, once they want to know
    that nobody stood in between.
    """
    return ca_fingerprint(identity.identity(settings).load().ca)


def _usable(info: CertificateInfo, trusts: bool) -> int:
    if not trusts:
        raise CtrlExecError(
            "it trusts no dispatcher, so it takes no orders", hint="pair it again"
        )
    if datetime.now(timezone.utc) > info.not_after:
        raise CtrlExecError("its certificate has expired", hint="pair it again")
    return 0


def _say(text: str) -> None:
    _write(f"{text}\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
