# SPDX-License-Identifier: AGPL-3.0-only
"""
C{self-ping}: the agent's own certificate, shown to the agent over loopback.

What comes back shows that port, handshake and certificate are good. The answer
is a refusal, since an agent's certificate never gives orders, and that refusal
is what a good agent says (NEWER-LINE.md section 12.1).
"""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS

from ctrlexec.agent.settings import AgentSettings
from ctrlexec.errors import CtrlExecError, TransportError
from ctrlexec.protocol import codec
from ctrlexec.protocol.connection import Answer, ClientConnection, Waiting, exchange
from ctrlexec.protocol.http import request
from ctrlexec.protocol.messages import SERIAL_MISMATCH, PingRequest
from ctrlexec.protocol.peer_checks import named
from ctrlexec.tls import Credentials, mutual_client
from ctrlexec.values import Target, new_request_id

_SECONDS = 10.0
_ANSWER_BYTES = 65_536
_ANYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


async def self_ping(
    reactor: Any, settings: AgentSettings, credentials: Credentials
) -> str:
    """
    Ask the agent that runs on this host.

    @return: what it did, in words.
    @raise CtrlExecError: it does not answer, or not as a good agent does.
    """
    target = own_target(settings)
    host = f"[{target.host}]" if ":" in target.host else target.host
    body = codec.encode_ping_request(PingRequest(new_request_id()))
    message = request("POST", "/ping", body, host=f"{host}:{target.port}")
    endpoint = wrapClientTLS(
        mutual_client(credentials),
        HostnameEndpoint(reactor, target.host, target.port, timeout=_SECONDS),
        clock=reactor,
    )
    connection = ClientConnection(message, named(_own_name(credentials)), _ANSWER_BYTES)
    try:
        waiting = Waiting(target, _SECONDS)
        answer = await exchange(reactor, endpoint, connection, waiting)
    except TransportError as error:
        raise TransportError(
            str(error),
            hint="does the agent run, do allowed_ips let this host in, and did it "
            "ask too often? the agent's log says",
        ) from error
    return _judged(answer, target)


def own_target(settings: AgentSettings) -> Target:
    """
    Where the agent is reached from its own host.

    @raise CtrlExecError: only the running agent knows its port.
    """
    if not settings.port:
        raise CtrlExecError(
            "port = 0 lets the system choose one, which is not known here",
            hint="give the port that the agent's log names with --port",
        )
    host = _ANYWHERE.get(settings.bind, settings.bind)
    return Target(settings.name, host, settings.port)


def _own_name(credentials: Credentials) -> str:
    role = credentials.info.role
    return getattr(role, "name", "") or credentials.info.common_name


def _judged(answer: Answer, target: Target) -> str:
    where = f"{target.host}, port {target.port}"
    if answer.code == 200:
        return f"the agent at {where} answers"
    refused = codec.decode_refused(answer.code, answer.body)
    if refused == SERIAL_MISMATCH:
        return f"the agent at {where} answers, and takes no orders from itself"
    said = refused.error or "nothing that an agent says"
    raise CtrlExecError(f"the agent at {where} answered {answer.code}: {said}")
