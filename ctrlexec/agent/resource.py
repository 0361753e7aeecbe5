# SPDX-License-Identifier: AGPL-3.0-only
"""
What an agent answers, and to whom: every request passes here, and none gets
further that is not a trusted dispatcher's (PROTOCOL.md section 2).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctrlexec.agent.answering import Following
from ctrlexec.agent.in_force import Caller, InForce, serial_of
from ctrlexec.agent.live import Pending
from ctrlexec.agent.policy import Policy
from ctrlexec.agent.renewal import Renewals
from ctrlexec.agent.routes import Routes, refuse
from ctrlexec.agent.run_routes import RunRoutes
from ctrlexec.agent.running import Runs
from ctrlexec.agent.trust import NotTrusted
from ctrlexec.errors import InvalidValue
from ctrlexec.events import CapabilitiesDenied, SerialRejected, brief
from ctrlexec.protocol import codec
from ctrlexec.protocol.exchange import Exchange, Peer, Request, Visit
from ctrlexec.protocol.messages import FORBIDDEN, NOT_FOUND, SERIAL_MISMATCH, Refused
from ctrlexec.values import request_id

#: Answers a trusted dispatcher.
Route = Callable[[Exchange, Caller], Awaitable[None]]

_RESULT = "/result/"
_CAPABILITIES = ("GET", "/capabilities")


@attrs.define(eq=False)
class AgentResource:
    """
    Answers the requests of dispatchers, as the policy of the moment has it.

    @ivar runs: those that live, and those that are on record.
    @ivar renewals: the identity that the agent shows, and what renews it.
    @ivar clock: for what is told while a run goes on.
    @ivar routes: what is answered, by method and path; C{GET /result/REQID} is
        beside them.
    """

    in_force: InForce
    runs: Runs
    renewals: Renewals
    clock: IReactorTime
    routes: Mapping[tuple[str, str], Route] = attrs.field(init=False)
    _of_runs: RunRoutes = attrs.field(init=False)
    _live: Pending = attrs.field(factory=Pending, init=False)
    _log: Logger = attrs.field(factory=Logger, init=False)

    @_of_runs.default
    def _for_runs(self) -> RunRoutes:
        seconds = self.runs.table.seconds
        return RunRoutes(self.runs, Following(self.in_force, self.clock, seconds))

    def __attrs_post_init__(self) -> None:
        of_runs, others = self._of_runs, Routes(self.in_force, self.renewals)
        self.routes = {
            ("POST", "/run"): of_runs.run,
            ("POST", "/follow"): of_runs.follow,
            ("POST", "/cancel"): of_runs.cancel,
            ("GET", "/runs"): of_runs.runs_now,
            ("POST", "/ping"): others.ping,
            ("POST", "/rotate-serial"): others.rotate,
            ("POST", "/renew"): others.renew,
            ("POST", "/renew-complete"): others.renew,
            ("POST", "/revocations"): others.revoke,
            _CAPABILITIES: others.capabilities,
        }

    @property
    def policy(self) -> Policy:
        """
        The policy of the moment.
        """
        return self.in_force.policy

    @property
    def live(self) -> int:
        """
        How many requests are being answered; nearly always runs.
        """
        return len(self._live)

    def quiet(self) -> Deferred[None]:
        """
        @return: fires when no request is being answered any more.
        """
        return self._live.over()

    def admits(self, address: str) -> bool:
        """
        Whether a connection may go on to its handshake.
        """
        return self.in_force.gate.admits(address, self.policy)

    # What L{ctrlexec.protocol.server.Handler} asks of us.

    def arrived(self, visit: Visit) -> None:
        """
        A connection that L{admits} let in.
        """
        self.in_force.gate.arrived(visit)

    def admit(self, peer: Peer, visit: Visit) -> Refused | None:
        """
        Refuse a revoked certificate before a byte of its request is read.
        """
        in_force = self.in_force
        return in_force.gate.identified(peer, visit, self.policy, in_force.now())

    def may_stay(self, peer: Peer, visit: Visit) -> bool:
        """
        Only a trusted dispatcher may ask twice.
        """
        in_force = self.in_force
        return in_force.gate.may_stay(peer, visit, self.policy, in_force.now())

    def handle(self, exchange: Exchange) -> None:
        """
        Answer a request.
        """
        answering = Deferred.fromCoroutine(self._answer(exchange))
        self._live.add(answering)
        answering.addErrback(self._failed, exchange)
        answering.addBoth(lambda _: self._live.discard(answering))

    def handshake_failed(self, visit: Visit, reason: Failure) -> None:
        """
        Somebody connected who can not be a dispatcher, or was no client at all.
        """
        self.in_force.gate.failed(visit, reason, self.policy.settings)

    def ended(self, visit: Visit) -> None:
        """
        A connection that got through its handshake is over.
        """
        self.in_force.gate.ended(visit)

    # The gate of all routes.

    async def _answer(self, exchange: Exchange) -> None:
        """
        Whom a request comes from is looked at each time, since a connection can
        outlive the trust in it.
        """
        in_force, request = self.in_force, exchange.request
        refused = in_force.gate.refusal(exchange.peer, self.policy, in_force.now())
        if refused is not None:
            refuse(exchange, refused)
            return
        route = self._route(request)
        if route is None:
            refuse(exchange, NOT_FOUND)
            return
        match in_force.whose(exchange.peer):
            case Caller() as caller:
                await route(exchange, caller)
            case NotTrusted(reason):
                # Any certificate of the CA may renew, in the original.
                refuse(exchange, self._turned_away(exchange, reason))

    def _route(self, request: Request) -> Route | None:
        route = self.routes.get((request.method, request.path))
        if route is not None or request.method != "GET":
            return route
        reqid = request.path.removeprefix(_RESULT)
        try:
            if reqid != request.path:
                return partial(self._of_runs.result, reqid=request_id(reqid))
        except InvalidValue:
            pass
        return None

    def _turned_away(self, exchange: Exchange, reason: str) -> Refused:
        peer, request = exchange.peer, exchange.request
        who = (peer.address, serial_of(peer))
        if (request.method, request.path) == _CAPABILITIES:
            self.in_force.events.emit(CapabilitiesDenied(*who, reason))
            return FORBIDDEN
        reqid = codec.decode_ping_request(request.body).reqid
        self.in_force.events.emit(SerialRejected(*who, brief(reqid)))
        return SERIAL_MISMATCH

    def _failed(self, why: Failure, exchange: Exchange) -> None:
        if why.check(CancelledError):
            # The peer has gone, and what it wanted goes on.
            return
        self._log.failure("a request could not be answered", why)
        refuse(exchange, Refused(500, "internal error"))
