# SPDX-License-Identifier: AGPL-3.0-only
"""
A host that is stolen, and what everybody else makes of its certificate.
"""

from __future__ import annotations

import json

from tests.e2e.installation import EndToEndCase


class RevocationTests(EndToEndCase):
    """
    A dispatcher and three agents, one of which is off
    """

    def test_revoke(self) -> None:
        """
        The dispatcher speaks to the stolen one no more, the others know it, and
        the one that is off learns it later; it outlasts a restart there.
        """
        stolen, here, off = self.paired("stolen-one", "here-one", "off-one")
        for agent in (stolen, here):
            agent.serve()
        answer = self.json("revoke", "stolen-one", "--reason", "gone")
        self.assertFalse(answer["ok"])
        results = {row["host"]: row["result"] for row in answer["results"]}
        self.assertEqual(results["here-one"], "acknowledged")
        self.assertNotEqual(results["off-one"], "acknowledged")
        self.assertNotIn("stolen-one", results)
        (row,) = self.json("ping", "stolen-one")["results"]
        self.assertEqual(row["error"], "certificate revoked")
        self.assertEqual(len(here.lines("ACTION=revocations ")), 1)
        held = json.loads((here.home / "state/revocations.json").read_text())
        (listed,) = held["ca"].values()
        self.assertEqual(listed["serials"], answer["serials"])
        off.serve()
        pushed = self.json("revoke", "--push")
        self.assertEqual([row["host"] for row in pushed["results"]], ["off-one"])
        self.assertTrue(pushed["ok"])
