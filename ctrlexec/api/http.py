# SPDX-License-Identifier: AGPL-3.0-only
"""
Where the API's connections arrive, and what their requests know.

Before a request is routed it is known who is there: on a unix socket, whom the
system says it is (L{ctrlexec.api.callers}). Each request is one line of the
log, whatever became of it.
"""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.python.failure import Failure
from twisted.web.http import NO_BODY_CODES
from twisted.web.resource import IResource, getChildForRequest
from twisted.web.server import Request, Site

from ctrlexec.api.callers import Peer, peer_of
from ctrlexec.api.channel import Channel
from ctrlexec.api.problems import (
    Answer,
    Problem,
    bad_request,
    internal_error,
    no_such_path,
    problem_of,
)
from ctrlexec.errors import CtrlExecError
from ctrlexec.events import ApiFailed, ApiOverloaded, ApiRequested, brief
from ctrlexec.interfaces import IEventSink
from ctrlexec.protocol import limits
from ctrlexec.protocol.listening import plain_address

#: How many connections one of our sockets may have.
CONNECTIONS = 512
#: What is logged of a request whose client left before it was answered.
CLIENT_GONE = 499
#: How long a command line of this host may leave an answer unread.
OPERATOR_SECONDS = 3600.0
#: Where the command lines of this host come in, through the unix socket.
OPERATOR = b"operator"


class ApiRequest(Request):
    """
    A request to the API.

    @ivar peer: who is there; known before the request is routed.
    @ivar body: all that came with it.
    @ivar repeated: what its header says more than once, by name in lower case.
    """

    defaultContentType = b"application/json"
    site: ApiSite
    channel: Channel | None  # type: ignore[assignment]

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel, parsePOSTFormSubmission=False)
        self.site = channel.site  # type: ignore[assignment]
        self.peer = Peer("")
        self.body = b""
        self.repeated = frozenset[str]()

    @property
    def accept(self) -> str:
        """
        What the client would like to be answered with.
        """
        return self.field("accept") or ""

    def field(self, name: str) -> str | None:
        """
        What the header says under a name; C{None} for nothing.
        """
        values = self.requestHeaders.getRawHeaders(name.encode("ascii"))
        return None if values is None else b",".join(values).decode("latin-1")

    def getRequestHostname(self) -> bytes:
        """
        No route depends on what a client calls us.
        """
        return b"api"

    def process(self) -> None:
        """
        Find out who is there, and route the request.
        """
        assert self.content is not None
        self.body = self.content.read()
        self.content.seek(0)
        Deferred.fromCoroutine(self._process()).addErrback(self.processingFailed)

    async def _process(self) -> None:
        assert self.channel is not None
        try:
            self.peer = await self.channel.identified(self.site.identify)
        except CtrlExecError as error:
            self.reply(problem_of(error).answer(self.accept))
            return
        if self._disconnected:
            return
        wrong = _wrong_path(self.path)
        if wrong is None:
            super().process()
        else:
            self.reply(wrong.answer(self.accept))

    def reply(self, answer: Answer) -> None:
        """
        Answer, unless nobody is there any more.
        """
        if not self._disconnected and not self.finished:
            self.write(self.begin(answer))
            self.finish()

    def begin(self, answer: Answer) -> bytes:
        """
        Give all of an answer but its body.

        @return: its body.
        """
        self.setResponseCode(answer.status, answer.reason.encode("ascii"))
        if answer.status not in NO_BODY_CODES:
            self.setHeader(b"Content-Type", answer.content_type.encode("ascii"))
            self.setHeader(b"Content-Length", b"%d" % len(answer.body))
        for name, value in answer.headers.items():
            self.setHeader(name.encode("ascii"), value.encode("ascii"))
        return answer.body

    def processingFailed(self, reason: Failure) -> None:
        """
        A fault of ours: the log tells which, the client hears that it was one.
        """
        self.site.failed(self, reason)
        if not self.startedWriting:
            self.reply(internal_error().answer(self.accept))
        elif not self.finished:
            self.loseConnection()

    def connectionLost(self, reason: Failure) -> None:
        """
        The client has left.
        """
        super().connectionLost(reason)
        self.code = CLIENT_GONE
        self.site.log(self)


