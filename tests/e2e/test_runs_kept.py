# SPDX-License-Identifier: AGPL-3.0-only
"""
What a run survives: callers that go away, an agent or a dispatcher that is
killed, a disk that is full; and what is said of one that did not.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
from pathlib import Path

from tests.e2e.installation import hang_up
from tests.e2e.lives import RunsCase, processes

#: The room on a disk that is soon full.
DISK_BYTES = 512 * 1024


class CallerTests(RunsCase):
    """
    Whoever wanted it goes away.
    """

    def go_away(self, view: str, reqid: str, **fields: object) -> None:
        """
        Ask for a run, and be gone once it has begun.
        """
        client = self.raw()
        if view == "stream":
            stream = self.stream(
                "/run", client, script="long", reqid=reqid, stream=True, **fields
            )
            stream.until("stdout")
        else:
            client.begin("/run", script="long", reqid=reqid, **fields)
            self.started()
        assert client.connection.sock is not None
        client.connection.sock.close()
        client.connection.close()

    def test_kept(self) -> None:
        """
        The run goes on, and whoever asks later hears of it.
        """
        for view in ("plain", "stream"):
            self.go_away(view, f"kept-{view}")
            hang_up(self.serving)
            self.await_line(self.agent.log, "ACTION=reload")
            _, record = self.raw().ask(f"/result/kept-{view}")
            self.assertEqual(record["status"], "running")
            self.assertEqual(len(self.alive()), 1)
            self.raw().ask("/cancel", reqid=f"kept-{view}")
            self.assertEqual(self.alive(), [])

    def test_cancelled(self) -> None:
        """
        With C{on_disconnect} it is ended, and nothing of it is left.
        """
        for view in ("plain", "stream"):
            self.go_away(view, f"ended-{view}", on_disconnect="cancel")
            record = self.result(f"ended-{view}")
            self.assertEqual(record["state"], "cancelled", record)
            self.assertEqual(self.alive(), [])


class KilledAgentTests(RunsCase):
    """
    The agent ends while a run lives, and is started again.
    """

    def test_endedMeanwhile(self) -> None:
        """
        It is killed, and the script ends before there is another one: no exit
        status is lost, and no output.
        """
        reqid = self.begun()
        self.kill_agent()
        self.go.touch()
        self.until(lambda: not self.parents(), "it does not end")
        self.restart()
        self.assertAllThere(reqid)

    def test_endsAfterwards(self) -> None:
        """
        The same where the script ends later.
        """
        reqid = self.begun()
        self.kill_agent()
        self.restart()
        _, record = self.raw().ask(f"/result/{reqid}")
        self.assertEqual(record["status"], "running", record)
        self.go.touch()
        self.assertAllThere(reqid)

    def begun(self) -> str:
        """
        A run that nobody waits for, once it has written something.
        """
        reqid = self.reqid_of("ends")
        self.until(lambda: self.written(reqid), "it does not begin")
        return reqid

    def assertAllThere(self, reqid: str) -> None:
        """
        Every way of asking tells how it ended, and what it wrote.
        """
        waited = self.end(self.ctrl_exec("wait", reqid, "--timeout", "20"))
        self.assertEqual(waited.status, 1, waited)
        entry = self.json("status", reqid)["hosts"]["agent-one"]
        self.assertEqual((entry["status"], entry["exit"]), ("done", 7))
        self.assertEqual(entry["stdout"], "begun\nended\n")
        self.assertEqual(entry["stderr"], "complaint\n")
        attached = self.end(self.ctrl_exec("attach", reqid))
        self.assertIn("begun\nended\n", self.ended(attached, 1))

    def test_syncCaller(self) -> None:
        """
        Somebody waits for a plain answer: the dispatcher asks again before it
        says anything, and has all of it.
        """
        asking = self.ctrl_exec("--json", "run", "agent-one", "ends")
        self.await_line(self.agent.log, "ACTION=run-start")
        self.kill_agent()
        self.restart()
        self.go.touch()
        done = self.end(asking)
        (row,) = json.loads(done.out)["results"]
        self.assertEqual((row["exit"], row["state"]), (7, "failed"), done)
        self.assertEqual(row["stdout"], "begun\nended\n")
        self.assertEqual(len(self.agent.lines("ACTION=run-start")), 1)

    def test_follower(self) -> None:
        """
        Somebody looks on: they see the rest, and nothing twice.
        """
        asking = self.ctrl_exec("run", "agent-one", "ends", "--follow")
        assert asking.stdout is not None
        self.until(self.parents, "it does not begin")
        self.kill_agent()
        self.restart()
        self.go.touch()
        done = self.end(asking)
        self.assertEqual(done.status, 1, done)
        self.assertEqual(done.out.count("begun"), 1, done)
        self.assertEqual(done.out.count("ended"), 1, done)

    def test_cancelledAfterwards(self) -> None:
        """
        What the agent before has started, the next one can end.
        """
        reqid = self.reqid_of("long")
        self.started()
        self.kill_agent()
        self.restart()
        self.ended(self.end(self.ctrl_exec("cancel", reqid)))
        self.assertEqual(self.alive(), [])
        self.assertEqual(self.result(reqid)["state"], "cancelled")

    def test_askedAgain(self) -> None:
        """
        The agent after it knows the reqid, and starts nothing.
        """
        fields = {"script": "ends", "reqid": "again", "async": True}
        self.assertEqual(self.raw().ask("/run", **fields)[0], 202)
        self.until(self.parents, "it does not begin")
        self.kill_agent()
        self.restart()
        self.assertEqual(self.raw().ask("/run", **fields)[0], 202)
        self.go.touch()
        answer = self.raw().run("ends", reqid="again")
        self.assertEqual((answer["exit"], answer["stdout"]), (7, "begun\nended\n"))
        self.assertEqual(len(self.agent.lines("ACTION=run-start")), 1)
        other = self.raw().run("long", reqid="again")
        self.assertEqual(other["error"], "request id was used for another run")

    def test_stopped(self) -> None:
        """
        An orderly stop leaves it alone as well, and names it.
        """
        reqid = self.reqid_of("ends")
        self.until(self.parents, "it does not begin")
        self.serving.terminate()
        self.end(self.serving)
        self.assertIn(reqid, self.agent.lines("ACTION=stop ")[-1])
        self.restart()
        self.go.touch()
        record = self.result(reqid)
        self.assertEqual((record["exit"], record["stdout"]), (7, "begun\nended\n"))

    def written(self, reqid: str) -> bool:
        """
        Whether it has written something.
        """
        files = (self.agent.home / "state" / "runs").rglob("stdout")
        return any(file.stat().st_size for file in files if reqid in str(file))


class LostTests(RunsCase):
    def test_lost(self) -> None:
        """
        The host goes down, as far as a test can have it: all that looked after
        the run is killed at once. The next agent says that it is lost, and
        takes orders; a new run of the script is not kept from starting.
        """
        reqid = self.reqid_of("long")
        self.started()
        parents = self.parents()
        self.assertEqual(len(parents), 1)
        self.serving.send_signal(signal.SIGSTOP)
        for pid in (*parents, *self.alive(), *self.scripts()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.kill_agent()
        self.until(lambda: not self.alive(), "it does not end")
        self.restart()
        record = self.result(reqid)
        self.assertEqual((record["status"], record["exit"]), ("done", -1))
        self.assertEqual(record["state"], "lost")
        self.assertTrue(record["stderr"].startswith("lost: "), record)
        done = self.end(self.ctrl_exec("--output", "jsonl", "attach", reqid))
        self.assertEqual(done.status, 3, done)
        row = json.loads(done.out.splitlines()[-1])
        self.assertEqual((row["exit"], row["state"]), (-1, "unknown"), row)
        again = self.reqid_of("long")
        self.ended(self.end(self.ctrl_exec("cancel", again)))

    def scripts(self) -> list[int]:
        """
        The processes of scripts themselves.
        """
        script = str(self.agent.home / "long")
        return [
            pid
            for pid in processes()
            if script in Path(f"/proc/{pid}/cmdline").read_bytes().decode()
        ]


class KilledDispatcherTests(RunsCase):
    def test_followed(self) -> None:
        """
        The command line is killed in the middle of a follow. Another one knows
        the run, shows it from its beginning, and has its exit status.
        """
        asking = self.ctrl_exec("run", "agent-one", "ends", "--follow")
        self.until(self.parents, "it does not begin")
        (run,) = self.until(lambda: self.raw().ask("/runs")[1]["runs"], "nobody has it")
        asking.kill()
        self.end(asking)
        attached = self.ctrl_exec("attach", run["reqid"])
        self.go.touch()
        out = self.ended(self.end(attached), 1)
        self.assertIn("begun\nended\n", out)
        record = self.json("status", run["reqid"])
        self.assertIs(record["complete"], True, record)
        self.assertEqual(record["hosts"]["agent-one"]["exit"], 7)


class FullDiskTests(RunsCase):
    """
    There is no room for runs any more: they are on a disk of their own, which is
    full. Where a test may not have one, what is taken away is the right to write
    longer files.
    """

    def setUp(self) -> None:
        super().setUp()
        self.runs = self.agent.home / "state" / "runs"
        self.runs.mkdir(exist_ok=True)
        unshare = shutil.which("unshare") or "/usr/bin/unshare"
        prefix = [unshare, *([] if os.geteuid() == 0 else ["-Ur"]), "-m"]
        mount = f"mount -t tmpfs -o size={DISK_BYTES} tmpfs {self.runs}"
        probe = subprocess.run([*prefix, "sh", "-c", mount], check=False)
        self.disk = probe.returncode == 0
        if self.disk:
            self.kill_agent()
            self.serving = self.agent.serve(
                *prefix, "sh", "-c", f'{mount} && exec "$0" "$@"'
            )

    def fill(self, leave: int) -> None:
        """
        From now on there is room for so many bytes.
        """
        if self.disk:
            filler = self.filler.open("wb", buffering=0)
            with filler, contextlib.suppress(OSError):
                while filler.write(bytes(4096)):
                    pass
            size = self.filler.stat().st_size
            os.truncate(self.filler, max(size - leave, 0))
            return
        # A run's own files are written by its small parent.
        pids = children_of(self.serving.pid) if leave else [self.serving.pid]
        for pid in pids:
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (leave, hard))

    def clear(self) -> None:
        """
        There is room again.
        """
        if self.disk:
            self.filler.unlink()
            return
        for pid in (self.serving.pid, *children_of(self.serving.pid)):
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))

    @property
    def filler(self) -> Path:
        """
        What takes all the room, on the agent's disk.
        """
        return Path(f"/proc/{self.serving.pid}/root{self.runs}/filler")

    def test_beforeTheStart(self) -> None:
        """
        What nobody waits for is not started, since its claim can not be written.
        What somebody waits for runs, and is known by its id as long as the agent
        lives, and longer when there is room again.
        """
        self.fill(0)
        fields = {"script": "long", "reqid": "detached", "async": True}
        status, answer = self.raw().ask("/run", **fields)
        self.assertEqual((status, answer["exit"]), (200, -1), answer)
        self.assertEqual(answer["error"], "could not start async job")
        self.assertEqual(self.alive(), [])
        self.assertEqual(self.raw().run("show", "x", reqid="here")["exit"], 3)
        self.assertEqual(self.raw().run("show", "x", reqid="here")["exit"], 3)
        self.assertEqual(len(self.agent.lines("ACTION=run-start")), 1)
        self.await_line(self.agent.log, "ACTION=async-store-fail")
        self.clear()
        self.assertEqual(self.raw().ask("/run", **fields)[0], 202)
        self.started()

    def test_duringTheRun(self) -> None:
        """
        What is written after the disk is full is counted and not kept; the
        script goes on to its end, and its exit status is known.
        """
        self.allow("fills", "#!/bin/sh\nhead -c 10000000 /dev/zero\nexit 5\n")
        hang_up(self.serving)
        self.await_line(self.agent.log, "ACTION=reload")
        self.fill(DISK_BYTES // 4)
        answer = self.raw().run("fills", reqid="fills")
        self.assertEqual(answer["exit"], 5)
        self.assertIn("of 10000000 bytes kept", answer["stdout"])
        self.assertLess(len(answer["stdout"]), DISK_BYTES)
        self.clear()
        record = self.result("fills")
        self.assertEqual((record["exit"], record["state"]), (5, "done"))
        self.assertEqual(self.raw().run("show", reqid="after")["exit"], 3)

    def test_byOurselves(self) -> None:
        """
        A run that fills the disk itself says truly how much of its output is kept,
        and leaves room for the next one.
        """
        self.allow("fills", "#!/bin/sh\nyes | head -c 10000000\nexit 5\n")
        hang_up(self.serving)
        self.await_line(self.agent.log, "ACTION=reload")
        if not self.disk:
            self.fill(DISK_BYTES)
        answer = self.raw().run("fills", reqid="fills")
        self.assertEqual(answer["exit"], 5)
        record = self.result("fills")
        kept = record["stdout_kept"]
        noted = f"[stdout cut: {kept} of 10000000 bytes kept]\n"
        self.assertTrue(record["stdout"].endswith(noted), record["stdout"][-99:])
        self.assertEqual(answer["stdout"], record["stdout"])
        self.assertGreater(kept, DISK_BYTES // 8)
        fields = {"script": "long", "reqid": "after", "async": True}
        self.assertEqual(self.raw().ask("/run", **fields)[0], 202)
        self.started()
        self.assertEqual([*self.filler.parent.rglob("fills.run")], [])


def children_of(pid: int) -> list[int]:
    """
    The processes that a process has started itself.
    """
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(word) for word in (task / "children").read_text().split()]
    return found
