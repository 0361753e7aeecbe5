# SPDX-License-Identifier: AGPL-3.0-only
"""
What programs are told of a request: the script that it starts, and the auth
hook that is asked before.
"""

from __future__ import annotations

from datetime import datetime

import attrs

from ctrlexec.hooks import HookContext
from ctrlexec.protocol.exchange import Peer
from ctrlexec.protocol.messages import RotateRequest, RunContext, RunRequest
from ctrlexec.values import iso_time


def script_context(
    request: RunRequest, peer: Peer, dispatcher: str, now: datetime
) -> RunContext:
    """
    What a script reads on its standard input.
    """
    return RunContext(
        script=request.script,
        args=request.args,
        reqid=request.reqid,
        peer_ip=peer.address,
        username=request.username,
        token=request.token,
        timestamp=iso_time(now),
        dispatcher=dispatcher,
    )


def question(action: str, peer: Peer, dispatcher: str, now: datetime) -> HookContext:
    """
    Whether a dispatcher may do something that has no words of its own.
    """
    return HookContext(
        action=action,
        source_ip=peer.address,
        timestamp=iso_time(now),
        dispatcher=dispatcher,
        dispatcher_serial=peer.certificate.serial if peer.certificate else "",
    )


def run_question(request: RunRequest, of: HookContext) -> HookContext:
    """
    Whether a script may run.

    @param of: the L{question} of the same caller.
    """
    return attrs.evolve(
        of,
        script=request.script,
        args=request.args,
        username=request.username,
        token=request.token,
        reqid=request.reqid,
    )


def rotate_question(request: RotateRequest, of: HookContext) -> HookContext:
    """
    Whether a serial may be trusted from now on, or no longer.

    @param of: the L{question} of the same caller.
    """
    return attrs.evolve(of, args=(request.action, request.serial), token=request.token)