class ApiSite(Site):
    """
    A socket of the API: its connections, and the log of their requests.

    @param clock: measures what clients take too long for.
    @param in_thread: does work that may block.
    @param operators: what is under C{/operator/}; C{None} for nothing. Only
        for a unix socket.
    """

    noisy = False
    requestFactory = ApiRequest  # type: ignore[assignment]
    reactor: IReactorTime

    def __init__(
        self,
        resource: IResource,
        clock: IReactorTime,
        events: IEventSink,
        in_thread: Callable[..., Awaitable[Any]],
        operators: IResource | None = None,
    ) -> None:
        super().__init__(resource, parsePOSTFormSubmission=False, reactor=clock)
        self.events = events
        self._in_thread = in_thread
        self._operators = operators
        self.body_bytes = 0
        # An operator may look at the first page of a long answer for a while.
        self.read_seconds = OPERATOR_SECONDS if operators else limits.WRITE_SECONDS
        # Those that rest for the longest time are first.
        self._channels: dict[Channel, None] = {}
        self._waiting: list[Deferred[None]] = []

    def startFactory(self) -> None:
        """
        The requests are in our own log.
        """

    def stopFactory(self) -> None:
        pass

    def buildProtocol(self, addr: IAddress | None) -> Channel | None:  # type: ignore[override]
        """
        Make room for one more, if there is anybody who waits for nothing. Who
        reads an answer that is all with the system goes last of those; but who
        never closes must not keep others out.
        """
        if len(self._channels) >= CONNECTIONS and not self._evict():
            live = len(self._channels)
            self.events.emit(ApiOverloaded(plain_address(addr), live))
            return None
        channel = Channel(self)
        self._channels[channel] = None
        return channel

    def _evict(self) -> bool:
        idle = (channel for channel in self._channels if channel.is_idle)
        leaving = (channel for channel in self._channels if channel.is_leaving)
        for channel in (*idle, *leaving):
            channel.abort()
            return True
        return False

    def make_room(self, channel: Channel) -> bool:
        """
        Turn away whoever has been at a body for the longest time: who sends as
        fast as they can is done before it is their turn.
        """
        others = {
            each: each.body_since
            for each in self._channels
            if each.body_since is not None and each is not channel
        }
        if not others:
            return False
        min(others, key=others.__getitem__).give_way()
        return True

    async def identify(self, channel: Channel) -> Peer:
        """
        Who is at the other end.
        """
        assert channel.transport is not None
        return await peer_of(channel.transport, self._in_thread)

    def getResourceFor(self, request: ApiRequest) -> IResource:
        """
        What is behind a request's path.
        """
        assert request.prepath is not None and request.postpath is not None
        root = self.resource
        if self._operators is not None and request.postpath[:1] == [OPERATOR]:
            request.prepath.append(request.postpath.pop(0))
            root = self._operators
        found: IResource = getChildForRequest(root, request)
        return found

    # What is written down.

    def log(self, request: ApiRequest) -> None:  # type: ignore[override]
        """
        A request is over.
        """
        self.events.emit(
            ApiRequested(
                method=method_of(request),
                path=path_of(request),
                peer=request.peer.address,
                len=len(request.body),
                status=request.code,
                user=request.peer.user,
            )
        )

    def refused(self, channel: Channel, answer: Answer) -> None:
        """
        What arrived was no request, or too much of one.
        """
        start = channel.head and channel.head.start
        self.events.emit(
            ApiRequested(
                method=start.method if start else "-",
                path=brief(start.path.partition("?")[0]) if start else "-",
                peer=plain_address(channel.getPeer()),
                len=0,
                status=answer.status,
            )
        )

    def failed(self, request: ApiRequest, reason: Failure) -> None:
        """
        A request met a fault of ours.
        """
        self.events.emit(
            ApiFailed(method_of(request), path_of(request), in_words(reason))
        )

    # Connections.

    def rested(self, channel: Channel) -> None:
        """
        A connection has been of use.
        """
        if channel in self._channels:
            self._channels[channel] = self._channels.pop(channel)

    def ended(self, channel: Channel) -> None:
        """
        A connection is over.
        """
        self._channels.pop(channel, None)
        self._tell()

    def finish(self) -> Deferred[None]:
        """
        Close every connection, once the answer that it is owed is given.

        @return: fires when none is open any more.
        """
        for channel in tuple(self._channels):
            channel.finish()
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        self._tell()
        return waiter

    def abort_all(self) -> None:
        """
        Close every connection, whatever it is in the middle of.
        """
        for channel in tuple(self._channels):
            channel.abort()

    def _tell(self) -> None:
        if not self._channels:
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                waiter.callback(None)


def method_of(request: Request) -> str:
    """
    The method, for the log.
    """
    return request.method.decode("ascii", "replace")


def path_of(request: Request) -> str:
    """
    The path, for the log; without the query, where people put what is secret.
    """
    return brief(request.path.decode("ascii", "replace"))


def in_words(reason: Failure) -> str:
    """
    A fault, for the log: what, and where in the code. What it says about itself
    may hold what a client has sent; the system's own errors do not.
    """
    error = reason.value
    if isinstance(error, CtrlExecError):
        return str(error)
    said = f" ({error.strerror})" if isinstance(error, OSError) else ""
    frames = traceback.extract_tb(reason.getTracebackObject())[-3:]
    where = ", ".join(f"{Path(at.filename).name}:{at.lineno}" for at in frames)
    return f"{type(error).__name__}{said} at {where or 'an unknown place'}"


def _wrong_path(path: bytes) -> Problem | None:
    """
    What Klein would answer in plain text, or take for another path.
    """
    try:
        unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        return bad_request("the path is not UTF-8")
    return no_such_path(path) if path.startswith(b"//") else None
