# SPDX-License-Identifier: AGPL-3.0-only
"""
Agents that join without a person, with real programs.
"""

from __future__ import annotations

import os

from ctrlexec.joining import JoinSecret
from tests.e2e.installation import AgentHome, Done, EndToEndCase


class JoinTests(EndToEndCase):
    """
    A dispatcher whose pairing port is open, and nobody looks.
    """

    def setUp(self) -> None:
        super().setUp()
        self.set_up_dispatcher()
        self.start_pairing()
        self.agent = AgentHome.made(self, "agent-one")

    def joins(self, *words: object, agent: AgentHome | None = None, **how: str) -> Done:
        """
        C{ctrl-exec-agent join}, with more in its environment.
        """
        asking = ("join", "--dispatcher", "127.0.0.1", "--lookup-by", "ip", *words)
        joining = (agent or self.agent).command(*asking, env={**os.environ, **how})
        return self.end(joining)

    def test_whole(self) -> None:
        """
        A token is made, an agent joins with it, and runs what it is told; the
        token is used up then.
        """
        token = self.dispatched("join-token", "create", "--tags", "env=prod").strip()
        file = self.root / "token"
        file.write_text(f"{token}\n")
        file.chmod(0o600)
        done = self.joins("--token-file", file)
        self.assertEqual(done.status, 0, done)
        (record,) = self.json("list-agents")
        self.assertEqual(record["tags"], {"env": "prod"})
        self.agent.serve()
        self.assertIn(
            '"dispatcher":"ops"', self.dispatcher("run", "agent-one", "show").out
        )

        other = AgentHome.made(self, "agent-two")
        done = self.joins(agent=other, CTRL_EXEC_JOIN_TOKEN=token)
        self.assertEqual(done.status, 3, done)
        self.assertIn("join refused", done.err)
        log = self.log.read_text()
        self.assertIn('REASON="the token is used up"', log)
        self.assertIn("ACTION=join ", log)
        self.assertNotIn(token, log)

    def test_refused(self) -> None:
        """
        A token for another host, one that was revoked, and one of another CA
        let nobody in, and the agent stores nothing.
        """
        before = self.agent.files()
        other = self.dispatched("join-token", "create", "--name", "agent-two")
        revoked = self.dispatched("join-token", "create")
        self.dispatched("join-token", "revoke", JoinSecret.parse(revoked).id)
        foreign = JoinSecret.new("sha256:" + "0" * 64).text
        for token, status in ((other, 3), (revoked, 3), (foreign, 1)):
            done = self.joins(token.strip())
            self.assertEqual(done.status, status, done)
            self.assertIn("nothing was stored", done.err)
        found = set(self.agent.files()) - set(before)
        self.assertEqual([name for name in found if "crt" in name or "key" in name], [])
        self.assertEqual(self.json("list-agents"), [])
