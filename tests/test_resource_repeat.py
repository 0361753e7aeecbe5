# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.ordering}: at most once.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from ctrlexec.agent.allowlist import Allowlist
from ctrlexec.agent.running import USED
from ctrlexec.hooks import Allowed, Denied, Verdict
from tests.agents import PEER
from tests.run_lives import LAB, RUN, LivesTestCase


def used(reqid: str = "r-1") -> tuple[int, Any]:
    """
    The answer to a request whose id was another run's.
    """
    return 200, {"script": "hello", "exit": -1, "error": USED, "reqid": reqid}


class RepeatedTests(LivesTestCase):
    """
    The same request once more
    """

    def test_lives(self) -> None:
        """
        While the run lives both wait for it, and it is started once.
        """
        _, first = self.wants()
        self.log.taken()
        _, second = self.wants()
        self.assertEqual(self.logged("run-repeat"), [f"{RUN} SCRIPT=hello"])
        self.assertEqual((first.given, second.given), ([], []))
        [run] = self.runner.started
        run.writes(b"out")
        run.exits(3)
        self.assertEqual(first.given[0][1]["stdout"], "out")
        self.assertEqual(first.given, second.given)

    def test_ended(self) -> None:
        """
        When it has ended the answer is the same as it was; who permits what, and
        how much may run, is not asked again.
        """
        _, first = self.wants()
        self.runner.started[0].exits(126, state="cancelled", reason="cancelled")
        asked = len(self.authoriser.asked)
        self.evolve(allowlist=Allowlist())
        _, second = self.wants()
        self.assertEqual(first.given, second.given)
        self.assertEqual(len(self.authoriser.asked), asked)
        self.assertEqual(len(self.runner.started), 1)

    def test_restarted(self) -> None:
        """
        An agent that was started again knows it from its record.
        """
        _, first = self.wants()
        self.runner.started[0].exits(3)
        self.agent = self.another_agent()
        _, second = self.wants()
        self.assertEqual(first.given, second.given)
        self.assertEqual(len(self.runner.started), 1)

    def test_detached(self) -> None:
        """
        An asynchronous one is accepted again, before its end and after.
        """
        run = self.detached()
        self.detached()
        run.exits(0)
        self.detached()
        self.assertEqual(len(self.runner.started), 1)

    def test_streams(self) -> None:
        """
        One that wants to hear it as it comes hears it from its beginning.
        """
        run = self.detached()
        run.writes(b"early ")
        _, answers = self.wants(stream=True)
        [told] = answers.long
        self.assertEqual([*map(len, told.events())], [2, 3])
        run.writes(b"late")
        run.exits(0)
        text, result = told.events()
        self.assertEqual(text["stdout"], "late")
        self.assertEqual(result["result"]["exit"], 0)
        _, answers = self.wants(stream=True)
        text, result = answers.long[0].events()
        self.assertEqual(text["stdout"], "early late")

    def test_asked(self) -> None:
        """
        While the hook is asked the second waits with the first, and hears what
        the first hears.
        """
        for verdict in (Denied("no", 1), Allowed()):
            thinking: Deferred[Verdict] = Deferred()
            self.authoriser.verdict = thinking
            before = len(self.authoriser.asked)
            waiting = [self.wants()[1], self.wants()[1]]
            self.assertEqual(len(self.authoriser.asked), before + 1)
            thinking.callback(verdict)
            if isinstance(verdict, Allowed):
                [run] = self.runner.started
                run.exits(0)
            first, second = waiting
            self.assertEqual(len(first.given), 1)
            self.assertEqual(first.given, second.given)

    def test_refusedBefore(self) -> None:
        """
        What was refused has used nothing.
        """
        self.authoriser.verdict = Denied("no", 1)
        self.wants()
        self.authoriser.verdict = Allowed()
        self.wants()
        self.assertEqual(len(self.runner.started), 1)

    def test_other(self) -> None:
        """
        An id that was used for something else is not used again, while that lives
        and after.
        """
        for _ in "ab":
            self.wants(args=["a"])
            self.log.taken()
            _, answers = self.wants(args=["b"])
            self.assertEqual(answers.given, [used()])
            line = f'DISPATCHER=hq PEER={PEER} REASON="{USED}" REQID=r-1 SCRIPT=hello'
            self.assertEqual(self.logged("deny"), [line])
            if len(self.agent.runs.table):
                self.runner.started[0].exits(0)
        self.assertEqual(len(self.runner.started), 1)

    def test_owners(self) -> None:
        """
        Two dispatchers may have the same id for two runs.
        """
        self.wants()
        self.wants(certificate=LAB, args=["b"])
        self.assertEqual(len(self.runner.started), 2)

    def test_noId(self) -> None:
        """
        Without a good id each request is one of its own.
        """
        for reqid in ("", "a b"):
            self.wants(reqid)
            self.wants(reqid)
        self.assertEqual(len(self.runner.started), 4)

    def test_original(self) -> None:
        """
        A run of the original's agent is not known well enough to be the same;
        nor is what can not be read.
        """
        path = self.root / "hq" / "r-1.json"
        path.parent.mkdir(parents=True)
        for text in (
            '{"status":"running","reqid":"r-1","script":"hello"}',
            '{"status":"done","reqid":"r-1","script":"hello"}',
            "{",
        ):
            path.write_text(text)
            _, answers = self.wants()
            self.assertEqual(answers.given, [used()])
        self.assertEqual(self.runner.started, [])

    def test_slowDisk(self) -> None:
        """
        Who comes while the claim is being written waits for it.
        """
        writing: Deferred[None] = Deferred()
        self.runner.starting = writing
        first, second = self.wants()[1], self.wants()[1]
        self.assertEqual((first.given, second.given), ([], []))
        writing.callback(None)
        [run] = self.runner.started
        run.exits(0)
        self.assertEqual(first.given, second.given)

    def test_crowded(self) -> None:
        """
        That too much runs is not said to who asks for what runs.
        """
        self.settle(max_runs=1)
        self.wants()
        _, again = self.wants()
        self.assertEqual(again.given, [])
        _, other = self.wants("r-2")
        self.assertEqual(other.given[0][1]["state"], "busy")

    def test_othersPlace(self) -> None:
        """
        However much one dispatcher has running, another can have a run.
        """
        self.settle(max_runs=4)
        answers = [self.wants(f"r-{number}")[1] for number in range(5)]
        busy = [answer.given for answer in answers if answer.given]
        self.assertEqual(len(self.runner.started), 3)
        self.assertEqual(busy[0][0][1]["error"], "busy: 3 runs are going on already")
        self.wants("r-9", certificate=LAB)
        self.assertEqual(len(self.runner.started), 4)


