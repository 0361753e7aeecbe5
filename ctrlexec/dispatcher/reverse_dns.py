# SPDX-License-Identifier: AGPL-3.0-only
"""
What an address is called, for a person who decides whether to trust it.

Only a hint: whoever owns the address chooses the name, and may let the answer
take for ever (NEWER-LINE.md section 5).
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.python.failure import Failure

#: How long a pairing request waits for the name, in seconds.
LOOKUP_SECONDS = 2.0
#: How many answers may be outstanding; beyond it nothing is asked.
MOST_LOOKUPS = 8


@attrs.frozen
class ReverseName:
    """
    @ivar name: empty where there is none.
    @ivar confirmed: whether the name resolves back to the address.
    """

    name: str = ""
    confirmed: bool = False


def reverse_name(address: str) -> ReverseName:
    """
    Ask the system, which may block for as long as its resolver likes.
    """
    try:
        name, _ = socket.getnameinfo((address, 0), socket.NI_NAMEREQD)
    except (OSError, UnicodeError):
        return ReverseName()
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ReverseName(name)
    return ReverseName(name, any(where[0] == address for *_, where in found))


@attrs.define(eq=False)
class ReverseNames:
    """
    Looks names up without waiting too long for any of them.

    Each lookup has a thread of its own that nobody waits for: in a pool, a few
    slow answers would hold up all other work, and the end of the program.

    @ivar lookup: blocks until it knows the name of an address.
    """

    reactor: IReactorFromThreads
    clock: IReactorTime
    lookup: Callable[[str], ReverseName] = reverse_name
    _outstanding: int = attrs.field(default=0, init=False)

    def __call__(self, address: str) -> Deferred[ReverseName]:
        """
        @return: fires within L{LOOKUP_SECONDS}, and never fails.
        """
        if self._outstanding >= MOST_LOOKUPS:
            return succeed(ReverseName())
        self._outstanding += 1
        answer: Deferred[ReverseName] = Deferred()
        threading.Thread(target=self._ask, args=(address, answer), daemon=True).start()
        answer.addTimeout(LOOKUP_SECONDS, self.clock)
        answer.addErrback(_too_slow)
        return answer

    def _ask(self, address: str, answer: Deferred[ReverseName]) -> None:
        try:
            name = self.lookup(address)
        except Exception:
            # Whatever a resolver does, it is only a hint that is missing.
            name = ReverseName()
        self.reactor.callFromThread(self._answered, answer, name)

    def _answered(self, answer: Deferred[ReverseName], name: ReverseName) -> None:
        self._outstanding -= 1
        # One that took too long has had its answer, and ignores this one.
        answer.callback(name)


def _too_slow(why: Failure) -> ReverseName:
    why.trap(DeferredTimeout)
    return ReverseName()
