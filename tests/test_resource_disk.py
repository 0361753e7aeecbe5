# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.run_archive}: a disk that is full under the run store.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from ctrlexec.agent import run_archive, run_elsewhere, run_store
from ctrlexec.agent.run_ages import KEPT_SECONDS
from ctrlexec.agent.run_store import RunKey
from ctrlexec.agent.run_writing import write_pieces
from ctrlexec.agent.running import PRIVATE_BYTES
from ctrlexec.agent.runs import Ending
from tests.fake_scripts import FakeScript
from tests.run_lives import LivesTestCase


class FullDiskTests(LivesTestCase):
    """
    The store can not be written
    """

    def setUp(self) -> None:
        super().setUp()
        self.memory = self.directory / "memory"
        self.memory.mkdir()
        self.patch(run_elsewhere, "MEMORY", (str(self.memory),))

    def test_detached(self) -> None:
        """
        What nobody waits for can not be started: nobody could hear of it.
        """
        self.fills_disk()
        _, answers = self.wants(waits=False)
        [(code, answer)] = answers.given
        self.assertEqual((code, answer["error"]), (200, "could not start async job"))
        self.assertEqual(answer["exit"], -1)
        self.assertEqual(answer["reason"], "the run store: No space left on device")
        [line] = self.logged("async-store-fail")
        self.assertTrue(line.startswith("ERROR="))
        self.assertTrue(line.endswith("REQID=r-1"))
        self.assertEqual(self.runner.started, [])

    def test_waited(self) -> None:
        """
        What somebody waits for runs all the same, and its answer is whole: it may
        be what clears the disk.
        """
        self.fills_disk()
        _, answers = self.wants()
        [run] = self.runner.started
        self.assertEqual(run.directory.parent.parent, self.memory)
        assert run.order is not None
        self.assertEqual(run.order.max_output, PRIVATE_BYTES)
        run.writes(b"cleared\n")
        run.exits(0)
        self.assertEqual(answers.given[0][1]["stdout"], "cleared\n")
        self.assertEqual(len(self.logged("async-store-fail")), 2)
        self.clears_disk()
        self.agent.runs.sweep()
        self.assertEqual([*self.memory.iterdir()], [])
        self.assertEqual(self.kept(), ["hq/r-1.json"])

    def test_neverLost(self) -> None:
        """
        What became of it is known as long as the agent lives, and is written as
        soon as there is room.
        """
        run = self.detached()
        run.writes(b"out")
        self.fills_disk()
        run.exits(3)
        self.assertEqual(len(self.agent.runs.table), 0)
        record = self.result()[1]
        self.assertEqual((record["exit"], record["stdout"]), (3, "out"))
        # It is not started again, either.
        _, answers = self.wants()
        self.assertEqual(answers.given[0][1]["exit"], 3)
        _, told = self.follows()
        self.assertEqual(told.events()[0]["stdout"], "out")
        self.agent.runs.sweep()
        self.assertEqual(self.result(), (200, record))
        self.clears_disk()
        self.agent.runs.sweep()
        self.assertEqual(json.loads((self.root / "hq/r-1.json").read_bytes()), record)
        self.assertEqual(self.agent.runs.table.unsaved, {})
        self.assertEqual(self.result(), (200, record))

    def test_neverLostElsewhere(self) -> None:
        """
        An agent that is started again knows of both: how the one has ended, which
        could not be written, and that the other, for which there was no room,
        goes on.
        """
        run = self.detached()
        run.writes(b"out")
        self.fills_disk()
        run.exits(3)
        self.wants("r-2")
        second = FakeScript(self.runner.started[1].directory)
        self.runner = type(self.runner)()
        self.runner.left = {
            run.directory: Ending(exit=3, stdout_bytes=3),
            second.directory: second,
        }
        self.clears_disk()
        self.agent = self.another_agent()
        record = self.result()[1]
        self.assertEqual((record["exit"], record["stdout"]), (3, "out"))
        self.assertEqual(self.result("r-2")[1]["status"], "running")
        second.exits(4)
        self.assertEqual(self.result("r-2")[1]["exit"], 4)
        self.assertEqual([*self.memory.iterdir()], [])
        self.assertEqual(self.kept(), ["hq/r-1.json", "hq/r-2.json"])

    def test_unreadable(self) -> None:
        """
        So it is where nobody can read what it wrote: how it has ended is known.
        """
        run = self.detached()
        run.writes(b"out")
        (run.directory / "stdout").unlink()
        (run.directory / "stdout").symlink_to("nowhere")
        run.exits(5)
        record = self.result()[1]
        self.assertEqual(record["exit"], 5)
        self.assertEqual(record["stdout"], "\n[stdout cut: 0 of 3 bytes kept]\n")

    def test_notForEver(self) -> None:
        """
        Even then it is forgotten after its day; one without an id at once.
        """
        run = self.detached()
        self.wants("")
        self.fills_disk()
        run.exits(0)
        _, waiting = self.wants("")
        for each in self.runner.started[1:]:
            each.exits(0)
        self.assertEqual(waiting.given[0][1]["exit"], 0)
        self.assertEqual([*self.agent.runs.table.unsaved], [RunKey("hq", "r-1")])
        self.assertEqual([*self.memory.iterdir()], [])
        self.clock.advance(KEPT_SECONDS + 1)
        self.agent.runs.sweep()
        self.assertEqual(self.agent.runs.table.unsaved, {})

    def test_notTooMany(self) -> None:
        """
        Each takes a descriptor and memory. Where there are too many what became
        of the oldest is not known any more, and it is not started again.
        """
        self.patch(run_archive, "MOST_UNSAVED", 2)
        self.fills_disk()
        before = len(os.listdir("/proc/self/fd"))
        for number in range(5):
            self.wants(f"r-{number}")
            self.runner.started[-1].exits(7)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before + 2)
        self.assertEqual(len([*self.memory.iterdir()]), 2)
        self.assertEqual(self.result("r-4")[1]["exit"], 7)
        self.assertEqual(self.result("r-2")[0], 500)
        self.assertEqual(self.wants("r-2")[1].given[0][1]["exit"], -1)
        self.assertEqual(len(self.runner.started), 5)

    def test_followedThen(self) -> None:
        """
        Who follows one that is forgotten at this moment hears of that one, and of
        no other that is in its place.
        """
        self.fills_disk()
        for reqid in ("r-1", "r-2"):
            self.wants(reqid)
            self.runner.started[-1].writes(reqid.encode())
        self.runner.started[0].exits(0)
        waiting: list[Any] = []

        def in_thread(work: Any, *args: Any) -> Any:
            result: Deferred[Any] = Deferred()
            waiting.append((result, work, args))
            return result

        at_once, self.in_force.in_thread = self.in_force.in_thread, in_thread
        body = {"reqid": "r-1", "stdout": 0, "stderr": 0}
        _, answers = self.ask("POST", "/follow", body)
        self.in_force.in_thread = at_once
        self.patch(run_archive, "MOST_UNSAVED", 0)
        self.runner.started[1].exits(0)
        [(result, work, args)] = waiting
        result.callback(work(*args))
        self.assertEqual(answers.long[0].events()[0]["stdout"], "r-1")

    def test_leftToTheNext(self) -> None:
        """
        Of one whose claim is on disk the next agent finds how it has ended.
        """
        self.patch(run_archive, "MOST_UNSAVED", 0)
        run = self.detached()
        self.fills_disk()
        run.exits(3)
        self.assertEqual(self.result()[0], 500)
        self.runner = type(self.runner)()
        self.runner.left = {run.directory: Ending(exit=3)}
        self.clears_disk()
        self.agent = self.another_agent()
        self.assertEqual(self.result()[1]["exit"], 3)

    def fills_disk_at(self, most_bytes: int) -> None:
        """
        There is room for no more than this.
        """

        def write(path: Path, pieces: Iterable[bytes], durable: bool) -> None:
            whole = b"".join(pieces)
            files = filter(Path.is_file, self.root.rglob("*"))
            sizes = (each.stat().st_size for each in files)
            if sum(sizes) + len(whole) > most_bytes:
                raise OSError(28, "No space left on device")
            write_pieces(path, [whole], durable)

        self.patched = self.patch(run_store, "write_pieces", write)

    def test_byOurselves(self) -> None:
        """
        Where it is what the run has written that fills the disk it makes room for
        its record, which is true, and for the next run.
        """
        run = self.detached()
        run.writes(b"o" * 30_000)
        self.fills_disk_at(31_000)
        run.exits(0, stdout_bytes=9_000_000)
        self.assertEqual(self.agent.runs.table.unsaved, {})
        self.assertEqual(self.kept(), ["hq/r-1.json"])
        record = json.loads((self.root / "hq/r-1.json").read_bytes())
        self.assertEqual(record["stdout_kept"], 10_000)
        noted = "o" * 10_000 + "\n[stdout cut: 10000 of 9000000 bytes kept]\n"
        self.assertEqual(record["stdout"], noted)
        self.assertEqual(self.result(), (200, record))
        self.detached("r-2")

    def test_byOurselvesAndOthers(self) -> None:
        """
        Where there is no room even then, what is left is what is told to be kept.
        """
        run = self.detached()
        run.writes(b"o" * 30_000)
        self.fills_disk()
        run.exits(0, stdout_bytes=9_000_000)
        self.assertEqual(self.result()[1]["stdout_kept"], 10_000)
        self.assertEqual((run.directory / "stdout").stat().st_size, 10_000)
        self.clears_disk()
        self.agent.runs.sweep()
        self.assertEqual(self.kept(), ["hq/r-1.json"])

    def test_otherFaults(self) -> None:
        """
        A store that can not be written for another reason loses nothing.
        """

        def broken(*_: object) -> None:
            raise OSError(5, "Input/output error")

        run = self.detached()
        run.writes(b"o" * 30_000)
        self.patch(run_store, "write_pieces", broken)
        run.exits(0, stdout_bytes=9_000_000)
        self.assertEqual((run.directory / "stdout").stat().st_size, 30_000)

    def test_roomAgain(self) -> None:
        """
        They are written as soon as another one could be.
        """
        self.fills_disk()
        self.wants()
        self.runner.started[0].exits(3)
        self.clears_disk()
        self.assertEqual(self.kept(), [])
        self.wants("r-2")
        self.runner.started[1].exits(0)
        self.assertEqual(self.kept(), ["hq/r-1.json", "hq/r-2.json"])

    def test_bounded(self) -> None:
        """
        Of many such runs less is kept of each.
        """
        self.patch(run_archive, "UNSAVED_RUNS", 1)
        self.patch(run_archive, "CROWDED_BYTES", 2)
        self.patch(run_archive, "UNSAVED_BYTES", 4)
        for reqid in ("r-1", "r-2"):
            self.detached(reqid).writes(b"abcdef")
        self.fills_disk()
        for run in self.runner.started:
            run.exits(0)
        kept = [self.result(reqid)[1]["stdout"] for reqid in ("r-1", "r-2")]
        self.assertEqual([text.splitlines()[0] for text in kept], ["abcd", "ab"])

    def test_nowhere(self) -> None:
        """
        Where there is room nowhere nothing can run.
        """
        self.fills_disk()
        self.memory.rmdir()
        _, answers = self.wants()
        [(_, answer)] = answers.given
        self.assertEqual((answer["exit"], self.runner.started), (-1, []))
        self.assertIn("error", answer)
