# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.lifecycle}: what an approval needs to know about
the code that was compared.
"""

from __future__ import annotations

import attrs

from ctrlexec.errors import Conflict
from tests.authority import CA
from tests.dispatching import REQID, protected, request
from tests.test_lifecycle import TrustTestCase


class CodeTests(TrustTestCase):
    """
    The exchange of the original, and another CA.
    """

    def test_legacy(self) -> None:
        """
        A request of the original's exchange needs somebody who knows what its
        code does not protect, and is told.
        """
        self.asks(request())
        error = self.assertRaises(Conflict, self.trust.approve, REQID)
        self.assertIn("swap the CA", str(error))
        self.assertIn(f"approve --legacy {REQID}", error.hint)
        self.assertUntouched()
        self.trust.approve(REQID, legacy=True)
        self.assertTrue(self.trust.is_registered("agent-one"))
        self.assertIn(" EXCHANGE=legacy ", self.log.events[-1].line())

    def test_otherCa(self) -> None:
        """
        What the agent would get is of the CA that its code covers, or it gets
        nothing.
        """
        asked = protected(self.trust.authority)
        assert asked.revealed is not None
        seen = attrs.evolve(asked.revealed, ca=CA.decode())
        self.asks(attrs.evolve(asked, revealed=seen))
        error = self.assertRaises(Conflict, self.trust.approve, REQID)
        self.assertIn("the CA is not the one", str(error))
        self.assertUntouched()
