# SPDX-License-Identifier: AGPL-3.0-only
"""
What a dispatcher can do, one function a use: authorise, plan, dispatch, record.

The command line and the API are skins over this module and hold no rule of
their own. What asks agents is C{async} and is handed its reactor. The rest
touches nothing but files, which may block: an edge that has a reactor calls it
in a thread, and one that has none need not import Twisted for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import attrs

from ctrlexec.dispatcher.records import AgentRecord, QueuedRequest
from ctrlexec.dispatcher.registry import FileRegistry, Unknown, targets
from ctrlexec.dispatcher.results import PingRow, RunRow
from ctrlexec.dispatcher.settings import DispatcherSettings
from ctrlexec.errors import CtrlExecError, InvalidValue, PkiError, StoreError
from ctrlexec.events import Dispatched, Pinged, RunAnswered
from ctrlexec.interfaces import IEventSink, IRegistry
from ctrlexec.protocol.messages import PingRequest, RunRequest
from ctrlexec.values import (
    HostPort,
    Target,
    new_request_id,
    openssl_time,
    script_name,
)

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from ctrlexec.dispatcher.dispatch import Agents
    from ctrlexec.dispatcher.lifecycle import Approval, Trust
    from ctrlexec.pki import CertificateInfo

_HOW_TO_SET_UP = "ctrl-exec setup-ctrl-exec makes the dispatcher's key and certificate"


@attrs.frozen
class Caller:
    """
    Who asks, as they claim it.

    @ivar token: what they can prove it with; never logged.
    """

    username: str
    token: str = attrs.field(default="", repr=False)


@attrs.frozen
class RunOrder:
    """
    A script that is to be run on some hosts.

    @ivar hosts: as they were given; whoever is given twice is asked once.
    @ivar args: what follows the script's own name in its argv.
    """

    hosts: Sequence[HostPort]
    script: str
    args: Sequence[str] = ()


@attrs.frozen(kw_only=True)
class Seat:
    """
    Where somebody sits who decides on pairing requests as they come: see
    L{ctrlexec.dispatcher.console.PairingMode}.

    @ivar port: where to listen, in place of the setting; or C{None}.
    """

    write: Callable[[str], None]
    stdin: int
    attended: bool
    timeout_seconds: int | None = None
    port: int | None = None


@attrs.frozen(kw_only=True)
class Dispatcher:
    """
    A dispatcher, ready for any use.

    @ivar agents: makes what speaks to agents, once there is a reactor.
    @ivar now: the time, aware of its zone.
    """

    settings: DispatcherSettings
    registry: IRegistry
    events: IEventSink
    agents: Callable[[IReactorTime], Agents]
    now: Callable[[], datetime]

    @classmethod
    def on_files(
        cls,
        settings: DispatcherSettings,
        events: IEventSink,
        now: Callable[[], datetime],
    ) -> Dispatcher:
        """
        @return: the dispatcher whose state is in the files that the settings
            name.
        """
        return cls(
            settings=settings,
            registry=FileRegistry(settings.registry_dir),
            events=events,
            agents=lambda reactor: agents_over_tls(settings, now(), reactor),
            now=now,
        )

    # --- asking agents ---------------------------------------------------

    async def run(
        self,
        caller: Caller,
        order: RunOrder,
        reactor: IReactorTime,
        arrived: Callable[[RunRow], None],
    ) -> Sequence[RunRow]:
        """
        Run a script on hosts, at most C{max_parallel} of them at a time. One
        request id stands for all of it.

        @param arrived: is given each row as it comes.
        @return: the rows, in the order in which they came: one for each host,
            whatever happened there.
        @raise CtrlExecError: nothing was asked of any host.
        """
        from ctrlexec.dispatcher.dispatch import Dispatch, fan_out

        request = _run_request(caller, order)
        self._authorise(caller)
        plan = self._plan(order.hosts)
        dispatch = Dispatch(self.agents(reactor), reactor)
        self.events.emit(_dispatched(request, plan))

        async def ask(planned: Target | Unknown) -> RunRow:
            return await dispatch.run(planned, request)

        def record(row: RunRow) -> None:
            self.events.emit(_answered(row))
            arrived(row)

        limit = self.settings.max_parallel
        return await fan_out(plan, ask, limit=limit, arrived=record)

    async def ping(
        self,
        caller: Caller,
        hosts: Sequence[HostPort],
        reactor: IReactorTime,
        arrived: Callable[[PingRow], None],
    ) -> Sequence[PingRow]:
        """
        Ask hosts whether their agents are there. Takes, returns and raises
        what L{run} does; each ping has a request id of its own.
        """
        from ctrlexec.dispatcher.dispatch import Dispatch, fan_out

        self._authorise(caller)
        plan = self._plan(hosts)
        dispatch = Dispatch(self.agents(reactor), reactor)

        async def ask(planned: Target | Unknown) -> PingRow:
            return await dispatch.ping(planned, PingRequest(new_request_id()))

        def record(row: PingRow) -> None:
            self.events.emit(_pinged(row))
            arrived(row)

        limit = self.settings.max_parallel
        return await fan_out(plan, ask, limit=limit, arrived=record)

    def _authorise(self, caller: Caller) -> None:
        """
        Nothing may pass by a hook that somebody has put there.
        """
        hook = self.settings.auth_hook
        if hook is not None:
            raise CtrlExecError(
                f"the auth hook {hook} is configured, and this release can not "
                "call it yet: nothing was asked of any host",
                hint="take auth_hook out of the settings only if everybody who can "
                "run ctrl-exec may do everything",
            )

    def _plan(self, hosts: Iterable[HostPort]) -> list[Target | Unknown]:
        connect = self.settings.unregistered_hosts == "connect"
        found = targets(self.registry, [*hosts], connect_unregistered=connect)
        return [*dict.fromkeys(found)]

    # --- agents and requests ---------------------------------------------

    def list_agents(self) -> tuple[Sequence[AgentRecord], Sequence[StoreError]]:
        """
        The agents that are paired, by name, and the records that can not be
        read.
        """
        return self.registry.records()

    def list_requests(self, caller: Caller) -> Sequence[QueuedRequest]:
        """
        The pairing requests that wait for a decision, the oldest first.
        """
        return self._trust(caller).requests()

    def approve(
        self,
        caller: Caller,
        reqid: str,
        *,
        lookup_by: str | None = None,
        ip: str | None = None,
        port: int | None = None,
    ) -> Approval:
        """
        Let an agent in: see L{ctrlexec.dispatcher.lifecycle.Trust.approve}.

        @param lookup_by: see L{ctrlexec.dispatcher.lifecycle.Reach}, as for
            the following ones.
        """
        from ctrlexec.dispatcher.lifecycle import Reach

        return self._trust(caller).approve(reqid, Reach(lookup_by, ip, port))

    def deny(self, caller: Caller, reqid: str) -> QueuedRequest:
        """
        Turn an agent away: see L{ctrlexec.dispatcher.lifecycle.Trust.deny}.
        """
        return self._trust(caller).deny(reqid)

    async def pairing_mode(self, caller: Caller, reactor: Any, seat: Seat) -> None:
        """
        Open the pairing port, and let a person decide on what arrives.

        @raise CtrlExecError: the port can not be opened.
        """
        from ctrlexec.dispatcher.console import PairingMode

        settings = self.settings
        if seat.port is not None:
            settings = attrs.evolve(settings, pairing_port=seat.port)
        mode = PairingMode(
            reactor,
            settings,
            self._trust(caller),
            seat.write,
            seat.stdin,
            seat.attended,
            seat.timeout_seconds or settings.pairing_timeout,
        )
        await mode.run()

    def is_delivered(self, caller: Caller, reqid: str) -> bool:
        """
        Whether the pairing listener has taken a decision from the queue.
        """
        return self._trust(caller).queue.decision(reqid) is None

    # --- this dispatcher's own trust -------------------------------------

    def setup_ca(self, caller: Caller) -> CertificateInfo:
        """
        Make the private CA: see
        L{ctrlexec.dispatcher.lifecycle.Trust.setup_ca}.
        """
        return self._trust(caller).setup_ca()

    def agents_at_stake(self, caller: Caller) -> int:
        """
        How many agents a new identity could lose: see
        L{ctrlexec.dispatcher.lifecycle.Trust.agents_at_stake}.
        """
        return self._trust(caller).agents_at_stake()

    def setup_identity(self, caller: Caller, *, confirmed: bool) -> CertificateInfo:
        """
        Make the dispatcher's identity: see
        L{ctrlexec.dispatcher.lifecycle.Trust.setup_identity}.
        """
        return self._trust(caller).setup_identity(confirmed=confirmed)

    def _trust(self, caller: Caller) -> Trust:
        from ctrlexec.dispatcher.authority import Authority
        from ctrlexec.dispatcher.lifecycle import Trust
        from ctrlexec.dispatcher.queue import FilePairingQueue

        ours = self.settings
        return Trust(
            authority=Authority(ours),
            registry=self.registry,
            queue=FilePairingQueue.of(ours),
            events=self.events,
            now=self.now,
            user=caller.username,
        )


def agents_over_tls(
    settings: DispatcherSettings, now: datetime, reactor: IReactorTime
) -> Agents:
    """
    What speaks to agents as this dispatcher.

    @raise PkiError: the dispatcher has no identity that an agent would accept.
    """
    from ctrlexec.protocol.client import AgentClient
    from ctrlexec.tls import Identity, mutual_client

    try:
        credentials = Identity(settings.key, settings.cert, settings.ca).load()
    except PkiError as error:
        match error.__cause__:
            case FileNotFoundError():
                error.hint = _HOW_TO_SET_UP
            case PermissionError():
                error.hint = "the dispatcher's key is for root and its own user"
        raise
    # Agents could only say that the handshake failed.
    if credentials.info.not_after <= now:
        ended = openssl_time(credentials.info.not_after)
        raise PkiError(
            f"{settings.cert}: the dispatcher's certificate ended on {ended}",
            hint=_HOW_TO_SET_UP,
        )
    return AgentClient(
        reactor,
        mutual_client(credentials),
        connect_seconds=settings.connect_timeout,
        read_seconds=settings.read_timeout,
        answer_bytes=settings.max_answer,
    )


def _run_request(caller: Caller, order: RunOrder) -> RunRequest:
    for arg in order.args:
        if "\0" in arg or not _is_text(arg):
            raise InvalidValue("argument", arg, "UTF-8 text without NUL characters")
    return RunRequest(
        script=script_name(order.script),
        args=tuple(order.args),
        reqid=new_request_id(),
        username=caller.username,
        token=caller.token,
    )


def _is_text(arg: str) -> bool:
    """
    What was not UTF-8 on a command line comes as lone surrogates.
    """
    try:
        arg.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


# --- events --------------------------------------------------------------


def _dispatched(request: RunRequest, plan: Iterable[Target | Unknown]) -> Dispatched:
    return Dispatched(
        script=request.script,
        hosts=",".join(planned.name for planned in plan),
        reqid=request.reqid,
        user=request.username,
    )


def _answered(row: RunRow) -> RunAnswered:
    return RunAnswered(
        script=row.script,
        target=row.host,
        rtt=f"{row.rtt_ms}ms",
        reqid=row.reqid,
        exit=row.exit if row.error is None else None,
        error=row.error,
    )


def _pinged(row: PingRow) -> Pinged:
    return Pinged(
        target=row.host,
        rtt=f"{row.rtt_ms}ms",
        reqid=row.reqid,
        result="ok" if row.ok else None,
        error=row.error,
    )
