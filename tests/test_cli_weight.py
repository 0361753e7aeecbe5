# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.cli}: what it loads.
"""

from __future__ import annotations

import subprocess
import sys

from ctrlexec.dispatcher.operator_lines import (
    agent_line,
    asked_line,
    ended_line,
    heard_line,
    planned_line,
    record_line,
    row_line,
)
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.registry import FileRegistry
from ctrlexec.dispatcher.results import CancelRow, PsRow, run_fields
from ctrlexec.dispatcher.run_record import RunRecord
from ctrlexec.protocol.run_messages import LiveRun, Output
from tests.scripted_apis import OK, PINGED, RAN, RemoteTestCase
from tests.structure import ROOT

HEAVY = {"twisted", "cryptography", "OpenSSL", "klein", "ClusterShell"}


class WeightTests(RemoteTestCase):
    """
    What a command line loads is what somebody waits for.
    """

    def loaded(self, *words: str, more: tuple[str, ...] = ()) -> tuple[str, str]:
        """
        @param more: modules that take long enough, too.
        @return: what a command prints, and which of the modules that take
            long it has loaded.
        """
        script = (
            "import sys; from ctrlexec.dispatcher.cli import main; status = main(); "
            "heavy = {name.partition('.')[0] for name in sys.modules}; "
            f"heavy &= {HEAVY | {*more}!r}; "
            "sys.stderr.write(' '.join(sorted(heavy))); sys.exit(status)"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, *words],
            cwd=ROOT,
            env={"USER": "ann", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout, done.stderr.rpartition("\n")[2]

    def test_files(self) -> None:
        """
        Whoever looks at files waits for neither Twisted nor cryptography.
        """
        settings = self.path.with_name("ctrl-exec.conf")
        settings.write_text("state_dir = state\nca_dir = .\nlog = stderr\n")
        registry = FileRegistry(self.path.with_name("state") / "agents")
        registry.put(AgentRecord(hostname="web-1"))
        for words in (
            ("list-agents",),
            ("list-locks",),
            ("run", "web-*", "x", "--dry-run"),
            ("completion", "bash"),
            ("run", "--help"),
        ):
            out, heavy = self.loaded("--config", str(settings), *words)
            self.assertEqual((heavy, bool(out)), ("", True), words)

    def test_socket(self) -> None:
        """
        Nor does whoever has the API do it, whose settings are not even read.
        """
        pinged = (planned_line(1), asked_line("web-1"), row_line(PINGED), ended_line())
        begun = planned_line(1, "a1"), asked_line("web-1")
        heard = heard_line("web-1", Output(0.5, "stdout", "up\n", 3))
        followed = (*begun, heard, row_line(RAN), ended_line())
        live = LiveRun("a1", "backup", "running", "", 1.0)
        running = row_line(PsRow(host="web-1", runs=(live,)))
        ended = row_line(CancelRow(host="web-1", reqid="a1", state="cancelled"))
        record = record_line(
            RunRecord.sync(
                reqid="a1",
                script="backup",
                hosts=("web-1",),
                results=[run_fields(RAN)],
                completed=1,
                submitter=None,
            )
        )
        for words, lines, shown in (
            (("list-agents",), (agent_line(AgentRecord("a")), ended_line()), 3),
            (("ping", "web-1"), pinged, 3),
            (("run", "web-1", "backup", "--follow"), followed, 2),
            (("run", "web-1", "backup", "--async"), followed, 2),
            (("attach", "a1"), followed, 2),
            (("cancel", "a1"), (*begun, ended, ended_line()), 3),
            (("ps",), (*begun, running, ended_line()), 3),
            (("status", "a1"), (record,), 2),
            (("wait", "a1"), (record,), 2),
        ):
            self.api(OK, *lines)
            out, heavy = self.loaded(
                "--socket",
                str(self.path),
                "--config=/no/such.conf",
                *words,
                more=("zope",),
            )
            self.assertEqual((heavy, out.count("\n")), ("", shown), (words, out))
            self.path.unlink()
