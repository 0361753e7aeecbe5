# SPDX-License-Identifier: AGPL-3.0-only
"""
An answer that is made while its client reads it, line by line.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from ctrlexec.api.http import ApiRequest

CONTENT_TYPE = "application/x-ndjson"

#: A line, once somebody takes it.
Spelled = Callable[[], bytes]


@implementer(IPushProducer)
class Lines:
    """
    The lines of an answer. Each is spelled out when its client takes it: one
    that reads slowly costs what it is told of, which is there anyway, and no
    second copy of it. Whoever could tell it more than there is already waits
    until it has taken that.

    @ivar left: whether the client has, or has all that there is.
    """

    def __init__(self, request: ApiRequest, content_type: str = CONTENT_TYPE) -> None:
        self.left = False
        self._request = request
        self._content_type = content_type
        self._waiting: deque[Spelled] = deque()
        self._tellers: deque[Deferred[None]] = deque()
        self._is_paused = True
        self._is_asking = False
        self._has_ended = False

    def begin(self) -> None:
        """
        Tell the client that its order is taken.
        """
        request = self._request
        request.setHeader("content-type", self._content_type)
        request.notifyFinish().addErrback(self._leave)
        request.write(b"")
        self._is_paused = False
        request.registerProducer(self, True)
        self._write()

    @property
    def has_room(self) -> bool:
        """
        Whether what is said next is on its way at once.
        """
        return not self._is_paused and not self._waiting

    def say(self, spelled: Spelled) -> Deferred[None] | None:
        """
        Tell the client something, if it is still there.

        @return: fires when it has taken that, or has left; C{None} for at once.
        """
        if self.left:
            return None
        self._waiting.append(spelled)
        self._write()
        if self.left or self.has_room:
            return None
        teller: Deferred[None] = Deferred()
        self._tellers.append(teller)
        return teller

    def end(self, spelled: Spelled) -> None:
        """
        Tell it the last that there is to tell.
        """
        self._has_ended = True
        self.say(spelled)

    def pauseProducing(self) -> None:
        """
        The client reads slower than we write.
        """
        self._is_paused = True

    def resumeProducing(self) -> None:
        """
        It has read what there was.
        """
        self._is_paused = False
        self._write()

    def stopProducing(self) -> None:
        """
        It has gone; L{_leave} follows.
        """

    def _write(self) -> None:
        while self._waiting and not self._is_paused:
            self._request.write(self._waiting.popleft()())
        self._ask_for_more()
        if self._has_ended and not self._waiting and not self.left:
            self.left = True
            self._request.unregisterProducer()
            self._request.finish()

    def _leave(self, reason: Failure) -> None:
        self.left = True
        self._waiting.clear()
        self._ask_for_more()

    def _ask_for_more(self) -> None:
        """
        One after the other: what each says then can take the room again, and
        they can be many.
        """
        if self._is_asking:
            return
        self._is_asking = True
        while self._tellers and (self.left or self.has_room):
            self._tellers.popleft().callback(None)
        self._is_asking = False
