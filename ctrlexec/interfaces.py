# SPDX-License-Identifier: AGPL-3.0-only
"""
The seams: what can be had in more than one kind.

A store for several dispatchers will stand behind the same interfaces as the
files of one; every implementation passes the same contract tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import Interface

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctrlexec.agent.allowlist import Script
    from ctrlexec.agent.runs import RunOutcome
    from ctrlexec.dispatcher.records import AgentRecord, QueuedRequest
    from ctrlexec.errors import StoreError
    from ctrlexec.events import Event
    from ctrlexec.hooks import HookContext, Verdict
    from ctrlexec.protocol.messages import PairDecision


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
    What starts scripts.
    """

    async def run(script: Script, context: bytes, args: Sequence[str]) -> RunOutcome:
        """
        Start a script and wait for its end. Every way in which a script can
        fail is an outcome.

        @param context: what the script reads on its standard input.
        @param args: the tail of its argv.
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

    def remove(name: str) -> bool:
        """
        Forget an agent.

        @return: whether there was one.
        @raise StoreError: it could not be removed; it stays.
        """

    def names() -> Sequence[str]:
        """
        The names of all agents, sorted; that of an unreadable record too.
        """

    def records() -> tuple[Sequence[AgentRecord], Sequence[StoreError]]:
        """
        All records, sorted by name, and what is wrong with the others.
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
