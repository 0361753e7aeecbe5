# SPDX-License-Identifier: AGPL-3.0-only
"""
The dispatcher's side of a pairing, without a transport or a clock; its
counterpart is L{ctrlexec.protocol.pairing}.
"""

from __future__ import annotations

from typing import Protocol

from automat import TypeMachineBuilder, pep614

from ctrlexec.protocol.messages import (
    TIMED_OUT,
    PairDecision,
    PairFailed,
    PairOpened,
    PairPending,
)

#: The answer to an agent that has kept its nonce to itself.
NEVER_REVEALED = PairFailed("never revealed")


class Listener(Protocol):
    """
    Who carries out the dispatcher's side of an exchange.
    """

    def say(self, answer: PairOpened | PairPending | PairFailed | PairDecision) -> None:
        """
        Answer the agent; anything but L{PairOpened} and L{PairPending} is the
        last answer.
        """

    def settled(self, decision: PairDecision | None) -> None:
        """
        The request is out of the queue.

        @param decision: C{None} where the agent went away before one.
        """


class DispatcherInputs(Protocol):
    """
    What can happen to the dispatcher's side.
    """

    def opened(self, opened: PairOpened) -> None:
        """
        The agent has committed to a nonce, and may reveal it.
        """

    def queued(self, pending: PairPending) -> None:
        """
        The request is one to decide on, and is in the queue.
        """

    def refused(self, failed: PairFailed) -> None:
        """
        The request is none to decide on.
        """

    def decided(self, decision: PairDecision) -> None:
        """
        A person has decided.
        """

    def out_of_time(self) -> None:
        """
        Nobody has decided.
        """

    def agent_gone(self) -> None:
        """
        The agent has closed the connection.
        """


_dispatcher = TypeMachineBuilder(DispatcherInputs, Listener)  # type: ignore[type-abstract]
_reading = _dispatcher.state("reading")
_revealing = _dispatcher.state("revealing")
_queued = _dispatcher.state("queued")
_over = _dispatcher.state("over")

_reading.upon(DispatcherInputs.agent_gone).to(_over).returns(None)
_reading.upon(DispatcherInputs.out_of_time).to(_over).returns(None)
_reading.upon(DispatcherInputs.decided).loop().returns(None)
_revealing.upon(DispatcherInputs.opened).loop().returns(None)
_revealing.upon(DispatcherInputs.decided).loop().returns(None)
_revealing.upon(DispatcherInputs.agent_gone).to(_over).returns(None)
_queued.upon(DispatcherInputs.opened).loop().returns(None)
_queued.upon(DispatcherInputs.queued).loop().returns(None)
_queued.upon(DispatcherInputs.refused).loop().returns(None)
_over.upon(DispatcherInputs.opened).loop().returns(None)
_over.upon(DispatcherInputs.queued).loop().returns(None)
_over.upon(DispatcherInputs.refused).loop().returns(None)
_over.upon(DispatcherInputs.decided).loop().returns(None)
_over.upon(DispatcherInputs.out_of_time).loop().returns(None)
_over.upon(DispatcherInputs.agent_gone).loop().returns(None)


@pep614(_reading.upon(DispatcherInputs.opened).to(_revealing))
def _say_opened(
    inputs: DispatcherInputs, listener: Listener, opened: PairOpened
) -> None:
    listener.say(opened)


@pep614(_reading.upon(DispatcherInputs.queued).to(_queued))
@pep614(_revealing.upon(DispatcherInputs.queued).to(_queued))
def _say_pending(
    inputs: DispatcherInputs, listener: Listener, pending: PairPending
) -> None:
    listener.say(pending)


@pep614(_reading.upon(DispatcherInputs.refused).to(_over))
@pep614(_revealing.upon(DispatcherInputs.refused).to(_over))
def _say_refused(
    inputs: DispatcherInputs, listener: Listener, failed: PairFailed
) -> None:
    listener.say(failed)


@pep614(_queued.upon(DispatcherInputs.decided).to(_over))
def _say_decided(
    inputs: DispatcherInputs, listener: Listener, decision: PairDecision
) -> None:
    listener.say(decision)
    listener.settled(decision)


@pep614(_revealing.upon(DispatcherInputs.out_of_time).to(_over))
def _say_too_slow(inputs: DispatcherInputs, listener: Listener) -> None:
    listener.say(NEVER_REVEALED)


@pep614(_queued.upon(DispatcherInputs.out_of_time).to(_over))
def _say_timed_out(inputs: DispatcherInputs, listener: Listener) -> None:
    listener.say(TIMED_OUT)
    listener.settled(TIMED_OUT)


@pep614(_queued.upon(DispatcherInputs.agent_gone).to(_over))
def _withdraw(inputs: DispatcherInputs, listener: Listener) -> None:
    listener.settled(None)


#: Makes the dispatcher's side of one exchange, given its L{Listener}.
dispatcher_side = _dispatcher.build()
