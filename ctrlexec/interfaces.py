# SPDX-License-Identifier: AGPL-3.0-only
"""
The seams: what can be had in more than one kind.

A store for several dispatchers will stand behind the same interfaces as the
files of one; every implementation passes the same contract tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from twisted.internet.defer import Deferred

    from ctrlexec.agent.runs import Ending, StartOrder
    from ctrlexec.dispatcher.locks import Busy, Held, Holder, LockState
    from ctrlexec.dispatcher.records import AgentRecord, QueuedRequest
    from ctrlexec.dispatcher.runs import KeyClaim, RunRecord
    from ctrlexec.dispatcher.token_records import Claim, JoinToken, NotRedeemed
    from ctrlexec.errors import StoreError
    from ctrlexec.events import Event
    from ctrlexec.hooks import HookContext, Verdict
    from ctrlexec.protocol.messages import PairDecision
    from ctrlexec.protocol.run_messages import Signalled


class IEventSink(Interface):
    """
    Where events go.
    """

    def emit(event: Event) -> None:
        """
        Write an event down. Never fails: a log that is full must not end the
        work that it would tell of.
        """


class IScriptRunner(Interface):
    """
    What starts scripts, and finds those again that were started before.
    """

    async def start(order: StartOrder) -> ILiveScript:
        """
        Start a script. That it was started does not mean that it can be
        executed: that is an ending, as every other way in which it can fail.

        @raise LockHeld: nothing was started, since another run has the lock.
        @raise NotStarted: nothing was started.
        """

    async def adopt(directory: Path) -> ILiveScript | Ending | None:
        """
        Find a script again that an agent before us has started.

        @param directory: the one of its L{StartOrder}.
        @return: the script, if it lives; how it has ended, if that is written
            down; C{None} if nobody can tell.
        """

    def warm_up() -> None:
        """
        Have all in place that the first start would have to wait for.

        @raise NotStarted: it can not be; the first start will say so again.
        """

    async def close() -> None:
        """
        Start nothing any more, and hear of nothing: all that was started goes
        on, and nobody here is told how it ends.
        """


class ILiveScript(Interface):
    """
    A script that was started.
    """

    pid: int = Attribute("The process id of the script.")

    def ended() -> Deferred[Ending | None]:
        """
        @return: fires when it has ended; at once if it has. C{None} if what
            looked after it is gone, and has written nothing down. It never
            fails; whoever cancels it stops waiting.
        """

    def watch(callback: Callable[[], None]) -> Callable[[], None]:
        """
        Call back whenever it may have written something.

        @return: ends that.
        """

    async def cancel() -> Sequence[Signalled]:
        """
        End it, and everything that it has started: TERM, its grace, KILL.
        Cancelling this stops the waiting only.

        @return: what was signalled, when nothing of it is left; nothing for a
            script that had ended.
        """


class IAuthoriser(Interface):
    """
    Who is asked before something is done.
    """

    async def ask(context: HookContext) -> Verdict:
        """
        Whether it may be done. Never fails: where there is no answer, that is
        a denial.
        """


class IRegistry(Interface):
    """
    The agents that a dispatcher knows.
    """

    def get(name: str) -> AgentRecord:
        """
        @raise NotFound: there is no agent of this name.
        @raise StoreError: there is, and its record can not be read.
        """

    def put(record: AgentRecord) -> None:
        """
        Write a record, over the one of the same name.

        @raise StoreError: it was not written; the old one stays.
        """

    def add(record: AgentRecord) -> None:
        """
        Write the record of an agent that is new, with nobody else's in between.

        @raise Conflict: there is one of the same name; it stays as it is.
        @raise StoreError: it was not written.
        """

    def remove(name: str) -> bool:
        """
        Forget an agent.

        @return: whether there was one.
        @raise StoreError: it could not be removed; it stays.
        """

    def change(name: str, change: Callable[[AgentRecord], AgentRecord]) -> AgentRecord:
        """
        Read a record, change it, and write it, with nobody else's change in
        between. A change of the name moves the record: at every moment there
        is one of the two.

        @return: the record as it is now.
        @raise NotFound: there is no agent of this name.
        @raise Conflict: there is an agent of the new name.
        @raise StoreError: it was not written; the old one stays.
        """

    def names() -> Sequence[str]:
        """
        The names of all agents, sorted; that of an unreadable record too.
        """

    def records() -> tuple[Sequence[AgentRecord], Sequence[StoreError]]:
        """
        All records, sorted by name, and what is wrong with the others.
        """


class ILocks(Interface):
    """
    Which scripts run where: C{host:script} is locked by one run at a time,
    whichever process asked for it.
    """

    def take(hosts: Sequence[str], holder: Holder) -> Held | Busy:
        """
        Lock a script on hosts, on all of them or on none. It does not wait.

        @param hosts: their names in the registry, each once.
        @raise StoreError: the locks can not be used.
        """

    def listed() -> Sequence[LockState]:
        """
        What is locked now, sorted by host and script. Looking disturbs nobody.
        """


class IRunStore(Interface):
    """
    What became of runs, for so long as somebody may ask.
    """

    def put(record: RunRecord) -> None:
        """
        @raise StoreError: it could not be kept.
        """

    def get(reqid: str, now: float) -> RunRecord:
        """
        @param now: unix seconds.
        @raise NotFound: there is no such run, or not any more.
        @raise StoreError: there is, and its record can not be read.
        """

    def change(
        reqid: str, change: Callable[[RunRecord], RunRecord], now: float
    ) -> RunRecord:
        """
        Read a record, change it, and write it, with nobody else's change in
        between. One that stays the same is not written; it lives longer all the
        same as long as something in it is waited for.

        @return: the record as it is now.
        @raise NotFound: there is no such run, or not any more.
        @raise StoreError: it could not be kept; what was there stays.
        """

    def version(reqid: str) -> str:
        """
        What is another one whenever the record of a run has been written. It may
        be asked often, however large the record is.

        @return: empty where there is none.
        """

    def claimed(key: str, now: float) -> KeyClaim | None:
        """
        Which run a key stands for, if it is for one; for a day.

        @param key: 64 hex characters.
        @raise StoreError: nobody can tell.
        """

    def claim(key: str, digest: str, record: RunRecord, now: float) -> KeyClaim:
        """
        Put the first record of a run, and let a key stand for it. Of several at
        the same time one has the key, and the others learn which; of those no
        record is put. There is no key without a record, whenever we are killed.

        @param digest: what the order was.
        @return: what the key stands for now.
        @raise StoreError: the key stands for nothing, or nobody can tell; nothing
            is to be done for it.
        """

    def sweep(now: float) -> int:
        """
        Remove what has expired.

        @return: how many records that were.
        """


class IPairingQueue(Interface):
    """
    The requests that wait for a person's decision. Who listens and who decides
    are different processes, which meet here.
    """

    def add(request: QueuedRequest) -> bool:
        """
        Queue a request.

        @return: whether there was room.
        """

    def pending(now: float) -> Sequence[QueuedRequest]:
        """
        The requests without a decision, the oldest first; those that have
        expired are removed.

        @param now: unix seconds.
        """

    def get(reqid: str, now: float) -> QueuedRequest:
        """
        @raise NotFound: no such request is pending.
        """

    def decide(reqid: str, decision: PairDecision) -> None:
        """
        Write the decision down, for the listener to deliver.

        @raise NotFound: there is no such request any more.
        @raise Conflict: it is decided already.
        """

    def decision(reqid: str) -> PairDecision | None:
        """
        The decision on a request, once there is one.
        """

    def withdraw(reqid: str) -> bool:
        """
        Take back a request, unless it is decided.

        @return: whether that was so; otherwise request and decision stay.
        """

    def remove(reqid: str) -> None:
        """
        Forget a request and its decision.
        """


class IJoinTokens(Interface):
    """
    The join tokens that a dispatcher has made: C{docs/pairing.md}.
    """

    def add(token: JoinToken) -> None:
        """
        Keep a new token.

        @raise StoreError: it could not be kept.
        """

    def redeem(
        claim: Claim, now: datetime, objection: Callable[[JoinToken], str]
    ) -> JoinToken | NotRedeemed:
        """
        Spend one use of a token, for good, if the claim to it is a good one:
        when this returns a token, a crash can not give the use back. Of several
        at the same time each spends one, or none.

        @param objection: what else speaks against it, asked when nothing else
            does; empty for nothing.
        @return: the token, with what is left of it.
        @raise StoreError: the token can not be read or written; nobody gets
            anything for it.
        """

    def listed() -> tuple[Sequence[JoinToken], Sequence[StoreError]]:
        """
        All tokens, the oldest first, those that are over for a while too; and
        what is wrong with those that can not be read.
        """

    def revoke(identity: str) -> None:
        """
        Forget a token: from now on nobody joins with it.

        @raise NotFound: there is none of this id.
        """
