# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.resource}: whose certificate is good for what.
"""

from __future__ import annotations

from ctrlexec.certificates import AgentRole
from tests.agents import SIBLING, STRANGER, ResourceTestCase, holder

#: All that an agent answers.
ENDPOINTS = {
    "/run": "POST",
    "/ping": "POST",
    "/rotate-serial": "POST",
    "/renew": "POST",
    "/renew-complete": "POST",
    "/revocations": "POST",
    "/capabilities": "GET",
    "/cancel": "POST",
    "/follow": "POST",
    "/runs": "GET",
    "/result/r-1": "GET",
}


class EndpointTests(ResourceTestCase):
    """
    Every endpoint, asked by who must not ask.
    """

    def test_all(self) -> None:
        """
        None of them is missing here.
        """
        routes = {path: method for method, path in self.agent.routes}
        # Its path has no end of its own.
        self.assertEqual({**routes, "/result/r-1": "GET"}, ENDPOINTS)

    def test_refused(self) -> None:
        """
        No agent gives orders, whether or not its name or its serial is that of a
        dispatcher; nor does whoever is not trusted, or shows no certificate.
        """
        before = self.agent.policy
        body = {"script": "hello", "reqid": "r-1", "serial": "ab", "action": "add"}
        posing = holder(AgentRole("hq")), holder(AgentRole("hq"), serial="e9")
        for path, method in ENDPOINTS.items():
            for certificate in (SIBLING, *posing, STRANGER, None):
                code, fields = self.answer(
                    method,
                    path,
                    body if method == "POST" else None,
                    certificate=certificate,
                )
                self.assertEqual((path, code), (path, 403))
                self.assertEqual(set(fields) - {"error", "reqid", "status"}, set())
        self.assertEqual(self.runner.started, [])
        self.assertIs(self.agent.policy, before)
