# SPDX-License-Identifier: AGPL-3.0-only
"""
Runs with a life, on an agent whose scripts do what a test says.
"""

from __future__ import annotations

from typing import Any

import attrs

from ctrlexec.agent import run_store
from ctrlexec.agent.run_ages import AGES
from ctrlexec.agent.trust import TrustedMap
from ctrlexec.certificates import CertificateInfo
from ctrlexec.protocol.exchange import Exchange
from tests.agents import HQ, PEER, STRANGER, Answers, ResourceTestCase, Told
from tests.fake_scripts import FakeScript

#: Another dispatcher that is trusted.
LAB = STRANGER
WHO = f"DISPATCHER=hq PEER={PEER}"
RUN = f"{WHO} REQID=r-1"


class LivesTestCase(ResourceTestCase):
    """
    An agent that trusts two dispatchers.
    """

    def setUp(self) -> None:
        super().setUp()
        self.evolve(trusted=TrustedMap({"d1": "hq", "e1": "lab"}))
        self.root = self.agent.policy.settings.async_runs_dir

    def settle(self, **changes: Any) -> None:
        """
        Put other settings in force.
        """
        settings = attrs.evolve(self.agent.policy.settings, **changes)
        self.evolve(settings=settings)

    def annotate(self, **changes: Any) -> None:
        """
        Say more of the script that may run.
        """
        allowlist = self.agent.policy.allowlist
        script = attrs.evolve(allowlist.scripts["hello"], **changes)
        self.evolve(allowlist=attrs.evolve(allowlist, scripts={"hello": script}))

    def wants(
        self,
        reqid: str = "r-1",
        certificate: CertificateInfo = HQ,
        streams: bool = True,
        waits: bool = True,
        **fields: Any,
    ) -> tuple[Exchange, Answers]:
        """
        A dispatcher wants C{hello} to run.

        @param waits: whether for its end.
        """
        body = {"script": "hello", "reqid": reqid, "async": not waits, **fields}
        return self.ask("POST", "/run", body, certificate, streams=streams)

    def detached(self, reqid: str = "r-1", **fields: Any) -> FakeScript:
        """
        A run that nobody waits for.
        """
        _, answers = self.wants(reqid, waits=False, **fields)
        accepted = {"script": "hello", "status": "accepted", "reqid": reqid}
        self.assertEqual(answers.given, [(202, accepted)])
        return self.runner.started[-1]

    def result(
        self, reqid: str = "r-1", certificate: CertificateInfo = HQ
    ) -> tuple[int, Any]:
        """
        What is on record of a run.
        """
        return self.answer("GET", f"/result/{reqid}", b"", certificate=certificate)

    def follows(
        self, reqid: str = "r-1", stdout: int = 0, stderr: int = 0, **who: Any
    ) -> tuple[Exchange, Told]:
        """
        A dispatcher follows a run.
        """
        body = {"reqid": reqid, "stdout": stdout, "stderr": stderr}
        exchange, answers = self.ask("POST", "/follow", body, **who)
        self.assertEqual(answers.given, [])
        [told] = answers.long
        self.assertEqual(told.answer.code, 200)
        self.assertEqual(told.answer.content_type, "application/x-ndjson")
        return exchange, told

    def cancels(self, reqid: str = "r-1", certificate: CertificateInfo = HQ) -> Answers:
        """
        A dispatcher wants a run to end.
        """
        return self.ask("POST", "/cancel", {"reqid": reqid}, certificate)[1]

    def logged(self, action: str) -> list[str]:
        """
        What was logged of one kind since the last time.
        """
        prefix = f"ACTION={action} "
        return [
            line.removeprefix(prefix)
            for line in self.log.taken()
            if line.startswith(prefix)
        ]

    def kept(self) -> list[str]:
        """
        What there is in the store of runs.
        """
        return sorted(
            str(path.relative_to(self.root))
            for path in self.root.rglob("*")
            if path.name != AGES and (not path.is_dir() or path.suffix == ".run")
        )

    def fills_disk(self) -> None:
        """
        There is no room for another record.
        """

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        self.patched = self.patch(run_store, "write_pieces", full)

    def clears_disk(self) -> None:
        """
        There is again.
        """
        self.patched.restore()
