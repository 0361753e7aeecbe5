# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.reverse_dns}.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NoReturn

import attrs
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from ctrlexec.dispatcher.reverse_dns import (
    MOST_LOOKUPS,
    ReverseName,
    ReverseNames,
    reverse_name,
)

FOUND = ReverseName("agent-one.example", True)


@implementer(IReactorFromThreads)
@attrs.define
class Reactor:
    """
    A reactor that is told things by threads, and remembers them.
    """

    calls: list[tuple[Callable[..., object], tuple[Any, ...]]] = attrs.field(
        factory=list
    )
    told: threading.Semaphore = attrs.field(factory=lambda: threading.Semaphore(0))

    def callFromThread(
        self, callable: Callable[..., Any], *args: object, **kwargs: object
    ) -> None:
        """
        Remember it.
        """
        self.calls.append((callable, args))
        self.told.release()

    def callInThread(self, *args: Any) -> NoReturn:
        """
        A pool is not asked for.
        """
        raise NotImplementedError

    def turn(self, count: int = 1) -> None:
        """
        Wait for so many calls, and make them.
        """
        for _ in range(count):
            self.told.acquire()
            call, args = self.calls.pop(0)
            call(*args)


class ReverseNamesTests(SynchronousTestCase):
    """
    Names within a time.
    """

    def setUp(self) -> None:
        """
        A resolver that waits until it may answer.
        """
        self.clock, self.reactor = Clock(), Reactor()
        self.may_answer = threading.Event()
        self.addCleanup(self.may_answer.set)
        self.names = ReverseNames(self.reactor, self.clock, self.slowly)

    def slowly(self, address: str) -> ReverseName:
        """
        A lookup.
        """
        self.may_answer.wait()
        if address == "broken":
            raise ValueError(address)
        return FOUND

    def test_found(self) -> None:
        """
        The name comes when the resolver has it.
        """
        answer = self.names("192.0.2.1")
        self.assertNoResult(answer)
        self.may_answer.set()
        self.reactor.turn()
        self.assertEqual(self.successResultOf(answer), FOUND)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_tooSlow(self) -> None:
        """
        Nobody waits longer than two seconds for a hint.
        """
        answer = self.names("192.0.2.1")
        self.clock.advance(2)
        self.assertEqual(self.successResultOf(answer), ReverseName())
        self.may_answer.set()
        self.reactor.turn()

    def test_broken(self) -> None:
        """
        A resolver that fails in whatever way is one without an answer.
        """
        answer = self.names("broken")
        self.may_answer.set()
        self.reactor.turn()
        self.assertEqual(self.successResultOf(answer), ReverseName())

    def test_tooMany(self) -> None:
        """
        Slow answers can not use up the machine's threads; when they have come,
        there is room again.
        """
        for _ in range(MOST_LOOKUPS):
            self.assertNoResult(self.names("192.0.2.1"))
        self.assertEqual(self.successResultOf(self.names("x")), ReverseName())
        self.may_answer.set()
        self.reactor.turn(MOST_LOOKUPS)
        answer = self.names("192.0.2.1")
        self.reactor.turn()
        self.assertEqual(self.successResultOf(answer), FOUND)


class ReverseNameTests(SynchronousTestCase):
    """
    The system's own resolver.
    """

    def test_noAddress(self) -> None:
        """
        What is no address has no name.
        """
        self.assertEqual(reverse_name("not an address"), ReverseName())
