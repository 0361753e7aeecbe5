# SPDX-License-Identifier: AGPL-3.0-only
"""
What holds for every run: it is started once, and no further than its host lets
it.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from tests.e2e.installation import hang_up
from tests.e2e.lives import LONG, RunsCase


class LimitTests(RunsCase):
    """
    What C{scripts.conf} says behind a path.
    """

    def test_granted(self) -> None:
        """
        The system holds the script to its limits, and we to what is kept.
        """
        said = "nproc=4000 as=4G nofile=64 cpu=7s max_output=2k"
        self.allow("limited", "#!/bin/sh\ncat /proc/self/limits\n", said)
        hang_up(self.serving)
        self.await_line(self.agent.log, "ACTION=reload")
        answer = self.raw().run("limited")
        for name, value in (
            ("Max processes", "4000"),
            ("Max address space", str(4 * 2**30)),
            ("Max open files", "64"),
        ):
            self.assertRegex(answer["stdout"], rf"{name} +{value} +{value} ")
        # The hard limit is KILL, and does not say why.
        self.assertRegex(answer["stdout"], "Max cpu time +7 +8 ")
        self.allow("much", "#!/bin/sh\nhead -c 5000 /dev/zero\n", "max_output=2k")
        hang_up(self.serving)
        self.await_line(self.agent.log, "ACTION=reload", None, 2)
        cut = self.raw().run("much")["stdout"]
        self.assertTrue(cut.endswith("[stdout cut: 2048 of 5000 bytes kept]\n"), cut)

    def test_misspelt(self) -> None:
        """
        A limit that is none permits nothing; the log and C{self-check} name it.
        """
        self.allow("careless", LONG, "timout=5s")
        hang_up(self.serving)
        line = self.await_line(self.agent.log, "ACTION=config-warn")
        self.assertIn("scripts.conf:4: skipped: invalid annotation", line)
        self.assertIn("timout=5s", line)
        self.await_line(self.agent.log, "ACTION=reload")
        self.assertEqual(self.raw().run("careless")["error"], "script not permitted")
        done = self.end(self.agent.command("self-check"))
        self.assertEqual(done.status, 1, done)
        self.assertIn("timout=5s", done.out)


class OnceTests(RunsCase):
    """
    The same reqid more than once.
    """

    def test_atOnce(self) -> None:
        """
        Many ask at the same moment: it is started once, and all have the same
        answer.
        """
        self.go.touch()
        clients = [self.raw() for _ in range(8)]
        answers: list[object] = []
        together = threading.Barrier(len(clients))

        def ask(index: int) -> None:
            together.wait()
            answers.append(clients[index].run("ends", reqid="same"))

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(clients))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(answers), len(clients))
        self.assertEqual([each for each in answers if each != answers[0]], [])
        self.assertEqual(len(self.agent.lines("ACTION=run-start")), 1)

    def test_otherViews(self) -> None:
        """
        Who asks again in another way sees the same run.
        """
        fields: dict[str, Any] = {"script": "ends", "reqid": "same"}
        self.assertEqual(self.raw().ask("/run", **fields, **{"async": True})[0], 202)
        stream = self.stream("/run", **fields, stream=True)
        stream.until("stdout")
        self.assertEqual(self.raw().ask("/run", **fields, **{"async": True})[0], 202)
        self.go.touch()
        result = stream.until("result")[-1]["result"]
        self.assertEqual((result["exit"], result["state"]), (7, "done"))
        self.assertEqual(self.raw().run(**fields)["exit"], 7)
        again = self.stream("/run", **fields, stream=True).until("result")
        self.assertEqual(
            "".join(event.get("stdout", "") for event in again), "begun\nended\n"
        )
        self.assertEqual(len(self.agent.lines("ACTION=run-start")), 1)

    def test_dated(self) -> None:
        """
        What is dated by hand is as old as that says, when somebody submits something
        (NEWER-LINE.md section 6.1); nothing is forgotten because it is of the future.
        """
        self.go.touch()
        runs = self.agent.home / "state" / "runs"
        for reqid, seconds in (("old", -86_401), ("young", -86_300), ("ahead", 10**9)):
            self.raw().run("ends", reqid=reqid)
            (record,) = runs.rglob(f"{reqid}.json")
            written = time.time() + seconds
            os.utime(record, (written, written))
        fields = {"script": "ends", "reqid": "submitted", "async": True}
        self.assertEqual(self.raw().ask("/run", **fields)[0], 202)
        self.until(lambda: not [*runs.rglob("old.json")], "it is kept")
        self.assertEqual(self.raw().ask("/result/old")[0], 404)
        for reqid in ("young", "ahead"):
            self.assertEqual(self.raw().ask(f"/result/{reqid}")[0], 200)

    def test_busy(self) -> None:
        """
        Of runs that nobody waits for there is one of a script at a time.
        """
        self.reqid_of("long")
        self.started()
        status, answer = self.raw().ask(
            "/run", script="long", reqid="second", **{"async": True}
        )
        self.assertEqual((status, answer["status"]), (409, "busy"))
        self.assertEqual(answer["error"], "script already running")
        done = self.end(self.ctrl_exec("run", "agent-one", "long", "--async"))
        self.assertEqual(done.status, 1, done)
        self.assertIn("BUSY", done.out)
