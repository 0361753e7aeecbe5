# SPDX-License-Identifier: AGPL-3.0-only
"""
What the hosts of a run write, for programs, as it comes: server-sent events, as
the HTML standard has them.

Each has an id from which a client that was cut off goes on
(L{ctrlexec.api.marks}). A client that reads slowly has its agents wait: of what
is on its way to it there is a piece a host at the most.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from ctrlexec.api.http import ApiRequest
from ctrlexec.api.lines import Lines
from ctrlexec.api.marks import Progress
from ctrlexec.api.watching import Presence
from ctrlexec.api.work import Streams
from ctrlexec.dispatcher.results import Outcome, Report, RunRow, run_fields
from ctrlexec.errors import Overload
from ctrlexec.protocol.codec import to_json
from ctrlexec.protocol.run_messages import STATES, Output, StateChanged

CONTENT_TYPE = "text/event-stream"
#: How often a client that is told nothing hears that it is not forgotten.
HEARTBEAT_SECONDS = 15.0
#: How long it may take over what is on its way to it.
READ_SECONDS = 600.0
#: When a client that was cut off should come again, in milliseconds.
RETRY_MS = 1000

#: Follows a run to its end, and has an L{EventStream} watch.
Follow = Callable[[], Coroutine[Deferred[Any], Any, Report[RunRow]]]


class EventStream(Resource):
    """
    The events of a run: a L{Watcher<ctrlexec.dispatcher.results.Watcher>}, and
    the answer that it makes of what it is told.

    @ivar begun: fires once there is something to follow; fails with why there
        is not.
    """

    isLeaf = True

    def __init__(
        self, client: Presence, progress: Progress, clock: IReactorTime
    ) -> None:
        super().__init__()
        self.begun: Deferred[None] = Deferred()
        self._client = client
        self._progress = progress
        self._lines = Lines(client.request, CONTENT_TYPE)
        self._lines.say(lambda: b"retry: %d\n\n" % RETRY_MS)
        self._beat = LoopingCall(self._heartbeat)
        self._beat.clock = clock
        self._is_over = False

    def render(self, request: ApiRequest) -> int:
        """
        Begin the answer.
        """
        request.setHeader("cache-control", "no-store")
        # Some that stand in between would rather hand it on in one piece.
        request.setHeader("x-accel-buffering", "no")
        assert request.channel is not None
        request.channel.take_time(READ_SECONDS)
        self._lines.begin()
        if not self._is_over:
            self._beat.start(HEARTBEAT_SECONDS, now=False)
        return NOT_DONE_YET

    def follow(self, streams: Streams, follow: Follow, caller: str) -> None:
        """
        Follow the run until it ends, or the client leaves.

        @param caller: for whom, as L{Streams.begin} wants it.
        @raise Overload: so many are followed already.
        """
        following = streams.begin(follow, caller)
        following.addCallbacks(self._ended, self._failed)
        self._client.on_leaving = following.cancel
        if self._client.has_left:
            following.cancel()

    # What the watcher of an order is told.

    def wanted(self) -> bool:
        """
        See L{Watcher<ctrlexec.dispatcher.results.Watcher>}, as for the others.
        """
        # Who asks for the header has it without any host.
        return not self._lines.left and self._client.request.method != b"HEAD"

    def planned(self, hosts: int, reqid: str = "") -> None:
        """
        There is such a run, and the client may know.
        """
        if not self.begun.called:
            self.begun.callback(None)

    def asked(self, host: str) -> None:
        """
        Nobody is told.
        """

    def heard(self, host: str, event: Output | StateChanged) -> Deferred[None] | None:
        """
        Tell the client.
        """
        if self._progress.has_ended(host):
            return None
        match event:
            case Output(seconds, stream, text, end):
                self._progress.heard(host, stream, end)
                data = {"host": host, "t": seconds, stream: text, "end": end}
                return self._tell(stream, data)
            case StateChanged(state=state) if state not in STATES:
                # That is for people.
                return None
            case StateChanged(seconds, state):
                data = {"host": host, "t": seconds, "state": state}
                return self._tell("state", data)

    def arrived(self, row: RunRow) -> None:
        """
        Tell the client, once.
        """
        if self._progress.has_ended(row.host):
            return
        if not _may_go_on(row):
            self._progress.end(row.host)
        self._lines.say(partial(_result, self._progress.spelled(), row))

    # The answer.

    def _tell(self, name: str, data: Mapping[str, Any]) -> Deferred[None] | None:
        return self._lines.say(partial(_event, name, self._progress.spelled(), data))

    def _heartbeat(self) -> None:
        """
        Who has not read the last things needs no more of them.
        """
        if self._lines.has_room:
            self._lines.say(lambda: b":\n\n")

    def _ended(self, report: Report[RunRow]) -> None:
        self.planned(len(report.rows))
        self._stop()
        data = {"ok": True, "reqid": self._progress.reqid}
        self._lines.end(partial(_event, "done", self._progress.done(), data))

    def _failed(self, failure: Failure) -> None:
        self._stop()
        if not self.begun.called:
            gone = failure.check(CancelledError)
            self.begun.errback(Overload(0) if gone else failure)
        elif failure.check(CancelledError):
            # It goes on from here with another API, or a later one.
            if not self._client.has_left:
                self._lines.end(bytes)
        else:
            self._client.request.processingFailed(failure)

    def _stop(self) -> None:
        self._is_over = True
        if self._beat.running:
            self._beat.stop()


def _may_go_on(row: RunRow) -> bool:
    """
    Whether who comes back may hear more of it.
    """
    match row.outcome:
        case Outcome.UNREACHABLE | Outcome.REFUSED | Outcome.UNKNOWN:
            return row.error is not None
    return row.outcome in (Outcome.RUNNING, Outcome.ACCEPTED)


def _event(name: str, mark: str, data: Mapping[str, Any]) -> bytes:
    head = f"event: {name}\nid: {mark}\ndata: ".encode("ascii")
    return b"%b%b\n\n" % (head, to_json(data))


def _result(mark: str, row: RunRow) -> bytes:
    fields = run_fields(row)
    bare = {k: v for k, v in fields.items() if k not in ("stdout", "stderr")}
    return _event("result", mark, bare)
