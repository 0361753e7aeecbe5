# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.following}: what a run writes is heard.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from ctrlexec.dispatcher.following import POLL_SECONDS
from ctrlexec.dispatcher.heard import Kept, tell
from ctrlexec.dispatcher.orders import Seen
from ctrlexec.dispatcher.outcomes import HOW_TO_FIND_OUT, failed
from ctrlexec.dispatcher.results import (
    Outcome,
    RunRow,
)
from ctrlexec.errors import (
    Unreachable,
)
from ctrlexec.protocol.codec_trust import NoSuchRequest
from ctrlexec.protocol.run_messages import (
    ASKED_AGAIN,
    FollowRequest,
    NoSuchRun,
    Output,
    StateChanged,
)
from tests.fake_agents import Told
from tests.followed import (
    LOST,
    PATIENCE,
    ROW,
    RUN,
    WEB_1,
    FollowingCase,
    finished,
    recorded,
    stream_end,
)


class LiveTests(FollowingCase):
    """
    What a run writes is heard as it comes.
    """

    def tells(self, *events: Told) -> None:
        """
        What the agent tells of the run.
        """
        self.agents.lives = {"web-1": events}

    def goes_on(self, *streams: Iterable[Told]) -> None:
        """
        And what each time that it is asked to go on.
        """
        self.agents.follows = {"web-1": [*streams]}

    def test_heard(self) -> None:
        """
        Each event is told, and all of it makes the row.
        """
        events = (
            StateChanged(0.0, "running"),
            Output(0.1, "stdout", "a", 1),
            Output(0.2, "stderr", "oh", 2),
            Output(0.3, "stdout", "b\n", 3),
        )
        self.tells(*events, stream_end(4, stdout_bytes=3, stderr_bytes=2))
        row = self.row(live=True)
        self.assertEqual(self.heard, [*events])
        self.assertEqual(
            (row.outcome, row.exit, row.stdout, row.stderr),
            (Outcome.FAILED, 4, "ab\n", "oh"),
        )

    def test_timedOut(self) -> None:
        """
        So does why it did not end by itself.
        """
        end = stream_end(126, state="timed_out", reason="timed out after 1s")
        self.tells(end)
        row = self.row(live=True)
        self.assertEqual(
            (row.outcome, row.reason), (Outcome.TIMED_OUT, "timed out after 1s")
        )

    def test_canNotTell(self) -> None:
        """
        Of an agent that can not tell it as it comes it is heard at the end, so
        whoever listens hears everybody.
        """
        row = self.row(finished(0), live=True)
        self.assertEqual(
            self.heard,
            [Output(0.0, "stdout", "out", 3), Output(0.0, "stderr", "err", 3)],
        )
        self.assertEqual((row.outcome, row.stdout), (Outcome.OK, "out"))

    def test_slow(self) -> None:
        """
        The agent waits for whoever listens, who need not be quick.
        """
        ready: Deferred[None] = Deferred()
        heard: list[object] = []

        def slowly(event: object) -> Deferred[None]:
            heard.append(event)
            return ready

        self.tells(
            Output(0.1, "stdout", "a", 1), Output(0.2, "stdout", "b", 2), stream_end()
        )
        working = Deferred.fromCoroutine(self.following().run(WEB_1, RUN, slowly))
        self.assertEqual(len(heard), 1)
        ready.callback(None)
        self.assertEqual(self.successResultOf(working).stdout, "ab")

    def test_goesOn(self) -> None:
        """
        When the connection is lost it goes on where it was, and nothing is
        heard twice.
        """
        self.tells(Output(0.1, "stdout", "é", 2), Output(0.1, "stderr", "x", 1), LOST)
        self.goes_on([Output(0.2, "stdout", "b", 3), stream_end()])
        row = self.row(live=True)
        self.assertEqual(
            self.agents.followed, [("web-1", FollowRequest(RUN.reqid, 2, 1))]
        )
        self.assertEqual((row.outcome, row.stdout), (Outcome.OK, "éb"))
        self.assertEqual(len(self.agents.asked), 1)

    def test_goesOnAfterRestart(self) -> None:
        """
        Also while the agent is being started again, however long it has run;
        and each time that something is heard the time begins anew.
        """
        later: Deferred[None] = Deferred()
        self.tells(Output(0.1, "stdout", "a", 1), later, LOST)
        gone = Unreachable("refused")
        self.goes_on(
            [gone],
            [gone],
            [Output(0.2, "stdout", "b", 2), LOST],
            [gone],
            [stream_end()],
        )
        working = self.begin(live=True)
        self.clock.advance(1000)
        later.callback(None)
        self.clock.pump([POLL_SECONDS * n for n in (1, 2, 1, 2)])
        self.assertEqual(self.successResultOf(working).stdout, "ab")

    def test_goneForGood(self) -> None:
        """
        An agent that does not come back leaves a run of which nobody knows.
        """
        self.tells(Output(0.1, "stdout", "a", 1), LOST)
        gone = Unreachable("refused")
        self.goes_on(*([gone] for _ in range(20)))
        self.agents.results = {"web-1": [gone]}
        working = self.begin(live=True)
        self.clock.pump([POLL_SECONDS] * int(PATIENCE))
        row = self.successResultOf(working)
        self.assertEqual(row.outcome, Outcome.UNKNOWN)
        # Not the agent's log: there is more to be had of the agent.
        self.assertEqual(row.hint, HOW_TO_FIND_OUT.format(reqid=RUN.reqid))

    def test_neverThere(self) -> None:
        """
        If the agent knows nothing of it, nobody does.
        """
        self.tells(LOST)
        self.goes_on([NoSuchRun(RUN.reqid)])
        self.assertEqual(self.row(live=True), failed(ROW, LOST))

    def test_original(self) -> None:
        """
        One that can not go on may have it on record, of which the rest is heard.
        """
        self.tells(Output(0.1, "stdout", "a", 1), LOST)
        self.goes_on([NoSuchRequest("the agent answered 404")])
        self.agents.results = {"web-1": [recorded("done", 0, stdout="abc")]}
        row = self.row(live=True)
        self.assertEqual((row.outcome, row.stdout), (Outcome.OK, "abc"))
        self.assertEqual(
            self.heard,
            [
                Output(0.1, "stdout", "a", 1),
                # Whoever listens would hear nothing, and not know why.
                StateChanged(0.0, ASKED_AGAIN),
                Output(0.0, "stdout", "bc", 3),
            ],
        )

    def test_bounded(self) -> None:
        """
        No more is kept than an answer may hold, and it is said how much that
        is; all of it is heard.
        """
        self.most = 10
        events = [
            Output(0.1, "stdout", "12345678", 8),
            Output(0.2, "stdout", "9012", 12),
            Output(0.3, "stderr", "late", 4),
        ]
        self.tells(*events, stream_end(stdout_bytes=20, stderr_bytes=4))
        row = self.row(live=True)
        self.assertEqual(row.stdout, "1234567890\n[stdout cut: 10 of 20 bytes kept]\n")
        self.assertEqual(row.stderr, "\n[stderr cut: 0 of 4 bytes kept]\n")
        self.assertEqual(self.heard, events)

    @given(
        st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.text(max_size=9))),
        st.integers(0, 40),
    )
    def test_anyOutput(self, said: list[tuple[str, str]], most: int) -> None:
        """
        However it comes, the beginning of it is kept, within the bound.
        """
        kept, whole, ends = Kept(most), {"stdout": "", "stderr": ""}, [0, 0]
        for stream, text in said:
            whole[stream] += text
            end = len(whole[stream].encode())
            kept.take(Output(0.0, stream, text, end))
        ends = [len(whole[name].encode()) for name in ("stdout", "stderr")]
        self.assertEqual(kept.seen, Seen(*ends))
        total = 0
        for name, end in zip(("stdout", "stderr"), ends, strict=True):
            text = kept.text(name, end)
            marker = f"\n[{name} cut: "
            bare = text[: text.rindex(marker)] if text.endswith("kept]\n") else text
            if bare == text:
                self.assertEqual(text, whole[name])
            self.assertTrue(whole[name].startswith(bare))
            total += len(bare)
        self.assertLessEqual(total, most)


