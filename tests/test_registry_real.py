# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.registry} with real processes, which write at once.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.registry import FileRegistry
from tests.structure import ROOT

PROGRAM = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import attrs
from pathlib import Path
from ctrlexec.dispatcher.registry import FileRegistry
registry, mine = FileRegistry(Path(sys.argv[1])), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for number in range(1, 41):
    registry.change("agent-one", lambda agent: attrs.evolve(
        agent, port=agent.port + 1, tags={{**agent.tags, mine: str(number)}}
    ))
"""


class AtOnceTests(SynchronousTestCase):
    """
    Several operators at once.
    """

    def test_nothingLost(self) -> None:
        """
        Each change is made to the one before, whoever made that.
        """
        directory = Path(self.mktemp()).absolute()
        registry = FileRegistry(directory)
        registry.put(AgentRecord("agent-one", port=1))
        operators = [
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(directory), name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for name in ("alice", "bob", "carol")
        ]
        for operator in operators:
            self.addCleanup(operator.communicate)
            self.addCleanup(operator.kill)
            assert operator.stdout is not None
            self.assertEqual(operator.stdout.readline(), "ready\n")
        for operator in operators:
            assert operator.stdin is not None
            operator.stdin.write("\n")
            operator.stdin.flush()
        self.assertEqual([operator.wait() for operator in operators], [0] * 3)
        record = registry.get("agent-one")
        self.assertEqual(record.port, 1 + 3 * 40)
        self.assertEqual(record.tags, {"alice": "40", "bob": "40", "carol": "40"})
        self.assertEqual(
            sorted(path.name for path in directory.iterdir()),
            [".registry.lock", "agent-one.json"],
        )
