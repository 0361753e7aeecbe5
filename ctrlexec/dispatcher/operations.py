# SPDX-License-Identifier: AGPL-3.0-only
"""
What a dispatcher can do, one function a use: authorise, plan, lock, dispatch,
record.

The command line and the API are skins over this module and hold no rule of
their own. Everything that somebody may be denied is C{async}, since the auth
hook is a program that is waited for. Where there is no hook, what touches
nothing but files never waits: it needs no reactor, and no Twisted.

It is over 400 lines, since it is the list of what a dispatcher can do; how each
is done stands elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from ctrlexec.dispatcher.means import InThread as InThread
from ctrlexec.dispatcher.means import Process as Process
from ctrlexec.dispatcher.means import Stores as Stores
from ctrlexec.dispatcher.means import directly as directly
from ctrlexec.dispatcher.orders import (
    Caller,
    Reach,
    RunOrder,
    Seat,
    Seen,
    Selection,
    TokenOrder,
)
from ctrlexec.dispatcher.records import AgentRecord, QueuedRequest
from ctrlexec.dispatcher.results import (
    CancelRow,
    DiscoveryRow,
    PingRow,
    PsRow,
    Report,
    RunRow,
    Watcher,
)
from ctrlexec.dispatcher.runs import RunRecord
from ctrlexec.dispatcher.selection import Selected
from ctrlexec.dispatcher.settings import DispatcherSettings
from ctrlexec.errors import InvalidValue, StoreError
from ctrlexec.interfaces import IEventSink

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from ctrlexec.certificates import CertificateInfo
    from ctrlexec.dispatcher.approvals import Approval
    from ctrlexec.dispatcher.authorisation import Authorisation
    from ctrlexec.dispatcher.background import PairingProcess
    from ctrlexec.dispatcher.dispatch import Agents
    from ctrlexec.dispatcher.join_tokens import FileJoinTokens
    from ctrlexec.dispatcher.lifecycle import Trust
    from ctrlexec.dispatcher.locks import LockState
    from ctrlexec.dispatcher.maintenance import Maintained
    from ctrlexec.dispatcher.renewal import Renewed
    from ctrlexec.dispatcher.revoking import Push, Revoked
    from ctrlexec.dispatcher.rotation_state import RotationState, Standing
    from ctrlexec.dispatcher.token_records import JoinToken
    from ctrlexec.joining import JoinSecret


@attrs.frozen(kw_only=True)
class Dispatcher:
    """
    A dispatcher, ready for any use.

    @ivar agents: makes what speaks to agents, with a reactor.
    @ivar former_agents: the same, as the dispatcher that it was before its
        certificate was replaced.
    """

    settings: DispatcherSettings
    stores: Stores
    events: IEventSink
    process: Process
    agents: Callable[[IReactorTime], Agents]
    former_agents: Callable[[IReactorTime], Agents] = attrs.field()

    @former_agents.default
    def _no_former_agents(self) -> Callable[[IReactorTime], Agents]:
        return self.agents

    @classmethod
    def on_files(
        cls, settings: DispatcherSettings, events: IEventSink, process: Process
    ) -> Dispatcher:
        """
        @return: the dispatcher whose state is in the files that the settings
            name.
        """

        def speaking_as(ours: DispatcherSettings) -> Callable[[IReactorTime], Agents]:
            def agents(reactor: IReactorTime) -> Agents:
                from ctrlexec.dispatcher.over_tls import agents_over_tls

                return agents_over_tls(ours, process.now(), reactor)

            return agents

        return cls(
            settings=settings,
            stores=Stores.on_files(settings),
            events=events,
            process=process,
            agents=speaking_as(settings),
            former_agents=speaking_as(settings.as_former()),
        )

    def on(self, reactor: Any) -> Dispatcher:
        """
        @return: this dispatcher, with a reactor.
        """
        return attrs.evolve(self, process=attrs.evolve(self.process, reactor=reactor))

    # --- asking agents ---------------------------------------------------

    async def run(
        self, caller: Caller, order: RunOrder, watcher: Watcher[RunRow]
    ) -> Report[RunRow]:
        """
        Run a script on hosts, at most C{max_parallel} of them at a time, and
        keep what became of it. One request id stands for all of it.

        The script is locked on each host until it has ended there; where nobody
        waits for that, until it has begun.

        @return: a row for each host, whatever happened there.
        @raise NotAuthorised: the caller may not do it.
        @raise Unconfirmed: nobody has said yes to so many hosts.
        @raise Locked: it runs already on some of the hosts.
        @raise Conflict: another order was given with the same key.
        @raise CtrlExecError: nothing was asked of any host.
        """
        from ctrlexec.dispatcher.once import run

        return await run(self, caller, order, watcher)

    async def ping(
        self, caller: Caller, selection: Selection, watcher: Watcher[PingRow]
    ) -> Report[PingRow]:
        """
        Ask hosts whether their agents are there; each ping has a request id of
        its own.

        @raise CtrlExecError: nothing was asked of any host.
        """
        from ctrlexec.dispatcher.asking import Asking

        return await Asking.of(self).ping(caller, selection, watcher)

    async def discover(
        self, caller: Caller, selection: Selection, watcher: Watcher[DiscoveryRow]
    ) -> Report[DiscoveryRow]:
        """
        Ask hosts what they offer, and note their tags and scripts in the
        registry.

        @param selection: without a word in it: every registered agent.
        @raise CtrlExecError: nothing was asked of any host.
        """
        from ctrlexec.dispatcher.asking import Asking

        return await Asking.of(self).discover(caller, selection, watcher)

    async def select(self, caller: Caller, selection: Selection) -> Selected:
        """
        Which hosts somebody means: what a run would go to.

        @raise NotFound: a pattern matches no agent.
        @raise InvalidValue: it is more hosts than one order may name.
        """
        await self._require(caller, "list-agents")
        return await self.selected(selection)

    async def ps(
        self, caller: Caller, selection: Selection, watcher: Watcher[PsRow]
    ) -> Report[PsRow]:
        """
        Ask hosts what runs there.

        @param selection: without a word in it: every registered agent.
        @raise CtrlExecError: nothing was asked of any host.
        """
        from ctrlexec.dispatcher.asking import Asking

        return await Asking.of(self).ps(caller, selection, watcher)

    # --- runs that have begun: each needs the id of one of the last 24 hours ---
    #
    # NotFound: there is no such run, or not any more.
    # NotAuthorised: the caller may not know of it, or not end it.

    async def status(self, caller: Caller, reqid: str) -> RunRecord:
        """
        What became of a run. Hosts of which that is not known are asked, where
        there is a reactor to ask them with.
        """
        from ctrlexec.dispatcher.tracing import status

        return await status(self, caller, reqid)

    async def wait(self, caller: Caller, reqid: str, seconds: float) -> RunRecord:
        """
        The same, once the run has ended everywhere.

        @param seconds: after how long its record is returned all the same.
        """
        from ctrlexec.dispatcher.tracing import wait

        return await wait(self, caller, reqid, seconds)

    async def attach(
        self,
        caller: Caller,
        reqid: str,
        hosts: tuple[str, ...],
        seen: Mapping[str, Seen],
        watcher: Watcher[RunRow],
        *,
        bare: bool = False,
    ) -> Report[RunRow]:
        """
        Hear what a run writes, until it ends; all of it, if it has ended.

        @param hosts: where; all of its hosts if none is named.
        @param seen: how much of each host's output the watcher has had.
        @param bare: whether rows are wanted without what was heard of them, so
            that it need not be kept.
        @raise NotFound: or it does not go to one of the hosts.
        """
        from ctrlexec.dispatcher.attaching import attach

        return await attach(self, caller, reqid, hosts, seen, watcher, bare=bare)

    async def cancel(
        self,
        caller: Caller,
        reqid: str,
        hosts: tuple[str, ...],
        watcher: Watcher[CancelRow],
    ) -> Report[CancelRow]:
        """
        End a run, and everything that it has started. Hosts that were not asked
        for it yet are not asked any more.

        @param hosts: where; all of its hosts if none is named.
        @raise NotFound: or it does not go to one of the hosts.
        """
        from ctrlexec.dispatcher.cancelling import cancel

        return await cancel(self, caller, reqid, hosts, watcher)

    async def list_locks(self, caller: Caller) -> Sequence[LockState]:
        """
        Which scripts are locked, where, and by whom.
        """
        await self._require(caller, "list-locks")
        return await self.process.in_thread(self.stores.locks.listed)

    # --- agents ----------------------------------------------------------

    async def list_agents(
        self, caller: Caller, tags: Mapping[str, str] | None = None
    ) -> tuple[Sequence[AgentRecord], Sequence[StoreError]]:
        """
        The agents that are paired, by name, and the records that can not be
        read.

        @param tags: only those that have all of these.
        """
        await self._require(caller, "list-agents")
        found = await self.process.in_thread(self.stores.registry.records)
        records, unreadable = found
        wanted = (tags or {}).items()
        return [each for each in records if wanted <= each.tags.items()], unreadable

    async def edit_agent(
        self, caller: Caller, name: str, reach: Reach, rename: str | None = None
    ) -> AgentRecord:
        """
        Change where an agent is reached, or what it is called here: see
        L{ctrlexec.dispatcher.lifecycle.Trust.edit_agent}.
        """
        await self._require(caller, "edit-agent", name)
        return self.trust(caller).edit_agent(name, reach, rename)

    async def unpair(self, caller: Caller, name: str) -> AgentRecord | None:
        """
        Forget an agent: see L{ctrlexec.dispatcher.lifecycle.Trust.unpair}.
        """
        await self._require(caller, "unpair", name)
        return self.trust(caller).unpair(name)

    async def renew(
        self, caller: Caller, name: str, *, even_expired: bool = False
    ) -> Renewed:
        """
        Give an agent its next certificate, whether or not that is due.

        @param even_expired: also one whose certificate has ended while its host
            was off. What it proves itself with is the key of that; and it must
            not be older than what the registry knows of.
        @raise CtrlExecError: it has not taken it.
        """
        from ctrlexec.dispatcher.maintenance import renew

        await self._require(caller, "renew", name)
        return await renew(self, name, even_expired=even_expired)

    async def maintain(self, caller: Caller) -> Maintained:
        """
        Look after all that ends some day: see
        L{ctrlexec.dispatcher.maintenance}.

        @raise PkiError: this process has no key of the CA, so it could renew
            nothing.
        """
        from ctrlexec.dispatcher.maintenance import maintain

        await self._require(caller, "maintain")
        return await maintain(self, caller.username)

    async def revoke(self, caller: Caller, what: str, reason: str) -> Revoked:
        """
        Revoke the certificates of an agent, or one certificate, and tell all
        agents: see L{ctrlexec.dispatcher.revoking.revoke}.

        @param what: the name of an agent, or a serial.
        """
        from ctrlexec.dispatcher.revoking import revoke

        await self._require(caller, "revoke", what)
        return await revoke(self, caller, what, reason)

    async def push_revocations(self, caller: Caller) -> Push:
        """
        Tell what is revoked to the agents that have not acknowledged it.
        """
        from ctrlexec.dispatcher.revoking import push

        await self._require(caller, "revoke")
        return await push(self)

    async def rotate(self, caller: Caller) -> RotationState:
        """
        Replace the dispatcher's own certificate: tell the agents of the next
        one, and use it; see L{ctrlexec.dispatcher.rotation}.

        @raise Conflict: the last rotation is not over yet.
        """
        from ctrlexec.dispatcher.rotation import Rotating

        await self._require(caller, "rotate-cert")
        return await Rotating(self, caller.username).advance(begin=True)

    async def serial_status(self, caller: Caller) -> Standing:
        """
        Where the rotation of the dispatcher's certificate stands.
        """
        from ctrlexec.dispatcher.rotation import Rotating

        await self._require(caller, "serial-status")
        return Rotating(self, caller.username).standing()

    # --- requests --------------------------------------------------------

    async def list_requests(self, caller: Caller) -> Sequence[QueuedRequest]:
        """
        The pairing requests that wait for a decision, the oldest first.
        """
        await self._require(caller, "list-requests")
        return self.trust(caller).requests()

    async def approve(
        self, caller: Caller, reqid: str, reach: Reach, *, legacy: bool = False
    ) -> Approval:
        """
        Let an agent in: see L{ctrlexec.dispatcher.lifecycle.Trust.approve}.
        """
        await self._require(caller, "approve", reqid=reqid)
        return self.trust(caller).approve(reqid, reach, legacy=legacy)

    async def deny(self, caller: Caller, reqid: str) -> QueuedRequest:
        """
        Turn an agent away: see L{ctrlexec.dispatcher.lifecycle.Trust.deny}.
        """
        await self._require(caller, "deny", reqid=reqid)
        return self.trust(caller).deny(reqid)

    def is_delivered(self, reqid: str) -> bool:
        """
        Whether the pairing listener has taken a decision from the queue.
        """
        return self.stores.queue.decision(reqid) is None

    async def pairing_mode(self, caller: Caller, seat: Seat) -> None:
        """
        Open the pairing port, and let a person decide on what arrives. Who may
        do that may decide: no decision is asked about again.

        @raise CtrlExecError: the port can not be opened.
        """
        from ctrlexec.dispatcher.console import PairingMode

        await self._require(caller, "pairing-mode")
        settings = self.settings
        if seat.port is not None:
            settings = attrs.evolve(settings, pairing_port=seat.port)
        mode = PairingMode(
            self.process.reactor,
            settings,
            self.trust(caller),
            seat.write,
            seat.stdin,
            seat.attended,
            seat.timeout_seconds or settings.pairing_timeout,
        )
        await mode.run()

    async def pairing_process(self, caller: Caller) -> PairingProcess:
        """
        The process whose pairing mode is open, for whoever may open it.
        """
        from ctrlexec.dispatcher.background import PairingProcess

        await self._require(caller, "pairing-mode")
        return PairingProcess(self.settings.state_dir, self.events)

    # --- join tokens -----------------------------------------------------

    async def create_join_token(
        self, caller: Caller, order: TokenOrder
    ) -> tuple[JoinToken, JoinSecret]:
        """
        Decide beforehand on agents that will ask: see
        L{ctrlexec.dispatcher.joining.create_token}.
        """
        from ctrlexec.dispatcher.joining import create_token

        await self._require(caller, "join-token-create")
        return create_token(self.trust(caller), self._tokens(), order)

    async def list_join_tokens(
        self, caller: Caller
    ) -> tuple[Sequence[JoinToken], Sequence[StoreError]]:
        """
        The join tokens, the oldest first, and those that can not be read.
        """
        await self._require(caller, "join-token-list")
        return self._tokens().listed()

    async def revoke_join_token(self, caller: Caller, identity: str) -> None:
        """
        Make a join token useless: see
        L{ctrlexec.dispatcher.joining.revoke_token}.
        """
        from ctrlexec.dispatcher.joining import revoke_token

        await self._require(caller, "join-token-revoke")
        revoke_token(self.trust(caller), self._tokens(), identity)

    def _tokens(self) -> FileJoinTokens:
        from ctrlexec.dispatcher.join_tokens import FileJoinTokens

        return FileJoinTokens(self.settings.tokens_dir)

    # --- this dispatcher's own trust -------------------------------------

    async def ca_fingerprint(self, caller: Caller) -> str:
        """
        What agents can pin before they pair: C{docs/pairing.md}.

        @raise PkiError: there is no CA that can be read.
        """
        await self._require(caller, "ca-fingerprint")
        return self.trust(caller).ca_fingerprint()

    async def setup_ca(self, caller: Caller) -> CertificateInfo:
        """
        Make the private CA: see
        L{ctrlexec.dispatcher.lifecycle.Trust.setup_ca}.
        """
        await self._require(caller, "setup-ca")
        return self.trust(caller).setup_ca()

    def agents_at_stake(self, caller: Caller) -> int:
        """
        How many agents a new identity could lose: see
        L{ctrlexec.dispatcher.lifecycle.Trust.agents_at_stake}.
        """
        return self.trust(caller).agents_at_stake()

    async def setup_identity(
        self, caller: Caller, *, confirmed: bool
    ) -> CertificateInfo:
        """
        Make the dispatcher's identity: see
        L{ctrlexec.dispatcher.lifecycle.Trust.setup_identity}.
        """
        await self._require(caller, "setup-ctrl-exec")
        return self.trust(caller).setup_identity(confirmed=confirmed)

    # --- the parts -------------------------------------------------------

    @property
    def needs_reactor(self) -> bool:
        """
        Whether everything does, since there is a hook to be asked.
        """
        return self.settings.auth_hook is not None

    def authorisation(self) -> Authorisation:
        """
        Who says what callers may do.
        """
        from ctrlexec.dispatcher.authorisation import Authorisation
        from ctrlexec.hooks import AuthHook
        from ctrlexec.process import small_environment

        ours, process = self.settings, self.process
        hook = None
        if ours.auth_hook is not None:
            hook = AuthHook(
                process.reactor,
                ours.auth_hook,
                ours.auth_hook_timeout,
                small_environment(process.environ),
                self.events,
                ours.auth_hook_stdin,
            )
        allows = ours.api_auth_default == "allow"
        return Authorisation(hook, allows, process.now, self.events)

    def trust(self, caller: Caller) -> Trust:
        """
        What a caller can change about whom is trusted. No hook is asked.
        """
        from ctrlexec.dispatcher.authority import Authority
        from ctrlexec.dispatcher.lifecycle import Trust

        return Trust(
            authority=Authority(self.settings),
            registry=self.stores.registry,
            queue=self.stores.queue,
            events=self.events,
            now=self.process.now,
            user=caller.username,
        )

    async def selected(self, selection: Selection) -> Selected:
        """
        The hosts that a selection means, whoever asks; see L{select}.
        """
        from ctrlexec.dispatcher.selection import everything, select

        how = select if selection.words else everything
        selected = await self.process.in_thread(how, selection, self.stores.registry)
        most = self.settings.max_hosts
        if len(selected.hosts) > most:
            count = str(len(selected.hosts))
            raise InvalidValue("number of hosts", count, f"{most} at most")
        return selected

    async def _require(
        self, caller: Caller, action: str, *hosts: str, reqid: str = ""
    ) -> None:
        """
        Nobody loads what asks a hook where there is none to ask, and the
        command line is allowed what it wants.
        """
        from ctrlexec.dispatcher.orders import Door

        if not self.needs_reactor and caller.door is not Door.API:
            return
        from ctrlexec.dispatcher.authorisation import Question

        question = Question(action=action, hosts=hosts, reqid=reqid)
        await self.authorisation().require(caller, question)
