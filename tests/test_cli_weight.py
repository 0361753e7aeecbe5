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
    planned_line,
    row_line,
)
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.registry import FileRegistry
from tests.scripted_apis import OK, PINGED, RemoteTestCase
from tests.structure import ROOT


class WeightTests(RemoteTestCase):
    """
    What a command line loads is what somebody waits for.
    """

    def loaded(self, *words: str) -> tuple[str, str]:
        """
        @return: what a command prints, and which of the modules that take
            long it has loaded.
        """
        script = (
            "import sys; from ctrlexec.dispatcher.cli import main; status = main(); "
            "heavy = {name.partition('.')[0] for name in sys.modules}; "
            "heavy &= {'twisted', 'cryptography', 'OpenSSL', 'klein', 'ClusterShell'}; "
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
        for words, lines in (
            (("list-agents",), (agent_line(AgentRecord(hostname="a")), ended_line())),
            (("ping", "web-1"), pinged),
        ):
            self.api(OK, *lines)
            out, heavy = self.loaded(
                "--socket", str(self.path), "--config", "/no/such.conf", *words
            )
            self.assertEqual((heavy, out.count("\n")), ("", 3), words)
            self.path.unlink()
