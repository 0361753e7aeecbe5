# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for C{POST /follow}, and for C{POST /run} with C{stream}.
"""

from __future__ import annotations

import json
from typing import Any

from ctrlexec.agent.trust import TrustedMap
from ctrlexec.hooks import Denied
from ctrlexec.protocol.limits import HEARTBEAT_SECONDS
from tests.agents import HQ, PEER, Told
from tests.authority import DAY
from tests.run_lives import LAB, LivesTestCase

UNKNOWN = (404, {"status": "unknown", "reqid": "r-1"})


def said(events: list[Any], stream: str = "stdout") -> str:
    """
    What a run wrote, as events tell it.
    """
    return "".join(event.get(stream, "") for event in events)


class StreamTests(LivesTestCase):
    """
    C{POST /run} with C{stream}
    """

    def streams(self, **fields: Any) -> Told:
        """
        The stream of a run that was started.
        """
        _, answers = self.wants(stream=True, **fields)
        self.assertEqual(answers.given, [])
        [told] = answers.long
        return told

    def test_life(self) -> None:
        """
        What it writes is told when it writes it, and its end last.
        """
        told = self.streams()
        [run] = self.runner.started
        self.assertEqual(told.events(), [{"t": 0, "state": "running"}])
        self.clock.advance(1.5)
        run.writes(b"out\n")
        self.assertTrue(told.awaited)
        self.assertEqual(told.events(), [{"t": 1.5, "stdout": "out\n", "end": 4}])
        run.writes(b"last")
        run.exits(7)
        self.assertTrue(told.awaited)
        text, end = told.events()
        self.assertEqual((text["stdout"], text["end"]), ("last", 8))
        self.assertEqual(
            end["result"],
            {
                "script": "hello",
                "reqid": "r-1",
                "exit": 7,
                "state": "done",
                "stdout_bytes": 8,
                "stderr_bytes": 0,
            },
        )
        self.assertTrue(told.over)
        self.assertEqual((run.watchers, self.timed()), ([], 0))
        self.assertEqual(self.agent.live, 0)

    def timed(self) -> int:
        """
        How much is left to do later, but to sweep.
        """
        return len(self.timers.getDelayedCalls()) - 1

    def test_slow(self) -> None:
        """
        Who reads when all is over reads all the same; the files are gone by then,
        and were kept for nobody else.
        """
        told = self.streams()
        [run] = self.runner.started
        for _ in range(20):
            run.writes(b"x" * 10_000, b"y" * 10_000)
        run.exits(0)
        self.assertEqual(self.kept(), ["hq/r-1.json"])
        events = told.events()
        self.assertEqual(said(events), "x" * 200_000)
        self.assertEqual(said(events, "stderr"), "y" * 200_000)

    def test_cut(self) -> None:
        """
        What is not kept is said, after all that is.
        """
        self.settle(max_output=5)
        told = self.streams()
        [run] = self.runner.started
        run.writes(b"1234567")
        run.exits(0)
        *events, end = told.events()
        self.assertEqual(said(events), "12345\n[stdout cut: 5 of 7 bytes kept]\n")
        self.assertEqual(end["result"]["stdout_bytes"], 7)

    def test_heartbeat(self) -> None:
        """
        A run that writes nothing is still there, every ten seconds.
        """
        told = self.streams()
        told.events()
        for beat in (1, 2):
            self.clock.advance(HEARTBEAT_SECONDS)
            self.timers.advance(HEARTBEAT_SECONDS)
            if beat > 1:
                self.assertTrue(told.awaited)
                self.assertEqual(told.events(), [{"t": 20}])

    def test_gone(self) -> None:
        """
        Who goes leaves nothing open, and the run goes on.
        """
        exchange, answers = self.wants(stream=True)
        [run] = self.runner.started
        exchange.lost()
        self.assertEqual((run.watchers, self.timed(), run.cancels), ([], 0, 0))
        run.writes(b"x")
        run.exits(0)
        self.assertEqual(answers.long[0].pieces(), [])

    def test_cancelled(self) -> None:
        """
        Who goes cancels it, where that is what they said.
        """
        exchange, _ = self.wants(stream=True, on_disconnect="cancel")
        exchange.lost()
        self.assertEqual(self.runner.started[0].cancels, 1)

    def test_refused(self) -> None:
        """
        What is not started is answered as ever.
        """
        self.authoriser.verdict = Denied("no", 1)
        _, answers = self.wants(stream=True)
        self.assertEqual(answers.given[0][1]["error"], "not authorised: no")
        self.assertEqual(answers.long, [])

    def test_older(self) -> None:
        """
        A peer of HTTP/1.0 can not read it, and waits for the end.
        """
        _, answers = self.wants(streams=False, stream=True)
        self.runner.started[0].exits(0)
        self.assertEqual(answers.given[0][1]["exit"], 0)

    def test_faulty(self) -> None:
        """
        Should nobody know what became of it the stream has no end that could be
        taken for one.
        """
        told = self.streams()
        self.runner.started[0].fails()
        self.assertTrue(told.aborted)
        self.assertFalse(told.over)

    def test_unreadable(self) -> None:
        """
        Where its files can not be read, the end tells all.
        """
        self.runner.spoils = True
        _, answers = self.wants(stream=True)
        self.assertEqual(answers.long, [])
        self.runner.started[0].exits(5)
        [end] = answers.long[0].events()
        self.assertEqual(end["result"]["exit"], 5)


class FollowTests(LivesTestCase):
    """
    C{POST /follow}
    """

    def test_lives(self) -> None:
        """
        A run is followed from where the caller was.
        """
        run = self.detached()
        run.writes(b"0123456789", b"abc")
        self.log.taken()
        _, told = self.follows(stdout=4, stderr=3)
        self.assertEqual(said(told.events()), "456789")
        run.writes(b"!", b"?")
        run.exits(0)
        *events, end = told.events()
        self.assertEqual((said(events), said(events, "stderr")), ("!", "?"))
        self.assertEqual([event["end"] for event in events], [11, 4])
        self.assertIn("result", end)
        line = f"DISPATCHER=hq PEER={PEER} REQID=r-1 STATUS=running"
        self.assertEqual(self.logged("result"), [line])

    def test_ended(self) -> None:
        """
        So is one that has ended, from its record, without the notes in that.
        """
        self.settle(max_output=6)
        run = self.detached()
        run.writes("äöü!".encode(), b"err")
        self.clock.advance(60)
        self.time = self.time.replace(minute=self.time.minute + 1)
        run.exits(126, state="cancelled", reason="cancelled")
        _, told = self.follows(stdout=2)
        events = told.events()
        self.assertEqual(said(events), "öü\n[stdout cut: 6 of 7 bytes kept]\n")
        self.assertEqual(said(events, "stderr"), "err")
        self.assertEqual(events[-1]["t"], 60)
        result = events[-1]["result"]
        self.assertEqual((result["state"], result["exit"]), ("cancelled", 126))
        self.assertEqual(result["stdout_bytes"], 7)

    def test_notText(self) -> None:
        """
        One that wrote what is no text is followed by the byte, too.
        """
        run = self.detached()
        run.writes(b"\xff\xfeab")
        run.exits(0)
        _, told = self.follows(stdout=1)
        first, _ = told.events()
        self.assertEqual((first["stdout"], first["end"]), ("\ufffdab", 4))

    def test_anothers(self) -> None:
        """
        Another dispatcher's run is not there, nor is any other.
        """
        body = {"reqid": "r-1"}
        self.assertEqual(self.answer("POST", "/follow", body), UNKNOWN)
        run = self.detached()
        for _ in "ab":
            answer = self.answer("POST", "/follow", body, certificate=LAB)
            self.assertEqual(answer, UNKNOWN)
            if len(self.agent.runs.table):
                run.exits(0)

    def test_bad(self) -> None:
        """
        What is no request is said to be none.
        """
        bodies: list[object] = [b"", {}, {"reqid": "r-1", "stdout": -1}]
        for body in bodies:
            self.assertEqual(self.answer("POST", "/follow", body)[0], 400)
        self.detached()
        _, answers = self.ask("POST", "/follow", {"reqid": "r-1"}, streams=False)
        self.assertEqual(answers.given, [(400, {"error": "a stream takes HTTP/1.1"})])

    def test_original(self) -> None:
        """
        A run of the original can not be followed, which is not the same as that
        there is none.
        """
        path = self.root / "hq" / "r-1.json"
        path.parent.mkdir(parents=True)
        for status in ("running", "done"):
            path.write_text(json.dumps({"status": status, "reqid": "r-1"}))
            code, answer = self.answer("POST", "/follow", {"reqid": "r-1"})
            self.assertEqual(code, 409)
            self.assertIn("another program", answer["error"])
        path.write_text(json.dumps({"status": "running", "reqid": "r-1"}))
        self.assertEqual(self.answer("POST", "/cancel", {"reqid": "r-1"})[0], 409)

    def test_trustEnds(self) -> None:
        """
        Who is not trusted any more hears no more, at the next word or heartbeat;
        the run goes on.
        """
        run = self.detached()
        before = self.agent.policy
        for changes in (
            {"trusted": TrustedMap({"e1": "lab"})},
            {"trusted": TrustedMap({"d1": "other"})},
            {"revoked": frozenset({"d1"})},
        ):
            self.in_force.policy = before
            _, told = self.follows()
            told.events()
            self.evolve(**changes)
            self.timers.advance(HEARTBEAT_SECONDS)
            self.assertTrue(told.awaited)
            run.writes(b"secret")
            self.assertEqual((told.pieces(), told.aborted), ([], True))
        self.assertEqual(run.cancels, 0)

    def test_expires(self) -> None:
        """
        Nor does who has followed for longer than a certificate lasts.
        """
        self.detached()
        _, told = self.follows()
        told.events()
        self.time = HQ.not_after + DAY
        self.assertEqual((told.pieces(), told.aborted), ([], True))

    def test_leavesNothing(self) -> None:
        """
        Who comes and goes while a run lives is not remembered.
        """
        run = self.detached()
        live = next(iter(self.agent.runs.table))
        for _ in "abc":
            self.follows()[0].lost()
            self.wants()[0].lost()
        self.assertEqual((live.callers, run.watchers), (0, []))
        self.assertEqual(live.finished._waiting, [])
        self.assertEqual(self.agent.live, 0)

    def test_notTrusted(self) -> None:
        """
        That trust ends does not end a run.
        """
        run = self.detached()
        self.evolve(trusted=TrustedMap({"e1": "lab"}))
        self.assertEqual(self.answer("POST", "/follow", {"reqid": "r-1"})[0], 403)
        run.exits(0)
        self.assertEqual(self.kept(), ["hq/r-1.json"])
