# SPDX-License-Identifier: AGPL-3.0-only
"""
Asking one agent for a run, and staying with it until it is known what became of
it.

Where an answer is lost the agent is asked again, for the answer: nothing is said
of a run before that, and nothing is started twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from io import StringIO

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from ctrlexec.dispatcher.dispatch import NOTHING_KNOWN, Answering, Heard
from ctrlexec.dispatcher.orders import Seen
from ctrlexec.dispatcher.outcomes import (
    answered,
    ended,
    failed,
    nowhere,
    outcome_of,
    unfinished,
)
from ctrlexec.dispatcher.registry import Unknown
from ctrlexec.dispatcher.results import Outcome, RunRow
from ctrlexec.errors import (
    CtrlExecError,
    Forbidden,
    NotFound,
    ProtocolError,
    TransportError,
    Unreachable,
    Untrusted,
)
from ctrlexec.protocol.codec_trust import NoSuchRequest
from ctrlexec.protocol.messages import RunAccepted, RunAnswer, RunFinished, RunRequest
from ctrlexec.protocol.run_messages import (
    FollowRequest,
    NoSuchRun,
    Output,
    RunResult,
    StateChanged,
    StreamEnded,
)
from ctrlexec.values import Target

#: How often an agent is asked whose answer is lost, in seconds.
POLL_SECONDS = 1.0
#: After how long what may be repeated is, in seconds.
RETRY_SECONDS = 1.0

#: Whether a script may be asked for again, of an agent that was not reached.
MayRepeat = Callable[[Target, str], Awaitable[bool]]


@attrs.define(eq=False)
class Kept:
    """
    What a run that is followed has written: the beginning of it is kept, and all
    of it is counted.

    @ivar most: how many characters are kept, of both streams together.
    @ivar ends: how many bytes of each stream have been heard.
    @ivar events: how much has been heard.
    """

    most: int
    ends: dict[str, int] = attrs.field(factory=dict)
    events: int = 0
    _texts: dict[str, StringIO] = attrs.field(factory=dict, init=False)
    _cut: dict[str, int] = attrs.field(factory=dict, init=False)

    @classmethod
    def since(cls, seen: Seen, most: int) -> Kept:
        """
        What comes after what somebody has seen.
        """
        return cls(most, {"stdout": seen.stdout, "stderr": seen.stderr})

    @property
    def seen(self) -> Seen:
        """
        From where to go on.
        """
        return Seen(self.ends.get("stdout", 0), self.ends.get("stderr", 0))

    def take(self, event: Output | StateChanged) -> None:
        """
        Something was heard.
        """
        self.events += 1
        if not isinstance(event, Output):
            return
        stream, kept = event.stream, event.text[: self.most]
        self.most -= len(kept)
        self._texts.setdefault(stream, StringIO()).write(kept)
        before = self.ends.get(stream, 0)
        if len(kept) < len(event.text):
            self._cut.setdefault(stream, before + len(kept.encode()))
        self.ends[stream] = max(before, event.end)

    def text(self, stream: str, total_bytes: int) -> str:
        """
        @param total_bytes: how much the run has written there.
        @return: as L{ctrlexec.output.Captured.text}.
        """
        text = self._texts[stream].getvalue() if stream in self._texts else ""
        if stream not in self._cut:
            return text
        kept = f"{self._cut[stream]} of {max(total_bytes, self.ends[stream])}"
        return f"{text}\n[{stream} cut: {kept} bytes kept]\n"


@attrs.frozen
class Following:
    """
    Stays with runs, one at a time.

    @ivar clock: measures how long an answer takes.
    @ivar patience_seconds: for how long after it was asked, or was last heard of,
        an agent is looked for.
    @ivar most: how many characters of what a run writes are kept.
    """

    agents: Answering
    clock: IReactorTime
    patience_seconds: float
    most: int
    may_repeat: MayRepeat

    async def run(
        self,
        planned: Target | Unknown,
        request: RunRequest,
        heard: Heard | None = None,
    ) -> RunRow:
        """
        Ask an agent to run a script.

        @param heard: is told what it writes, as it comes; C{None} for nobody.
        @return: what became of it; no error is raised.
        """
        row = RunRow(
            host=planned.name,
            script=request.script,
            reqid=request.reqid,
            outcome=Outcome.UNKNOWN,
        )
        if isinstance(planned, Unknown):
            return nowhere(row, planned)
        kept = Kept(self.most)
        at = _At(self, planned, row, kept, heard and noting(kept, heard))
        return await self._timed(row, at.run(request))

    async def attach(
        self, planned: Target | Unknown, row: RunRow, seen: Seen, heard: Heard
    ) -> RunRow:
        """
        Hear what a run writes until it ends.

        @param row: whose run it is.
        @param seen: how much of it somebody has seen.
        @return: what became of it, with what was heard now; no error is raised.
        """
        if isinstance(planned, Unknown):
            return nowhere(row, planned)
        kept = Kept.since(seen, self.most)
        at = _At(self, planned, row, kept, noting(kept, heard))
        return await self._timed(row, at.attach())

    async def _timed(self, row: RunRow, work: Awaitable[RunRow]) -> RunRow:
        since = self.clock.seconds()
        try:
            row = await work
        except CancelledError:
            raise
        except Exception as error:
            # A fault of our own must not hide what the other hosts answered.
            row = failed(row, error)
        taken = self.clock.seconds() - since
        return attrs.evolve(row, rtt_ms=round(taken * 1000))


def noting(kept: Kept, heard: Heard) -> Heard:
    """
    @return: tells somebody what is heard, and has it noted how much that is.
    """

    def noted(event: Output | StateChanged) -> Deferred[None] | None:
        kept.take(event)
        return heard(event)

    return noted


def _is_there(row: RunRow) -> bool:
    return row.outcome is Outcome.RUNNING or row.error is None


@attrs.frozen
class _At:
    """
    One run on one host.

    @ivar row: what is known of it from the start.
    @ivar heard: is told what it writes; C{None} where nobody listens.
    """

    following: Following
    target: Target
    row: RunRow
    kept: Kept
    heard: Heard | None

    async def run(self, request: RunRequest) -> RunRow:
        since = self.following.clock.seconds()
        try:
            answer = await self._asked_for(request)
        except (Unreachable, Untrusted, Forbidden):
            raise
        except (TransportError, ProtocolError) as error:
            found = await self._found_out(error, since, waits=not request.asynchronous)
            if request.asynchronous and _is_there(found):
                return answered(self.row, RunAccepted(request.script, request.reqid))
            return found
        if isinstance(answer, StreamEnded):
            return self._heard_out(answer)
        row = answered(self.row, answer)
        if isinstance(answer, RunFinished) and self.heard is not None:
            # From an agent that can not tell what a script writes as it comes.
            await tell(self.heard, Seen(), row)
        return row

    async def attach(self) -> RunRow:
        try:
            found = await self._followed()
        except (Unreachable, Untrusted, Forbidden):
            raise
        except (TransportError, ProtocolError) as error:
            return await self._found_out(error, self.following.clock.seconds())
        return found or failed(self.row, NotFound(NOTHING_KNOWN))

    # --- the order -------------------------------------------------------

    async def _asked_for(self, request: RunRequest) -> RunAnswer | StreamEnded:
        try:
            return await self._asked_once(request)
        except Unreachable as error:
            # It was not sent: so it has not run, and it may run any number of
            # times.
            unreached = error
        if not await self._may_repeat():
            raise unreached
        await self._pause(RETRY_SECONDS)
        # Somebody may have ended the order meanwhile.
        if not await self._may_repeat():
            raise unreached
        return await self._asked_once(request)

    async def _may_repeat(self) -> bool:
        return await self.following.may_repeat(self.target, self.row.script)

    async def _asked_once(self, request: RunRequest) -> RunAnswer | StreamEnded:
        agents = self.following.agents
        if self.heard is None:
            return await agents.run(self.target, request)
        return await agents.run_live(self.target, request, self.heard)

    # --- when its answer is lost -----------------------------------------

    async def _found_out(
        self, error: CtrlExecError, since: float, *, waits: bool = True
    ) -> RunRow:
        """
        @param error: why there is no answer.
        @param since: when it was asked for, in the clock's seconds.
        @param waits: whether the end of the run is waited for.
        """
        clock, patience = self.following.clock, self.following.patience_seconds
        until = (since if self.heard is None else clock.seconds()) + patience
        row = failed(self.row, error)
        while True:
            events = self.kept.events
            try:
                found = await self._looked_up()
            except (TransportError, ProtocolError):
                # It may be starting again just now.
                pass
            else:
                if found is None:
                    return row
                if found.outcome is not Outcome.RUNNING or not waits:
                    return found
                row = unfinished(self.row, error)
            if self.kept.events > events:
                until = clock.seconds() + patience
            if clock.seconds() >= until:
                return row
            await self._pause(min(POLL_SECONDS, until - clock.seconds()))

    async def _looked_up(self) -> RunRow | None:
        """
        @return: what the agent knows of the run; C{None} if nothing.
        """
        if self.heard is not None:
            try:
                return await self._followed()
            except ProtocolError:
                # It can not tell that, or what it tells makes no sense.
                pass
        try:
            found = await self.following.agents.result(self.target, self.row.reqid)
        except NoSuchRequest:
            # One of the older line keeps nothing.
            return None
        match found:
            case RunResult() as result:
                row = ended(self.row, result)
                if self.heard is not None and row.outcome is not Outcome.RUNNING:
                    # What has come as it was written is not told again.
                    await tell(self.heard, self.kept.seen, row)
                return row
            case NoSuchRun():
                return None

    # --- what it writes --------------------------------------------------

    async def _followed(self) -> RunRow | None:
        assert self.heard is not None
        seen = self.kept.seen
        request = FollowRequest(self.row.reqid, seen.stdout, seen.stderr)
        match await self.following.agents.follow(self.target, request, self.heard):
            case StreamEnded() as end:
                return self._heard_out(end)
            case NoSuchRun():
                return None

    def _heard_out(self, end: StreamEnded) -> RunRow:
        kept = self.kept
        return attrs.evolve(
            self.row,
            outcome=outcome_of(end.state, end.exit),
            exit=end.exit,
            stdout=kept.text("stdout", end.stdout_bytes),
            stderr=kept.text("stderr", end.stderr_bytes),
            reason=end.reason,
        )

    async def _pause(self, seconds: float) -> None:
        await deferLater(self.following.clock, seconds)


async def tell(heard: Heard, seen: Seen, row: RunRow) -> None:
    """
    Let somebody hear at once what a run has written, who has seen some of it.
    """
    for stream, text, start in (
        ("stdout", row.stdout, seen.stdout),
        ("stderr", row.stderr, seen.stderr),
    ):
        whole = text.encode("utf-8", "replace")
        rest = whole[start:].decode("utf-8", "replace")
        if rest:
            waiting = heard(Output(0.0, stream, rest, len(whole)))
            if waiting is not None:
                await waiting