class AttachTests(FollowingCase):
    """
    Somebody hears a run that has begun before.
    """

    def attach(self, seen: Seen, *events: Told) -> RunRow:
        """
        What becomes of it.
        """
        self.agents.follows = {"web-1": [events] * 2}
        working = self.following().attach(WEB_1, ROW, seen, self.hear)
        return self.successResultOf(Deferred.fromCoroutine(working))

    def test_goesOn(self) -> None:
        """
        From where somebody has left it.
        """
        event = Output(0.2, "stdout", "b", 8)
        row = self.attach(Seen(7, 3), event, stream_end())
        self.assertEqual(
            self.agents.followed, [("web-1", FollowRequest(RUN.reqid, 7, 3))]
        )
        self.assertEqual((row.outcome, row.stdout), (Outcome.OK, "b"))
        self.assertEqual(self.heard, [event])

    def test_unknown(self) -> None:
        """
        An agent that knows nothing of it.
        """
        row = self.attach(Seen(), NoSuchRun(RUN.reqid))
        self.assertEqual(
            (row.outcome, row.error),
            (Outcome.UNKNOWN, "the agent knows of no such run"),
        )

    def test_unreachable(self) -> None:
        """
        One that is not there is not waited for.
        """
        row = self.attach(Seen(), Unreachable("refused"))
        self.assertEqual((row.outcome, row.error), (Outcome.UNREACHABLE, "refused"))

    def test_original(self) -> None:
        """
        One that can not tell may have it on record, and whoever listens hears
        of that what they have not seen.
        """
        self.agents.results = {"web-1": [recorded("done", 0, stdout="abc")]}
        row = self.attach(Seen(1), NoSuchRequest("the agent answered 404"))
        self.assertEqual(row.outcome, Outcome.OK)
        self.assertEqual(self.heard, [Output(0.0, "stdout", "bc", 3)])

    def test_told(self) -> None:
        """
        What is on record is heard from where somebody has left it.
        """
        row = attrs.evolve(ROW, stdout="aéb", stderr="oh")
        Deferred.fromCoroutine(tell(self.hear, Seen(3, 2), row))
        self.assertEqual(self.heard, [Output(0.0, "stdout", "b", 4)])