class DisconnectTests(LivesTestCase):
    """
    C{on_disconnect}
    """

    def test_keep(self) -> None:
        """
        A run goes on without its caller, unless they have said otherwise.
        """
        exchange, _ = self.wants()
        exchange.lost()
        self.assertEqual(self.runner.started[0].cancels, 0)

    def test_cancel(self) -> None:
        """
        A run that is of no use to anybody else is cancelled.
        """
        exchange, _ = self.wants(on_disconnect="cancel")
        self.log.taken()
        exchange.lost()
        self.assertEqual(self.runner.started[0].cancels, 1)
        record, why = self.result()[1], "cancelled: the caller went away"
        self.assertEqual((record["state"], record["reason"]), ("cancelled", why))
        self.assertEqual(
            [line for line in self.log.taken() if "run-cancel" in line],
            [
                f"ACTION=run-cancel DISPATCHER=hq PEER={PEER} REASON=disconnect "
                "REQID=r-1 SCRIPT=hello SIGNALLED=1"
            ],
        )

    def test_others(self) -> None:
        """
        Not as long as somebody waits for it, or follows it.
        """
        waits, _ = self.wants(on_disconnect="cancel")
        waits_too, _ = self.wants(on_disconnect="cancel")
        follows, _ = self.follows()
        [run] = self.runner.started
        for each in (waits, follows):
            each.lost()
            self.assertEqual(run.cancels, 0)
        waits_too.lost()
        self.assertEqual(run.cancels, 1)

    def test_answered(self) -> None:
        """
        Who has the answer has not gone away too early.
        """
        exchange, answers = self.wants(on_disconnect="cancel")
        [run] = self.runner.started
        run.exits(0)
        exchange.lost()
        self.assertEqual((run.cancels, len(answers.given)), (0, 1))

    def test_beforeTheStart(self) -> None:
        """
        Nothing is started for who has gone.
        """
        thinking: Deferred[Verdict] = Deferred()
        self.authoriser.verdict = thinking
        exchange, _ = self.wants(on_disconnect="cancel")
        exchange.lost()
        thinking.callback(Allowed())
        self.assertEqual((self.runner.started, len(self.agent.runs.table)), ([], 0))

    def test_stopping(self) -> None:
        """
        An agent that stops has gone itself: the run is looked at by the next one.
        """
        exchange, _ = self.wants(on_disconnect="cancel")
        exchange.stopping = True
        exchange.lost()
        self.assertEqual(self.runner.started[0].cancels, 0)
