# SPDX-License-Identifier: AGPL-3.0-only
"""
A cancel leaves nothing behind, whatever the script does and however it was
started; and it is good at any time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from ctrlexec.certificates import DispatcherRole, read_certificate
from tests.e2e.installation import hang_up
from tests.e2e.lives import GRACE_SECONDS, LONG, RunsCase
from tests.e2e.test_terminal import Operator

#: What a cancel may take beyond the grace, in seconds.
MORE_SECONDS = 1.0

#: How often something is done that went wrong every other time.
TIMES = 8

DEAF = """\
#!/bin/sh
trap '' TERM HUP INT
sleep MARK &
while :; do sleep MARK; done
"""
#: Has let go of its parent, its session and its process group.
HIDDEN = """\
#!PYTHON
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        os.close(0), os.close(1), os.close(2)
        os.execv("/bin/sleep", ["sleep", "MARK"])
    os._exit(0)
os.wait()
PAUSE
"""


class ViewTests(RunsCase):
    """
    C{sleep 600}, started through each view.
    """

    def assertEnds(self, cancel: Callable[[], object]) -> None:
        """
        A cancel leaves no process behind within the grace and a second.
        """
        self.started()
        begun = time.monotonic()
        cancel()
        took = time.monotonic() - begun
        self.assertEqual(self.alive(), [])
        sys.stderr.write(f"[cancelled in {took:.3f} s] ")
        # A machine that is busy elsewhere starts no program in time.
        self.assertLess(took, GRACE_SECONDS + MORE_SECONDS)

    def by_hand(self) -> None:
        """
        Without the dispatcher: of whatever runs.
        """
        _, answer = self.raw().ask("/runs")
        (run,) = answer["runs"]
        status, answer = self.raw().ask("/cancel", reqid=run["reqid"])
        self.assertEqual((status, answer["status"]), (200, "ok"))
        self.assertEqual(answer["state"], "cancelled")
        self.assertIn("sleep", {each["command"] for each in answer["signalled"]})

    def test_plain(self) -> None:
        """
        Somebody waits for the answer, which says what became of it.
        """
        asking = self.ctrl_exec("--json", "run", "agent-one", "long")
        self.assertEnds(self.by_hand)
        done = self.end(asking)
        self.assertEqual(done.status, 1, done)
        self.assertIn('"cancelled"', done.out)
        self.assertIn("begun", done.out)

    def test_async(self) -> None:
        """
        Nobody does.
        """
        reqid = self.reqid_of("long")
        self.assertEnds(self.by_hand)
        self.assertEqual(self.result(reqid)["state"], "cancelled")
        self.assertEqual(self.end(self.ctrl_exec("wait", reqid)).status, 1)

    def test_follow(self) -> None:
        """
        Somebody looks on.
        """
        asking = self.ctrl_exec("run", "agent-one", "long", "--follow")
        self.assertEnds(self.by_hand)
        done = self.end(asking)
        self.assertEqual(done.status, 1, done)
        self.assertIn("begun", done.out)
        self.assertIn("cancelled", done.out + done.err)

    def test_commandLine(self) -> None:
        """
        The operator's own command names what was signalled.
        """
        reqid = self.reqid_of("long")
        self.started()
        out = self.ended(self.end(self.ctrl_exec("cancel", reqid, "agent-one")))
        self.assertEqual(self.alive(), [])
        self.assertIn("sleep", out)

    def test_api(self) -> None:
        """
        Through the HTTP API, where the answer tells of each host.
        """
        self.serve_api()
        order = {"hosts": ["agent-one"], "script": "long", "async": True}
        answer = self.api_client().ask("POST", "/run", order)
        self.assertEqual(answer.status, 202, answer.body)
        reqid = answer.json()["reqid"]

        def cancel() -> None:
            path = f"/runs/{reqid}/cancel"
            cancelled = self.api_client().ask("POST", path, {})
            self.assertEqual(cancelled.status, 200, cancelled.body)
            self.assertIn("sleep", cancelled.body.decode())

        self.assertEnds(cancel)
        status = self.api_client().ask("GET", f"/status/{reqid}").json()
        self.assertIs(status["complete"], True, status)

    def test_waitedForInTheApi(self) -> None:
        """
        Somebody waits for the answer of the API, and another one cancels.
        """
        self.serve_api()
        waiting = self.api_client()
        waiting.begin("POST", "/run", {"hosts": ["agent-one"], "script": "long"})
        self.assertEnds(self.by_hand)
        (row,) = waiting.answer().json()["results"]
        self.assertEqual(row["state"], "cancelled", row)

    def test_interrupted(self) -> None:
        """
        At a terminal Ctrl-C offers C{c}, which ends it.
        """
        program = self.program("run", "agent-one", "long")
        operator = Operator.running(self, program)
        operator.sees("begun")
        operator.types("\x03")
        operator.sees("c cancels it")
        operator.types("c\n")
        self.assertEqual(operator.status(), 130, operator.seen)
        self.assertIn("cancelled", operator.seen)
        self.assertEqual(self.alive(), [])

    def program(self, *words: str) -> list[str]:
        """
        A command for a terminal.
        """
        from tests.e2e.installation import BIN

        return [str(BIN / "ctrl-exec"), "--config", str(self.settings), *words]


class ScriptTests(RunsCase):
    """
    Scripts that do not want to end.
    """

    def cancelled(self, name: str, text: str, count: int) -> None:
        """
        Cancel one; nothing of it is left, by the answer and by the system.
        """
        text = text.replace("PYTHON", sys.executable)
        self.allow(name, text)
        hang_up(self.serving)
        self.await_line(self.agent.log, "ACTION=reload")
        reqid = self.reqid_of(name)
        self.started(count)
        begun = time.monotonic()
        _, answer = self.raw().ask("/cancel", reqid=reqid)
        sys.stderr.write(f"[cancelled in {time.monotonic() - begun:.3f} s] ")
        self.assertEqual(self.alive(), [])
        self.assertEqual(answer["state"], "cancelled")
        self.signals = {each["signal"] for each in answer["signalled"]}

    def test_deaf(self) -> None:
        """
        One that ignores TERM, and what it has started and so does, is killed
        after the grace.
        """
        self.cancelled("deaf", DEAF, 2)
        self.assertEqual(self.signals, {"KILL"})

    def test_hidden(self) -> None:
        """
        What has let go of its parent, in a session of its own, ends as well.
        """
        self.cancelled("hidden", HIDDEN.replace("PAUSE", "time.sleep(MARK)"), 1)
        self.assertEqual(self.signals, {"TERM"})

    def test_leftBehind(self) -> None:
        """
        A run ends with its script. What that has left behind on purpose goes on,
        and a cancel that comes then changes nothing.
        """
        quick = HIDDEN.replace("PAUSE", "sys.exit(4)").replace("PYTHON", sys.executable)
        self.allow("quick", quick)
        hang_up(self.serving)
        self.await_line(self.agent.log, "ACTION=reload")
        for number in range(TIMES):
            reqid = f"quick-{number}"
            self.assertEqual(self.raw().run("quick", reqid=reqid)["exit"], 4)
            _, answer = self.raw().ask("/cancel", reqid=reqid)
            self.assertEqual((answer["state"], answer["signalled"]), ("done", []))
        self.started(TIMES)

    def test_timeout(self) -> None:
        """
        The shorter of the two limits ends it, and says so; the command line has
        a status of its own for that.
        """
        self.allow("short", LONG, "timeout=1s")
        hang_up(self.serving)
        self.await_line(self.agent.log, "ACTION=reload")
        for words, said in (
            (["short", "--timeout", "1m"], "timed out after 1s"),
            (["long", "--timeout", "2s"], "timed out after 2s"),
        ):
            done = self.end(self.ctrl_exec("run", "agent-one", *words))
            self.assertEqual(done.status, 124, done)
            self.assertIn(said, done.out + done.err)
            self.assertEqual(self.alive(), [])
        answer = self.raw().run("short", reqid="short")
        self.assertEqual((answer["state"], answer["stdout"]), ("timed_out", "begun\n"))
        self.assertTrue(answer["stderr"].endswith("[timed out after 1s]\n"), answer)


class OrderTests(RunsCase):
    """
    A cancel at any time.
    """

    def test_beforeTheStart(self) -> None:
        """
        One that comes before its run keeps it from being started.
        """
        self.assertEqual(self.raw().ask("/cancel", reqid="early")[0], 404)
        answer = self.raw().run("long", reqid="early")
        self.assertEqual((answer["exit"], answer["state"]), (-1, "cancelled"))
        self.assertEqual(answer["error"], "cancelled before it was started")
        self.assertEqual(self.agent.lines("ACTION=run-start"), [])

    def test_twice(self) -> None:
        """
        Two at once both wait until nothing is left, and a third hears how it
        ended.
        """
        self.reqid_of("long")
        self.started()
        _, answer = self.raw().ask("/runs")
        reqid = answer["runs"][0]["reqid"]
        first, second = self.raw(), self.raw()
        first.begin("/cancel", reqid=reqid)
        second.begin("/cancel", reqid=reqid)
        for client in (first, second):
            status, answer = client.answer()
            self.assertEqual((status, answer["state"]), (200, "cancelled"))
            self.assertEqual(self.alive(), [])
        status, answer = self.raw().ask("/cancel", reqid=reqid)
        self.assertEqual((status, answer["state"]), (200, "cancelled"))
        self.assertEqual(answer["signalled"], [])

    def test_afterTheEnd(self) -> None:
        """
        One that comes after the end says how it ended, and changes nothing.
        """
        self.raw().run("show", reqid="over")
        status, answer = self.raw().ask("/cancel", reqid="over")
        self.assertEqual((status, answer["state"]), (200, "done"))
        self.assertEqual(answer["signalled"], [])
        self.assertEqual(self.raw().ask("/result/over")[1]["exit"], 3)

    def test_anotherDispatcher(self) -> None:
        """
        To another dispatcher a run looks as one that never was, and goes on.
        """
        identity = self.credentials(DispatcherRole("lab"))
        serial = read_certificate(identity[0].read_bytes()).serial
        trusted = self.agent.home / "state" / "ctrl-exec-dispatchers"
        trusted.write_text(f"{trusted.read_text()}{serial} lab\n")
        hang_up(self.serving)
        self.await_line(self.agent.log, "ACTION=reload")
        reqid = self.reqid_of("long")
        self.started()
        other = self.agent.client(*identity)
        for path, fields in (
            (f"/result/{reqid}", {}),
            ("/cancel", {"reqid": reqid}),
            ("/follow", {"reqid": reqid}),
        ):
            status, answer = other.ask(path, **fields)
            self.assertEqual(status, 404, path)
            self.assertEqual(answer, {"status": "unknown", "reqid": reqid})
        _, answer = other.ask("/runs")
        self.assertEqual((answer["runs"], answer["others"]), ([], 1))
        self.assertEqual(len(self.alive()), 1)
        # Its own run of that id is another one.
        self.assertEqual(other.run("show", reqid=reqid)["error"][:9], "cancelled")
        self.raw().ask("/cancel", reqid=reqid)
